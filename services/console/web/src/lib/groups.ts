// Dead letters that died for the same cause, together. Pure.
import type { Schemas } from '../api/client';

type Letter = Schemas['DeadLetter'];

export interface Group {
  key: string;
  reason: string;
  errorClass: string;
  tool: string;
  queue: string;
  /** What the messages have in common: numbers and ids are left out. */
  message: string;
  letters: Letter[];
  newest: string;
  oldest: string;
}

/** A message without what differs between equal failures: ids, numbers, quoted values, addresses' ends. */
export function shape(message: string): string {
  return message
    .split('\n', 1)[0]!
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, '…')
    .replace(/\b[0-9a-f]{16,}\b/gi, '…')
    .replace(/\d+(\.\d+)?/g, '…')
    .replace(/(…[\s.:,]?)+…/g, '…')
    .trim();
}

/** Largest first. */
export function groups(letters: readonly Letter[]): Group[] {
  const found = new Map<string, Group>();
  for (const letter of letters) {
    const message = shape(letter.error.message);
    const key = JSON.stringify([letter.reason, letter.error.class, letter.tool, letter.queue, message]);
    const group = found.get(key);
    if (group) {
      group.letters.push(letter);
      if (letter.created_at > group.newest) group.newest = letter.created_at;
      if (letter.created_at < group.oldest) group.oldest = letter.created_at;
    } else {
      found.set(key, { key, reason: letter.reason, errorClass: letter.error.class, tool: letter.tool, queue: letter.queue, message, letters: [letter], newest: letter.created_at, oldest: letter.created_at });
    }
  }
  return [...found.values()].sort((a, b) => b.letters.length - a.letters.length || b.newest.localeCompare(a.newest));
}
