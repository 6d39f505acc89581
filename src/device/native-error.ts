/** What the addon's control calls throw, and the sentence that tells an operator what to do about it. */
import { constants } from 'node:os';

/** Those that a device can answer and node does not know (Linux's numbers, asm-generic/errno.h). */
const NAMES = new Map<number, string>([
  [77, 'EBADFD'],
  [64, 'ENONET'],
  [108, 'ESHUTDOWN'],
  [112, 'EHOSTDOWN'],
]);
for (const [name, number] of Object.entries(constants.errno)) if (!NAMES.has(number)) NAMES.set(number, name);

/** 1 → 'EPERM'; takes -errno as well, as the data calls return it. An unknown one becomes 'errno 123'. */
export function errnoName(errno: number): string {
  return NAMES.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`;
}

/** A system call that failed in a control call. The message is one line: what, where, why, what to do. */
export class NativeError extends Error {
  override readonly name = 'NativeError';
  /** 'EPERM', 'EBUSY', … */
  readonly code: string;
  /** Positive, as in errno(3). */
  readonly errno: number;
  /** 'ioctl TUNSETIFF', 'setns', … */
  readonly syscall: string;
  /** The device, interface or path that it was about. */
  readonly device?: string;
  /** What to do; empty when there is nothing to say beyond the code. */
  readonly hint: string;

  constructor(errno: number, syscall: string, device?: string) {
    const code = errnoName(errno);
    const hint = hintFor(code, syscall);
    super(`${device ? `${device}: ` : ''}${syscall}: ${code}${hint === '' ? '' : `: ${hint}`}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
    if (device !== undefined && device !== '') this.device = device;
    this.hint = hint;
  }
}

/** First match wins. */
const HINTS: readonly (readonly [code: RegExp, syscall: RegExp, hint: string])[] = [
  [
    /^(EPERM|EACCES)$/,
    /^open \/dev\/net\/tun/,
    'not allowed to open /dev/net/tun; check its mode and the device cgroup',
  ],
  [/^EPERM$/, /TUN/, 'CAP_NET_ADMIN is missing; run as root or give the service AmbientCapabilities=CAP_NET_ADMIN'],
  [/^EPERM$/, /AF_PACKET/, 'CAP_NET_RAW is missing; run as root or give the service AmbientCapabilities=CAP_NET_RAW'],
  [
    /^EPERM$/,
    /setns/,
    'CAP_SYS_ADMIN is missing, which entering a network namespace needs; or start in that namespace',
  ],
  [/^EPERM$/, /SIOCS/, 'CAP_NET_ADMIN is missing in the network namespace of the device'],
  [/^ENOENT$/, /^open \/dev\/net\/tun/, 'it is missing; mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200'],
  [/^(ENODEV|ENXIO)$/, /^open \/dev\/net\/tun/, 'the kernel has no TUN/TAP driver; modprobe tun'],
  [/^EBUSY$/, /TUNSETIFF/, 'the device is open in another process; stop that, or choose another name'],
  [/^EINVAL$/, /TUNSETIFF/, 'that name is taken by another kind of device (ip -d link show), or its queues differ'],
  [/^E2BIG$/, /TUNSETIFF/, 'the device has no queue left'],
  [/^EINVAL$/, /TUNSETQUEUE/, 'the device was not opened with multiQueue, or the queue is in that state already'],
  [/^ENOTTY$/, /TUN/, 'the descriptor is not a TUN or TAP device'],
  [/^EBADFD$/, /TUN/, 'the device is gone; open it again'],
  [/^EAFNOSUPPORT$/, /AF_PACKET/, 'the kernel has no packet sockets; modprobe af_packet'],
  [/^EPROTONOSUPPORT$/, /SIOCGIFHWADDR/, 'packet devices need an interface with Ethernet headers'],
  [/^ENODEV$/, /SIOC/, 'no interface of that name in that network namespace; see ip link'],
  [/^EBUSY$/, /SIOCSIFHWADDR/, 'set the interface down first'],
  [/^EADDRNOTAVAIL$/, /SIOCSIFHWADDR/, 'a multicast or zero address cannot be the address of an interface'],
  [/^EINVAL$/, /SIOCSIFMTU/, 'the interface does not take that MTU; see ip -d link show (minmtu, maxmtu)'],
  [/^ENOENT$/, /^open$/, 'no such network namespace; see ip netns list'],
  [/^EINVAL$/, /setns/, 'the file is not a network namespace'],
  [/^(ENOENT|ECONNREFUSED)$/, /sendmsg/, 'nobody listens on NOTIFY_SOCKET'],
];

function hintFor(code: string, syscall: string): string {
  return HINTS.find(([codes, calls]) => codes.test(code) && calls.test(syscall))?.[2] ?? '';
}
