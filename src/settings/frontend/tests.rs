//! Frontends as people write them, what they come to in `haproxy.cfg`, and what is said of errors.

use mapsmith_core::DesiredServers;
use mapsmith_core::render::render;

use crate::settings::tests::{SMALL, load};

const HAPROXY: &str = r#"
[haproxy]
[[certificate]]
name = "site"
path = "/etc/haproxy/site.pem"
[[backend]]
name = "app"
servers = []
[[frontend]]
name = "web"
bind = [
  "127.0.0.1:8080",
  { address = ":443", certificate = "site", client_ca = "/ca.pem", crl = "/crl.pem", verify = "optional" },
]
default_backend = "app"
"#;

/// The lines of a section that the settings render.
fn section(text: &str, header: &str) -> Vec<String> {
    let settings = load(text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let config = settings.haproxy_config(&DesiredServers::default()).expect("[haproxy] is there");
    let rendered = render(&config);
    let lines = rendered.text().lines().skip_while(|line| *line != header).skip(1);
    lines.take_while(|line| !line.is_empty()).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_frontend_listens_in_the_clear_and_by_tls_with_certificates_by_name() {
    let lines = section(&format!("{SMALL}{HAPROXY}"), "frontend web");
    assert_eq!(
        lines[..2],
        [
            "bind 127.0.0.1:8080",
            "bind :443 ssl crt /etc/haproxy/site.pem alpn h2,http/1.1 ca-file /ca.pem crl-file \
                /crl.pem verify optional no-tls-tickets",
        ]
    );
    assert_eq!(lines.last().map(String::as_str), Some("default_backend app"));
    let global = section(&format!("{SMALL}{HAPROXY}"), "global");
    assert!(global.contains(&"tune.ssl.cachesize 0".to_owned()), "{global:?}");
}

#[test]
fn clients_without_a_known_name_or_with_an_old_tls_are_refused_where_that_is_said() {
    let strict = "certificate = \"site\", strict_sni = true, tls_min = \"1.3\", client_ca";
    let text = format!("{SMALL}{HAPROXY}").replace("certificate = \"site\", client_ca", strict);
    let lines = section(&text, "frontend web");
    let words = " alpn h2,http/1.1 strict-sni ssl-min-ver TLSv1.3 ca-file ";
    assert!(lines[1].contains(words), "{lines:?}");
}

#[test]
fn a_rule_has_conditions_and_one_action() {
    let rules = r#"
rules = [
  { path_beg = ["/api/", "/v1/"], not = { method = "GET" }, backend = "app" },
  { header = "Host", hdr_dom = "staged.example.test", backend = "app" },
  { any = [{ host = "a.test" }, { src = ["10.0.0.0/8", "::1"] }], deny = 403 },
  { map = { file = "/m.map", by = { header = "X-Key" } }, redirect = { https = true, status = 301 } },
  { map = { file = "/m.map", by = "host" }, return = { status = 200, body = "it's" } },
]
"#;
    let lines = section(&format!("{SMALL}{HAPROXY}{rules}"), "frontend web");
    for line in [
        "use_backend app if rule0_all0 !rule0_none0",
        "acl rule1_all0 req.hdr(Host) -i -m dom -- staged.example.test",
        "acl rule2_any1_0 src -- 10.0.0.0/8 ::1",
        "http-request deny deny_status 403 if rule2_any0_0 or rule2_any1_0",
        "acl rule3_all0 'req.hdr(X-Key),map_str(/m.map)' -m found",
        "http-request redirect scheme https code 301 if !{ ssl_fc } rule3_all0",
        r"http-request return status 200 content-type text/plain string 'it'\''s' if rule4_all0",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line:?} is not in {lines:#?}");
    }
}

#[test]
fn a_frontend_routes_by_the_node_map() {
    let text = format!("{SMALL}{HAPROXY}").replace(
        "default_backend = \"app\"",
        "route = { map = \"node-master\", by = { header = \"X-Node-Name\" }, backend = \"app\" }",
    );
    let lines = section(&text, "frontend web");
    let map = "http-request set-var(txn.master) \
        var(txn.node),map_str(/etc/haproxy/maps/node-master.map)";
    assert!(lines.iter().any(|line| line.replace('\'', "") == map), "{lines:#?}");
    let other = text.replace("map = \"node-master\"", "map = \"other\"");
    let message = load(&other, &[]).unwrap_err();
    assert!(
        message.contains("frontend[0].route.map: there is no map of the name other"),
        "{message}"
    );
}

#[test]
fn problems_of_frontends_are_named_with_their_place() {
    let whole = format!("{SMALL}{HAPROXY}");
    for (from, to, part) in [
        (":443", "443", "frontend[0].bind[1].address: \"443\" is not an address"),
        (
            "\"127.0.0.1:8080\",",
            "\"localhost\",",
            "frontend[0].bind[0]: \"localhost\" is not an address",
        ),
        ("= \"site\", client", "= \"sight\", client", "no [[certificate]] of the name sight"),
        ("certificate = \"site\", client_ca", "client_ca", "bind[1].client_ca: needs certificate"),
        ("\"127.0.0.1:8080\",", "{ address = \":80\", strict_sni = true },", "needs certificate"),
        ("client_ca = ", "tls_min = \"1.1\", client_ca = ", "1.1"),
        ("client_ca = \"/ca.pem\", ", "", "frontend[0].bind[1].crl: needs client_ca"),
        ("\"optional\"", "\"maybe\"", "\"maybe\" is none of required or optional"),
        (":443", ":8080\" , alpn = \"h2,x", "is not the name of a protocol"),
        ("\"app\"\nservers", "\"apps\"\nservers", "default_backend: there is no backend app"),
        ("[haproxy]\n", "", "frontend: needs [haproxy]"),
        (
            "default_backend = \"app\"",
            "natives = [\"option x\\nfrontend y\"]",
            "frontend[0].natives[0]: the line \"option x\\nfrontend y\" contains a line break",
        ),
        ("default_backend", "rules = [{ path = [], deny = 403 }]\ndefault_backend", "empty list"),
        ("default_backend", "rules = [{ deny = 418 }]\ndefault_backend", "418 is none of the"),
        ("default_backend", "rules = [{ path = \"/\" }]\ndefault_backend", "has no action"),
        (
            "default_backend",
            "rules = [{ deny = 403, backend = \"app\" }]\ndefault_backend",
            "frontend[0].rules[0]: has several actions",
        ),
        (
            "default_backend",
            "rules = [{ hdr = \"x\", deny = 403 }]\ndefault_backend",
            "frontend[0].rules[0]: hdr: needs `header`",
        ),
        ("default_backend", "rules = [{ pth = \"x\", deny = 403 }]\ndefault_backend", "mean path?"),
        ("default_backend", "route = { by = \"client_cert\" }\ndefault_backend", "client_cert"),
    ] {
        let text = whole.replacen(from, to, 1);
        assert_ne!(text, whole, "{from}");
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}\n{text}");
    }
}
