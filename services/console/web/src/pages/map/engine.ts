// MapLibre GL with shapes of Natural Earth, in a file that only this page loads. Nothing comes from elsewhere.
import type { Feature, FeatureCollection } from 'geojson';
import { Map as GlMap, setWorkerUrl, type GeoJSONSource, type LngLatBoundsLike, type StyleSpecification } from 'maplibre-gl';
import workerUrl from 'maplibre-gl/dist/maplibre-gl-worker.mjs?worker&url';
import { feature, mesh } from 'topojson-client';
import type { GeometryCollection, Topology } from 'topojson-specification';
import shapesUrl from 'world-atlas/countries-50m.json?url';
import { graticule, type Box, type Thing } from './things';

setWorkerUrl(workerUrl);

const NOTHING: FeatureCollection = { type: 'FeatureCollection', features: [] };
const SEVERE = ['match', ['get', 'severity'], 'critical', 3, 'high', 2, 'medium', 1, 0] as const;

type Colours = Record<'sea' | 'land' | 'edge' | 'grid' | 'text' | 'halo' | 'low' | 'medium' | 'high' | 'accent', string>;

/** The design language's colours of now. */
function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(name).trim();
  return { sea: of('--sunken'), land: of('--surface'), edge: of('--line-strong'), grid: of('--line'), text: of('--text'), halo: of('--surface'), low: of('--idle'), medium: of('--warn'), high: of('--bad'), accent: of('--accent') };
}

function styleOf(c: Colours): StyleSpecification {
  const colour = ['match', ['get', 'severity'], 'critical', c.high, 'high', c.high, 'medium', c.medium, c.low] as never;
  const source = { type: 'geojson', data: NOTHING } as const;
  return {
    version: 8,
    transition: { duration: 0, delay: 0 },
    sources: { land: source, borders: source, grid: source, zones: source, tracks: source, markers: source, chosen: source },
    layers: [
      { id: 'sea', type: 'background', paint: { 'background-color': c.sea } },
      { id: 'land', type: 'fill', source: 'land', paint: { 'fill-color': c.land } },
      { id: 'grid', type: 'line', source: 'grid', paint: { 'line-color': c.grid, 'line-width': 1 } },
      { id: 'coast', type: 'line', source: 'land', paint: { 'line-color': c.edge, 'line-width': 0.7, 'line-opacity': 0.7 } },
      { id: 'borders', type: 'line', source: 'borders', paint: { 'line-color': c.edge, 'line-width': 0.6, 'line-opacity': 0.45 } },
      { id: 'zones', type: 'fill', source: 'zones', paint: { 'fill-color': colour, 'fill-opacity': 0.14 } },
      { id: 'outlines', type: 'line', source: 'zones', paint: { 'line-color': colour, 'line-width': 1.5, 'line-dasharray': [3, 2] } },
      { id: 'tracks', type: 'line', source: 'tracks', layout: { 'line-cap': 'round', 'line-join': 'round' }, paint: { 'line-color': colour, 'line-width': 2, 'line-opacity': 0.45 } },
      { id: 'chosen-line', type: 'line', source: 'chosen', paint: { 'line-color': c.accent, 'line-width': 3 } },
      { id: 'chosen', type: 'circle', source: 'chosen', filter: ['==', ['geometry-type'], 'Point'], paint: { 'circle-radius': 13, 'circle-opacity': 0, 'circle-color': c.accent, 'circle-stroke-color': c.accent, 'circle-stroke-width': 2.5 } },
      { id: 'rings', type: 'circle', source: 'markers', filter: ['==', ['get', 'severity'], 'critical'], paint: { 'circle-radius': 10, 'circle-color': c.high, 'circle-opacity': 0.22 } },
      { id: 'markers', type: 'circle', source: 'markers', layout: { 'circle-sort-key': SEVERE as never }, paint: { 'circle-radius': ['match', ['get', 'severity'], 'critical', 6.5, 'high', 6, 'medium', 5, 4.5], 'circle-color': colour, 'circle-stroke-color': c.halo, 'circle-stroke-width': 1.5 } },
      { id: 'names', type: 'symbol', source: 'markers', minzoom: 5, layout: { 'text-field': ['get', 'title'], 'text-size': 12, 'text-anchor': 'left', 'text-offset': [0.8, 0], 'text-max-width': 14, 'symbol-sort-key': ['-', 0, SEVERE] as never }, paint: { 'text-color': c.text, 'text-halo-color': c.halo, 'text-halo-width': 1.5 } },
    ],
  };
}

export interface Place {
  lng: number;
  lat: number;
  zoom: number;
}

export interface Handlers {
  onselect: (key: string | undefined) => void;
  onmove: (place: Place, box: Box) => void;
  onready: () => void;
}

export class Engine {
  readonly #map: GlMap;
  #things: readonly Thing[] = [];
  #chosen: Thing | undefined;
  #shapes: { land: Feature | FeatureCollection; borders: Feature } | undefined;
  #isReady = false;
  readonly #looks: MutationObserver;
  readonly #scheme = matchMedia('(prefers-color-scheme: dark)');
  readonly #restyle = () => {
    this.#isReady = false;
    this.#map.setStyle(styleOf(colours()), { diff: false });
  };

  constructor(container: HTMLElement, start: Place, private readonly handlers: Handlers) {
    this.#map = new GlMap({ container, style: styleOf(colours()), center: [start.lng, start.lat], zoom: start.zoom, attributionControl: false, dragRotate: false, pitchWithRotate: false, touchPitch: false, maxZoom: 18, fadeDuration: 0, locale: { 'Map.Title': 'Map of markers and zones; the list has the same' } });
    const map = this.#map;
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    map.on('style.load', () => {
      this.#isReady = true;
      this.#paint();
    });
    map.on('moveend', () => this.#moved());
    map.on('click', (event) => {
      const { x, y } = event.point;
      // A finger is wider than a marker.
      const near = map.queryRenderedFeatures([[x - 8, y - 8], [x + 8, y + 8]], { layers: ['markers'] });
      const found = near[0] ?? map.queryRenderedFeatures(event.point, { layers: ['zones'] })[0];
      this.handlers.onselect(found?.properties.key as string | undefined);
    });
    map.on('mousemove', (event) => {
      const on = map.queryRenderedFeatures(event.point, { layers: ['markers', 'zones'] }).length > 0;
      map.getCanvas().style.cursor = on ? 'pointer' : '';
    });
    map.once('idle', () => this.handlers.onready());
    this.#looks = new MutationObserver(this.#restyle);
    this.#looks.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    this.#scheme.addEventListener('change', this.#restyle);
    void this.#load();
  }

  async #load() {
    const topology = (await (await fetch(shapesUrl)).json()) as Topology<{ land: GeometryCollection; countries: GeometryCollection }>;
    const { land, countries } = topology.objects;
    this.#shapes = { land: feature(topology, land), borders: { type: 'Feature', properties: {}, geometry: mesh(topology, countries, (a, b) => a !== b) } };
    this.#paint();
  }

  #set(name: string, data: Feature | FeatureCollection) {
    this.#map.getSource<GeoJSONSource>(name)?.setData(data);
  }

  #moved() {
    const { lng, lat } = this.#map.getCenter();
    const bounds = this.#map.getBounds();
    const box: Box = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()];
    if (this.#isReady) this.#set('grid', { type: 'Feature', properties: {}, geometry: { type: 'MultiLineString', coordinates: graticule(box) } });
    this.handlers.onmove({ lng, lat, zoom: this.#map.getZoom() }, box);
  }

  #paint() {
    if (!this.#isReady) return;
    if (this.#shapes) {
      this.#set('land', this.#shapes.land);
      this.#set('borders', this.#shapes.borders);
    }
    this.#moved();
    this.show(this.#things, this.#chosen);
  }

  show(things: readonly Thing[], chosen: Thing | undefined) {
    this.#things = things;
    this.#chosen = chosen;
    if (!this.#isReady) return;
    const of = (list: readonly Thing[]): FeatureCollection => ({ type: 'FeatureCollection', features: list.map(({ key, title, severity, geometry }) => ({ type: 'Feature', properties: { key, title, severity }, geometry })) });
    this.#set('markers', of(things.filter((one) => one.kind === 'marker')));
    this.#set('zones', of(things.filter((one) => one.kind === 'zone')));
    this.#set('tracks', { type: 'FeatureCollection', features: things.filter((one) => one.track.length > 1).map((one) => ({ type: 'Feature', properties: { severity: one.severity }, geometry: { type: 'LineString', coordinates: one.track } })) });
    this.#set('chosen', of(chosen ? [chosen] : []));
  }

  fit(box: Box) {
    this.#map.fitBounds(box as LngLatBoundsLike, { padding: 60, maxZoom: 14, duration: 0 });
  }
  centre(place: [number, number]) {
    this.#map.easeTo({ center: place, duration: 0 });
  }
  zoom(step: number) {
    this.#map.zoomTo(this.#map.getZoom() + step, { duration: 120 });
  }

  close() {
    this.#looks.disconnect();
    this.#scheme.removeEventListener('change', this.#restyle);
    this.#map.remove();
  }
}
