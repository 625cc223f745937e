// Numbers and sizes as people read them. Pure.

/** "12,345"; from a hundred thousand on with a letter: "1.2 M". */
export function count(n: number): string {
  if (Math.abs(n) < 100_000) return Math.round(n).toLocaleString('en-US');
  for (const [size, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (Math.abs(n) >= size) return `${(n / size).toFixed(Math.abs(n) / size < 10 ? 1 : 0)} ${letter}`;
  }
  return String(n);
}

export function full(n: number): string {
  return n.toLocaleString('en-US');
}

/** "940 B", "4.2 KiB". */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = n;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** "0.3/s", "12/s", "1,240/s". */
export function rate(perSecond: number): string {
  if (perSecond === 0) return '0/s';
  if (perSecond < 0.1) return `${trim((perSecond * 60).toFixed(1))}/min`;
  if (perSecond < 10) return `${trim(perSecond.toFixed(1))}/s`;
  return `${count(perSecond)}/s`;
}

export function percent(share: number, digits = 1): string {
  return `${trim((share * 100).toFixed(digits))} %`;
}

function trim(text: string): string {
  return text.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${full(n)} ${n === 1 ? one : many}`;
}

/** The part of an id that people compare; the whole id is in the link and in the tooltip. */
export function shortId(id: string): string {
  return id.length > 13 ? id.slice(-8) : id;
}
