// How fast a backlog shrinks, and when it is empty. Pure.

export interface Sample {
  at: number;
  value: number;
}

export type Drain = { kind: 'empty' } | { kind: 'unknown' } | { kind: 'steady' } | { kind: 'grows'; perSecond: number } | { kind: 'drains'; perSecond: number; leftMs: number };

/** Fewer samples, or a shorter time, say nothing. */
const SAMPLES_MIN = 3;
const SPAN_MIN_MS = 4_000;
/** A change of less than this share of the depth over the whole span is none. */
const STEADY_SHARE = 0.01;

/** Least squares over the samples: one late answer does not turn the estimate. */
export function slope(samples: readonly Sample[]): number | undefined {
  if (samples.length < SAMPLES_MIN) return undefined;
  const first = samples[0]!;
  const span = samples.at(-1)!.at - first.at;
  if (span < SPAN_MIN_MS) return undefined;
  const n = samples.length;
  const meanAt = samples.reduce((sum, one) => sum + (one.at - first.at), 0) / n;
  const meanValue = samples.reduce((sum, one) => sum + one.value, 0) / n;
  let above = 0;
  let below = 0;
  for (const one of samples) {
    const x = one.at - first.at - meanAt;
    above += x * (one.value - meanValue);
    below += x * x;
  }
  return below === 0 ? undefined : (above / below) * 1000;
}

export function drain(samples: readonly Sample[]): Drain {
  const depth = samples.at(-1)?.value;
  if (depth === undefined) return { kind: 'unknown' };
  if (depth === 0) return { kind: 'empty' };
  const perSecond = slope(samples);
  if (perSecond === undefined) return { kind: 'unknown' };
  const span = (samples.at(-1)!.at - samples[0]!.at) / 1000;
  if (Math.abs(perSecond) * span < Math.max(depth * STEADY_SHARE, 0.5)) return { kind: 'steady' };
  if (perSecond > 0) return { kind: 'grows', perSecond };
  return { kind: 'drains', perSecond: -perSecond, leftMs: (depth / -perSecond) * 1000 };
}

/** How fast a counter rises; one that fell (retention, a restart) says nothing for that step. */
export function rising(samples: readonly Sample[]): (number | null)[] {
  return samples.slice(1).map((one, index) => {
    const before = samples[index]!;
    const seconds = (one.at - before.at) / 1000;
    return seconds <= 0 || one.value < before.value ? null : (one.value - before.value) / seconds;
  });
}
