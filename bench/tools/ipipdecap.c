/*
 * ipipdecap: the tunnel's far end in the servers' kernel, without its ipip module (which small kernels lack).
 *
 *   ipipdecap DEVICE…      strips the outer IPv4 header of every IPIP packet that comes in there, prints "ready", runs until a signal.
 *
 * An eBPF program at the devices' ingress (tcx, Linux 6.6), of a dozen instructions: protocol 4 and a header without options, then
 * bpf_skb_adjust_room takes the 20 bytes behind the Ethernet header away. What is left is received as any packet. This is about as much work as the
 * kernel's own ipip device does, and it happens in the same softirq.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of a newer linux/bpf.h than Debian 12 has. */
enum { TCX_INGRESS = 46 };

enum { ETHERNET = 14, IPV4_HEADER = 20, PROTOCOL_AT = ETHERNET + 9, IPIP = 4, VERSION_IHL = 0x45, ETH_P_IP_BE = 0x0008, PASS = 0 };

#define INSN(CODE, DST, SRC, OFF, IMM) ((struct bpf_insn){ .code = (CODE), .dst_reg = (DST), .src_reg = (SRC), .off = (OFF), .imm = (IMM) })
#define MOV_REG(DST, SRC) INSN(BPF_ALU64 | BPF_MOV | BPF_X, DST, SRC, 0, 0)
#define MOV_IMM(DST, IMM) INSN(BPF_ALU64 | BPF_MOV | BPF_K, DST, 0, 0, IMM)
#define LOAD_BYTE(AT) INSN(BPF_LD | BPF_ABS | BPF_B, 0, 0, 0, AT) /* r0 = frame[AT]; r6 must be the context */
#define JUMP_NE(DST, IMM, OFF) INSN(BPF_JMP | BPF_JNE | BPF_K, DST, 0, OFF, IMM)

static void die(const char *what)
{
	fprintf(stderr, "ipipdecap: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int bpf(int command, void *attributes, unsigned size)
{
	return syscall(SYS_bpf, command, attributes, size);
}

static int load_program(void)
{
	static char log[4096];
	const struct bpf_insn program[] = {
		MOV_REG(6, 1),
		INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 6, offsetof(struct __sk_buff, protocol), 0),
		JUMP_NE(2, ETH_P_IP_BE, 9),
		LOAD_BYTE(PROTOCOL_AT),
		JUMP_NE(0, IPIP, 7),
		LOAD_BYTE(ETHERNET),
		JUMP_NE(0, VERSION_IHL, 5),
		MOV_REG(1, 6),
		MOV_IMM(2, -IPV4_HEADER),
		MOV_IMM(3, BPF_ADJ_ROOM_MAC),
		MOV_IMM(4, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_adjust_room),
		MOV_IMM(0, PASS),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attributes;
	int fd;

	memset(&attributes, 0, sizeof attributes);
	attributes.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	attributes.insns = (uint64_t)(uintptr_t)program;
	attributes.insn_cnt = sizeof program / sizeof *program;
	attributes.license = (uint64_t)(uintptr_t)"Apache-2.0";
	attributes.log_buf = (uint64_t)(uintptr_t)log;
	attributes.log_size = sizeof log;
	attributes.log_level = 1;
	attributes.expected_attach_type = TCX_INGRESS;
	fd = bpf(BPF_PROG_LOAD, &attributes, sizeof attributes);
	if (fd < 0) {
		fprintf(stderr, "%s", log);
		die("BPF_PROG_LOAD");
	}
	return fd;
}

/* The link lives as long as this process. */
static void attach(int program, const char *device)
{
	union bpf_attr attributes;
	unsigned index = if_nametoindex(device);

	if (index == 0)
		die(device);
	memset(&attributes, 0, sizeof attributes);
	attributes.link_create.prog_fd = program;
	attributes.link_create.target_ifindex = index;
	attributes.link_create.attach_type = TCX_INGRESS;
	if (bpf(BPF_LINK_CREATE, &attributes, sizeof attributes) < 0)
		die("BPF_LINK_CREATE (tcx needs Linux 6.6)");
}

int main(int argc, char **argv)
{
	int program;

	if (argc < 2) {
		fprintf(stderr, "usage: ipipdecap DEVICE...\n");
		return 2;
	}
	program = load_program();
	for (int i = 1; i < argc; i++)
		attach(program, argv[i]);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
