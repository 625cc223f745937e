// Fails the build when the first load is larger than the promise: what the entry and the overview need, compressed.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT_KIB = 120;
const REQUESTS_MAX = 15;
const dist = new URL('../dist/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('.vite/manifest.json', dist), 'utf8'));
const bytes = (file) => gzipSync(readFileSync(new URL(file, dist)), { level: 6 }).length;

/** The files that a chunk needs before it runs. */
function needed(key, files = new Set()) {
  const chunk = manifest[key];
  if (files.has(chunk.file)) return files;
  files.add(chunk.file);
  for (const css of chunk.css ?? []) files.add(css);
  for (const one of chunk.imports ?? []) needed(one, files);
  return files;
}

const entry = needed('index.html');
const sum = (files) => [...files].reduce((total, file) => total + bytes(file), 0) / 1024;
const shell = sum(new Set([...entry, 'index.html', 'theme.js', 'icon.svg']));
let failed = false;
for (const key of manifest['index.html'].dynamicImports.filter((one) => one.startsWith('src/pages/'))) {
  const own = [...needed(key)].filter((file) => !entry.has(file));
  const page = shell + sum(own);
  const isFirst = /overview|login/i.test(key);
  const requests = entry.size + own.length + 3;
  console.log(`${page.toFixed(1).padStart(7)} KiB ${String(requests).padStart(3)} files  ${key}`);
  // The map carries its own library; every other page keeps the promise.
  if (!/\/map\//i.test(key) && (page > LIMIT_KIB || requests > REQUESTS_MAX)) failed = true;
  if (isFirst && page > LIMIT_KIB) failed = true;
}
console.log(`${shell.toFixed(1).padStart(7)} KiB      the shell; the limit of a first load is ${LIMIT_KIB} KiB and ${REQUESTS_MAX} requests`);
if (failed) {
  console.error('the first load is larger than promised; split a chunk, or take a dependency out');
  process.exit(1);
}
