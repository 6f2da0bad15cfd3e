// Writes `vectors.json`: encrypted tokens, each valid or with one fault.
//
//     cd tests/interop && npm ci && node ../standalone/jwe/vectors.mjs
//
// The npm package `jose` makes the valid tokens and signs the inner ones. The module `node:crypto` makes the
// tokens that `jose` refuses to write. Neither shares code with this crate. The keys are new in each run.
//
// Each group has a private key, and tests with a token for it. `result` is `valid` or `invalid`. `fault` says
// where an invalid token must be refused: `shape` (not five parts, or a part that is not base64url), `header`,
// `key` (no key of ours has this name), `opaque` (all of these must give the same error, because the difference
// would help an attacker), or `inner` (the token inside is not acceptable).

import {
  constants, createCipheriv, createECDH, createHash, createHmac, createPrivateKey, createPublicKey, diffieHellman,
  generateKeyPairSync, publicEncrypt, randomBytes,
} from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { deflateRawSync } from 'node:zlib';

const require = createRequire(`${process.cwd()}/`);
const { CompactEncrypt, CompactSign, compactDecrypt, FlattenedEncrypt, GeneralEncrypt, importJWK } =
  await import(require.resolve('jose'));

const ISSUER = 'https://id.example';
const b64 = (data) => Buffer.from(data).toString('base64url');
const bytes = (text) => Buffer.from(text, 'base64url');

// --- The inner token.

const signer = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const claims = {
  iss: ISSUER, sub: 'alice', aud: 'docs', iat: 1700000000, exp: 4102444800,
};
const sign = (payload, { header = {}, key = signer.privateKey } = {}) =>
  new CompactSign(Buffer.from(JSON.stringify(payload)))
    .setProtectedHeader({ alg: 'ES256', kid: 'signer', typ: 'at+jwt', ...header })
    .sign(key);
const inner = await sign(claims);

// --- Keys.

const EC = { 'P-256': 'prime256v1', 'P-384': 'secp384r1', 'P-521': 'secp521r1' };

function privateKey(alg, crv) {
  const pair = alg.startsWith('RSA')
    ? generateKeyPairSync('rsa', { modulusLength: 2048 })
    : crv === 'X25519'
      ? generateKeyPairSync('x25519')
      : generateKeyPairSync('ec', { namedCurve: crv });
  const kid = [alg, crv].filter(Boolean).join(' ');
  return { ...pair.privateKey.export({ format: 'jwk' }), use: 'enc', alg, kid };
}

const publicPart = ({ kty, crv, x, y, n, e }) =>
  Object.fromEntries(Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value));

// --- A writer of tokens that can break each rule.

const CONTENT = {
  A128GCM: { cek: 16, iv: 12 },
  A256GCM: { cek: 32, iv: 12 },
  'A128CBC-HS256': { cek: 32, iv: 16, hash: 'sha256', cipher: 'aes-128-cbc' },
  'A256CBC-HS512': { cek: 64, iv: 16, hash: 'sha512', cipher: 'aes-256-cbc' },
};

function encryptContent(enc, cek, iv, aad, plain, { padding = true } = {}) {
  const { hash, cipher } = CONTENT[enc];
  if (!hash) {
    const gcm = createCipheriv(`aes-${cek.length * 8}-gcm`, cek, iv);
    gcm.setAAD(aad);
    return { text: Buffer.concat([gcm.update(plain), gcm.final()]), tag: gcm.getAuthTag() };
  }
  const half = cek.length / 2;
  const cbc = createCipheriv(cipher, cek.subarray(half), iv);
  cbc.setAutoPadding(padding);
  const text = Buffer.concat([cbc.update(plain), cbc.final()]);
  const bits = Buffer.alloc(8);
  bits.writeUInt32BE(aad.length * 8, 4);
  const mac = createHmac(hash, cek.subarray(0, half)).update(aad).update(iv).update(text).update(bits);
  const full = mac.digest();
  return { text, tag: full.subarray(0, half), full };
}

function concatKdf(secret, length, algorithm, apu, apv) {
  const number = (value) => {
    const four = Buffer.alloc(4);
    four.writeUInt32BE(value);
    return four;
  };
  const prefixed = (data) => Buffer.concat([number(data.length), data]);
  const info = Buffer.concat([
    prefixed(Buffer.from(algorithm)), prefixed(apu), prefixed(apv), number(length * 8),
  ]);
  const out = [];
  for (let round = 1; out.length * 32 < length; round += 1) {
    out.push(createHash('sha256').update(number(round)).update(secret).update(info).digest());
  }
  return Buffer.concat(out).subarray(0, length);
}

function wrap(kek, cek) {
  const cipher = createCipheriv(`id-aes${kek.length * 8}-wrap`, kek, Buffer.alloc(8, 0xa6));
  return Buffer.concat([cipher.update(cek), cipher.final()]);
}

// `options` replaces what the text below computes.
function write(key, enc, options = {}) {
  const { alg } = key;
  const content = CONTENT[enc];
  const header = { alg, enc, kid: key.kid, cty: 'JWT' };
  let { cek } = options;
  let encryptedKey = Buffer.alloc(0);
  if (alg.startsWith('RSA')) {
    cek ??= randomBytes(content.cek);
    const padding = options.rsaPadding ?? constants.RSA_PKCS1_OAEP_PADDING;
    const oaepHash = alg === 'RSA-OAEP' ? 'sha1' : 'sha256';
    const to = createPublicKey({ key: publicPart(key), format: 'jwk' });
    encryptedKey = publicEncrypt({ key: to, padding, ...(options.rsaPadding ? {} : { oaepHash }) }, cek);
  } else {
    const { apu = Buffer.alloc(0), apv = Buffer.alloc(0) } = options;
    const pair = options.ephemeral ?? ephemeral(key.crv);
    header.epk = publicPart(pair.export({ format: 'jwk' }));
    const publicKey = createPublicKey({ key: publicPart(key), format: 'jwk' });
    const secret = diffieHellman({ privateKey: pair, publicKey });
    if (apu.length) header.apu = b64(apu);
    if (apv.length) header.apv = b64(apv);
    if (alg === 'ECDH-ES') {
      cek = concatKdf(secret, content.cek, enc, apu, apv);
    } else {
      cek ??= randomBytes(content.cek);
      const length = Number(/A(\d+)KW/.exec(alg)[1]) / 8;
      encryptedKey = wrap(concatKdf(secret, length, alg, apu, apv), cek);
    }
  }
  let text = JSON.stringify({ ...header, ...options.header });
  text = options.rewrite?.(text) ?? text;
  const first = options.encodeHeader?.(text) ?? b64(text);
  const iv = options.iv ?? randomBytes(content.iv);
  const plain = Buffer.from(options.plain ?? inner);
  const { text: body, tag, full } = encryptContent(enc, cek, iv, Buffer.from(first), plain, options);
  const parts = { header: first, key: encryptedKey, iv, text: body, tag, full };
  Object.assign(parts, options.parts?.(parts));
  return [parts.header, b64(parts.key), b64(parts.iv), b64(parts.text), b64(parts.tag)].join('.');
}

function ephemeral(crv, is = () => true) {
  for (;;) {
    const pair = crv === 'X25519' ? generateKeyPairSync('x25519') : generateKeyPairSync('ec', { namedCurve: crv });
    if (is(pair.privateKey)) return pair.privateKey;
  }
}

const flip = (data, at = 0) => {
  const copy = Buffer.from(data);
  copy[at < 0 ? copy.length + at : at] ^= 1;
  return copy;
};

// --- The groups.

const groups = [];
let number = 0;

function group(key) {
  const tests = [];
  groups.push({ key, tests });
  const add = (result, fault) => (comment, jwe) => {
    number += 1;
    tests.push({ id: number, comment, jwe, result, ...(fault && { fault }) });
  };
  const invalid = (fault) => add('invalid', fault);
  return {
    valid: add('valid'), shape: invalid('shape'), header: invalid('header'), key: invalid('key'),
    opaque: invalid('opaque'), inner: invalid('inner'),
  };
}

async function byJose(key, enc, header = {}, parameters, plain = inner) {
  const encrypt = new CompactEncrypt(Buffer.from(plain))
    .setProtectedHeader({ alg: key.alg, enc, kid: key.kid, cty: 'JWT', ...header });
  if (parameters) encrypt.setKeyManagementParameters(parameters);
  return encrypt.encrypt(await importJWK(publicPart(key), key.alg));
}

const ALGORITHMS = [
  ['RSA-OAEP'], ['RSA-OAEP-256'],
  ...['ECDH-ES', 'ECDH-ES+A128KW', 'ECDH-ES+A256KW'].flatMap((alg) =>
    ['P-256', 'P-384', 'X25519'].map((crv) => [alg, crv])),
];

for (const [alg, crv] of ALGORITHMS) {
  const key = privateKey(alg, crv);
  const is = group(key);
  for (const enc of Object.keys(CONTENT)) {
    is.valid(`jose, ${enc}`, await byJose(key, enc));
    const own = write(key, enc);
    await compactDecrypt(own, await importJWK(key, alg));
    is.valid(`node:crypto, ${enc}`, own);
  }
  const { kid } = key;
  const enc = alg.endsWith('A128KW') ? 'A128CBC-HS256' : 'A256GCM';
  if (crv) agreement(is, key, enc);
  else transport(is, key, enc);
  // The curve matters for the agreement only.
  if (crv && crv !== 'P-256') continue;
  common(is, key, enc);
  if (alg !== 'ECDH-ES') wrapped(is, key, enc);
  if (['RSA-OAEP-256', 'ECDH-ES+A128KW P-256'].includes(kid)) headers(is, key, enc);
}

// Faults that do not depend on the curve.
function common(is, key, enc) {
  const { kid } = key;
  is.key('kid of no key', write(key, enc, { header: { kid: `${kid}?` } }));
  is.key('kid empty', write(key, enc, { header: { kid: '' } }));
  const parts = (change, options = {}) => write(key, enc, { ...options, parts: change });
  const text = write(key, enc);
  is.shape('four parts', text.slice(0, text.lastIndexOf('.')));
  is.shape('six parts', `${text}.AA`);
  is.shape('header empty', text.slice(text.indexOf('.')));
  is.shape('padding after the tag', `${text}==`);
  is.shape('line break in the ciphertext', text.replace(/\.([^.]{4})([^.]+)\.([^.]*)$/, '.$1\n$2.$3'));
  for (const [name, at] of [['first', 0], ['middle', 20], ['last', -1]]) {
    is.opaque(`${name} byte of the ciphertext altered`, parts((it) => ({ text: flip(it.text, at) })));
  }
  for (const [name, at] of [['first', 0], ['last', -1]]) {
    is.opaque(`${name} byte of the tag altered`, parts((it) => ({ tag: flip(it.tag, at) })));
    is.opaque(`${name} byte of the IV altered`, parts((it) => ({ iv: flip(it.iv, at) })));
  }
  for (const length of [15, 12, 8, 4, 1, 0]) {
    is.opaque(`tag of ${length} bytes`, parts((it) => ({ tag: it.tag.subarray(0, length) })));
  }
  is.opaque('tag with one more byte', parts((it) => ({ tag: Buffer.concat([it.tag, Buffer.alloc(1)]) })));
  is.opaque('tag of zeros', parts((it) => ({ tag: Buffer.alloc(it.tag.length) })));
  is.opaque('IV with one byte less', parts((it) => ({ iv: it.iv.subarray(1) })));
  is.opaque('IV with one more byte', parts((it) => ({ iv: Buffer.concat([it.iv, Buffer.alloc(1)]) })));
  is.opaque('IV empty', parts(() => ({ iv: Buffer.alloc(0) })));
  is.opaque('ciphertext empty', parts(() => ({ text: Buffer.alloc(0) })));
  is.opaque('ciphertext with one byte less', parts((it) => ({ text: it.text.subarray(0, -1) })));
  is.opaque('ciphertext with one more byte', parts((it) => ({ text: Buffer.concat([it.text, Buffer.alloc(1)]) })));
  is.opaque('header written in another way', parts((it) => ({ header: b64(` ${bytes(it.header)}`) })));
  if (CONTENT[enc].hash) {
    is.opaque('whole MAC as tag', parts((it) => ({ tag: it.full })));
    is.opaque('one block less', parts((it) => ({ text: it.text.subarray(0, -16) })));
    is.opaque('last block altered', parts((it) => ({ text: flip(it.text, -17) })));
    const blocks = (plain, last) => {
      const padded = Buffer.concat([plain, Buffer.alloc(16 - (plain.length % 16))]);
      padded[padded.length - 1] = last;
      return padded;
    };
    for (const last of [0, 17, 255]) {
      const plain = blocks(Buffer.from(inner), last);
      is.opaque(`good MAC over padding that ends with ${last}`, write(key, enc, { plain, padding: false }));
    }
    const block = Buffer.concat([Buffer.alloc(15, 7), Buffer.from([2])]);
    is.opaque('good MAC over padding of two different bytes', write(key, enc, { plain: block, padding: false }));
  }
  const other = key.alg.startsWith('RSA')
    ? { 'RSA-OAEP': 'RSA-OAEP-256', 'RSA-OAEP-256': 'RSA-OAEP' }[key.alg]
    : { 'ECDH-ES': 'ECDH-ES+A128KW', 'ECDH-ES+A128KW': 'ECDH-ES+A256KW', 'ECDH-ES+A256KW': 'ECDH-ES' }[key.alg];
  is.key(`${other} for this key`, write({ ...key, alg: other }, enc));
  is.opaque('encrypted for another key with this kid', write({ ...privateKey(key.alg, key.crv), kid: key.kid }, enc));
  is.opaque('the tag of another token', `${text.slice(0, text.lastIndexOf('.'))}.${write(key, enc).split('.')[4]}`);
}

// Headers, whose rules do not depend on the algorithm.
function headers(is, key, enc) {
  const header = (members, options = {}) => write(key, enc, { ...options, header: members });
  is.valid('kid absent', header({ kid: undefined }));
  is.valid('typ JWT', header({ typ: 'JWT' }));
  is.valid('unknown members', header({ note: { a: [1] }, iss: 'https://elsewhere.example' }));
  for (const cty of ['JWT', 'jwt', 'Jwt', 'at+jwt']) is.valid(`cty ${cty}`, header({ cty }));
  for (const alg of ['RSA1_5', 'dir', 'A128KW', 'A256KW', 'A128GCMKW', 'A256GCMKW', 'RSA-OAEP-384', 'RSA-OAEP-512',
    'ECDH-ES+A192KW', 'none', 'ES256', key.alg.toLowerCase(), '', 7, null]) {
    is.header(`alg ${alg}`, header({ alg }));
  }
  const pbes2 = { alg: 'PBES2-HS256+A128KW', p2s: b64('salt'), p2c: 2 ** 31 };
  is.header('PBES2 with two thousand million rounds', header(pbes2));
  is.header('alg absent', header({ alg: undefined }));
  is.header('alg ECDH-1PU', header({ alg: 'ECDH-1PU' }));
  for (const other of ['A128CTR', 'A128CBC', 'XC20P', enc.toLowerCase(), '', 7, null]) {
    is.header(`enc ${other}`, header({ enc: other }));
  }
  is.header('enc absent', header({ enc: undefined }));
  is.header('zip DEF, compressed', header({ zip: 'DEF' }, { plain: deflateRawSync(inner) }));
  for (const zip of ['DEF', 'none', '', null]) is.header(`zip ${zip}`, header({ zip }));
  for (const crit of [['exp'], [], ['zip'], 'exp', null]) {
    is.header(`crit ${JSON.stringify(crit)}`, header({ crit, exp: 4102444800 }));
  }
  for (const cty of ['JSON', 'JWE', 'text/jwt', '', 7, null]) is.header(`cty ${cty}`, header({ cty }));
  is.header('cty absent', header({ cty: undefined }));
  is.header('kid a number', header({ kid: 7 }));
  is.header('kid null', header({ kid: null }));
  is.header('kid of 257 characters', header({ kid: 'k'.repeat(257) }));
  is.header('kid twice', write(key, enc, { rewrite: (it) => it.replace('{', '{"kid":"other",') }));
  is.header('alg twice', write(key, enc, { rewrite: (it) => it.replace('{', '{"alg":"dir",') }));
  is.header('header with a byte order mark', write(key, enc, { rewrite: (it) => `\ufeff${it}` }));
  is.header('header in a list', write(key, enc, { rewrite: (it) => `[${it}]` }));
  is.header('text after the header', write(key, enc, { rewrite: (it) => `${it}{}` }));
  is.header('header of more than 4 KiB', header({ note: 'x'.repeat(4096) }));
  is.shape('header with padding', write(key, enc, { encodeHeader: (it) => `${b64(it)}=` }));
}

// Faults of a wrapped content key.
function wrapped(is, key, enc) {
  const parts = (change) => write(key, enc, { parts: change });
  for (const [name, at] of [['first', 0], ['last', -1]]) {
    is.opaque(`${name} byte of the encrypted key altered`, parts((it) => ({ key: flip(it.key, at) })));
  }
  is.opaque('encrypted key empty', parts(() => ({ key: Buffer.alloc(0) })));
  is.opaque('encrypted key with one byte less', parts((it) => ({ key: it.key.subarray(1) })));
  is.opaque('encrypted key with one more byte', parts((it) => ({ key: Buffer.concat([it.key, Buffer.alloc(1)]) })));
  // The tag is good: the content key has a length that the header does not allow.
  const good = CONTENT[enc].cek;
  const shorter = good === 64 ? 32 : good === 32 ? 16 : undefined;
  if (shorter && !CONTENT[enc].hash) {
    is.opaque('content key of half the length', write(key, enc, { cek: randomBytes(shorter) }));
  }
  for (const length of [good - 8, good + 8, 24].filter((it, at, all) => it !== good && all.indexOf(it) === at)) {
    is.opaque(`content key of ${length} bytes`, write(key, enc, {
      cek: randomBytes(good), parts: () => ({ key: rewrap(key, length) }),
    }));
  }
}

// The encrypted key of another content key.
function rewrap(key, length) {
  return bytes(write(key, 'A128GCM', {
    cek: randomBytes(16),
    parts: (it) => (key.alg.startsWith('RSA')
      ? { key: publicEncrypt({
        key: createPublicKey({ key: publicPart(key), format: 'jwk' }),
        oaepHash: key.alg === 'RSA-OAEP' ? 'sha1' : 'sha256',
        padding: constants.RSA_PKCS1_OAEP_PADDING,
      }, randomBytes(length)) }
      : { key: wrap(randomBytes(16), randomBytes(length)) }),
  }).split('.')[1]);
}

// Faults of RSA.
function transport(is, key, enc) {
  const oaepHash = key.alg === 'RSA-OAEP' ? 'sha256' : 'sha1';
  const to = createPublicKey({ key: publicPart(key), format: 'jwk' });
  const parts = (data) => write(key, enc, { parts: () => ({ key: data }) });
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  const cek = randomBytes(CONTENT[enc].cek);
  const withKey = (encryptedKey) => write(key, enc, { cek, parts: () => ({ key: encryptedKey }) });
  is.opaque(`OAEP with ${oaepHash}`, withKey(publicEncrypt({ key: to, padding, oaepHash }, cek)));
  is.opaque('OAEP with a label', withKey(publicEncrypt({
    key: to, padding, oaepHash: key.alg === 'RSA-OAEP' ? 'sha1' : 'sha256', oaepLabel: Buffer.from('label'),
  }, cek)));
  is.opaque('PKCS #1 v1.5 padding', withKey(publicEncrypt({ key: to, padding: constants.RSA_PKCS1_PADDING }, cek)));
  is.opaque('encrypted key 0', parts(Buffer.alloc(256)));
  is.opaque('encrypted key 1', parts(Buffer.concat([Buffer.alloc(255), Buffer.from([1])])));
  is.opaque('encrypted key equal to the modulus', parts(bytes(key.n)));
  is.opaque('encrypted key above the modulus', parts(Buffer.alloc(256, 0xff)));
}

// Faults of a key agreement.
function agreement(is, key, enc) {
  const { crv, alg } = key;
  const secretOf = (pair) =>
    diffieHellman({ privateKey: pair, publicKey: createPublicKey({ key: publicPart(key), format: 'jwk' }) });
  const apu = Buffer.from('Alice');
  const apv = Buffer.from('Bob');
  is.valid('apu and apv', write(key, enc, { apu, apv }));
  is.valid('apu only', write(key, enc, { apu }));
  is.valid('apv only', write(key, enc, { apv }));
  is.valid('apu and apv empty', write(key, enc, { header: { apu: '', apv: '' } }));
  is.valid('apu and apv of all byte values', write(key, enc, { apu: Buffer.from([...Array(128).keys()]), apv: Buffer.from([0, 255]) }));
  is.opaque('apu not part of the derivation', write(key, enc, { header: { apu: b64(apu) } }));
  is.opaque('apu and apv exchanged', write(key, enc, { apu, apv, header: { apu: b64(apv), apv: b64(apu) } }));
  for (const name of ['apu', 'apv']) {
    is.header(`${name} a number`, write(key, enc, { header: { [name]: 7 } }));
    is.header(`${name} null`, write(key, enc, { header: { [name]: null } }));
    is.header(`${name} not base64url`, write(key, enc, { header: { [name]: 'a+b=' } }));
    is.header(`${name} of 1 KiB`, write(key, enc, { [name]: Buffer.alloc(1024, 7) }));
  }
  const epk = (change, options = {}) => {
    const pair = options.ephemeral ?? ephemeral(crv);
    const good = publicPart(pair.export({ format: 'jwk' }));
    return write(key, enc, { ephemeral: pair, header: { epk: change(good) } });
  };
  is.header('epk absent', epk(() => undefined));
  is.header('epk null', epk(() => null));
  is.header('epk a text', epk((it) => JSON.stringify(it)));
  is.header('epk without x', epk(({ x, ...rest }) => rest));
  is.header('epk without crv', epk(({ crv: _, ...rest }) => rest));
  is.header('epk without kty', epk(({ kty, ...rest }) => rest));
  is.header('epk with x a number', epk((it) => ({ ...it, x: 7 })));
  is.header('epk with x not base64url', epk((it) => ({ ...it, x: `${it.x}=` })));
  for (const wrong of ['P-256', 'P-384', 'P-521', 'X25519', 'Ed25519'].filter((it) => it !== crv)) {
    is.header(`epk that names ${wrong}`, epk((it) => ({ ...it, crv: wrong })));
    const foreign = () => publicPart((wrong === 'Ed25519' ? generateKeyPairSync('ed25519')
      : wrong === 'X25519' ? generateKeyPairSync('x25519')
        : generateKeyPairSync('ec', { namedCurve: wrong })).publicKey.export({ format: 'jwk' }));
    is.header(`epk on ${wrong}`, epk(foreign));
  }
  is.header('epk with another kty', epk((it) => ({ ...it, kty: it.kty === 'EC' ? 'OKP' : 'EC' })));
  if (alg === 'ECDH-ES') {
    is.opaque('encrypted key not empty', write(key, enc, { parts: () => ({ key: Buffer.alloc(24, 7) }) }));
    is.opaque('encrypted key of one byte', write(key, enc, { parts: () => ({ key: Buffer.alloc(1) }) }));
  }
  const leading = (pair) => secretOf(pair)[0] === 0;
  is.valid('shared secret that begins with 0', write(key, enc, { ephemeral: ephemeral(crv, leading) }));
  if (crv === 'X25519') {
    const low = {
      'the point 0': Buffer.alloc(32),
      'the point 1': Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]),
      'a point of order 8': Buffer.from('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800', 'hex'),
      'another point of order 8': Buffer.from('5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157', 'hex'),
      'the point p - 1': Buffer.from('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f', 'hex'),
      'the point p': Buffer.from('edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f', 'hex'),
    };
    // The shared secret of such a point is 0, whatever the private key is: the token is otherwise good.
    for (const [name, x] of Object.entries(low)) is.opaque(`epk ${name}`, lowOrder(key, enc, x));
    is.header('epk of 31 bytes', epk((it) => ({ ...it, x: b64(bytes(it.x).subarray(1)) })));
    is.header('epk of 33 bytes', epk((it) => ({ ...it, x: b64(Buffer.concat([bytes(it.x), Buffer.alloc(1)])) })));
    return;
  }
  const zero = (name) => ephemeral(crv, (pair) => bytes(pair.export({ format: 'jwk' })[name])[0] === 0);
  const size = bytes(key.x).length;
  for (const name of ['x', 'y']) {
    const pair = zero(name);
    is.valid(`epk with ${name} that begins with 0`, write(key, enc, { ephemeral: pair }));
    const cut = (it) => ({ ...it, [name]: b64(bytes(it[name]).subarray(1)) });
    is.header(`epk with ${name} that lacks its leading 0`, epk(cut, { ephemeral: pair }));
    const longer = (it) => ({ ...it, [name]: b64(Buffer.concat([Buffer.alloc(1), bytes(it[name])])) });
    is.header(`epk with one more 0 before ${name}`, epk(longer));
    is.opaque(`epk off the curve, ${name} altered`, epk((it) => ({ ...it, [name]: b64(flip(bytes(it[name]), -1)) })));
    is.opaque(`epk with ${name} above the prime`, epk((it) => ({ ...it, [name]: b64(Buffer.alloc(size, 0xff)) })));
  }
  is.header('epk without y', epk(({ y, ...rest }) => rest));
  is.opaque('epk 0, 0', epk((it) => ({ ...it, x: b64(Buffer.alloc(size)), y: b64(Buffer.alloc(size)) })));
}

function lowOrder(key, enc, x) {
  const zeros = Buffer.alloc(32);
  const none = Buffer.alloc(0);
  const length = Number(/A(\d+)KW/.exec(key.alg)?.[1] ?? 0) / 8;
  const cek = length ? randomBytes(CONTENT[enc].cek) : concatKdf(zeros, CONTENT[enc].cek, enc, none, none);
  const header = b64(JSON.stringify({
    alg: key.alg, enc, kid: key.kid, cty: 'JWT', epk: { kty: 'OKP', crv: 'X25519', x: b64(x) },
  }));
  const iv = randomBytes(CONTENT[enc].iv);
  const { text, tag } = encryptContent(enc, cek, iv, Buffer.from(header), Buffer.from(inner));
  const encryptedKey = length ? wrap(concatKdf(zeros, length, key.alg, none, none), cek) : none;
  return [header, b64(encryptedKey), b64(iv), b64(text), b64(tag)].join('.');
}

// A key with a coordinate and a private number that begin with 0.
for (const name of ['x', 'y', 'd']) {
  let key;
  do key = privateKey('ECDH-ES', 'P-256'); while (bytes(key[name])[0] !== 0);
  key.kid = `${name} begins with 0`;
  group(key).valid(`our ${name} begins with 0`, await byJose(key, 'A128GCM'));
}

// Contents that are no acceptable token.
{
  const key = privateKey('ECDH-ES', 'P-256');
  key.kid = 'contents';
  const is = group(key);
  const put = (plain, header = {}) => write(key, 'A256GCM', { plain, header });
  is.valid('the same token as in the faults below', put(inner));
  is.inner('empty', put(''));
  is.inner('claims without signature', put(JSON.stringify(claims)));
  is.inner('alg none', put(`${b64('{"alg":"none"}')}.${b64(JSON.stringify(claims))}.`));
  is.inner('a JWE', put(put(inner)));
  is.inner('a JWE of five empty parts', put('....'));
  is.inner('two parts', put(inner.slice(0, inner.lastIndexOf('.'))));
  is.inner('a space before the token', put(` ${inner}`));
  is.inner('a line break after the token', put(`${inner}\n`));
  is.inner('signed by another key', put(await sign(claims, { key: other.privateKey })));
  is.inner('expired', put(await sign({ ...claims, exp: 1700000100 })));
  is.inner('another issuer', put(await sign({ ...claims, iss: 'https://elsewhere.example' })));
  is.inner('another audience', put(await sign({ ...claims, aud: 'mail' })));
  is.inner('an ID token', put(await sign({ ...claims, nonce: 'n', at_hash: 'h' }, { header: { typ: 'JWT' } })));
  is.inner('no audience; the header names it', put(await sign({ ...claims, aud: undefined }), { aud: 'docs' }));
  is.inner('the inner token has a cty', put(await sign(claims, { header: { cty: 'JWT' } })));
  is.inner('more than 16 KiB', put(await sign({ ...claims, note: 'x'.repeat(13000) })));
  is.inner('bytes that are no text', put(Buffer.from([0xff, 0xfe, 0x2e, 0x2e])));
  const publicKey = await importJWK(publicPart(key), key.alg);
  const members = { alg: key.alg, enc: 'A256GCM', kid: key.kid, cty: 'JWT' };
  const json = await new FlattenedEncrypt(Buffer.from(inner)).setProtectedHeader(members).encrypt(publicKey);
  is.shape('longer than 32 KiB', put(Buffer.alloc(32 * 1024, 'a')));
  is.shape('flattened JSON serialisation', JSON.stringify(json));
  const general = new GeneralEncrypt(Buffer.from(inner)).setProtectedHeader({ enc: 'A256GCM', cty: 'JWT' });
  general.addRecipient(publicKey).setUnprotectedHeader({ alg: key.alg, kid: key.kid });
  is.shape('general JSON serialisation', JSON.stringify(await general.encrypt()));
}

const file = new URL('vectors.json', import.meta.url);
const head = {
  issuer: ISSUER, audience: 'docs', subject: 'alice',
  signer: { ...signer.publicKey.export({ format: 'jwk' }), kid: 'signer', alg: 'ES256', use: 'sig' },
};
const lines = groups.map(({ key, tests }) =>
  ` {"key": ${JSON.stringify(key)}, "tests": [\n  ${tests.map((test) => JSON.stringify(test)).join(',\n  ')}\n ]}`);
writeFileSync(file, `{"issuer": ${JSON.stringify(head)},\n"groups": [\n${lines.join(',\n')}\n]}\n`);
console.log(`${number} tests in ${groups.length} groups`);
