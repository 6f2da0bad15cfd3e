//! Registrars in real databases, with several processes.

#[cfg(feature = "postgres")]
mod bouncer;
#[cfg(feature = "postgres")]
mod outages;
#[cfg(feature = "postgres")]
mod processes;
mod sql;
