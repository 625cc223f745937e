// The runbooks of this version, in the console itself: they are read when little else works.
const PAGES = import.meta.glob<string>('../../../../../docs/runbooks/*.md', { query: '?raw', import: 'default' });

/** The page of an alert's `runbook_url`, by the name of its file. */
export function runbookName(url: string | undefined): string | undefined {
  const name = /([\w-]+)\.md(#.*)?$/.exec(url ?? '')?.[1];
  return name && `../../../../../docs/runbooks/${name}.md` in PAGES ? name : undefined;
}

export async function runbook(name: string): Promise<string> {
  const load = PAGES[`../../../../../docs/runbooks/${name}.md`];
  if (!load) throw new Error(`there is no runbook ${name}`);
  return load();
}

/** All of them but the list of them. */
export const RUNBOOKS: readonly string[] = Object.keys(PAGES).map((path) => path.replace(/^.*\/(.+)\.md$/, '$1')).filter((name) => name !== 'README');
