//! The endpoints under `/v1/auth/` and the sessions of browsers, over real sockets.

mod answers;
mod canary;
mod house;
mod limits;
mod passwords;
mod sessions;
mod shapes;
mod sign_in;
