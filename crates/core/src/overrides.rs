//! What an operator orders beside the registries: nodes pinned to a master, and masters whose nodes
//! go elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{self, Invalid};

/// A node that goes to one master whatever the sources say, known to them or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The node, as the map has it.
    pub node: String,
    /// The master, by HAProxy's name.
    pub master: String,
    pub since: Timestamp,
    /// When it ends by itself; none where only `unpin` ends it.
    pub until: Option<Timestamp>,
}

impl Pin {
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The pin as it is remembered after its end.
    pub fn ended(&self, until: Timestamp) -> EndedOverride {
        let of = EndedKind::Pin { node: self.node.clone(), master: self.master.clone() };
        EndedOverride { of, since: self.since, until, stay: false }
    }
}

/// A master whose nodes go to other masters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedMaster {
    /// The master, by HAProxy's name.
    pub master: String,
    /// The master that gets all its nodes; none where they are spread over the others.
    pub to: Option<String>,
    pub since: Timestamp,
}

/// How long it is remembered that a pin or drain has ended: longer than a node's owner is waited
/// for.
pub const ENDED_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A pin or a drain that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedOverride {
    pub of: EndedKind,
    pub since: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// Whether the nodes were to stay where they were.
    pub stay: bool,
}

/// What has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedKind {
    Pin { node: String, master: String },
    Drain { master: String },
}

impl EndedOverride {
    /// Whether it took this node from this owner.
    pub fn concerned(&self, node: &str, owner: &str) -> bool {
        match &self.of {
            EndedKind::Pin { node: pinned, master } => pinned == node && master != owner,
            EndedKind::Drain { master } => master == owner,
        }
    }
}

/// One order of an operator, or the clock's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideChange {
    /// Pins a node; a pin that it has is replaced.
    Pin(Pin),
    Unpin {
        /// The node, as the map has it.
        node: String,
        now: Timestamp,
    },
    /// Drains a master; a drain that it has is replaced.
    Drain(DrainedMaster),
    /// Gives a master its nodes back.
    Undrain {
        master: String,
        /// Whether nodes that the registry names another master for by now stay there.
        stay: bool,
        now: Timestamp,
    },
    Expire {
        now: Timestamp,
    },
}

/// All overrides. Every name in them is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    number: u64,
    pins: BTreeMap<String, Pin>,
    drained: BTreeMap<String, DrainedMaster>,
    ended: Vec<EndedOverride>,
}

impl Overrides {
    /// None yet, under this number.
    pub fn numbered(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Grows with every change.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The pins, sorted by node.
    pub fn pins(&self) -> impl ExactSizeIterator<Item = &Pin> {
        self.pins.values()
    }

    pub fn pin(&self, node: &str) -> Option<&Pin> {
        self.pins.get(node)
    }

    /// The drained masters, sorted by name.
    pub fn drained(&self) -> impl ExactSizeIterator<Item = &DrainedMaster> {
        self.drained.values()
    }

    pub fn drain(&self, master: &str) -> Option<&DrainedMaster> {
        self.drained.get(master)
    }

    /// The pins and drains that have ended within [`ENDED_KEPT`].
    pub fn ended(&self) -> impl Iterator<Item = &EndedOverride> {
        self.ended.iter()
    }

    /// Remembers a pin or drain that has ended.
    pub fn add_ended(&mut self, ended: EndedOverride) {
        self.ended.push(ended);
    }

    /// Whether nothing is pinned or drained.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.drained.is_empty()
    }

    /// Adds a pin, instead of the one that its node has.
    pub fn add_pin(&mut self, pin: Pin) -> Result<(), Invalid> {
        names::check_key(&pin.node)?;
        names::check_value(&pin.master)?;
        self.pins.insert(pin.node.clone(), pin);
        Ok(())
    }

    /// Adds a drained master, instead of what was ordered for it before.
    pub fn add_drain(&mut self, drained: DrainedMaster) -> Result<(), Invalid> {
        names::check_value(&drained.master)?;
        drained.to.as_deref().map_or(Ok(()), names::check_value)?;
        self.drained.insert(drained.master.clone(), drained);
        Ok(())
    }

    /// Without the pins whose time is over then, which have ended.
    pub fn at(&self, now: Timestamp) -> Self {
        let mut left = self.clone();
        for pin in self.pins.values().filter(|pin| pin.is_over(now)) {
            left.pins.remove(&pin.node);
            left.ended.extend(pin.until.map(|until| pin.ended(until)));
        }
        left
    }

    pub fn next_end(&self) -> Option<Timestamp> {
        self.pins.values().filter_map(|pin| pin.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(node: &str, until: Option<i64>) -> Pin {
        let until = until.map(|second| Timestamp::from_second(second).unwrap());
        Pin { node: node.to_owned(), master: "m1".to_owned(), since: Timestamp::UNIX_EPOCH, until }
    }

    #[test]
    fn a_pin_is_over_at_its_end_and_not_before() {
        let mut overrides = Overrides::numbered(7);
        for pin in [pin("a", Some(10)), pin("b", Some(20)), pin("c", None)] {
            overrides.add_pin(pin).unwrap();
        }
        let left = |second| overrides.at(Timestamp::from_second(second).unwrap()).pins().count();
        assert_eq!((left(9), left(10), left(19), left(20)), (3, 2, 2, 1));
        assert_eq!(overrides.next_end(), Timestamp::from_second(10).ok());
        assert_eq!(overrides.at(Timestamp::from_second(20).unwrap()).next_end(), None);
    }

    #[test]
    fn a_name_that_haproxy_would_misread_is_no_override() {
        let mut overrides = Overrides::default();
        let drained = |master: &str, to: Option<&str>| DrainedMaster {
            master: master.to_owned(),
            to: to.map(str::to_owned),
            since: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(overrides.add_pin(pin("two words", None)), Err(Invalid::KeyWhitespace));
        assert_eq!(
            overrides.add_pin(Pin { master: String::new(), ..pin("a", None) }),
            Err(Invalid::EmptyValue)
        );
        assert_eq!(overrides.add_drain(drained("m 1", None)), Err(Invalid::ValueWhitespace));
        assert_eq!(overrides.add_drain(drained("m1", Some("#m2"))), Err(Invalid::ValueMark));
        assert!(overrides.is_empty());
    }
}
