/* SPDX-License-Identifier: Apache-2.0 */
/* A server with one epoll loop in C that makes two calls for each request, one after the other. It knows nothing of tracing. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX = 4096 };

/* A connection: a client's, or an own one to the backend. */
struct conn {
	int fd;
	struct conn *peer; /* of one to the backend, the client's whose call it makes */
	char id[64];
	int call;
	char text[8192];
	size_t length;
};

static struct sockaddr_in backend;
static struct conn *idle[MAX];
static int idles;
static int loop;

static void watch(struct conn *c)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};

	if (epoll_ctl(loop, EPOLL_CTL_ADD, c->fd, &e))
		err(1, "epoll_ctl");
}

static struct conn *new_conn(int fd)
{
	struct conn *c = calloc(1, sizeof(*c));
	int one = 1;

	c->fd = fd;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	watch(c);
	return c;
}

static void send_all(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0 && errno != EPIPE && errno != ECONNRESET)
		err(1, "write");
}

static void call(struct conn *client)
{
	struct conn *c;
	char text[256];

	if (idles) {
		c = idle[--idles];
	} else {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (connect(fd, (struct sockaddr *)&backend, sizeof(backend)))
			err(1, "connect");
		c = new_conn(fd);
	}
	c->peer = client;
	snprintf(text, sizeof(text), "GET /call/%s/%d HTTP/1.1\r\nHost: backend\r\n\r\n", client->id, client->call);
	send_all(c->fd, text);
}

/* message returns the length of a whole message, or 0. */
static size_t message(const struct conn *c)
{
	const char *end = strstr(c->text, "\r\n\r\n"), *length = strcasestr(c->text, "content-length:");
	size_t n;

	if (!end)
		return 0;
	n = end + 4 - c->text;
	if (length && length < end)
		n += atoi(length + 15);
	return c->length >= n ? n : 0;
}

static void readable(struct conn *c)
{
	ssize_t n = read(c->fd, c->text + c->length, sizeof(c->text) - 1 - c->length);
	size_t whole;

	if (n <= 0) {
		close(c->fd);
		free(c);
		return;
	}
	c->length += n;
	c->text[c->length] = 0;
	whole = message(c);
	if (!whole)
		return;
	if (!c->peer) {
		if (sscanf(c->text, "GET /%*[^/]/%63[^ ]", c->id) != 1)
			errx(1, "request");
		c->call = 0;
		c->length = 0;
		call(c);
		return;
	}
	struct conn *client = c->peer;

	c->length = 0;
	c->peer = 0;
	idle[idles++] = c;
	if (++client->call < 2)
		call(client);
	else
		send_all(client->fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n");
}

int main(void)
{
	const char *url = getenv("BACKEND") + strlen("http://127.0.0.1:");
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	struct epoll_event events[64], first = {.events = EPOLLIN};

	backend = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(url))};
	inet_pton(AF_INET, "127.0.0.1", &backend.sin_addr);
	inet_pton(AF_INET, "127.0.0.1", &here.sin_addr);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 128))
		err(1, "listen");
	loop = epoll_create1(0);
	if (epoll_ctl(loop, EPOLL_CTL_ADD, listener, &first))
		err(1, "epoll_ctl");
	for (;;) {
		int n = epoll_wait(loop, events, 64, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				readable(events[i].data.ptr);
			else
				new_conn(accept(listener, 0, 0));
		}
	}
}
