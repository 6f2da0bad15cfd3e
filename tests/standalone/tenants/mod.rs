//! Tenant stores: the cache in front, and the exam.

mod cached;
mod conformance;
