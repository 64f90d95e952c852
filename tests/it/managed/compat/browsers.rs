//! Who is answered: no web page in a browser, and no more than the settings say.

use serde_json::json;

use super::Scene;
use crate::support::scene::newest;

const BODY: &str = r#"{"key":"a","type":"static"}"#;

#[test]
fn no_web_page_is_answered_by_whatever_name_it_asks() {
    let scene = Scene::with(newest(), "hosts = [\"gateway1.example\"]", "");
    let local = scene.old.to_string();
    for (headers, status) in [
        (vec![("Host", "evil.example")], 403),
        (vec![("Origin", "http://evil.example")], 403),
        (vec![("Referer", "http://evil.example/page")], 403),
        (vec![("Sec-Fetch-Site", "cross-site")], 403),
        (vec![("Host", "gateway1.example:10000"), ("Origin", "http://gateway1.example")], 403),
        (vec![("Content-Type", "text/plain")], 415),
        (vec![("Content-Type", "application/x-www-form-urlencoded")], 415),
        (vec![("Host", "gateway1.example:10000")], 200),
        (vec![("Host", "localhost")], 200),
        (vec![("Host", local.as_str()), ("Content-Type", "application/json; charset=utf-8")], 200),
    ] {
        let response = scene.send("PUT", "/backends/a", &headers, BODY);
        assert_eq!(response.status, status, "{headers:?}: {}", response.body);
    }
    for (headers, status) in [(vec![("Host", "evil.example")], 403), (vec![], 200)] {
        let response = scene.send("GET", "/backends", &headers, "");
        assert_eq!(response.status, status, "{headers:?}: {}", response.body);
        assert!(response.header("x-request-id").is_some());
    }
}

#[test]
fn whatever_is_refused_is_refused_in_the_words_of_the_old_api() {
    let scene = Scene::start(newest());
    let text = ("Content-Type", "text/plain");
    let large = format!(r#"{{"key":"{}"}}"#, "x".repeat(2 << 20));
    for (method, path, headers, body, status, error, words) in [
        ("PUT", "/backends/a", vec![text], BODY, 415, "Unsupported Media Type", "text/plain"),
        (
            "PUT",
            "/backends/a",
            vec![],
            &large,
            413,
            "Payload Too Large",
            "maximum allowed: 1048576",
        ),
        ("PUT", "/backends/a", vec![], "{\"key\"", 400, "Bad Request", "JSON"),
        ("PUT", "/backends/%ff", vec![], BODY, 400, "Bad Request", "UTF-8"),
        ("PATCH", "/backends/a", vec![], BODY, 404, "Not Found", ""),
        ("GET", "/nosuch", vec![], "", 404, "Not Found", ""),
        ("PUT", "/backends/a", vec![("If-Match", "\"1\"")], BODY, 400, "Bad Request", "if-match"),
        ("PUT", "/backends/a", vec![("If-None-Match", "*")], BODY, 400, "Bad Request", "/v1"),
        ("PUT", "/backends/a?dry_run=true", vec![], BODY, 400, "Bad Request", "dry_run"),
        ("DELETE", "/backends/a?dry_run=true", vec![], "", 400, "Bad Request", "dry_run"),
    ] {
        let response = scene.send(method, path, &headers, body);
        let told = format!("{method} {path} {headers:?}: {}", response.body);
        assert_eq!(response.status, status, "{told}");
        let kind = response.header("content-type").unwrap_or_default();
        assert_eq!(kind, "application/json; charset=utf-8", "{told}");
        let answer: serde_json::Value = serde_json::from_str(&response.body).expect(&told);
        assert_eq!((&answer["statusCode"], &answer["error"]), (&json!(status), &json!(error)));
        match (words, answer["message"].as_str()) {
            // As it was observed.
            ("", message) => assert_eq!(message, None, "{told}"),
            (words, message) => assert!(message.is_some_and(|it| it.contains(words)), "{told}"),
        }
    }
    assert_eq!(scene.send("GET", "/backends", &[], "").body, "[]", "nothing was done");
    // What has no meaning anywhere was always passed over.
    assert_eq!(scene.send("PUT", "/backends/a?x=1", &[], BODY).status, 200);
    assert_eq!(scene.send("GET", "/backends", &[("If-None-Match", "\"1\"")], "").status, 200);
}

#[test]
fn whoever_connects_may_do_what_the_settings_say() {
    let scene = Scene::with(newest(), "role = \"viewer\"", "");
    let response = scene.send("PUT", "/backends/a", &[], BODY);
    assert_eq!(response.status, 403, "{}", response.body);
    let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!((&body["statusCode"], &body["error"]), (&json!(403), &json!("Forbidden")));
    assert!(response.body.contains("compat.aqueduct.role is viewer"), "{}", response.body);
    assert_eq!(scene.send("GET", "/backends", &[], "").body, "[]");
    // It is no part of the API's own paths.
    assert_eq!(scene.send("GET", "/v1/status", &[], "").status, 404);
    assert_eq!(scene.send("PATCH", "/backends/a", &[], BODY).status, 404);
}
