//! The examples, run as somebody who reads the README runs them.

mod browser;
mod client;
mod process;
mod seeds;
mod service;
mod talking;
mod webdriver;
