#!/usr/bin/env python3
"""Runs recorded scenarios of connection tracking and NAT against tapvs and compares with what the kernel did.

  scripts/oracle conntrack [--scenarios DIR] [--recorded DIR] [--out DIR] [--jobs N] [--bin DIR] [NAME...]

  NAME             scenarios to run, with * and ? (default: all)
  --scenarios DIR  where NAME.json are (default: ../shared/oracle-conntrack/scenarios, and netns-tests/oracle/conntrack/scenarios)
  --recorded DIR   transcripts of the real thing, NAME.txt (default: `recorded` beside each)
  --out DIR        keep our transcripts and the daemons' logs there
  --all            run what netns-tests/oracle/conntrack/skipped.txt excepts, too
  --kernel         ask this machine's kernel instead of tapvs; with --out DIR that records scenarios
  --jobs N         scenarios at the same time (default: as many as there are processors)
  --bin DIR        where tapvs and tapvsd are (default: bin)

Prints a unified diff for each scenario that differs and ends with `N passed, N failed, N skipped`; exit status 1 if any failed.
Every worker has mounts of its own: its namespaces are seen by nobody else and go with it.
"""
import fnmatch
import os
import re
import sys
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.dirname(HERE))
import harness  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
ORACLE = os.path.join(os.path.dirname(ROOT), "shared", "oracle-conntrack")
SCENARIO_SECONDS = 120


def run_scenario(task):
    """One scenario in this process -> (name, transcript, seconds)."""
    sys.path[:0] = [os.path.dirname(task["oracle"]), HERE]
    import ctdiff
    import router

    def begin(scenario):
        options = SimpleNamespace(bin=task["bin"], log=task["log"], prefix="tvc%d-" % os.getpid(), settle=0.03, iptables="iptables-legacy",
                                  conntrack="conntrack")
        runner = ctdiff.Runner(scenario, ctdiff.KernelBackend(options), options) if task["kernel"] else router.Runner(scenario, options)
        return runner.run, lambda: ctdiff.render(scenario, runner.log)

    return harness.in_time(task, SCENARIO_SECONDS, begin)


def without_times(line):
    """The line with the times of day that a router wrote into timestamp options as stars."""
    def options(found):
        data, at = bytes.fromhex(found.group(2)), 0
        shown = [found.group(2)[i:i + 2] for i in range(0, len(found.group(2)), 2)]
        while at + 3 < len(data) and data[at] != 0:
            if data[at] == 1:
                at += 1
                continue
            length = max(data[at + 1], 1)
            if data[at] == 68:
                step, skip = (4, 0) if data[at + 3] & 15 == 0 else (8, 4)
                for time in range(at + 4 + skip, min(at + data[at + 2] - 1, at + length, len(data)) - 3, step):
                    if any(data[time:time + 4]):
                        shown[time:time + 4] = ["**"] * 4
            at += length
        return found.group(1) + "".join(shown)
    return re.sub(r"(ipopt )([0-9a-f]+)", options, line)


def compare(name, transcript, recording):
    """Lines of a unified diff; none when they are the same. @param recording its file"""
    with open(recording) as f:
        return harness.unified(name, [without_times(line) for line in f.read().splitlines()],
                               [without_times(line) for line in transcript.splitlines()])


def read_arguments():
    p = harness.arguments(ROOT, os.cpu_count() or 1)
    p.add_argument("--kernel", action="store_true")
    return p.parse_args()


def main():
    options = read_arguments()
    if options.help:
        print(__doc__.strip())
        return 0
    places = harness.folders(options, ORACLE, HERE)
    oracle = harness.find_program(places, ORACLE, "ctdiff.py")
    if oracle is None:
        return 0
    exceptions = [] if options.all or options.kernel else harness.read_skipped(HERE)
    chosen = harness.choose(places, options.names)

    def differs(name, transcript):
        recording = chosen[name][1]
        return compare(name, transcript, recording) if os.path.exists(recording) else []

    with harness.Out(options) as out:
        tasks, skipped = [], 0
        for name, (scenario, recording) in chosen.items():
            reason = next((reason for pattern, reason in exceptions if fnmatch.fnmatch(name, pattern)), None)
            if reason is None and not options.kernel and not os.path.exists(recording):
                reason = "no recording"
            if reason is not None:
                skipped += 1
                print("skipped %-32s %s" % (name, reason), flush=True)
                continue
            tasks.append({"name": name, "scenario": scenario, "oracle": oracle, "kernel": options.kernel,
                          "bin": os.path.abspath(options.bin), "log": os.path.join(out, name + ".log")})
        return harness.run_all(run_scenario, tasks, options.jobs, out, differs, skipped)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
