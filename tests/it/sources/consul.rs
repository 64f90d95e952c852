//! What Consul says of its answers, and what tells of a change. Stand-ins show what a healthy
//! Consul does not; `tests/it/consul` has the real one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use mapsmith::settings::Selector;
use mapsmith::source::{self, Extent, Feed, Polled, SourceError};
use mapsmith_core::ServerList;
use mapsmith_core::status::Watch;
use serde_json::{Value, json};
use testkit::consul::{Consul, Health, Service};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::{Registry, assert_says, entries, rejected};

/// Far more than any of these tests takes.
const BOUND: Duration = Duration::from_secs(60);

/// The feed of a service's instances.
struct Instances(Box<dyn Feed<ServerList>>);

impl Instances {
    fn of(url: &str, source: Value, selector: Value) -> Self {
        let mut settings = json!({"name": "consul", "type": "consul", "url": url});
        settings.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let mut from = json!({"source": "consul", "service": ["web"]});
        from.as_object_mut().unwrap().extend(selector.as_object().unwrap().clone());
        let from: Selector = serde_json::from_value(from).unwrap();
        let settings = serde_json::from_value(settings).unwrap();
        let registry = source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"));
        Self(registry.servers(&from).unwrap_or_else(|error| panic!("{error}")))
    }

    async fn try_poll(&mut self, extent: Extent) -> Result<Polled<ServerList>, SourceError> {
        self.0.poll(extent, None, Timestamp::UNIX_EPOCH).await
    }

    async fn names(&mut self) -> Vec<String> {
        let polled = self.try_poll(Extent::Changes).await.unwrap_or_else(|error| panic!("{error}"));
        polled.entries.servers.iter().map(|server| server.name.clone()).collect()
    }

    async fn changed(&mut self) {
        tokio::time::timeout(BOUND, self.0.changed()).await.expect("a change is noticed");
    }
}

/// A Consul of one instance whose answers have these headers.
async fn answering(status: u16, headers: &[(&str, &str)], body: &str) -> MockServer {
    let server = MockServer::start().await;
    let mut answer = ResponseTemplate::new(status).set_body_string(body);
    for (name, value) in headers {
        answer = answer.insert_header(*name, *value);
    }
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

fn instance(node: &str) -> Value {
    json!({
        "Node": {"Node": node, "Address": "10.0.0.1"},
        "Service": {"ID": "web", "Address": "", "Port": 80},
        "Checks": [],
    })
}

#[tokio::test]
async fn an_answer_that_is_not_whole_by_consuls_own_words_is_none() {
    let whole = json!([instance("n1")]).to_string();
    let index = ("X-Consul-Index", "5");
    for (status, header, body, parts) in [
        (
            200,
            ("X-Consul-Results-Filtered-By-ACLs", "true"),
            &*whole,
            ["/v1/health/service/web: Consul left out", "service:read"],
        ),
        (200, ("X-Consul-Results-Filtered-By-ACLs", "true"), "[]", ["left out", "token_file"]),
        (200, ("X-Consul-KnownLeader", "false"), &whole, ["knows no leader", "may be old"]),
        (500, index, "No cluster leader", ["have no leader (500)", "No cluster leader"]),
        (500, index, "No path to datacenter", ["the datacentre", "see datacenter"]),
        (403, index, "Permission denied", ["refused (403): Permission denied", "token_file"]),
        (404, index, "404 page not found", ["404", "root of a Consul"]),
        (200, index, &whole[..20], ["cut off", "line 1"]),
    ] {
        let server = answering(status, &[index, header], body).await;
        let mut feed = Instances::of(&server.uri(), json!({}), json!({}));
        let error = feed.try_poll(Extent::Changes).await.unwrap_err().to_string();
        assert_says(&error, &parts);
    }
}

#[tokio::test]
async fn ten_megabytes_of_garbage_are_a_failure_that_is_told_in_a_line() {
    let megabytes = 10 * 1024 * 1024;
    for (body, part) in [
        ("x".repeat(megabytes), "not JSON"),
        (format!("{{\"{}", "x".repeat(megabytes)), "a list of a service's instances was expected"),
        (format!("[\"{}", "x".repeat(megabytes)), "cut off"),
        ("[".repeat(megabytes), "/v1/health/service/web"),
    ] {
        let server = answering(200, &[("X-Consul-Index", "5")], &body).await;
        let mut feed = Instances::of(&server.uri(), json!({}), json!({}));
        let error = feed.try_poll(Extent::Changes).await.unwrap_err().to_string();
        assert_says(&error, &[part]);
        assert!(error.len() < 1_000, "{} bytes are told", error.len());
    }
}

#[tokio::test]
async fn an_empty_folder_is_an_empty_map_and_a_missing_page_is_no_answer() {
    let kv = json!({"type": "consul", "kv": "mapsmith/nodes/"});
    let nodes = |server: &MockServer| {
        let mut settings = kv.clone();
        settings["url"] = server.uri().into();
        Registry::new(settings)
    };
    let leader = ("X-Consul-KnownLeader", "true");
    let empty = answering(404, &[("X-Consul-Index", "7"), leader], "").await;
    assert_eq!(entries(&nodes(&empty).poll().await), []);
    let gone = answering(404, &[], "not found").await;
    assert_says(&nodes(&gone).failure().await, &["404", "root of a Consul"]);
    let leaderless = [("X-Consul-Index", "7"), ("X-Consul-KnownLeader", "false")];
    let lost = answering(404, &leaderless, "").await;
    assert_says(&nodes(&lost).failure().await, &["knows no leader"]);
}

#[tokio::test]
async fn what_is_asked_for_is_what_the_settings_say() {
    let server = answering(200, &[("X-Consul-Index", "5")], "[]").await;
    let source = json!({"datacenter": "dc2", "consistency": "cached"});
    let root = format!("{}/consul/", server.uri());
    let selector = json!({"service": ["web a"], "tag": ["a", "b"]});
    let mut feed = Instances::of(&root, source, selector);
    feed.names().await;
    feed.try_poll(Extent::Everything).await.unwrap();
    let other = json!({"passing": ["false"], "datacenter": ["dc3"]});
    let mut other = Instances::of(&server.uri(), json!({"consistency": "stale"}), other);
    other.names().await;
    let requests = server.received_requests().await.unwrap();
    let asked = |request: &Request| {
        let query = request.url.query().unwrap_or_default();
        (!query.contains("index=")).then(|| format!("{}?{query}", request.url.path()))
    };
    assert_eq!(
        requests.iter().filter_map(asked).collect::<Vec<_>>(),
        [
            "/consul/v1/health/service/web%20a?dc=dc2&passing=1&tag=a&tag=b&cached=",
            // Who waits for the answer gets the leader's.
            "/consul/v1/health/service/web%20a?dc=dc2&passing=1&tag=a&tag=b",
            "/v1/health/service/web?dc=dc3&stale=",
        ]
    );
}

/// A leader that does not know all again yet, unless it is asked to be sure.
struct Restarted;

impl Respond for Restarted {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let query = request.url.query().unwrap_or_default();
        if query.contains("index=") {
            return ResponseTemplate::new(200).set_delay(BOUND * 10);
        }
        let (index, rows) = match query.contains("consistent") {
            true => ("9", vec![instance("n1"), instance("n2")]),
            false => ("3", vec![instance("old")]),
        };
        ResponseTemplate::new(200).set_body_json(rows).insert_header("X-Consul-Index", index)
    }
}

#[tokio::test]
async fn a_leader_that_was_just_started_and_knows_an_older_state_is_not_believed() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(Restarted).mount(&server).await;
    let mut feed = Instances::of(&server.uri(), json!({}), json!({}));
    for _ in 0..3 {
        assert_eq!(feed.names().await, ["n1:web", "n2:web"]);
    }
    let mut stale = Instances::of(&server.uri(), json!({"consistency": "stale"}), json!({}));
    assert_eq!(stale.names().await, ["old:web"], "who wants any answer gets it");
}

/// Answers polls with one instance more each time and with these indexes in turn. A request that
/// waits is answered at once while there is a further index to come, and then never.
struct Indexes {
    indexes: Vec<&'static str>,
    polls: AtomicUsize,
}

impl Respond for Indexes {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let query = request.url.query().unwrap_or_default();
        let waits = query.contains("index=");
        let before = self.polls.load(Ordering::Relaxed);
        // What is older than before is asked for once more.
        let repeats = query.contains("consistent") && before > 0;
        let polls = match repeats {
            true => before - 1,
            false => self.polls.fetch_add(usize::from(!waits), Ordering::Relaxed),
        };
        let next = self.indexes.get(polls);
        let index = next.or(self.indexes.last()).copied().unwrap_or_default();
        let rows: Vec<_> = (0..=polls).map(|number| instance(&format!("n{number}"))).collect();
        let answer =
            ResponseTemplate::new(200).set_body_json(rows).insert_header("X-Consul-Index", index);
        match (waits, next) {
            (true, None) => answer.set_delay(BOUND * 10),
            _ => answer,
        }
    }
}

#[tokio::test]
async fn an_index_that_goes_backwards_or_begins_anew_is_followed_from_there() {
    let server = MockServer::start().await;
    let indexes = Indexes { indexes: vec!["100", "3", "0", "8"], polls: AtomicUsize::new(0) };
    Mock::given(any()).respond_with(indexes).mount(&server).await;
    let mut feed = Instances::of(&server.uri(), json!({}), json!({}));
    for polls in 1..=4 {
        assert_eq!(feed.names().await.len(), polls);
        if polls < 4 {
            feed.changed().await;
        }
    }
    assert_eq!(feed.0.notes().watch, Some(Watch::Watched));
    let requests = requests_of(&server, 9).await;
    let indexes: Vec<_> = requests
        .iter()
        .flat_map(|request| request.url.query_pairs().collect::<Vec<_>>())
        .filter(|(name, _)| name == "index")
        .map(|(_, index)| index.into_owned())
        .collect();
    // 0 would be answered at once for ever.
    assert_eq!(indexes[..3], ["100", "3", "1"]);
}

/// The requests, once there are so many.
async fn requests_of(server: &MockServer, count: usize) -> Vec<Request> {
    let seen = async {
        loop {
            let requests = server.received_requests().await.unwrap();
            if requests.len() >= count {
                return requests;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, seen).await.expect("the requests come")
}

#[tokio::test]
async fn where_waiting_fails_polls_go_on_and_the_status_says_so() {
    let server = MockServer::start().await;
    struct NoWaiting;
    impl Respond for NoWaiting {
        fn respond(&self, request: &Request) -> ResponseTemplate {
            let waits = request.url.query().unwrap_or_default().contains("index=");
            match waits {
                true => ResponseTemplate::new(504),
                false => ResponseTemplate::new(200)
                    .set_body_json([instance("n1")])
                    .insert_header("X-Consul-Index", "5"),
            }
        }
    }
    Mock::given(any()).respond_with(NoWaiting).mount(&server).await;
    let mut feed = Instances::of(&server.uri(), json!({}), json!({}));
    for _ in 0..2 {
        assert_eq!(feed.names().await, ["n1:web"]);
        assert_eq!(feed.0.notes().warning, None, "a single failure is a poll's to tell");
        feed.changed().await;
    }
    assert_eq!(feed.names().await, ["n1:web"]);
    let notes = feed.0.notes();
    assert_eq!(notes.watch, Some(Watch::PolledOnly));
    assert_says(&notes.warning.unwrap(), &["noticed at polls only", "(504)"]);

    let unnumbered = answering(200, &[], &json!([instance("n1")]).to_string()).await;
    let mut feed = Instances::of(&unnumbered.uri(), json!({}), json!({}));
    assert_eq!(feed.names().await, ["n1:web"]);
    assert_says(&feed.0.notes().warning.unwrap(), &["have no X-Consul-Index"]);
}

#[tokio::test]
async fn a_real_consul_is_read_in_each_mode_and_each_change_is_noticed() {
    let consul = tokio::task::spawn_blocking(Consul::start).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let rules = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" } \
        key_prefix \"mapsmith/\" { policy = \"read\" }";
    std::fs::write(&token_file, consul.token("reader", rules)).unwrap();
    consul.register(&Service::new("w1", "web", "10.0.0.1", 80).tags(&["a", "b"]).weight(7));
    consul.register(&Service::new("w2", "web", "", 81).tags(&["a"]));
    consul.register(&Service::new("w3", "web", "10.0.0.3", 80).health(Health::Critical));
    let (w1, w2, w3) = ("node-w1:w1", "node-w2:w2", "node-w3:w3");
    let none = json!({});
    for (source, selector, names) in [
        (json!({"consistency": "consistent"}), none.clone(), vec![w1, w2]),
        (json!({"consistency": "stale"}), json!({"tag": ["a", "b"]}), vec![w1]),
        (json!({"consistency": "cached"}), json!({"passing": ["false"]}), vec![w1, w2, w3]),
        (json!({"datacenter": "dc1"}), json!({"service": ["nothing"]}), vec![]),
    ] {
        let mut source = source;
        source["token_file"] = token_file.to_str().unwrap().into();
        let mut feed = Instances::of(&consul.url(), source.clone(), selector);
        assert_eq!(feed.names().await, names, "{source}");
        let service = if names.is_empty() { "nothing" } else { "web" };
        let more = Service::new("w4", service, "10.0.0.4", 80).tags(&["a", "b"]);
        consul.register(&more);
        // Another service's change may be noticed too.
        while !feed.names().await.contains(&"node-w4:w4".to_owned()) {
            feed.changed().await;
        }
        consul.deregister("w4");
    }
    for (key, value) in [("n1", "m1"), ("eu/N2", "m2\n"), ("n3", "a b")] {
        consul.set(&format!("mapsmith/nodes/{key}"), value);
    }
    let mut nodes = Registry::new(json!({
        "type": "consul", "url": consul.url(), "kv": "mapsmith/nodes/", "consistency": "cached",
        "token_file": token_file,
    }));
    let polled = nodes.poll().await;
    assert_eq!(entries(&polled), [("n1", "m1"), ("n2", "m2")]);
    assert_eq!(rejected(&polled).len(), 1, "a master with a space");
    consul.delete_all("mapsmith/nodes/");
    tokio::time::timeout(BOUND, nodes.source.changed()).await.expect("a change is noticed");
    assert_eq!(entries(&nodes.poll().await), []);
    let mut elsewhere =
        Instances::of(&consul.url(), json!({"datacenter": "mars", "token_file": token_file}), none);
    let error = elsewhere.try_poll(Extent::Changes).await.unwrap_err().to_string();
    assert_says(&error, &["does not know the datacentre (500)", "see datacenter"]);
}
