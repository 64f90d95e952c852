//! Who may ask the API for what: tokens, roles, sessions, and what is noted of it.

use std::fs;

use mapsmith::http::{Needs, ROUTES, Route};
use mapsmith_core::access::Role;
use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::http::Response;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, gateway_settings, metric, newest, printed, source_settings,
};

const FILE: &str = "s3cret-of-the-file";
const STORE: &str = "[store]\npath = \"mapsmith.db\"\n";

/// With a store, and what more the settings say.
fn start(more: &str) -> (Gateway, Registry, Mapsmith) {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1")]);
    let source = source_settings("registry", &registry.url());
    let config = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{source}{STORE}{more}",
        gateway_settings(&gateway)
    ));
    fs::write(config.directory().join("token"), FILE).unwrap();
    let mapsmith = config.start();
    mapsmith.wait_for("a map is in force", BOUND, |mapsmith| {
        (mapsmith.get("/readyz").0 == 200).then_some(())
    });
    (gateway, registry, mapsmith)
}

fn guarded() -> (Gateway, Registry, Mapsmith) {
    start("[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n")
}

fn ask(mapsmith: &Mapsmith, token: &str, method: &str, path: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    mapsmith.ask(method, path, &[("Authorization", &bearer)], body)
}

fn value(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// Makes a token as whoever has `by`, and gives its id and its text.
fn create(mapsmith: &Mapsmith, by: &str, token: Value) -> (String, String) {
    let response = ask(mapsmith, by, "POST", "/v1/tokens", &token.to_string());
    assert_eq!(response.status, 201, "{}", response.body);
    let made = value(&response);
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

/// The path of a route with names in it.
fn path(route: &Route) -> String {
    let named = [
        ("{node}", "node1"),
        ("{master}", "m1"),
        ("{id}", "zzzzzzzz"),
        ("{name}", "site"),
        ("{kind}", "held"),
        ("{number}", "1"),
        ("{backend}", "web"),
        ("{frontend}", "web"),
        ("{server}", "web1"),
        ("{version}", "1.0.0"),
        ("{host}", "10.0.0.3"),
        ("{port}", "8080"),
    ];
    // A stream has no end; whoever may follow is told that there are no such events.
    let path = if route.path == "/v1/events" { "/v1/events?topics=x" } else { route.path };
    named.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[test]
fn every_route_is_for_its_role_and_those_above_it() {
    let (_gateway, _registry, mapsmith) = guarded();
    let tokens = Role::ALL.map(|role| {
        let grants = if role == Role::None { json!(["register:web"]) } else { json!([]) };
        let token = json!({ "name": role.name(), "role": role, "grants": grants });
        (role, create(&mapsmith, FILE, token).1)
    });
    for route in ROUTES {
        let (method, path) = (route.method.as_str(), path(route));
        let what = format!("{method} {path}");
        let needed = match route.needs {
            Needs::Role(needed) | Needs::NodeGrant(needed) | Needs::MemberGrant(needed) => needed,
            Needs::CommandGrant => {
                for (role, token) in &tokens {
                    let response = ask(&mapsmith, token, method, &path, "{}");
                    assert_eq!(response.status, 403, "{what} as {role}: {}", response.body);
                    assert!(response.body.contains("has no grant"), "{}", response.body);
                }
                continue;
            }
            Needs::Login => {
                let response = mapsmith.ask(method, &path, &[], "");
                assert_eq!(response.status, 400, "{what} takes a token in its body");
                continue;
            }
            Needs::Nothing | Needs::Probe => {
                assert_eq!(mapsmith.ask(method, &path, &[], "").status, 200, "{what}");
                continue;
            }
        };
        let nobody = mapsmith.ask(method, &path, &[], "");
        assert_eq!(nobody.status, 401, "{what}: {}", nobody.body);
        for (role, token) in &tokens {
            // There are more routes than changes that one may make at once.
            let response = mapsmith.wait_for(&what, BOUND, |mapsmith| {
                let response = ask(mapsmith, token, method, &path, "");
                (response.status != 429).then_some(response)
            });
            let problem = value_or_null(&response);
            if *role < needed {
                assert_eq!(response.status, 403, "{what} as {role}: {}", response.body);
                // Whoever has no role has a grant, which is for other members.
                let by_grant = *role == Role::None && matches!(route.needs, Needs::MemberGrant(_));
                let missing = if by_grant { Value::Null } else { json!(needed.name()) };
                assert_eq!(problem["needs"], missing, "{what} as {role}: {problem}");
            } else {
                let is_refused = matches!(response.status, 401 | 403);
                assert!(!is_refused, "{what} as {role}: {}", response.body);
            }
        }
    }
}

#[test]
fn what_is_only_tried_is_in_no_audit_and_a_change_that_can_not_be_tried_refuses_to() {
    let (_gateway, _registry, mapsmith) = guarded();
    let rows = || {
        let audit = ask(&mapsmith, FILE, "GET", "/v1/audit?limit=1000", "");
        value(&audit)["items"].as_array().expect("rows").len()
    };
    let before = rows();
    let document = value(&mapsmith.ask("GET", "/openapi.json", &[], ""));
    let mut tried = 0;
    for route in ROUTES.iter().filter(|route| route.method != "GET" && route.needs != Needs::Login)
    {
        let method = route.method.as_str();
        let operation = &document["paths"][route.path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {} is in the document", route.path);
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let can_be_tried = parameters.iter().any(|it| it["name"] == "dry_run");
        let path = format!("{}?dry_run=true", path(route));
        let response = mapsmith.wait_for(&path, BOUND, |mapsmith| {
            let response = ask(mapsmith, FILE, method, &path, "");
            (response.status != 429).then_some(response)
        });
        let is_unknown = response.status == 400 && response.body.contains("dry_run");
        assert!(can_be_tried || is_unknown, "{method} {path}: {response:?}");
        tried += usize::from(can_be_tried);
    }
    assert!(tried > 20, "{tried} changes can be tried");
    // What is noted comes in its order: once this one has its row, all before it would have theirs.
    mapsmith.wait_for("a change", BOUND, |mapsmith| {
        (ask(mapsmith, FILE, "POST", "/v1/reload", "").status != 429).then_some(())
    });
    mapsmith.wait_for("the last change has its row", BOUND, |_| (rows() > before).then_some(()));
    assert_eq!(rows(), before + 1, "{}", ask(&mapsmith, FILE, "GET", "/v1/audit", "").body);
}

#[test]
fn only_an_admin_holds_the_sources_back_without_an_end() {
    let (_gateway, _registry, mapsmith) = guarded();
    let (_, ci) = create(&mapsmith, FILE, json!({"name": "ci", "role": "operator", "grants": []}));
    let roll_back = |token: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("If-Match", "\"1\"")];
        mapsmith.ask("POST", path, &headers, r#"{"for": null}"#)
    };
    let refused = roll_back(&ci, "/v1/revisions/1/rollback");
    assert_eq!((refused.status, &value(&refused)["needs"]), (403, &json!("admin")));
    let done = roll_back(FILE, "/v1/revisions/1/rollback");
    assert_eq!(done.status, 202, "{}", done.body);
    let hold = value(&ask(&mapsmith, &ci, "GET", "/v1/hold", ""));
    assert_eq!((&hold["hold"]["until"], &hold["hold"]["by"]), (&Value::Null, &json!("file")));
    assert_eq!(ask(&mapsmith, &ci, "DELETE", "/v1/hold?wait=60s", "").status, 200);
}

fn value_or_null(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_default()
}

#[test]
fn whoever_waits_for_another_map_does_not_see_it_once_its_token_is_revoked() {
    let (_gateway, registry, mapsmith) = guarded();
    let (id, token) = create(&mapsmith, FILE, json!({"name": "edge9", "role": "viewer"}));
    let (mut connection, header) = (mapsmith.connect(), format!("Bearer {token}"));
    let waits = std::thread::spawn(move || {
        let headers = [("Authorization", header.as_str())];
        connection.request("GET", "/v1/map?revision=1&wait=10m", &headers, "").expect("an answer")
    });
    mapsmith.wait_for("somebody waits", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_api_waits") == Some(1.0)).then_some(())
    });
    assert_eq!(ask(&mapsmith, FILE, "DELETE", &format!("/v1/tokens/{id}"), "").status, 200);
    registry.knows(&[("node1", "m1"), ("node2", "m1")]);
    assert_eq!(ask(&mapsmith, FILE, "POST", "/v1/reload?wait=30s", "").status, 200);
    let response = waits.join().expect("an answer");
    assert_eq!(response.status, 401, "{}", response.body);
}

#[test]
fn whoever_waits_for_another_map_waits_no_longer_once_its_token_is_revoked() {
    let (_gateway, _registry, mapsmith) = guarded();
    let (id, token) = create(&mapsmith, FILE, json!({"name": "edge9", "role": "viewer"}));
    let (mut connection, header) = (mapsmith.connect(), format!("Bearer {token}"));
    let waits = std::thread::spawn(move || {
        let headers = [("Authorization", header.as_str())];
        connection.request("GET", "/v1/map?revision=1&wait=10m", &headers, "").expect("an answer")
    });
    let waiting = |mapsmith: &Mapsmith, count: f64| {
        mapsmith.wait_for(&format!("{count} wait"), BOUND, |mapsmith| {
            (metric(mapsmith, "mapsmith_api_waits") == Some(count)).then_some(())
        });
    };
    waiting(&mapsmith, 1.0);
    assert_eq!(ask(&mapsmith, FILE, "DELETE", &format!("/v1/tokens/{id}"), "").status, 200);
    // No other map comes: without its token nobody holds a connection and a place for 10 minutes.
    waiting(&mapsmith, 0.0);
    let response = waits.join().expect("an answer");
    assert_eq!(response.status, 401, "{}", response.body);
}

#[test]
fn a_token_is_made_used_rotated_and_revoked_on_the_command_line() {
    let (_gateway, _registry, mut mapsmith) = guarded();
    let as_file = |mapsmith: &Mapsmith, arguments: &[&str]| {
        printed(&mapsmith.cli(&[arguments, &["--token", FILE]].concat()))
    };
    let made =
        ["token", "create", "ci", "--role", "operator", "--grant", "node:m1", "--for", "90d"];
    let (code, text) = as_file(&mapsmith, &made);
    let token = text.trim().to_owned();
    assert!(code == 0 && token.starts_with("ms_"), "{text}");

    let about = value(&ask(&mapsmith, &token, "GET", "/v1/about", ""));
    let identity = &about["identity"];
    assert_eq!(
        (&identity["kind"], &identity["name"], &identity["role"], &identity["grants"]),
        (&json!("token"), &json!("ci"), &json!("operator"), &json!(["node:m1"])),
        "{about:#}"
    );
    assert_eq!(about["limits"]["reads"], json!({ "burst": 100, "per_minute": 3000 }), "{about:#}");
    assert_eq!(about["limits"]["changes"]["per_minute"], 600, "{about:#}");
    let id = identity["id"].as_str().expect("an id").to_owned();

    let (_, list) = as_file(&mapsmith, &["token", "list"]);
    assert!(list.contains(&id) && list.contains("ci  operator node:m1"), "{list}");
    assert!(!list.contains(&token), "it is shown once");
    let (_, rotated) = as_file(&mapsmith, &["token", "rotate", &id]);
    let status = |mapsmith: &Mapsmith, token: &str| {
        ask(mapsmith, token.trim(), "GET", "/v1/status", "").status
    };
    assert_eq!(
        (status(&mapsmith, &token), status(&mapsmith, &rotated)),
        (200, 200),
        "both, for an hour"
    );
    mapsmith.restart();
    assert_eq!((status(&mapsmith, &token), status(&mapsmith, &rotated)), (200, 200));

    let (code, text) = as_file(&mapsmith, &["token", "revoke", &id]);
    assert_eq!(code, 0, "{text}");
    assert_eq!((status(&mapsmith, &token), status(&mapsmith, &rotated)), (401, 401));
    let (_, list) = as_file(&mapsmith, &["token", "list"]);
    assert!(list.contains("revoked 20"), "{list}");
    let output = mapsmith.cli(&["token", "list", "--token", &token]);
    assert!(complaints(&output).contains("401"), "{}", complaints(&output));

    let log = mapsmith.log();
    for secret in [token.as_str(), rotated.trim(), FILE] {
        let secret = secret.rsplit('_').next().expect("the secret");
        assert!(!log.contains(secret), "a token is never logged");
    }
}

#[test]
fn who_is_wrong_too_often_is_told_to_wait_and_who_is_right_is_let_in() {
    let (_gateway, _registry, mapsmith) = guarded();
    let (_, token) = create(&mapsmith, FILE, json!({ "name": "ci", "role": "viewer" }));
    let status = |token: &str| ask(&mapsmith, token, "GET", "/v1/status", "");
    let wrong: Vec<_> = (0..8).map(|_| status("wrong")).collect();
    assert_eq!(wrong.iter().filter(|response| response.status == 401).count(), 5);
    let last = wrong.last().expect("eight");
    let wait: u64 = last.retry_after.as_deref().expect("Retry-After").parse().expect("seconds");
    assert!(last.status == 429 && (1..=12).contains(&wait), "{last:?}");
    for good in [FILE, token.as_str()] {
        assert_eq!(status(good).status, 200, "others at its address can't keep it out");
    }
    let refused = metric(&mapsmith, "mapsmith_api_refusals_total{status=\"401\"}");
    assert_eq!(refused, Some(5.0));

    let wait = |token: &str| {
        let limit = (0..60).map(|_| ask(&mapsmith, token, "POST", "/v1/reload", ""));
        limit.into_iter().find(|response| response.status == 429)
    };
    let (_, operator) = create(&mapsmith, FILE, json!({ "name": "fast", "role": "operator" }));
    let limited = wait(&operator).expect("twenty at once, ten a second");
    assert_eq!(limited.retry_after.as_deref(), Some("1"), "{limited:?}");
    assert_eq!(status(&operator).status, 200, "reads have their own limit");
}

#[test]
fn a_browsers_session_changes_things_for_pages_of_this_api_alone() {
    let (_gateway, _registry, mapsmith) = guarded();
    let (id, token) = create(&mapsmith, FILE, json!({ "name": "anna", "role": "operator" }));
    let origin = mapsmith.api_url();
    let own = [("Origin", origin.as_str())];
    let login = |token: &str, headers: &[(&str, &str)]| {
        mapsmith.ask("POST", "/v1/session", headers, &json!({ "token": token }).to_string())
    };
    assert_eq!(login(&token, &[("Origin", "https://evil.example")]).status, 403);
    assert_eq!(login("ms_wrong", &own).status, 401);
    let begun = login(&token, &own);
    assert_eq!(begun.status, 204, "{}", begun.body);
    let cookie = begun.header("set-cookie").expect("a cookie").to_owned();
    for part in ["mapsmith=", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().expect("name=value");
    let asked = |method: &str, path: &str, headers: &[(&str, &str)]| {
        mapsmith.ask(method, path, &[&[("Cookie", cookie)], headers].concat(), "").status
    };
    let about = mapsmith.ask("GET", "/v1/about", &[("Cookie", cookie)], "");
    assert_eq!(value(&about)["identity"]["kind"], "session", "{}", about.body);

    assert_eq!(asked("POST", "/v1/reload", &own), 202);
    assert_eq!(asked("POST", "/v1/reload", &[("Sec-Fetch-Site", "same-origin")]), 202);
    assert_eq!(asked("POST", "/v1/reload", &[]), 403, "it must say where it is from");
    for foreign in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "same-site"),
        ("Referer", "https://evil.example/"),
    ] {
        assert_eq!(asked("POST", "/v1/reload", &[foreign]), 403, "{foreign:?}");
        assert_eq!(asked("GET", "/v1/status", &[foreign]), 403, "{foreign:?}");
    }
    assert_eq!(asked("GET", "/v1/tokens", &[]), 403, "its role is the token's");

    assert_eq!(asked("DELETE", "/v1/session", &own), 204);
    assert_eq!(asked("GET", "/v1/status", &[]), 401);
    let again = login(&token, &own);
    let cookie = again.header("set-cookie").and_then(|it| it.split(';').next()).expect("a cookie");
    ask(&mapsmith, FILE, "DELETE", &format!("/v1/tokens/{id}"), "");
    let ended = mapsmith.ask("GET", "/v1/status", &[("Cookie", cookie)], "");
    assert_eq!(ended.status, 401, "a session ends with its token");
}

#[test]
fn every_change_is_noted_with_who_made_it_why_and_how_it_ended() {
    let (_gateway, _registry, mut mapsmith) = guarded();
    let (id, token) = create(&mapsmith, FILE, json!({ "name": "ci", "role": "operator" }));
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("X-Request-Id", "build-17"),
        ("X-Forwarded-User", "somebody-else"),
    ];
    let pinned = mapsmith.ask(
        "PUT",
        "/v1/overrides/node1?wait=30s&force=true&reason=kernel%20update",
        &headers,
        "{\"master\": \"m2\"}",
    );
    assert_eq!((pinned.status, pinned.header("x-request-id")), (200, Some("build-17")));
    // The override and the revision have the same author and reason as the audit.
    let shown = |path: &str| value(&ask(&mapsmith, &token, "GET", path, ""));
    let latest = shown("/v1/revisions?limit=1")["items"][0].clone();
    assert_eq!(latest["kind"], "override", "{latest:#}");
    for kept in [shown("/v1/overrides/node1"), latest] {
        assert_eq!((&kept["by"], &kept["reason"]), (&json!("ci"), &json!("kernel update")));
    }
    ask(&mapsmith, &token, "POST", "/v1/masters/nobody/drain", "{\"reason\": \"new disk\"}");
    ask(&mapsmith, FILE, "POST", "/v1/reload", "");
    let audit = |mapsmith: &Mapsmith, token: &str, query: &str| {
        let response = ask(mapsmith, token, "GET", &format!("/v1/audit{query}"), "");
        assert_eq!(response.status, 200, "{}", response.body);
        value(&response)
    };
    let all = mapsmith.wait_for("all four are noted with their answer", BOUND, |mapsmith| {
        let all = audit(mapsmith, FILE, "");
        let items = all["items"].as_array()?.clone();
        (items.len() == 4 && items.iter().all(|row| row["status"].is_number())).then_some(items)
    });
    assert!(all.iter().any(|row| row["target"] == format!("tokens/{id}")), "{all:?}");
    let pin = all.iter().find(|row| row["target"] == "overrides/node1").expect("the pin");
    assert_eq!(
        (&pin["actor"], &pin["reason"], &pin["status"], &pin["request_id"], &pin["route"]),
        (
            &json!({ "kind": "token", "name": "ci", "id": id }),
            &json!("kernel update"),
            &json!(200),
            &json!("build-17"),
            &json!("/v1/overrides/{node}")
        ),
        "{pin:#}"
    );
    assert_eq!((&pin["method"], &pin["address"]), (&json!("PUT"), &json!("127.0.0.1")));
    let refused = all.iter().find(|row| row["target"] == "masters/nobody").expect("the drain");
    assert_eq!(
        (&refused["status"], &refused["reason"]),
        (&json!(409), &json!("new disk")),
        "what was refused is noted, too: {refused:#}"
    );

    let own = audit(&mapsmith, &token, "");
    let names: Vec<_> =
        own["items"].as_array().expect("rows").iter().map(|row| &row["actor"]["name"]).collect();
    assert_eq!(names, ["ci", "ci"], "who is no admin sees what is theirs");
    let first = audit(&mapsmith, FILE, "?limit=3");
    let next = first["next"].as_str().expect("there is more");
    let rest = audit(&mapsmith, FILE, &format!("?limit=3&after={next}"));
    assert_eq!((rest["items"].as_array().map(Vec::len), &rest["next"]), (Some(1), &Value::Null));
    let of_pin = audit(&mapsmith, FILE, "?target=overrides/node1&since=2020-01-01T00:00:00Z");
    assert_eq!(of_pin["items"], json!([pin]));
    let log = mapsmith.log();
    let line =
        log.lines().find(|line| line.contains("mapsmith::audit") && line.contains("build-17"));
    assert!(line.is_some_and(|line| line.contains("kernel update")), "{log}");

    mapsmith.restart();
    let kept = mapsmith.wait_for("it is there after a restart", BOUND, |mapsmith| {
        audit(mapsmith, FILE, "")["items"].as_array().cloned()
    });
    assert_eq!(kept, all);
}

#[test]
fn without_a_token_file_local_programs_may_do_everything_and_tokens_count_where_they_are_shown() {
    let (_gateway, _registry, mapsmith) = start("");
    let (code, text) = printed(&mapsmith.cli(&["token", "create", "ro", "--role", "viewer"]));
    assert_eq!(code, 0, "{text}");
    let token = text.trim();
    assert_eq!(ask(&mapsmith, token, "GET", "/v1/status", "").status, 200);
    assert_eq!(ask(&mapsmith, token, "POST", "/v1/reload", "").status, 403);
    let wrong = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(ask(&mapsmith, &wrong, "GET", "/v1/status", "").status, 401);
    let about = mapsmith.get("/v1/about").1;
    assert_eq!(
        (&about["identity"]["kind"], &about["identity"]["role"]),
        (&json!("local"), &json!("admin"))
    );
    for number in 0..150 {
        assert_eq!(mapsmith.post("/v1/reload").0, 202, "local programs have no limit: {number}");
    }
}

#[test]
fn without_a_store_there_are_no_tokens_and_it_says_what_to_do() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1")]);
    let source = source_settings("registry", &registry.url());
    let mapsmith =
        Mapsmith::config(&format!("{ON_REQUEST}{}{source}", gateway_settings(&gateway))).start();
    let output = mapsmith.cli(&["token", "create", "ci", "--role", "viewer"]);
    assert!(complaints(&output).contains("[store]"), "{}", complaints(&output));
    assert_eq!(mapsmith.get("/v1/audit").0, 409);
}
