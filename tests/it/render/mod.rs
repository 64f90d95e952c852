//! The configuration that Mapsmith renders, and what HAProxys of every version make of it.

mod accepted;
