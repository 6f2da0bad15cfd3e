//! Tenant stores: the cache in front, real databases, and what happens when they fail.
//!
//! The databases need `--features sqlite,postgres`; PostgreSQL is a private server that the tests
//! start themselves, from the Debian packages `postgresql` and `pgbouncer`.

#[cfg(feature = "postgres")]
mod bouncer;
mod cached;
mod exam;
#[cfg(feature = "postgres")]
mod outages;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod support;
