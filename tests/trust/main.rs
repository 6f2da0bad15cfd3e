//! Foreign workload tokens: trust policies and their stores, decisions about tokens, minting, and the
//! administration of a policy. Servers run in this process, on real sockets.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod attacks;
mod clusters;
mod comments;
mod decision_log;
mod decisions;
mod delegations;
mod dry_run;
mod explanations;
mod fixture;
mod following;
mod layouts;
mod limits;
mod linter;
mod minting;
mod normal_form;
mod platforms;
mod policy_file;
mod positions;
mod reloading;
mod replay;
mod settings;
mod stores;
mod svids;
mod tenant_admins;
mod tenant_policy;
