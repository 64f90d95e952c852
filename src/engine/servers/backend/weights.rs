//! Weights that a list had said, and says no more: an instance has them until somebody says another
//! one.

use std::collections::BTreeMap;
use std::time::Duration;

use mapsmith_core::Server;
use mapsmith_core::overrides::RELEASED_KEPT;

/// By server, the weight that the list had said, and until when an instance that has it still is
/// taken for one that has not heard. Who says the same one later means it.
#[derive(Debug, Clone, Default)]
pub(super) struct EndedWeights(BTreeMap<String, (u16, Duration)>);

impl EndedWeights {
    /// Takes down which servers of the new list have lost the weight that the old one said.
    pub(super) fn note(
        &mut self,
        old: &BTreeMap<String, Server>,
        new: &BTreeMap<String, Server>,
        now: Duration,
    ) {
        self.0.retain(|name, _| new.get(name).is_some_and(|server| server.weight.is_none()));
        let of_old = |name: &String| old.get(name).and_then(|server| server.weight);
        let without = new.iter().filter(|(_, server)| server.weight.is_none());
        let until = now.saturating_add(RELEASED_KEPT);
        let lost = without.filter_map(|(name, _)| Some((name.clone(), (of_old(name)?, until))));
        self.0.extend(lost);
    }

    /// Forgets what ended long ago.
    pub(super) fn expire(&mut self, now: Duration) {
        self.0.retain(|_, (_, until)| *until > now);
    }

    pub(super) fn weights(&self) -> BTreeMap<String, u16> {
        self.0.iter().map(|(name, (weight, _))| (name.clone(), *weight)).collect()
    }
}

#[cfg(test)]
mod tests {
    use haproxy_runtime::server::ServerAddress;
    use mapsmith_core::server::ServerOptions;

    use super::*;

    fn list(weight: Option<u16>) -> BTreeMap<String, Server> {
        let server = Server {
            name: "a".to_owned(),
            address: ServerAddress { ip: [127, 0, 0, 1].into(), port: 80 },
            weight,
            backup: false,
            options: ServerOptions::default(),
        };
        [("a".to_owned(), server)].into()
    }

    #[test]
    fn a_weight_that_a_list_says_no_more_ends_and_later_it_is_somebodys() {
        let (mut ended, at) = (EndedWeights::default(), Duration::from_secs);
        ended.note(&list(None), &list(None), at(0));
        assert_eq!(ended.weights(), BTreeMap::new());
        ended.note(&list(Some(20)), &list(None), at(10));
        assert_eq!(ended.weights(), [("a".to_owned(), 20)].into());
        ended.note(&list(None), &list(None), at(20));
        ended.expire(at(10) + RELEASED_KEPT - at(1));
        assert_eq!(ended.weights(), [("a".to_owned(), 20)].into(), "an instance may be away");
        ended.expire(at(10) + RELEASED_KEPT);
        assert_eq!(ended.weights(), BTreeMap::new());
        ended.note(&list(Some(20)), &list(None), at(10));
        ended.note(&list(None), &list(Some(20)), at(20));
        assert_eq!(ended.weights(), BTreeMap::new(), "it is listed again");
    }
}
