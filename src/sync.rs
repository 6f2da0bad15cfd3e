//! What threads meet in without a lock, by names behind which `tests/slots` puts a model.
//!
//! There, the code that uses these names is compiled once more and run in every order in which
//! threads may come. Its tests say what is certain then.

pub(crate) use std::hash::RandomState;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(crate) use arc_swap::ArcSwapOption;
