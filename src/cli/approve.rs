//! `mapsmith approve [ID]`.

use std::time::Duration;

use mapsmith_core::HeldChange;
use reqwest::Method;

use super::remote::Connection;
use super::status::held_text;
use super::{HELD, OutputFormat, SUCCESS, print};
use crate::api::types::ApproveRequest;

/// Lets the change with this id through; without one shows what is held, so that nobody lets a
/// change through that they have not seen.
pub(super) async fn approve(
    connection: Connection,
    id: Option<String>,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let Some(id) = id else {
        let held: Vec<HeldChange> = connection.get(&["v1", "held"]).await?;
        print(format, &held, |held| match held.as_slice() {
            [] => "nothing is held back".to_owned(),
            held => held.iter().map(held_text).collect::<String>().trim_end().to_owned(),
        })?;
        return Ok(if held.is_empty() { SUCCESS } else { HELD });
    };
    let request = ApproveRequest { id };
    let approved: HeldChange = connection
        .ask(Method::POST, &["v1", "held", "approve"], None, Some(&request), Duration::ZERO)
        .await?
        .good()?;
    print(format, &approved, |approved| {
        let outcome = match approved.of.as_str() {
            HeldChange::MAP => "approved and in force".to_owned(),
            HeldChange::SERVICES => "approved, and in force within seconds".to_owned(),
            of => format!("approved for {of}, and in force as fast as damping lets it"),
        };
        format!("{outcome}: {} (it was held because {})", approved.counts, approved.reason)
    })?;
    Ok(SUCCESS)
}
