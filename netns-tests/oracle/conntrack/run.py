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
import argparse
import difflib
import fnmatch
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
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

    with open(task["scenario"]) as f:
        scenario = json.load(f)
    scenario.setdefault("name", task["name"])
    began = time.monotonic()
    options = SimpleNamespace(bin=task["bin"], log=task["log"], prefix="tvc%d-" % os.getpid(), settle=0.03, iptables="iptables-legacy",
                              conntrack="conntrack")
    runner = ctdiff.Runner(scenario, ctdiff.KernelBackend(options), options) if task["kernel"] else router.Runner(scenario, options)

    def alarm(*_):
        raise TimeoutError("not over after %d s" % SCENARIO_SECONDS)

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(SCENARIO_SECONDS)
    fault = ""
    try:
        runner.run()
    except Exception:
        fault = "ERROR\n" + traceback.format_exc()
    signal.alarm(0)
    return task["name"], ctdiff.render(scenario, runner.log) + fault, time.monotonic() - began


def compare(name, transcript, recording):
    """Lines of a unified diff; none when they are the same. @param recording its file"""
    with open(recording) as f:
        want = f.read().splitlines()
    return list(difflib.unified_diff(want, transcript.splitlines(), "recorded/%s" % name, "now/%s" % name, lineterm="", n=3))


def read_arguments():
    p = argparse.ArgumentParser(prog="scripts/oracle conntrack", usage=argparse.SUPPRESS, add_help=False)
    p.add_argument("--scenarios")
    p.add_argument("--recorded")
    p.add_argument("--out")
    p.add_argument("--all", action="store_true")
    p.add_argument("--kernel", action="store_true")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    p.add_argument("--bin", default=os.path.join(ROOT, "bin"))
    p.add_argument("-h", "--help", action="store_true")
    p.add_argument("names", nargs="*")
    return p.parse_args()


def folders(options):
    """[(scenarios, recordings)]: those that were named, else the shared ones and our own."""
    if options.scenarios or options.recorded:
        return [(options.scenarios or os.path.join(ORACLE, "scenarios"), options.recorded or os.path.join(ORACLE, "recorded"))]
    places = [(os.path.join(folder, "scenarios"), os.path.join(folder, "recorded")) for folder in (ORACLE, HERE)]
    return places[:1] + [pair for pair in places[1:] if os.path.isdir(pair[0])]


def main():
    options = read_arguments()
    if options.help:
        print(__doc__.strip())
        return 0
    places = folders(options)
    oracle = next((path for path in (os.path.join(os.path.dirname(os.path.abspath(places[0][0])), "ctdiff.py"),
                                     os.path.join(ORACLE, "ctdiff.py")) if os.path.exists(path)), None)
    for folder in (folder for pair in places for folder in pair):
        if oracle is None or not os.path.isdir(folder):
            print("oracle conntrack: %s is not there: nothing to compare with" % (folder if oracle else os.path.join(ORACLE, "ctdiff.py")))
            print("0 passed, 0 failed, 0 skipped")
            return 0
    out = os.path.abspath(options.out) if options.out else tempfile.mkdtemp(prefix="tapvs-oracle-out-")
    os.makedirs(out, exist_ok=True)
    tasks, skipped = [], 0
    exceptions = [] if options.all or options.kernel else harness.read_skipped(HERE)
    chosen = harness.choose(places, options.names)
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

    def differs(name, transcript):
        recording = chosen[name][1]
        return compare(name, transcript, recording) if os.path.exists(recording) else []

    status = harness.run_all(run_scenario, tasks, options.jobs, out, differs, skipped)
    if not options.out:
        shutil.rmtree(out, ignore_errors=True)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
