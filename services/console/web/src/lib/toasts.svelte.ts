// Short messages about what was done, with a way back where there is one.
import { Problem } from '../api/problem';

export interface Toast {
  id: number;
  text: string;
  kind: 'done' | 'error';
  action?: { label: string; run: () => unknown };
  /** Where the details are. */
  href?: string;
}

const SHOWN_MS = 6_000;
/** What can be undone or has failed is read and decided upon. */
const DECIDED_MS = 12_000;
/** An action that cannot be taken back waits this long for "Undo". */
const DEFER_MS = 6_000;
const SHOWN_MAX = 4;

class Toasts {
  list = $state.raw<Toast[]>([]);
  #next = 1;
  #timers = new Map<number, ReturnType<typeof setTimeout>>();

  show(toast: Omit<Toast, 'id'>, ms: number = toast.kind === 'error' || toast.action ? DECIDED_MS : SHOWN_MS): number {
    const id = this.#next++;
    for (const old of this.list.slice(0, Math.max(0, this.list.length - SHOWN_MAX + 1))) this.close(old.id);
    this.list = [...this.list, { ...toast, id }];
    this.#timers.set(id, setTimeout(() => this.close(id), ms));
    return id;
  }

  done(text: string, undo?: () => unknown, href?: string) {
    return this.show({ text, kind: 'done', href, action: undo && { label: 'Undo', run: undo } });
  }

  failed(what: string, error: unknown) {
    const problem = Problem.of(error);
    return this.show({ text: `${what}: ${problem.detail}`, kind: 'error' });
  }

  /** Does what cannot be taken back after a pause in which it can be stopped; leaving the page does it at once. */
  deferred(text: string, act: () => Promise<unknown>, undone: () => unknown) {
    let open = true;
    const finish = () => {
      if (!open) return;
      open = false;
      removeEventListener('pagehide', finish);
      clearTimeout(timer);
      act().catch((error: unknown) => {
        undone();
        this.failed(text, error);
      });
    };
    const timer = setTimeout(finish, DEFER_MS);
    addEventListener('pagehide', finish);
    this.show(
      {
        text,
        kind: 'done',
        action: {
          label: 'Undo',
          run: () => {
            open = false;
            clearTimeout(timer);
            removeEventListener('pagehide', finish);
            undone();
          },
        },
      },
      DEFER_MS,
    );
  }

  close(id: number) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    this.list = this.list.filter((one) => one.id !== id);
  }

  /** A reader of a toast is given time. */
  hold(id: number) {
    clearTimeout(this.#timers.get(id));
  }
  release(id: number) {
    this.#timers.set(id, setTimeout(() => this.close(id), SHOWN_MS));
  }
}

export const toasts = new Toasts();
