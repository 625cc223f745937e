// An OpenID provider for tests: https://github.com/panva/node-oidc-provider with two clients.
//
//   node provider.mjs PORT                   serves, and prints the issuer
//   node provider.mjs token ISSUER CLIENT    a token of a program, by client credentials
//   node provider.mjs login ISSUER           a token of a person, by the code flow with PKCE
//
// SIGUSR1 makes a new key and forgets the old one. What a token says is chosen by the client's name:
// "operators", "viewers", "strangers" (no role), "elsewhere" (another audience), "brief" (2 s), "scoped" (queue:a).
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import http from 'node:http';

const AUDIENCE = 'urn:agentforge';
const SECRET = 'a-secret-for-tests-only';
const CLIENTS = ['operators', 'viewers', 'strangers', 'elsewhere', 'brief', 'scoped'];
const REDIRECT = 'https://console.example/callback';

// Where the console takes its users back.
const CONSOLE = 'https://console.example/auth/oidc/callback';

const [first, issuer, client] = process.argv.slice(2);
if (first === 'token') console.log(await programToken(issuer, client));
else if (first === 'login') console.log(await personToken(issuer));
else await serve(Number(first));

async function serve(port) {
  const require = createRequire(`${process.env.OIDC_MODULES}/package.json`);
  const { Provider } = await import(require.resolve('oidc-provider'));
  let generation = 0;
  let handle;
  const server = http.createServer((request, response) => handle(request, response));
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  const renew = () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const key = { ...privateKey.export({ format: 'jwk' }), kid: `key-${++generation}`, alg: 'RS256', use: 'sig' };
    handle = provider(Provider, url, key);
  };
  renew();
  process.on('SIGUSR1', () => { renew(); console.log(`rotated ${generation}`); });
  process.on('SIGTERM', () => process.exit(0));
  console.log(url);
}

function provider(Provider, url, key) {
  const groups = (name) => ({ operators: ['af-operators'], brief: ['af-operators'], strangers: [] })[name] ?? ['af-viewers'];
  const made = new Provider(url, {
    jwks: { keys: [key] },
    clients: [
      ...CLIENTS.map((client_id) => ({
        client_id, client_secret: SECRET, grant_types: ['client_credentials'], response_types: [], redirect_uris: [],
      })),
      {
        client_id: 'console', token_endpoint_auth_method: 'none', application_type: 'web',
        grant_types: ['authorization_code'], response_types: ['code'], redirect_uris: [REDIRECT, CONSOLE],
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, __, client) => ({
          scope: 'use',
          audience: client.clientId === 'elsewhere' ? 'urn:elsewhere' : AUDIENCE,
          accessTokenFormat: 'jwt',
          accessTokenTTL: client.clientId === 'brief' ? 2 : 300,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    pkce: { required: () => true },
    extraTokenClaims: (_, token) => ({
      groups: token.accountId ? ['af-operators'] : groups(token.clientId),
      agentforge: { scopes: token.clientId === 'scoped' ? ['queue:a'] : ['*'] },
    }),
    findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: [randomBytes(16).toString('hex')] },
  });
  const answer = made.callback();
  return async (request, response) => {
    if (!request.url.startsWith('/interaction/')) return answer(request, response);
    // Who comes here is alice, and agrees.
    const { prompt, params } = await made.interactionDetails(request, response);
    if (prompt.name === 'login') {
      return made.interactionFinished(request, response, { login: { accountId: 'alice' } });
    }
    const grant = new made.Grant({ accountId: 'alice', clientId: params.client_id });
    grant.addOIDCScope('openid');
    grant.addResourceScope(AUDIENCE, 'use');
    return made.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
  };
}

async function asked(issuer, form, headers = {}) {
  const answer = await fetch(`${issuer}/token`, { method: 'POST', headers, body: new URLSearchParams(form) });
  const body = await answer.json();
  if (!body.access_token) throw new Error(JSON.stringify(body));
  return body.access_token;
}

async function programToken(issuer, client) {
  const authorization = `Basic ${Buffer.from(`${client}:${SECRET}`).toString('base64')}`;
  return asked(issuer, { grant_type: 'client_credentials', resource: AUDIENCE, scope: 'use' }, { authorization });
}

async function personToken(issuer) {
  const verifier = randomBytes(32).toString('base64url');
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const query = new URLSearchParams({
    client_id: 'console', response_type: 'code', redirect_uri: REDIRECT, scope: 'openid use', resource: AUDIENCE,
    code_challenge: challenge, code_challenge_method: 'S256',
  });
  const cookies = new Map();
  let at = `${issuer}/auth?${query}`;
  for (let step = 0; step < 10 && !at.startsWith(REDIRECT); step++) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(at, { redirect: 'manual', headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      cookies.set(name, value);
    }
    const next = answer.headers.get('location');
    if (!next) throw new Error(`${at} answered ${answer.status}: ${await answer.text()}`);
    at = new URL(next, at).href;
  }
  const code = new URL(at).searchParams.get('code');
  if (!code) throw new Error(`no code: ${at}`);
  return asked(issuer, {
    grant_type: 'authorization_code', client_id: 'console', code, redirect_uri: REDIRECT, code_verifier: verifier,
    resource: AUDIENCE,
  });
}
