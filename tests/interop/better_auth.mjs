// Better Auth with its OAuth provider on a free port of the loopback interface. Every start generates a new
// key.
//
// REDIRECT_URI is the redirect URI of the public client `app`. The first line of output is the issuer. The
// client `worker` with the secret `s3cret` gets tokens by client credentials. A token is a JWT if the request
// names a resource, which becomes its audience. The user alice@wave.example has the password `wonderland-42`.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { oauthProvider } from '@better-auth/oauth-provider';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { toNodeHandler } from 'better-auth/node';
import { jwt } from 'better-auth/plugins';

// The page is the application's own part. It passes the parameters of the sign-in on.
const SIGN_IN_PAGE = `<!doctype html><title>Sign in</title><h1>Sign in with an e-mail address</h1>
<form><input id="email" name="email"><input id="password" name="password" type="password"><button>Go</button></form>
<script>
document.forms[0].onsubmit = async (event) => {
  event.preventDefault();
  const { email, password } = Object.fromEntries(new FormData(event.target));
  const answer = await fetch('/api/auth/sign-in/email', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password, oauth_query: location.search.slice(1) }),
  });
  location = (await answer.json()).url;
};
</script>`;

const TABLES = [
  'account', 'jwks', 'oauthAccessToken', 'oauthClient', 'oauthClientAssertion', 'oauthClientResource',
  'oauthConsent', 'oauthRefreshToken', 'oauthResource', 'session', 'user', 'verification',
];

function provider(baseURL) {
  const ids = ['worker', 'app'];
  return betterAuth({
    baseURL,
    secret: randomUUID(),
    telemetry: { enabled: false },
    database: memoryAdapter(Object.fromEntries(TABLES.map((table) => [table, []]))),
    emailAndPassword: { enabled: true },
    disabledPaths: ['/token'],
    plugins: [
      jwt(),
      oauthProvider({
        loginPage: '/sign-in',
        consentPage: '/consent',
        scopes: ['openid', 'profile', 'email', 'offline_access', 'docs:read'],
        resources: ['https://wave.example', 'https://drive.example'],
        enforcePerClientResources: false,
        customAccessTokenClaims: ({ user }) => ({ org: 'tenant-1', name: user?.name }),
        clientPrivileges: () => true,
        generateClientId: () => ids.shift(),
        generateClientSecret: () => 's3cret',
      }),
    ],
  });
}

async function register({ api }) {
  const alice = { name: 'Alice Smith', email: 'alice@wave.example', password: 'wonderland-42' };
  const { headers } = await api.signUpEmail({ body: alice, returnHeaders: true });
  const administrator = { cookie: headers.get('set-cookie').split(';')[0] };
  const client = (body) => api.adminCreateOAuthClient({ headers: new Headers(administrator), body });
  await client({
    client_name: 'worker',
    redirect_uris: ['https://wave.example/unused'],
    grant_types: ['client_credentials'],
    scope: 'docs:read',
    client_credentials_scopes: ['docs:read'],
  });
  await client({
    client_name: 'app',
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    redirect_uris: [process.env.REDIRECT_URI],
    grant_types: ['authorization_code', 'refresh_token'],
    scope: 'openid profile email offline_access',
    skip_consent: true,
  });
}

const server = createServer();
server.listen(0, '127.0.0.1', async () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const auth = provider(url);
  const handler = toNodeHandler(auth);
  server.on('request', (request, response) => {
    if (request.url.startsWith('/sign-in')) {
      response.writeHead(200, { 'content-type': 'text/html' }).end(SIGN_IN_PAGE);
    } else {
      handler(request, response);
    }
  });
  await register(auth);
  console.log(`${url}/api/auth`);
});
