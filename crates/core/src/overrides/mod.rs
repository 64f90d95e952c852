//! What an operator orders beside the registries: nodes pinned to a master or kept out of the map,
//! masters whose nodes go elsewhere, and servers that are taken out or weighted.

mod servers;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use servers::{
    MOST_SERVERS, OrderedState, RELEASED_KEPT, Released, ServerEdit, ServerOrder, ServerOverride,
};

use crate::names::{self, Invalid};

/// A backend and a server of it.
type Place = (String, String);

/// The most characters of a reason.
pub const LONGEST_REASON: usize = 500;

/// What is known of an order beside what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// Why it was given; at most [`LONGEST_REASON`] characters, none of them a control character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who gave it, where the API knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A node that goes to one master whatever the sources say, known to them or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// The node, as the map has it.
    pub node: String,
    /// The master, by HAProxy's name.
    pub master: String,
    pub since: Timestamp,
    /// When it ends by itself; none where only `unpin` ends it.
    pub until: Option<Timestamp>,
    #[serde(flatten)]
    pub note: Note,
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

/// A node that is in no map whatever the sources say, known to them or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockedNode {
    /// The node, as the map has it.
    pub node: String,
    pub since: Timestamp,
    /// When it ends by itself; none where only `unblock` ends it.
    pub until: Option<Timestamp>,
    #[serde(flatten)]
    pub note: Note,
}

impl BlockedNode {
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// A master whose nodes go to other masters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainedMaster {
    /// The master, by HAProxy's name.
    pub master: String,
    /// The master that gets all its nodes; none where they are spread over the others.
    pub to: Option<String>,
    pub since: Timestamp,
    #[serde(flatten)]
    pub note: Note,
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
    /// Pins a node; a pin that it has is replaced, and it is blocked no more.
    Pin(Pin),
    Unpin {
        /// The node, as the map has it.
        node: String,
        now: Timestamp,
        note: Note,
    },
    /// Keeps a node out of the map; a pin that it has ends.
    Block(BlockedNode),
    Unblock {
        /// The node, as the map has it.
        node: String,
        now: Timestamp,
        note: Note,
    },
    /// Drains a master; a drain that it has is replaced.
    Drain(DrainedMaster),
    /// Gives a master its nodes back.
    Undrain {
        master: String,
        /// Whether nodes that the registry names another master for by now stay there.
        stay: bool,
        now: Timestamp,
        note: Note,
    },
    /// Orders something of a server; an override that it has is replaced.
    SetServer(ServerOverride),
    /// Ends a server's override.
    ResetServer {
        backend: String,
        server: String,
        now: Timestamp,
        note: Note,
    },
    Expire {
        now: Timestamp,
    },
    /// Mapsmith starts: what is over ends, and nobody was there to bring servers back that were
    /// released lately.
    Begin {
        now: Timestamp,
    },
}

impl OverrideChange {
    /// Why it is made, and by whom; nothing is known of what the clock does.
    pub fn note(&self) -> Note {
        match self {
            Self::Pin(Pin { note, .. })
            | Self::Unpin { note, .. }
            | Self::Block(BlockedNode { note, .. })
            | Self::Unblock { note, .. }
            | Self::Drain(DrainedMaster { note, .. })
            | Self::Undrain { note, .. }
            | Self::SetServer(ServerOverride { note, .. })
            | Self::ResetServer { note, .. } => note.clone(),
            Self::Expire { .. } | Self::Begin { .. } => Note::default(),
        }
    }
}

/// All overrides. Every name in them is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    number: u64,
    pins: BTreeMap<String, Pin>,
    blocked: BTreeMap<String, BlockedNode>,
    drained: BTreeMap<String, DrainedMaster>,
    ended: Vec<EndedOverride>,
    servers: BTreeMap<Place, ServerOverride>,
    released: BTreeMap<Place, Released>,
    note: Note,
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

    /// The blocked nodes, sorted by node.
    pub fn blocked(&self) -> impl ExactSizeIterator<Item = &BlockedNode> {
        self.blocked.values()
    }

    pub fn block(&self, node: &str) -> Option<&BlockedNode> {
        self.blocked.get(node)
    }

    /// Why the latest change of them was made, and by whom, as far as that is known.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// The same, with what is known of the change that led to them.
    pub fn with_note(self, note: Note) -> Self {
        Self { note, ..self }
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

    /// The overrides of servers, sorted by backend and server.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = &ServerOverride> {
        self.servers.values()
    }

    pub fn server(&self, backend: &str, server: &str) -> Option<&ServerOverride> {
        self.servers.get(&(backend.to_owned(), server.to_owned()))
    }

    /// The servers whose override has ended within [`RELEASED_KEPT`]: backend, server, and what
    /// there was.
    pub fn released(&self) -> impl Iterator<Item = (&str, &str, &Released)> {
        self.released.iter().map(|((backend, server), released)| (&**backend, &**server, released))
    }

    /// Remembers a server whose override has ended.
    pub fn add_released(&mut self, backend: String, server: String, released: Released) {
        self.released.insert((backend, server), released);
    }

    /// Adds a server's override, instead of what was ordered of it before.
    pub fn add_server(&mut self, ordered: ServerOverride) -> Result<(), Invalid> {
        ordered.check()?;
        let place = (ordered.backend.clone(), ordered.server.clone());
        self.servers.insert(place, ordered);
        Ok(())
    }

    /// Remembers a pin or drain that has ended.
    pub fn add_ended(&mut self, ended: EndedOverride) {
        self.ended.push(ended);
    }

    /// Whether nothing is pinned, blocked or drained: the map is what the sources say.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.blocked.is_empty() && self.drained.is_empty()
    }

    /// Adds a pin, instead of what was ordered for its node before.
    pub fn add_pin(&mut self, pin: Pin) -> Result<(), Invalid> {
        names::check_key(&pin.node)?;
        names::check_value(&pin.master)?;
        self.blocked.remove(&pin.node);
        self.pins.insert(pin.node.clone(), pin);
        Ok(())
    }

    /// Adds a blocked node, instead of what was ordered for it before.
    pub fn add_block(&mut self, blocked: BlockedNode) -> Result<(), Invalid> {
        names::check_key(&blocked.node)?;
        self.pins.remove(&blocked.node);
        self.blocked.insert(blocked.node.clone(), blocked);
        Ok(())
    }

    /// Adds a drained master, instead of what was ordered for it before.
    pub fn add_drain(&mut self, drained: DrainedMaster) -> Result<(), Invalid> {
        names::check_value(&drained.master)?;
        drained.to.as_deref().map_or(Ok(()), names::check_value)?;
        self.drained.insert(drained.master.clone(), drained);
        Ok(())
    }

    /// Without what is over then, which has ended.
    pub fn at(&self, now: Timestamp) -> Self {
        let mut left = self.clone();
        for pin in self.pins.values().filter(|pin| pin.is_over(now)) {
            left.pins.remove(&pin.node);
            left.ended.extend(pin.until.map(|until| pin.ended(until)));
        }
        left.blocked.retain(|_, blocked| !blocked.is_over(now));
        for (place, over) in self.servers.iter().filter(|(_, server)| server.is_over(now)) {
            left.servers.remove(place);
            let at = over.until.unwrap_or(now);
            left.released.insert(place.clone(), Released { at, weight: over.order.weight });
        }
        left.released.retain(|_, released| released.until() > now);
        left
    }

    pub fn next_end(&self) -> Option<Timestamp> {
        let blocked = self.blocked.values().filter_map(|blocked| blocked.until);
        let servers = self.servers.values().filter_map(|server| server.until);
        let released = self.released.values().map(Released::until);
        let ends = self.pins.values().filter_map(|pin| pin.until).chain(blocked);
        ends.chain(servers).chain(released).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(node: &str, until: Option<i64>) -> Pin {
        let until = until.map(|second| Timestamp::from_second(second).unwrap());
        let (node, master) = (node.to_owned(), "m1".to_owned());
        Pin { node, master, since: Timestamp::UNIX_EPOCH, until, note: Note::default() }
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
    fn a_node_is_pinned_or_blocked_as_was_ordered_last() {
        let blocked = |until: Option<i64>| BlockedNode {
            node: "a".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            until: until.map(|second| Timestamp::from_second(second).unwrap()),
            note: Note::default(),
        };
        let mut overrides = Overrides::default();
        let kinds = |overrides: &Overrides| (overrides.pins().len(), overrides.blocked().len());
        overrides.add_pin(pin("a", None)).unwrap();
        overrides.add_block(blocked(Some(10))).unwrap();
        assert_eq!(kinds(&overrides), (0, 1));
        assert_eq!(overrides.next_end(), Timestamp::from_second(10).ok());
        assert!(overrides.at(Timestamp::from_second(10).unwrap()).is_empty());
        overrides.add_pin(pin("a", None)).unwrap();
        assert_eq!(kinds(&overrides), (1, 0));
        let two_words = BlockedNode { node: "two words".to_owned(), ..blocked(None) };
        assert_eq!(overrides.add_block(two_words), Err(Invalid::KeyWhitespace));
    }

    #[test]
    fn a_name_that_haproxy_would_misread_is_no_override() {
        let mut overrides = Overrides::default();
        let drained = |master: &str, to: Option<&str>| DrainedMaster {
            master: master.to_owned(),
            to: to.map(str::to_owned),
            since: Timestamp::UNIX_EPOCH,
            note: Note::default(),
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

    fn ordered(state: Option<OrderedState>, weight: Option<u16>) -> ServerOverride {
        ServerOverride {
            backend: "web".to_owned(),
            server: "a".to_owned(),
            order: ServerOrder { state, weight },
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::from_second(10).ok(),
            note: Note::default(),
        }
    }

    #[test]
    fn a_server_whose_override_is_over_is_remembered_for_a_while() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut overrides = Overrides::default();
        overrides.add_server(ordered(Some(OrderedState::Maint), Some(7))).unwrap();
        assert!(overrides.is_empty(), "the map does not depend on it");
        assert_eq!(overrides.next_end(), Some(at(10)));
        assert!(overrides.at(at(9)).server("web", "a").is_some());
        let left = overrides.at(at(10));
        assert!(left.server("web", "a").is_none());
        let released = Released { at: at(10), weight: Some(7) };
        assert_eq!(left.released().collect::<Vec<_>>(), [("web", "a", &released)]);
        let kept = i64::try_from(RELEASED_KEPT.as_secs()).unwrap();
        assert_eq!(left.next_end(), Some(at(10 + kept)));
        assert_eq!(left.at(at(9 + kept)).released().count(), 1);
        assert_eq!(left.at(at(10 + kept)).released().count(), 0);
    }

    #[test]
    fn a_change_of_a_server_leaves_what_it_does_not_name() {
        let before = ordered(Some(OrderedState::Drain), Some(7));
        let until = before.until;
        let keep = ServerEdit::default();
        assert_eq!(keep.over(Some(&before)), (before.order, until));
        assert_eq!(keep.over(None), (ServerOrder::default(), None));
        let edit = ServerEdit { weight: Some(None), until: Some(None), ..keep };
        let state = Some(OrderedState::Drain);
        assert_eq!(edit.over(Some(&before)), (ServerOrder { state, weight: None }, None));
        let edit = ServerEdit { state: Some(None), weight: Some(None), ..keep };
        assert!(edit.over(Some(&before)).0.is_empty());
    }

    #[test]
    fn no_server_that_a_command_can_not_name_has_an_override() {
        let mut overrides = Overrides::default();
        let named = |backend: &str, server: &str| {
            let (backend, server) = (backend.to_owned(), server.to_owned());
            ServerOverride { backend, server, ..ordered(Some(OrderedState::Maint), None) }
        };
        for (backend, server) in [("web", ""), ("web", "a b"), ("w;b", "a"), ("web", "a\n")] {
            let added = overrides.add_server(named(backend, server));
            assert_eq!(added, Err(Invalid::ServerName), "{backend:?} {server:?}");
        }
        let heavy = overrides.add_server(ordered(None, Some(257)));
        assert_eq!(heavy, Err(Invalid::ServerWeight));
        assert_eq!(overrides.servers().len(), 0);
    }
}
