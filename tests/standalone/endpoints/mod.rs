//! The endpoints under `/v1/auth/` and the sessions of browsers, over real sockets.

mod answers;
mod canary;
mod failures;
mod heads;
mod house;
mod limits;
mod passwords;
mod races;
mod sessions;
mod setting_up;
mod shapes;
mod sign_in;
mod stores;
mod strangers;
