//! The tables of the SQL registrar.

use crate::support::schema::{Schema, schema};

pub(super) const SCHEMA: Schema =
    schema!("auth_registrar_versions", "4961283075518894206", MIGRATIONS);

const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE auth_participants (\
        id {text} NOT NULL PRIMARY KEY, \
        issuer {text} NOT NULL CHECK (issuer <> ''), \
        tenant_id {text} NOT NULL, \
        kind {text} NOT NULL, \
        subject {text} NOT NULL CHECK (subject <> ''), \
        display_name TEXT, \
        email TEXT, \
        email_verified BOOLEAN NOT NULL DEFAULT FALSE, \
        created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP, \
        updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP, \
        UNIQUE (issuer, tenant_id, kind, subject))",
    "CREATE TABLE auth_workspaces (\
        id {text} NOT NULL PRIMARY KEY, \
        participant_id {text} NOT NULL UNIQUE REFERENCES auth_participants (id), \
        created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP)",
]];
