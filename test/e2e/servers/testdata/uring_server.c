// SPDX-License-Identifier: Apache-2.0
/*
 * A server that accepts, receives and sends by io_uring on the port PORT, and by ordinary system calls on
 * PLAIN_PORT. uring_server MODE:
 *
 *	wait	waits for completions in io_uring_enter
 *	poll	looks for completions in the ring, and makes other system calls meanwhile
 *	sqpoll	has the kernel's own thread take the submissions, and looks in the ring
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 256, CONNS = 128, BUFFER = 8192 };
enum op { ACCEPT, RECEIVE, SEND, CLOSE };

/* What is written meanwhile, to a file, and must not be taken for what was received. */
static const char meanwhile[] = "GET /item/of-another-call HTTP/1.1\r\nHost: x\r\n\r\n";

static struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_flags, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	unsigned added; /* not yet submitted */
} ring;

static struct conn {
	int fd, used, have, length, sent;
	char in[BUFFER], out[BUFFER];
} conns[CONNS];

_Noreturn static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int enter(unsigned submit, unsigned wait, unsigned flags)
{
	return syscall(__NR_io_uring_enter, ring.fd, submit, wait, flags, NULL, 0);
}

static void open_ring(unsigned flags)
{
	struct io_uring_params p = {.flags = flags, .sq_thread_idle = 100};
	size_t size;
	char *at;

	ring.fd = syscall(__NR_io_uring_setup, ENTRIES, &p);
	if (ring.fd < 0)
		die("io_uring_setup");
	if (!(p.features & IORING_FEAT_SINGLE_MMAP)) {
		fprintf(stderr, "the kernel's io_uring is too old\n");
		exit(1);
	}
	size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (size < p.sq_off.array + p.sq_entries * sizeof(unsigned))
		size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
	ring.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
	if (at == MAP_FAILED || ring.sqes == MAP_FAILED)
		die("mmap");
	ring.sq_tail = (unsigned *)(at + p.sq_off.tail);
	ring.sq_mask = (unsigned *)(at + p.sq_off.ring_mask);
	ring.sq_flags = (unsigned *)(at + p.sq_off.flags);
	ring.sq_array = (unsigned *)(at + p.sq_off.array);
	ring.cq_head = (unsigned *)(at + p.cq_off.head);
	ring.cq_tail = (unsigned *)(at + p.cq_off.tail);
	ring.cq_mask = (unsigned *)(at + p.cq_off.ring_mask);
	ring.cqes = (struct io_uring_cqe *)(at + p.cq_off.cqes);
}

static void add(enum op op, int code, int fd, void *buf, unsigned len, int conn)
{
	unsigned tail = *ring.sq_tail, i = tail & *ring.sq_mask;
	struct io_uring_sqe *e = &ring.sqes[i];

	memset(e, 0, sizeof(*e));
	e->opcode = code;
	e->fd = fd;
	e->addr = (unsigned long)buf;
	e->len = len;
	if (op == SEND)
		e->msg_flags = MSG_NOSIGNAL;
	e->user_data = (unsigned long long)conn << 8 | op;
	ring.sq_array[i] = i;
	__atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring.added++;
}

/* answer puts the answer to the request in c->in, if it is complete, into c->out. */
static int answer(struct conn *c)
{
	char *end, path[256], body[300];
	int n;

	c->in[c->have] = 0;
	end = strstr(c->in, "\r\n\r\n");
	if (!end)
		return 0;
	if (sscanf(c->in, "%*s %255s", path) != 1)
		path[0] = 0;
	n = snprintf(body, sizeof(body), "%s\n", path);
	c->length = snprintf(c->out, sizeof(c->out), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body);
	c->sent = 0;
	end += 4;
	c->have -= end - c->in;
	memmove(c->in, end, c->have);
	return 1;
}

static void receive(struct conn *c)
{
	if (answer(c))
		add(SEND, IORING_OP_SEND, c->fd, c->out, c->length, c - conns);
	else
		add(RECEIVE, IORING_OP_RECV, c->fd, c->in + c->have, BUFFER - 1 - c->have, c - conns);
}

static void completed(struct io_uring_cqe *e, int listener)
{
	struct conn *c = &conns[e->user_data >> 8];
	int i;

	switch (e->user_data & 0xff) {
	case ACCEPT:
		for (i = 0; i < CONNS - 1 && conns[i].used; i++)
			;
		if (e->res >= 0) {
			c = &conns[i];
			c->fd = e->res;
			c->used = 1;
			c->have = 0;
			receive(c);
		}
		add(ACCEPT, IORING_OP_ACCEPT, listener, NULL, 0, 0);
		return;
	case RECEIVE:
		if (e->res <= 0)
			break;
		c->have += e->res;
		receive(c);
		return;
	case SEND:
		if (e->res <= 0)
			break;
		c->sent += e->res;
		if (c->sent < c->length)
			add(SEND, IORING_OP_SEND, c->fd, c->out + c->sent, c->length - c->sent, c - conns);
		else
			receive(c);
		return;
	case CLOSE:
		c->used = 0;
		return;
	}
	add(CLOSE, IORING_OP_CLOSE, c->fd, NULL, 0, c - conns);
}

static int listen_on(const char *name)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	addr.sin_port = htons(atoi(getenv(name)));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 128))
		die(name);
	return fd;
}

static void *serve_plain(void *arg)
{
	struct conn *c = arg;
	int n;

	for (;;) {
		while (answer(c))
			if (send(c->fd, c->out, c->length, MSG_NOSIGNAL) != c->length)
				goto end;
		n = recv(c->fd, c->in + c->have, BUFFER - 1 - c->have, 0);
		if (n <= 0)
			break;
		c->have += n;
	}
end:
	close(c->fd);
	free(c);
	return NULL;
}

static void *accept_plain(void *arg)
{
	int listener = *(int *)arg;

	for (;;) {
		struct conn *c = calloc(1, sizeof(*c));
		pthread_t thread;

		c->fd = accept(listener, NULL, NULL);
		if (c->fd < 0 || pthread_create(&thread, NULL, serve_plain, c))
			die("accept");
		pthread_detach(thread);
	}
}

int main(int argc, char **argv)
{
	int sqpoll = argc > 1 && !strcmp(argv[1], "sqpoll"), wait = argc > 1 && !strcmp(argv[1], "wait");
	int plain = listen_on("PLAIN_PORT"), listener = listen_on("PORT"), null = open("/dev/null", O_WRONLY);
	pthread_t thread;

	if (pthread_create(&thread, NULL, accept_plain, &plain))
		die("pthread_create");
	open_ring(sqpoll ? IORING_SETUP_SQPOLL : 0);
	add(ACCEPT, IORING_OP_ACCEPT, listener, NULL, 0, 0);
	for (;;) {
		unsigned head = *ring.cq_head;

		if (sqpoll && __atomic_load_n(ring.sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
			enter(0, 0, IORING_ENTER_SQ_WAKEUP);
		if (!sqpoll && (ring.added || wait)) {
			if (enter(ring.added, wait, wait ? IORING_ENTER_GETEVENTS : 0) < 0 && errno != EINTR && errno != EAGAIN)
				die("io_uring_enter");
			ring.added = 0;
		}
		while (head == __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) && !wait) {
			if (write(null, meanwhile, sizeof(meanwhile) - 1) < 0)
				die("write");
			if (sqpoll && __atomic_load_n(ring.sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
				enter(0, 0, IORING_ENTER_SQ_WAKEUP);
		}
		for (; head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE); head++)
			completed(&ring.cqes[head & *ring.cq_mask], listener);
		__atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
	}
}
