/*
 * benchd: the real server of the bench. One thread, one epoll, four services (protocol.h).
 *
 *   benchd [IP…]      listens on all addresses, prints "ready" once it does, runs until a signal.
 *
 * Each IP (a service address that this server has itself) gets a datagram socket of its own, so that answers leave from it.
 *
 * It is frugal on purpose: client, balancer and servers share two cores, so what the server burns is missing elsewhere.
 */
#define _GNU_SOURCE
#include "protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 65536, SINK_BUFFER = 256 * 1024, BATCH = 64 };
enum kind { FREE, LISTEN_SINK, LISTEN_ECHO, LISTEN_ONCE, SINK, ECHO, ONCE, DATAGRAMS };

static struct {
	uint8_t kind;
	uint64_t bytes;
} peers[MAX_FD];
static const struct in_addr ANY;
static char sink_buffer[SINK_BUFFER];
static int epoll_fd;

static void die(const char *what)
{
	fprintf(stderr, "benchd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(int fd, enum kind kind)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	peers[fd].kind = kind;
	peers[fd].bytes = 0;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

static void drop(int fd)
{
	peers[fd].kind = FREE;
	close(fd); /* leaves the epoll set by itself */
}

static int bound_socket(int type, struct in_addr ip, int port)
{
	int one = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = ip };

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		die("bind");
	return fd;
}

static void listen_on(int port, enum kind kind)
{
	int fd = bound_socket(SOCK_STREAM, ANY, port);

	if (listen(fd, 4096) < 0)
		die("listen");
	watch(fd, kind);
}

static void serve_datagrams_to(struct in_addr ip)
{
	int bytes = 16 << 20, fd = bound_socket(SOCK_DGRAM, ip, UDP_PORT);

	/* Room for the client's whole window, so that a loss is never the server's own socket buffer. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
		die("SO_RCVBUFFORCE");
	watch(fd, DATAGRAMS);
}

static void sink(int fd)
{
	ssize_t got = recv(fd, sink_buffer, sizeof sink_buffer, 0);

	if (got > 0) {
		peers[fd].bytes += got;
	} else if (got == 0) {
		uint64_t total = peers[fd].bytes;

		(void)!send(fd, &total, sizeof total, MSG_NOSIGNAL);
		drop(fd);
	} else if (errno != EAGAIN && errno != EINTR) {
		drop(fd);
	}
}

static void echo(int fd)
{
	char buffer[4096];
	ssize_t got = recv(fd, buffer, sizeof buffer, 0);

	if (got > 0) {
		if (send(fd, buffer, got, MSG_NOSIGNAL) != got)
			drop(fd);
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		drop(fd);
	}
}

/* One request, one answer, then close: the server closes first, so that TIME-WAIT stays here and not on client ports. */
static void once(int fd, int is_new)
{
	char buffer[MESSAGE_BYTES * 2];
	ssize_t got = recv(fd, buffer, sizeof buffer, 0);

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		if (is_new)
			watch(fd, ONCE);
		return;
	}
	if (got > 0)
		peers[fd].bytes = (is_new ? 0 : peers[fd].bytes) + got;
	if (got > 0 && peers[fd].bytes < MESSAGE_BYTES) {
		if (is_new) {
			uint64_t bytes = peers[fd].bytes;

			watch(fd, ONCE);
			peers[fd].bytes = bytes;
		}
		return;
	}
	if (got > 0)
		(void)!send(fd, buffer, MESSAGE_BYTES, MSG_NOSIGNAL);
	drop(fd);
}

static void accept_all(int listener, enum kind kind)
{
	for (;;) {
		int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		if (fd >= MAX_FD) {
			close(fd);
			continue;
		}
		if (kind == LISTEN_ONCE) {
			once(fd, 1);
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		watch(fd, kind == LISTEN_SINK ? SINK : ECHO);
	}
}

static void datagrams(int fd)
{
	static struct datagram received[BATCH];
	static struct sockaddr_in from[BATCH];
	static struct iovec vectors[BATCH];
	static struct mmsghdr messages[BATCH];
	static uint32_t session;
	static uint64_t count;
	int n;

	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){ &received[i], sizeof received[i] };
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &vectors[i], .msg_iovlen = 1 };
	}
	n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		int is_due;

		if (messages[i].msg_len != sizeof received[i])
			continue;
		if (received[i].session != session) {
			session = received[i].session;
			count = 0;
		}
		if (received[i].ask)
			is_due = 1;
		else
			is_due = ++count % ACK_EVERY == 0;
		if (is_due) {
			struct datagram_ack ack = { .session = session, .received = count };

			sendto(fd, &ack, sizeof ack, MSG_DONTWAIT, (struct sockaddr *)&from[i], sizeof from[i]);
		}
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[BATCH];
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1");
	listen_on(SINK_PORT, LISTEN_SINK);
	listen_on(ECHO_PORT, LISTEN_ECHO);
	listen_on(ONCE_PORT, LISTEN_ONCE);
	serve_datagrams_to(ANY);
	for (int i = 1; i < argc; i++) {
		struct in_addr ip;

		if (inet_pton(AF_INET, argv[i], &ip) != 1) {
			fprintf(stderr, "benchd: %s: no IPv4 address\n", argv[i]);
			return 2;
		}
		serve_datagrams_to(ip);
	}
	puts("ready");
	fflush(stdout);

	for (;;) {
		int n = epoll_wait(epoll_fd, events, BATCH, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			switch (peers[fd].kind) {
			case LISTEN_SINK: case LISTEN_ECHO: case LISTEN_ONCE: accept_all(fd, peers[fd].kind); break;
			case SINK: sink(fd); break;
			case ECHO: echo(fd); break;
			case ONCE: once(fd, 0); break;
			case DATAGRAMS: datagrams(fd); break;
			}
		}
	}
}
