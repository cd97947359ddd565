// SPDX-License-Identifier: Apache-2.0
/*
 * A proxy from PORT to TARGET, both on the loopback address, a thread for each connection, that moves bytes by
 * splice(2), from socket to pipe to socket. splice_proxy MODE:
 *
 *	bodies	heads are read and written, bodies are spliced by their Content-Length
 *	all	everything is spliced
 *	first	the first request's head is read and written, everything after it is spliced
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD = 65536 };

static const char *mode;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	addr.sin_port = htons(atoi(getenv(port)));
	return addr;
}

/* move splices up to n bytes, and all of them if whole; it returns how many, 0 at the end of the stream. */
static ssize_t move(int from, int to, int pipe[2], size_t n, int whole)
{
	size_t total = 0;

	while (total < n) {
		ssize_t got = splice(from, NULL, pipe[1], NULL, n - total, SPLICE_F_MOVE);
		ssize_t left = got;

		if (got <= 0)
			return whole ? -1 : got;
		while (left > 0) {
			ssize_t put = splice(pipe[0], NULL, to, NULL, left, SPLICE_F_MOVE);

			if (put <= 0)
				return -1;
			left -= put;
		}
		total += got;
		if (!whole)
			break;
	}
	return total;
}

/* head reads and writes a head, and no byte more; it returns the length of the body, or -1. */
static long head(int from, int to)
{
	char text[HEAD];
	char *end = NULL, *field;
	long n, length, have = 0;

	while (!end) {
		n = recv(from, text, HEAD - 1, MSG_PEEK);
		if (n <= have && n < HEAD - 1 && n > 0) {
			struct pollfd more = {.fd = from, .events = POLLRDHUP};

			if (poll(&more, 1, 1) > 0)
				return -1;
			continue;
		}
		if (n <= 0)
			return -1;
		have = n;
		text[n] = 0;
		end = strstr(text, "\r\n\r\n");
	}
	n = end + 4 - text;
	if (recv(from, text, n, MSG_WAITALL) != n || send(to, text, n, MSG_NOSIGNAL) != n)
		return -1;
	text[n] = 0;
	field = strcasestr(text, "\r\nContent-Length:");
	length = field ? atol(field + 17) : 0;
	return length;
}

static void both_ways(int client, int server, int pipe[2])
{
	struct pollfd fds[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};

	while (poll(fds, 2, -1) > 0) {
		if (fds[0].revents && move(client, server, pipe, 1 << 20, 0) <= 0)
			return;
		if (fds[1].revents && move(server, client, pipe, 1 << 20, 0) <= 0)
			return;
	}
}

static void *serve(void *arg)
{
	struct sockaddr_in addr = loopback("TARGET");
	int client = (long)arg, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), pipe[2], one = 1;
	long length;

	if (pipe2(pipe, O_CLOEXEC))
		die("pipe2");
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!connect(server, (struct sockaddr *)&addr, sizeof(addr))) {
		if (!strcmp(mode, "all") || (!strcmp(mode, "first") && head(client, server) >= 0))
			both_ways(client, server, pipe);
		while (!strcmp(mode, "bodies")) {
			length = head(client, server);
			if (length < 0 || move(client, server, pipe, length, 1) != length)
				break;
			length = head(server, client);
			if (length < 0 || move(server, client, pipe, length, 1) != length)
				break;
		}
	}
	close(client);
	close(server);
	close(pipe[0]);
	close(pipe[1]);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = loopback("PORT");
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	mode = argc > 1 ? argv[1] : "all";
	signal(SIGPIPE, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 128))
		die("listen");
	for (;;) {
		long client = accept(listener, NULL, NULL);
		pthread_t thread;

		if (client < 0 || pthread_create(&thread, NULL, serve, (void *)client))
			die("accept");
		pthread_detach(thread);
	}
}
