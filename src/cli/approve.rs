//! `mapsmith approve [ID]`.

use std::time::Duration;

use reqwest::Method;

use super::remote::{Connection, NOTHING};
use super::{Form, GOOD, print};
use crate::http::dto::ApproveRequest;
use crate::model::HeldChange;

pub(super) async fn approve(connection: Connection, id: Option<String>, form: Form) -> anyhow::Result<u8> {
    let id = match id {
        Some(id) => id,
        None => {
            let held: Option<HeldChange> =
                connection.ask(Method::GET, &["v1", "held"], None, NOTHING, Duration::ZERO).await?.good()?;
            let Some(held) = held else {
                print(form, &held, |_| "nothing is held back".to_owned())?;
                return Ok(GOOD);
            };
            held.id
        }
    };
    // By its id, so that a change that came up just now is not let through unseen.
    let request = ApproveRequest { id };
    let approved: HeldChange =
        connection.ask(Method::POST, &["v1", "held", "approve"], None, Some(&request), Duration::ZERO).await?.good()?;
    print(form, &approved, |approved| {
        format!("approved and in force: {} (it was held because {})", approved.counts, approved.reason)
    })?;
    Ok(GOOD)
}
