//! Frontends and backends that are declared through the API: tried by HAProxy before they are
//! stored, and what outlives the tasks of a daemon of them.
//!
//! They are settings like those of the file (`settings::objects`), and changed settings are begun
//! with anew, as after a SIGHUP. What is stored is the truth: whoever begins anew reads that, so a
//! crash between the store and HAProxy's reload comes to the same.

mod check;
mod follow;
mod link;

pub use check::{CheckError, Checked, Fault, Needs, check, in_force};
pub use follow::follow;
pub use link::{Link, Progress, Reached};
