//! The configuration that Mapsmith renders, and what HAProxys of every version make of it.

mod accepted;
mod declared;
pub mod echo;
mod files;
mod laws;
mod models;
mod portmap;
mod property;
pub mod running;
mod served;
