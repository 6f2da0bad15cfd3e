-- `key`: issuer, tenant, kind and subject as JSON. Users are found by nothing else, least of all by address.
CREATE TABLE users (
    id         INTEGER PRIMARY KEY,
    key        TEXT NOT NULL UNIQUE,
    name       TEXT,
    email      TEXT,
    sign_ins   INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
);
CREATE TABLE notes (user INTEGER NOT NULL REFERENCES users (id), text TEXT NOT NULL);
