/*
 * What benchd and benchload say to each other.
 *
 *   TCP 5001  sink   the client streams, half-closes, and gets back how many bytes arrived (u64, host order)
 *   TCP 5002  echo   every byte comes back at once (ping-pong of kept-alive connections)
 *   TCP 5003  once   one request of MESSAGE_BYTES, one answer of as many, then the server closes first
 *   UDP 5004  sink   struct datagram; every ACK_EVERY-th datagram of a session (or one with `ask`) is answered by
 *                    struct datagram_ack
 *
 * Both ends run on one machine: host byte order throughout.
 */
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H

#include <stdint.h>

enum { SINK_PORT = 5001, ECHO_PORT = 5002, ONCE_PORT = 5003, UDP_PORT = 5004 };
enum { MESSAGE_BYTES = 64, ACK_EVERY = 32 };

/* 18 bytes make the smallest Ethernet frame (60 bytes without FCS) with IPv4 and UDP headers. */
struct datagram {
	uint32_t session; /* a new number starts counting anew */
	uint32_t ask;     /* not 0: answer this one in any case */
	uint64_t sequence;
	uint16_t padding;
} __attribute__((packed));

struct datagram_ack {
	uint32_t session;
	uint32_t reserved;
	uint64_t received; /* datagrams of this session that arrived so far; probes (`ask`) are not counted */
} __attribute__((packed));

#endif
