// The reader's own choices, kept in this browser.
import { recall, remember } from './storage';

export type Theme = 'system' | 'light' | 'dark';
export type Zone = 'local' | 'utc' | 'relative';
export type Refresh = 'live' | '15' | '30' | '60' | '120' | 'off';

interface Stored {
  theme: Theme;
  zone: Zone;
  refresh: Refresh;
  shortcuts: boolean;
}

const KEY = 'af.prefs';
const DEFAULTS: Stored = { theme: 'system', zone: 'relative', refresh: '15', shortcuts: true };

/** How often a live page asks. */
const LIVE_MS = 2_000;

class Prefs {
  #stored = $state<Stored>({ ...DEFAULTS, ...recall<Partial<Stored>>(KEY, {}) });

  get theme(): Theme {
    return this.#stored.theme;
  }
  set theme(theme: Theme) {
    this.#stored.theme = theme;
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    this.#keep();
  }
  get zone(): Zone {
    return this.#stored.zone;
  }
  set zone(zone: Zone) {
    this.#stored.zone = zone;
    this.#keep();
  }
  get refresh(): Refresh {
    return this.#stored.refresh;
  }
  set refresh(refresh: Refresh) {
    this.#stored.refresh = refresh;
    this.#keep();
  }
  get shortcuts(): boolean {
    return this.#stored.shortcuts;
  }
  set shortcuts(on: boolean) {
    this.#stored.shortcuts = on;
    this.#keep();
  }
  /** Milliseconds between two refreshes; null when there are none. */
  get everyMs(): number | null {
    if (this.#stored.refresh === 'off') return null;
    return this.#stored.refresh === 'live' ? LIVE_MS : Number(this.#stored.refresh) * 1000;
  }
  #keep() {
    remember(KEY, $state.snapshot(this.#stored));
  }
}

export const prefs = new Prefs();
