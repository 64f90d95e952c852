//! The factsets in memory: who last sent which node's facts, and when. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::pql::{Condition, FactsetQuery, Field};

/// What is kept of one submission of a node's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factset {
    /// The certname of the Puppet Server that sent the facts; PuppetDB allows none.
    pub producer: Option<String>,
    /// When it sent them, by its own clock.
    pub producer_timestamp: Timestamp,
}

#[derive(Debug, Default)]
struct Node {
    factset: Option<Factset>,
    deactivated: Option<Timestamp>,
}

/// Every node's newest factset, by certname.
#[derive(Debug, Default)]
pub struct Factsets {
    nodes: BTreeMap<String, Node>,
}

impl Factsets {
    /// The `replace facts` command: the newest `producer_timestamp` wins, and of two equal ones the
    /// later command.
    pub fn replace_facts(&mut self, certname: String, factset: Factset) {
        let node = self.nodes.entry(certname).or_default();
        if node
            .factset
            .as_ref()
            .is_some_and(|held| held.producer_timestamp > factset.producer_timestamp)
        {
            return;
        }
        // Facts wake a deactivated node only if they were sent after its deactivation.
        if node.deactivated.is_some_and(|deactivated| deactivated < factset.producer_timestamp) {
            node.deactivated = None;
        }
        node.factset = Some(factset);
    }

    /// The `deactivate node` command: the node is left out of answers until newer facts come.
    pub fn deactivate_node(&mut self, certname: String, at: Timestamp) {
        let node = self.nodes.entry(certname).or_default();
        if node.factset.as_ref().is_none_or(|held| held.producer_timestamp <= at) {
            node.deactivated = Some(at);
        }
    }

    /// The active nodes' factsets that fulfil the query, each with the fields it asks for.
    pub fn select(&self, query: &FactsetQuery) -> Vec<Map<String, Value>> {
        let mut found: Vec<(&str, &Factset)> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.deactivated.is_none())
            .filter_map(|(certname, node)| Some((certname.as_str(), node.factset.as_ref()?)))
            .filter(|(certname, factset)| {
                query.conditions.iter().all(|condition| holds(condition, certname, factset))
            })
            .collect();
        if query.oldest_first {
            found.sort_by_key(|(_, factset)| factset.producer_timestamp);
        }
        found
            .into_iter()
            .map(|(certname, factset)| {
                query
                    .fields
                    .iter()
                    .map(|field| (field.name().to_owned(), value(*field, certname, factset)))
                    .collect()
            })
            .collect()
    }
}

fn holds(condition: &Condition, certname: &str, factset: &Factset) -> bool {
    match condition {
        Condition::Certname(wanted) => wanted.contains(certname),
        Condition::NewerThan(time) => factset.producer_timestamp > *time,
    }
}

fn value(field: Field, certname: &str, factset: &Factset) -> Value {
    match field {
        Field::Certname => certname.into(),
        Field::Producer => factset.producer.as_deref().into(),
        // PuppetDB prints UTC with milliseconds.
        Field::ProducerTimestamp => format!("{:.3}", factset.producer_timestamp).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn sent_by(producer: &str, seconds: i64) -> Factset {
        Factset { producer: Some(producer.into()), producer_timestamp: at(seconds) }
    }

    /// What a query for every node's producer shows, as `node=producer` words.
    fn shown(factsets: &Factsets) -> String {
        let query = FactsetQuery {
            fields: vec![Field::Certname, Field::Producer],
            conditions: vec![],
            oldest_first: false,
        };
        let rows = factsets.select(&query);
        let words: Vec<String> = rows
            .iter()
            .map(|row| {
                format!(
                    "{}={}",
                    row["certname"].as_str().unwrap(),
                    row["producer"].as_str().unwrap_or("null")
                )
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_newest_producer_timestamp_wins_whatever_the_order_of_arrival() {
        let mut factsets = Factsets::default();
        factsets.replace_facts("n1".into(), sent_by("puppet01", 20));
        factsets.replace_facts("n1".into(), sent_by("puppet00", 10));
        assert_eq!(shown(&factsets), "n1=puppet01");
        factsets.replace_facts("n1".into(), sent_by("puppet02", 20));
        assert_eq!(shown(&factsets), "n1=puppet02");
    }

    #[test]
    fn only_facts_newer_than_its_deactivation_bring_a_node_back() {
        let mut factsets = Factsets::default();
        factsets.replace_facts("n1".into(), sent_by("puppet00", 10));
        factsets.deactivate_node("n1".into(), at(20));
        assert_eq!(shown(&factsets), "");
        factsets.replace_facts("n1".into(), sent_by("puppet01", 15));
        assert_eq!(shown(&factsets), "");
        factsets.replace_facts("n1".into(), sent_by("puppet02", 21));
        assert_eq!(shown(&factsets), "n1=puppet02");
    }

    #[test]
    fn a_deactivation_older_than_the_facts_changes_nothing() {
        let mut factsets = Factsets::default();
        factsets.replace_facts("n1".into(), sent_by("puppet00", 10));
        factsets.deactivate_node("n1".into(), at(9));
        assert_eq!(shown(&factsets), "n1=puppet00");
    }

    #[test]
    fn facts_without_a_producer_show_null() {
        let mut factsets = Factsets::default();
        factsets.replace_facts("n1".into(), Factset { producer: None, producer_timestamp: at(1) });
        assert_eq!(shown(&factsets), "n1=null");
    }
}
