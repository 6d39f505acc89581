/**
 * The descriptor store of a service manager, as systemd's: what a service gives away (FDSTORE=1, FDNAME=…), takes back (FDSTOREREMOVE=1), and gets again when it
 * is started anew. sd_notify(3), sd_pid_notify_with_fds(3), sd_listen_fds(3).
 */
import { close, type Notice } from '../device/native.ts';

/** FileDescriptorStoreMax= of our unit. */
const MOST = 64;

export class DescriptorStore {
  readonly #kept: { readonly name: string; readonly fd: number }[] = [];
  /** From whom words are taken; others are heard and forgotten. */
  pid = 0;

  /** In the order in which they came. */
  get kept(): readonly { readonly name: string; readonly fd: number }[] {
    return this.#kept;
  }

  /** Does what the datagram says about descriptors; answers the lines that are about something else. */
  take({ pid, text, fds }: Notice): string[] {
    const lines = text.split('\n').filter((line) => line !== '');
    const value = (name: string): string | undefined =>
      lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
    const name = value('FDNAME') ?? 'stored';
    const isOurs = pid === this.pid;
    const isKept = isOurs && value('FDSTORE') === '1' && isName(name);
    if (isOurs && value('FDSTOREREMOVE') === '1') this.#remove(name);
    for (const fd of fds) {
      // A descriptor that is not kept is closed: for BARRIER=1 that is the answer.
      if (isKept && this.#kept.length < MOST) this.#kept.push({ name, fd });
      else close(fd);
    }
    return isOurs ? lines.filter((line) => !/^(FD[A-Z]*|BARRIER)=/.test(line)) : [];
  }

  clear(): void {
    for (const { fd } of this.#kept.splice(0)) close(fd);
  }

  #remove(name: string): void {
    for (let i = this.#kept.length - 1; i >= 0; i--) {
      if (this.#kept[i]!.name === name) close(this.#kept.splice(i, 1)[0]!.fd);
    }
  }
}

/** fdname_is_valid() of systemd's basic/fd-util: LISTEN_FDNAMES parts names by colons. */
function isName(name: string): boolean {
  return /^[ -9;-~]{0,255}$/.test(name);
}
