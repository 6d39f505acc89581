"""Shell commands for the kernel's director: the same words, run in tapvs's tools.

    iptables -t mangle -A PREROUTING -p tcp -d 10.0.3.0/24 -j MARK --set-mark 7; ip route add local 10.0.3.0/24 dev lo
    conntrack -L 2>/dev/null | grep -o 'src=.*'

A folder of links named as the tools stands first in PATH. What needs more of the director than these tools have is not run at all: Unsupported says why.
"""
import shlex

LIST_SYSCTLS = "ls /proc/sys/net/ipv4/vs"
TOOLS = ("ipvsadm", "ip", "sysctl", "conntrack", "iptables", "iptables-save", "iptables-restore")


class Unsupported(Exception):
    """A step that only a kernel director can do."""


def check(cmd):
    """Raises Unsupported when a command asks for what tapvs has not."""
    if cmd.strip() == LIST_SYSCTLS:
        return
    lexer = shlex.shlex(cmd.replace("\n", " ; "), posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    words = list(lexer)
    for at, word in enumerate(words):
        if word == "ip" and ({"rule", "table", "-6", "netns"} & set(words[at + 1:at + 8])):
            raise Unsupported("tapvs ip has no: " + " ".join(words[at:at + 8]))
        if word.startswith(("/proc/", "/sys/")):
            raise Unsupported("sh in the director's namespace: " + cmd)
