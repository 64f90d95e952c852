//! Comparisons, and that what is compared is only read.

use mapsmith_core::Snapshot;
use mapsmith_core::desired::shadow::DifferenceKind;
use mapsmith_core::server::list::{RawServer, Repeats, ServerListBuilder};
use mapsmith_core::status::BackendStatus;

use tokio::task::JoinHandle;

use super::*;

fn state<C: Content>(name: &str, content: Option<C>) -> SourceState<C> {
    let mut state = SourceState::before_first_poll(name.to_owned(), "file".to_owned(), true);
    state.snapshot = content.map(|content| Snapshot {
        entries: Arc::new(content),
        rejections: Arc::default(),
        answered_at: Timestamp::UNIX_EPOCH,
    });
    state
}

fn map(entries: &[(&str, &str)]) -> Option<EntryMap> {
    Some(entries.iter().copied().collect())
}

fn list(addresses: &[&str]) -> ServerList {
    let mut builder = ServerListBuilder::default();
    for (index, address) in addresses.iter().enumerate() {
        let name = Some(format!("s{index}"));
        let raw = RawServer { name, address: (*address).to_owned(), ..RawServer::default() };
        builder.push(&format!("row {index}"), raw);
    }
    builder.finish(Repeats::First).0
}

fn backend() -> Backend {
    let text = serde_json::json!({"name": "web", "from": "old", "shadow_from": "new"});
    serde_json::from_value(text).unwrap()
}

fn servers_of(backend: &Backend, list: &ServerList) -> Vec<Server> {
    let options = BackendOptions::new(backend.default_options(), Vec::new());
    servers::resolve(list, &options, |_| Err("no host names here")).servers.into_values().collect()
}

#[test]
fn a_node_map_is_compared_with_what_the_other_sources_say_together() {
    let first = state("first", map(&[("a", "m1"), ("b", "m1")]));
    let second = state("second", map(&[("b", "m2"), ("c", "m2")]));
    let sources = [first, second.clone()];
    let same = compare_maps(&state("new", map(&[("a", "m1"), ("b", "m1"), ("c", "m2")])), &sources);
    assert_eq!(same.differences.unwrap().to_string(), "no difference");
    let found = compare_maps(&state("new", map(&[("a", "m2"), ("d", "m1")])), &sources);
    assert_eq!(found.differences.unwrap().to_string(), "2 missing, 1 extra, 1 elsewhere");
    for (shadow, sources, words) in [
        (state("new", None), &sources[..], "a first answer of source new"),
        (state("new", map(&[])), &[state("old", None), second], "a first answer of source old"),
    ] {
        let found = compare_maps(&shadow, sources);
        assert_eq!((found.waiting_for.as_deref(), found.differences), (Some(words), None));
    }
}

#[tokio::test]
async fn a_list_is_compared_with_the_servers_in_force_and_names_what_does_not_resolve() {
    let backend = backend();
    let in_force = servers_of(&backend, &list(&["10.0.0.1:80", "10.0.0.2:80"]));
    let mut hosts = ShadowHosts::new(Duration::ZERO);
    let new = list(&["10.0.0.1:80", "nowhere.invalid:80", "localhost:80"]);
    let shadow = state("new", Some(new));
    let found = compare_list(&backend, &shadow, Some(&in_force), &mut hosts).await;
    assert_eq!(found.differences.unwrap().to_string(), "1 missing, 1 extra");
    assert!(found.rejected[0].reason.contains("nowhere.invalid"), "{:?}", found.rejected);
    let found = compare_list(&backend, &shadow, None, &mut hosts).await;
    assert_eq!(found.waiting_for.as_deref(), Some("the servers of backend web"));
    let silent = state("new", None);
    let found = compare_list(&backend, &silent, Some(&in_force), &mut hosts).await;
    assert_eq!(found.waiting_for.as_deref(), Some("a first answer of source new"));
}

#[tokio::test]
async fn a_map_is_compared_again_when_either_side_says_something_else_and_outlives_both() {
    let mut shadows = Shadows::default();
    let (old, old_state) = watch::channel(state("old", map(&[("a", "m1")])));
    let (new, new_state) = watch::channel(state("new", map(&[])));
    let compared = shadows.add(new_state.clone(), None);
    let mut seen = compared.subscribe();
    let task = tokio::spawn(follow_map(new_state, vec![old_state], compared));
    let mut says = async |words: &str| {
        let is_it = |compared: &Compared| {
            compared.differences.as_ref().is_some_and(|found| found.to_string() == words)
        };
        let found = tokio::time::timeout(Duration::from_secs(60), seen.wait_for(is_it)).await;
        assert!(found.is_ok(), "{words:?} was not found");
    };
    says("1 missing").await;
    new.send_replace(state("new", map(&[("a", "m1")])));
    says("no difference").await;
    old.send_replace(state("old", map(&[("a", "m2")])));
    says("1 elsewhere").await;
    drop((old, new));
    let mut task = task;
    assert!(tokio::time::timeout(SPACING * 10, &mut task).await.is_err(), "it has ended");
    let status = &shadows.statuses()[0];
    assert_eq!((status.source.name.as_str(), status.backend.as_deref()), ("new", None));
    let differences = status.compared.differences.as_ref().unwrap();
    assert_eq!(differences.counts[&DifferenceKind::Elsewhere], 1);
    task.abort();
}

#[tokio::test]
async fn a_poll_that_failed_is_no_comparison() {
    let backend = backend();
    let servers = servers_of(&backend, &list(&["10.0.0.1:80"]));
    let status: BackendStatus = serde_json::from_value(serde_json::json!({
        "name": "web", "from": "source old", "servers": servers, "rejected": [], "stale": [],
        "leaving": [],
    }))
    .unwrap();
    let decision = Decision { backends: vec![status], ..Decision::default() };
    let (_decisions, decisions) = watch::channel(decision);
    let (new, shadow) = watch::channel(state("new", Some(list(&["10.0.0.2:80"]))));
    let (old_map, old_state) = watch::channel(state("old", map(&[("a", "m1")])));
    let (new_map, new_state) = watch::channel(state("new", map(&[])));
    let (of_list, mut list_seen) = watch::channel(Compared::default());
    let (of_map, mut map_seen) = watch::channel(Compared::default());
    let work = follow_list(backend.clone(), Duration::ZERO, shadow, decisions, of_list);
    let tasks = [tokio::spawn(work), tokio::spawn(follow_map(new_state, vec![old_state], of_map))];
    for seen in [&mut list_seen, &mut map_seen] {
        let at = seen.wait_for(|found| found.differences.is_some()).await.unwrap().compared_at;
        assert!(at.is_some());
        seen.mark_unchanged();
    }
    new.send_modify(|state| state.status.error = Some("refused".to_owned()));
    new_map.send_modify(|state| state.status.error = Some("refused".to_owned()));
    old_map.send_modify(|state| state.status.error = Some("refused".to_owned()));
    for seen in [&mut list_seen, &mut map_seen] {
        let found = tokio::time::timeout(SPACING * 30, seen.changed()).await;
        assert!(found.is_err(), "{:?}", seen.borrow());
    }
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_list_is_compared_again_when_the_servers_in_force_are_others() {
    let backend = backend();
    let decision = |addresses: &[&str]| {
        let servers = servers_of(&backend, &list(addresses));
        let status: BackendStatus = serde_json::from_value(serde_json::json!({
            "name": "web", "from": "source old", "servers": servers, "rejected": [], "stale": [],
            "leaving": [],
        }))
        .unwrap();
        Decision { backends: vec![status], ..Decision::default() }
    };
    let (in_force, decisions) = watch::channel(decision(&["10.0.0.1:80"]));
    let (_new, shadow) = watch::channel(state("new", Some(list(&["10.0.0.2:80"]))));
    let (sender, mut seen) = watch::channel(Compared::default());
    let work = follow_list(backend.clone(), Duration::ZERO, shadow, decisions, sender);
    let task = tokio::spawn(work);
    for words in ["1 elsewhere", "no difference"] {
        let is_it = |compared: &Compared| {
            compared.differences.as_ref().is_some_and(|found| found.to_string() == words)
        };
        seen.wait_for(is_it).await.unwrap();
        in_force.send_replace(decision(&["10.0.0.2:80"]));
    }
    task.abort();
}
