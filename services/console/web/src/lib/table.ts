// Order of a table's rows. Pure.

export type SortValue = string | number | null | undefined;

export interface Sort {
  id: string;
  descending: boolean;
}

/** "took" or "-took", as the address has it. */
export function parseSort(text: string): Sort | undefined {
  if (!text) return undefined;
  return text.startsWith('-') ? { id: text.slice(1), descending: true } : { id: text, descending: false };
}

/** The next of: up, down, as it came. */
export function nextSort(now: Sort | undefined, id: string): string | null {
  if (now?.id !== id) return id;
  return now.descending ? null : `-${id}`;
}

/** Stable; rows without a value come last in both directions. */
export function sorted<Row>(rows: readonly Row[], value: ((row: Row) => SortValue) | undefined, descending: boolean): Row[] {
  if (!value) return [...rows];
  const sign = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const left = value(a);
    const right = value(b);
    if (left == null || right == null) return left == null ? (right == null ? 0 : 1) : -1;
    if (typeof left === 'number' && typeof right === 'number') return sign * (left - right);
    return sign * String(left).localeCompare(String(right), 'en', { numeric: true });
  });
}
