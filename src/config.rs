//! Configuration: the parts of an [`AuthConfig`], and the faults that an invalid configuration has.
//!
//! [`AuthConfig`], [`AuthMode`], [`IssuerConfig`] and [`ConfigError`] are at the root of the crate. The
//! builder, files and the environment all produce an [`AuthConfig`]. This module has the types of its fields
//! ([`Algorithm`], [`JwksSettings`], [`ClientConfig`], [`EndpointsConfig`] …), the [`Fault`]s that a
//! `ConfigError` lists, and [`ENVIRONMENT`], the table of all environment variables.
//!
//! See also: [manual::operating](crate::manual::operating).

mod algorithm;
pub(crate) mod auth_config;
mod client;
#[cfg(feature = "jwe")]
mod decryption_keys;
mod endpoints;
mod env;
pub(crate) mod fault;
pub(crate) mod introspection;
pub(crate) mod issuer;
mod issuer_file;
#[cfg(feature = "jsonwebtoken")]
mod jsonwebtoken_types;
mod jwks;
pub(crate) mod mode;
mod notices;
mod origin;
mod plain_http;
mod providers;
mod public_paths;
mod resource;
mod revocation;
mod secrets;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use client::{ClientAuthMethod, ClientConfig, ExchangeGrant};
#[cfg(feature = "jwe")]
pub use decryption_keys::{DecryptionKeys, InvalidDecryptionKeys};
pub use endpoints::{EndpointsConfig, IdentitySource, PolicyStoreKind, SessionStoreKind};
#[cfg(feature = "trust")]
pub(crate) use env::nearest;
pub use env::{ENVIRONMENT, Variable};
pub use fault::Fault;
pub use issuer::TokenProfile;
#[cfg(feature = "jsonwebtoken")]
pub use jsonwebtoken_types::NotInJsonwebtoken;
pub use jwks::JwksSettings;
pub use mode::{MockUser, UnknownAuthMode};
pub use revocation::RevocationLogKind;

pub(crate) use auth_config::{AuthConfig, environment_variable};
pub(crate) use fault::ConfigError;
pub(crate) use introspection::{IntrospectionSettings, SignedAnswers, overlap};
#[cfg(feature = "endpoints")]
pub(crate) use issuer::is_public_url;
pub(crate) use issuer::{
    IssuerConfig, KeyAccess, KeySetForm, MISSING_ISSUER, OTHER_PLACEHOLDER, Route,
    TENANT_PLACEHOLDER, fits_url, has_other_placeholder, has_user_information, is_loopback,
    problem_of_document,
};
pub(crate) use mode::AuthMode;
pub(crate) use origin::Origin;
pub(crate) use plain_http::{MESH_REMEDY, PlainHttp};
pub(crate) use public_paths::{PublicPaths, is_local_path, is_path_prefix};
pub(crate) use resource::Resource;
