//! Backends as people write them, and what they are told where they err.

use std::time::Duration;

use mapsmith_core::desired::references::{Action, Actions};

use super::Listing;
use crate::settings::tests::{SMALL, load};

const LISTS: &str = r#"
[[source]]
name = "consul"
type = "http_json"
url = "http://127.0.0.1:8500/servers.json"
[[backend]]
name = "written"
servers = [
  { name = "m1", address = "127.0.0.1:8141", weight = 100, backup = true, options = [
    "check", "maxconn 1000",
  ] },
  { name = "m2", address = "[::1]:8141" },
]
options = ["check"]
manage = "all"
slots = "slot"
defaults = "masters"
drain = "5s"
[[backend]]
name = "listed"
from = "consul"
[[backend]]
name = "mapped"
masters = "{producer}:8140"
[references]
unknown = "leave_out"
not_ready = "hold"
"#;

#[test]
fn backends_take_their_servers_from_a_list_a_source_or_the_map() {
    let settings = load(&format!("{SMALL}{LISTS}"), &[]).unwrap();
    assert_eq!(
        settings.map_sources().map(|source| &*source.name).collect::<Vec<_>>(),
        ["puppetdb"]
    );
    let lists = settings.server_lists();
    assert_eq!(lists.iter().map(|(_, list)| list.to_string()).collect::<Vec<_>>(), ["consul"]);
    let [written, listed, mapped] = &settings.backends[..] else { panic!("three backends") };
    assert!(matches!(listed.listing(), Listing::From(list) if list.source == "consul"));
    assert!(matches!(mapped.listing(), Listing::Masters("{producer}:8140")));
    let list = written.declared();
    assert_eq!(list.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(), ["m1", "m2"]);
    assert_eq!(list.servers[0].options.as_ref().unwrap().maxconn, Some(1000));
    assert!(written.default_options().check && list.servers[1].options.is_none());
    assert_eq!((written.drain, listed.drain), (Duration::from_secs(5), Duration::from_secs(30)));
    let pace = settings.damping.pace();
    assert_eq!(
        (pace.debounce, pace.max_delay, pace.hold),
        (Duration::from_secs(1), Duration::from_secs(15), Duration::from_secs(90))
    );
    assert_eq!(settings.references, Actions { unknown: Action::LeaveOut, not_ready: Action::Hold });
}

const CONSUL: &str = r#"
[[source]]
name = "consul"
type = "consul"
url = "http://127.0.0.1:8500"
[[backend]]
name = "web"
from = { source = "consul", service = "web", tag = "a" }
[[backend]]
name = "web-too"
from = { source = "consul", service = "web", tag = ["a"] }
[[backend]]
name = "api"
from = { source = "consul", service = "api", passing = false }
"#;

const NODES: &str = "[[source]]\nname = \"nodes\"\ntype = \"file\"\npath = \"nodes.json\"\n\
    priority = 1\n";

#[test]
fn a_source_feeds_each_list_once_and_the_node_map_where_it_has_one() {
    let feeds = |text: &str| {
        let settings = load(&format!("{SMALL}{text}"), &[]).unwrap();
        let maps: Vec<_> = settings.map_sources().map(|source| source.name.clone()).collect();
        let lists = settings.server_lists().into_iter().map(|(_, list)| list.to_string());
        (maps.join(", "), lists.collect::<Vec<_>>().join(", "))
    };
    let lists = "consul service=web tag=a, consul passing=false service=api".to_owned();
    assert_eq!(feeds(CONSUL), ("puppetdb".to_owned(), lists.clone()));
    let both = CONSUL.replace("8500\"", "8500\"\nkv = \"nodes/\"\npriority = 1");
    assert_eq!(feeds(&both), ("consul, puppetdb".to_owned(), lists));
    let settings = load(&format!("{SMALL}{CONSUL}"), &[]).unwrap();
    assert_eq!(settings.backends[0].origin(), "source consul service=web tag=a");
}

#[test]
fn a_shadow_is_no_source_of_what_is_applied() {
    let text = format!("{SMALL}{CONSUL}").replace(
        "from = { source = \"consul\", service = \"api\"",
        "servers = []\nshadow_from = { source = \"consul\", service = \"api\"",
    );
    let both = text.replace("8500\"", "8500\"\nkv = \"nodes/\"\npriority = 1");
    let settings = load(&both, &[]).unwrap();
    let lists = |lists: Vec<(_, &super::Selector)>| {
        lists.into_iter().map(|(_, list)| list.to_string()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(lists(settings.server_lists()), "consul service=web tag=a");
    assert_eq!(lists(settings.shadow_lists()), "consul passing=false service=api");
    assert_eq!(settings.map_sources().count(), 2);
    let shadowed = CONSUL.replace("from = ", "servers = []\nshadow_from = ");
    let shadowed = shadowed.replace("8500\"", "8500\"\nkv = \"nodes/\"\nshadow = true");
    let settings = load(&format!("{SMALL}{shadowed}"), &[]).unwrap();
    assert_eq!(settings.server_lists().len(), 0);
    assert_eq!(settings.shadow_lists().len(), 2);
    let names = |name: &str| settings.sources.iter().find(|source| source.name == name).unwrap();
    assert!(!names("consul").required && names("puppetdb").required);
    let of_map = settings.map_sources().map(|source| &*source.name).collect::<Vec<_>>();
    assert_eq!(of_map, ["puppetdb"]);
    let shadows = settings.shadow_sources().map(|source| &*source.name).collect::<Vec<_>>();
    assert_eq!(shadows, ["consul"]);
}

#[test]
fn a_shadow_that_would_be_applied_or_compared_with_nothing_is_a_problem() {
    let consul = |keys: &str| CONSUL.replace("8500\"", &format!("8500\"\n{keys}"));
    let second = "from = { source = \"consul\", service = \"api\", passing = false }";
    let same = format!("{second}\nshadow_{second}");
    for (text, part) in [
        (
            format!("{SMALL}{}", consul("shadow = true")),
            "backend[0] \"web\": from: source \"consul\" is a shadow, which is never applied",
        ),
        (
            format!("{SMALL}{}", CONSUL.replace(second, &same)),
            "backend[2] \"api\": shadow_from: names the very list of from",
        ),
        (
            format!("{SMALL}{}", CONSUL.replace(second, "servers = []\nshadow_from = \"none\"")),
            "backend[2] \"api\": shadow_from: there is no source of the name \"none\"",
        ),
        (
            format!(
                "{SMALL}{}",
                CONSUL.replace(second, "servers = []\nshadow_from = { source = \"consul\" }")
            ),
            "backend[2] \"api\": shadow_from.service: is missing",
        ),
        (
            format!(
                "{SMALL}{NODES}{}",
                CONSUL.replace(second, "servers = []\nshadow_from = \"nodes\"")
            ),
            "backend[2] \"api\": shadow_from: source \"nodes\" is one document, which is part of the \
                node map while no from names it; set shadow = true in that source",
        ),
        (
            SMALL.replacen("type = \"puppetdb\"", "type = \"puppetdb\"\nshadow = true", 1),
            "shadow: no other source says which master owns a node",
        ),
    ] {
        let problems = load(&text, &[]).unwrap_err().to_string();
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

#[test]
fn a_document_is_compared_as_a_list_where_it_is_a_shadow_or_a_list_already() {
    let second = "from = { source = \"consul\", service = \"api\", passing = false }";
    let shadow = NODES.replace("\"file\"", "\"file\"\nshadow = true");
    let compared = CONSUL.replace(second, "servers = []\nshadow_from = \"nodes\"");
    let listed = "[[backend]]\nname = \"other\"\nfrom = \"nodes\"\n";
    for text in [format!("{SMALL}{shadow}{compared}"), format!("{SMALL}{NODES}{compared}{listed}")]
    {
        let settings = load(&text, &[]).unwrap();
        let of_map = settings.map_sources().map(|source| &*source.name).collect::<Vec<_>>();
        assert_eq!(of_map, ["puppetdb"]);
    }
}

#[test]
fn problems_of_a_selector_are_named_with_backend_key_and_what_to_do() {
    let selector = "service = \"web\", tag = \"a\" }";
    for (to, part) in [
        ("}", "backend[0] \"web\": from.service: is missing"),
        ("servise = \"web\" }", "from.servise: there is no such key; did you mean service?"),
        ("service = \"web\", passing = \"perhaps\" }", "from.passing: \"perhaps\" is neither"),
        ("service = [\"web\", \"b\"] }", "from.service: one value must stand here"),
        ("service = \"a/b\" }", "from.service: \"a/b\" is not the name of a service"),
        ("service = \"web\", tag = { a = 1 } }", "backend[0].from.tag"),
        ("service = \"web\", tag = \"a\\u0007\" }", "from.tag: at most"),
    ] {
        let text = CONSUL
            .replacen(selector, to, 1)
            .replace("source = \"consul\", }", "source = \"consul\" }");
        let message = load(&format!("{SMALL}{text}"), &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    for (from, to, part) in [
        ("8500\"", "8500\"\nkv = \"nodes\"", "source[1] \"consul\": kv: must end with /"),
        ("8500\"", "8500\"\nnode_field = \"a\"\nmaster_field = \"b\"", "a consul source has none"),
        ("8500\"", "8500\"\nconsistency = \"some\"", "\"some\" is none of default"),
        (
            "8500\"",
            "8500\"\n[[source]]\nname = \"idle\"\ntype = \"consul\"\nurl = \"http://a\"",
            "source[2] \"idle\": nothing is taken from it",
        ),
    ] {
        let text = CONSUL.replacen(from, to, 1);
        let message = load(&format!("{SMALL}{text}"), &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_mistake_within_a_written_list_is_left_out_by_place_and_fails_no_start() {
    let text = format!(
        r#"{SMALL}
[[backend]]
name = "puppet"
servers = [
  {{ name = "m1", address = "127.0.0.1:8141" }},
  {{ name = "m1", address = "127.0.0.1:8142" }},
  {{ name = "m2", address = "nowhere" }},
  {{ name = "m3", address = "127.0.0.1:8143", options = ["resolvers dns"] }},
  {{ name = "m4", address = "127.0.0.1:8144", weight = 1000 }},
]"#
    );
    let list = load(&text, &[]).unwrap().backends[0].declared();
    assert_eq!(list.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(), ["m1"]);
    let mut places: Vec<_> = list.rejected.iter().map(|rejected| &*rejected.place).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [r#"servers[1] "m1""#, r#"servers[2] "m2""#, r#"servers[3] "m3""#, r#"servers[4] "m4""#]
    );
}

#[test]
fn problems_of_backends_are_named_with_their_place() {
    let backend = |text: &str| format!("{SMALL}[[backend]]\n{text}\n");
    for (text, part) in [
        (backend("name = \"a b\"\nservers = []"), "backend[0] \"a b\": name"),
        (backend("name = \"a\""), "exactly one of servers, from and masters"),
        (
            backend("name = \"a\"\nservers = []\nmasters = \"{producer}:1\""),
            "exactly one of servers, from and masters",
        ),
        (backend("name = \"a\"\nfrom = \"gone\""), "there is no source of the name \"gone\""),
        (
            backend("name = \"a\"\nfrom = { service = \"web\" }"),
            "backend[0].from.source: is missing",
        ),
        (
            format!("{SMALL}{LISTS}")
                .replace("from = \"consul\"", "from = { source = \"consul\", service = \"web\" }"),
            "backend[1] \"listed\": from.service: there is no such key",
        ),
        (
            backend("name = \"a\"\nfrom = \"puppetdb\""),
            "is of type puppetdb, which lists no servers",
        ),
        (backend("name = \"a\"\nmasters = \"puppet:8140\""), "must contain {producer} or {master}"),
        (backend("name = \"a\"\nmasters = \"{producer}\""), "has no port"),
        (backend("name = \"a\"\nmasters = \"{producer}.{domain}:8140\""), "is not an address"),
        (backend("name = \"a\"\nservers = []\noptions = [\"resolvers dns\"]"), "options: "),
        (backend("name = \"a\"\nservers = []\nslots = \"a b\""), "slots: "),
        (backend("name = \"a\"\nservers = []\nserver = 1"), "server"),
        (backend("name = \"a\"\nservers = [{ name = \"m\" }]"), "address"),
        (
            backend("name = \"a\"\nservers = [{ name = \"m\", address = \"x:1\", wieght = 1 }]"),
            "wieght",
        ),
        (backend("name = \"a\"\nservers = []\nmanage = \"some\""), "manage"),
        (
            backend("name = \"a\"\nservers = []\n[[backend]]\nname = \"a\"\nservers = []"),
            "two of the name \"a\"",
        ),
        (format!("{SMALL}[damping]\ndebounce = \"20s\""), "damping.max_delay"),
        (format!("{SMALL}[damping]\nmax_removed = \"lots\""), "lots"),
        (format!("{SMALL}[references]\nunknown = \"drop\""), "drop"),
        (
            SMALL.replace("\"puppetdb\"\nurl", "\"http_json\"\nurl")
                + "[[backend]]\nname = \"a\"\nfrom = \"puppetdb\"",
            "add a [[source]] for the node map",
        ),
        (
            format!("{SMALL}{LISTS}").replace(
                "servers.json\"",
                "servers.json\"\nnode_field = \"a\"\nmaster_field = \"b\"",
            ),
            "source[1] \"consul\": node_field, master_field and masters",
        ),
    ] {
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}\n{text}");
    }
}

const RENDERED: &str = r#"
[haproxy]
[[backend]]
name = "app"
options = ["slowstart 10s"]
servers = [
  { name = "a1", address = "10.0.0.1:8080" },
  { name = "a2", address = "10.0.0.2:8080", options = ["inter 9s", "maxconn 7"] },
]
balance = { header = "X-Tenant" }
check = { uri = "/healthz", host = "app.test", expect = { status = "200-299" }, interval = "2s", rise = 2, fall = 4, port = 9000 }
tls = { ca = "/ca.pem", verify_host = "{server}.test", cert = "/client.pem" }
send_proxy = true
maxconn = 100
"#;

#[test]
fn what_is_said_of_a_backend_stands_on_each_server_unless_its_own_options_say_otherwise() {
    let settings = load(&format!("{SMALL}{RENDERED}"), &[]).unwrap();
    let backend = &settings.backends[0];
    let usual = "check, maxconn 100, slowstart 10s, inter 2s, rise 2, fall 4, port 9000, ssl, \
        verify required, ca-file /ca.pem, crt /client.pem, sni str({server}.test), check-sni \
        {server}.test, verifyhost {server}.test, check-ssl, send-proxy-v2";
    assert_eq!(backend.default_options().words().join(", "), usual);
    let list = backend.declared();
    let own = list.servers[1].options.as_ref().unwrap();
    let both = own.with_usual(&backend.usual_options()).unwrap().words().join(", ");
    assert!(both.starts_with("check, maxconn 7, inter 9s, rise 2"), "{both}");
}

#[test]
fn problems_of_what_is_rendered_are_named_with_their_key() {
    let whole = format!("{SMALL}{RENDERED}");
    for (from, to, part) in [
        ("[haproxy]\n", "", "backend[0].balance: needs [haproxy]"),
        ("uri = \"/healthz\", ", "", "check.host: needs uri"),
        ("rise = 2", "rise = 0", "check.rise: must not be 0"),
        ("\"200-299\"", "\"ok\"", "expect.status: \"ok\" is not a list of statuses"),
        ("interval = \"2s\"", "interval = \"0s\"", "check.interval: must be more than 0"),
        ("ca = \"/ca.pem\", ", "", "tls: give ca, or verify = false"),
        ("verify_host = \"{server}.test\", ", "", "tls: give verify_host, or verify = false"),
        ("{server}.test", "a b", "tls.verify_host: \"a b\" is not a host name"),
        ("{server}.test", "{master}", "tls.verify_host: {producer} and {master} need"),
        ("send_proxy", "host = \"a b\"\nsend_proxy", "host: \"a b\" is not a host"),
        ("\"app.test\"", "\"a b\"", "check.host: \"a b\" is not a host"),
        ("= { header = \"X-Tenant\" }", "= \"rdp\"", "\"rdp\" is none of roundrobin"),
        (
            "= { header = \"X-Tenant\" }",
            "= \"header\"",
            "\"header\" needs a value: { header = \"...\" }",
        ),
        ("send_proxy", "retry_on = \"404s\"\nsend_proxy", "\"404s\" is none of conn-failure"),
        ("send_proxy", "errors = { status = 599, body = \"x\" }\nsend_proxy", "599 is none of"),
        ("send_proxy", "mode = \"tcp\"\nhost = \"x\"\nsend_proxy", "host: only for mode http"),
        (
            "send_proxy",
            "http_reuse = \"always\"\nsend_proxy",
            "http_reuse: with send_proxy a connection belongs to one client",
        ),
    ] {
        let text = whole.replacen(from, to, 1);
        assert_ne!(text, whole, "{from}");
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}\n{text}");
    }
}

const DNS: &str = r#"
[[source]]
name = "dns"
type = "dns"
[[backend]]
name = "web"
from = { source = "dns", name = "Web.example.test.", port = 8080 }
[[backend]]
name = "api"
from = { source = "dns", srv = "_api._tcp.example.test", family = "ipv6" }
"#;

#[test]
fn a_name_in_dns_is_a_selector_and_what_is_wrong_with_it_is_named_with_its_key() {
    let settings = load(&format!("{SMALL}{DNS}"), &[]).unwrap();
    let lists = settings.server_lists().into_iter().map(|(_, list)| list.to_string());
    assert_eq!(
        lists.collect::<Vec<_>>(),
        ["dns name=Web.example.test. port=8080", "dns family=ipv6 srv=_api._tcp.example.test"]
    );
    let (of_source, selector) = ("type = \"dns\"", "name = \"Web.example.test.\", port = 8080");
    let of = |from: &str, key: &str| (from.to_owned(), key.to_owned());
    for ((from, to), part) in [
        (
            of(of_source, "type = \"dns\"\nservers = [\"ns.example.test\"]"),
            "servers: \"ns.example.test\" is not a name server's",
        ),
        (of(of_source, "type = \"dns\"\nattempts = 0"), "source[1] \"dns\": attempts: 1 to 10"),
        (of(of_source, "type = \"dns\"\nmin_ttl = \"10m\""), "min_ttl must be 1s or longer"),
        (of(of_source, "type = \"dns\"\nquery_timeout = \"0s\""), "query_timeout: not 0"),
        (
            of(of_source, "type = \"dns\"\nnodata = \"drop\""),
            "nodata: \"drop\" is none of keep or empty",
        ),
        (of(of_source, "type = \"dns\"\nurl = \"http://a\""), "url: a dns source has none"),
        (
            of(of_source, "type = \"file\"\npath = \"/a\"\nservers = [\"10.0.0.1\"]"),
            "servers: a file source has none",
        ),
        (
            of(of_source, "type = \"file\"\npath = \"/a\"\nnxdomain = \"empty\""),
            "no_answer: a file source has none",
        ),
        (of(selector, "name = \"web\""), "backend[0] \"web\": from.port: is missing"),
        (of(selector, "name = \"web\", port = \"http\""), "from.port: \"http\" is not"),
        (
            of(selector, "name = \"web\", srv = \"web\""),
            "from.name: give exactly one of name, hosts and srv",
        ),
        (
            of(selector, "nam = \"web\", port = 80"),
            "from.nam: there is no such key; did you mean name?",
        ),
        (
            of(selector, "srv = \"web\", family = \"4\""),
            "from.family: \"4\" is none of ipv4, ipv6 or both",
        ),
    ] {
        let message = load(&format!("{SMALL}{}", DNS.replacen(&from, &to, 1)), &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_fields_of_a_list_are_for_documents_that_list_servers() {
    let list = "[[source]]\nname = \"cmdb\"\ntype = \"http_json\"\nurl = \"http://a\"\n\
        address_field = \"net.ip\"\nlist_field = \"hosts\"\n";
    let backend = "[[backend]]\nname = \"web\"\nfrom = \"cmdb\"\n";
    load(&format!("{SMALL}{list}{backend}"), &[]).unwrap();
    for (text, part) in [
        (list.to_owned(), "\"cmdb\": list_field, address_field: for lists of servers, but no"),
        (list.replace("net.ip", "net..ip") + backend, "address_field: a field's name"),
        (
            "[[source]]\nname = \"a\"\ntype = \"puppetdb\"\nurl = \"http://a\"\nport_field = \"p\"\n"
                .to_owned(),
            "port_field: a puppetdb source has none",
        ),
        (
            "[[source]]\nname = \"a\"\ntype = \"file\"\npath = \"/a\"\nformat = \"lines\"\n"
                .to_owned(),
            "format: lines are a list of servers",
        ),
        (
            "[[source]]\nname = \"cmdb\"\ntype = \"file\"\npath = \"/a\"\nformat = \"map\"\n"
                .to_owned()
                + backend,
            "format: a list of servers is json or lines",
        ),
    ] {
        let message = load(&format!("{SMALL}{text}"), &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_list_of_registrations_is_taken_from_the_source_that_has_them_by_its_name() {
    let own = "[store]\npath = \"mapsmith.db\"\n[[source]]\nname = \"reg\"\ntype = \
        \"registrations\"\n";
    let live = "[[backend]]\nname = \"live\"\nfrom = { source = \"registrations\" }\n";
    let error = load(&format!("{SMALL}{own}{live}"), &[]).unwrap_err().to_string();
    assert!(error.contains("the source of registrations is called \"reg\" here"), "{error}");
    let error = load(&format!("{SMALL}{live}"), &[]).unwrap_err().to_string();
    assert!(error.contains("set `path` in `[store]`"), "{error}");
}
