// Every pair of colours that is used can be read, in both themes.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const css = readFileSync(new URL('../../src/tokens.css', import.meta.url), 'utf8');

function values(selector: string): Record<string, string> {
  const body = css.slice(css.indexOf(selector) + selector.length).match(/\{([^}]*)\}/)![1]!;
  return Object.fromEntries([...body.matchAll(/--([\w-]+):\s*(#[0-9a-f]{6})/g)].map((one) => [one[1]!, one[2]!]));
}

function luminance(hex: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const share = parseInt(hex.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

const GROUNDS = ['bg', 'surface', 'raised', 'sunken', 'hover', 'accent-soft'];
const STATES = ['good', 'warn', 'bad', 'run', 'wait', 'idle'];
const light = values(':root {');
const dark = values(":root[data-theme='dark']");

describe.each([
  ['light', light],
  ['dark', dark],
])('%s', (_, theme) => {
  it('has readable text on every ground', () => {
    for (const ground of GROUNDS) {
      for (const text of ['text', 'text-2', 'text-3', 'accent']) {
        // Labels are not put on a selected row's ground.
        if (ground === 'accent-soft' && text === 'text-3') continue;
        expect(contrast(theme[text]!, theme[ground]!), `${text} on ${ground}`).toBeGreaterThanOrEqual(4.5);
      }
    }
    expect(contrast(theme['on-accent']!, theme.accent!)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(theme['on-accent']!, theme.bad!)).toBeGreaterThanOrEqual(4.5);
  });
  it('has readable states on their own and on plain grounds', () => {
    for (const state of STATES) {
      for (const ground of [`${state}-soft`, 'surface', 'bg', 'hover', 'raised']) {
        expect(contrast(theme[state]!, theme[ground]!), `${state} on ${ground}`).toBeGreaterThanOrEqual(4.5);
      }
    }
  });
  it('has visible edges of controls', () => {
    for (const ground of ['surface', 'bg', 'raised']) expect(contrast(theme['line-strong']!, theme[ground]!), ground).toBeGreaterThanOrEqual(3);
  });
});

it('has the same dark values by choice and by the system', () => {
  expect(values(":root:not([data-theme='light'])")).toEqual(dark);
  expect(Object.keys(dark).sort()).toEqual(Object.keys(light).sort());
});
