//! Who may ask the control API for what, and how often.
//!
//! Pure: secrets are hashed and compared elsewhere, and the clock is an argument.

pub mod bucket;
pub mod grant;
pub mod identity;
pub mod role;
pub mod token;

pub use bucket::{Buckets, Rate};
pub use grant::Grant;
pub use identity::{Identity, IdentityKind};
pub use role::Role;
pub use token::{StoredToken, TokenText};
