"""What the runners of recorded scenarios share: their command line, workers with mounts of their own, the choice of scenarios, and the list of what passed."""
import argparse
import ctypes
import difflib
import fnmatch
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x00020000, 4096, 16384, 1 << 18
# What a recording's machine answered to questions about names (vm-run.sh).
FILES = {
    "/etc/hosts": "127.0.0.1 localhost\n10.0.1.100 vip.test\n10.0.1.101 vip2.test\n10.0.1.2 client.test\n"
                  + "".join("10.0.2.1%d rs%d.test\n" % (i, i) for i in range(1, 10)),
    "/etc/nsswitch.conf": "".join(db + ": files\n" for db in ("hosts", "services", "protocols", "passwd", "group", "networks")),
    "/etc/resolv.conf": "",
}


def mount(source, target, kind, flags, data=None):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode()) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, "mount %s: %s" % (target, os.strerror(errno)))


def set_up_worker():
    """Mounts of our own: no namespace's name, and no file of names, is shared with the rest of the machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    os.makedirs("/run/netns", exist_ok=True)
    mount("tmpfs", "/run/netns", "tmpfs", 0, "size=1m,mode=755")
    for path, text in FILES.items():
        if not os.path.exists(path):
            continue
        with tempfile.NamedTemporaryFile("w", dir="/run/netns", delete=False) as f:
            f.write(text)
        os.chmod(f.name, 0o644)
        mount(f.name, os.path.realpath(path), None, MS_BIND)
        os.unlink(f.name)


def arguments(root, jobs):
    """A parser of what both runners understand. @param root of the checkout @param jobs by default"""
    p = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    p.add_argument("--scenarios")
    p.add_argument("--recorded")
    p.add_argument("--out")
    p.add_argument("--all", action="store_true")
    p.add_argument("--jobs", type=int, default=jobs)
    p.add_argument("--bin", default=os.path.join(root, "bin"))
    p.add_argument("-h", "--help", action="store_true")
    p.add_argument("names", nargs="*")
    return p


def folders(options, shared, own):
    """[(scenarios, recordings)]: those that were named, else the shared ones and our own."""
    if options.scenarios or options.recorded:
        return [(options.scenarios or os.path.join(shared, "scenarios"), options.recorded or os.path.join(shared, "recorded"))]
    return [(os.path.join(folder, "scenarios"), os.path.join(folder, "recorded")) for folder in (shared, own)]


def find_program(places, shared, name):
    """The shared program `name`, beside the scenarios or in `shared`; None, which was said, when it or a folder is not there."""
    beside = os.path.dirname(os.path.abspath(places[0][0]))
    program = next((path for path in (os.path.join(beside, name), os.path.join(shared, name)) if os.path.exists(path)), None)
    absent = [os.path.join(shared, name)] if program is None else [folder for pair in places for folder in pair if not os.path.isdir(folder)]
    if not absent:
        return program
    print("oracle: %s is not there: nothing to compare with" % absent[0])
    print("0 passed, 0 failed, 0 skipped")
    return None


def in_time(task, seconds, begin):
    """Runs the scenario of a task -> (name, transcript, seconds). @param begin scenario -> (run, transcript), two functions"""
    with open(task["scenario"]) as f:
        scenario = json.load(f)
    scenario.setdefault("name", task["name"])
    began = time.monotonic()
    run, transcript = begin(scenario)

    def alarm(*_):
        raise TimeoutError("not over after %d s" % seconds)

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(seconds)
    fault = ""
    try:
        run()
    except Exception:
        fault = "ERROR\n" + traceback.format_exc()
    signal.alarm(0)
    return task["name"], transcript() + fault, time.monotonic() - began


def unified(name, want, have):
    """Lines of a diff; none when they are the same."""
    return list(difflib.unified_diff(want, have, "recorded/%s" % name, "now/%s" % name, lineterm="", n=3))


def read_skipped(folder):
    """[(pattern, reason)] of the folder's skipped.txt."""
    with open(os.path.join(folder, "skipped.txt")) as f:
        lines = [line.split("#", 1)[0].strip() for line in f]
    return [tuple(line.split(None, 1)) for line in lines if line]


def choose(places, patterns):
    """{name: (file of the scenario, file of the recording)}, sorted by name; of two of one name the first folder's.
    @param places [(folder of scenarios, folder of recordings)] @param patterns names with * and ?; all when there are none"""
    there = {}
    for scenarios, recorded in places:
        for name in (f[:-5] for f in os.listdir(scenarios) if f.endswith(".json")):
            there.setdefault(name, (os.path.abspath(os.path.join(scenarios, name + ".json")), os.path.join(recorded, name + ".txt")))
    there = dict(sorted(there.items()))
    if not patterns:
        return there
    chosen = set()
    for pattern in patterns:
        pattern = os.path.basename(pattern).removesuffix(".json")
        found = fnmatch.filter(there, pattern)
        if not found:
            sys.exit("error: no scenario is named %s in %s" % (pattern, ", ".join(folder for folder, _ in places)))
        chosen.update(found)
    return {name: there[name] for name in sorted(chosen)}


class Out:
    """The folder for transcripts: the one that was asked for, or one that goes at the end."""

    def __init__(self, options):
        self.is_kept = bool(options.out)
        self.path = os.path.abspath(options.out) if self.is_kept else tempfile.mkdtemp(prefix="tapvs-oracle-out-")
        os.makedirs(self.path, exist_ok=True)

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        if not self.is_kept:
            shutil.rmtree(self.path, ignore_errors=True)


def run_all(run, tasks, jobs, out, compare, skipped):
    """Runs the tasks in `jobs` processes, prints what differs, keeps the transcripts in `out`; answers the exit status.
    @param run task -> (name, transcript, seconds) @param compare (name, transcript) -> lines of a diff"""
    passed, failed = 0, []
    context = multiprocessing.get_context("spawn")  # an event loop (epoll) is not for two processes
    with context.Pool(max(1, min(jobs, len(tasks))), set_up_worker) as pool:
        for name, transcript, seconds in pool.imap_unordered(run, tasks):
            with open(os.path.join(out, name + ".txt"), "w") as f:
                f.write(transcript)
            diff = compare(name, transcript)
            print("%-7s %-32s %.1f s" % ("FAILED" if diff else "passed", name, seconds))
            for line in diff:
                print("    " + line)
            sys.stdout.flush()
            if diff:
                failed.append(name)
            else:
                passed += 1
    if failed:
        print("failed: " + " ".join(sorted(failed)))
    print("%d passed, %d failed, %d skipped" % (passed, len(failed), skipped))
    return 1 if failed else 0
