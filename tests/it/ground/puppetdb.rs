//! The facts about PuppetDB that the code relies on.

use std::process::Command;

use serde_json::json;

use crate::support::program;
use crate::support::puppetdb::PuppetDb;

#[test]
fn a_node_belongs_to_the_producer_of_its_latest_facts() {
    let puppetdb = PuppetDb::shared();
    let query = r#"factsets[certname, producer] { certname = "ground-moves" }"#;
    for producer in ["puppet00.example.test", "puppet01.example.test"] {
        puppetdb.replace_facts("ground-moves", producer, true);
        assert_eq!(
            puppetdb.query(query),
            json!([{ "certname": "ground-moves", "producer": producer }])
        );
    }
}

#[test]
fn facts_are_taken_at_once_and_stored_a_little_later() {
    let puppetdb = PuppetDb::shared();
    puppetdb.replace_facts("ground-queued", "puppet00.example.test", false);
    let query = r#"factsets[certname] { certname = "ground-queued" }"#;
    crate::support::eventually("the facts are stored", std::time::Duration::from_secs(60), || {
        (puppetdb.query(query) == json!([{ "certname": "ground-queued" }])).then_some(())
    });
}

#[test]
fn the_allowlist_lets_its_certificate_through_and_binds_plain_http_not_at_all() {
    let puppetdb = PuppetDb::shared();
    let plain = ask(puppetdb, &puppetdb.url(), None);
    assert_eq!(plain.status, "200");
    assert_eq!(ask(puppetdb, &puppetdb.tls_url(), Some("gateway")).status, "200");
}

#[test]
fn a_certificate_that_is_not_on_the_allowlist_is_answered_403() {
    let puppetdb = PuppetDb::shared();
    let stranger = ask(puppetdb, &puppetdb.tls_url(), Some("stranger"));
    assert_eq!(stranger.status, "403");
    assert!(stranger.printed.contains("Permission denied"), "{}", stranger.printed);
}

#[test]
fn a_certificate_of_another_authority_and_none_at_all_are_refused_by_tls() {
    let puppetdb = PuppetDb::shared();
    for certificate in [Some("rogue"), None] {
        let refused = ask(puppetdb, &puppetdb.tls_url(), certificate);
        assert_eq!(refused.status, "000", "{certificate:?}: {}", refused.printed);
    }
}

struct Answer {
    status: String,
    printed: String,
}

/// Asks with curl, whose TLS is not the one under test.
fn ask(puppetdb: &PuppetDb, url: &str, certificate: Option<&str>) -> Answer {
    let mut curl = Command::new(program("curl"));
    curl.args(["-s", "-S", "--noproxy", "*", "-w", "\n%{http_code}", "--cacert"])
        .arg(puppetdb.ca());
    if let Some(name) = certificate {
        curl.arg("--cert").arg(puppetdb.certificate(name)).arg("--key").arg(puppetdb.key(name));
    }
    let output = curl
        .arg(format!("{url}/pdb/query/v4?query=nodes%5Bcertname%5D%7B%7D"))
        .output()
        .expect("curl starts");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = printed.lines().last().unwrap_or_default().to_owned();
    Answer { status, printed: printed + &String::from_utf8_lossy(&output.stderr) }
}

#[test]
fn hundreds_of_certnames_are_asked_for_in_one_query() {
    let puppetdb = PuppetDb::shared();
    puppetdb.replace_facts("asked-for-1", "puppet00", true);
    puppetdb.replace_facts("asked-for-2", "puppet00", true);
    let names: Vec<_> = (1..=500).map(|number| format!("\"asked-for-{number}\"")).collect();
    for condition in ["", "(certname ~ \"^asked-for-\") and "] {
        let query = format!(
            "factsets[certname, producer] {{ {condition}certname in [{}] }}",
            names.join(", ")
        );
        let mut rows: Vec<_> = puppetdb
            .query(&query)
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row["certname"].to_string())
            .collect();
        rows.sort();
        assert_eq!(rows, ["\"asked-for-1\"", "\"asked-for-2\""], "{condition}");
    }
}
