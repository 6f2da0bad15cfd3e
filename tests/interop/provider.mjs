// An OpenID provider on the loopback interface, based on `oidc-provider`. Every start generates new keys.
//
// PORT sets the port (default: a free one), CLIENT_JWK the public key of the client `keyed`. The first
// line of output is the URL. The client `svc` with the secret `s3cret` gets JWTs for the resources below
// by client credentials. The client `web` signs users in, refreshes and exchanges tokens. Every user who
// signs in is alice. Only the client `shared`, with the redirect URIs REDIRECT_URI and, after sign-out,
// POST_LOGOUT_REDIRECT_URI, asks for her password: `wonderland`. It is told of sign-outs at BACKCHANNEL_LOGOUT_URI, and
// with SID_IN_ACCESS_TOKENS, access tokens name the provider's session. The client `opaque` has the same redirect URI,
// and gets opaque access tokens. The client `encrypted` has the same URIs, and the key set at KEYS_URI: its tokens
// are encrypted for these keys. A sign-in with `acr_values` reaches `gold` and `silver`. `/counts` returns the number of successful grants by type. With ML_DSA, the provider also signs with ML-DSA, which needs Node.js 24.7 or later: the
// client `quantum` authenticates with the key CLIENT_JWK for ML-DSA-44, and gets ID tokens of ML-DSA-87.

import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createLocalJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const RESOURCES = {
  'https://scaiwave.example/rs256': { audience: 'scaiwave', alg: 'RS256' },
  'https://scaiwave.example/es256': { audience: 'scaiwave', alg: 'ES256' },
  'https://scaiwave.example/eddsa': { audience: 'scaiwave', alg: 'EdDSA' },
  'https://scaiwave.example/encrypted': { audience: 'scaiwave', alg: 'ES256', encrypted: true },
  'https://scaiwave.example/ml-dsa-65': { audience: 'scaiwave', alg: 'ML-DSA-65' },
  'https://scaiwave.example/opaque': { audience: 'scaiwave', accessTokenFormat: 'opaque' },
  'https://elsewhere.example': { audience: 'elsewhere', alg: 'RS256' },
  'https://elsewhere.example/opaque': { audience: 'elsewhere', accessTokenFormat: 'opaque' },
  'https://drive.example': { audience: 'scaidrive', alg: 'RS256' },
};
const ENCRYPTED_RESOURCE = 'https://scaiwave.example/encrypted';
const DEFAULT_RESOURCE = 'https://scaiwave.example/rs256';
const REDIRECT_URI = 'https://wave.example/v1/auth/login';
const ACR_VALUES = ['gold', 'silver'];
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:';

function key(type, options) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: randomUUID() };
}

const jwks = {
  keys: [
    key('rsa', { modulusLength: 2048 }),
    key('ec', { namedCurve: 'P-256' }),
    key('ed25519'),
  ],
};

const ML_DSA = process.env.ML_DSA ? ['ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87'] : [];
jwks.keys.push(...ML_DSA.map((name) => key(name.toLowerCase())));

const userClient = {
  grant_types: ['authorization_code', 'refresh_token', 'client_credentials', TOKEN_EXCHANGE],
  redirect_uris: [REDIRECT_URI],
  response_types: ['code'],
};

const clients = [
  {
    client_id: 'svc',
    client_secret: 's3cret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  },
  { ...userClient, client_id: 'web', client_secret: 'p+ss %w/o:rd&=x' },
  {
    ...userClient,
    client_id: 'posting',
    client_secret: 'p+ss %w/o:rd&=x',
    token_endpoint_auth_method: 'client_secret_post',
  },
  {
    ...userClient,
    client_id: 'public',
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'none',
  },
];
if (process.env.REDIRECT_URI) {
  clients.push({
    ...userClient,
    client_id: 'shared',
    client_secret: 's3cret',
    redirect_uris: [process.env.REDIRECT_URI],
    post_logout_redirect_uris: [process.env.POST_LOGOUT_REDIRECT_URI],
    ...(process.env.BACKCHANNEL_LOGOUT_URI && {
      backchannel_logout_uri: process.env.BACKCHANNEL_LOGOUT_URI,
      backchannel_logout_session_required: true,
    }),
  });
}
if (process.env.REDIRECT_URI) {
  clients.push({
    ...userClient,
    client_id: 'opaque',
    client_secret: 's3cret',
    redirect_uris: [process.env.REDIRECT_URI],
  });
}
if (process.env.KEYS_URI) {
  clients.push({
    ...userClient,
    client_id: 'encrypted',
    client_secret: 's3cret',
    redirect_uris: [process.env.REDIRECT_URI],
    post_logout_redirect_uris: [process.env.POST_LOGOUT_REDIRECT_URI],
    jwks_uri: process.env.KEYS_URI,
    id_token_encrypted_response_alg: 'ECDH-ES',
    id_token_encrypted_response_enc: 'A128CBC-HS256',
  });
}
if (ML_DSA.length) {
  clients.push({
    ...userClient,
    client_id: 'quantum',
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ML-DSA-44',
    id_token_signed_response_alg: 'ML-DSA-87',
    jwks: { keys: [JSON.parse(process.env.CLIENT_JWK)] },
  });
} else if (process.env.CLIENT_JWK) {
  clients.push({
    ...userClient,
    client_id: 'keyed',
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [JSON.parse(process.env.CLIENT_JWK)] },
  });
}

async function resourceServer(resource) {
  const { audience, alg, encrypted, accessTokenFormat = 'jwt' } = RESOURCES[resource] ?? {};
  if (!audience) throw new errors.InvalidTarget();
  return {
    audience,
    scope: 'admin docs:read',
    accessTokenFormat,
    jwt: { sign: { alg }, ...(encrypted && { encrypt: await encryption() }) },
  };
}

// The encryption for a service, with the key that it publishes.
async function encryption() {
  const { keys } = await (await fetch(process.env.KEYS_URI)).json();
  const jwk = keys.find(({ alg }) => alg.startsWith('RSA'));
  const key = createPublicKey({ key: jwk, format: 'jwk' });
  return { alg: jwk.alg, enc: 'A256CBC-HS512', kid: jwk.kid, key };
}
const SIGNATURES = ['RS256', 'ES256', 'EdDSA', ...ML_DSA];

const configuration = {
  jwks,
  enabledJWA: { idTokenSigningAlgValues: SIGNATURES, clientAuthSigningAlgValues: SIGNATURES },
  cookies: { keys: [randomUUID()] },
  clients,
  scopes: ['openid', 'offline_access', 'email', 'profile', 'admin', 'docs:read'],
  claims: { email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  acrValues: ACR_VALUES,
  // Access tokens say how and when the user signed in (RFC 9068, section 2.2.1).
  extraTokenClaims(ctx) {
    const { AuthorizationCode, RefreshToken } = ctx.oidc.entities;
    const { acr, authTime, sid } = AuthorizationCode ?? RefreshToken ?? {};
    const session = process.env.SID_IN_ACCESS_TOKENS ? { sid } : {};
    return { tenant_id: 'tenant-1', roles: ['docs_internal'], acr, auth_time: authTime, ...session };
  },
  async findAccount(_ctx, id) {
    const claims = { sub: id, name: 'Alice Smith', email: 'alice@example.com', email_verified: true };
    return { accountId: id, claims: async () => claims };
  },
  // Grants every requested scope without a consent page.
  async loadExistingGrant(ctx) {
    const { client, session, params } = ctx.oidc;
    if (!session.accountId) return undefined;
    const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope(params.scope);
    grant.addResourceScope(defaultResource(client.clientId), 'admin docs:read');
    await grant.save();
    return grant;
  },
  // Without the dispatcher, which refuses addresses of the loopback interface: the keys of the service are there.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    encryption: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    jwtIntrospection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_ctx, { clientId }) => defaultResource(clientId),
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => resourceServer(resource),
    },
  },
};

function defaultResource(clientId) {
  if (clientId === 'svc') return undefined;
  if (clientId === 'opaque') return 'https://scaiwave.example/opaque';
  return clientId === 'encrypted' ? ENCRYPTED_RESOURCE : DEFAULT_RESOURCE;
}

const AUDIENCES = { scaidrive: 'https://drive.example', scaiwave: DEFAULT_RESOURCE };

// A strict token exchange (RFC 8693): it rejects every parameter that it does not support.
function exchange(provider, issuer) {
  const keys = createLocalJWKSet({
    keys: jwks.keys.map(({ kty, crv, x, y, n, e, kid, use }) => ({ kty, crv, x, y, n, e, kid, use })),
  });
  const parameters = [
    'subject_token',
    'subject_token_type',
    'requested_token_type',
    'audience',
    'scope',
  ];
  const handler = async (ctx) => {
    const { client, params } = ctx.oidc;
    if (params.subject_token_type !== `${TOKEN_TYPE}access_token`) {
      throw new errors.InvalidRequest('subject_token_type');
    }
    if (params.requested_token_type !== `${TOKEN_TYPE}jwt`) {
      throw new errors.InvalidRequest('requested_token_type');
    }
    const resource = AUDIENCES[params.audience];
    if (!resource) throw new errors.InvalidTarget('no such audience');
    const subject = await jwtVerify(params.subject_token, keys, { issuer }).catch(() => {
      throw new errors.InvalidRequest('subject_token');
    });
    const token = new provider.AccessToken({
      accountId: subject.payload.sub,
      client,
      grantId: randomUUID(),
      gty: 'token_exchange',
      scope: params.scope ?? 'docs:read',
    });
    token.resourceServer = new provider.ResourceServer(resource, await resourceServer(resource));
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: `${TOKEN_TYPE}jwt`,
      token_type: 'Bearer',
      expires_in: token.expiration,
      scope: token.scope,
    };
  };
  provider.registerGrantType(TOKEN_EXCHANGE, handler, parameters, []);
}

const PASSWORD_PAGE = `<!doctype html><html lang="en"><title>Password</title>
<form method="post"><label>Password of alice <input id="password" name="password" type="password"></label>
<button>Sign in</button></form></html>`;

async function interact(provider, request, response) {
  const { params } = await provider.interactionDetails(request, response);
  if (params.client_id === 'shared') {
    let form = '';
    for await (const chunk of request) form += chunk;
    if (new URLSearchParams(form).get('password') !== 'wonderland') {
      response.setHeader('content-type', 'text/html').end(PASSWORD_PAGE);
      return;
    }
  }
  const acr = params.acr_values?.split(' ').find((value) => ACR_VALUES.includes(value));
  await provider.interactionFinished(request, response, { login: { accountId: 'alice', acr } });
}

const server = createServer();
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(url, configuration);
  exchange(provider, url);
  const counts = {};
  provider.on('grant.success', (ctx) => {
    const { grant_type: grant } = ctx.oidc.params;
    counts[grant] = (counts[grant] ?? 0) + 1;
  });
  const callback = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/counts') {
      response.end(JSON.stringify(counts));
    } else if (request.url.startsWith('/interaction/')) {
      interact(provider, request, response).catch((error) =>
        response.writeHead(500).end(String(error)),
      );
    } else {
      callback(request, response);
    }
  });
  console.log(url);
});
