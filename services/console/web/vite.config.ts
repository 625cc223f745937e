import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

// `npm run dev` shows these sources with the data of a running console, such as that of `agentforge dev`.
const console_ = process.env.CONSOLE_URL ?? 'http://127.0.0.1:5125';
const paths = ['/api', '/auth', '/admin', '/events', '/todos', '/be-health'];

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    // Nothing becomes a data: address, so that the policy of the page needs no exception.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    manifest: true,
    // The map's library is one file of about 1 MiB, which only the map loads; tools/size.mjs keeps the promise for the rest.
    chunkSizeWarningLimit: 1200,
    // What all pages share is one file, so that a page is few requests; charts and runbooks come when they are shown.
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [{ name: 'kit', test: /\/node_modules\/(svelte|clsx|esm-env)\/|\/src\/(api|lib|ui)\/(?!Chart|Runbook|Markdown|markdown|runbooks)|vite.*preload/ }],
        },
      },
    },
  },
  server: {
    port: 5173,
    strictPort: true,
    fs: { allow: ['../../..'] },
    proxy: Object.fromEntries(paths.map((path) => [path, { target: console_, changeOrigin: false }])),
  },
  test: { include: ['tests/unit/**/*.test.ts'], environment: 'node' },
});
