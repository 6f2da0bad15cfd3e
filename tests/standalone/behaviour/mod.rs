//! Tests of documented behaviour over real sockets.

mod admission;
mod challenges;
mod claims;
mod extractors;
mod forged;
mod group_source;
mod grpc;
mod guards;
mod identity_isolation;
mod jsonwebtoken;
mod modes;
mod optional;
mod outages;
mod own_validators;
mod proofs;
mod properties;
mod recorded_identity;
mod relaxations;
mod responses;
mod secrets;
mod secrets_of_services;
mod streams;
mod tenancy;
mod token_sources;
mod tower_contracts;
mod verified_tokens;
