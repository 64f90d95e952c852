//! PuppetDB as a source: what is asked, when, and what its answers come to.

use mapsmith_core::Invalid;
use mapsmith_core::status::PollKind;
use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Registry, assert_says, entries, queries, rejected};

const FULL: &str = "factsets[certname, producer, producer_timestamp] {}";

fn row(certname: &str, producer: &str) -> Value {
    at(certname, producer, "11:00:00.000Z")
}

fn at(certname: &str, producer: &str, time: &str) -> Value {
    json!({
        "certname": certname,
        "producer": producer,
        "producer_timestamp": format!("2026-11-20T{time}"),
    })
}

fn answer(rows: Value) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .insert_header("Date", "Fri, 20 Nov 2026 11:58:30 GMT")
        .set_body_json(rows)
}

/// Gives these answers in order, each once.
async fn in_order(server: &MockServer, answers: Vec<ResponseTemplate>) {
    for answer in answers {
        Mock::given(method("POST"))
            .and(path("/pdb/query/v4"))
            .respond_with(answer)
            .up_to_n_times(1)
            .mount(server)
            .await;
    }
}

#[tokio::test]
async fn nodes_belong_to_the_producer_of_their_facts() {
    let server = MockServer::start().await;
    in_order(
        &server,
        vec![answer(json!([
            row("Node1", "puppet00"),
            row("node2", "puppet01"),
            row("node3", "other")
        ]))],
    )
    .await;
    let settings = json!({"masters": {"puppet00": "master1", "puppet01": "master2"}});
    let polled = Registry::puppetdb(&format!("{}/", server.uri()), settings).poll().await;
    assert_eq!(entries(&polled), [("node1", "master1"), ("node2", "master2"), ("node3", "other")]);
    assert_eq!(polled.kind, PollKind::Full);
    assert_eq!(queries(&server).await, [FULL]);
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.headers["user-agent"], format!("mapsmith/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.headers["content-type"], "application/json");
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    let server = MockServer::start().await;
    in_order(&server, vec![answer(json!([]))]).await;
    let polled = Registry::puppetdb(&server.uri(), json!({})).poll().await;
    assert_eq!((polled.kind, polled.entries.len(), polled.bytes), (PollKind::Full, 0, 2));
}

#[tokio::test]
async fn a_node_without_a_master_is_left_out_and_the_rest_goes_on() {
    let server = MockServer::start().await;
    let unowned = json!({"certname": "node1", "producer": null, "producer_timestamp": null});
    in_order(
        &server,
        vec![answer(json!([unowned, row("node2", "master1"), row("no de", "master1")]))],
    )
    .await;
    let polled = Registry::puppetdb(&server.uri(), json!({})).poll().await;
    assert_eq!(entries(&polled), [("node2", "master1")]);
    assert_eq!(
        rejected(&polled),
        [("no de", Invalid::KeyWhitespace), ("node1", Invalid::NoMaster)]
    );
}

#[tokio::test]
async fn of_two_rows_of_a_node_the_newest_counts() {
    let server = MockServer::start().await;
    let newer = at("NODE1", "z", "11:00:00.001Z");
    in_order(
        &server,
        vec![
            answer(json!([row("node1", "a"), newer.clone()])),
            answer(json!([newer, row("node1", "a")])),
        ],
    )
    .await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({"full_poll": "1s"}));
    for _ in 0..2 {
        let polled = registry.poll().await;
        assert_eq!(entries(&polled), [("node1", "z")]);
        assert_eq!(rejected(&polled), [("node1", Invalid::Conflict)]);
        registry.later(1);
    }
}

#[tokio::test]
async fn between_full_polls_only_what_changed_is_asked_for() {
    let server = MockServer::start().await;
    in_order(
        &server,
        vec![
            answer(json!([row("a", "m1"), row("b", "m1"), row("c", "m1")])),
            answer(json!([])),
            ResponseTemplate::new(200)
                .insert_header("Date", "Fri, 20 Nov 2026 12:01:00 GMT")
                .set_body_json(json!([
                    at("b", "m2", "12:00:57.000Z"),
                    at("d", "m1", "12:09:00.000Z"),
                    {"certname": "c", "producer": null},
                ])),
            answer(json!([row("a", "m1")])),
            answer(json!([row("a", "m2")])),
        ],
    )
    .await;
    let mut registry =
        Registry::puppetdb(&server.uri(), json!({"full_poll": "4m", "overlap": "3m"}));
    let full = registry.poll().await;
    registry.later(60);
    let unchanged = registry.poll().await;
    assert_eq!((unchanged.kind, unchanged.bytes), (PollKind::Delta, 2));
    assert!(std::sync::Arc::ptr_eq(&unchanged.entries, &full.entries));
    registry.later(60);
    let changed = registry.poll().await;
    assert_eq!(entries(&changed), [("a", "m1"), ("b", "m2"), ("d", "m1")]);
    assert_eq!(rejected(&changed), [("c", Invalid::NoMaster)]);
    registry.later(119);
    let same = registry.poll().await;
    assert!(std::sync::Arc::ptr_eq(&same.entries, &changed.entries));
    assert!(std::sync::Arc::ptr_eq(&same.rejections, &changed.rejections));
    // Four minutes after the last full poll: nodes that are gone without a trace go now.
    registry.later(1);
    let full = registry.poll().await;
    assert_eq!((full.kind, entries(&full)), (PollKind::Full, vec![("a", "m2")]));
    let delta = |since: &str| {
        format!(
            "factsets[certname, producer, producer_timestamp] \
                {{ producer_timestamp > \"{since}\" }}"
        )
    };
    assert_eq!(
        queries(&server).await,
        [
            FULL.to_owned(),
            // The newest time that a producer gave, less the overlap; of one that is ahead the
            // server's own time counts.
            delta("2026-11-20T10:57:00.000Z"),
            delta("2026-11-20T10:57:00.000Z"),
            delta("2026-11-20T11:58:00.000Z"),
            FULL.to_owned()
        ]
    );
}

#[tokio::test]
async fn a_reload_asks_for_everything_and_finds_what_is_gone() {
    let server = MockServer::start().await;
    let answers = [json!([row("a", "m1"), row("b", "m1")]), json!([row("a", "m1")]), json!([])];
    in_order(&server, answers.map(answer).to_vec()).await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    registry.poll().await;
    let reloaded = registry.poll_everything().await;
    assert_eq!((reloaded.kind, entries(&reloaded)), (PollKind::Full, vec![("a", "m1")]));
    assert_eq!(registry.poll().await.kind, PollKind::Delta);
    assert_eq!(queries(&server).await[..2], [FULL, FULL]);
}

/// Answered at a time of day that PuppetDB gives, to a question at 12:00:00 by this machine's
/// clock.
async fn answered_at(server: &MockServer, time: &str, rows: Value) {
    let answer = ResponseTemplate::new(200)
        .insert_header("Date", format!("Fri, 20 Nov 2026 {time} GMT"))
        .set_body_json(rows);
    Mock::given(method("POST")).respond_with(answer).up_to_n_times(1).mount(server).await;
}

#[tokio::test]
async fn clocks_that_differ_by_more_than_overlap_are_shown_and_make_all_polls_full_until_they_agree()
 {
    for (time, part) in
        [("12:10:00", "10m ahead of this machine's"), ("11:50:00", "10m behind this machine's")]
    {
        let server = MockServer::start().await;
        for time in [time, time, "12:01:00", "12:00:00"] {
            answered_at(&server, time, json!([at("a", "m1", "11:59:00.000Z")])).await;
        }
        let mut registry = Registry::puppetdb(&server.uri(), json!({"overlap": "2m"}));
        for _ in 0..2 {
            assert_eq!(registry.poll().await.kind, PollKind::Full);
            let warning = registry.source.notes().warning.expect("a warning");
            assert_says(
                &warning,
                &["PuppetDB's clock is", part, "all polls are full", "overlap (2m)"],
            );
        }
        assert_eq!(registry.poll().await.kind, PollKind::Full);
        assert_eq!(registry.source.notes().warning, None);
        assert_eq!(registry.poll().await.kind, PollKind::Delta);
    }
}

#[tokio::test]
async fn one_row_from_the_future_does_not_blind_the_deltas() {
    let server = MockServer::start().await;
    let future = json!({
        "certname": "b",
        "producer": "m1",
        "producer_timestamp": "2099-01-01T00:00:00.000Z",
    });
    answered_at(&server, "12:00:00", json!([at("a", "m1", "11:59:00.000Z"), future])).await;
    answered_at(&server, "12:00:00", json!([])).await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({"overlap": "2m"}));
    registry.poll().await;
    assert_eq!(registry.poll().await.kind, PollKind::Delta);
    assert!(queries(&server).await[1].contains("> \"2026-11-20T11:58:00.000Z\""));
}

#[tokio::test]
async fn after_a_failure_everything_is_asked_for_again() {
    let server = MockServer::start().await;
    let rows = || answer(json!([row("a", "m1")]));
    in_order(
        &server,
        vec![rows(), ResponseTemplate::new(500).set_body_string("down"), rows(), rows()],
    )
    .await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    registry.poll().await;
    assert_says(&registry.failure().await, &["failed (500)", "down"]);
    assert_eq!(registry.poll().await.kind, PollKind::Full);
    assert_eq!(registry.poll().await.kind, PollKind::Delta);
}

#[tokio::test]
async fn a_query_of_ones_own_is_followed_by_its_own_delta_or_by_full_polls() {
    let server = MockServer::start().await;
    let row = json!([{"name": "a", "value": "m1"}]);
    in_order(&server, vec![ResponseTemplate::new(200).set_body_json(row); 4]).await;
    let query = "facts[name, value] { name = 'master' }";
    let fields = json!({"query": query, "node_field": "name", "master_field": "value"});
    let mut registry = Registry::puppetdb(&server.uri(), fields.clone());
    for _ in 0..2 {
        assert_eq!(registry.poll().await.kind, PollKind::Full);
    }
    let mut settings = fields;
    settings["delta_query"] = json!("changed since '{since}'");
    settings["overlap"] = json!("1m");
    let mut registry = Registry::puppetdb(&server.uri(), settings);
    // wiremock answers with the present time of day; a `Date` of our own stands in the other tests.
    registry.now = jiff::Timestamp::now();
    assert_eq!(registry.poll().await.kind, PollKind::Full);
    assert_eq!(registry.poll().await.kind, PollKind::Delta);
    let queries = queries(&server).await;
    assert_eq!(queries[..3], [query, query, query]);
    assert!(
        queries[3].starts_with("changed since '") && !queries[3].contains("{since}"),
        "{}",
        queries[3]
    );
}

#[tokio::test]
async fn a_derived_delta_that_puppetdb_refuses_is_given_up() {
    let server = MockServer::start().await;
    let rows = || answer(json!([row("a", "m1")]));
    in_order(
        &server,
        vec![rows(), ResponseTemplate::new(400).set_body_string("no such field"), rows(), rows()],
    )
    .await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    for _ in 0..3 {
        assert_eq!(registry.poll().await.kind, PollKind::Full);
    }
    let queries = queries(&server).await;
    assert_eq!([&queries[0], &queries[2], &queries[3]], [FULL; 3]);
}

#[tokio::test]
async fn the_token_is_read_at_each_poll_and_never_shown() {
    let server = MockServer::start().await;
    for token in ["first-secret", "second-secret"] {
        Mock::given(header("X-Authentication", token))
            .respond_with(
                ResponseTemplate::new(401)
                    .set_body_string(format!("the token {token} has expired")),
            )
            .mount(&server)
            .await;
    }
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let mut registry = Registry::puppetdb(&server.uri(), json!({"token_file": token_file}));
    assert_says(&registry.failure().await, &["token_file", "token\"", "can't be read"]);
    for token in ["first-secret", "second-secret"] {
        std::fs::write(&token_file, format!("{token}\n")).unwrap();
        let error = registry.try_poll().await.unwrap_err();
        assert_says(&error.to_string(), &["access was refused (401)", "the token *** has expired"]);
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_query_of_any_length_goes_through() {
    let server = MockServer::start().await;
    let nodes = (0..2000)
        .map(|number| format!("'node{number}.example.test'"))
        .collect::<Vec<_>>()
        .join(", ");
    let query = format!("factsets[certname, producer] {{ certname in [{nodes}] }}");
    Mock::given(body_partial_json(json!({"query": query})))
        .respond_with(answer(json!([row("a", "m1")])))
        .expect(1)
        .mount(&server)
        .await;
    Registry::puppetdb(&server.uri(), json!({"query": query})).poll().await;
}

/// What a lookup of these nodes brings; it becomes the current snapshot, as in the poller.
async fn look_up(registry: &mut Registry, nodes: &[&str]) -> mapsmith::source::Polled {
    let nodes: Vec<_> = nodes.iter().map(|node| (*node).to_owned()).collect();
    let current = registry.current.clone().expect("polled before");
    let polled = registry
        .source
        .look_up(&nodes, &current, registry.now)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let (entries, rejections) = (polled.entries.clone(), polled.rejections.clone());
    registry.current =
        Some(mapsmith_core::Snapshot { entries, rejections, answered_at: current.answered_at });
    polled
}

#[tokio::test]
async fn single_nodes_are_asked_for_alone_and_one_that_is_not_answered_stays() {
    let server = MockServer::start().await;
    in_order(
        &server,
        vec![
            answer(json!([row("a", "m1"), row("b", "m1"), row("c", "m1")])),
            ResponseTemplate::new(200)
                .insert_header("Date", "Fri, 20 Nov 2026 12:30:00 GMT")
                .set_body_json(json!([row("a", "m2"), {"certname": "b", "producer": null}])),
            answer(json!([])),
        ],
    )
    .await;
    let mut registry =
        Registry::puppetdb(&server.uri(), json!({"full_poll": "4m", "overlap": "90s"}));
    registry.poll().await;
    let after = look_up(&mut registry, &["a", "b", "c"]).await;
    assert_eq!(entries(&after), [("a", "m2"), ("c", "m1")]);
    assert_eq!(rejected(&after), [("b", Invalid::NoMaster)]);
    // The next delta reaches back to the last poll: a lookup says nothing of the other nodes.
    registry.later(60);
    assert_eq!(registry.poll().await.kind, PollKind::Delta);
    assert_eq!(
        queries(&server).await[1..],
        [
            r#"factsets[certname, producer, producer_timestamp] { certname in ["a", "b", "c"] }"#,
            "factsets[certname, producer, producer_timestamp] \
                { producer_timestamp > \"2026-11-20T10:58:30.000Z\" }"
        ]
    );
}

#[tokio::test]
async fn where_single_nodes_can_not_be_asked_for_a_lookup_is_a_poll() {
    let server = MockServer::start().await;
    let rows = json!([{"name": "a", "value": "m1", "certname": "a", "producer": "m1"}]);
    let good = || ResponseTemplate::new(200).set_body_json(rows.clone());
    // A query whose rows name the node in another field; then one that PuppetDB refuses to narrow,
    // twice looked up.
    in_order(
        &server,
        vec![
            good(),
            good(),
            good(),
            ResponseTemplate::new(400).set_body_string("no"),
            good(),
            good(),
        ],
    )
    .await;
    let query = "facts[name, value] { certname = 'registry' }";
    let mut registry = Registry::puppetdb(
        &server.uri(),
        json!({"query": query, "node_field": "name", "master_field": "value"}),
    );
    registry.poll().await;
    assert_eq!(look_up(&mut registry, &["a"]).await.kind, PollKind::Full);
    let mut registry =
        Registry::puppetdb(&server.uri(), json!({"query": "nodes[certname, producer] { }"}));
    registry.poll().await;
    for _ in 0..2 {
        assert_eq!(look_up(&mut registry, &["a"]).await.kind, PollKind::Full);
    }
    let all = "nodes[certname, producer] { }";
    assert_eq!(
        queries(&server).await,
        [query, query, all, r#"nodes[certname, producer] { certname in ["a"] }"#, all, all]
    );
}

#[tokio::test]
async fn a_lookup_that_fails_does_not_cost_a_full_poll() {
    let server = MockServer::start().await;
    let rows = || answer(json!([row("a", "m1")]));
    in_order(&server, vec![rows(), ResponseTemplate::new(500).set_body_string("down"), rows()])
        .await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    registry.poll().await;
    let current = registry.current.clone().unwrap();
    let error =
        registry.source.look_up(&["a".to_owned()], &current, registry.now).await.unwrap_err();
    assert_says(&error.to_string(), &["failed (500)", "down"]);
    assert_eq!(registry.poll().await.kind, PollKind::Delta);
}
