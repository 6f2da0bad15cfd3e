//! What the crate promises, shown over real sockets.

mod forged;
