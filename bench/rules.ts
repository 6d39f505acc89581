/** Filter rules of the lanes and subjects that measure what rules cost. */

/** Rules before the service, in INPUT and in FORWARD each. None of them is met by the bench's packets. */
export const RULES = 1000;

/** A rule that asks for the state makes all traffic tracked, as in the kernel. */
export const TRACKING_RULES = ['INPUT', 'FORWARD'].map(
  (chain) => `-A ${chain} -m conntrack --ctstate ESTABLISHED -j ACCEPT`,
);

/** `count` rules of four kinds in INPUT, and as many in FORWARD. */
export function manyRules(count: number): string[] {
  return ['INPUT', 'FORWARD'].flatMap((chain) => numbered(count, (i) => `-A ${chain} ${iptablesRule(i)}`));
}

/** `count` rules that differ by their device alone. */
export function deviceRules(count: number): string[] {
  return ['INPUT', 'FORWARD'].flatMap((chain) => numbered(count, (i) => `-A ${chain} -i eth${i} -j DROP`));
}

/** The rules as iptables-restore reads them. */
export function filterTable(rules: readonly string[]): string {
  return `*filter\n${rules.join('\n')}\nCOMMIT\n`;
}

/** The same rules as `manyRules`, lines of an nftables chain. */
export function nftRules(count: number): string {
  return numbered(count, nftRule).join('');
}

const numbered = (count: number, line: (i: number) => string): string[] =>
  Array.from({ length: count }, (_, i) => line(i));

const addressOf = (i: number): string => `198.${18 + ((i >> 8) & 127)}.${i & 255}.${7 + (i >> 15)}`;

export function iptablesRule(i: number): string {
  const address = addressOf(i);
  switch (i & 3) {
    case 0:
      return `-s ${address}/32 -j DROP`;
    case 1:
      return `-s ${address}/32 -p tcp -m tcp --dport ${5000 + (i & 15)} -j DROP`;
    case 2:
      return `-i eth${i} -p tcp -j DROP`;
    default:
      return `-d ${address}/32 -p udp -m udp --sport 5004 -j DROP`;
  }
}

function nftRule(i: number): string {
  const address = addressOf(i);
  switch (i & 3) {
    case 0:
      return `    ip saddr ${address} counter drop\n`;
    case 1:
      return `    ip saddr ${address} tcp dport ${5000 + (i & 15)} counter drop\n`;
    case 2:
      return `    iifname "eth${i}" meta l4proto tcp counter drop\n`;
    default:
      return `    ip daddr ${address} udp sport 5004 counter drop\n`;
  }
}
