"""Makes recordings afresh: the scenarios on the real kernel's IPVS, in a virtual machine (../shared/oracle/vm-run.sh).

Needs qemu, a Debian kernel with ip_vs on this machine (/boot and /lib/modules), ipvsadm and what else stands in the oracle's README. One machine for each
processor, each with its share of the scenarios; their time is virtual, so they disturb each other's results in nothing.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

NEEDED = ("qemu-system-x86_64", "busybox", "cpio", "modprobe", "ipvsadm", "iptables", "conntrack", "ip")
MACHINE_SECONDS = 3600
MOST_MACHINES = 4


def kernel():
    """Version of a kernel that can be booted and has ip_vs, 6.1 if there is one (the recordings' own); None without any."""
    chosen = os.environ.get("KVER")
    there = [os.path.basename(path) for path in glob.glob("/lib/modules/*")]
    fit = [version for version in there
           if os.path.exists("/boot/vmlinuz-" + version)
           and glob.glob("/lib/modules/%s/kernel/net/netfilter/ipvs/ip_vs.ko*" % version)
           and chosen in (None, version)]
    return max(fit, key=lambda version: (version.startswith("6.1."), version), default=None)


def missing():
    """Why no recording can be made here; None when it can."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    tools = [tool for tool in NEEDED if shutil.which(tool, path=path) is None]
    if tools:
        return "this machine lacks " + ", ".join(tools)
    return None if kernel() else "no kernel in /boot has ip_vs modules in /lib/modules"


def share(items, parts):
    return [items[part::parts] for part in range(parts) if items[part::parts]]


def record(oracle, scenarios, out):
    """Runs `scenarios` (paths) and leaves NAME.txt of each in `out`; answers the names without a transcript."""
    folder = os.path.dirname(os.path.abspath(oracle))
    work = tempfile.mkdtemp(prefix="tapvs-record-")
    machines = []
    try:
        for part, files in enumerate(share(scenarios, max(1, min(MOST_MACHINES, os.cpu_count() or 1)))):
            target = os.path.join(work, str(part))
            os.mkdir(target)
            env = dict(os.environ, KVER=kernel(), QUIET="1", TIMEOUT=str(MACHINE_SECONDS))
            argv = [os.path.join(folder, "vm-run.sh"), os.path.join(folder, "run-all.sh"), target, *files]
            machines.append((target, subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, start_new_session=True)))
        for target, machine in machines:
            status = machine.wait()
            for path in sorted(glob.glob(os.path.join(target, "*.txt"))):
                shutil.copy(path, out)
            if status != 0:
                console = os.path.join(target, "console.log")
                print("a virtual machine ended with status %d%s" % (status, ":" if os.path.exists(console) else ""), file=sys.stderr)
                if os.path.exists(console):
                    with open(console, errors="replace") as f:
                        sys.stderr.writelines("    " + line for line in f.readlines()[-12:])
    finally:
        for _, machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, 15)
                machine.wait()
        shutil.rmtree(work, ignore_errors=True)
    names = [os.path.basename(path).removesuffix(".json") for path in scenarios]
    return [name for name in names if not os.path.exists(os.path.join(out, name + ".txt"))]
