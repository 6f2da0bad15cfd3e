//! Tenants in real databases.

#[cfg(feature = "postgres")]
mod bouncer;
#[cfg(feature = "postgres")]
mod outages;
mod sql;
