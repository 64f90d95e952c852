//! Learned routes: reads an instance's stick table, shows what it has, and forgets what is settled.
//!
//! HAProxy looks into this table before the map, so a route stays only as long as the registries
//! don't know it: it goes once the map in this instance's memory has the same master, or once a
//! newer answer says something else. An operator's order counts more than what was learned: a route
//! past a node's pin, or to a drained master, is forgotten each time it is seen. It is never the
//! map's business: whatever fails here, the map is kept all the same.
//!
//! Between peers (`peers` on the stick table) a forgotten route does not travel, but every use of
//! one does. So each instance is cleared by itself, and again until none comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haproxy_runtime::table::Row;
use haproxy_runtime::{InvalidName, RuntimeError, TableClient, TableName};
use jiff::Timestamp;
use mapsmith_core::learned::{LearnedStatus, Settled};
use mapsmith_core::{EntryMap, LearnedRoute, Overrides, names};
use metrics::{counter, gauge};
use rustc_hash::{FxHashMap, FxHashSet};

use super::rest::{self, Rest};
use crate::engine::RequestLookups;
use crate::settings;
use crate::telemetry::{LEARNED_FORGOTTEN, LEARNED_OLDEST_AGE, LEARNED_REJECTED, LEARNED_ROUTES};

/// So many rows are read for each route that may be kept: keys come from clients' headers, and
/// those that are no node must not hide the others.
const ROWS_A_ROUTE: usize = 2;

/// A route as it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownRoute {
    /// One copy a master and reading, however many nodes have it.
    master: Arc<str>,
    since: Timestamp,
    /// What the map had for the node then: only another answer than that is a newer one.
    mapped: Option<Arc<str>>,
    /// Why HAProxy was told to forget it, if it was. It may still be there after that: a request
    /// held it, or a peer brought it back.
    settled: Option<Settled>,
    /// The reading that saw it last.
    reading: u64,
}

impl KnownRoute {
    /// Whether the route is settled, now that the map has `mapped` for the node, with these
    /// overrides in it.
    fn settled_by(
        &self,
        mapped: Option<&str>,
        node: &str,
        overrides: &Overrides,
    ) -> Option<Settled> {
        let master = &*self.master;
        let is_ordered = overrides.pin(node).is_some()
            || overrides.block(node).is_some()
            || overrides.drain(master).is_some();
        if mapped != Some(master) && is_ordered {
            return Some(Settled::Overridden);
        }
        if mapped == Some(master) {
            Some(Settled::Agreed)
        } else if mapped != self.mapped.as_deref() {
            Some(Settled::Contradicted)
        } else {
            None
        }
    }
}

/// The one copy of a name that `names` has.
fn shared(names: &mut FxHashSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    let new: Arc<str> = name.into();
    names.insert(Arc::clone(&new));
    new
}

/// A row that can be a route: node, master and for how long HAProxy keeps it.
type RouteRow = (String, Arc<str>, Duration);

/// What one reading of the table brought.
#[derive(Debug, Default)]
struct Rows {
    routes: Vec<RouteRow>,
    /// Rows that can be none.
    malformed: u64,
    /// Rows beyond the bound.
    truncated: u64,
}

/// An instance's stick table of learned routes.
pub struct LearnedTable {
    client: TableClient,
    instance: String,
    max: usize,
    known: FxHashMap<String, KnownRoute>,
    routes: Arc<[LearnedRoute]>,
    rest: Rest,
    /// How many readings there were.
    readings: u64,
    status: LearnedStatus,
    request_lookups: RequestLookups,
}

impl LearnedTable {
    /// From the settings; none where they name no table. Touches nothing yet.
    ///
    /// # Errors
    /// A name that can be no table's.
    pub fn from_settings(
        instance: &settings::Instance,
        learned: &settings::Learned,
        request_lookups: RequestLookups,
    ) -> Result<Option<Self>, InvalidName> {
        let Some(table) = &learned.table else { return Ok(None) };
        let client = instance.table_client(TableName::new(table)?);
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        for reason in Settled::ALL {
            let (haproxy, reason) = (instance.name.clone(), reason.label());
            counter!(LEARNED_FORGOTTEN, "haproxy" => haproxy, "reason" => reason).increment(0);
        }
        Ok(Some(Self {
            client,
            instance: instance.name.clone(),
            max: learned.max,
            known: FxHashMap::default(),
            routes: Arc::new([]),
            rest: Rest::none(Instant::now()),
            readings: 0,
            status: LearnedStatus {
                table: table.clone(),
                routes: 0,
                since: None,
                malformed: 0,
                truncated: 0,
                forgotten: Default::default(),
                error: None,
            },
            request_lookups,
        }))
    }

    /// In figures, as of the last read.
    pub fn status(&self) -> &LearnedStatus {
        &self.status
    }

    /// Reads the table, forgets what is settled by `map`, which this instance was seen to hold, and
    /// gives what stays, sorted by node. Where the table can't be read or changed the status says
    /// why; what was seen before stays then. `overrides` are those in the map.
    pub async fn follow(
        &mut self,
        map: &EntryMap,
        overrides: &Overrides,
        now: Timestamp,
    ) -> Arc<[LearnedRoute]> {
        if self.rest.is_over(Instant::now()) {
            let began = Instant::now();
            let ((), worked) =
                rest::metered(self.look_now(map, overrides, now), rest::processor_time).await;
            self.rest = Rest::after(Instant::now(), began.elapsed(), worked);
        }
        Arc::clone(&self.routes)
    }

    async fn look_now(&mut self, map: &EntryMap, overrides: &Overrides, now: Timestamp) {
        let error =
            self.read_and_forget(map, overrides, now).await.err().map(|error| error.to_string());
        let (instance, table) = (&self.instance, &self.status.table);
        match (&error, &self.status.error) {
            (Some(error), before) if before.as_ref() != Some(error) => {
                tracing::warn!(
                    instance,
                    table,
                    "cannot update learned routes (the map is not affected): {error}"
                );
            }
            (None, Some(_)) => tracing::info!(instance, table, "learned routes are kept again"),
            _ => {}
        }
        self.status.error = error;
        self.record(now);
        (self.request_lookups)(&self.routes);
    }

    async fn read_and_forget(
        &mut self,
        map: &EntryMap,
        overrides: &Overrides,
        now: Timestamp,
    ) -> Result<(), RuntimeError> {
        let rows = self.read().await?;
        self.status.malformed = rows.malformed;
        self.status.truncated = rows.truncated;
        let settled = self.take(rows.routes, map, overrides, now);
        self.client.forget(settled.iter().map(String::as_bytes)).await?;
        Ok(())
    }

    /// Keys are whatever clients sent: only a valid node can be a route.
    async fn read(&self) -> Result<Rows, RuntimeError> {
        let mut rows = Rows::default();
        let mut masters = FxHashSet::default();
        let each = |row: Row| {
            let node =
                String::from_utf8(row.key).ok().filter(|node| names::check_key(node).is_ok());
            match (node, row.server) {
                (Some(_), Some(_)) if rows.routes.len() == self.max => rows.truncated += 1,
                (Some(node), Some(master)) => {
                    rows.routes.push((node, shared(&mut masters, &master), row.expires_in));
                }
                _ => rows.malformed += 1,
            }
        };
        let (_, truncated) = self.client.list(self.max.saturating_mul(ROWS_A_ROUTE), each).await?;
        rows.truncated += truncated;
        Ok(rows)
    }

    /// Notes what is new and what is gone, and gives the nodes whose route is settled.
    fn take(
        &mut self,
        rows: Vec<RouteRow>,
        map: &EntryMap,
        overrides: &Overrides,
        now: Timestamp,
    ) -> Vec<String> {
        self.readings += 1;
        let reading = self.readings;
        let mut masters = FxHashSet::default();
        let (mut routes, mut settled) = (Vec::with_capacity(rows.len()), Vec::new());
        for (node, master, expires_in) in rows {
            let mapped = map.get(&node);
            // Another master than before is another route: what the map says now is older than it.
            let known = match self.known.get_mut(&node).filter(|known| known.master == master) {
                Some(known) => known,
                None => self
                    .known
                    .entry(node.clone())
                    .insert_entry(KnownRoute {
                        master: Arc::clone(&master),
                        since: now,
                        mapped: mapped.map(|mapped| shared(&mut masters, mapped)),
                        settled: None,
                        reading,
                    })
                    .into_mut(),
            };
            known.reading = reading;
            known.settled = known.settled_by(mapped, &node, overrides);
            if known.settled.is_some() {
                settled.push(node);
            } else {
                let expires = now.checked_add(expires_in).unwrap_or(Timestamp::MAX);
                routes.push(LearnedRoute {
                    node,
                    master: master.to_string(),
                    since: known.since,
                    expires,
                });
            }
        }
        routes.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        self.routes = routes.into();
        self.known.retain(|node, known| {
            let seen = known.reading == reading;
            if let Some(reason) = known.settled.filter(|_| !seen) {
                *self.status.forgotten.entry(reason).or_default() += 1;
                let (haproxy, reason) = (self.instance.clone(), reason.label());
                tracing::debug!(instance = haproxy, node, reason, "learned route forgotten");
                counter!(LEARNED_FORGOTTEN, "haproxy" => haproxy, "reason" => reason).increment(1);
            }
            seen
        });
        // What a flood of routes took is given back when it is over.
        self.known.shrink_to(2 * self.known.len());
        settled
    }

    fn record(&mut self, now: Timestamp) {
        let status = &mut self.status;
        status.routes = self.routes.len();
        status.since = self.routes.iter().map(|route| route.since).min();
        let age =
            status.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
        gauge!(LEARNED_ROUTES, "haproxy" => self.instance.clone()).set(status.routes as f64);
        gauge!(LEARNED_OLDEST_AGE, "haproxy" => self.instance.clone()).set(age);
        gauge!(LEARNED_REJECTED, "haproxy" => self.instance.clone())
            .set((status.malformed + status.truncated) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_settled_by_agreement_or_by_a_newer_answer_alone() {
        let known = |mapped: Option<&str>| KnownRoute {
            master: "m2".into(),
            since: Timestamp::UNIX_EPOCH,
            mapped: mapped.map(Arc::from),
            settled: None,
            reading: 0,
        };
        for (before, now, settled) in [
            (Some("m1"), Some("m2"), Some(Settled::Agreed)),
            (Some("m1"), Some("m1"), None),
            (Some("m1"), Some("m3"), Some(Settled::Contradicted)),
            (Some("m1"), None, Some(Settled::Contradicted)),
            (None, None, None),
            (None, Some("m2"), Some(Settled::Agreed)),
            (None, Some("m1"), Some(Settled::Contradicted)),
            // Learned although the map had it: a leftover.
            (Some("m2"), Some("m2"), Some(Settled::Agreed)),
        ] {
            assert_eq!(
                known(before).settled_by(now, "n", &Overrides::default()),
                settled,
                "{before:?} -> {now:?}"
            );
        }
    }

    #[test]
    fn an_operators_order_counts_more_than_what_was_learned() {
        let mut overrides = Overrides::default();
        let pin = |node: &str, master: &str| mapsmith_core::Pin {
            node: node.to_owned(),
            master: master.to_owned(),
            since: Timestamp::UNIX_EPOCH,
            until: None,
            note: mapsmith_core::Note::default(),
        };
        overrides.add_pin(pin("pinned", "m1")).unwrap();
        overrides.add_pin(pin("kept", "m2")).unwrap();
        let drained = mapsmith_core::DrainedMaster {
            master: "m2".to_owned(),
            to: None,
            since: Timestamp::UNIX_EPOCH,
            note: mapsmith_core::Note::default(),
        };
        overrides.add_drain(drained).unwrap();
        for (node, learned, mapped, settled) in [
            ("pinned", "m3", "m1", Some(Settled::Overridden)),
            ("pinned", "m1", "m1", Some(Settled::Agreed)),
            ("other", "m2", "m1", Some(Settled::Overridden)),
            // Pinned to the drained master.
            ("kept", "m2", "m2", Some(Settled::Agreed)),
            ("other", "m3", "m1", None),
        ] {
            let known = KnownRoute {
                master: learned.into(),
                since: Timestamp::UNIX_EPOCH,
                mapped: Some(mapped.into()),
                settled: None,
                reading: 0,
            };
            assert_eq!(
                known.settled_by(Some(mapped), node, &overrides),
                settled,
                "{node} {learned} {mapped}"
            );
        }
    }

    fn table(max: usize) -> LearnedTable {
        let instance = serde_json::from_value(
            serde_json::json!({"name": "edge1", "runtime": "unix@/nonexistent"}),
        )
        .unwrap();
        let settings = settings::Learned { table: Some("puppet".to_owned()), max };
        LearnedTable::from_settings(&instance, &settings, Box::new(|_| {})).unwrap().unwrap()
    }

    fn read(
        table: &mut LearnedTable,
        rows: &[(&str, &str)],
        map: &[(&str, &str)],
        second: i64,
    ) -> Vec<String> {
        let rows = rows
            .iter()
            .map(|(node, master)| ((*node).to_owned(), (*master).into(), Duration::from_secs(600)))
            .collect();
        table.take(
            rows,
            &map.iter().copied().collect(),
            &Overrides::default(),
            Timestamp::from_second(second).unwrap(),
        )
    }

    fn shown(table: &LearnedTable) -> Vec<(&str, &str, i64)> {
        table
            .routes
            .iter()
            .map(|route| (route.node.as_str(), route.master.as_str(), route.since.as_second()))
            .collect()
    }

    #[test]
    fn a_route_is_known_since_it_was_first_seen_and_counts_as_forgotten_once_it_is_gone() {
        let mut table = table(10);
        let map = [("a", "m1"), ("b", "m1")];
        assert!(read(&mut table, &[("b", "m2"), ("a", "m2")], &map, 1).is_empty());
        assert!(read(&mut table, &[("b", "m3"), ("a", "m2")], &map, 2).is_empty());
        assert_eq!(shown(&table), [("a", "m2", 1), ("b", "m3", 2)]);
        let map = [("a", "m2"), ("b", "m2")];
        assert_eq!(read(&mut table, &[("a", "m2"), ("b", "m3")], &map, 3), ["a", "b"]);
        assert!(table.routes.is_empty() && table.status.forgotten.is_empty());
        // A request held the one, or a peer brought it back: the verdict stays.
        assert_eq!(read(&mut table, &[("b", "m3")], &map, 4), ["b"]);
        assert_eq!(table.status.forgotten, [(Settled::Agreed, 1)].into());
        assert!(read(&mut table, &[], &map, 5).is_empty());
        assert_eq!(
            table.status.forgotten,
            [(Settled::Agreed, 1), (Settled::Contradicted, 1)].into()
        );
    }

    #[test]
    fn a_route_that_expired_was_not_forgotten_by_us() {
        let mut table = table(10);
        read(&mut table, &[("a", "m2")], &[("a", "m1")], 1);
        read(&mut table, &[], &[("a", "m1")], 2);
        assert!(table.routes.is_empty() && table.status.forgotten.is_empty());
    }

    #[test]
    fn what_a_flood_of_routes_took_is_given_back_when_it_is_over() {
        let mut table = table(100_000);
        let names: Vec<_> = (0..50_000).map(|number| format!("n{number}")).collect();
        let flood: Vec<_> = names.iter().map(|name| (name.as_str(), "m2")).collect();
        read(&mut table, &flood, &[], 1);
        assert_eq!((table.routes.len(), table.known.len()), (50_000, 50_000));
        read(&mut table, &flood[..10], &[], 2);
        assert_eq!(shown(&table).len(), 10);
        assert!(table.known.capacity() < 100, "{} routes have room", table.known.capacity());
        assert!(
            shown(&table).iter().all(|(_, _, since)| *since == 1),
            "those that stay are known since they were first seen"
        );
    }
}
