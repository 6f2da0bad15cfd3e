//! [`RedisCache`]: tokens in Redis or Valkey, for all processes of a service.

/// To be written.
#[derive(Debug)]
pub struct RedisCache;
