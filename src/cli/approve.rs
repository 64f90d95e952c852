//! `mapsmith approve [ID]`.

use std::time::Duration;

use anyhow::bail;
use mapsmith_core::HeldChange;
use reqwest::Method;

use super::remote::{Connection, NOTHING};
use super::{Form, GOOD, print};
use crate::http::dto::ApproveRequest;

pub(super) async fn approve(connection: Connection, id: Option<String>, form: Form) -> anyhow::Result<u8> {
    let id = match id {
        Some(id) => id,
        None => {
            let mut held: Vec<HeldChange> =
                connection.ask(Method::GET, &["v1", "held"], None, NOTHING, Duration::ZERO).await?.good()?;
            if held.len() > 1 {
                let changes: Vec<_> = held.iter().map(|held| format!("{} ({})", held.id, held.of)).collect();
                bail!("several changes are held back; name the one to let through: {}", changes.join(", "));
            }
            let Some(held) = held.pop() else {
                print(form, &None::<HeldChange>, |_| "nothing is held back".to_owned())?;
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
        let outcome = match approved.of.as_str() {
            HeldChange::MAP => "approved and in force".to_owned(),
            of => format!("approved for {of}, and in force as fast as damping lets it"),
        };
        format!("{outcome}: {} (it was held because {})", approved.counts, approved.reason)
    })?;
    Ok(GOOD)
}
