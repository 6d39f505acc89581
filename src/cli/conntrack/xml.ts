/** `-o xml` of conntrack, byte for byte: snprintf_xml.c of libnetfilter_conntrack, for entries and for expectations. */
import type { CtCounters, CtEventKind, CtTuple, ExpectationRow } from '../../model/conntrack.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../../model/entry-states.ts';
import { Status } from '../../model/entry-status.ts';
import type { LabelNames } from '../../model/label-names.ts';
import { IpProto } from '../../wire/ipv4.ts';
import { deltaSeconds, expectationFlags } from './format.ts';
import { labelNames } from './labels.ts';
import { hasPorts, protocolName } from './protocols.ts';
import type { ShownEntry } from './shown.ts';
import { Output } from './values.ts';

const SCTP_NAMES: readonly string[] = SCTP_CT_NAMES;

export const XML_HEADER = '<?xml version="1.0" encoding="utf-8"?>\n';
/** The library looks SCTP's states up among TCP's. */
function stateName({ original, state }: ShownEntry): string {
  const place = original.proto === SCTP ? SCTP_NAMES.indexOf(state ?? '') : -1;
  return TCP_CT_NAMES[place] ?? String(state);
}

const SCTP = IpProto.Sctp;
const LAYER3 = '<layer3 protonum="2" protoname="ipv4">';

/** @param forms bits of Output @param when the time that is told with it; undefined for none */
export function formatEntryXml(
  row: ShownEntry,
  forms: number,
  labels: LabelNames | undefined,
  nowMs: number,
  when?: Date,
): string {
  const { status, zones } = row;
  const isOneZone = zones.original === zones.reply;
  let text = row.kind === undefined ? '<flow>' : `<flow type="${row.kind}">`;
  text += direction('original', row.original, row.counters?.original, isOneZone ? 0 : zones.original);
  text += direction('reply', row.reply, row.counters?.reply, isOneZone ? 0 : zones.reply);
  text += '<meta direction="independent">';
  if (row.state !== undefined) text += `<state>${stateName(row)}</state>`;
  if (row.timeoutSeconds !== undefined) text += `<timeout>${row.timeoutSeconds}</timeout>`;
  if (row.mark !== undefined) text += `<mark>${row.mark}</mark>`;
  if (labels !== undefined && row.labels !== undefined) {
    text += `<labels>${labelNames(labels, row.labels)
      .map((name) => `<label>${name}</label>`)
      .join('')}</labels>`;
  }
  if (isOneZone && zones.original !== 0) text += `<zone>${zones.original}</zone>`;
  if (row.use !== undefined) text += `<use>${row.use}</use>`;
  text += `<id>${row.id}</id>`;
  if (status & Status.Assured) text += '<assured/>';
  if (!(status & Status.SeenReply)) text += '<unreplied/>';
  text += times(row, forms, nowMs);
  text += '</meta>';
  if (when !== undefined) text += whenXml(when);
  if (row.helper !== undefined) text += `<helper>${row.helper}</helper>`;
  return `${text}</flow>`;
}

function direction(name: string, tuple: CtTuple, counters: CtCounters | undefined, zone: number): string {
  const { src, dst, proto } = tuple;
  let text = `<meta direction="${name}">${LAYER3}<src>${src}</src><dst>${dst}</dst></layer3>`;
  text += `${layer4(proto)}${ends(tuple)}</layer4>`;
  if (zone !== 0) text += `<zone>${zone}</zone>`;
  if (counters !== undefined) {
    text += `<counters><packets>${counters.packets}</packets><bytes>${counters.bytes}</bytes></counters>`;
  }
  return `${text}</meta>`;
}

function layer4(proto: number): string {
  return `<layer4 protonum="${proto}" protoname="${protocolName(proto)}">`;
}

/** Ports or keys; nothing for ICMP. */
function ends({ proto, ports, gre }: CtTuple): string {
  if (hasPorts(proto)) return `<sport>${ports?.src ?? 0}</sport><dport>${ports?.dst ?? 0}</dport>`;
  if (gre === undefined) return '';
  return `<srckey>0x${gre.srcKey.toString(16)}</srckey><dstkey>0x${gre.dstKey.toString(16)}</dstkey>`;
}

function times(row: ShownEntry, forms: number, nowMs: number): string {
  if (row.started === undefined) return '';
  let text = '';
  if (forms & Output.KernelTime) {
    const stop = row.stopped === undefined ? '' : `<stop>${row.stopped}</stop>`;
    text = `<timestamp><start>${row.started}</start>${stop}</timestamp>`;
  }
  return `${text}<deltatime>${deltaSeconds(row, nowMs)}</deltatime>`;
}

function whenXml(d: Date): string {
  const two = (n: number) => String(n).padStart(2, '0');
  return (
    `<when><hour>${d.getHours()}</hour><min>${two(d.getMinutes())}</min><sec>${two(d.getSeconds())}</sec>` +
    `<wday>${d.getDay() + 1}</wday><day>${d.getDate()}</day><month>${d.getMonth() + 1}</month><year>${d.getFullYear()}</year></when>`
  );
}

export function formatExpectationXml(row: ExpectationRow, kind: CtEventKind | undefined, when?: Date): string {
  const { tuple, mask, master } = row;
  const addresses = (name: string, { src, dst }: CtTuple) => `<${name}><src>${src}</src><dst>${dst}</dst></${name}>`;
  const ports = (name: string, of: CtTuple) => `<${name}>${ends(of)}</${name}>`;
  return (
    `${kind === undefined ? '<flow>' : `<flow type="${kind}">`}${LAYER3}` +
    `${addresses('expected', tuple)}${addresses('mask', mask)}${addresses('master', master)}</layer3>` +
    `${layer4(tuple.proto)}${ports('expected', tuple)}${ports('mask', mask)}${ports('master', master)}</layer4>` +
    `<meta><helper-name>${row.helper}</helper-name><timeout>${row.timeoutSeconds}</timeout>` +
    `<class>${row.class}</class>` +
    `${when === undefined ? '' : whenXml(when)}` +
    `${expectationFlags(row.flags)
      .map((flag) => `<${flag}/>`)
      .join('')}</meta></flow>`
  );
}
