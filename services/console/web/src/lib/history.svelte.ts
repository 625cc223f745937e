// What this browser has seen of figures that the services give only as they are now. It lasts as long as the tab.
import type { Sample } from './drain';

const SAMPLES_MAX = 60;
const NAMES_MAX = 500;

class History {
  #lists = new Map<string, Sample[]>();
  #version = $state(0);

  /** A figure at a moment; one that is not newer is ignored. */
  add(name: string, value: number, at: number) {
    let list = this.#lists.get(name);
    if (!list) {
      if (this.#lists.size >= NAMES_MAX) return;
      list = [];
      this.#lists.set(name, list);
    }
    if (at <= (list.at(-1)?.at ?? 0)) return;
    list.push({ at, value });
    if (list.length > SAMPLES_MAX) list.shift();
    this.#version += 1;
  }

  of(name: string): readonly Sample[] {
    void this.#version;
    return [...(this.#lists.get(name) ?? [])];
  }
}

export const history = new History();
