// tcpdump in a namespace for the length of a test, and what it caught, read back frame by frame.
import type { ChildProcess } from 'node:child_process';
import pcapParser from 'pcap-parser';
import { runOkIn, spawnIn, stop } from '../src/rtnl/netns.ts';
import { verifyFrame } from '../src/wire/build.ts';

export interface Watch {
  /** Ends tcpdump and answers its frames, oldest first. */
  frames(): Promise<Uint8Array[]>;
}

/** Resolves when tcpdump listens; `filter` in its own words. Give the capture a file of its own. */
export async function watch(netns: string, device: string, file: string, filter = ''): Promise<Watch> {
  const words = [
    'tcpdump',
    '-i',
    device,
    '--immediate-mode',
    '-n',
    '-U',
    '-s',
    '0',
    '-w',
    file,
    ...filter.split(' ').filter(Boolean),
  ];
  const child = spawnIn(netns, words);
  await listening(child);
  return {
    async frames() {
      await stop(child);
      return readFrames(file);
    },
  };
}

function listening(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('listening on')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`tcpdump ended with status ${code}: ${said}`)));
  });
}

export function readFrames(file: string): Promise<Uint8Array[]> {
  return new Promise((resolve, reject) => {
    const frames: Uint8Array[] = [];
    const parser = pcapParser.parse(file);
    parser.on('packet', (packet) => frames.push(new Uint8Array(packet.data)));
    parser.on('end', () => resolve(frames));
    parser.on('error', reject);
  });
}

/** Every length and checksum of every frame; the faults with the number of the frame. */
export function faultsOf(frames: readonly Uint8Array[]): string[] {
  return frames.flatMap((bytes, i) => verifyFrame(bytes).map((fault) => `frame ${i + 1}: ${fault}`));
}

/** The same where end systems leave checksums to the device: a transport checksum may be complete, or hold the pseudo-header's sum. */
export function faultsWithOffload(frames: readonly Uint8Array[]): string[] {
  return frames.flatMap((bytes, i) => {
    const faults = verifyFrame(bytes);
    if (faults.length === 0 || verifyFrame(bytes, { partialChecksum: true }).length === 0) return [];
    return faults.map((fault) => `frame ${i + 1}: ${fault}`);
  });
}

/** Checksum errors that a host's own stack counted, as `counter value`; empty when there are none. */
export async function checksumErrors(netns: string): Promise<string> {
  const counters = ['TcpInCsumErrors', 'UdpInCsumErrors', 'IcmpInCsumErrors', 'IpExtInCsumErrors', 'TcpInErrs'];
  const text = await runOkIn(netns, ['nstat', '-asz', ...counters]);
  return text
    .split('\n')
    .filter((line) => !line.startsWith('#') && line.trim() !== '')
    .map((line) => line.split(/\s+/).slice(0, 2).join(' '))
    .filter((line) => !line.endsWith(' 0'))
    .join(', ');
}
