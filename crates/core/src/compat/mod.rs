//! The words of other APIs, for clients that were written for those: what their bodies say, as
//! objects of `objects`, and back. Only these modules know them.

pub mod aqueduct;
pub mod thalassa;
