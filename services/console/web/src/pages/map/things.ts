// Markers and zones as the page keeps them. Pure.
import type { Geometry, Point, Polygon } from 'geojson';
import { rank } from '../../lib/severity';

/** Points of a track: with one a second, the last two minutes. */
export const TRACK_MAX = 120;

export interface Thing {
  key: string;
  kind: 'marker' | 'zone';
  site: string;
  id: string;
  title: string;
  description: string | undefined;
  severity: string;
  observedAt: string;
  geometry: Point | Polygon;
  /** The signed link's address on the console. */
  evidence: string | undefined;
  /** Where a marker was, oldest first, with where it is. */
  track: [number, number][];
}

interface Properties {
  id?: unknown;
  kind?: unknown;
  site?: unknown;
  title?: unknown;
  description?: unknown;
  severity?: unknown;
  observed_at?: unknown;
  evidence_link?: unknown;
}

export function keyOf(properties: Properties): string | undefined {
  const { kind, site, id } = properties;
  return typeof kind === 'string' && typeof site === 'string' && typeof id === 'string' ? `${kind}/${site}/${id}` : undefined;
}

/** The path of a signed link through the console; anything that is no such link is none. */
export function evidencePath(link: unknown): string | undefined {
  if (typeof link !== 'string') return undefined;
  const token = /^(?:https?:\/\/[^/?#]+)?\/v1\/evidence\/([A-Za-z0-9._~%-]+)(\?[A-Za-z0-9._~%&=-]*)?$/.exec(link);
  return token ? `/api/tactical/v1/evidence/${token[1]}${token[2] ?? ''}` : undefined;
}

function isPlace(value: unknown): value is [number, number] {
  return Array.isArray(value) && value.length >= 2 && value.slice(0, 2).every((one) => typeof one === 'number' && Number.isFinite(one));
}

/** The thing of a Feature, with the track of what it was before; undefined for what is no marker or zone. */
export function thingOf(feature: unknown, before?: Thing): Thing | undefined {
  const { geometry, properties } = (feature ?? {}) as { geometry?: Geometry; properties?: Properties };
  if (!geometry || !properties) return undefined;
  const key = keyOf(properties);
  if (!key) return undefined;
  const isMarker = geometry.type === 'Point' && isPlace(geometry.coordinates);
  const isZone = geometry.type === 'Polygon' && geometry.coordinates.every((ring) => ring.every(isPlace));
  if (!isMarker && !isZone) return undefined;
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined);
  return {
    key,
    kind: properties.kind === 'zone' ? 'zone' : 'marker',
    site: String(properties.site),
    id: String(properties.id),
    title: text(properties.title) ?? String(properties.id),
    description: text(properties.description),
    severity: text(properties.severity) ?? 'low',
    observedAt: text(properties.observed_at) ?? '',
    geometry: geometry as Point | Polygon,
    evidence: evidencePath(properties.evidence_link),
    track: isMarker ? moved(before?.track ?? [], geometry.coordinates as [number, number]) : [],
  };
}

function moved(track: [number, number][], [lng, lat]: [number, number]): [number, number][] {
  const last = track.at(-1);
  if (last && last[0] === lng && last[1] === lat) return track;
  return [...track.slice(1 - TRACK_MAX), [lng, lat]];
}

export interface Filter {
  severities: readonly string[];
  kind: string;
  site: string;
  text: string;
}

export function fits(thing: Thing, filter: Filter): boolean {
  if (filter.severities.length > 0 && !filter.severities.includes(thing.severity)) return false;
  if (filter.kind && thing.kind !== filter.kind) return false;
  if (filter.site && thing.site !== filter.site) return false;
  if (!filter.text) return true;
  const text = filter.text.toLowerCase();
  return [thing.title, thing.id, thing.site, thing.description ?? ''].some((one) => one.toLowerCase().includes(text));
}

/** Worst first; among equals by title, so that rows of what moves stay where they are. */
export function worstFirst(a: Thing, b: Thing): number {
  return rank(a.severity) - rank(b.severity) || a.title.localeCompare(b.title) || a.key.localeCompare(b.key);
}

export type Box = [west: number, south: number, east: number, north: number];

export function boxOf(things: readonly Thing[]): Box | undefined {
  let box: Box | undefined;
  for (const thing of things) {
    const places = thing.geometry.type === 'Point' ? [thing.geometry.coordinates] : thing.geometry.coordinates.flat();
    for (const [lng = 0, lat = 0] of places) {
      box = box ? [Math.min(box[0], lng), Math.min(box[1], lat), Math.max(box[2], lng), Math.max(box[3], lat)] : [lng, lat, lng, lat];
    }
  }
  return box;
}

/** Where it is, in words: of a zone, its middle. */
export function placeOf(thing: Thing): [number, number] {
  const box = boxOf([thing])!;
  return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
}

export function degrees([lng, lat]: [number, number]): string {
  return `${Math.abs(lat).toFixed(4)}° ${lat < 0 ? 'S' : 'N'}, ${Math.abs(lng).toFixed(4)}° ${lng < 0 ? 'W' : 'E'}`;
}

const STEPS = [30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/** Lines of latitude and longitude for a box: about eight across. */
export function graticule([west, south, east, north]: Box): [number, number][][] {
  const step = STEPS.findLast((one) => (east - west) / one <= 8) ?? STEPS[0]!;
  const lines: [number, number][][] = [];
  for (let n = Math.ceil(west / step); n * step <= east && lines.length < 60; n += 1) lines.push([[n * step, Math.max(south, -85)], [n * step, Math.min(north, 85)]]);
  for (let n = Math.ceil(Math.max(south, -85) / step); n * step <= Math.min(north, 85) && lines.length < 120; n += 1) lines.push([[west, n * step], [east, n * step]]);
  return lines;
}

/** A round length that is at most `most` metres, and its name. */
export function scale(most: number): { metres: number; label: string } {
  const size = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  const metres = [5, 2, 1].map((one) => one * size).find((one) => one <= most) ?? size;
  return { metres, label: metres >= 1000 ? `${metres / 1000} km` : `${metres} m` };
}
