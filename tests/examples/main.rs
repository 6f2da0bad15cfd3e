//! The examples, run as somebody who reads the README runs them.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod seeds;
mod service;
mod talking;
mod webdriver;
