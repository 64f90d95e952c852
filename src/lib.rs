//! Mapsmith keeps HAProxy gateways routing right.
//!
//! ```text
//! source ──snapshot──> desire ──desired──> plan(desired, observed) ──steps──> apply ──> HAProxy
//!   ^                    ^                        ^                                       │
//! cron tick, reload,   guard, overrides,          └────────────── observe <───────────────┘
//! watch, learned       damping, references            status ──> API, CLI, metrics
//! routes: "evaluate"
//! ```
//!
//! The crate `mapsmith-core` and the commands and replies of `haproxy-runtime` are pure: no I/O, no
//! clock. `source`, `store`, `instance`, `api` and `http` are the edges. `app` wires them.
//! ARCHITECTURE.md says more.

pub mod api;
pub mod app;
pub mod attention;
mod backoff;
pub mod cli;
mod command;
pub mod commands;
pub mod declared;
pub mod engine;
pub mod events;
mod few;
pub mod heartbeat;
pub mod http;
pub mod instance;
pub mod services;
pub mod settings;
pub mod shadow;
pub mod source;
pub mod stats;
pub mod store;
pub mod supervise;
pub mod switch;
pub mod telemetry;
pub mod tls;
pub mod tls_file;
