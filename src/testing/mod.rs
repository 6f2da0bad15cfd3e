//! A provider in a box.

pub mod conformance;
