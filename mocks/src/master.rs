//! A stand-in Puppet master: it owns nodes, answers for them alone, and tells PuppetDB when a node
//! is registered.
//!
//! A node moves when it is registered with another master, and only then. No command is really run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use jiff::Timestamp;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The header by which the gateway routes.
const NODE_HEADER: &str = "X-Node-Name";

/// How long PuppetDB may take to process one command, in seconds: it is part of the command.
const PROCESSING_SECONDS: u64 = 5;

/// The longest wait of a long poll, in seconds: less than a gateway's patience with a server.
const LONGEST_WAIT_SECONDS: u64 = 60;

/// The last command that was run on a node; whoever waits for the next one watches it.
type LastCommand = watch::Sender<Option<String>>;

/// A master and the nodes it owns.
#[derive(Debug)]
pub struct Master {
    name: String,
    certname: String,
    misdirected: StatusCode,
    commands: Url,
    client: reqwest::Client,
    nodes: Mutex<BTreeMap<String, LastCommand>>,
}

impl Master {
    /// A master without nodes. It answers as `name`, tells PuppetDB at the base URL `puppetdb` as
    /// `certname`, and answers `misdirected` for a node that is not its own.
    pub fn new(
        name: String,
        certname: String,
        puppetdb: &Url,
        misdirected: StatusCode,
    ) -> anyhow::Result<Self> {
        ensure!(puppetdb.scheme() == "http", "--puppetdb takes an http:// address, not {puppetdb}");
        let commands = puppetdb
            .join("/pdb/cmd/v1")
            .with_context(|| format!("{puppetdb} is not a base address"))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2 * PROCESSING_SECONDS))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Master { name, certname, misdirected, commands, client, nodes: Mutex::default() })
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, LastCommand>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owns(&self, node: &str) -> bool {
        self.nodes().contains_key(node)
    }

    /// Submits the node's facts with this master as their producer, and waits until a query would
    /// show them.
    async fn tell_puppetdb(&self, node: &str) -> anyhow::Result<()> {
        let now = format!("{:.3}", Timestamp::now());
        let mut url = self.commands.clone();
        url.query_pairs_mut()
            .append_pair("command", "replace_facts")
            .append_pair("version", "5")
            .append_pair("certname", node)
            .append_pair("producer-timestamp", &now)
            .append_pair("secondsToWaitForCompletion", &PROCESSING_SECONDS.to_string());
        let facts = json!({
            "certname": node,
            "environment": "production",
            "producer": self.certname,
            "producer_timestamp": now,
            "values": {},
        });
        let answer = self.client.post(url).json(&facts).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "it answered {status}: {}", answer.text().await?);
        Ok(())
    }
}

/// The routes of a master.
pub fn router(master: Master) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/nodes", get(list_nodes))
        .route("/nodes/{node}", put(register_node).delete(forget_node))
        .route("/nodes/{node}/commands", post(run_command).get(last_command))
        .fallback(who_answers)
        .with_state(Arc::new(master))
}

async fn list_nodes(State(master): State<Arc<Master>>) -> Json<Value> {
    Json(json!({ "master": master.name, "nodes": master.nodes().keys().collect::<Vec<_>>() }))
}

/// What a registration may say.
#[derive(Deserialize)]
struct Registration {
    /// Whether PuppetDB is told: a real one learns of a move only when the node's next facts come
    /// in.
    #[serde(default = "yes")]
    tell: bool,
}

fn yes() -> bool {
    true
}

async fn register_node(
    State(master): State<Arc<Master>>,
    Path(node): Path<String>,
    Query(registration): Query<Registration>,
) -> Response {
    let node = node.to_lowercase();
    master.nodes().entry(node.clone()).or_default();
    if !registration.tell {
        return Json(ownership(&master, Some(&node), true)).into_response();
    }
    match master.tell_puppetdb(&node).await {
        Ok(()) => Json(ownership(&master, Some(&node), true)).into_response(),
        Err(error) => {
            let body = json!({
                "master": master.name,
                "node": node,
                "owned": true,
                "error": format!("PuppetDB does not know yet: {error:#}; repeat the request"),
            });
            (StatusCode::BAD_GATEWAY, Json(body)).into_response()
        }
    }
}

async fn forget_node(State(master): State<Arc<Master>>, Path(node): Path<String>) -> Response {
    let node = node.to_lowercase();
    if master.nodes().remove(&node).is_some() {
        Json(ownership(&master, Some(&node), false)).into_response()
    } else {
        not_owned(&master, &node)
    }
}

async fn run_command(
    State(master): State<Arc<Master>>,
    Path(node): Path<String>,
    body: Bytes,
) -> Response {
    #[derive(Deserialize)]
    struct Request {
        command: String,
    }
    let node = node.to_lowercase();
    if !master.owns(&node) {
        return not_owned(&master, &node);
    }
    match serde_json::from_slice::<Request>(&body) {
        Ok(Request { command }) => {
            if let Some(last) = master.nodes().get(&node) {
                last.send_replace(Some(command.clone()));
            }
            Json(json!({
                "master": master.name,
                "node": node,
                "command": command,
                "output": format!("{node}: would have run `{command}`, sent by {}", master.name),
            }))
            .into_response()
        }
        Err(error) => {
            let error = format!(r#"the body must be {{"command": "..."}}: {error}"#);
            (
                StatusCode::BAD_REQUEST,
                Json(json!({ "master": master.name, "node": node, "error": error })),
            )
                .into_response()
        }
    }
}

/// What the question for the last command may say.
#[derive(Deserialize)]
struct Poll {
    /// Seconds to wait for the next command: a long poll. Without it the answer comes at once.
    #[serde(default)]
    wait: u64,
}

async fn last_command(
    State(master): State<Arc<Master>>,
    Path(node): Path<String>,
    Query(poll): Query<Poll>,
) -> Response {
    let node = node.to_lowercase();
    let Some(mut last) = master.nodes().get(&node).map(LastCommand::subscribe) else {
        return not_owned(&master, &node);
    };
    // The wait ends with its time, with a command, or with the node's leaving this master.
    let wait = Duration::from_secs(poll.wait.min(LONGEST_WAIT_SECONDS));
    if let Ok(Err(_)) = tokio::time::timeout(wait, last.changed()).await {
        return not_owned(&master, &node);
    }
    let command = last.borrow().clone();
    Json(json!({ "master": master.name, "node": node, "command": command })).into_response()
}

/// Any other request: says which master this is, and whether it owns the node that the header
/// names.
async fn who_answers(State(master): State<Arc<Master>>, headers: HeaderMap) -> Response {
    let node =
        headers.get(NODE_HEADER).and_then(|value| value.to_str().ok()).map(str::to_lowercase);
    let owned = node.as_deref().is_some_and(|node| master.owns(node));
    let status = if owned { StatusCode::OK } else { master.misdirected };
    (status, Json(ownership(&master, node.as_deref(), owned))).into_response()
}

fn ownership(master: &Master, node: Option<&str>, owned: bool) -> Value {
    json!({ "master": master.name, "node": node, "owned": owned })
}

fn not_owned(master: &Master, node: &str) -> Response {
    (master.misdirected, Json(ownership(master, Some(node), false))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::serve;
    use reqwest::Method;
    use tokio::net::TcpListener;

    async fn start(router: Router) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async { serve(listener, router).await });
        url
    }

    async fn start_master(name: &str, puppetdb: &Url) -> Url {
        start_master_that_answers(name, puppetdb, StatusCode::NOT_FOUND).await
    }

    async fn start_master_that_answers(name: &str, puppetdb: &Url, misdirected: StatusCode) -> Url {
        let certname = format!("{name}.example.test");
        start(router(Master::new(name.into(), certname, puppetdb, misdirected).unwrap())).await
    }

    async fn ask(
        method: Method,
        base: &Url,
        path: &str,
        node_header: Option<&str>,
        body: &str,
    ) -> (StatusCode, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.request(method, base.join(path).unwrap()).body(body.to_owned());
        if let Some(node) = node_header {
            request = request.header(NODE_HEADER, node);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn producers(puppetdb: &Url) -> Value {
        let path = "/pdb/query/v4?query=factsets[certname,producer]{}";
        ask(Method::GET, puppetdb, path, None, "").await.1
    }

    #[tokio::test]
    async fn a_node_registered_with_another_master_has_moved_for_puppetdb_too() {
        let puppetdb = start(crate::puppetdb::router()).await;
        let (first, second) =
            (start_master("master1", &puppetdb).await, start_master("master2", &puppetdb).await);

        let (status, answer) = ask(Method::PUT, &first, "/nodes/Web1.example.test", None, "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            answer,
            json!({ "master": "master1", "node": "web1.example.test", "owned": true })
        );
        let owner = |master| json!([{ "certname": "web1.example.test", "producer": master }]);
        assert_eq!(producers(&puppetdb).await, owner("master1.example.test"));

        ask(Method::PUT, &second, "/nodes/web1.example.test", None, "").await;
        assert_eq!(producers(&puppetdb).await, owner("master2.example.test"));
        ask(Method::DELETE, &first, "/nodes/web1.example.test", None, "").await;
        assert_eq!(
            producers(&puppetdb).await,
            owner("master2.example.test"),
            "forgetting a node is told to nobody"
        );

        assert_eq!(
            ask(Method::GET, &first, "/nodes", None, "").await.1,
            json!({ "master": "master1", "nodes": [] })
        );
        assert_eq!(
            ask(Method::GET, &second, "/nodes", None, "").await.1,
            json!({ "master": "master2", "nodes": ["web1.example.test"] })
        );
    }

    #[tokio::test]
    async fn a_command_runs_on_an_owned_node_and_is_404_for_any_other() {
        let puppetdb = start(crate::puppetdb::router()).await;
        let master = start_master("master1", &puppetdb).await;
        ask(Method::PUT, &master, "/nodes/web1", None, "").await;

        let (status, answer) =
            ask(Method::POST, &master, "/nodes/WEB1/commands", None, r#"{"command":"uptime"}"#)
                .await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!((&answer["master"], &answer["node"]), (&json!("master1"), &json!("web1")));
        assert_eq!(answer["command"], "uptime");
        assert!(answer["output"].as_str().unwrap().contains("uptime"));

        let (status, answer) =
            ask(Method::POST, &master, "/nodes/web2/commands", None, r#"{"command":"uptime"}"#)
                .await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(answer, json!({ "master": "master1", "node": "web2", "owned": false }));

        let (status, answer) =
            ask(Method::POST, &master, "/nodes/web1/commands", None, "uptime").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains(r#"{"command": "..."}"#));
    }

    #[tokio::test]
    async fn a_request_through_the_gateway_learns_who_answered_and_whether_it_owns_the_node() {
        let puppetdb = start(crate::puppetdb::router()).await;
        let master = start_master("master1", &puppetdb).await;
        ask(Method::PUT, &master, "/nodes/web1", None, "").await;

        let (status, answer) = ask(Method::GET, &master, "/", Some("WEB1"), "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer, json!({ "master": "master1", "node": "web1", "owned": true }));
        let (status, answer) =
            ask(Method::POST, &master, "/puppet/v3/catalog", Some("web2"), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(answer, json!({ "master": "master1", "node": "web2", "owned": false }));
        let (status, answer) = ask(Method::GET, &master, "/", None, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(answer["node"], Value::Null);
    }

    #[tokio::test]
    async fn a_node_can_move_before_puppetdb_hears_of_it() {
        let puppetdb = start(crate::puppetdb::router()).await;
        let master = start_master("master1", &puppetdb).await;
        let (status, _) = ask(Method::PUT, &master, "/nodes/web1?tell=false", None, "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(ask(Method::GET, &master, "/", Some("web1"), "").await.0, StatusCode::OK);
        assert_eq!(producers(&puppetdb).await, json!([]));
        ask(Method::PUT, &master, "/nodes/web1", None, "").await;
        assert_eq!(
            producers(&puppetdb).await,
            json!([{ "certname": "web1", "producer": "master1.example.test" }])
        );
    }

    #[tokio::test]
    async fn a_long_poll_is_answered_by_the_next_command_and_when_the_node_leaves() {
        let puppetdb = start(crate::puppetdb::router()).await;
        let master = start_master("master1", &puppetdb).await;
        ask(Method::PUT, &master, "/nodes/web1", None, "").await;
        let commands = "/nodes/web1/commands";
        let answer = |command| json!({ "master": "master1", "node": "web1", "command": command });
        assert_eq!(
            ask(Method::GET, &master, commands, None, "").await,
            (StatusCode::OK, answer(None::<&str>))
        );

        // Sent again until the poll, which is on its way meanwhile, has been there to see one.
        let mut poll =
            Box::pin(ask(Method::GET, &master, "/nodes/web1/commands?wait=60", None, ""));
        let uptime = r#"{"command":"uptime"}"#;
        let polled = loop {
            tokio::select! {
                polled = &mut poll => break polled,
                (status, _) = ask(Method::POST, &master, commands, None, uptime) => {
                    assert_eq!(status, StatusCode::OK);
                }
            }
        };
        assert_eq!(polled, (StatusCode::OK, answer(Some("uptime"))));
        assert_eq!(
            ask(Method::GET, &master, commands, None, "").await,
            (StatusCode::OK, answer(Some("uptime")))
        );

        let poll = ask(Method::GET, &master, "/nodes/web1/commands?wait=60", None, "");
        let (polled, _) = tokio::join!(poll, ask(Method::DELETE, &master, "/nodes/web1", None, ""));
        assert_eq!(polled.0, StatusCode::NOT_FOUND, "whichever of the two came first");
    }

    #[tokio::test]
    async fn a_master_can_say_that_a_request_was_misdirected() {
        let puppetdb = start(crate::puppetdb::router()).await;
        let master =
            start_master_that_answers("master1", &puppetdb, StatusCode::MISDIRECTED_REQUEST).await;
        assert_eq!(
            ask(Method::GET, &master, "/", Some("web1"), "").await.0,
            StatusCode::MISDIRECTED_REQUEST
        );
        assert_eq!(
            ask(Method::GET, &master, "/nodes/web1/commands", None, "").await.0,
            StatusCode::MISDIRECTED_REQUEST
        );
    }

    #[tokio::test]
    async fn a_registration_says_when_puppetdb_could_not_be_told() {
        // Bound and dropped: nobody listens there any more.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let master = start_master("master1", &format!("http://{closed}").parse().unwrap()).await;
        let (status, answer) = ask(Method::PUT, &master, "/nodes/web1", None, "").await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(
            answer["error"].as_str().unwrap().starts_with("PuppetDB does not know yet"),
            "{answer}"
        );
    }
}
