// Data of a page: loaded, refreshed at the reader's interval, kept when a refresh fails.
import { untrack } from 'svelte';
import { Problem } from '../api/problem';
import { prefs } from './prefs.svelte';

/** A failing source is asked less often, down to this. */
const SLOWEST_MS = 120_000;

export interface Resource<T> {
  readonly data: T | undefined;
  /** The newest attempt's; data may be older. */
  readonly error: Problem | undefined;
  readonly loading: boolean;
  /** When the data arrived. */
  readonly at: number;
  reload(): Promise<void>;
  /** Shows a change before the server has answered the next refresh. */
  set(data: T): void;
}

interface Options {
  /** Milliseconds; 'prefs' is what the reader chose, 'never' loads once. */
  every?: number | 'prefs' | 'never';
}

/**
 * Loads with what `source` returns, again when that changes, and again and again. Call it while a component starts.
 * A source that returns undefined loads nothing. Hidden pages ask for nothing.
 */
export function resource<S, T>(
  source: () => S | undefined,
  load: (source: S, signal: AbortSignal) => Promise<T>,
  { every = 'prefs' }: Options = {},
): Resource<T> {
  let data = $state.raw<T>();
  let error = $state.raw<Problem>();
  let loading = $state(true);
  let at = $state(0);
  let failures = 0;
  let running: AbortController | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wanted: S | undefined;

  async function ask(): Promise<void> {
    clearTimeout(timer);
    running?.abort();
    if (wanted === undefined) return;
    const own = new AbortController();
    running = own;
    loading = true;
    try {
      const fresh = await load(wanted, own.signal);
      if (own.signal.aborted) return;
      data = fresh;
      error = undefined;
      failures = 0;
      at = Date.now();
    } catch (cause) {
      if (own.signal.aborted) return;
      error = Problem.of(cause);
      failures += 1;
    }
    loading = false;
    plan();
  }

  function plan() {
    clearTimeout(timer);
    const interval = every === 'never' ? null : every === 'prefs' ? prefs.everyMs : every;
    if (interval === null || document.hidden) return;
    const slowed = Math.min(interval * 2 ** Math.min(failures, 6), Math.max(SLOWEST_MS, interval));
    timer = setTimeout(() => void ask(), Math.max(slowed, error?.retryAfterMs ?? 0));
  }

  function seen() {
    if (document.hidden) clearTimeout(timer);
    else if (every !== 'never') void ask();
  }

  $effect(() => {
    wanted = source();
    untrack(() => void ask());
    return () => {
      running?.abort();
      clearTimeout(timer);
    };
  });
  $effect(() => {
    void prefs.everyMs;
    untrack(() => {
      if (!loading) plan();
    });
  });
  $effect(() => {
    document.addEventListener('visibilitychange', seen);
    return () => document.removeEventListener('visibilitychange', seen);
  });

  return {
    get data() {
      return data;
    },
    get error() {
      return error;
    },
    get loading() {
      return loading;
    },
    get at() {
      return at;
    },
    reload: ask,
    set(fresh: T) {
      data = fresh;
    },
  };
}
