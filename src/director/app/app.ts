/**
 * Helpers for protocols that speak of addresses in their payload (net/netfilter/ipvs/ip_vs_app.c).
 *
 * A masqueraded TCP connection to the port of a helper is the helper's from its first packet on: it carries ConnFlag.App, and its packets go through the
 * two functions. Connections without that flag pay one branch for all of this. A helper is always there, where the kernel's must be loaded as a module.
 */
import type { Packet } from '../../packet/packet.ts';
import type { Director } from '../director.ts';

export interface App {
  readonly name: string;
  /** Of the service. */
  readonly port: number;
  /** A packet of the client, before it is translated, its state moved. False: it ends, and `p.drop` says why. */
  request(director: Director, p: Packet, conn: number): boolean;
  /** A packet of the server, before it is translated, its state not moved yet. */
  reply(director: Director, p: Packet, conn: number): boolean;
  /** The connection ends. */
  forget(conn: number): void;
}
