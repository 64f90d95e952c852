//! `mapsmith events`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use mapsmith_core::events::Event;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use super::output::{self, Colour, paint};
use super::remote::{Connection, NOTHING};
use super::status::time;
use super::{OutputFormat, SUCCESS, count, print};
use crate::api::requests::LARGEST_PAGE;
use crate::api::types::ActivityReport;

/// Between two tries to go on with a stream that has ended.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest line of a stream.
const LONGEST_LINE: usize = 1024 * 1024;

/// Which events to show.
#[derive(Args)]
pub(super) struct Wanted {
    /// Go on with those that come, until Ctrl-C; over a restart of Mapsmith, too
    #[arg(short, long)]
    follow: bool,
    /// Show those after this number; 0 shows all that are kept
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Show these kinds alone, with commas between: revision, held, approved, rejected, hold,
    /// rollout, instance, drift, source, override, registration, switch, reload, config, token,
    /// command, attention
    #[arg(long, value_name = "KINDS", default_value = "")]
    topics: String,
    /// The most events to show, without --follow: the latest ones, or with --after the first
    #[arg(long, value_name = "NUMBER", value_parser = count, default_value_t = 20, conflicts_with = "follow")]
    limit: usize,
}

pub(super) async fn events(
    connection: Connection,
    wanted: Wanted,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    if wanted.follow {
        return follow(&connection, &wanted, format).await;
    }
    let mut all = ActivityReport::default();
    let (mut after, mut oldest) = (wanted.after, None);
    loop {
        let rest = wanted.limit.saturating_sub(all.items.len()).clamp(1, LARGEST_PAGE).to_string();
        let number = after.map(|after| after.to_string());
        let query = [
            ("after", number.as_deref()),
            ("oldest", oldest.as_deref()),
            ("limit", Some(rest.as_str())),
            ("topics", Some(wanted.topics.as_str())),
        ];
        let query = query.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let asked =
            connection.ask(Method::GET, &["v1", "activity"], query, NOTHING, Duration::ZERO);
        let page: ActivityReport = asked.await?.good()?;
        (after, oldest) = (Some(page.next), oldest.or(Some(page.oldest.to_string())));
        let is_all = !page.more;
        all.items.extend(page.items);
        (all.next, all.more, all.oldest) = (page.next, page.more, page.oldest);
        if is_all || all.items.len() >= wanted.limit {
            break;
        }
    }
    print(format, &all, |all| all.items.iter().map(|event| line(event) + "\n").collect())?;
    Ok(SUCCESS)
}

fn line(event: &Event) -> String {
    let happening = &event.happening;
    let by = happening.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = happening.reason.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
    let (at, kind, text) = (time(happening.at), happening.kind.name(), &happening.text);
    format!("{at}  {}  {kind:<9}  {text}{by}{reason}", event.id)
}

/// Shows them as they come. A stream that ends is gone on with, where it ended.
async fn follow(
    connection: &Connection,
    wanted: &Wanted,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let mut position = wanted.after;
    let mut was_there = false;
    loop {
        match connection
            .follow(&["v1", "events"], [("topics", wanted.topics.as_str())], position)
            .await
        {
            Ok(stream) if stream.status().is_success() => {
                was_there = true;
                show(stream, &mut position, format).await?;
            }
            // It is full for a moment, or on its way.
            Ok(answer) if was_there && answer.status() == StatusCode::SERVICE_UNAVAILABLE => {}
            Ok(answer) => {
                let status = answer.status();
                let problem: Option<Value> = answer.json().await.ok();
                let detail = problem.and_then(|it| it["detail"].as_str().map(str::to_owned));
                bail!("{} ({status})", detail.unwrap_or_default());
            }
            Err(error) if !was_there => return Err(error),
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

/// Shows what a stream brings until it ends.
async fn show(
    mut stream: Response,
    position: &mut Option<u64>,
    format: OutputFormat,
) -> anyhow::Result<()> {
    let mut messages = Messages::default();
    while let Ok(Some(bytes)) = stream.chunk().await {
        for message in messages.take(&bytes)? {
            *position = message.id.or(*position);
            match (message.event.as_str(), format) {
                ("hello" | "bye", OutputFormat::Text) => {}
                ("resync", OutputFormat::Text) => {
                    let text = "events were missed that are no longer kept; see `mapsmith status`";
                    output::line(&paint(Colour::Yellow, text))?;
                }
                (_, OutputFormat::Text) => match serde_json::from_str(&message.data) {
                    Ok(event) => output::line(&line(&event))?,
                    // Of a kind that this version does not know.
                    Err(_) => output::line(&message.data)?,
                },
                (kind, OutputFormat::Json) => {
                    let mut data: Value = serde_json::from_str(&message.data).unwrap_or_default();
                    if let Some(fields) = data.as_object_mut() {
                        fields.entry("kind").or_insert_with(|| kind.into());
                    }
                    output::line(&data.to_string())?;
                }
            }
        }
    }
    Ok(())
}

/// One of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    id: Option<u64>,
    event: String,
    pub(super) data: String,
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub(super) struct Messages {
    rest: Vec<u8>,
    current: Message,
}

impl Messages {
    pub(super) fn take(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Message>> {
        self.rest.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let message = std::mem::take(&mut self.current);
                whole.extend((!message.data.is_empty()).then_some(message));
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.current.id = value.parse().ok(),
                "event" => value.clone_into(&mut self.current.event),
                "data" => value.clone_into(&mut self.current.data),
                _ => {}
            }
        }
        if self.rest.len() > LONGEST_LINE {
            bail!("what answers is no stream of events of a Mapsmith");
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;
    use mapsmith_core::events::EventKind;

    use super::*;

    #[test]
    fn help_names_each_kind_of_event() {
        let command = Wanted::augment_args(clap::Command::new("events"));
        let topics = command.get_arguments().find(|argument| argument.get_id() == "topics");
        let help = topics.and_then(|topics| topics.get_help()).unwrap().to_string();
        let (_, kinds) = help.split_once(": ").unwrap();
        let known = EventKind::ALL.map(EventKind::name).join(", ");
        assert_eq!(kinds, known, "`events --help` and the kinds that there are");
    }

    #[test]
    fn a_stream_is_taken_apart_however_it_is_cut() {
        let text =
            b":\n\nid: 7\nevent: drift\ndata: {\"a\": 1}\n\nretry: 3\nevent: bye\ndata: {}\n\n";
        let message = |id, event: &str, data: &str| Message {
            id,
            event: event.to_owned(),
            data: data.to_owned(),
        };
        let expected = [message(Some(7), "drift", "{\"a\": 1}"), message(None, "bye", "{}")];
        for cut in 0..text.len() {
            let mut messages = Messages::default();
            let mut found = messages.take(&text[..cut]).unwrap();
            found.extend(messages.take(&text[cut..]).unwrap());
            assert_eq!(found, expected, "{cut}");
        }
        let endless = vec![b'x'; LONGEST_LINE + 1];
        assert!(Messages::default().take(&endless).is_err());
    }
}
