//! The administration of the trust policy under `/v1/auth/trusts`, over real sockets.

mod access;
mod checks;
mod fixture;
mod history;
mod limits;
mod manual;
mod mounting;
mod observing;
mod page;
mod reading;
mod secrets;
mod tenants;
mod writing;
