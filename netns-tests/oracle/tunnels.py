"""Real servers of the oracle whose kernel has no IPIP: `tapvs decap` takes its place.

The recordings' kernel has the module: a server of mode "tun" gets a tunl0, which here is a TUN of the decapsulator; every other server answers IPIP
that is not for any tunnel with "port unreachable" (tunnel4_rcv), which here this process says for it, for without the module it would be
"protocol unreachable". GRE and GUE nobody there knew.
"""
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time

import oracle

READY_SECONDS = 20
TUNNEL_UP = "link set tunl0 up"
TUNNEL_COMMAND = re.compile(r"(^|\s)(-[a-z]*i|--ipip)\b")


def kernel_has_ipip():
    """Asked in a namespace of its own."""
    return subprocess.run(["unshare", "-n", "ip", "link", "show", "tunl0"], capture_output=True).returncode == 0


class Refuser:
    """Answers each IPIP packet that reaches a namespace. While its socket is open the kernel sends no error of its own for the protocol."""

    BURST, PER_SECOND = 6, 1  # of the kernel's limit for one peer

    def __init__(self, topo, name):
        self.tokens, self.refilled = self.BURST, time.monotonic()
        with topo.enter(name):
            self.heard = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_IPIP)
            self.voice = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        oracle.watch(self.heard, self.refuse)

    def refuse(self, heard, _mask):
        packet = heard.recv(65536)
        now = time.monotonic()
        self.tokens = min(self.BURST, self.tokens + (now - self.refilled) * self.PER_SECOND)
        self.refilled = now
        if self.tokens < 1:
            return
        self.tokens -= 1
        message = struct.pack("!BBHI", 3, 3, 0, 0) + packet[:548]
        message = message[:2] + struct.pack("!H", oracle.csum(message)) + message[4:]
        local, peer = (socket.inet_ntoa(packet[at:at + 4]) for at in (16, 12))
        self.voice.sendto(oracle.ip_packet(local, peer, 1, message, df=False, tos=packet[1] & 0x1e | 0xc0), (peer, 0))

    def close(self):
        oracle.unwatch(self.heard)
        self.heard.close()
        self.voice.close()


class Topology(oracle.Topology):
    """`bin`: folder of tapvs. `scenario` says whether tunnels occur at all."""

    def __init__(self, scenario, prefix, bin):
        super().__init__(scenario.get("topology"), prefix)
        self.bin, self.decaps, self.refusers = bin, [], []
        words = [step.get("ipvsadm", "") for step in scenario["steps"]]
        words = [w if isinstance(w, str) else " ".join(w) for w in words] + [str(step.get("stdin", "")) for step in scenario["steps"]]
        has_tunnels = any(TUNNEL_COMMAND.search(w) for w in words) or any(r["mode"] == "tun" for r in self.rs)
        self.is_ours = has_tunnels and not kernel_has_ipip()

    def up(self):
        super().up()
        if not self.is_ours:
            return
        for r in self.rs:
            if r["mode"] != "tun":
                self.refusers.append(Refuser(self, r["name"]))

    def _batch(self, lines, ns=None):
        if self.is_ours and TUNNEL_UP in lines:
            self.start_decap(ns[len(self.prefix):])
        oracle.Topology._batch(lines, ns)

    def start_decap(self, name):
        argv = ["setpriv", "--pdeathsig", "KILL", "--", os.path.join(self.bin, "tapvs"), "decap", "--device", "tunl0"]
        p = self.popen(name, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.decaps.append(p)
        end = time.monotonic() + READY_SECONDS
        while not select.select([p.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            raise RuntimeError("tapvs decap in %s is not ready" % name)
        if not p.stdout.readline().startswith("ready"):
            raise RuntimeError("tapvs decap in %s: %s" % (name, p.communicate()[1].strip()))

    def down(self):
        for refuser in self.refusers:
            refuser.close()
        self.refusers = []
        for p in self.decaps:
            p.send_signal(signal.SIGTERM)
        for p in self.decaps:
            try:
                p.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.communicate()
        self.decaps = []
        super().down()
