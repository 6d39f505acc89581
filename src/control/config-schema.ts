/**
 * The shape of /etc/tapvs/tapvs.yaml, version 1: which keys there are and what each may hold by itself. What must hold between several of them is in
 * config-check.ts. Unknown keys are errors at every level.
 */
import { z } from 'zod';
import { isLoopback, isMulticast, isZeroNet, parseIp4, parseMac, parsePrefix } from '../wire/addr.ts';

/** IFNAMSIZ is 16 with the final zero; the rest is dev_valid_name() of net/core/dev.c. */
const MAX_NAME = 15;

const deviceName = z.string().superRefine((name, ctx) => {
  const fault = nameFault(name);
  if (fault !== undefined) ctx.addIssue({ code: 'custom', message: fault });
});

function nameFault(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (Buffer.byteLength(name) > MAX_NAME) return `'${name}' is too long: a device name has at most ${MAX_NAME} bytes`;
  if (name === '.' || name === '..' || /[/:\s]/.test(name)) return `'${name}' is no device name: no '/', ':' or blanks`;
  return undefined;
}

const netnsName = z.string().regex(/^[^/\s]+$|^\/\S+$/, 'must be a name under /run/netns, or an absolute path');

const ip = z.string().superRefine((text, ctx) => {
  if (parseIp4(text) === undefined) {
    ctx.addIssue({ code: 'custom', message: `'${text}' is not an IPv4 address such as 10.0.1.1` });
  }
});

/** An address that a host can have, with the length of its network. */
const hostPrefix = z.string().superRefine((text, ctx) => {
  const prefix = parsePrefix(text);
  if (prefix === undefined) {
    ctx.addIssue({ code: 'custom', message: `'${text}' is not an address with a prefix length such as 10.0.1.1/24` });
  } else if (isMulticast(prefix.ip) || isLoopback(prefix.ip) || isZeroNet(prefix.ip) || prefix.ip === -1) {
    ctx.addIssue({ code: 'custom', message: `'${text}' is not an address that a host can have` });
  } else if (!text.includes('/')) {
    ctx.addIssue({ code: 'custom', message: `'${text}' lacks its prefix length: write ${text}/24, or ${text}/32` });
  }
});

const macAddress = z.string().superRefine((text, ctx) => {
  const mac = parseMac(text);
  if (mac === undefined) {
    ctx.addIssue({ code: 'custom', message: `'${text}' is not a MAC address such as 02:00:00:00:01:01` });
  } else if ((mac.hi & 0x0100) !== 0) {
    ctx.addIssue({
      code: 'custom',
      message: `'${text}' is a multicast address: the first octet of a device's MAC is even`,
    });
  } else if (mac.hi === 0 && mac.lo === 0) {
    ctx.addIssue({ code: 'custom', message: 'all zero is no MAC address' });
  }
});

const isNetwork = (text: string): boolean => {
  const prefix = parsePrefix(text);
  return prefix !== undefined && (prefix.length === 32 || prefix.ip << prefix.length === 0);
};

const destination = z.string().superRefine((text, ctx) => {
  if (text === 'default') return;
  if (parsePrefix(text) === undefined) {
    ctx.addIssue({ code: 'custom', message: `'${text}' is neither 'default' nor a prefix such as 10.0.9.0/24` });
  } else if (!isNetwork(text)) {
    ctx.addIssue({ code: 'custom', message: `'${text}' has bits set behind its prefix length` });
  }
});

const integer = (min: number, max: number) => z.int().min(min).max(max);

export const deviceSchema = z.strictObject({
  name: deviceName,
  kind: z.enum(['tap', 'tun', 'packet']),
  netns: netnsName.nullable().default(null),
  mac: macAddress.optional(),
  bridge: deviceName.optional(),
  interface: deviceName.optional(),
  mtu: integer(68, 65521).default(1500),
  addresses: z.array(hostPrefix).default([]),
  host: z.boolean().default(false),
  peer: hostPrefix.optional(),
  offload: z.boolean().default(true),
  persist: z.boolean().default(false),
});

export const routeSchema = z.strictObject({
  to: destination,
  via: ip.optional(),
  dev: deviceName.optional(),
  src: ip.optional(),
  metric: integer(0, 0x7fffffff).default(0),
  type: z.enum(['unicast', 'unreachable', 'prohibit', 'blackhole']).default('unicast'),
});

/** The keys of the file and what each holds, checked one by one so that a fault in one does not hide those of another. */
export const fileSchema = {
  devices: z.array(z.unknown()),
  addresses: z.array(hostPrefix),
  routes: z.array(z.unknown()),
  sysctl: z.record(
    z.string().regex(/^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$/, "is no sysctl's name, such as net.ipv4.ip_forward"),
    z.union([z.number(), z.string(), z.boolean()], 'must be a number or a text'),
  ),
  ipvsadm: z.string(),
  ipvsadm_file: z.string().min(1),
  iptables: z.string(),
  iptables_file: z.string().min(1),
  log: z.strictObject({
    level: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
    format: z.enum(['json', 'pretty']).optional(),
  }),
  limits: z.strictObject({
    connections: integer(1024, 16_777_216).default(1_000_000),
    entries: integer(1024, 16_777_216).optional(),
    packets: integer(256, 16_384).default(2048),
  }),
  spin: integer(0, 10_000),
} as const;

export type FileKey = keyof typeof fileSchema;
