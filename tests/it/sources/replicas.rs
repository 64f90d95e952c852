//! Several PuppetDBs: the first that answers, unless its data are old.

use mapsmith_core::status::PollKind;
use serde_json::{Value, json};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Registry, assert_says, entries};
use crate::support::free_port;
use crate::support::puppetdb::PuppetDb;

/// A node's master, and the minute at which it sent facts.
fn rows(master: &str, minute: u32) -> Value {
    let time = format!("2026-11-20T11:{minute:02}:00.000Z");
    json!([{ "certname": "a", "producer": master, "producer_timestamp": time }])
}

async fn says(server: &MockServer, answer: ResponseTemplate) {
    server.reset().await;
    let answer = answer.insert_header("Date", "Fri, 20 Nov 2026 11:58:30 GMT");
    Mock::given(method("POST")).respond_with(answer).mount(server).await;
}

async fn knows(server: &MockServer, master: &str, minute: u32) {
    says(server, ResponseTemplate::new(200).set_body_json(rows(master, minute))).await;
}

async fn fails(server: &MockServer) {
    says(server, ResponseTemplate::new(503).set_body_string("starting")).await;
}

async fn asked(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn where_the_first_server_is_down_the_next_one_answers_in_full() {
    let (first, second) = (MockServer::start().await, MockServer::start().await);
    knows(&first, "m1", 50).await;
    knows(&second, "m1", 50).await;
    let settings = json!({ "fallback_urls": [second.uri()] });
    let mut registry = Registry::puppetdb(&first.uri(), settings);
    registry.poll().await;
    assert_eq!((registry.poll().await.kind, asked(&second).await), (PollKind::Delta, 0));

    fails(&first).await;
    knows(&second, "m2", 51).await;
    let polled = registry.poll().await;
    assert_eq!((polled.kind, entries(&polled)), (PollKind::Full, vec![("a", "m2")]));
    let warning = registry.warning().expect("who answers is told");
    assert!(warning.contains("answered by") && warning.contains("503"), "{warning}");

    // While that one answers the first is left alone until a full poll is due.
    let tries = asked(&first).await;
    assert_eq!((registry.poll().await.kind, asked(&first).await), (PollKind::Delta, tries));
    knows(&first, "m3", 52).await;
    let polled = registry.poll_everything().await;
    assert_eq!((entries(&polled), registry.warning()), (vec![("a", "m3")], None));
}

#[tokio::test]
async fn a_replica_that_is_behind_takes_no_move_back() {
    let (first, second) = (MockServer::start().await, MockServer::start().await);
    knows(&first, "m2", 50).await;
    let settings = json!({ "fallback_urls": [second.uri()], "overlap": "2m" });
    let mut registry = Registry::puppetdb(&first.uri(), settings);
    registry.poll().await;

    fails(&first).await;
    knows(&second, "m1", 40).await;
    assert_says(&registry.failure().await, &["503", "10m older than what is known"]);
    // A replica that is as far, but for the overlap, is as good.
    knows(&second, "m1", 49).await;
    assert_eq!(entries(&registry.poll().await), [("a", "m1")]);
}

#[tokio::test]
async fn where_no_server_answers_each_is_named() {
    let (first, second) = (MockServer::start().await, MockServer::start().await);
    fails(&first).await;
    says(&second, ResponseTemplate::new(500).set_body_string("no database")).await;
    let settings = json!({ "fallback_urls": [second.uri()] });
    let failure = Registry::puppetdb(&first.uri(), settings).failure().await;
    assert_says(&failure, &[&first.uri(), "503", &second.uri(), "no database"]);
}

#[tokio::test]
async fn a_real_puppetdb_answers_for_one_that_is_gone() {
    let (prefix, puppetdb) = ("replica-", PuppetDb::shared());
    puppetdb.replace_facts(&format!("{prefix}a"), "m1", true);
    let settings = json!({
        "fallback_urls": [puppetdb.url()],
        "query": format!(
            "factsets[certname, producer, producer_timestamp] {{ certname ~ \"^{prefix}\" }}"
        ),
    });
    let gone = format!("http://127.0.0.1:{}", free_port());
    let mut registry = Registry::puppetdb(&gone, settings);
    registry.now = jiff::Timestamp::now();
    assert_eq!(entries(&registry.poll().await), [("replica-a", "m1")]);
    let warning = registry.warning().expect("who answers is told");
    assert!(warning.contains("can't be reached"), "{warning}");
}

/// As examples/puppetdb-fact.toml has them.
#[tokio::test]
async fn a_masters_name_in_a_fact_is_read_by_facts_and_by_inventory() {
    let puppetdb = PuppetDb::shared();
    let masters = [("fact-a", "m1"), ("fact-b", "m2")];
    for (node, master) in masters {
        puppetdb.replace_facts_with(node, "producer", json!({ "master": master }));
    }
    puppetdb.replace_facts_with("fact-c", "producer", json!({ "kernel": "Linux" }));
    let changed = "facts[certname, value] { name = \"master\" and certname ~ \"^fact-\" and \
        certname in factsets[certname] { producer_timestamp > \"{since}\" } }";
    for (query, field) in [
        ("facts[certname, value] { name = \"master\" and certname ~ \"^fact-\" }", "value"),
        ("inventory[certname, facts.master] { certname ~ \"^fact-\" }", "facts.master"),
    ] {
        let settings = json!({ "query": query, "master_field": field, "delta_query": changed });
        let mut registry = Registry::puppetdb(&puppetdb.url(), settings);
        registry.now = jiff::Timestamp::now();
        assert_eq!(entries(&registry.poll().await), masters, "{query}");
        if field == "value" {
            puppetdb.replace_facts_with("fact-a", "other", json!({ "master": "m3" }));
            let polled = registry.poll().await;
            assert_eq!(polled.kind, PollKind::Delta);
            assert_eq!(entries(&polled), [("fact-a", "m3"), ("fact-b", "m2")]);
            puppetdb.replace_facts_with("fact-a", "other", json!({ "master": "m1" }));
        }
    }
}
