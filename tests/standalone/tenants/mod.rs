//! Tenant stores: the cache, and the conformance suite.

mod cached;
mod conformance;
