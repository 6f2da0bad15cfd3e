//! Tests of documented behaviour over real sockets.

mod admission;
mod answers;
mod challenges;
mod claims;
mod differential;
mod extractors;
mod forged;
mod grpc;
mod guards;
mod isolation;
mod modes;
mod optional;
mod outages;
mod placement;
mod proofs;
mod properties;
mod secrets;
mod tenancy;
mod tower_contracts;
mod verified;
