// Commands to copy: the CLI's line and curl for what a page shows. Pure.

/** A word as a POSIX shell takes it. */
export function quote(word: string): string {
  if (word === '') return "''";
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

export function cli(...words: (string | undefined | false | null)[]): string {
  return ['agentforge', ...words.filter((word): word is string => typeof word === 'string')].map(quote).join(' ');
}

/** The services' addresses as variables of a shell: where they are differs between the browser and the reader's terminal. */
const ADDRESSES: Record<string, string> = {
  orchestrator: '"$ORCHESTRATOR"',
  broadcaster: '"$BROADCASTER"',
  tactical: '"$TACTICAL"',
  console: '"$CONSOLE"',
};

export interface Call {
  service?: string;
  method?: string;
  path: string;
  body?: unknown;
}

export function curl({ service = 'orchestrator', method = 'GET', path, body }: Call): string {
  const words = ['curl', '-sS'];
  if (method !== 'GET') words.push('-X', method);
  words.push('-H', '"authorization: Bearer $AGENTFORGE_TOKEN"');
  if (body !== undefined) words.push('-H', quote('content-type: application/json'), '-d', quote(JSON.stringify(body)));
  words.push(`${ADDRESSES[service]}${quote(path)}`);
  return words.join(' ');
}
