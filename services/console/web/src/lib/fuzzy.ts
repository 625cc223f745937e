// How well a typed text fits a line of the palette. Pure.

/** Higher is better; 0 does not fit. Letters must appear in order; starts of words and runs count more. */
export function score(query: string, text: string): number {
  const wanted = query.toLowerCase().replace(/\s+/g, '');
  if (wanted === '') return 1;
  const line = text.toLowerCase();
  const whole = line.indexOf(query.toLowerCase().trim());
  if (whole >= 0) return 1000 - whole - line.length / 100 + (whole === 0 || line[whole - 1] === ' ' ? 500 : 0);
  let at = 0;
  let total = 0;
  let run = 0;
  for (const letter of wanted) {
    const found = line.indexOf(letter, at);
    if (found < 0) return 0;
    run = found === at ? run + 1 : 0;
    total += 1 + run * 2 + (found === 0 || /[\s:/-]/.test(line[found - 1]!) ? 6 : 0);
    at = found + 1;
  }
  return total / wanted.length;
}

export function best<T>(query: string, items: readonly T[], text: (item: T) => string, limit: number): T[] {
  return items
    .map((item) => ({ item, points: score(query, text(item)) }))
    .filter((one) => one.points > 0)
    .sort((a, b) => b.points - a.points)
    .slice(0, limit)
    .map((one) => one.item);
}
