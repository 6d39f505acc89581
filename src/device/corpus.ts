/** Every frame of a folder of captures: seeds for fuzzing, and bad input to replay. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCapture } from '../wire/pcap.ts';
import type { Medium } from './device.ts';
import { mediumOf } from './pcap.ts';

export interface CorpusFrame {
  /** `file.pcap#3`: the file and the place in it, from 1, as tcpdump's `-#` counts. */
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly linkType: number;
  /** undefined when no device of ours speaks that link type. */
  readonly medium: Medium | undefined;
}

/** The frames of all `*.pcap` and `*.pcapng` in `folder`, in order of file names. A damaged file yields what is sound before the damage. */
export function* corpusFrames(folder: string): Generator<CorpusFrame> {
  for (const file of readdirSync(folder).sort()) {
    if (!/\.pcap(ng)?$/.test(file)) continue;
    let number = 0;
    for (const { bytes, linkType } of readCapture(readFileSync(join(folder, file))).frames) {
      number++;
      yield { name: `${file}#${number}`, bytes: Uint8Array.from(bytes), linkType, medium: mediumOf(linkType) };
    }
  }
}
