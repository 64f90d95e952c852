//! What of a configuration contradicts itself: HAProxy's own check sees some of it, says it of
//! lines, and lets the rest pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::rules::{Action, Matcher, Rule};
use super::{Backend, Config, Frontend, Mode};
use crate::render;

/// A contradiction, and the setting that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Like `frontend[0].rules[2]`.
    pub place: String,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.text)
    }
}

impl Config {
    /// What HAProxy would refuse, or take for something else, in the order of the settings.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found { problems: Vec::new() };
        let backends: BTreeMap<&str, &Backend> =
            self.backends.iter().map(|backend| (backend.name.as_str(), backend)).collect();
        let mut names = BTreeSet::new();
        let mut addresses = BTreeMap::new();
        for (index, frontend) in self.frontends.iter().enumerate() {
            let place = format!("frontend[{index}]");
            if !names.insert(frontend.name.as_str()) {
                found.add(&place, format!("there are two of the name {}", frontend.name));
            }
            if backends.contains_key(frontend.name.as_str()) {
                // HAProxy 3.4 refuses it.
                found.add(&place, format!("a backend has the name {} too", frontend.name));
            }
            found.binds(&place, frontend, &mut addresses);
            found.rules(&place, frontend, &backends);
        }
        let mut names = BTreeSet::new();
        for (index, backend) in self.backends.iter().enumerate() {
            if !names.insert(backend.name.as_str()) {
                let place = format!("backend[{index}]");
                found.add(&place, format!("there are two of the name {}", backend.name));
            }
        }
        found.problems
    }
}

struct Found {
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, place: &str, text: String) {
        self.problems.push(Problem { place: place.to_owned(), text });
    }

    /// HAProxy binds one address twice without a word.
    fn binds<'a>(
        &mut self,
        place: &str,
        frontend: &'a Frontend,
        addresses: &mut BTreeMap<&'a str, &'a str>,
    ) {
        if frontend.binds.is_empty() {
            self.add(place, "bind: it listens nowhere".to_owned());
        }
        for (at, bind) in frontend.binds.iter().enumerate() {
            let place = format!("{place}.bind[{at}]");
            let (address, name) = (bind.address.as_str(), frontend.name.as_str());
            if let Some(other) = addresses.insert(address, name) {
                self.add(&place, format!("the frontend {other} listens at {address} too"));
            }
        }
    }

    fn rules(&mut self, place: &str, frontend: &Frontend, backends: &BTreeMap<&str, &Backend>) {
        let goes = |found: &mut Self, place: &str, name: &str| match backends.get(name) {
            None => found.add(place, format!("there is no backend {name}")),
            Some(backend) if backend.mode != frontend.mode => {
                found.add(place, format!("the backend {name} has another mode"));
            }
            Some(_) => {}
        };
        for (at, rule) in frontend.rules.iter().enumerate() {
            let place = format!("{place}.rules[{at}]");
            if let Action::Backend(name) = &rule.action {
                goes(self, &place, name.as_str());
            }
            if !render::fits(rule) {
                let text = "it has more conditions than fit in a line of HAProxy's";
                self.add(&place, text.to_owned());
            }
            if frontend.mode == Mode::Tcp && needs_http(rule) {
                let text = "only src, sni, backend and deny are for frontends of mode tcp";
                self.add(&place, text.to_owned());
            }
        }
        match &frontend.default_backend {
            Some(name) => goes(self, &format!("{place}.default_backend"), name.as_str()),
            None if frontend.rules.is_empty() && frontend.natives.is_empty() => {
                self.add(place, "it sends requests nowhere: add default_backend".to_owned());
            }
            None => {}
        }
    }
}

fn needs_http(rule: &Rule) -> bool {
    let condition = &rule.condition;
    let groups = condition.any.iter().flatten();
    let is_tcp = |matcher: &Matcher| matches!(matcher, Matcher::Source(_) | Matcher::Sni(_));
    !condition.all.iter().chain(&condition.none).chain(groups).all(is_tcp)
        || !matches!(rule.action, Action::Backend(_) | Action::Deny(_))
}
