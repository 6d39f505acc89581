// A real kernel's IPVS and tapvs back up each other, in a virtual machine that runs this machine's Debian kernel (kernel-sync.py): connections and counts as both
// list them, held connections through either after the other has gone. Two to three minutes of emulation: in CI only with TAPVS_KERNEL_SYNC=1.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MACHINE = join(ROOT, '../shared/oracle/vm-run.sh');
const NEEDED = ['qemu-system-x86_64', 'busybox', 'cpio', 'modprobe', 'ipvsadm', 'ip', 'python3'];
const LIMIT_SECONDS = 420;
const STEPS = [
  'ok   9 held connections go on through tapvs',
  'ok   15 held connections go on through the kernel',
  'kernel-sync: all held',
];

const kernel = newestKernel();
const reason = missing();

/** A kernel that can be booted and has IPVS; 6.1 if there is one. */
function newestKernel(): string | undefined {
  const versions = existsSync('/lib/modules') ? readdirSync('/lib/modules') : [];
  const fit = versions.filter(
    (version) =>
      existsSync(`/boot/vmlinuz-${version}`) && existsSync(`/lib/modules/${version}/kernel/net/netfilter/ipvs`),
  );
  return fit.find((version) => version.startsWith('6.1.')) ?? fit[0];
}

/** Why the machine is not started here; null when it is. */
function missing(): string | null {
  const path = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  const absent = NEEDED.filter((tool) => !path.some((place) => existsSync(join(place, tool))));
  if (absent.length > 0) return `this machine lacks ${absent.join(', ')}`;
  if (kernel === undefined) return 'no kernel in /boot has ip_vs modules in /lib/modules';
  if (!existsSync(MACHINE)) return `${MACHINE} is not there`;
  const isWanted = process.env.TAPVS_KERNEL_SYNC === '1' || !process.env.CI;
  return isWanted ? null : 'this is CI, and it takes three minutes: TAPVS_KERNEL_SYNC=1 runs it';
}

/** What the daemon needs to run, in one file: the machine reads this machine's disk slowly. */
function pack(file: string): void {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  const packages = Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== '' && dev !== true && existsSync(join(ROOT, path)))
    .map(([path]) => path);
  execFileSync('tar', ['-cf', file, 'bin', 'dist', 'package.json', 'native/build', ...packages], { cwd: ROOT });
}

function runMachine(folder: string): Promise<number | null> {
  const env = {
    ...process.env,
    KVER: kernel,
    RAM_TOOLS: 'node tar dmesg',
    ICOUNT: '0',
    MEM: '1500',
    QUIET: '1',
    TIMEOUT: String(LIMIT_SECONDS),
  };
  const script = fileURLToPath(new URL('kernel-sync.sh', import.meta.url));
  const child = spawn(MACHINE, [script, folder], { env, stdio: 'ignore' });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
}

it.skipIf(reason !== null)(
  `a kernel and tapvs back up each other${reason === null ? '' : ` (skipped: ${reason})`}`,
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tapvs-kernel-sync-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    pack(join(folder, 'tree.tar'));
    const status = await runMachine(folder);
    const said = readFileSync(join(folder, 'console.log'), 'utf8').replaceAll('\r', '');
    expect({ status, said }).toMatchObject({ status: 0 });
    for (const step of STEPS) expect(said).toContain(step);
  },
  (LIMIT_SECONDS + 60) * 1000,
);
