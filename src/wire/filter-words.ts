/** The words of filter expressions (filter.ts), split as libpcap's scanner does: the longest word wins, so `20-30` is one. */

export interface Word {
  readonly text: string;
  /** Names, numbers and addresses are values; keywords and signs are not. */
  readonly kind: 'value' | 'keyword' | 'sign';
  /** Of a value that is a number: decimal, 0x… or 0… (octal). */
  readonly number: number | undefined;
}

const KEYWORDS = new Set(
  (
    'and or not src dst host net mask port portrange proto less greater len broadcast multicast ' +
    'ether link ip ip6 arp rarp tcp udp sctp icmp icmp6 igmp ah esp pim vrrp ' +
    // Known to libpcap, not here: they must not pass for names.
    'gateway protochain vlan mpls pppoed pppoes geneve inbound outbound ifname rnr rulenum reason srnr rset ruleset action ' +
    'on type subtype dir wlan fddi tr ppp slip atalk aarp decnet lat sca moprc mopdl iso esis isis clnp stp ipx netbeui ' +
    'byte llc lane metac bcc ilmic oam oamf4 oamf4ec sc ilmi vpi vci igrp'
  ).split(' '),
);

/** Numbers with names: offsets of fields, TCP flags, ICMP types. */
export const VALUES: Readonly<Record<string, number>> = {
  tcpflags: 13,
  'tcp-fin': 1,
  'tcp-syn': 2,
  'tcp-rst': 4,
  'tcp-push': 8,
  'tcp-ack': 16,
  'tcp-urg': 32,
  'tcp-ece': 64,
  'tcp-cwr': 128,
  icmptype: 0,
  icmpcode: 1,
  'icmp-echoreply': 0,
  'icmp-unreach': 3,
  'icmp-sourcequench': 4,
  'icmp-redirect': 5,
  'icmp-echo': 8,
  'icmp-routeradvert': 9,
  'icmp-routersolicit': 10,
  'icmp-timxceed': 11,
  'icmp-paramprob': 12,
  'icmp-tstamp': 13,
  'icmp-tstampreply': 14,
  'icmp-ireq': 15,
  'icmp-ireqreply': 16,
  'icmp-maskreq': 17,
  'icmp-maskreply': 18,
};

export interface Service {
  readonly port: number;
  /** null: the name is one of TCP and of UDP. */
  readonly proto: 'tcp' | 'udp' | null;
}

function services(proto: Service['proto'], text: string): [string, Service][] {
  return text.split(' ').map((entry) => {
    const [name = '', port] = entry.split(':');
    return [name, { port: Number(port), proto }];
  });
}

/** Ports that have a name here; /etc/services, whose usual entries these are, is not read. */
export const SERVICES: Readonly<Record<string, Service>> = Object.fromEntries([
  ...services('tcp', 'ftp-data:20 ftp:21 ssh:22 telnet:23 smtp:25 http:80 pop3:110 imap2:143 bgp:179 submission:587'),
  ...services('tcp', 'imaps:993 pop3s:995 mysql:3306 postgresql:5432 http-alt:8080'),
  ...services('udp', 'bootps:67 bootpc:68 tftp:69 ntp:123'),
  ...services(
    null,
    'domain:53 kerberos:88 snmp:161 snmp-trap:162 ldap:389 https:443 ldaps:636 openvpn:1194 nfs:2049 sip:5060',
  ),
]);

const SPACE = /\s+/y;
const MAC = /[0-9a-fA-F]{1,2}(?:[:-][0-9a-fA-F]{1,2}){5}(?![0-9a-zA-Z:])/y;
const NAME = /\\?[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?/y;
const SIGN = /<<|>>|<=|>=|!=|==|&&|\|\||[()[\]:!&|^+\-*/%<>=]/y;
const NUMBER = /^(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/;

/** The words in order; a piece of text that is none, when there is one, instead. */
export function readWords(text: string): readonly Word[] | string {
  const words: Word[] = [];
  let at = 0;
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  while (at < text.length) {
    if (match(SPACE) !== undefined) continue;
    const mac = match(MAC);
    if (mac !== undefined) {
      const octets = mac.split(/[:-]/).map((octet) => octet.padStart(2, '0'));
      words.push({ text: octets.join(':'), kind: 'value', number: undefined });
      continue;
    }
    const name = match(NAME);
    if (name !== undefined) {
      const number = NUMBER.test(name) ? parseNumber(name) : undefined;
      if (number !== undefined && number > 0xffffffff) return name;
      const isKeyword = KEYWORDS.has(name);
      words.push({ text: name, kind: isKeyword ? 'keyword' : 'value', number });
      continue;
    }
    const sign = match(SIGN);
    if (sign === undefined) return text.slice(at, at + 12);
    words.push({ text: sign, kind: 'sign', number: undefined });
  }
  return words;
}

function parseNumber(text: string): number {
  if (/^0[0-7]+$/.test(text)) return Number.parseInt(text, 8);
  return Number(text);
}
