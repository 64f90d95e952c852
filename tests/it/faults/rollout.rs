//! Rollbacks, and canaries of them: while one bakes its instance holds it, and the others and the
//! map file hold what is stable, whatever is killed meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::laws::Excuse;
use super::run::moves;
use super::schedule::Killed;
use super::site::{Outcome, Whole};
use crate::support::poll;
use crate::support::random::Random;
use crate::support::site::Nodes;

/// Longer than anything takes here.
const BOUND: Duration = Duration::from_secs(60);
/// How long what must not change is watched.
const WATCH: Duration = Duration::from_secs(2);
/// The gateway that gets a canary.
const CANARY: usize = 1;

/// Nodes move; then there is an older map to go back to, under its number, and a newer one in
/// force. None where nothing moved.
fn two_maps(whole: &mut Whole, random: &mut Random) -> Result<Option<(u64, Nodes, u64)>, String> {
    let (older, before) = (whole.file()?.0, whole.expected());
    moves(whole, random);
    whole.settle()?;
    let newer = whole.file()?.0;
    // Nodes that are new since then have no route.
    (0..whole.gateways.len()).for_each(|gateway| whole.laws.excused(gateway, Excuse::Old));
    Ok((newer != older).then_some((older, before, newer)))
}

/// Orders a rollback; none where what there was is not kept: the history may have gaps here.
fn order(whole: &Whole, to: u64, in_force: u64, body: &Value) -> Result<Option<Value>, String> {
    let tag = format!("\"{in_force:x}\"");
    let path = format!("/v1/revisions/{to}/rollback");
    let answer = whole.mapsmith.ask("POST", &path, &[("If-Match", &tag)], &body.to_string());
    match answer.status {
        200 | 202 => Ok(Some(serde_json::from_str(&answer.body).unwrap_or_default())),
        404 | 410 => Ok(None),
        status => Err(format!("{path}: {status} {}", answer.body)),
    }
}

/// The sources are followed again; what the guard holds of what they say is let through.
fn follows_again(whole: &mut Whole) -> Outcome {
    if !whole.status()["hold"].is_null() {
        let resumed = whole.mapsmith.ask("DELETE", "/v1/hold", &[], "");
        if !matches!(resumed.status, 200 | 202) {
            return Err(format!("resume: {} {}", resumed.status, resumed.body));
        }
    }
    let expected = whole.expected();
    whole.nudge();
    let followed = poll(BOUND, || {
        if let Some(id) = whole.status()["held"][0]["id"].as_str() {
            whole.mapsmith.post(&format!("/v1/held/{id}/approve"));
        }
        whole.is_in_memory(&expected).then_some(())
    });
    followed.ok_or_else(|| format!("the sources are not followed: {}", whole.status()))?;
    whole.settle()
}

/// Back to an older map, and nothing of what the sources say until somebody resumes.
pub fn rollback(whole: &mut Whole, random: &mut Random, killed: bool) -> Result<bool, String> {
    let Some((older, before, newer)) = two_maps(whole, random)? else { return Ok(false) };
    if order(whole, older, newer, &json!({"for": "1h"}))?.is_none() {
        return Ok(false);
    }
    if killed {
        whole.journal.note("  killed right after");
        whole.restart_mapsmith();
    }
    whole.holds(&before).map_err(|error| format!("rolled back: {error}"))?;
    moves(whole, random);
    whole.nudge();
    let (photograph, began) = (whole.photograph_memory()?, Instant::now());
    whole.stays(&photograph, "the sources on hold", |_| began.elapsed() > WATCH)?;
    follows_again(whole)?;
    Ok(true)
}

/// The law of a canary: whether all is where it should be by now.
fn is_canary(whole: &Whole, canary: &Nodes, stable: &Nodes) -> Result<bool, String> {
    let (_, file) = whole.file()?;
    if file != *stable {
        return Err("the map file has something else than what is stable".to_owned());
    }
    let mut all = true;
    for gateway in 0..whole.gateways.len() {
        let Some(memory) = whole.memory(gateway) else {
            all = false;
            continue;
        };
        let is_it = if gateway == CANARY { memory == *canary } else { memory == *stable };
        all &= is_it;
        // While it is brought from one to the other each entry is one of the two.
        let of = |node: &String, master: &String| {
            let entry = (node.clone(), master.clone());
            canary.binary_search(&entry).is_ok() || stable.binary_search(&entry).is_ok()
        };
        let is_known = memory.iter().all(|(node, master)| of(node, master));
        if !is_it && (gateway != CANARY || !is_known) {
            return Err(format!("gateway {gateway} holds what is neither stable nor its canary"));
        }
    }
    Ok(all)
}

/// Waits until it is so, and watches the law meanwhile.
fn comes_to(whole: &Whole, canary: &Nodes, stable: &Nodes, what: &str) -> Outcome {
    let mut broken = None;
    let reached = poll(BOUND, || match is_canary(whole, canary, stable) {
        Ok(true) => Some(true),
        Ok(false) => None,
        Err(error) => {
            broken = Some(error);
            Some(false)
        }
    });
    match (reached, broken) {
        (Some(true), _) => Ok(()),
        (_, Some(error)) => Err(format!("{what}: {error}")),
        _ => Err(format!("{what}: not there after {BOUND:?}: {}", whole.status())),
    }
}

/// An older map goes to one gateway first; there it stays until it is promoted or aborted.
pub fn canary(
    whole: &mut Whole,
    random: &mut Random,
    promote: bool,
    killed: Killed,
) -> Result<bool, String> {
    let Some((older, canary, newer)) = two_maps(whole, random)? else { return Ok(false) };
    let stable = whole.expected();
    let terms = json!({"instances": [format!("edge{CANARY}")], "bake": "1h", "then": "wait"});
    if order(whole, older, newer, &json!({"for": "1h", "canary": terms}))?.is_none() {
        return Ok(false);
    }
    if killed == Killed::AtOnce {
        whole.journal.note("  killed right after");
        whole.restart_mapsmith();
    }
    comes_to(whole, &canary, &stable, "the canary")?;
    moves(whole, random);
    whole.nudge();
    match killed {
        Killed::Gateway => whole.restart_gateway(CANARY, |_| ()),
        Killed::Later => whole.restart_mapsmith(),
        Killed::AtOnce | Killed::Nobody => {}
    }
    comes_to(whole, &canary, &stable, "the canary, once something was killed")?;
    let verb = if promote { "promote" } else { "abort" };
    // It may be in another state than a moment before.
    let decided = poll(BOUND, || {
        let (_, rollouts) = whole.mapsmith.get("/v1/rollouts");
        let rollout = &rollouts["items"][0];
        let (id, tag) = (rollout["id"].as_str()?, rollout["version"].as_u64()?);
        let (path, tag) = (format!("/v1/rollouts/{id}/{verb}"), format!("\"{tag:x}\""));
        let answer = whole.mapsmith.ask("POST", &path, &[("If-Match", &tag)], "");
        (answer.status != 412).then_some((answer.status, answer.body))
    });
    match decided {
        Some((200 | 202, _)) => {}
        other => return Err(format!("{verb}: {other:?}")),
    }
    whole.journal.note(&format!("  {verb}"));
    if promote {
        whole.holds(&canary).map_err(|error| format!("promoted: {error}"))?;
    }
    follows_again(whole)?;
    Ok(true)
}
