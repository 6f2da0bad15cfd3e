// Signs and verifies tokens with ML-DSA (RFC 9964) by `jose`. Needs Node.js 24.7 or later.
//
// Reads a JSON object from the standard input: `issuer`, `jwks_uri` and `tokens` to verify, `claims` to sign, and
// `jwk`s to compute the thumbprints of. Writes one with the results.

import { text } from 'node:stream/consumers';
import {
  calculateJwkThumbprint,
  createRemoteJWKSet,
  exportJWK,
  exportPKCS8,
  exportSPKI,
  generateKeyPair,
  jwtVerify,
  SignJWT,
} from 'jose';

const { issuer, jwks_uri: uri, tokens, claims, jwks } = JSON.parse(await text(process.stdin));

const keys = createRemoteJWKSet(new URL(uri));
const verified = tokens.map((token) => jwtVerify(token, keys, { issuer, audience: 'scaiwave' }));
const outcomes = verified.map((it) => it.then(({ payload }) => payload.sub, ({ code }) => code));

const signed = ['ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87'].map(async (alg) => {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const header = { alg, kid: alg };
  return {
    jwk: { ...(await exportJWK(publicKey)), kid: alg, use: 'sig' },
    public_pem: await exportSPKI(publicKey),
    private_pem: await exportPKCS8(privateKey),
    token: await new SignJWT(claims).setProtectedHeader(header).sign(privateKey),
  };
});

console.log(
  JSON.stringify({
    verified: await Promise.all(outcomes),
    signed: await Promise.all(signed),
    thumbprints: await Promise.all(jwks.map((jwk) => calculateJwkThumbprint(jwk))),
  }),
);
