//! The endpoints under `/v1/auth/` and browser sessions, over real sockets.

mod answers;
mod backchannel_logout;
mod configuration;
#[cfg(feature = "jwe")]
mod encrypted;
mod env;
mod event_polling;
mod example_server;
mod form_post;
mod id_token_sessions;
mod layer_order;
mod navigation;
mod passwords;
mod races;
mod registration;
mod report_handlers;
mod report_limits;
mod report_telemetry;
mod reported;
mod revoked_sign_ins;
mod routing;
mod secrets_in_logs;
mod security_event_subjects;
mod security_events;
mod sessions;
mod sign_in;
mod sign_in_failures;
mod sign_out;
mod step_up;
mod stored_sessions;
mod stores;
mod sub_paths;
mod throttle;
#[cfg(feature = "jsonwebtoken")]
mod token_data;
mod unauthenticated;
mod unreadable_tokens;
