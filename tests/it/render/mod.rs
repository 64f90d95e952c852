//! The rendered `haproxy.cfg` against real HAProxies.

mod echo;
mod files;
mod laws;
mod models;
mod property;
mod running;
