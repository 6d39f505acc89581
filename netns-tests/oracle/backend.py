"""tapvs as a director of the oracle (../shared/oracle/oracle.py): what stands where the kernel's IPVS stood in the recordings.

          kernel's director                             here
  sw ── front 10.0.1.1, VIPs           sw ── front-nic ── br-front ── TAP front ┐
        br0   10.0.2.1 ── rs1…                                                  tapvsd
                                       rs1… ────────────── br-back ── TAP br0   ┘

The TAPs carry the names that the recordings know, so messages and captures name the same things. The kernel of the director's
namespace keeps no address and forwards nothing.
"""
import os
import re
import socket
import subprocess
import time

import director_sh
import oracle
import tunnels
from daemon import Daemon

# Timers are late by their place in the wheel; every scenario begins at the same place. Ticks of 4 ms; the period is that of timers of some minutes.
WHEEL_TICKS, WHEEL_PHASE, TICKS_PER_SECOND = 4096, 0, 250
# Commands that are started before their turn.
AHEAD = 2
HOLD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hold.cjs")
# A frame that leaves the director comes in on the kernel's end of a TAP, and the other way round.
FLIPPED = {">": "<", "<": ">"}
ERRNO = {"Invalid argument": "EINVAL", "No such file or directory": "ENOENT"}
# Timers of a socket: 1 retransmission, 4 zero window probe.
RETRANSMIT = ("01", "04")


class TapvsBackend(Daemon, oracle.Backend):
    """`opts`, beside those of Daemon: commands (words, in the order of the steps, and whether there is an input)."""

    name = "tapvs"

    def __init__(self, opts):
        super().__init__(opts)
        self.coming = list(opts.commands)
        self.started = []  # [(args, process, pipe that gives it its turn)]

    def start(self, topo):
        super().start(topo)
        self.prepare()
        self.take_over()
        self.start_daemon(self.config(), lambda argv, **options: topo.popen("lb", argv, **options))
        ticks = self.clock(runs=False)
        # The clock began with 0, so the estimators, too, stand where they always do.
        self.clock(seconds=(WHEEL_PHASE - ticks) % WHEEL_TICKS / TICKS_PER_SECOND)
        self.start_ahead()
        oracle.pump.begin(self.clock)

    def take_over(self):
        """The director's addresses and the names of its devices become tapvs's."""
        topo, mtu = self.topo, "mtu %d " % self.topo.mtu if self.topo.mtu else ""
        topo.write_sysctl("lb", "net.ipv4.ip_forward", 0)
        topo._batch(
            ["addr flush dev front", "addr flush dev br0", "link set front down", "link set br0 down",
             "link set front name front-nic", "link set br0 name br-back", "link add br-front type bridge forward_delay 0",
             "link set front-nic master br-front up", "link set br-front up", "link set br-back %sup" % mtu],
            topo.ns("lb"))

    def config(self):
        return {
            "devices": [
                {"name": "front", "kind": "tap", "mac": "02:00:00:00:01:01", "bridge": "br-front", "addresses": ["10.0.1.1/24"]},
                {"name": "br0", "kind": "tap", "mac": "02:00:00:00:02:01", "bridge": "br-back", "mtu": self.topo.mtu or 1500,
                 "addresses": ["10.0.2.1/24"]},
            ],
            "addresses": [vip + "/32" for vip in self.topo.VIPS],
            "sysctl": {"net.ipv4.ip_forward": 1},
            "limits": {"connections": 65536, "packets": 4096},
        }

    def clock(self, **turn):
        """Turns the director's clock; answers its ticks."""
        return self.api.call("POST", "/v1/clock", turn)["ticks"]

    def tapvs(self, *words, stdin=None):
        """Runs a command."""
        turn = self.spawn(words, stdin is not None)
        return self.finish(turn, stdin)

    def spawn(self, words, has_stdin=False):
        """Starts a command that waits for its turn."""
        mine, its = os.pipe()[::-1]
        env = dict(self.env, TAPVS_ORACLE_TURN=str(its), NODE_OPTIONS="--require " + HOLD)
        p = self.topo.popen("lb", [os.path.join(self.opts.bin, "tapvs"), *words], text=True, env=env, pass_fds=(its,),
                            stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.close(its)
        return p, mine

    def finish(self, turn, stdin=None):
        """Lets it run; the director's clock is held meanwhile."""
        p, pipe = turn
        oracle.pump.pay()
        counts = self.peers_retransmit()
        began = time.monotonic()
        os.close(pipe)
        out, err = p.communicate(stdin, 60)
        if counts:
            oracle.pump.debt += time.monotonic() - began
        return p.returncode, out, err

    def start_ahead(self):
        while self.coming and len(self.started) < AHEAD:
            words, has_stdin = self.coming.pop(0)
            self.started.append((words, self.spawn(words, has_stdin)))

    def next(self, words, stdin=None):
        """Runs the command of a step, which was started before its turn."""
        expected, turn = self.started.pop(0)
        assert expected == words, (expected, words)
        self.start_ahead()
        return self.finish(turn, stdin)

    def ipvsadm(self, args, stdin=None):
        result = self.next(["ipvsadm", *args], stdin)
        # Connections of a server that went are ended a tick later (expire_nodest_conn), which is long before the next command.
        if args[:1] and args[0] in ("-d", "--delete-server", "-R", "--restore"):
            self.clock(seconds=1 / TICKS_PER_SECOND)
        return result

    def sysctl(self, key, value=None):
        rc, out, err = self.next(["sysctl", "-n", key if value is None else "%s=%s" % (key, value)])
        if rc == 0:
            return 0, out.rstrip("\n"), ""
        return 255, "", ERRNO.get(err.strip().rsplit(": ", 1)[-1], err.strip())

    def wait(self, seconds):
        """Real time while a server's late answer or a peer's retransmission is due; the rest is jumped over."""
        pump = oracle.pump
        began = time.monotonic()
        spare = min(pump.debt, seconds / 2)
        pump.debt -= spare
        end = began + seconds - spare
        self.clock(runs=True)
        pump.pump(min(seconds, 0.02))
        while time.monotonic() < end and (oracle.TIMERS or self.peers_retransmit()):
            pump.pump(min(0.25, max(0.0, end - time.monotonic())))
        self.clock(runs=False)
        self.clock(seconds=max(0.0, began + seconds - time.monotonic()))
        oracle.settle()

    def peers_retransmit(self):
        """Whether a TCP socket of the client or a server waits for an acknowledgement: proc(5), /proc/net/tcp, column tr."""
        for name in self.topo.names:
            if name in ("lb", "sw"):
                continue
            with self.topo.enter(name):
                # A file of /proc/net shows the namespace of the thread that opens it.
                with open("/proc/thread-self/net/tcp") as f:
                    if any(line.split()[5][:2] in RETRANSMIT for line in f.readlines()[1:]):
                        return True
        return False

    def director_sh(self, cmd):
        """A step that configures or asks the director's kernel: the same in tapvs's tools."""
        if cmd.strip() == director_sh.LIST_SYSCTLS:
            rc, out, err = self.tapvs("sysctl", "-aN", "-r", r"^net\.ipv4\.vs\.")
            return rc, "".join(sorted(line.rsplit(".", 1)[1] + "\n" for line in out.splitlines())), err
        oracle.pump.pay()
        p = self.topo.popen("lb", ["sh", "-c", cmd], text=True, env=dict(self.env, PATH=self.links() + ":" + self.env["PATH"]),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = p.communicate(timeout=60)
        return p.returncode, out, err

    def links(self):
        """A folder in which the classic tools' names call tapvs."""
        folder = os.path.join(self.run_dir, "links")
        if not os.path.isdir(folder):
            os.mkdir(folder)
            for tool in director_sh.TOOLS:
                with open(os.path.join(folder, tool), "w") as f:
                    f.write('#!/bin/sh\nexec %s %s "$@"\n' % (os.path.join(self.opts.bin, "tapvs"), tool))
                os.chmod(os.path.join(folder, tool), 0o755)
        return folder

    def stop(self):
        oracle.pump.begin(None)
        for _, (p, pipe) in self.started:
            p.kill()
            os.close(pipe)
            p.communicate()
        self.stop_daemon()


class Capture(oracle.Capture):
    def read(self, stop=True):
        lines = []
        for line in super().read(stop):
            place, sign, rest = re.split(r" +", line, maxsplit=2)
            lines.append("%-6s %s %s" % (place, FLIPPED[sign] if place.startswith("lb") else sign, rest))
        return lines


oracle.Capture = Capture


class Server(oracle.Server):
    """Closes 5 ms after its answer. The kernel's director forwards within the sender's system call, so there the client's acknowledgement came first."""

    answers = False

    def on_conn(self, c, peer, st):
        try:
            self.answers = c.recv(1, socket.MSG_PEEK) != b""
        except OSError:
            pass
        try:
            super().on_conn(c, peer, st)
        finally:
            self.answers = False

    def kill(self, c, peer, rst=False):
        close = super().kill
        if not self.answers:
            return close(c, peer, rst)
        oracle.unwatch(c)
        oracle.TIMERS.append((time.monotonic() + 0.005, lambda: close(c, peer, rst)))


oracle.Server = Server


class Pump:
    """oracle.pump, which keeps the director's time: its clock is held, and turned by what a step waits by its own words; how long this machine
    takes for it is not counted. Only when an answer is not there at once does the clock run (ARP gives up, say).

    What the commands took of the peers' time, while they wait for an acknowledgement, is made up for: what waits in vain waits for less, so that
    their retransmissions stand where they stood in the recordings."""

    PATIENCE = 0.1

    def __init__(self, pump):
        self.pump, self.debt, self.owed, self.turn = pump, 0.0, 0.0, None

    def begin(self, turn):
        self.debt, self.owed, self.turn = 0.0, 0.0, turn

    def pay(self):
        """Tells the director of the time that has passed."""
        if self.owed > 0:
            self.turn(seconds=self.owed)
            self.owed = 0.0

    def __call__(self, timeout, until=None):
        if self.turn is None:
            return self.pump(timeout, until)
        held = min(timeout, self.PATIENCE)
        began = time.monotonic()
        if self.pump(held, until) and until is not None:
            return True
        self.owed += held
        if held == timeout:
            return False
        self.owed += max(0.0, time.monotonic() - began - held)
        rest = timeout - held
        spare = min(self.debt, rest / 2)
        self.turn(seconds=self.owed, runs=True)
        self.owed = 0.0
        began = time.monotonic()
        done = self.pump(rest - spare, until)
        self.turn(runs=False)
        if until is not None and done:
            return True
        self.debt -= spare
        self.turn(seconds=max(0.0, rest - (time.monotonic() - began)))
        self.pump(0.002)
        return bool(until and until())


oracle.pump = Pump(oracle.pump)


class Runner(oracle.Runner):
    def __init__(self, scenario, backend, prefix):
        super().__init__(scenario, backend, prefix)
        self.topo = tunnels.Topology(scenario, prefix, backend.opts.bin)

    def run(self):
        try:
            return super().run()
        finally:
            oracle.pump.begin(None)

    def do_sh(self, a, st):
        if a["ns"] != "lb":
            return super().do_sh(a, st)
        rc, out, err = self.be.director_sh(a["cmd"])
        return "sh (lb) " + a["cmd"], self.result(rc, out, err) if not a.get("quiet") else ["rc %d" % rc]
