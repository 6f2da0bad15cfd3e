//! The administration of the trust policy under `/v1/auth/trusts`, over real sockets.

mod access;
mod checks;
mod fixture;
mod page;
mod reading;
