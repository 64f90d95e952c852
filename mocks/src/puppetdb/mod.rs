//! The stand-in PuppetDB: the command and query endpoints Mapsmith and the masters use, over
//! factsets in memory.
//!
//! Answers and refusals follow PuppetDB 7.12.1, seen side by side. It is no PuppetDB: one entity
//! (`factsets`), no database, no authentication.

mod factsets;
mod pql;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use factsets::{Factset, Factsets};

/// The release whose answers this stand-in follows.
const VERSION: &str = "7.12.1";

type Shared = Arc<Mutex<Factsets>>;

/// The stand-in's routes, over an empty store.
pub fn router() -> Router {
    Router::new()
        .route("/pdb/query/v4", get(query_by_url).post(query_by_body))
        .route("/pdb/cmd/v1", post(submit))
        .route("/pdb/meta/v1/version", get(|| async { Json(json!({ "version": VERSION })) }))
        .route("/status/v1/services/puppetdb-status", get(status))
        // PuppetDB sends whoever is lost to its dashboard, which is why a client must follow no
        // redirects.
        .fallback(|| async { (StatusCode::FOUND, [(LOCATION, "/pdb/dashboard/index.html")]) })
        .with_state(Shared::default())
}

async fn status() -> Json<Value> {
    Json(json!({
        "service_name": "puppetdb-status",
        "service_version": VERSION,
        "service_status_version": 1,
        "state": "running",
        "detail_level": "info",
        "status": {
            "maintenance_mode?": false,
            "read_db_up?": true,
            "write_db_up?": true,
            "queue_depth": 0,
        },
        "active_alerts": [],
    }))
}

async fn query_by_url(
    State(store): State<Shared>,
    Query(parameters): Query<HashMap<String, String>>,
) -> Response {
    if let Some(unknown) = parameters.keys().find(|name| *name != "query") {
        return refused(format!("Unsupported query parameter '{unknown}'"));
    }
    match parameters.get("query") {
        Some(query) => answer(&store, query),
        None => refused("Missing required query parameter 'query'"),
    }
}

async fn query_by_body(State(store): State<Shared>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Body {
        query: String,
    }
    match serde_json::from_slice::<Body>(&body) {
        Ok(body) => answer(&store, &body.query),
        Err(error) => refused(format!("Json parse error: {error}")),
    }
}

fn answer(store: &Shared, query: &str) -> Response {
    match pql::parse(query) {
        Ok(query) => Json(store.lock().unwrap_or_else(PoisonError::into_inner).select(&query))
            .into_response(),
        Err(error) => refused(error.to_string()),
    }
}

/// PuppetDB refuses a query with 400 and plain text.
fn refused(text: impl Into<String>) -> Response {
    (StatusCode::BAD_REQUEST, text.into()).into_response()
}

/// A command, as far as this stand-in acts on it.
enum Command {
    ReplaceFacts,
    DeactivateNode,
}

#[derive(Deserialize)]
struct Submission {
    command: Option<String>,
    version: Option<u8>,
    certname: Option<String>,
    #[serde(rename = "secondsToWaitForCompletion")]
    seconds_to_wait: Option<u32>,
}

async fn submit(
    State(store): State<Shared>,
    Query(submission): Query<Submission>,
    body: Bytes,
) -> Response {
    let command = match submission.command.as_deref() {
        Some("replace_facts" | "replace facts") => Command::ReplaceFacts,
        Some("deactivate_node" | "deactivate node") => Command::DeactivateNode,
        other => {
            return refused_command(format!(
                "Command {other:?} is invalid. Command must be one of: deactivate node, replace \
                    facts."
            ));
        }
    };
    let Some(certname) = submission.certname else {
        return refused_command(
            "Command is invalid. Command is missing required parameters: certname.".into(),
        );
    };
    let uuid = uuid();
    let applied = apply(&store, &command, submission.version, &body);
    if let Err(reason) = &applied {
        // The real one, too, has accepted the command by now: that it was dropped stands in its log
        // alone.
        eprintln!("mocks: dropped command {uuid} for {certname}: {reason}");
    }
    match (submission.seconds_to_wait, applied) {
        (None, _) => Json(json!({ "uuid": uuid })).into_response(),
        (Some(_), Ok(())) => {
            Json(json!({ "uuid": uuid, "processed": true, "timed_out": false })).into_response()
        }
        (Some(_), Err(_)) => {
            let outcome = json!({ "uuid": uuid, "processed": false, "timed_out": true });
            (StatusCode::SERVICE_UNAVAILABLE, Json(outcome)).into_response()
        }
    }
}

/// PuppetDB refuses a command with 400 and a JSON object.
fn refused_command(error: String) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

fn apply(
    store: &Shared,
    command: &Command,
    version: Option<u8>,
    body: &[u8],
) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Payload {
        certname: String,
        producer: Option<String>,
        producer_timestamp: Timestamp,
    }
    let payload: Payload =
        serde_json::from_slice(body).map_err(|error| format!("bad payload: {error}"))?;
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    match (command, version) {
        (Command::ReplaceFacts, Some(5)) => {
            let factset = Factset {
                producer: payload.producer,
                producer_timestamp: payload.producer_timestamp,
            };
            store.replace_facts(payload.certname, factset);
            Ok(())
        }
        (Command::DeactivateNode, Some(3)) => {
            store.deactivate_node(payload.certname, payload.producer_timestamp);
            Ok(())
        }
        (_, version) => Err(format!(
            "unsupported version {version:?}: replace facts has 5, deactivate node has 3"
        )),
    }
}

/// A random (version 4) UUID, RFC 9562 section 5.4.
fn uuid() -> String {
    let bits = fastrand::u128(..) & !(0xF << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{bits:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::serve;
    use reqwest::Url;
    use tokio::net::TcpListener;

    async fn start() -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async { serve(listener, router()).await });
        url
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap()
    }

    async fn submit_facts(url: &Url, certname: &str, timestamp: &str, producer: &str) -> Value {
        let mut url = url.join("/pdb/cmd/v1").unwrap();
        url.query_pairs_mut()
            .append_pair("command", "replace_facts")
            .append_pair("version", "5")
            .append_pair("certname", certname)
            .append_pair("producer-timestamp", timestamp);
        let facts = json!({
            "certname": certname,
            "environment": "production",
            "producer_timestamp": timestamp,
            "producer": producer,
            "values": {},
        });
        client().post(url).json(&facts).send().await.unwrap().json().await.unwrap()
    }

    async fn query(url: &Url, text: &str) -> (StatusCode, String) {
        let mut url = url.join("/pdb/query/v4").unwrap();
        url.query_pairs_mut().append_pair("query", text);
        let answer = client().get(url).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn facts_that_were_submitted_show_their_producer_by_get_and_by_post() {
        let url = start().await;
        let answer = submit_facts(&url, "n1", "2026-11-20T10:25:04.290Z", "puppet00").await;
        let uuid = answer["uuid"].as_str().unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4", "the version of a random UUID");

        let wanted = r#"[{"certname":"n1","producer":"puppet00"}]"#;
        assert_eq!(
            query(&url, "factsets[certname, producer] {}").await,
            (StatusCode::OK, wanted.into())
        );
        let by_post = client()
            .post(url.join("/pdb/query/v4").unwrap())
            .json(&json!({ "query": "factsets[certname, producer] {}" }))
            .send()
            .await
            .unwrap();
        assert_eq!(by_post.text().await.unwrap(), wanted);
    }

    #[tokio::test]
    async fn a_delta_query_finds_what_moved_since() {
        let url = start().await;
        submit_facts(&url, "n1", "2026-11-20T10:00:00Z", "puppet00").await;
        submit_facts(&url, "n2", "2026-11-20T10:00:02Z", "puppet00").await;
        submit_facts(&url, "n1", "2026-11-20T10:00:03Z", "puppet01").await;
        let text = "factsets[certname, producer, producer_timestamp] { producer_timestamp > \
                    \"2026-11-20T10:00:01Z\" order by producer_timestamp }";
        let (status, body) = query(&url, text).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!([
                {
                    "certname": "n2",
                    "producer": "puppet00",
                    "producer_timestamp": "2026-11-20T10:00:02.000Z",
                },
                {
                    "certname": "n1",
                    "producer": "puppet01",
                    "producer_timestamp": "2026-11-20T10:00:03.000Z",
                },
            ])
        );
    }

    #[tokio::test]
    async fn a_query_for_some_nodes_finds_those_that_are_there() {
        let url = start().await;
        for (node, producer) in [("n1", "puppet00"), ("n2", "puppet01"), ("n3", "puppet01")] {
            submit_facts(&url, node, "2026-11-20T10:00:00Z", producer).await;
        }
        let text = r#"factsets[certname, producer] { certname in ["n3", "n1", "n4"] }"#;
        let wanted =
            r#"[{"certname":"n1","producer":"puppet00"},{"certname":"n3","producer":"puppet01"}]"#;
        assert_eq!(query(&url, text).await, (StatusCode::OK, wanted.into()));
    }

    #[tokio::test]
    async fn a_query_it_does_not_know_is_refused_with_plain_text() {
        let url = start().await;
        let (status, text) = query(&url, "nodes[certname] {}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.starts_with("PQL parse error at line 1, column 1:"), "{text}");

        let mut unknown_parameter = url.join("/pdb/query/v4").unwrap();
        unknown_parameter.set_query(Some("query=factsets[certname]{}&timeout=5"));
        let answer = client().get(unknown_parameter).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert_eq!(answer.text().await.unwrap(), "Unsupported query parameter 'timeout'");
    }

    #[tokio::test]
    async fn a_deactivated_node_is_rejected() {
        let url = start().await;
        submit_facts(&url, "n1", "2026-11-20T10:00:00Z", "puppet00").await;
        let mut command = url.join("/pdb/cmd/v1").unwrap();
        command.set_query(Some(
            "command=deactivate_node&version=3&certname=n1&producer-timestamp=2026-11-20T10:00:01Z\
             &secondsToWaitForCompletion=5",
        ));
        let payload = json!({ "certname": "n1", "producer_timestamp": "2026-11-20T10:00:01Z" });
        let answer: Value =
            client().post(command).json(&payload).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["processed"], true);
        assert_eq!(query(&url, "factsets[certname] {}").await, (StatusCode::OK, "[]".into()));
    }

    #[tokio::test]
    async fn a_command_nobody_knows_is_refused_and_a_broken_payload_only_dropped() {
        let url = start().await;
        let mut command = url.join("/pdb/cmd/v1").unwrap();
        command.set_query(Some("command=bogus&version=5&certname=n1"));
        assert_eq!(
            client().post(command.clone()).body("{}").send().await.unwrap().status(),
            StatusCode::BAD_REQUEST
        );
        command.set_query(Some("command=replace_facts&version=5&certname=n1"));
        assert_eq!(
            client().post(command.clone()).body("broken").send().await.unwrap().status(),
            StatusCode::OK
        );
        command.set_query(Some(
            "command=replace_facts&version=5&certname=n1&secondsToWaitForCompletion=5",
        ));
        let waited = client().post(command).body("broken").send().await.unwrap();
        assert_eq!(waited.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(query(&url, "factsets[certname] {}").await, (StatusCode::OK, "[]".into()));
    }

    #[tokio::test]
    async fn a_lost_client_is_sent_to_the_dashboard_and_a_health_check_is_answered() {
        let url = start().await;
        let lost = client().get(url.join("/pdb/query/v3").unwrap()).send().await.unwrap();
        assert_eq!(lost.status(), StatusCode::FOUND);
        assert_eq!(lost.headers()["location"], "/pdb/dashboard/index.html");
        for path in ["/pdb/meta/v1/version", "/status/v1/services/puppetdb-status"] {
            let answer = client().get(url.join(path).unwrap()).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            assert!(answer.text().await.unwrap().contains(VERSION), "{path}");
        }
    }
}
