//! Registries answer slowly, wrongly or with something old.

use std::time::Duration;

use serde_json::{Value, json};

use super::laws::Excuse;
use super::registry::Reply;
use super::run::{document, milliseconds, moves};
use super::schedule::Bad;
use super::site::{Outcome, Photograph, Whole, is_held, with_pins};
use crate::support::random::Random;

pub fn registry_bad(
    whole: &mut Whole,
    random: &mut Random,
    source: usize,
    bad: Bad,
    restart: bool,
) -> Outcome {
    let before = whole.photograph()?;
    let right = Value::Object(whole.document(source));
    whole.registries.answers(&document(source), bad_reply(bad, &right));
    whole.nudge();
    told_bad(whole, &before, &document(source), source, bad)?;
    if restart {
        whole.journal.note("  restarted meanwhile");
        whole.restart_mapsmith();
        told_bad(whole, &before, &document(source), source, bad)?;
    }
    whole.changes(random);
    Ok(())
}

pub fn registry_old(whole: &mut Whole, random: &mut Random, back: usize) -> Result<bool, String> {
    let Some((older, in_force)) = whole.older_registry(back) else {
        moves(whole, random);
        return Ok(true);
    };
    let (passes, stays) = (in_force == older, in_force == *whole.registry());
    whole.journal.note(match (passes, stays) {
        (true, _) => "  the guard lets it pass",
        (false, true) => "  the guard must hold it",
        (false, false) => "  the guard must hold a part of it",
    });
    let before = whole.photograph()?;
    (0..whole.gateways.len()).for_each(|gateway| whole.laws.excused(gateway, Excuse::Old));
    whole.publish_map(&older);
    whole.nudge();
    let expected = with_pins(&in_force, &whole.pins);
    if passes {
        whole.settles_on(&expected).map_err(|error| format!("old data: {error}"))?;
    } else {
        let before = if stays {
            before
        } else {
            whole.holds(&expected).map_err(|error| format!("a part of old data: {error}"))?;
            whole.photograph()?
        };
        let told = |whole: &Whole| is_held(&whole.status());
        whole.stays(&before, "the registry is back with old data", told)?;
    }
    whole.changes(random);
    Ok(true)
}

/// A registry answers right, but slowly.
pub fn registry_slow(whole: &mut Whole, random: &mut Random, source: usize, time: u64) {
    whole.changes(random);
    whole.publish();
    let body = Value::Object(whole.document(source)).to_string();
    whole.registries.answers(&document(source), Reply::Slow(body, Duration::from_millis(time)));
    whole.nudge();
    milliseconds(time);
}

/// Among right rows are some that are no nodes or masters.
pub fn registry_odd(whole: &mut Whole, random: &mut Random, source: usize) -> Outcome {
    whole.changes(random);
    whole.publish();
    let mut rows = whole.document(source);
    for odd in ["two words", "#comment", "<<", "line\nbreak", "", "a;b\\ c", "\u{1}"] {
        rows.insert(odd.to_owned(), "m1".into());
    }
    rows.insert("of-two-words.example.test".to_owned(), "m1 m2".into());
    rows.insert("of-two-lines.example.test".to_owned(), "m1\nm2".into());
    whole.registries.answers(&document(source), Reply::Whole(200, Value::Object(rows).to_string()));
    whole.nudge();
    whole.settles_on(&whole.expected()).map_err(|error| format!("among odd rows: {error}"))?;
    Ok(())
}

/// The list of servers is none.
pub fn server_list_bad(whole: &mut Whole, bad: Bad) -> Outcome {
    let before = whole.photograph()?;
    whole.registries.answers("servers", bad_reply(bad, &json!([{ "address": "127.0.0.1" }])));
    whole.nudge();
    told_bad(whole, &before, "servers", whole.site.sources, bad)?;
    Ok(())
}

pub fn bad_reply(bad: Bad, right: &Value) -> Reply {
    let empty = if right.is_array() { json!([]) } else { json!({}) };
    let other = if right.is_array() { json!({ "a": "b" }) } else { json!([right]) };
    let text = right.to_string();
    match bad {
        Bad::Broken => Reply::Whole(500, "{\"error\": \"out of memory\"}".to_owned()),
        Bad::Page => Reply::Whole(200, "<html><body>Sign in</body></html>".to_owned()),
        Bad::Shape => Reply::Whole(200, other.to_string()),
        Bad::Empty => Reply::Whole(200, empty.to_string()),
        Bad::Part => {
            let third = |rows: &serde_json::Map<String, Value>| {
                let kept = rows.iter().enumerate().filter(|(number, _)| number % 3 == 0);
                Value::Object(
                    kept.map(|(_, (node, master))| (node.clone(), master.clone())).collect(),
                )
            };
            Reply::Whole(200, right.as_object().map_or(empty, third).to_string())
        }
        Bad::HalfText => Reply::Whole(200, text[..text.len() / 2].to_owned()),
        Bad::CutOff => {
            let half = text.len() / 2;
            Reply::Cut(text, half)
        }
        Bad::Hangs => Reply::Hang,
        Bad::Closes => Reply::Close,
    }
}

/// Waits until Mapsmith tells of a source's bad answer and has asked twice more, and sees that
/// nothing changes meanwhile.
pub fn told_bad(
    whole: &Whole,
    before: &Photograph,
    document: &str,
    source: usize,
    bad: Bad,
) -> Outcome {
    let (mut nudged, mut asked_when_told) = (0, None);
    whole.stays(before, &format!("{document} answered badly ({bad:?})"), |whole| {
        let status = whole.status();
        let told = match bad {
            Bad::Empty | Bad::Part => is_held(&status),
            _ => !status["sources"][source]["error"].is_null(),
        };
        let asked = whole.registries.asked(document);
        let first = match asked_when_told {
            Some(first) => first,
            None if told => *asked_when_told.insert(asked),
            None => return false,
        };
        if asked - first >= nudged && nudged < 2 {
            nudged += 1;
            whole.nudge();
        }
        told && asked - first >= 2
    })
}
