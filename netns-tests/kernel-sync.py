"""Runs in the virtual machine of kernel-sync.test.ts: the kernel's IPVS and tapvs in one sync group, each backing up the other. A line a step; 0 when all held.

      cl 10.8.0.2 ─┐
      ka kernel   ─┼─ bridge ─┬─ rs1 10.9.0.21 (NAT, routes through the active director's 10.9.0.1)
      tb tapvs    ─┤          └─ rs2 10.9.0.22 (DR, has the VIP on lo)
      tc tapvs    ─┘

The active director has VIP 10.8.0.100 and gateway 10.9.0.1; at a takeover they move, and with them the held connections. An emulated processor takes seconds
to start node, so questions that are asked again and again go to the control socket, and the command line is for what is compared and changed.
"""
import ctypes
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time

TREE = sys.argv[1]
WORK = "/run/kernel-sync"
VIP, GATEWAY = "10.8.0.100", "10.9.0.1"
SERVICES = """-A -t {v}:80 -s rr
-a -t {v}:80 -r 10.9.0.21:80 -m
-A -t {v}:81 -s rr
-a -t {v}:81 -r 10.9.0.22:81 -g
-A -t {v}:443 -s rr -p 300
-a -t {v}:443 -r 10.9.0.21:443 -m
-A -u {v}:53 -s rr
-a -u {v}:53 -r 10.9.0.21:53 -m
""".format(v=VIP)
WAIT_SECONDS = 90
started = time.monotonic()
libc = ctypes.CDLL(None, use_errno=True)


def say(text):
    print("%5.1f %s" % (time.monotonic() - started, text), flush=True)


def sh(*argv, ns=None, ok=True, stdin=None):
    argv = (["ip", "netns", "exec", ns] if ns else []) + list(argv)
    p = subprocess.run(argv, text=True, input=stdin, capture_output=True)
    if ok and p.returncode != 0:
        raise SystemExit("FAILED: %s: %s%s" % (" ".join(argv), p.stdout, p.stderr))
    return p.stdout


class In:
    """This thread in a namespace."""
    def __init__(self, ns):
        self.ns = ns
    def __enter__(self):
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open("/run/netns/" + self.ns, os.O_RDONLY)
        assert libc.setns(there, 0x40000000) == 0
        os.close(there)
    def __exit__(self, *_):
        assert libc.setns(self.home, 0x40000000) == 0
        os.close(self.home)


def host(ns, *addresses):
    sh("ip", "netns", "add", ns)
    sh("ip", "link", "add", "eth0", "netns", ns, "type", "veth", "peer", "name", ns, "netns", "sw")
    sh("ip", "link", "set", ns, "master", "br0", "up", ns="sw")
    sh("ip", "link", "set", "lo", "up", ns=ns)
    for knob in ("all.rp_filter=0", "default.rp_filter=0", "all.send_redirects=0", "default.send_redirects=0", "all.accept_redirects=0"):
        sh("sysctl", "-qw", "net.ipv4.conf." + knob, ns=ns)
    for a in addresses:
        sh("ip", "addr", "add", a, "dev", "eth0", ns=ns)
    sh("ip", "link", "set", "eth0", "up", ns=ns)


SERVER = r'''
import selectors, socket, sys
name, sel = sys.argv[1], selectors.DefaultSelector()
def line(c, _):
    d = c.recv(4096)
    if not d: sel.unregister(c); c.close()
    else: c.sendall(name.encode() + b" " + d)
def accept(s, _):
    c, _ = s.accept(); sel.register(c, 1, line)
def datagram(s, _):
    d, a = s.recvfrom(4096); s.sendto(name.encode() + b" " + d, a)
for port in (80, 81, 443):
    s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("", port)); s.listen(64); sel.register(s, 1, accept)
s = socket.socket(2, 2); s.bind(("", 53)); sel.register(s, 1, datagram)
while True:
    for k, m in sel.select(): k.data(k.fileobj, m)
'''
held = {}


def connect(port, n):
    for i in range(n):
        with In("cl"):
            c = socket.socket()
        c.settimeout(WAIT_SECONDS)
        c.connect((VIP, port))
        held["%d.%d" % (port, len(held))] = c


def talk(words=2):
    for name, c in held.items():
        for w in range(words):
            text = ("%s %d\n" % (name, w)).encode()
            c.sendall(text)
            got = c.recv(4096)
            if not got.endswith(text):
                raise SystemExit("FAILED: %s answered %r" % (name, got))


def datagrams(n):
    with In("cl"):
        s = socket.socket(2, 2)
    s.bind(("10.8.0.2", 30053))
    s.settimeout(WAIT_SECONDS)
    for i in range(n):
        s.sendto(b"x", (VIP, 53))
        s.recv(100)
    s.close()


def kernel(ns, *args, stdin=None):
    return sh("ipvsadm", *args, ns=ns, stdin=stdin)


def tapvs(ns, *args, stdin=None):
    env = ["env", "TAPVS_SOCKET=%s/%s.sock" % (WORK, ns)]
    return sh(*env, TREE + "/bin/tapvs", *args, ns=ns, stdin=stdin)


class Control(http.client.HTTPConnection):
    def __init__(self, ns):
        super().__init__("tapvs", timeout=WAIT_SECONDS)
        self.path = "%s/%s.sock" % (WORK, ns)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def asked(ns, path):
    """What the daemon answers; None when nobody listens yet."""
    control = Control(ns)
    try:
        control.request("GET", path)
        return control.getresponse().read().decode()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        control.close()


def until(what, true):
    end = time.monotonic() + WAIT_SECONDS
    while not true():
        if time.monotonic() > end:
            raise SystemExit("FAILED: not within %d s: %s" % (WAIT_SECONDS, what))
        time.sleep(0.2)


def until_as_many(ns, rows):
    until("%s knows what the master knows" % ns, lambda: len(asked(ns, "/v1/ipvs/connections").splitlines()) == len(rows()))


def connections(listing):
    """Lines without their expiry."""
    return sorted(re.sub(r"(?m)^(\S+) \d\d:\d\d ", r"\1 ", line) for line in listing.splitlines()[2:])


def same(what, one, other):
    """Of two listings. What has just changed may be under way yet: asks again a few times."""
    for attempt in range(8):
        a, b = one(), other()
        if a == b:
            say("ok   %s: %d lines" % (what, len(a)))
            return
        time.sleep(1)
    raise SystemExit("FAILED: %s\n--- one\n%s\n--- other\n%s" % (what, "\n".join(a), "\n".join(b)))


def start_tapvs(ns, n, daemons):
    """tapvsd behind a TAP of the bridge that the namespace's veth is in."""
    sh("ip", "netns", "add", ns)
    sh("ip", "link", "add", "nic", "netns", ns, "type", "veth", "peer", "name", ns, "netns", "sw")
    sh("ip", "link", "set", ns, "master", "br0", "up", ns="sw")
    sh("ip", "link", "set", "lo", "up", ns=ns)
    sh("ip", "link", "add", "br-nic", "type", "bridge", "forward_delay", "0", ns=ns)
    sh("ip", "link", "set", "nic", "master", "br-nic", "up", ns=ns)
    sh("ip", "link", "set", "br-nic", "up", ns=ns)
    config = {
        "devices": [{"name": "eth0", "kind": "tap", "bridge": "br-nic", "mac": "02:00:00:00:00:%02d" % n,
                     "addresses": ["10.9.0.%d/24" % n, "10.8.0.%d/24" % n]}],
        "sysctl": {"net.ipv4.ip_forward": 1, "net.ipv4.vs.sync_threshold": "0 1"},
        "ipvsadm_file": "%s/%s.rules" % (WORK, ns),
        "limits": {"connections": 16384, "packets": 1024},
    }
    open("%s/%s.rules" % (WORK, ns), "w").write(SERVICES + daemons)
    open("%s/%s.yaml" % (WORK, ns), "w").write(json.dumps(config))
    log = open("%s/%s.log" % (WORK, ns), "wb")
    p = subprocess.Popen(["ip", "netns", "exec", ns, TREE + "/bin/tapvsd", "--config", "%s/%s.yaml" % (WORK, ns),
                          "--socket", "%s/%s.sock" % (WORK, ns)], stdout=log, stderr=log, env=dict(os.environ, STATE_DIRECTORY=WORK + "/" + ns))
    until("tapvsd answers", lambda: asked(ns, "/v1/status") is not None or p.poll() is not None)
    if p.poll() is not None:
        raise SystemExit("FAILED: tapvsd: " + open("%s/%s.log" % (WORK, ns)).read())
    return p


def start_kernel(ns, n, daemons):
    host(ns, "10.9.0.%d/24" % n, "10.8.0.%d/24" % n)
    sh("sysctl", "-qw", "net.ipv4.ip_forward=1", ns=ns)
    kernel(ns, "-R", stdin=SERVICES)
    for line in daemons.splitlines():
        kernel(ns, *line.split())


def announce(ns):
    """Gratuitous ARP, as a VRRP daemon sends it."""
    for ip in (VIP, GATEWAY):
        with In(ns):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        s.bind(("eth0", 0x806))
        mac, addr = s.getsockname()[4], socket.inet_aton(ip)
        s.send(b"\xff" * 6 + mac + bytes.fromhex("08060001080006040001") + mac + addr + b"\0" * 6 + addr)
        s.close()


def take_kernel(ns):
    sh("ip", "addr", "add", VIP + "/32", "dev", "eth0", ns=ns)
    sh("ip", "addr", "add", GATEWAY + "/24", "dev", "eth0", ns=ns)
    announce(ns)


def main():
    os.makedirs(WORK, exist_ok=True)
    sh("ip", "netns", "add", "sw")
    sh("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", ns="sw")
    sh("ip", "link", "set", "br0", "up", ns="sw")
    host("cl", "10.8.0.2/24")
    host("rs1", "10.9.0.21/24")
    sh("ip", "route", "add", "default", "via", GATEWAY, ns="rs1")
    host("rs2", "10.9.0.22/24")
    sh("ip", "route", "add", "10.8.0.0/24", "dev", "eth0", "src", "10.9.0.22", ns="rs2")
    sh("ip", "route", "add", "10.9.0.0/24", "dev", "eth0", ns="cl")
    for knob in ("all.arp_ignore=1", "all.arp_announce=2"):
        sh("sysctl", "-qw", "net.ipv4.conf." + knob, ns="rs2")
    sh("ip", "addr", "add", VIP + "/32", "dev", "lo", ns="rs2")
    for rs in ("rs1", "rs2"):
        subprocess.Popen(["ip", "netns", "exec", rs, sys.executable, "-c", SERVER, rs])

    say("== a kernel master, backed up by tapvs")
    start_kernel("ka", 11, "--start-daemon master --mcast-interface eth0 --syncid 7")
    sh("sysctl", "-qw", "net.ipv4.vs.sync_threshold=0 1", ns="ka")
    take_kernel("ka")
    tb = start_tapvs("tb", 12, "--start-daemon backup --mcast-interface eth0 --syncid 7\n")
    for port in (80, 81, 443):
        connect(port, 3)
    talk(3)
    datagrams(4)
    kernel_rows = lambda: connections(kernel("ka", "-Lnc"))
    tapvs_rows = lambda: connections(tapvs("tb", "ipvsadm", "-Lnc"))
    servers = lambda listing: [line for line in listing.splitlines() if "->" in line]
    kernel_servers = lambda: servers(kernel("ka", "-Ln"))
    tapvs_servers = lambda: servers(tapvs("tb", "ipvsadm", "-Ln"))
    until_as_many("tb", kernel_rows)
    same("connections", kernel_rows, tapvs_rows)
    same("servers' counts", kernel_servers, tapvs_servers)

    say("== the kernel goes, tapvs takes over")
    sh("ip", "netns", "del", "ka")
    tapvs("tb", "ip", "addr", "add", VIP + "/32", "dev", "eth0")
    tapvs("tb", "ip", "addr", "add", GATEWAY + "/24", "dev", "eth0")
    talk(2)
    say("ok   %d held connections go on through tapvs" % len(held))

    say("== tapvs is the master now, and the kernel its backup")
    tapvs("tb", "ipvsadm", "-R", stdin="--stop-daemon backup\n--start-daemon master --mcast-interface eth0 --syncid 8\n")
    start_kernel("ka", 11, "--start-daemon backup --mcast-interface eth0 --syncid 8")
    for port in (80, 81, 443):
        connect(port, 2)
    talk(3)
    datagrams(4)
    until_as_many("tb", kernel_rows)
    same("connections", kernel_rows, tapvs_rows)
    same("servers' counts", kernel_servers, tapvs_servers)

    say("== another tapvs joins and asks for the whole table, which does not disturb the kernel")
    before = kernel_rows()
    said = sh("dmesg").splitlines()
    tc = start_tapvs("tc", 13, "--start-daemon backup --mcast-interface eth0 --syncid 8\n")
    daemon = lambda: json.loads(asked("tc", "/v1/ipvs/daemons"))[0]
    until("the transfer is complete", lambda: daemon()["transfer"] == "complete")
    same("connections of the newcomer", lambda: connections(tapvs("tc", "ipvsadm", "-Lnc")), tapvs_rows)
    say("     %s" % daemon()["counters"])
    if daemon()["counters"]["bulkRecords"] < len(before):
        raise SystemExit("FAILED: not all connections came with the transfer")
    same("the kernel's connections", lambda: before, kernel_rows)
    complaints = [line for line in sh("dmesg").splitlines()[len(said):] if "IPVS" in line]
    if complaints:
        raise SystemExit("FAILED: the kernel complains: %s" % complaints)

    say("== tapvs goes, the kernel takes over")
    for daemon_process in (tb, tc):
        daemon_process.kill()
    take_kernel("ka")
    talk(2)
    say("ok   %d held connections go on through the kernel" % len(held))


main()
say("kernel-sync: all held")
