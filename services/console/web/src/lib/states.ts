// Words of states, and the role of colour and the mark that each has. DESIGN.md has the table.

export type Role = 'good' | 'warn' | 'bad' | 'run' | 'wait' | 'idle';
export type Mark = 'ring' | 'half' | 'disc' | 'tick' | 'cross' | 'square' | 'bar' | 'hourglass' | 'pause' | 'alert';

export interface Look {
  role: Role;
  mark: Mark;
  label?: string;
  hint?: string;
}

export const JOB_STATES = ['accepted', 'queued', 'running', 'succeeded', 'failed', 'dead', 'cancelled', 'expired'] as const;
export type JobState = (typeof JOB_STATES)[number];
export const OPEN_STATES: readonly string[] = ['accepted', 'queued', 'running'];
/** A retry puts these back. */
export const RETRYABLE_STATES: readonly string[] = ['failed', 'dead', 'cancelled', 'expired'];

const LOOKS: Record<string, Look> = {
  accepted: { role: 'wait', mark: 'ring', hint: 'Stored, not yet published, or for later' },
  queued: { role: 'wait', mark: 'half', hint: 'Published, not begun' },
  running: { role: 'run', mark: 'disc', hint: 'A worker runs it' },
  succeeded: { role: 'good', mark: 'tick', hint: 'Ended with a result' },
  failed: { role: 'bad', mark: 'cross', hint: 'Ended with an error that no retry fixes' },
  dead: { role: 'bad', mark: 'square', hint: 'Used up its attempts, or lost too many workers' },
  cancelled: { role: 'idle', mark: 'bar', hint: 'Stopped by a caller' },
  expired: { role: 'warn', mark: 'hourglass', hint: 'Not ended by its deadline' },
  worker_lost: { role: 'bad', mark: 'square', label: 'worker lost' },
  waiting: { role: 'wait', mark: 'ring' },
  online: { role: 'good', mark: 'disc' },
  offline: { role: 'bad', mark: 'cross' },
  left: { role: 'idle', mark: 'bar' },
  active: { role: 'good', mark: 'disc' },
  paused: { role: 'warn', mark: 'pause' },
  healthy: { role: 'good', mark: 'tick' },
  at_risk: { role: 'warn', mark: 'alert', label: 'at risk' },
  breached: { role: 'bad', mark: 'cross' },
  no_data: { role: 'idle', mark: 'ring', label: 'no data' },
  up: { role: 'good', mark: 'disc' },
  down: { role: 'bad', mark: 'cross' },
  unknown: { role: 'idle', mark: 'ring' },
  low: { role: 'idle', mark: 'ring' },
  medium: { role: 'warn', mark: 'half' },
  new: { role: 'wait', mark: 'ring', hint: 'No one has read it yet' },
  triaged: { role: 'run', mark: 'half', hint: 'Worth a decision' },
  approved: { role: 'good', mark: 'disc', hint: 'It became a job' },
  rejected: { role: 'idle', mark: 'cross', hint: 'It will not become a job' },
  done: { role: 'good', mark: 'tick', hint: 'Finished' },
  delivered: { role: 'good', mark: 'tick' },
  retried: { role: 'warn', mark: 'half' },
  disabled: { role: 'bad', mark: 'bar' },
  set_aside: { role: 'warn', mark: 'bar', label: 'set aside' },
  test_failed: { role: 'bad', mark: 'cross', label: 'test failed' },
  good: { role: 'good', mark: 'disc' },
  warn: { role: 'warn', mark: 'half' },
  high: { role: 'bad', mark: 'square' },
  na: { role: 'idle', mark: 'ring', label: 'n/a' },
  firing: { role: 'bad', mark: 'alert' },
  pending: { role: 'warn', mark: 'ring' },
  critical: { role: 'bad', mark: 'alert' },
  warning: { role: 'warn', mark: 'alert' },
  info: { role: 'run', mark: 'ring' },
  none: { role: 'idle', mark: 'ring' },
  page: { role: 'bad', mark: 'alert' },
  ticket: { role: 'warn', mark: 'alert' },
  silenced: { role: 'idle', mark: 'bar' },
  inactive: { role: 'idle', mark: 'ring' },
  attempts_exhausted: { role: 'bad', mark: 'square', label: 'attempts exhausted' },
  not_retryable: { role: 'bad', mark: 'cross', label: 'not retryable' },
  invalid_message: { role: 'warn', mark: 'alert', label: 'invalid message' },
  invalid_signature: { role: 'warn', mark: 'alert', label: 'invalid signature' },
};

export function look(state: string): Look {
  return LOOKS[state] ?? { role: 'idle', mark: 'ring' };
}

export function isOpen(state: string): boolean {
  return OPEN_STATES.includes(state);
}
