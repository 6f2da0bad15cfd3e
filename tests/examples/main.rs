//! Runs the examples as a reader of the README would.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "postgres")]
mod axum_service;
mod browser;
mod browser_sessions;
mod form_post;
mod printed_commands;
mod scaikey_documents;
mod service;
mod streams;
mod sub_path;
#[cfg(feature = "trust")]
mod trust_admin;
#[cfg(feature = "sqlite")]
mod web_app;
