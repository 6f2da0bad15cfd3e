//! Tenants, registrars, trust policies and browser sessions in real databases, and outages of the databases.
//!
//! The tests need `--features sqlite,postgres`. They start a private PostgreSQL server from the Debian
//! packages `postgresql` and `pgbouncer`.
#![cfg(any(feature = "sqlite", feature = "postgres"))]

#[path = "../support/mod.rs"]
mod support;

mod policies;
#[cfg(feature = "postgres")]
mod postgres;
mod registrar;
mod sessions;
mod tenants;
