#!/usr/bin/env python3
"""Runs the oracle's scenarios against tapvs and compares with what the kernel's IPVS did.

  scripts/oracle [--scenarios DIR] [--recorded DIR] [--out DIR] [--jobs N] [--bin DIR] [NAME...]
  scripts/oracle --record [--scenarios DIR] [--recorded DIR] [--out DIR] [NAME...]

  NAME             scenarios to run, with * and ? (default: all)
  --scenarios DIR  where NAME.json are (default: ../shared/oracle/scenarios, and netns-tests/oracle/scenarios)
  --recorded DIR   transcripts of the real thing, NAME.txt (default: `recorded` beside each)
  --out DIR        keep our transcripts and the daemons' logs there
  --all            run what netns-tests/oracle/skipped.txt excepts, too
  --jobs N         scenarios at the same time (default: one more than there are processors, for some only wait)
  --bin DIR        where tapvs and tapvsd are (default: bin)
  --record         ask the real kernel again instead of tapvs: in a virtual machine, where there are qemu and a Debian kernel. The transcripts
                   are compared with those of --recorded, and kept in --out DIR

Prints a unified diff for each scenario that differs and ends with `N passed, N failed, N skipped`; exit status 1 if any failed.
Every worker has mounts of its own: its namespaces are seen by nobody else and go with it.
"""
import fnmatch
import json
import os
import re
import shlex
import sys
from types import SimpleNamespace

import director_sh
import harness
import record

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ORACLE = os.path.join(os.path.dirname(ROOT), "shared", "oracle")
SCENARIO_SECONDS = 400


def command_of(step):
    """(words for tapvs, whether they get an input) of a step that is one command; None for the others."""
    if "sysctl" in step:
        return ["sysctl", "-n", step["sysctl"]], False
    args = step.get("ipvsadm", step.get("list"))
    if args is None:
        return None
    return ["ipvsadm", *(args if isinstance(args, list) else shlex.split(args))], "stdin" in step


def come_first(is_first):
    """Whether this process, and all that it starts, comes before the rest of the machine: sched(7). Nothing happens where that is not allowed."""
    policy, priority = (os.SCHED_RR, 1) if is_first else (os.SCHED_OTHER, 0)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        pass


def run_scenario(task):
    """One scenario in this process -> (name, transcript, seconds). The oracle has one event loop per process."""
    # The peers' kernel repeats segments in its own time, beside which the director's clock is turned: other scenarios, whose time is only turned, can wait.
    come_first(task["name"] in AROUND or waits_long(task) > 0)
    sys.path[:0] = [os.path.dirname(task["oracle"]), HERE]
    import oracle
    import backend

    def begin(scenario):
        commands = [command for command in map(command_of, scenario["steps"]) if command is not None]
        options = SimpleNamespace(bin=task["bin"], log=task["log"], commands=commands)
        runner = backend.Runner(scenario, backend.TapvsBackend(options), "tvo%d-" % os.getpid())
        return runner.run, lambda: oracle.render(scenario, runner.log)

    result = harness.in_time(task, SCENARIO_SECONDS, begin)
    oracle.TIMERS.clear()
    for key in list(oracle.SEL.get_map().values()):
        oracle.unwatch(key.fileobj)
    return result


def missing(scenario):
    """What a scenario needs that is not there, whatever its name; None when nothing."""
    topology = scenario.get("topology") or {}
    if topology.get("v6"):
        return "IPv6 is not built"
    for step in scenario["steps"]:
        if step.get("sh", {}).get("ns") != "lb":
            continue
        try:
            director_sh.check(step["sh"]["cmd"])
        except director_sh.Unsupported as fault:
            return "asks the director's kernel: %s" % fault
    return None


def read_arguments():
    p = harness.arguments(ROOT, 1 + (os.cpu_count() or 1))
    p.add_argument("--record", action="store_true")
    return p.parse_args()


def waits_long(task):
    """Seconds that a scenario may really have to wait: hand-made segments leave sockets behind that repeat themselves."""
    with open(task["scenario"]) as f:
        steps = json.load(f)["steps"]
    return sum(float(step.get("wait", 0)) for step in steps) if any("raw" in step for step in steps) else 0


REPEATED = re.compile(r"    \S+ +[<>] IP \S+ > \S+ ttl \d+ tos \d+ len \d+ (?:DF )?TCP ")
# By scenario: what else hangs on its peers, as (pattern, what stands for it), and why.
AROUND = {
    # rs1 repeats its FIN, which nobody acknowledges; when, is a matter of its kernel's round-trip time. (The row also changes its place.)
    "tcp_states_raw": (r"    \| TCP \d\d:\d\d  TIME_WAIT   10\.0\.1\.2:7000 .*\n", ""),
    # The server is back by then; whether the client repeats its question in this second (3.2 s after the first time) or just after it, is a matter of its backoff.
    "expire_nodest_conn_0": (r"(?<=\[19\] talk b\n)(?:(?!\[).*\n)+", "    *\n"),
    # rs1 repeats its SYN+ACK a second after it sent it, and that moves the connection (here into the state, and with the timeout, of the other table).
    "secure_tcp_3": (r"    \| TCP \d\d:\d\d  SYN(?:_RECV|ACK  )    10\.0\.1\.2:7000 .*\n", ""),
    "tcp_states_nat": (r"\d\d:\d\d(?=  SYN_RECV    10\.0\.1\.2:7000 )", "**:**"),
}


SEGMENT = re.compile(r"(    IP \S+ > \S+) ttl .* (TCP \d+ > \d+) ([A-Z]+) data (\d+)$")


def is_alone(line, then):
    """Whether a line is an acknowledgement and nothing else, and the next one says more to the same peer."""
    ack, more = SEGMENT.match(line), SEGMENT.match(then)
    return bool(ack and more and ack[1] == more[1] and ack[2] == more[2] and (ack[3], ack[4]) == ("A", "0") and "A" in more[3] and (more[3], more[4]) != ("A", "0"))


def around(name, lines):
    """Takes out what depends on what is around the director (UNSTABLE.txt of the oracle), not on it:
    in a capture, which of two packets in opposite directions was seen first, and how often a peer repeated a segment; in a raw step, what another connection's peer repeats meanwhile,
    and whether a peer acknowledges with what it says next, or alone because its program took longer than its kernel waits (40 ms)."""
    if name in AROUND:
        lines = re.sub(*AROUND[name], "\n".join(lines) + "\n").splitlines()
    steps, step = [], []
    for line in lines:
        if line.startswith("["):
            steps.append(step)
            step = []
        step.append(line)
    result = []
    for step in steps + [step]:
        if re.match(r"\[\d+\] captured ", step[0] if step else ""):
            step = step[:1] + sorted(step[1:], key=lambda line: line.split()[:2])
            step = [line for at, line in enumerate(step) if line != step[at - 1] or not REPEATED.match(line)]
        raw = re.match(r"\[\d+\] raw (?:tcp|udp) .*?:(\d+) -> ", step[0] if step else "")
        if raw:
            others = re.compile(r" (?:TCP|UDP) \d+ > (?!%s )" % raw.group(1))
            mine = [line for line in step[1:] if not others.search(line)]
            step = step[:1] + ([line for line, then in zip(mine, mine[1:] + [""]) if not is_alone(line, then)] or ["    nothing came back"])
        result += step
    return result


def compare(name, transcript, recording):
    """Lines of a unified diff; none when they are the same. @param recording its file"""
    with open(recording) as f:
        return harness.unified(name, around(name, f.read().splitlines()), around(name, transcript.splitlines()))


def record_afresh(options, names, oracle):
    """The scenarios on a real kernel, compared with the recordings that there are."""
    reason = record.missing()
    if reason:
        print("skipped: no recordings can be made here: %s" % reason)
        print("0 passed, 0 failed, %d skipped" % len(names))
        return 0
    with harness.Out(options) as out:
        return record_into(out, names, oracle)


def record_into(out, names, oracle):
    print("recording %d scenarios with Linux %s" % (len(names), record.kernel()), flush=True)
    absent = record.record(oracle, [scenario for scenario, _ in names.values()], out)
    passed, failed, skipped = 0, absent, 0
    for name, (_, recording) in names.items():
        if name in absent:
            print("FAILED  %-32s no transcript" % name)
            continue
        if not os.path.exists(recording):
            print("new     %s" % name)
            skipped += 1
            continue
        with open(os.path.join(out, name + ".txt")) as f:
            diff = compare(name, f.read(), recording)
        print("%-7s %s" % ("FAILED" if diff else "passed", name))
        for line in diff:
            print("    " + line)
        failed += [name] if diff else []
        passed += 0 if diff else 1
    print("%d passed, %d failed, %d skipped" % (passed, len(failed), skipped))
    return 1 if failed else 0


def main():
    options = read_arguments()
    if options.help:
        print(__doc__.strip())
        return 0
    places = harness.folders(options, ORACLE, HERE)
    oracle = harness.find_program(places, ORACLE, "oracle.py")
    if oracle is None:
        return 0
    chosen = harness.choose(places, options.names)
    if options.record:
        return record_afresh(options, chosen, oracle)
    exceptions = [] if options.all else harness.read_skipped(HERE)
    with harness.Out(options) as out:
        tasks, skipped = [], 0
        for name, (scenario, recording) in chosen.items():
            reason = next((reason for pattern, reason in exceptions if fnmatch.fnmatch(name, pattern)), None)
            if reason is None and not options.all:
                with open(scenario) as f:
                    reason = missing(json.load(f))
            if reason is None and not os.path.exists(recording):
                reason = "no recording"
            if reason is not None:
                skipped += 1
                print("skipped %-32s %s" % (name, reason), flush=True)
                continue
            tasks.append({"name": name, "scenario": scenario, "oracle": oracle,
                          "bin": os.path.abspath(options.bin), "log": os.path.join(out, name + ".log")})
        tasks.sort(key=waits_long, reverse=True)
        return harness.run_all(run_scenario, tasks, options.jobs, out, lambda name, transcript: compare(name, transcript, chosen[name][1]), skipped)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
