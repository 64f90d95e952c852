//! The HAProxy whose configuration Mapsmith writes.

pub mod files;
