//! The configuration that Mapsmith renders, and what HAProxys of every version make of it.

mod accepted;
mod declared;
mod echo;
mod files;
mod laws;
mod models;
mod property;
mod running;
mod served;
