-- The tables of the example `axum_service`. A real service has migrations, and gets its rows elsewhere.
CREATE TABLE IF NOT EXISTS workspaces (
    id uuid PRIMARY KEY, -- the tenant claim of the tokens
    name text NOT NULL,
    suspended boolean NOT NULL DEFAULT FALSE
);

CREATE TABLE IF NOT EXISTS notes (
    id bigserial PRIMARY KEY,
    workspace uuid NOT NULL REFERENCES workspaces,
    author text NOT NULL, -- the subject of the token; with several issuers, store the issuer too
    text text NOT NULL
);

INSERT INTO workspaces (id, name, suspended) VALUES
    ('0190a3c4-7a1e-7c2a-9f00-5d1b52f0a001', 'acme', FALSE),
    ('0190a3c4-7a1e-7c2a-9f00-5d1b52f0a002', 'late', TRUE),
    ('0190a3c4-7a1e-7c2a-9f00-5d1b52f0a003', 'beta', FALSE)
ON CONFLICT DO NOTHING;
