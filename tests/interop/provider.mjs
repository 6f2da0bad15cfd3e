// An OpenID provider on the loopback interface, made of `oidc-provider`. Every start makes new keys.
//
// PORT sets the port (default: a free one); its URL is the first line it prints. The client `svc`
// with the secret `s3cret` gets JWTs for the resources below by client credentials.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const RESOURCES = {
  'https://scaiwave.example/rs256': { audience: 'scaiwave', alg: 'RS256' },
  'https://scaiwave.example/es256': { audience: 'scaiwave', alg: 'ES256' },
  'https://scaiwave.example/eddsa': { audience: 'scaiwave', alg: 'EdDSA' },
  'https://elsewhere.example': { audience: 'elsewhere', alg: 'RS256' },
};

function key(type, options) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: randomUUID() };
}

const configuration = {
  jwks: {
    keys: [
      key('rsa', { modulusLength: 2048 }),
      key('ec', { namedCurve: 'P-256' }),
      key('ed25519'),
    ],
  },
  cookies: { keys: [randomUUID()] },
  clients: [
    {
      client_id: 'svc',
      client_secret: 's3cret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  scopes: ['admin', 'docs:read'],
  extraTokenClaims: () => ({ tenant_id: 'tenant-1', roles: ['docs_internal'] }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(_ctx, resource) {
        const { audience, alg } = RESOURCES[resource];
        return {
          audience,
          scope: 'admin docs:read',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg } },
        };
      },
    },
  },
};

const server = createServer();
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  server.on('request', new Provider(url, configuration).callback());
  console.log(url);
});
