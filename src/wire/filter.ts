/** Over 400 lines: one grammar, which is read as a whole. */
/**
 * Filter expressions in tcpdump's words (pcap-filter(7)), compiled to a predicate on frames.
 *
 *   src host 10.0.1.2 and tcp dst port 80 or 443        tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn        not arp
 *
 * As libpcap: `and` and `or` have the same precedence and group to the left; a bare value after them takes the qualifiers of the value before;
 * an expression that looks beyond the end of a frame rejects the frame, under `not` too. What is not known here (names of hosts, addresses as
 * one number, IPv6 addresses, VLANs, protochain …) is an error, never ignored. On a medium without link headers `ether …` and `arp` match nothing.
 */
import { formatIp4, netmask, parseIp4, parseMac } from './addr.ts';
import {
  accessor,
  addressTest,
  and,
  type Direction,
  ETHER_TYPES,
  type Frame,
  IP_PROTOCOLS,
  isEtherType,
  isIp,
  isIp6Protocol,
  isIpProtocol,
  isProtocol,
  type Load,
  load,
  macTest,
  not,
  or,
  PROTOCOLS,
  portTest,
  type Test,
} from './filter-frame.ts';
import { readWords, SERVICES, VALUES, type Word } from './filter-words.ts';

/**
 * True when the frame is selected.
 * @param start of the link header, or of the IP header when there is none
 * @param medium 0: Ethernet, 1: IP without a link header (Medium of device.ts)
 * @param length on the wire when `end` was cut to a snap length; bytes
 */
export type FramePredicate = (m: DataView, start: number, end: number, medium: number, length?: number) => boolean;

/** One line; names the word that was not understood. */
export class FilterError extends Error {
  override readonly name = 'FilterError';
  constructor(why: string) {
    super(`syntax error in filter expression: ${why}`);
  }
}

/** A number computed from the frame; `guard` must hold before it may be asked (the protocol that it looks into). */
interface Value {
  readonly load: Load;
  readonly guard: Test | null;
  /** Known while compiling. */
  readonly constant: number | undefined;
}

interface Qualifiers {
  readonly proto: string | null;
  readonly direction: Direction | null;
  /** null: not said, which means host for an address. */
  readonly type: 'host' | 'net' | 'port' | 'portrange' | 'proto' | null;
}

// ---- parsing ------------------------------------------------------------------------------------------------------------

const RELATIONS = ['=', '==', '!=', '<', '>', '<=', '>='];
/**
 * Binding strength of the operators of arithmetic, as libpcap has it. Its grammar.y gives `%` and `^` none, which makes them take whatever
 * stands on their right first: `7 % 4 * 2` is 7 % 8.
 */
const STRENGTH: Readonly<Record<string, number>> = {
  '|': 1,
  '&': 2,
  '<<': 3,
  '>>': 3,
  '+': 4,
  '-': 4,
  '*': 5,
  '/': 5,
  '%': Number.POSITIVE_INFINITY,
  '^': Number.POSITIVE_INFINITY,
};

/** A bound on nesting too: the parser calls itself for each parenthesis. */
const MAX_WORDS = 1000;

class Parser {
  readonly #words: readonly Word[];
  #at = 0;
  /** Where the reading got stuck farthest to the right, for the message. */
  #farthest = 0;
  /** Qualifiers that a bare value takes; null when there are none to take. */
  #inherited: Qualifiers | null = null;

  constructor(text: string) {
    const words = readWords(text);
    if (typeof words === 'string') throw new FilterError(`'${words}' is not understood`);
    if (words.length > MAX_WORDS)
      throw new FilterError(`more than ${MAX_WORDS} words, up to '${words[MAX_WORDS]!.text}'`);
    this.#words = words;
  }

  parse(): Test {
    const test = this.#expression();
    if (this.#peek() !== undefined) throw this.#stuck();
    return test;
  }

  #peek(ahead = 0): string | undefined {
    return this.#words[this.#at + ahead]?.text;
  }
  #take(...texts: string[]): boolean {
    const text = this.#peek();
    if (text === undefined || !texts.includes(text)) return false;
    this.#at++;
    this.#farthest = Math.max(this.#farthest, this.#at);
    return true;
  }
  #stuck(why?: string): FilterError {
    const word = this.#words[Math.max(this.#at, this.#farthest)];
    if (word === undefined)
      return new FilterError(`something is missing at the end${why === undefined ? '' : `: ${why}`}`);
    return new FilterError(why === undefined ? `unexpected '${word.text}'` : `at '${word.text}': ${why}`);
  }

  #expression(): Test {
    let test = this.#term();
    for (;;) {
      if (this.#take('and', '&&')) test = and(test, this.#term());
      else if (this.#take('or', '||')) test = or(test, this.#term());
      else return test;
    }
  }

  #term(): Test {
    if (this.#take('not', '!')) return not(this.#term());
    const relation = this.#relation();
    if (relation !== undefined) return relation;
    if (this.#take('(')) {
      const test = this.#expression();
      if (!this.#take(')')) throw this.#stuck("')' is missing");
      this.#inherited = null;
      return test;
    }
    return this.#primitive();
  }

  /** `arithmetic relation arithmetic`, or undefined, and nothing taken, when the words are something else. */
  #relation(): Test | undefined {
    const from = this.#at;
    const left = this.#arithmetic(0);
    const relation = this.#peek();
    if (left === undefined || relation === undefined || !RELATIONS.includes(relation)) {
      this.#at = from;
      return undefined;
    }
    this.#take(relation);
    const right = this.#arithmetic(0);
    if (right === undefined) throw this.#stuck();
    this.#inherited = null;
    const compare = comparison(relation, left.load, right.load);
    const guard = both(left.guard, right.guard);
    return guard === null ? compare : and(guard, compare);
  }

  #arithmetic(weakest: number): Value | undefined {
    let left = this.#operand();
    while (left !== undefined) {
      const operator = this.#peek() ?? '';
      const strength = STRENGTH[operator];
      if (strength === undefined || strength <= weakest) return left;
      this.#take(operator);
      const right = this.#arithmetic(strength === Number.POSITIVE_INFINITY ? 0 : strength);
      if (right === undefined) return undefined;
      if ((operator === '/' || operator === '%') && right.constant === 0) throw this.#stuck('division by zero');
      left = combine(operator, left, right);
    }
    return undefined;
  }

  #operand(): Value | undefined {
    const word = this.#words[this.#at];
    if (word === undefined) return undefined;
    if (this.#take('-')) {
      const value = this.#operand();
      return value && combine('-', literal(0), value);
    }
    if (this.#take('(')) {
      const value = this.#arithmetic(0);
      return value !== undefined && this.#take(')') ? value : undefined;
    }
    if (this.#take('len')) return { load: (f) => f.length, guard: null, constant: undefined };
    if (word.number !== undefined) {
      this.#at++;
      return literal(word.number);
    }
    const named = VALUES[word.text];
    if (named !== undefined) {
      this.#at++;
      return literal(named);
    }
    return this.#peek(1) === '[' ? this.#bytes(word.text) : undefined;
  }

  /** `proto[index]` or `proto[index:size]`. */
  #bytes(proto: string): Value {
    const where = accessor(proto);
    if (where === undefined) throw this.#stuck('it has no bytes to look at');
    this.#at += 2;
    this.#farthest = Math.max(this.#farthest, this.#at);
    const index = this.#arithmetic(0);
    if (index === undefined) throw this.#stuck();
    let size = 1;
    if (this.#take(':')) {
      const given = this.#words[this.#at]?.number;
      if (given !== 1 && given !== 2 && given !== 4) throw this.#stuck('the size must be 1, 2 or 4');
      size = given;
      this.#at++;
    }
    if (!this.#take(']')) throw this.#stuck("']' is missing");
    const { base } = where;
    return {
      load: (f) => load(f, base(f) + (index.load(f) | 0), size),
      guard: both(index.guard, where.guard),
      constant: undefined,
    };
  }

  #primitive(): Test {
    const first = this.#peek();
    if (first === undefined) throw this.#stuck();
    if (this.#take('less', 'greater')) {
      const length = this.#number();
      this.#inherited = null;
      return first === 'less' ? (f) => f.length <= length : (f) => f.length >= length;
    }
    const from = this.#at;
    const proto = PROTOCOLS.includes(first) ? first : null;
    if (proto !== null) this.#take(first);
    const direction = this.#direction();
    const type = this.#type();
    if (direction === null && type === null) {
      const cast = this.#cast(proto);
      if (cast !== undefined) return cast;
      if (proto !== null && !this.#isValue()) {
        if (proto === 'ether' || proto === 'link') throw this.#stuck();
        this.#inherited = null;
        return isProtocol(proto);
      }
    }
    if (this.#at === from) {
      if (!this.#isValue()) throw this.#stuck();
      if (this.#inherited === null) throw this.#stuck('no qualifier goes with this value');
    } else {
      this.#inherited = { proto, direction, type };
    }
    return this.#values();
  }

  #direction(): Direction | null {
    if (!this.#take('src', 'dst')) return null;
    const first = this.#words[this.#at - 1]!.text;
    const other = first === 'src' ? 'dst' : 'src';
    if (this.#peek(1) === other) {
      if (this.#take('or', '||')) {
        this.#at++;
        return 'src or dst';
      }
      if (this.#take('and', '&&')) {
        this.#at++;
        return 'src and dst';
      }
    }
    return first === 'src' ? 'src' : 'dst';
  }

  #type(): Qualifiers['type'] {
    const text = this.#peek();
    if (text === 'host' || text === 'net' || text === 'port' || text === 'portrange' || text === 'proto') {
      this.#take(text);
      return text;
    }
    return null;
  }

  /** `broadcast` and `multicast` of the link (also written with ether), and of IP. */
  #cast(proto: string | null): Test | undefined {
    const text = this.#peek();
    if (text !== 'broadcast' && text !== 'multicast') return undefined;
    if (proto === 'ip' && text === 'multicast') {
      this.#take(text);
      this.#inherited = null;
      return and(isIp, (f) => load(f, f.net + 16, 1) >= 224);
    }
    if (proto !== null && proto !== 'ether' && proto !== 'link') throw this.#stuck(`not known for ${proto}`);
    this.#take(text);
    this.#inherited = null;
    if (text === 'broadcast') return macTest('dst', 0xffff, -1);
    return (f) => f.isEthernet && (load(f, f.start, 1) & 1) !== 0;
  }

  #isValue(): boolean {
    const word = this.#words[this.#at];
    return (
      word !== undefined && (word.kind === 'value' || word.text === '(' || word.text === 'not' || word.text === '!')
    );
  }

  /** One value, or a list of them in parentheses, with the qualifiers that hold now. */
  #values(): Test {
    if (this.#take('not', '!')) return not(this.#values());
    if (!this.#take('(')) return this.#value(this.#inherited!);
    let test = this.#values();
    for (;;) {
      if (this.#take('and', '&&')) test = and(test, this.#values());
      else if (this.#take('or', '||')) test = or(test, this.#values());
      else if (this.#take(')')) return test;
      else throw this.#stuck();
    }
  }

  #value(q: Qualifiers): Test {
    const word = this.#words[this.#at];
    if (word === undefined || word.kind !== 'value') throw this.#stuck();
    switch (q.type) {
      case 'port':
      case 'portrange':
        return this.#ports(q, q.type === 'portrange');
      case 'proto':
        return this.#protocol(q);
      case 'net':
        return this.#net(q);
      default:
        return this.#host(q);
    }
  }

  #host(q: Qualifiers): Test {
    const text = this.#peek()!;
    const mac = parseMac(text.replaceAll('-', ':'));
    if (q.proto === 'ether' || q.proto === 'link') {
      if (mac === undefined) throw this.#stuck('not a MAC address');
      this.#at++;
      return macTest(q.direction, mac.hi, mac.lo);
    }
    if (mac !== undefined) throw this.#stuck("a MAC address needs 'ether'");
    const ip = parseIp4(text);
    if (ip === undefined && q.type === null && q.direction === null) throw this.#stuck();
    this.#needAddressProtocol(q);
    if (ip === undefined) throw this.#stuck('not an IPv4 address (names are not resolved here)');
    this.#at++;
    if (this.#peek() === '/') throw this.#stuck("a prefix length needs 'net'");
    return addressTest(q.proto, q.direction, ip, -1);
  }

  /** `10.0.0.0/8`, `10.0.0.0 mask 255.0.0.0`, or the short forms `10`, `10.1`, `10.1.2`. */
  #net(q: Qualifiers): Test {
    this.#needAddressProtocol(q);
    const text = this.#peek()!;
    const parts = text.split('.');
    const ip = parseIp4([...parts, '0', '0', '0'].slice(0, 4).join('.'));
    if (ip === undefined || parts.length > 4) throw this.#stuck('not a network');
    this.#at++;
    let mask: number = netmask(8 * parts.length);
    if (this.#take('/')) {
      const length = this.#words[this.#at]?.number;
      if (length === undefined || length > 32) throw this.#stuck('not a prefix length');
      this.#at++;
      mask = netmask(length);
    } else if (this.#take('mask')) {
      const given = parseIp4(this.#peek() ?? '');
      if (given === undefined) throw this.#stuck('not a netmask');
      this.#at++;
      mask = given;
    }
    if ((ip & mask) !== ip) {
      this.#at--;
      throw this.#stuck(`bits beside the netmask are set in ${formatIp4(ip)}`);
    }
    return addressTest(q.proto, q.direction, ip, mask);
  }

  #needAddressProtocol(q: Qualifiers): void {
    if (q.proto === null || q.proto === 'ip' || q.proto === 'arp' || q.proto === 'rarp') return;
    throw this.#stuck(`'${q.proto}' does not go with a host or net`);
  }

  #ports(q: Qualifiers, isRange: boolean): Test {
    if (q.proto !== null && q.proto !== 'tcp' && q.proto !== 'udp' && q.proto !== 'sctp') {
      throw this.#stuck(`'${q.proto}' does not go with a port`);
    }
    const text = this.#peek()!;
    // With portrange a single port is a range of one.
    const ends = isRange ? text.split('-') : [text];
    let proto = q.proto;
    const ports = ends.map((end) => {
      const service = SERVICES[end];
      if (service === undefined) return /^[0-9]{1,5}$/.test(end) ? Number(end) : undefined;
      // A name that only one protocol has means that protocol.
      if (service.proto !== null) {
        if (proto !== null && proto !== service.proto) throw this.#stuck(`not a port of ${proto}`);
        proto = service.proto;
      }
      return service.port;
    });
    const [low, high = low] = ports;
    if (low === undefined || high === undefined || low > 65535 || high > 65535 || ports.length > 2) {
      throw this.#stuck(isRange ? 'not a range of ports' : 'not a port');
    }
    this.#at++;
    return portTest(proto, q.direction, Math.min(low, high), Math.max(low, high));
  }

  /** `ip proto 6`, `proto \tcp`, `ether proto 0x0806`. */
  #protocol(q: Qualifiers): Test {
    if (q.direction !== null) throw this.#stuck(`'${q.direction}' does not go with proto`);
    const word = this.#words[this.#at]!;
    const name = word.text.startsWith('\\') ? word.text.slice(1) : '';
    const names = q.proto === 'ether' || q.proto === 'link' ? ETHER_TYPES : IP_PROTOCOLS;
    const number = word.number ?? names[name];
    if (number === undefined) throw this.#stuck('not a protocol (a name needs a backslash before it)');
    this.#at++;
    switch (q.proto) {
      case 'ether':
      case 'link':
        return and((f) => f.isEthernet, isEtherType(number));
      case 'ip':
        return isIpProtocol(number);
      case 'ip6':
        return isIp6Protocol(number);
      case null:
        return or(isIpProtocol(number), isIp6Protocol(number));
      default:
        throw this.#stuck(`'${q.proto}' does not go with proto`);
    }
  }

  #number(): number {
    const number = this.#words[this.#at]?.number;
    if (number === undefined) throw this.#stuck('a number is needed');
    this.#at++;
    return number;
  }
}

function literal(value: number): Value {
  return { load: () => value, guard: null, constant: value };
}

function both(a: Test | null, b: Test | null): Test | null {
  if (a === null) return b;
  return b === null ? a : and(a, b);
}

function comparison(relation: string, left: Load, right: Load): Test {
  // Unsigned, as BPF compares.
  switch (relation) {
    case '<':
      return (f) => left(f) >>> 0 < right(f) >>> 0;
    case '>':
      return (f) => left(f) >>> 0 > right(f) >>> 0;
    case '<=':
      return (f) => left(f) >>> 0 <= right(f) >>> 0;
    case '>=':
      return (f) => left(f) >>> 0 >= right(f) >>> 0;
    case '!=':
      return (f) => left(f) >>> 0 !== right(f) >>> 0;
    default:
      return (f) => left(f) >>> 0 === right(f) >>> 0;
  }
}

/** BPF's arithmetic: 32 bits, unsigned; dividing by zero rejects the frame. */
const ARITHMETIC: Readonly<Record<string, (a: number, b: number) => number>> = {
  '+': (a, b) => (a + b) >>> 0,
  '-': (a, b) => (a - b) >>> 0,
  '*': (a, b) => Math.imul(a, b) >>> 0,
  '/': (a, b) => Math.floor((a >>> 0) / (b >>> 0)),
  '%': (a, b) => (a >>> 0) % (b >>> 0),
  '&': (a, b) => (a & b) >>> 0,
  '|': (a, b) => (a | b) >>> 0,
  '^': (a, b) => (a ^ b) >>> 0,
  '<<': (a, b) => (b > 31 ? 0 : (a << b) >>> 0),
  '>>': (a, b) => (b > 31 ? 0 : a >>> b),
};

function combine(operator: string, left: Value, right: Value): Value {
  const apply = ARITHMETIC[operator]!;
  if (left.constant !== undefined && right.constant !== undefined) return literal(apply(left.constant, right.constant));
  const divides = operator === '/' || operator === '%';
  return {
    load: (f) => {
      const a = left.load(f);
      const b = right.load(f);
      if (divides && b === 0) {
        f.isShort = true;
        return 0;
      }
      return apply(a, b);
    },
    guard: both(left.guard, right.guard),
    constant: undefined,
  };
}

// ---- the door -----------------------------------------------------------------------------------------------------------

/** Compiles an expression; the empty one selects everything. @throws FilterError that names what was not understood */
export function compileFilter(text: string): FramePredicate {
  if (text.trim() === '') return () => true;
  const test = new Parser(text).parse();
  const f: Frame = {
    m: new DataView(new ArrayBuffer(0)),
    start: 0,
    end: 0,
    length: 0,
    isEthernet: true,
    net: 0,
    isShort: false,
  };
  return (m, start, end, medium, length = end - start) => {
    f.m = m;
    f.start = start;
    f.end = end;
    f.length = length;
    f.isEthernet = medium === 0;
    f.net = f.isEthernet ? start + 14 : start;
    f.isShort = false;
    return test(f) && !f.isShort;
  };
}
