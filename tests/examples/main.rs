//! Runs the examples as a reader of the README would.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod seeds;
mod service;
mod talking;
mod webdriver;
