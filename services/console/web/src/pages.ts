// Every page: its path, its place in the navigation, its key, and where its code is. README.md says how to add one.
import type { Component } from 'svelte';

export interface PageEntry {
  path: string;
  title: string;
  /** In the navigation, under this heading; a page without one is reached from another. */
  group?: 'Now' | 'Work' | 'Fleet' | 'Reach' | 'Care';
  icon?: string;
  /** After `g`. */
  key?: string;
  /** Shown only to those who may use it. */
  needs?: 'operate' | 'admin';
  load: () => Promise<{ default: Component<Record<string, string>> }>;
}

type Loaded = Promise<{ default: Component<Record<string, string>> }>;
const page = (loaded: Promise<{ default: unknown }>) => loaded as Loaded;

export const PAGES: readonly PageEntry[] = [
  { path: '/', title: 'Overview', group: 'Now', icon: 'overview', key: 'o', load: () => page(import('./pages/overview/Overview.svelte')) },
  { path: '/jobs', title: 'Jobs', group: 'Work', icon: 'jobs', key: 'j', load: () => page(import('./pages/jobs/Jobs.svelte')) },
  { path: '/jobs/new', title: 'Submit a job', load: () => page(import('./pages/jobs/Submit.svelte')) },
  { path: '/jobs/:id', title: 'Job', load: () => page(import('./pages/jobs/Job.svelte')) },
  { path: '/operations', title: 'Operations', load: () => page(import('./pages/jobs/Operations.svelte')) },
  { path: '/queues', title: 'Queues', group: 'Work', icon: 'queues', key: 'q', load: () => page(import('./pages/queues/Queues.svelte')) },
  { path: '/schedules', title: 'Schedules', group: 'Work', icon: 'schedules', key: 's', load: () => page(import('./pages/schedules/Schedules.svelte')) },
  { path: '/schedules/new', title: 'Create a schedule', load: () => page(import('./pages/schedules/Create.svelte')) },
  { path: '/schedules/:id', title: 'Schedule', load: () => page(import('./pages/schedules/Schedule.svelte')) },
  { path: '/dead-letters', title: 'Dead letters', group: 'Work', icon: 'dead', key: 'd', load: () => page(import('./pages/dead/DeadLetters.svelte')) },
  { path: '/agents', title: 'Agents and tools', group: 'Fleet', icon: 'agents', key: 'a', load: () => page(import('./pages/agents/Agents.svelte')) },
  { path: '/latency', title: 'Latency', group: 'Fleet', icon: 'latency', key: 'l', load: () => page(import('./pages/latency/Latency.svelte')) },
  { path: '/sites', title: 'Sites', group: 'Fleet', icon: 'sites', key: 't', load: () => page(import('./pages/sites/Sites.svelte')) },
  { path: '/map', title: 'Live map', group: 'Fleet', icon: 'map', key: 'm', load: () => page(import('./pages/map/LiveMap.svelte')) },
  { path: '/webhooks', title: 'Webhooks', group: 'Reach', icon: 'webhooks', key: 'w', load: () => page(import('./pages/webhooks/Webhooks.svelte')) },
  { path: '/webhooks/:name', title: 'Webhook', load: () => page(import('./pages/webhooks/Webhook.svelte')) },
  { path: '/intake', title: 'Intake', group: 'Reach', icon: 'intake', key: 'i', load: () => page(import('./pages/intake/Intake.svelte')) },
  { path: '/alerts', title: 'Alerts and SLOs', group: 'Care', icon: 'alerts', key: 'k', load: () => page(import('./pages/alerts/Alerts.svelte')) },
  { path: '/audit', title: 'Audit log', group: 'Care', icon: 'audit', key: 'u', needs: 'admin', load: () => page(import('./pages/audit/Audit.svelte')) },
  { path: '/users', title: 'Users', group: 'Care', icon: 'users', key: 'e', needs: 'admin', load: () => page(import('./pages/users/Users.svelte')) },
  { path: '/settings', title: 'Settings', group: 'Care', icon: 'settings', key: 'p', load: () => page(import('./pages/users/Settings.svelte')) },
];

export const GROUPS = ['Now', 'Work', 'Fleet', 'Reach', 'Care'] as const;
