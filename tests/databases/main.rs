//! Tenants and registrars in real databases, and what happens when they fail.
//!
//! They need `--features sqlite,postgres`; PostgreSQL is a private server that the tests start
//! themselves, from the Debian packages `postgresql` and `pgbouncer`.
#![cfg(any(feature = "sqlite", feature = "postgres"))]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "postgres")]
mod postgres;
mod registrar;
mod tenants;
