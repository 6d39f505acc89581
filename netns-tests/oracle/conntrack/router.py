"""tapvs as the router of ../shared/oracle-conntrack/ctdiff.py: what stands where the kernel stood in the recordings.

    a (raw) --- va ┐               ┌ vb --- b (raw)
                   └── tapvsd ─────┘              its devices va and vb are packet sockets on the interfaces of these names

The kernel of the router's namespace keeps no address and forwards nothing. The daemon's clock is held, and turned by what a `wait` step says and by a tick
or two for each frame, so a busy machine changes no timeout; a step is over when the daemon has nothing more to do and every event that it
told has been read.
"""
import os
import subprocess
import time

import ctdiff
from api import ApiError
from daemon import START_SECONDS, Daemon

TICK = 0.004
# A wait as short as this is turned in steps.
STEPPED_SECONDS = 10
# Turns of the clock after which nothing more is to come: a packet, an ARP question, its answer, what waited for it.
QUIET_TURNS = 3
# A machine may be busy; in vain it waits only when an event was lost.
EVENT_SECONDS = 5
ERRNO = {"Invalid argument": "EINVAL", "No such file or directory": "ENOENT", "Permission denied": "EACCES"}


class Router(Daemon, ctdiff.Backend):
    name = "tapvs"
    known_streams = frozenset()

    def start(self, topo):
        self.topo = topo
        self.known_streams = set()
        self.prepare()
        topo.write_sysctl("net.ipv4.ip_forward", 0)
        ctdiff.Topology.batch(["addr flush dev va", "addr flush dev vb"], topo.ns("r"))
        self.start_daemon(self.config(), topo.popen)
        self.clock(runs=False)
        self.setup()

    def config(self):
        spec = self.topo.spec
        devices = [{"name": device, "kind": "packet", "interface": device, "mac": ctdiff.Topology.MAC[device].replace("02:cd", "02:ce"),
                    "mtu": spec.get("mtu_" + end, 1500),
                    "addresses": [ctdiff.Topology.ADDR[device], *spec.get("addrs", {}).get(device, [])]}
                   for end, device in ctdiff.Topology.END.items()]
        return {"devices": devices, "limits": {"connections": 16384, "packets": 4096}}

    def clock(self, **turn):
        self.api.call("POST", "/v1/clock", turn)

    def setup(self):
        for key, value in self.SYSCTLS.items():
            rc, _, err = self.sysctl(key, str(value))
            if rc:
                raise RuntimeError("sysctl %s=%s: %s" % (key, value, err))
        if self.topo.spec.get("states", True):
            lines = [line.removeprefix("-t mangle ").replace("-N CTS", ":CTS - [0:0]") for line in self.CHAIN]
            rc, _, err = self.tapvs("iptables-restore", "--noflush", stdin="\n".join(["*mangle", *lines, "COMMIT", ""]))
            if rc:
                raise RuntimeError("iptables-restore: " + err)

    def tapvs(self, *words, stdin=None):
        """A command. It needs no namespace, only the daemon's socket."""
        p = subprocess.run([os.path.join(self.opts.bin, "tapvs"), *words], env=self.env, text=True, capture_output=True, timeout=60,
                           **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}))
        return p.returncode, p.stdout, p.stderr

    def iptables(self, args, stdin=None):
        return self.tapvs("iptables", *args, stdin=stdin)

    def frames(self):
        """{end: (frames that the daemon has received from it, frames that it has sent to it)}"""
        rows = {row["name"]: row["stats"] for row in self.api.call("GET", "/v1/ip/links")}
        return {end: (rows[device]["rxPackets"], rows[device]["txPackets"]) for end, device in ctdiff.Topology.END.items()}

    def states(self):
        chain = next(chain for chain in self.api.call("GET", "/v1/iptables/mangle")["chains"] if chain["name"] == "CTS")
        return [rule["packets"] for rule in chain["rules"]]

    def conntrack(self, args, stdin=None):
        return self.tapvs("conntrack", *args, stdin=stdin)

    def ip(self, args):
        return self.tapvs("ip", *args)

    def sysctl(self, key, value=None):
        try:
            if value is not None:
                self.api.call("PUT", "/v1/sysctl/" + key, {"value": value})
            return 0, self.api.call("GET", "/v1/sysctl/" + key)["value"], ""
        except ApiError as error:
            if error.code == "no-such-key":
                return 255, "", "ENOENT"
            if error.code == "bad-value":
                return 255, "", "EINVAL"
            raise

    def events(self, args):
        return subprocess.Popen([os.path.join(self.opts.bin, "tapvs"), "conntrack", "-E", *args], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def streams(self):
        """{stream: events told to it}"""
        return {stream["id"]: stream["told"] for stream in self.api.call("GET", "/v1/conntrack")["streams"]}

    def events_ready(self, proc):
        end = time.monotonic() + START_SECONDS
        while True:
            fresh = set(self.streams()) - self.known_streams
            if fresh:
                proc.stream = fresh.pop()
                self.known_streams.add(proc.stream)
                return
            if proc.poll() is not None or time.monotonic() > end:
                raise RuntimeError("conntrack -E did not start")
            time.sleep(0.005)

    def stop(self):
        self.stop_daemon()


class Runner(ctdiff.Runner):
    """A step is over when the daemon has received each frame of it, its clock was turned so often that nothing more is to come, and each frame that it sent and
    each event that it told has been read."""

    due = None  # {end: frames that the daemon will have received}

    def __init__(self, scenario, opts):
        super().__init__(scenario, Router(opts), opts)

    def do_tx(self, a, st):
        for name, end in self.ends.items():
            if not hasattr(end, "seen"):
                self.count(name, end)
        before = self.be.frames()
        self.due = {name: received for name, (received, _) in before.items()}
        for name, end in self.ends.items():
            end.seen = before[name][1]
        return super().do_tx(a, st)

    def count(self, name, end):
        """Counts what an end sends for a step, and what it sees."""
        send, readable = end.send, end.readable

        def counted_send(ip):
            self.due[name] += 1
            send(ip)

        def counted_readable():
            n = readable()
            end.seen += n
            return n
        end.seen, end.send, end.readable = 0, counted_send, counted_readable

    def settle(self, quiet=None):
        due, self.due = self.due, None
        if due is not None:
            self.await_frames(lambda now: all(now[name][0] >= n for name, n in due.items()))
        turns = 0
        while turns < QUIET_TURNS:
            self.be.clock(seconds=TICK)
            turns = 0 if self.pump(0.001) else turns + 1
        if due is not None:
            self.await_frames(lambda now: all(end.seen >= now[name][1] for name, end in self.ends.items()))
        self.await_events()

    def await_frames(self, is_over):
        """A machine may be busy: a frame may be on its way in the kernel."""
        end = time.monotonic() + EVENT_SECONDS
        while not is_over(self.be.frames()) and time.monotonic() < end:
            self.pump(0.002)

    def await_events(self):
        running = [p for p in self.streams if p.poll() is None]
        if not running:
            return
        told = self.be.streams()
        missing = lambda: any(p.read < told.get(p.stream, 0) for p in running)
        self.pump(EVENT_SECONDS, lambda: not missing())

    def stream(self, args, tag="ev "):
        p = super().stream(args, tag)
        p.read = 0
        take = self.sel.get_key(p.stdout).data

        def counted():
            n = len(self.evbuf)
            result = take()
            p.read += len(self.evbuf) - n
            return result
        self.sel.modify(p.stdout, ctdiff.selectors.EVENT_READ, counted)
        return p

    def do_wait(self, a, st):
        left = float(a)
        # What is repeated each second is, in a short wait.
        while 0 < left <= STEPPED_SECONDS:
            step = min(left, 0.5)
            self.be.clock(seconds=step)
            left -= step
        if left > 0:
            self.be.clock(seconds=left)
        self.settle()
        return "wait %s" % a, self.collect() + self.take_events(False)
