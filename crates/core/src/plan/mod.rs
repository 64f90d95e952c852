//! Desired and observed state -> the steps between them. Pure: no I/O, no clock.
//!
//! The plan leaves whoever applies it no meaningful choice.

pub mod cost;
pub mod deviation;
pub mod diff;
pub mod map;
pub mod replay;
pub mod servers;

pub use cost::{CostModel, EditCounts};
pub use deviation::{Deviation, ReadBack};
pub use diff::Diff;
pub use map::{Edit, MapPlan, plan_map};
pub use servers::{ServerPlan, ServerStep, plan_servers};
