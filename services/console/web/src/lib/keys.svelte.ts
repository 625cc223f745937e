// Keys: single letters, two letters after each other, and those with Ctrl. The help overlay lists what is bound now.
import { untrack } from 'svelte';
import { prefs } from './prefs.svelte';

export interface Binding {
  /** "j", "g j", "ctrl+k", "shift+x". */
  keys: string;
  label: string;
  group: 'Everywhere' | 'Go to' | 'This page' | 'Table';
  run: (event: KeyboardEvent) => unknown;
  /** Works while typing too. */
  always?: boolean;
}

/** The second letter of two comes within this. */
const SEQUENCE_MS = 1200;

class Keys {
  #bindings = $state.raw<Binding[]>([]);
  #before = '';
  #since = 0;

  get bindings(): readonly Binding[] {
    return this.#bindings;
  }

  start() {
    document.addEventListener('keydown', (event) => this.#pressed(event));
  }

  /** Binds keys until the returned function is called; later bindings win. Call it in an $effect. */
  bind(...bindings: Binding[]): () => void {
    // Binding must not depend on what is bound, or each binding would run all effects that bind.
    const set = (next: Binding[]) => (this.#bindings = next);
    untrack(() => set([...this.#bindings, ...bindings]));
    return () => untrack(() => set(this.#bindings.filter((one) => !bindings.includes(one))));
  }

  #pressed(event: KeyboardEvent) {
    if (event.defaultPrevented || event.isComposing || ['Shift', 'Control', 'Alt', 'Meta'].includes(event.key)) return;
    const target = event.target as HTMLElement;
    const isTyping = target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && !isTick(target);
    const control = event.ctrlKey || event.metaKey;
    if (event.altKey) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const isLetter = /^[a-z]$/.test(name);
    const pressed = `${control ? 'ctrl+' : ''}${event.shiftKey && isLetter ? 'shift+' : ''}${name}`;
    const sequence = performance.now() - this.#since < SEQUENCE_MS ? `${this.#before} ${pressed}` : '';
    this.#before = pressed;
    this.#since = performance.now();
    const inDialog = document.querySelector('dialog[open]') !== null;
    const find = (keys: string) =>
      this.#bindings.findLast((one) => {
        if (one.keys !== keys) return false;
        if (one.always) return true;
        return !isTyping && !inDialog && (prefs.shortcuts || control || name.length > 1);
      });
    const binding = (sequence && find(sequence)) || find(pressed);
    if (!binding) return;
    this.#since = 0;
    event.preventDefault();
    binding.run(event);
  }
}

function isTick(target: HTMLElement): boolean {
  return target instanceof HTMLInputElement && ['checkbox', 'radio', 'button'].includes(target.type);
}

export const keys = new Keys();
