//! The document says what the settings do.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Part, document, parts};
use crate::settings::keys::Unset;
use crate::settings::tests::{SMALL, load};

/// Beside the short settings, so that each section is there in which a key is required or has a
/// default.
const MORE: &str = r#"
[[source]]
name = "pins"
type = "file"
path = "/pins.json"
[[source]]
name = "zk"
type = "zookeeper"
servers = ["127.0.0.1:2181"]
[[source]]
name = "etcd"
type = "etcd"
endpoints = ["http://127.0.0.1:2379"]
[[backend]]
name = "puppet"
[[backend.servers]]
name = "m1"
address = "127.0.0.1:8141"
[[backend]]
name = "listed"
[backend.from]
source = "pins"
[[backend]]
name = "children"
[backend.from]
source = "zk"
format = "proxymgr"
path = "/services/web"
[[backend]]
name = "keys"
[backend.from]
source = "etcd"
prefix = "/services/web/"
[[source]]
name = "consul"
type = "consul"
url = "http://127.0.0.1:8500"
[[backend]]
name = "services"
[backend.from]
source = "consul"
service = "web"
[[backend]]
name = "members"
[backend.from]
source = "registrations"
name = "myapp"
version = "1.0.0"
[store]
path = "/mapsmith.db"
[notify]
command = ["/usr/local/bin/page"]
[commands]
gateway = "http://127.0.0.1:8142"
backend = "listed"
[[command]]
name = "run"
path = "/nodes/{node}/run"
[[command.params]]
name = "noop"
pattern = "true|false"
[api.tls]
cert = "/api.pem"
key = "/api.key"
[[tls_file]]
kind = "crl"
path = "/haproxy/crl.pem"
from = "/crl.pem"
[haproxy.stats]
bind = "127.0.0.1:8404"
[haproxy.metrics]
bind = "127.0.0.1:8405"
[[certificate]]
name = "site"
path = "/haproxy/site.pem"
[acme]
terms_agreed = true
[acme.eab]
kid = "key-1"
key_file = "/eab.key"
[[frontend]]
name = "web"
default_backend = "puppet"
[[frontend.bind]]
address = "127.0.0.1:8080"
[[frontend]]
name = "gateway"
bind = "127.0.0.1:8081"
[frontend.route]
by = { header = "X-Node-Name" }
"#;

/// What only a HAProxy has that Mapsmith runs.
const SERVICES: &str = r#"
[haproxy]
managed = true
[services]
from = { source = "zk", path = "/service_config" }
"#;

const CLIENTS: &str = "[[api.client]]\nsan = \"ops1.example.test\"\nrole = \"operator\"\n";
const PORTMAP: &str = r#"
[haproxy]
managed = true
[[source]]
name = "metadata"
type = "metadata"
path = "/metadata.json"
[portmap]
source = "metadata"
"#;

const COMPAT: &str = r#"
[haproxy]
managed = true
[compat.aqueduct]
listen = "127.0.0.1:10000"
[compat.thalassa]
listen = "127.0.0.1:9000"
"#;

fn settings() -> String {
    format!("{SMALL}{MORE}")
}

#[test]
fn the_document_is_what_the_settings_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("MAPSMITH_BLESS").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|text| text == document()),
        "docs/configuration.md is not what the settings say of themselves; write it again by\n  \
         MAPSMITH_BLESS=1 cargo test --lib the_document_is_what_the_settings_say"
    );
}

/// Tables of which there may be several.
const ELEMENTS: [&str; 8] =
    ["BACKEND", "FRONTEND", "SERVERS", "BIND", "RULES", "CLIENT", "COMMAND", "PARAMS"];

/// The parts, each with what the variables of its keys begin with.
fn parts_of_variables() -> Vec<(String, Part)> {
    let mut section = String::new();
    let mut named = Vec::new();
    for part in parts() {
        let title = part.heading.trim_matches(['#', ' ', '`', '[', ']']).to_uppercase();
        if let Some((table, key)) = title.split_once('.') {
            let element = |key| ELEMENTS.contains(&key);
            let number = |key| if element(key) { "__0" } else { "" };
            section = format!("{table}{}__{key}{}", number(table), number(key));
        } else if part.heading.starts_with("## ") {
            let element = if part.heading.contains("[[") { "__0" } else { "" };
            section = format!("{title}{element}");
        }
        named.push((format!("MAPSMITH__{section}"), part));
    }
    named
}

#[test]
fn each_documented_default_is_the_one_in_force() {
    let more = ["", SERVICES, PORTMAP, COMPAT];
    let texts = more.map(|more| settings() + more);
    let usual = texts.each_ref().map(|text| format!("{:?}", load(text, &[]).unwrap()));
    let mut compared = 0;
    // A selector is kept as it was written; the kinds hold its defaults to what they document.
    let of_selector = |part: &Part| part.heading.starts_with("### `backend.from`");
    for (section, part) in parts_of_variables().into_iter().filter(|(_, part)| !of_selector(part)) {
        for key in part.keys {
            let Unset::Value(value) = key.unset else { continue };
            let name = format!("{section}__{}", key.name.to_uppercase());
            let others = ["MAPSMITH__SERVICES", "MAPSMITH__PORTMAP", "MAPSMITH__COMPAT"];
            let of = others.iter().position(|of| section.starts_with(of));
            let of = of.map_or(0, |of| of + 1);
            let given = load(&texts[of], &[(&name, value)]).map(|settings| format!("{settings:?}"));
            assert_eq!(given.as_ref(), Ok(&usual[of]), "{name}={value}");
            compared += 1;
        }
    }
    assert!(compared > 30, "only {compared} defaults were compared");
}

#[test]
fn each_required_key_is_missed_where_it_is_not_given() {
    let lines = [
        ("name = \"puppetdb\"", "source[0].name: is missing"),
        ("type = \"puppetdb\"", "source[0].type: is missing"),
        ("url = \"http://127.0.0.1:8080\"", "source[0] \"puppetdb\": url is missing"),
        ("path = \"/pins.json\"", "source[1] \"pins\": path is missing"),
        ("servers = [\"127.0.0.1:2181\"]", "source[2] \"zk\": servers is missing"),
        ("endpoints = [\"http://127.0.0.1:2379\"]", "source[3] \"etcd\": endpoints is missing"),
        ("format = \"proxymgr\"", "from.format: is missing"),
        ("prefix = \"/services/web/\"", "backend[3] \"keys\": from.prefix: is missing"),
        ("name = \"edge1\"", "instance[0].name: is missing"),
        ("runtime = \"unix@/run/haproxy/admin.sock\"", "instance[0].runtime: is missing"),
        ("name = \"puppet\"", "backend[0].name: is missing"),
        ("name = \"m1\"", "backend[0].servers[0].name: is missing"),
        ("address = \"127.0.0.1:8141\"", "backend[0].servers[0].address: is missing"),
        ("source = \"pins\"", "backend[1].from.source: is missing"),
        ("service = \"web\"", "backend[4] \"services\": from.service: is missing"),
        ("name = \"myapp\"", "backend[5] \"members\": from.name: is missing"),
        ("version = \"1.0.0\"", "backend[5] \"members\": from.version: is missing"),
        ("path = \"/mapsmith.db\"", "store.path: is missing"),
        ("command = [\"/usr/local/bin/page\"]", "notify.command: is missing"),
        ("gateway = \"http://127.0.0.1:8142\"", "commands.gateway: is missing"),
        ("name = \"run\"", "command[0].name: is missing"),
        ("path = \"/nodes/{node}/run\"", "command[0].path: is missing"),
        ("name = \"noop\"", "command[0].params[0].name: is missing"),
        ("pattern = \"true|false\"", "command[0].params[0].pattern: is missing"),
        ("cert = \"/api.pem\"", "api.tls.cert: is missing"),
        ("key = \"/api.key\"", "api.tls.key: is missing"),
        ("san = \"ops1.example.test\"", "api.client[0].san: is missing"),
        ("role = \"operator\"", "api.client[0].role: is missing"),
        ("kind = \"crl\"", "tls_file[0].kind: is missing"),
        ("path = \"/haproxy/crl.pem\"", "tls_file[0].path: is missing"),
        ("from = \"/crl.pem\"", "tls_file[0].from: is missing"),
        ("bind = \"127.0.0.1:8404\"", "haproxy.stats.bind: is missing"),
        ("bind = \"127.0.0.1:8405\"", "haproxy.metrics.bind: is missing"),
        ("name = \"site\"", "certificate[0].name: is missing"),
        ("terms_agreed = true", "acme.terms_agreed: is missing"),
        ("kid = \"key-1\"", "acme.eab.kid: is missing"),
        ("key_file = \"/eab.key\"", "acme.eab.key_file: is missing"),
        ("name = \"web\"", "frontend[0].name: is missing"),
        ("address = \"127.0.0.1:8080\"", "frontend[0].bind[0].address: is missing"),
        ("bind = \"127.0.0.1:8081\"", "frontend[1].bind: is missing"),
        ("by = { header = \"X-Node-Name\" }", "frontend[1].route.by: is missing"),
        (SERVICES.trim().lines().last().expect("a line"), "services.from: is missing"),
        ("source = \"metadata\"", "portmap.source: is missing"),
        ("listen = \"127.0.0.1:10000\"", "compat.aqueduct.listen: is missing"),
        ("listen = \"127.0.0.1:9000\"", "compat.thalassa.listen: is missing"),
    ];
    for (line, told) in lines {
        let section = told.split('.').next().unwrap_or_default();
        let more = match section {
            "services" => SERVICES,
            "portmap" => PORTMAP,
            "api" => CLIENTS,
            "compat" => COMPAT,
            _ => "",
        };
        let text = (settings() + more).replacen(&format!("\n{line}\n"), "\n", 1);
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(told), "{told:?} is not in: {message}");
    }
    let keys = parts().into_iter().flat_map(|part| part.keys);
    let is_required = |unset| match unset {
        Unset::Required => true,
        // Of some kinds of sources.
        Unset::Says(words) => words.contains("`: required"),
        Unset::Value(_) | Unset::Nothing => false,
    };
    let required = keys.filter(|key| is_required(key.unset)).count();
    assert_eq!(required, lines.len());
}

#[test]
fn each_section_and_each_key_of_a_source_stands_in_the_document() {
    let known = |variable: &str| -> BTreeSet<String> {
        let message = load(&settings(), &[(variable, "x")]).unwrap_err();
        let (_, keys) = message.split_once("there are ").expect("the keys that there are");
        keys.trim().split(", ").map(str::to_owned).collect()
    };
    let parts = parts_of_variables();
    let sections: BTreeSet<_> = parts
        .iter()
        .filter_map(|(name, _)| name.split("__").nth(1))
        .map(str::to_lowercase)
        .collect();
    assert_eq!(known("MAPSMITH__NOTHINGLIKEIT"), sections);
    let of_source = parts.iter().filter(|(name, _)| name == "MAPSMITH__SOURCE__0");
    let keys: BTreeSet<_> =
        of_source.flat_map(|(_, part)| part.keys).map(|key| key.name.to_owned()).collect();
    assert_eq!(known("MAPSMITH__SOURCE__0__NOTHINGLIKEIT"), keys);
}
