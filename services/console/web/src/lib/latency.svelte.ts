// Latencies: what the console's sampler measured, and what this browser measures through the console.
import { json, send } from '../api/http';
import { Problem } from '../api/problem';
import { session } from './session.svelte';

export interface ServerSample {
  ts: string | number;
  ms: number;
  status: number | null;
  ok: boolean;
  cls: string;
}
export interface ServerService {
  name: string;
  url: string;
  samples: ServerSample[];
  stats: {
    latest_ms: number | null;
    min_ms: number | null;
    max_ms: number | null;
    p50_ms: number | null;
    p90_ms: number | null;
    p99_ms: number | null;
    attempts: number;
    ok: number;
    failure_rate_pct: number;
    latest_class: string;
  };
}
export interface ServiceLatencies {
  updatedAt: string;
  services: ServerService[];
}

export function serviceLatencies(signal?: AbortSignal): Promise<ServiceLatencies> {
  return json('GET', '/api/service-latencies', { signal });
}

/** The browser's classes: green below 150 ms, amber below 500, red from there; null is a failure. */
export function browserClass(ms: number | null): 'good' | 'warn' | 'high' | 'na' {
  if (ms === null) return 'na';
  return ms < 150 ? 'good' : ms < 500 ? 'warn' : 'high';
}

export interface BrowserService {
  name: string;
  path: string;
  /** The last samples, oldest first; null is a failure. */
  samples: (number | null)[];
  /** Why the last one failed. */
  problem?: string;
}

export const SAMPLES_SHOWN = 30;

/** One cheap request each, to the services that the session names; one that is not there is left out at its first answer. */
const TARGETS = [
  { name: 'console', path: '/auth/session', setting: '' },
  { name: 'orchestrator', path: '/api/orchestrator/v1/jobs:counts', setting: 'orchestrator' },
  { name: 'broadcaster', path: '/api/broadcaster/v1/endpoints', setting: 'broadcaster' },
  { name: 'tactical-api', path: '/api/tactical/v1/rejected', setting: 'tactical' },
  { name: 'prometheus', path: '/api/prometheus/api/v1/query?query=1', setting: 'prometheus' },
];
const NOT_CONFIGURED = [404, 501];

class BrowserLatency {
  services = $state.raw<BrowserService[]>([]);
  #gone = new Set<string>();

  /** Measures all once. */
  async sample(signal?: AbortSignal): Promise<BrowserService[]> {
    // One after the other, when the page has done its own work: a sample measures the service and not the queue before it.
    await new Promise((done) => (typeof requestIdleCallback === 'function' ? requestIdleCallback(done, { timeout: 2_000 }) : setTimeout(done, 200)));
    const measured = [];
    for (const target of TARGETS) {
      if (this.#gone.has(target.name) || signal?.aborted) continue;
      if (target.setting && session.info?.settings[target.setting] === false) continue;
      measured.push({ ...target, ...(await this.#measure(target.path, target.name, signal)) });
    }
    if (signal?.aborted) return this.services;
    this.services = measured
      .filter((one) => !this.#gone.has(one.name))
      .map(({ name, path, ms, problem }) => {
        const before = this.services.find((one) => one.name === name)?.samples ?? [];
        return { name, path, problem, samples: [...before, ms].slice(-SAMPLES_SHOWN) };
      });
    return this.services;
  }

  async #measure(path: string, name: string, signal?: AbortSignal): Promise<{ ms: number | null; problem?: string }> {
    const begun = performance.now();
    try {
      await (await send('GET', path, { signal })).arrayBuffer();
      return { ms: performance.now() - begun };
    } catch (cause) {
      const problem = Problem.of(cause);
      if (NOT_CONFIGURED.includes(problem.status)) this.#gone.add(name);
      // A refusal is an answer: the service is there.
      const answered = problem.status === 401 || problem.status === 403;
      return { ms: answered ? performance.now() - begun : null, problem: problem.detail };
    }
  }
}

export const browserLatency = new BrowserLatency();
