//! What a watcher is sent: JSON texts of at most 64 kB each.

use std::time::Duration;

use haproxy_runtime::stats::{COUNTERS, GAUGES};
use serde_json::{Value, json};

use super::history::{Gap, Heard};
use super::subscription::Subscription;
use super::watcher::Group;

/// The most bytes of one.
pub const LARGEST_FRAME: usize = 64 * 1024;
/// Room in it for what stands around its items.
const FRAME_ROOM: usize = 1024;
/// The most characters of a text in one.
const LONGEST_TEXT: usize = 500;

/// The first of a subscription: what a row holds.
pub(super) fn begin(subscription: &Subscription) -> String {
    let fields: Vec<_> = GAUGES.into_iter().chain(COUNTERS).chain(["status"]).collect();
    json!({
        "type": "schema",
        "fields": fields,
        "counters": COUNTERS,
        "every": humantime::format_duration(subscription.every).to_string(),
        "series": {},
    })
    .to_string()
}

/// Series that rows may be of from now on, by their numbers.
pub(super) fn series<'n>(new: impl Iterator<Item = (u32, &'n str)>) -> Vec<String> {
    let items = new.map(|(id, name)| format!("\"{id}\":{}", json!(name)));
    split("{\"type\":\"schema\",\"series\":{", items, "}}")
}

/// Series of which there will be no more rows.
pub(super) fn gone(ids: impl Iterator<Item = u32>) -> Vec<String> {
    let items = ids.map(|id| id.to_string());
    split("{\"type\":\"schema\",\"gone\":[", items, "]}")
}

/// Series that an instance does not have.
pub(super) fn missing(instance: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let head = format!("{{\"type\":\"schema\",\"i\":{},\"missing\":[", json!(instance));
    split(&head, names.map(|name| json!(name).to_string()), "]}")
}

/// Rows of one time.
pub(super) fn stats<'r>(
    instance: &str,
    group: &Group,
    rows: impl Iterator<Item = (u32, &'r Heard)>,
) -> Vec<String> {
    let over = group.over.map_or(Value::Null, seconds);
    let head = format!(
        "{{\"type\":\"stats\",\"t\":{},\"i\":{},\"over\":{over},\"rows\":[",
        unix(group.unix_ms),
        json!(instance),
    );
    split(&head, rows.map(|(id, heard)| row(id, heard)), "]}")
}

fn row(id: u32, heard: &Heard) -> String {
    let mut values = vec![json!(id)];
    values.extend(heard.figures.values().map(|value| json!(value)));
    values.push(json!(heard.status.chars().take(LONGEST_TEXT).collect::<String>()));
    Value::Array(values).to_string()
}

/// A time of which nothing is known.
pub(super) fn gap(instance: &str, gap: &Gap, unix_ms: i64) -> String {
    let mut frame = json!({"type": "gap", "t": unix(unix_ms), "i": instance, "why": gap.why()});
    if let Some(text) = gap.text() {
        frame["text"] = json!(text.chars().take(LONGEST_TEXT).collect::<String>());
    }
    frame.to_string()
}

/// What is wrong with what was asked for.
pub fn error(text: &str) -> String {
    let text: String = text.chars().take(LONGEST_TEXT).collect();
    json!({"type": "error", "text": text}).to_string()
}

fn unix(milliseconds: i64) -> Value {
    json!(milliseconds as f64 / 1000.0)
}

fn seconds(duration: Duration) -> Value {
    json!(duration.as_millis() as f64 / 1000.0)
}

/// Frames that have all the items between them; none where there are no items.
fn split(head: &str, items: impl Iterator<Item = String>, tail: &str) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    for item in items {
        match frames.last_mut() {
            Some(frame) if frame.len() + item.len() + FRAME_ROOM <= LARGEST_FRAME => {
                frame.push(',');
                frame.push_str(&item);
            }
            _ => frames.push(format!("{head}{item}")),
        }
    }
    frames.iter_mut().for_each(|frame| frame.push_str(tail));
    frames
}
