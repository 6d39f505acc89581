"""Shell commands for the kernel's director, translated for tapvs: marks, addresses, routes, neighbours, sysctls.

    iptables -t mangle -A PREROUTING -p tcp -d 10.0.3.0/24 -j MARK --set-mark 7     a rule for POST /v1/marks (src/engine/test-marks.ts)
    ip route add local 10.0.3.0/24 dev lo; sysctl -w net.ipv4.ip_forward=0          tapvs ip …, tapvs sysctl …

What is not understood whole is not run at all: Unsupported says why.
"""
import ipaddress
import shlex

HOOKS = {"PREROUTING": "PreRouting", "INPUT": "LocalIn", "FORWARD": "Forward", "OUTPUT": "LocalOut", "POSTROUTING": "PostRouting"}
PROTOCOLS = {"all": 0, "icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
LIST_SYSCTLS = "ls /proc/sys/net/ipv4/vs"
FULL = 0xffffffff
# Fields of a rule that are no condition.
VERDICT = ("value", "mask")


class Unsupported(Exception):
    """A step that only a kernel director can do."""


class Marks:
    """The mangle table of the director, as far as it sets marks."""

    def __init__(self):
        self.rules = {hook: [] for hook in HOOKS.values()}

    def list(self):
        return [dict(rule, hook=hook) for hook, rules in self.rules.items() for rule in rules]

    def run(self, words):
        """One iptables command -> (exit status, stdout, stderr)."""
        op, hook, at, rule = parse_iptables(words)
        rules = self.rules[hook] if hook else None
        if op == "F":
            for some in [rules] if hook else self.rules.values():
                some.clear()
        elif op == "A":
            rules.append(rule)
        elif op == "I":
            rules.insert(at - 1, rule)
        elif rule is None:
            if at > len(rules):
                return 1, "", "iptables: Index of deletion too big.\n"
            del rules[at - 1]
        elif rule in rules:
            rules.remove(rule)
        else:
            return 1, "", "iptables: Bad rule (does a matching rule exist in that chain?).\n"
        return 0, "", ""


def number(text, what):
    try:
        return int(text, 0)
    except ValueError:
        raise Unsupported("iptables: %s %s" % (what, text)) from None


def ports(text, what):
    ranges = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        ranges.append([number(low or "0", what), number((high or "65535") if colon else low, what)])
    return ranges


def prefix(text):
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise Unsupported("iptables: address " + text) from None


def parse_iptables(words):
    """-> (A, I, D or F, hook or None, place, rule or None)"""
    words = list(words)
    op = hook = rule = None
    at, table, target, fields = 1, "filter", None, {}

    def take():
        if not words:
            raise Unsupported("iptables: something is missing at the end")
        return words.pop(0)

    while words:
        word = take()
        if word in ("-t", "--table"):
            table = take()
        elif word in ("-A", "--append", "-I", "--insert", "-D", "--delete", "-F", "--flush"):
            op = {"append": "A", "insert": "I", "delete": "D", "flush": "F"}.get(word[2:], word[1:])
            if op != "F" or (words and not words[0].startswith("-")):
                name = take()
                if name not in HOOKS:
                    raise Unsupported("iptables: chain " + name)
                hook = HOOKS[name]
            if op in "ID" and words and words[0].isdigit():
                at = int(take())
        elif word in ("-p", "--protocol"):
            name = take()
            fields["protocol"] = PROTOCOLS[name] if name in PROTOCOLS else number(name, "protocol")
        elif word in ("-s", "--source", "--src"):
            fields["source"] = prefix(take())
        elif word in ("-d", "--destination", "--dst"):
            fields["destination"] = prefix(take())
        elif word in ("-i", "--in-interface"):
            fields["inDevice"] = take()
        elif word in ("-o", "--out-interface"):
            fields["outDevice"] = take()
        elif word in ("--dport", "--dports", "--destination-port", "--destination-ports"):
            fields["destinationPorts"] = ports(take(), word)
        elif word in ("--sport", "--sports", "--source-port", "--source-ports"):
            fields["sourcePorts"] = ports(take(), word)
        elif word in ("-m", "--match") and words and words[0] in ("tcp", "udp", "sctp", "multiport", "comment"):
            if take() == "comment" and take() == "--comment":
                take()
        elif word in ("-j", "--jump"):
            target = take()
        elif word in ("--set-mark", "--set-xmark", "--or-mark", "--and-mark", "--xor-mark"):
            value, slash, mask = take().partition("/")
            value, mask = number(value, word), number(mask, word) if slash else FULL
            fields["value"], fields["mask"] = {
                "--set-mark": (value, mask | value), "--set-xmark": (value, mask), "--or-mark": (value, value),
                "--and-mark": (0, ~value & FULL), "--xor-mark": (value, 0)}[word]
        elif word in ("-w", "--wait"):
            if words and words[0].isdigit():
                take()
        else:
            raise Unsupported("iptables: " + word)
    is_numbered = op == "D" and not fields and target is None
    if table != "mangle" or op is None or (op != "F" and not is_numbered and (target != "MARK" or "value" not in fields)):
        raise Unsupported("of iptables there are only marks: " + " ".join(words) if words else "of iptables there are only marks")
    if op != "F" and not is_numbered:
        rule = fields
    return op, hook, at, rule


def translate(cmd):
    """-> [(tool, words)], tool one of iptables, ip, sysctl, list-sysctls. Raises Unsupported."""
    if cmd.strip() == LIST_SYSCTLS:
        return [("list-sysctls", [])]
    lexer = shlex.shlex(cmd.replace("\n", " ; "), posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    commands, words = [], []
    for token in list(lexer) + [";"]:
        if token in (";", "&&"):
            if words:
                commands.append(words)
            words = []
        elif set(token) <= set(";&|<>()"):
            raise Unsupported("sh in the director's namespace: " + cmd)
        else:
            words.append(token)
    result = []
    for words in commands:
        tool = words[0].rsplit("/", 1)[-1]
        if tool == "iptables":
            parse_iptables(words[1:])
        elif tool == "ip":
            if "rule" in words[1:3] or "table" in words or "-6" in words or "netns" in words:
                raise Unsupported("tapvs ip has no: " + " ".join(words))
        elif tool != "sysctl" or not [word for word in words[1:] if not word.startswith("-")]:
            raise Unsupported("sh in the director's namespace: " + cmd)
        result.append((tool, words[1:]))
    return result
