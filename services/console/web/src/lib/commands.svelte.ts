// What the palette offers: pages and settings from the shell, and what the page that is open can do.
import { untrack } from 'svelte';

export interface Command {
  label: string;
  /** What kind it is: "Go to", "Job", "This page". */
  kind: string;
  keys?: string;
  run: () => unknown;
}

class Commands {
  #sets = $state.raw<(readonly Command[])[]>([]);

  get all(): Command[] {
    return this.#sets.toReversed().flat();
  }

  /** Offers commands until the returned function is called. Call it in an $effect. */
  offer(commands: readonly Command[]): () => void {
    const set = (next: (readonly Command[])[]) => (this.#sets = next);
    untrack(() => set([...this.#sets, commands]));
    return () => untrack(() => set(this.#sets.filter((one) => one !== commands)));
  }
}

export const commands = new Commands();
