//! What a document and a program say, and what is no answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use mapsmith_core::status::PollKind;
use mapsmith_core::{ServiceTexts, Snapshot};
use serde_json::json;
use tempfile::TempDir;
use wiremock::matchers::{header, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::environment::variable;
use crate::settings::Settings;
use crate::source::{Extent, Feed, Registries};

fn feed(keys: &str) -> Result<Box<dyn Feed<ServiceTexts>>, String> {
    let text = format!(
        "[haproxy]\nmanaged = true\n[[source]]\nname = \"md\"\ntype = \"metadata\"\n\
            timeout = \"5s\"\n{keys}\n[portmap]\nsource = \"md\"\n"
    );
    let settings = Settings::of_text(Path::new("/a.toml"), &text, []);
    let settings = settings.map_err(|error| error.to_string())?;
    let (_, from) = settings.services_source().unwrap();
    Registries::new(&settings).services(&from).map_err(|error| error.to_string())
}

async fn read(keys: &str) -> Result<Vec<(String, Result<String, String>)>, String> {
    let mut feed = feed(keys)?;
    let polled = feed.poll(Extent::Everything, None, Timestamp::now()).await;
    let polled = polled.map_err(|error| error.to_string())?;
    Ok(polled.entries.texts.clone().into_iter().collect())
}

fn said(key: &str, text: &str) -> (String, Result<String, String>) {
    (key.to_owned(), Ok(text.to_owned()))
}

/// A program of these lines, where `$1` is the key.
fn program(folder: &TempDir, lines: &str) -> String {
    let path = folder.path().join("mdata-get");
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("command = [{:?}]", path.display().to_string())
}

async fn of_file(name: &str, text: &str) -> Result<Vec<(String, Result<String, String>)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    read(&format!("path = {:?}", path.display().to_string())).await
}

#[tokio::test]
async fn a_file_has_the_keys_with_or_without_the_prefix_and_others_are_nobodys() {
    let expected =
        vec![said("loadbalancer", "true"), said("max_rs", "64"), said("portmap", "http://80:a:1")];
    let json = r#"{"cloud.tritoncompute:portmap": "http://80:a:1", "loadbalancer": true,
        "cloud.tritoncompute:max_rs": 64, "root_authorized_keys": "ssh-rsa", "syslog": null}"#;
    assert_eq!(of_file("md.json", json).await, Ok(expected.clone()));
    let toml = "\"cloud.tritoncompute:portmap\" = \"http://80:a:1\"\nloadbalancer = true\n\
        max_rs = 64\nother = [1]\n";
    assert_eq!(of_file("md.toml", toml).await, Ok(expected));
    assert_eq!(of_file("md.json", "{}").await, Ok(Vec::new()));
}

#[tokio::test]
async fn what_is_no_document_is_a_failure_and_never_a_document_without_keys() {
    for (name, text, part) in [
        ("md.json", "{\"portmap\": \"http", "cut off"),
        ("md.json", "", "cut off"),
        ("md.json", "{\"portmap\": }", "mistake at line 1"),
        ("md.json", "[]", "an object with the keys of metadata was expected"),
        ("md.toml", "portmap = \"http", "it is not TOML"),
    ] {
        let error = of_file(name, text).await.unwrap_err();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    let large = format!("{{\"portmap\": \"{}\"}}", "a".repeat(5 * 1024 * 1024));
    let error = of_file("md.json", &large).await.unwrap_err();
    assert!(error.contains("at most 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn a_key_that_can_not_be_read_is_not_one_that_is_missing() {
    let texts = of_file("md.json", r#"{"portmap": ["http://80:a:1"], "max_rs": 1}"#).await.unwrap();
    assert!(texts[1].1.as_ref().is_err_and(|why| why.contains("a list")), "{texts:?}");
    let both = r#"{"cloud.tritoncompute:max_rs": 32, "max_rs": 64}"#;
    let texts = of_file("md.json", both).await.unwrap();
    assert!(texts[0].1.as_ref().is_err_and(|why| why.contains("keep one of both")), "{texts:?}");
}

#[tokio::test]
async fn a_document_at_a_url_is_asked_for_again_and_a_refusal_is_a_failure() {
    let server = MockServer::start().await;
    let document = ResponseTemplate::new(200)
        .set_body_json(json!({"cloud.tritoncompute:loadbalancer": "true"}))
        .insert_header("ETag", "\"1\"");
    let unchanged = Mock::given(header("If-None-Match", "\"1\""));
    unchanged.respond_with(ResponseTemplate::new(304)).with_priority(1).mount(&server).await;
    let once = Mock::given(path("/md")).respond_with(document).up_to_n_times(1);
    once.with_priority(2).mount(&server).await;
    let refused = Mock::given(path("/md")).respond_with(ResponseTemplate::new(503));
    refused.with_priority(3).mount(&server).await;

    let mut feed = feed(&format!("url = \"{}/md\"", server.uri())).unwrap();
    let now = Timestamp::now();
    let polled = feed.poll(Extent::Everything, None, now).await.unwrap();
    assert_eq!(polled.entries.texts["loadbalancer"], Ok("true".to_owned()));
    let (entries, rejections) = (polled.entries, polled.rejections);
    let current = Snapshot { entries, rejections, answered_at: now };
    let again = feed.poll(Extent::Changes, Some(&current), now).await.unwrap();
    assert_eq!(again.kind, PollKind::Unchanged);
    let error = feed.poll(Extent::Everything, Some(&current), now).await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn a_program_is_asked_for_each_key_and_says_which_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let command = program(
        &folder,
        "case $1 in cloud.tritoncompute:portmap) echo 'http://80:a:1'; echo 'http://81:a:1';; \
            cloud.tritoncompute:loadbalancer) echo true;; \
            *) echo \"No metadata for '$1'\" >&2; exit 1;; esac",
    );
    let expected =
        vec![said("loadbalancer", "true"), said("portmap", "http://80:a:1\nhttp://81:a:1")];
    assert_eq!(read(&command).await, Ok(expected));
}

#[tokio::test]
async fn a_program_that_fails_says_nothing_of_any_key() {
    let folder = tempfile::tempdir().unwrap();
    for (lines, part) in [
        ("echo 'no metadata socket' >&2; exit 2", "exit status: 2: no metadata socket"),
        ("case $1 in *max_rs) exit 2;; esac", "cloud.tritoncompute:max_rs: the command ended"),
        ("kill -9 $$", "signal: 9"),
        ("head -c 1100000 /dev/zero", "larger than 1048576 bytes"),
        // The shell's own.
        ("exec /no/such/program", "exit status: 127"),
    ] {
        let error = read(&program(&folder, lines)).await.unwrap_err();
        assert!(error.contains(part), "{lines}: {error}");
    }
    let error = read("command = [\"/no/such/mdata-get\"]").await.unwrap_err();
    assert!(error.contains("/no/such/mdata-get can't be started"), "{error}");
}

#[tokio::test]
async fn keys_that_change_while_they_are_read_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count").display().to_string();
    let say = |until: &str| {
        format!(
            "case $1 in *max_rs) n=$(cat {count} 2>/dev/null || echo 0); n=$((n + 1)); \
                echo $n > {count}; if [ $n -lt {until} ]; then echo $n; else echo {until}; fi;; \
                *) exit 1;; esac"
        )
    };
    assert_eq!(read(&program(&folder, &say("3"))).await, Ok(vec![said("max_rs", "3")]));
    let error = read(&program(&folder, &say("1000"))).await.unwrap_err();
    assert!(error.contains("changed while they were read"), "{error}");
}

#[test]
fn a_key_is_a_variable_that_a_shell_can_set() {
    let name = variable("cloud.tritoncompute:", "max_rs");
    assert_eq!(name, "CLOUD_TRITONCOMPUTE_MAX_RS");
}

#[test]
fn where_metadata_is_must_be_said_once() {
    for (keys, part) in [
        ("", "give exactly one of command, path, url and environment"),
        ("environment = true\npath = \"/a\"", "give exactly one of"),
        ("command = [\"mdata-get\"]", "command: \"mdata-get\" is not an absolute path"),
        ("command = []", "command: \"\" is not an absolute path"),
        ("environment = true\npoll = \"10ms\"", "poll: must be at least 1s"),
        ("environment = true\nca = \"/ca.pem\"", "ca, cert, key: a metadata source has none"),
        ("url = \"ftp://a/\"", "url: must begin with http"),
    ] {
        let error = feed(keys).err().unwrap_or_default();
        assert!(error.contains(part), "{keys}: {error}");
    }
}
