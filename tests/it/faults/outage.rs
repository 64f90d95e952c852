//! Registries that say nothing, or not the truth, while Mapsmith goes on with what it has.

use std::fs;

use serde_json::{Value, json};

use super::answers::{bad_reply, told_bad};
use super::laws::Excuse;
use super::registry::{Reply, VERSIONS};
use super::run::document;
use super::schedule::{Bad, Routing};
use super::site::{Outcome, Whole};
use crate::support::random::Random;

/// A registry answers badly, Mapsmith is killed and started, and from then on the map file is the
/// map: whatever others change is corrected, and whatever is ordered comes into force, while what
/// is missing is said.
pub fn restart_in_outage(
    whole: &mut Whole,
    random: &mut Random,
    source: usize,
    bad: Bad,
) -> Outcome {
    let before = whole.photograph()?;
    whole
        .registries
        .answers(&document(source), bad_reply(bad, &Value::Object(whole.document(source))));
    whole.nudge();
    told_bad(whole, &before, &document(source), source, bad)?;
    if random.chance(50) {
        whole.restart_mapsmith();
    } else {
        whole.mapsmith.kill();
        tamper(whole, random);
        whole.journal.note("  changed while it was down");
        whole.restart_mapsmith();
        corrected(whole, "what was changed in HAProxy while Mapsmith was down")?;
    }
    told_bad(whole, &before, &document(source), source, bad)?;

    tamper(whole, random);
    corrected(whole, "what was changed in HAProxy after the restart")?;
    clear(whole, random);
    corrected(whole, "the map that was cleared in HAProxy")?;
    whole.laws.hide_file(true);
    fs::remove_file(whole.map_path()).expect("the map file goes");
    corrected(whole, "the map file that was lost")?;
    whole.laws.hide_file(false);

    if whole.site.pins {
        whole.order(random, false)?;
        corrected(whole, "an order")?;
        drained(whole, random)?;
    }
    told_bad(whole, &whole.photograph()?, &document(source), source, bad)?;
    whole.changes(random);
    Ok(())
}

/// A value in every memory is another one than the map file's.
fn tamper(whole: &Whole, random: &mut Random) {
    let expected = whole.expected();
    let (node, right) = random.pick(&expected);
    let others: Vec<_> =
        whole.master_names().into_iter().filter(|master| master != right).collect();
    let wrong = random.pick(&others);
    whole.journal.note(&format!("  another program sets {node} to {wrong}"));
    whole.laws.put_in_memory(node, wrong);
    // Where the map alone decides, it may answer for a moment.
    if whole.site.routing == Routing::Map {
        whole.owners.moves(node, wrong);
        whole.owners.moves(node, right);
    }
    for gateway in &whole.gateways {
        gateway.command(&format!("set map {} {node} {wrong}", gateway.map_path()));
    }
}

/// A memory has no entry left.
fn clear(whole: &Whole, random: &mut Random) {
    let gateway = random.below(whole.gateways.len());
    whole.journal.note(&format!("  another program clears the map of gateway {gateway}"));
    whole.laws.excused(gateway, Excuse::Old);
    let gateway = &whole.gateways[gateway];
    gateway.command(&format!("clear map {}", gateway.map_path()));
}

/// File and memories are the last good map, and so is everything that clients get from now on.
fn corrected(whole: &Whole, what: &str) -> Outcome {
    whole
        .holds(&whole.expected())
        .map_err(|error| format!("{what} is not corrected in an outage: {error}"))?;
    (0..whole.gateways.len()).for_each(|gateway| whole.laws.closed(gateway, Excuse::Old));
    whole.journal.note(&format!("  corrected: {what}"));
    Ok(())
}

/// A master is drained to another one and has its nodes back.
fn drained(whole: &Whole, random: &mut Random) -> Outcome {
    let names = whole.master_names();
    let from = random.pick(&names);
    let others: Vec<_> = names.iter().filter(|name| *name != from).collect();
    let to = *random.pick(&others);
    let (before, expected) = (whole.expected(), whole.expected_with_drain(from, to));
    let moves = |to: &[(String, String)]| {
        to.iter().for_each(|(node, master)| whole.owners.moves(node, master))
    };
    let order = |method: &str, body: &str| {
        let answer = whole.mapsmith.ask(method, &format!("/v1/masters/{from}/drain"), &[], body);
        whole.journal.note(&format!("  {method} a drain of {from} to {to}: {}", answer.status));
        if answer.status < 300 {
            Ok(())
        } else {
            Err(format!("{method} drain {from}: {} {}", answer.status, answer.body))
        }
    };
    moves(&expected);
    order("POST", &json!({ "to": to }).to_string())?;
    whole
        .holds(&expected)
        .map_err(|error| format!("a drain does not come into force in an outage: {error}"))?;
    moves(&before);
    order("DELETE", "")?;
    corrected(whole, "the end of a drain")
}

/// The document changes within the second, or under the name, that its version has: whoever asks
/// whether that version still holds is told so. A reload asks for the whole document.
pub fn registry_lies(
    whole: &mut Whole,
    random: &mut Random,
    source: usize,
    version: usize,
) -> Outcome {
    let version = VERSIONS[version];
    let publish = |whole: &Whole| {
        whole.publish();
        let body = Value::Object(whole.document(source)).to_string();
        whole.registries.answers(&document(source), Reply::Versioned(version, body));
    };
    whole.changes(random);
    publish(whole);
    // It may have this version of an earlier time still.
    whole.mapsmith.post("/v1/reload");
    whole.settles_on(&whole.expected())?;
    whole.journal.note("  from here on its version does not change");
    whole.changes(random);
    publish(whole);
    whole.mapsmith.post("/v1/reload");
    let expected = whole.expected();
    whole
        .settles_on(&expected)
        .map_err(|error| format!("a reload is content with \"not modified\": {error}"))
}
