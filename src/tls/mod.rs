//! Certificates that Mapsmith gets itself: signed with its own key, or by a certificate authority.
//!
//! ```text
//! settings ──names──> Keeper ──due?──> self_signed, acme ──checked──> the issued file
//!                        ^                  │                              │
//!                 renewal, `renew`     Challenges ──> instances        tls_file ──> HAProxy
//! ```
//!
//! One task, one certificate at a time: an authority counts orders. What was issued goes the way of
//! every certificate: `tls_file` watches it, checks it, writes the file that HAProxy loads and has
//! the instances put it into memory, and what it refuses changes nothing.

pub mod acme;
pub mod challenges;
mod issued;
mod keeper;
mod record;
mod renewal;
mod self_signed;

pub use issued::supply;
pub use keeper::{Keeper, Renew, RenewError, Renewals};
