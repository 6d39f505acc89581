/* Over 400 lines: every kind of traffic shares the one epoll loop and its clock. */
/*
 * benchload: the client of the bench. One thread, one epoll; prints one JSON line.
 *
 *   benchload MODE --to IP[,IP…] [--from IP[,IP…]] [--seconds S] [--warm S] [--n N] [--window W]
 *
 *   bulk   N TCP streams to the sink for S seconds                       {"gbps":…,"bytes":…,"errors":…}
 *   conn   N at a time: connect, one request, one answer, close          {"conn_per_s":…,"connections":…,"errors":…}
 *   req    N kept-alive connections, each a ping-pong of 64 bytes         {"req_per_s":…,"requests":…,"errors":…}
 *   lat    one connection, ping-pong of 64 bytes                          {"p50_us":…,"p99_us":…,"requests":…,"errors":…}
 *   udp    smallest frames, a window of W unacknowledged datagrams        {"udp_pps":…,"window":…,"lost":…,"errors":…}
 *
 * `--warm` seconds run before the clock starts. Targets are taken in turn (several: no balancer is in the way).
 *
 * conn: the server closes first, so TIME-WAIT stays there; source addresses are taken in turn and ports are chosen at
 * connect time (IP_BIND_ADDRESS_NO_PORT), so that a tuple comes back only after (addresses × port range) connections,
 * and the server takes its SYN over TIME-WAIT because the timestamps have moved on.
 *
 * udp: a closed loop, so that "no loss" is a property of the run and not of luck: never more than W datagrams are
 * under way; the sink acknowledges every 32nd. When nothing moves for 100 ms, the sink is asked for its count, and what
 * is missing is lost: then the run starts again with half the window. The figure is that of the first run without loss.
 */
#define _GNU_SOURCE
#include "protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 65536, MAX_LIST = 64, EVENTS = 128, BULK_CHUNK = 128 * 1024, BURST = 32, MAX_SAMPLES = 1 << 21 };

static struct in_addr targets[MAX_LIST], sources[MAX_LIST];
static int target_count, source_count, next_target, next_source;
static double seconds = 1, warm_seconds = 0.2;
static int n_streams = 1, window = 1024;
static int epoll_fd;
static char message[MESSAGE_BYTES];
static uint64_t errors;

static void die(const char *what)
{
	fprintf(stderr, "benchload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static uint64_t ns(double s)
{
	return (uint64_t)(s * 1e9);
}

/* A socket from the next source address, on its way (or, if blocking, connected) to the next target. -1 on failure. */
static int open_to(int type, int port)
{
	int one = 1, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (fd < 0)
		die("socket");
	if (fd >= MAX_FD) {
		errno = EMFILE;
		die("socket");
	}
	if (source_count > 0) {
		address.sin_addr = sources[next_source++ % source_count];
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
		if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
			die("bind");
	}
	address.sin_addr = targets[next_target++ % target_count];
	address.sin_port = htons(port);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static void watch(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

/* Connected, non-blocking, without Nagle. */
static int stream_to(int port)
{
	int one = 1, fd = open_to(SOCK_STREAM, port);

	if (fd < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

static void bulk(void)
{
	static char chunk[BULK_CHUNK];
	struct epoll_event events[EVENTS];
	int fds[MAX_LIST];
	uint64_t total[MAX_FD > 1024 ? 1024 : MAX_FD] = { 0 };
	uint64_t counted = 0, start, end, t;
	int is_counting = 0;

	if (n_streams > MAX_LIST)
		n_streams = MAX_LIST;
	for (int i = 0; i < n_streams; i++) {
		fds[i] = stream_to(SINK_PORT);
		watch(fds[i], EPOLLOUT);
	}
	t = now_ns();
	start = t + ns(warm_seconds);
	end = start + ns(seconds);
	while (t < end) {
		int n = epoll_wait(epoll_fd, events, EVENTS, 100);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			ssize_t sent = send(fd, chunk, sizeof chunk, MSG_DONTWAIT | MSG_NOSIGNAL);

			if (sent > 0) {
				total[fd] += sent;
				if (is_counting)
					counted += sent;
			} else if (errno != EAGAIN) {
				errors++;
				epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
			}
		}
		t = now_ns();
		if (!is_counting && t >= start) {
			is_counting = 1;
			start = t;
		}
	}
	/* The sink must have seen every byte; what is still buffered (a few MB at most) is in the figure. */
	for (int i = 0; i < n_streams; i++) {
		struct timeval patience = { 5, 0 };
		uint64_t seen = 0;

		shutdown(fds[i], SHUT_WR);
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		if (recv(fds[i], &seen, sizeof seen, MSG_WAITALL) != sizeof seen || seen != total[fds[i]])
			errors++;
		close(fds[i]);
	}
	printf("{\"gbps\":%.4f,\"bytes\":%llu,\"seconds\":%.4f,\"errors\":%llu}\n", counted * 8.0 / (t - start),
	       (unsigned long long)counted, (t - start) / 1e9, (unsigned long long)errors);
}

static uint8_t sent_request[MAX_FD];
static uint32_t got_bytes[MAX_FD];

static void begin_connection(void)
{
	int fd = open_to(SOCK_STREAM | SOCK_NONBLOCK, ONCE_PORT);

	if (fd < 0) {
		errors++;
		return;
	}
	sent_request[fd] = 0;
	got_bytes[fd] = 0;
	watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* Returns 1 when the connection is over, having counted an error if it did not end as it should. */
static int step_connection(int fd, uint32_t ready)
{
	char buffer[MESSAGE_BYTES * 2];

	if (!sent_request[fd] && (ready & EPOLLOUT)) {
		if (send(fd, message, sizeof message, MSG_NOSIGNAL) != sizeof message) {
			errors++;
			return 1;
		}
		sent_request[fd] = 1;
	}
	if (!(ready & (EPOLLIN | EPOLLERR | EPOLLHUP)))
		return 0;
	for (;;) {
		ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);

		if (got > 0) {
			got_bytes[fd] += got;
			if (!(ready & (EPOLLRDHUP | EPOLLHUP)) && got < (ssize_t)sizeof buffer)
				return 0; /* the FIN makes a new edge */
		} else if (got == 0) {
			if (got_bytes[fd] != MESSAGE_BYTES)
				errors++;
			return 1;
		} else if (errno == EAGAIN) {
			return 0;
		} else {
			errors++;
			return 1;
		}
	}
}

static void conn(void)
{
	struct epoll_event events[EVENTS];
	uint64_t t = now_ns(), start = t + ns(warm_seconds), end = start + ns(seconds), done = 0, warm_errors = 0;
	int open = 0, is_counting = 0;

	while (t < end) {
		int n;

		for (; open < n_streams; open++) {
			uint64_t before = errors;

			begin_connection();
			if (errors != before) {
				usleep(100); /* no port or no route: do not spin */
				break;
			}
		}
		n = epoll_wait(epoll_fd, events, EVENTS, 100);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			uint64_t before = errors;

			if (step_connection(fd, events[i].events)) {
				close(fd);
				open--;
				if (is_counting && errors == before)
					done++;
			}
		}
		t = now_ns();
		if (!is_counting && t >= start) {
			is_counting = 1;
			start = t;
			warm_errors = errors;
		}
	}
	printf("{\"conn_per_s\":%.1f,\"connections\":%llu,\"seconds\":%.4f,\"errors\":%llu,\"warm_errors\":%llu}\n",
	       done * 1e9 / (t - start), (unsigned long long)done, (t - start) / 1e9, (unsigned long long)errors,
	       (unsigned long long)warm_errors);
}

static void req(void)
{
	struct epoll_event events[EVENTS];
	uint64_t t, start, end, done = 0;
	int is_counting = 0, alive = n_streams;

	for (int i = 0; i < n_streams; i++) {
		int fd = stream_to(ECHO_PORT);

		watch(fd, EPOLLIN);
		got_bytes[fd] = 0;
		if (send(fd, message, sizeof message, MSG_NOSIGNAL) != sizeof message)
			die("send");
	}
	t = now_ns();
	start = t + ns(warm_seconds);
	end = start + ns(seconds);
	while (t < end && alive > 0) {
		int n = epoll_wait(epoll_fd, events, EVENTS, 100);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			ssize_t got = recv(fd, message, sizeof message, MSG_DONTWAIT);

			if (got > 0) {
				got_bytes[fd] += got;
				if (got_bytes[fd] < MESSAGE_BYTES)
					continue;
				got_bytes[fd] = 0;
				if (is_counting)
					done++;
				if (send(fd, message, sizeof message, MSG_NOSIGNAL) == sizeof message)
					continue;
			} else if (got < 0 && errno == EAGAIN) {
				continue;
			}
			errors++;
			alive--;
			close(fd);
		}
		t = now_ns();
		if (!is_counting && t >= start) {
			is_counting = 1;
			start = t;
		}
	}
	printf("{\"req_per_s\":%.1f,\"requests\":%llu,\"seconds\":%.4f,\"errors\":%llu}\n", done * 1e9 / (t - start),
	       (unsigned long long)done, (t - start) / 1e9, (unsigned long long)errors);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void lat(void)
{
	static uint32_t samples[MAX_SAMPLES];
	struct timeval patience = { 2, 0 };
	uint64_t t, start, end;
	uint32_t n = 0;
	int fd = stream_to(ECHO_PORT);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	t = now_ns();
	start = t + ns(warm_seconds);
	end = start + ns(seconds);
	while (t < end && n < MAX_SAMPLES) {
		uint64_t before = t;

		if (send(fd, message, sizeof message, MSG_NOSIGNAL) != sizeof message ||
		    recv(fd, message, sizeof message, MSG_WAITALL) != sizeof message) {
			errors++;
			break;
		}
		t = now_ns();
		if (before >= start)
			samples[n++] = t - before;
	}
	if (n == 0) {
		errno = ETIMEDOUT;
		die("no answer");
	}
	qsort(samples, n, sizeof samples[0], by_value);
	printf("{\"p50_us\":%.2f,\"p99_us\":%.2f,\"requests\":%u,\"seconds\":%.4f,\"errors\":%llu}\n",
	       samples[n / 2] / 1e3, samples[(uint64_t)n * 99 / 100] / 1e3, n, (t - start) / 1e9,
	       (unsigned long long)errors);
}

static uint32_t session;

/* The sink's count of this session, asked for until it answers; lets what is still under way arrive first. */
static uint64_t ask_count(int fd)
{
	uint64_t last = UINT64_MAX;

	for (int attempt = 0; attempt < 50; attempt++) {
		struct datagram probe = { .session = session, .ask = 1 };
		struct datagram_ack ack;
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		uint64_t count = 0;
		int has_answer = 0;

		(void)!send(fd, &probe, sizeof probe, 0);
		poll(&ready, 1, 20);
		while (recv(fd, &ack, sizeof ack, MSG_DONTWAIT) == sizeof ack)
			if (ack.session == session) {
				count = ack.received;
				has_answer = 1;
			}
		if (has_answer && count == last)
			return count;
		if (has_answer)
			last = count;
	}
	errno = ETIMEDOUT;
	die("the UDP sink does not answer");
	return 0;
}

/* One closed-loop run; returns the datagrams lost. */
static uint64_t udp_run(int fd, int w, double *pps)
{
	struct datagram out[BURST];
	struct iovec vectors[BURST];
	struct mmsghdr messages[BURST];
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	uint64_t sent = 0, acked = 0, acked_at_start = 0, t, start, end, moved;
	int is_counting = 0;

	session = (uint32_t)now_ns() | 1;
	memset(messages, 0, sizeof messages);
	memset(out, 0, sizeof out);
	for (int i = 0; i < BURST; i++) {
		vectors[i] = (struct iovec){ &out[i], sizeof out[i] };
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
		out[i].session = session;
	}
	ask_count(fd);
	t = moved = now_ns();
	start = t + ns(warm_seconds);
	end = start + ns(seconds);
	while (t < end) {
		struct datagram_ack ack;

		if (sent - acked + BURST <= (uint64_t)w) {
			int done;

			for (int i = 0; i < BURST; i++)
				out[i].sequence = sent + i;
			done = sendmmsg(fd, messages, BURST, 0);
			if (done < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
				die("sendmmsg");
			if (done > 0)
				sent += done;
		} else {
			poll(&ready, 1, 20);
		}
		while (recv(fd, &ack, sizeof ack, MSG_DONTWAIT) == sizeof ack)
			if (ack.session == session && ack.received > acked) {
				acked = ack.received;
				moved = t;
			}
		t = now_ns();
		if (t - moved > 100000000u)
			break;
		if (!is_counting && t >= start) {
			is_counting = 1;
			start = t;
			acked_at_start = acked;
		}
	}
	*pps = is_counting ? (acked - acked_at_start) * 1e9 / (t - start) : 0;
	return sent - ask_count(fd);
}

static void udp(void)
{
	int fd = open_to(SOCK_DGRAM, UDP_PORT), bytes = 4 << 20, w = window;
	uint64_t lost = 0, lost_before = 0;
	double pps = 0;

	if (fd < 0)
		die("connect");
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	for (; w >= BURST; w /= 2) {
		lost = udp_run(fd, w, &pps);
		if (lost == 0)
			break;
		lost_before += lost;
	}
	printf("{\"udp_pps\":%.1f,\"window\":%d,\"lost\":%llu,\"lost_in_discarded_runs\":%llu,\"errors\":%llu}\n", pps, w,
	       (unsigned long long)lost, (unsigned long long)(lost_before - (lost ? lost : 0)),
	       (unsigned long long)errors);
}

static int parse_list(const char *text, struct in_addr *list)
{
	char *copy = strdup(text), *rest = copy, *word;
	int n = 0;

	while ((word = strsep(&rest, ",")) && n < MAX_LIST)
		if (inet_pton(AF_INET, word, &list[n++]) != 1) {
			fprintf(stderr, "benchload: not an IPv4 address: %s\n", word);
			exit(2);
		}
	free(copy);
	return n;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} modes[] = { { "bulk", bulk }, { "conn", conn }, { "req", req }, { "lat", lat }, { "udp", udp } };
	struct rlimit files;

	for (int i = 2; i + 1 < argc; i += 2) {
		const char *key = argv[i], *value = argv[i + 1];

		if (!strcmp(key, "--to"))
			target_count = parse_list(value, targets);
		else if (!strcmp(key, "--from"))
			source_count = parse_list(value, sources);
		else if (!strcmp(key, "--seconds"))
			seconds = atof(value);
		else if (!strcmp(key, "--warm"))
			warm_seconds = atof(value);
		else if (!strcmp(key, "--n"))
			n_streams = atoi(value);
		else if (!strcmp(key, "--window"))
			window = atoi(value);
		else {
			fprintf(stderr, "benchload: unknown option %s\n", key);
			return 2;
		}
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; argc > 1 && target_count > 0 && i < sizeof modes / sizeof modes[0]; i++)
		if (!strcmp(argv[1], modes[i].name)) {
			modes[i].run();
			return 0;
		}
	fprintf(stderr, "usage: benchload bulk|conn|req|lat|udp --to IP[,IP] [--from IP[,IP]] [--seconds S] [--warm S] [--n N]"
			" [--window W]\n");
	return 2;
}
