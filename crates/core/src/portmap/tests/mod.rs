//! What Moirai reads, case by case, and where this is stricter; what the services are in HAProxy's
//! configuration; what holds of any text.

mod cases;
mod declared;
mod laws;
mod lists;
mod texts;

use super::*;
