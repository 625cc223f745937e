// A submission from the fields of the form. Pure.

export interface Fields {
  tool: string;
  queue: string;
  args: string;
  labels: string;
  runIn: string;
  deadlineIn: string;
  timeout: string;
  attempts: string;
  key: string;
}

export const BLANK: Fields = { tool: '', queue: '', args: '{}', labels: '', runIn: '', deadlineIn: '', timeout: '', attempts: '', key: '' };

export interface Submission {
  tool: string;
  args?: Record<string, unknown>;
  queue?: string;
  labels?: Record<string, string>;
  run_in?: string;
  deadline_in?: string;
  timeout?: string;
  max_attempts?: number;
  idempotency_key?: string;
}

export class FieldError extends Error {
  constructor(
    readonly field: keyof Fields,
    message: string,
  ) {
    super(message);
  }
}

export function parseArgs(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text.trim() || '{}');
  } catch (cause) {
    throw new FieldError('args', `args are not JSON: ${(cause as Error).message}`);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new FieldError('args', 'args must be a JSON object, such as {"name": 1}');
  return value as Record<string, unknown>;
}

/** One `key=value` per line. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const line of text.split('\n').map((one) => one.trim())) {
    if (!line) continue;
    const at = line.indexOf('=');
    if (at < 1) throw new FieldError('labels', `"${line}" is not key=value`);
    labels[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return labels;
}

export function submission(fields: Fields): Submission {
  if (!fields.tool.trim()) throw new FieldError('tool', 'name the tool to run');
  const body: Submission = { tool: fields.tool.trim(), args: parseArgs(fields.args) };
  const labels = parseLabels(fields.labels);
  if (fields.queue.trim()) body.queue = fields.queue.trim();
  if (Object.keys(labels).length > 0) body.labels = labels;
  if (fields.runIn.trim()) body.run_in = fields.runIn.trim();
  if (fields.deadlineIn.trim()) body.deadline_in = fields.deadlineIn.trim();
  if (fields.timeout.trim()) body.timeout = fields.timeout.trim();
  if (fields.key.trim()) body.idempotency_key = fields.key.trim();
  if (fields.attempts.trim()) {
    const attempts = Number(fields.attempts);
    if (!Number.isInteger(attempts) || attempts < 1 || attempts > 100) throw new FieldError('attempts', 'attempts are 1 to 100');
    body.max_attempts = attempts;
  }
  return body;
}

/** Words of `agentforge job submit`. */
export function submitCli(body: Submission): string[] {
  const words = ['job', 'submit', body.tool, JSON.stringify(body.args ?? {})];
  const add = (option: string, value: string | number | undefined) => {
    if (value !== undefined) words.push(option, String(value));
  };
  add('--queue', body.queue);
  for (const [name, value] of Object.entries(body.labels ?? {})) add('--label', `${name}=${value}`);
  add('--run-at', body.run_in && `+${body.run_in}`);
  add('--deadline', body.deadline_in && `+${body.deadline_in}`);
  add('--timeout', body.timeout);
  add('--max-attempts', body.max_attempts);
  add('--idempotency-key', body.idempotency_key);
  return words;
}

interface Earlier {
  tool: string;
  queue: string;
  args: unknown;
  labels: Record<string, unknown>;
  timeout_ms: number;
  max_attempts: number;
}

/** The fields of an earlier job, to be changed; its key, times and deadline are its own. */
export function fromJob(job: Earlier): Fields {
  return {
    ...BLANK,
    tool: job.tool,
    queue: job.queue,
    args: JSON.stringify(job.args, null, 2),
    labels: Object.entries(job.labels)
      .map(([name, value]) => `${name}=${String(value)}`)
      .join('\n'),
    timeout: `${job.timeout_ms}ms`,
    attempts: String(job.max_attempts),
  };
}
