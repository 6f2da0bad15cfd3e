//! Registrars: the exam, real databases, several processes, and what happens when something dies.
//!
//! The databases need `--features sqlite,postgres`; PostgreSQL is a private server that the tests
//! start themselves, from the Debian packages `postgresql` and `pgbouncer`.

#[cfg(feature = "postgres")]
mod bouncer;
mod exam;
#[cfg(feature = "postgres")]
mod outages;
#[cfg(feature = "postgres")]
#[path = "../tenants/postgres.rs"]
mod postgres;
#[cfg(feature = "postgres")]
mod processes;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
