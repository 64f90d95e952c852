//! What became of an order of an owner, for a person.

use mapsmith_core::desired::ownership::Phase;

use crate::engine::map::MapDecision;

/// Why the node does not go to the owner that was ordered, and where it goes instead; none where it
/// goes to it. `reference` says what is wrong with the owner as a master of entries, if anything.
pub(super) fn why_elsewhere(
    decision: &MapDecision,
    node: &str,
    owner: &str,
    reference: Option<String>,
) -> Option<String> {
    let in_force = decision.in_force.as_ref().and_then(|revision| revision.entries.get(node));
    let Some(master) = in_force else {
        return Some("the map has no entry for the node: it goes there once it has".to_owned());
    };
    if master == owner {
        return None;
    }
    let overrides = &decision.overrides;
    let owned = decision.owners.nodes.get(node).filter(|owned| owned.record.owner == owner);
    let why = if overrides.pin(node).is_some() {
        "until it is unpinned".to_owned()
    } else if overrides.drain(owner).is_some() {
        format!("until {owner} is undrained")
    } else if let Some(reference) = reference {
        format!("for now ({reference})")
    } else if owned.is_some_and(|owned| owned.phase == Phase::Away) {
        format!("until {owner} is ready in a HAProxy")
    } else {
        "for now (`mapsmith explain` says more)".to_owned()
    };
    Some(format!("the order is remembered, and the node goes to {master} {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use mapsmith_core::{DrainedMaster, Note, Overrides, Pin, Revision};
    use serde_json::json;

    use super::*;

    /// `n` goes to m1, and was ordered to belong to m2, which is ready nowhere.
    fn decision() -> MapDecision {
        let at = Timestamp::UNIX_EPOCH;
        let owned = json!({
            "owner": "m2", "since": at, "seen": at, "ordered": true, "phase": "away",
        });
        let nodes = [("n".to_owned(), serde_json::from_value(owned).unwrap())];
        let entries = Arc::new([("n", "m1")].into_iter().collect());
        let mut decision = MapDecision {
            in_force: Some(Arc::new(Revision { number: 1, at, entries })),
            ..MapDecision::default()
        };
        decision.owners.nodes = Arc::new(nodes.into());
        decision
    }

    #[test]
    fn an_order_that_waits_says_for_what_and_where_the_node_is_meanwhile() {
        let mut decision = decision();
        let told = |decision: &MapDecision, owner: &str| {
            why_elsewhere(decision, "n", owner, None).unwrap_or_default()
        };
        let begins = "the order is remembered, and the node goes to m1 ";
        assert_eq!(told(&decision, "m2"), format!("{begins}until m2 is ready in a HAProxy"));
        assert_eq!(told(&decision, "m1"), "", "it is there");
        let reference = "m2: an instance has no backend or server of the name".to_owned();
        assert_eq!(
            why_elsewhere(&decision, "n", "m2", Some(reference.clone())),
            Some(format!("{begins}for now ({reference})"))
        );
        assert_eq!(
            why_elsewhere(&decision, "new", "m2", None).as_deref(),
            Some("the map has no entry for the node: it goes there once it has")
        );

        let since = Timestamp::UNIX_EPOCH;
        let mut overrides = Overrides::numbered(1);
        overrides
            .add_drain(DrainedMaster {
                master: "m2".to_owned(),
                to: None,
                since,
                note: Note::default(),
            })
            .unwrap();
        decision.overrides = Arc::new(overrides.clone());
        assert_eq!(told(&decision, "m2"), format!("{begins}until m2 is undrained"));
        let (node, master) = ("n".to_owned(), "m1".to_owned());
        overrides.add_pin(Pin { node, master, since, until: None, note: Note::default() }).unwrap();
        decision.overrides = Arc::new(overrides);
        assert_eq!(told(&decision, "m2"), format!("{begins}until it is unpinned"));
    }
}
