// The live picture: server-sent events into things, shown at most four times a second.
import { tactical } from '../../api/client';
import { session } from '../../lib/session.svelte';
import { keyOf, thingOf, type Thing } from './things';

/** More are counted, and not shown. */
export const THINGS_MAX = 5_000;
const FLUSH_MS = 250;
/** After the stream was refused; the browser itself tries again after a cut. */
const AGAIN_MS = 5_000;

export type Link = 'connecting' | 'live' | 'stale' | 'away';

export class Picture {
  things = $state.raw<readonly Thing[]>([]);
  link = $state<Link>('connecting');
  /** Since when the link is what it is. */
  since = $state(Date.now());
  /** What could not be shown: of the newest gap, or because there are too many. */
  missing = $state(0);
  over = $state(0);
  #all = new Map<string, Thing>();
  #dirty = false;
  #source: EventSource | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  #flush: ReturnType<typeof setInterval> | undefined;

  /** Follows the stream until the returned function is called. */
  open(): () => void {
    this.#connect();
    this.#flush = setInterval(() => this.#show(), FLUSH_MS);
    return () => {
      clearInterval(this.#flush);
      clearTimeout(this.#again);
      this.#source?.close();
    };
  }

  #connect() {
    const source = new EventSource(`${tactical.url('/events/stream')}?snapshot=true`);
    this.#source = source;
    // The snapshot follows: what was removed meanwhile is not in it.
    let isFresh = true;
    const on = (name: string, run: (data: Record<string, unknown>) => void) =>
      source.addEventListener(name, (event: MessageEvent<string>) => {
        try {
          run(JSON.parse(event.data) as Record<string, unknown>);
        } catch {
          // Not ours: the next one may be.
        }
      });
    source.onopen = () => {
      if (isFresh) this.#all.clear();
      isFresh = false;
      this.#dirty = true;
      this.#now('live');
    };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return this.#now('connecting');
      // Refused: the session may have ended.
      this.#now('away');
      this.#again = setTimeout(() => void session.renew().finally(() => this.#connect()), AGAIN_MS);
    };
    const take = (feature: Record<string, unknown>) => this.#take(feature);
    on('marker', take);
    on('zone', take);
    on('remove', (feature) => {
      const key = keyOf((feature.properties ?? {}) as object);
      if (key) this.#all.delete(key);
      this.#dirty = true;
    });
    on('gap', (gap) => (this.missing += typeof gap.missing === 'number' && gap.reason !== 'conflated' ? gap.missing : 0));
    on('stale', () => this.#now('stale'));
    on('fresh', () => this.#now('live'));
  }

  #take(feature: Record<string, unknown>) {
    const key = keyOf((feature.properties ?? {}) as object);
    const before = key ? this.#all.get(key) : undefined;
    const thing = thingOf(feature, before);
    if (!thing) return;
    if (!before && this.#all.size >= THINGS_MAX) this.over += 1;
    else this.#all.set(thing.key, thing);
    this.#dirty = true;
  }

  #show() {
    if (!this.#dirty || document.hidden) return;
    this.#dirty = false;
    this.things = [...this.#all.values()];
  }

  #now(link: Link) {
    if (this.link === link) return;
    this.link = link;
    this.since = Date.now();
  }
}
