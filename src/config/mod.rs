//! Configuration.
mod algorithm;

pub use algorithm::{Algorithm, UnknownAlgorithm};
