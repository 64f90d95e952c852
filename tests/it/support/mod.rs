//! What the tests stand on beside `testkit`: Mapsmith itself, and scenes round it.

pub mod mapsmith;
pub mod pool;
pub mod scene;
pub mod site;

pub use testkit::*;
