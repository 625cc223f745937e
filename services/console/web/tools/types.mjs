// Writes the types of our REST APIs from the OpenAPI documents of the repository to src/api/types.
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import openapiTS, { astToString } from 'openapi-typescript';

const documents = { orchestrator: 'openapi', broadcaster: 'openapi-broadcaster', tactical: 'openapi-tactical-api' };
const docs = new URL('../../../../docs/', import.meta.url);
const types = new URL('../src/api/types/', import.meta.url);
await mkdir(types, { recursive: true });
for (const [name, document] of Object.entries(documents)) {
  const source = new URL(`${document}.json`, docs);
  const target = new URL(`${name}.d.ts`, types);
  const fresh = await stat(target).then(async (there) => there.mtimeMs > (await stat(source)).mtimeMs, () => false);
  if (fresh) continue;
  const text = astToString(await openapiTS(JSON.parse(await readFile(source, 'utf8')), { emptyObjectsUnknown: true }));
  await writeFile(target, text);
  process.stderr.write(`types of ${document}.json: ${fileURLToPath(target)}\n`);
}
