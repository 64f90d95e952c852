//! ProxyMgr's own cases (its test suite, and what its code does with each), and what a registry may
//! not do.

use std::path::Path;

use mapsmith_core::render::rendered;
use mapsmith_core::{DesiredServers, ServiceForms, ServiceTexts};
use serde_json::{Value, json};

use super::service::{Service, Watcher, read};
use super::{Overlay, Refusals, Services, overlay};
use crate::settings::Settings;

const FILE: &str = r#"
    [haproxy]
    managed = true
    metrics = { bind = "127.0.0.1:8405" }
    [api]
    listen = "127.0.0.1:7070"
    [[source]]
    name = "zk"
    type = "zookeeper"
    servers = ["zk1:2181", "zk2:2181"]
    chroot = "/site"
    auth_file = "zk.auth"
    [services]
    from = { source = "zk", path = "/service_config" }
    files = "/etc/lists"
    max = 5
    [[frontend]]
    name = "own"
    bind = ["127.0.0.1:80"]
    default_backend = "own-back"
    [[backend]]
    name = "own-back"
    servers = []
"#;

fn settings(text: &str) -> Settings {
    Settings::of_text(Path::new("/etc/mapsmith/a.toml"), text, []).unwrap()
}

fn services() -> Services {
    settings(FILE).services.unwrap()
}

/// A service that is one, with these keys beside or in place of its own.
fn service(keys: &Value) -> Value {
    let mut service = json!({"type": "zookeeper", "path": "/a", "server": "h:2181", "port": 8080});
    for (key, value) in keys.as_object().unwrap() {
        service[key] = value.clone();
    }
    service
}

fn read_service(keys: &Value) -> Result<Service, String> {
    read(&service(keys).to_string(), &services())
}

/// Services over the settings, none of which were known.
fn over(services: &[(&str, Value)]) -> Overlay {
    let texts = services.iter().map(|(name, text)| ((*name).to_owned(), text.to_string()));
    let texts: ServiceForms = texts.collect();
    overlay(&settings(FILE), &texts.into(), &ServiceForms::new(), &Refusals::new())
}

fn reason(overlay: &Overlay, name: &str) -> String {
    let rejected = overlay.rejected.iter().find(|rejected| rejected.name == name);
    rejected.map(|rejected| rejected.reason.clone()).unwrap_or_default()
}

#[test]
fn every_service_has_a_port_and_lists_of_options() {
    for (id, keys, expected) in [
        ("port-ok", json!({"port": 8080}), Ok(())),
        ("port-string", json!({"port": "false"}), Err("port: \"false\" is not a whole number")),
        ("port-zero", json!({"port": 0}), Err("port: 0 is not")),
        ("port-missing", json!({"port": null}), Err("port: is missing")),
        ("port-float", json!({"port": 80.5}), Err("port: 80.5 is not")),
        ("listen-options-string", json!({"listen_options": "mode http"}), Err("listen_options: ")),
        ("server-options-null", json!({"server_options": null}), Ok(())),
        (
            "listen-options-array",
            json!({"port": 65535, "listen_options": ["mode http", "option httplog"]}),
            Ok(()),
        ),
    ] {
        match (read_service(&keys), expected) {
            (Ok(_), Ok(())) => {}
            (Err(why), Err(part)) if why.starts_with(part) => {}
            (found, expected) => panic!("{id}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_zookeeper_has_a_path_and_servers() {
    for (id, keys, expected) in [
        ("ok", json!({"path": "/services/x", "server": "localhost:2181"}), ""),
        ("path-not-string", json!({"path": 5}), "path: is not a string"),
        ("server-missing", json!({"server": null}), "server: is missing"),
        ("server-port-7-digits", json!({"server": "h:1234567"}), "server: "),
        ("second-without-port", json!({"server": "h:2181,h2"}), "server: "),
        ("empty-host", json!({"server": ":2181"}), ""),
        ("path-with-an-end", json!({"path": "/a/"}), "path: \"/a/\" must"),
        ("path-of-no-root", json!({"path": "a"}), "path: \"a\" must"),
    ] {
        let found = read_service(&keys).err().unwrap_or_default();
        assert!(
            found.starts_with(expected) && found.is_empty() == expected.is_empty(),
            "{id}: {found}"
        );
    }
}

#[test]
fn a_type_is_known_in_capitals_too() {
    for (name, known) in [
        ("zookeeper", true),
        ("ZOOKEEPER", true),
        ("Campanjazk", true),
        ("campanja_zk", false),
        ("NonExisting", false),
        ("nope", false),
    ] {
        let found = read_service(&json!({"type": name}));
        assert_eq!(found.is_ok(), known, "{name}: {found:?}");
    }
    let file = json!({"type": "file", "file": "/etc/lists/x", "port": 80});
    assert!(read(&file.to_string(), &services()).is_ok());
    let dns = json!({"type": "dns", "port": 80, "backends": [{"name": "a.test", "port": 8080}]});
    let dns = read(&dns.to_string(), &services()).unwrap();
    assert_eq!(dns.watcher, Watcher::Dns(vec![("a.test".to_owned(), 8080)]));
}

#[test]
fn what_is_no_service_says_why() {
    for (text, part) in [
        ("", "holds nothing"),
        ("port", "is not JSON"),
        ("[]", "no object"),
        (r#"{"port": 1}"#, "type: is missing"),
        (r#"{"type": "dns", "port": 1, "backends": []}"#, "backends: must have 1 to 50 names"),
        (r#"{"type": "dns", "port": 1, "backends": [{"name": "a"}]}"#, "backends[0].port"),
        (r#"{"type": "file", "port": 1, "file": "/etc/passwd"}"#, "file: \"/etc/passwd\" is not"),
        (
            r#"{"type": "file", "port": 1, "file": "/etc/lists/../x"}"#,
            "is not below services.files",
        ),
        (r#"{"type": "file", "port": 1, "file": "/etc/lists"}"#, "is not below services.files"),
        (
            r#"{"type": "file", "port": 1, "file": "/etc/lists/a", "path": "/"}"#,
            "\"path\": a service",
        ),
    ] {
        let why = read(text, &services()).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn a_line_that_a_registry_may_not_have_is_refused() {
    for (line, part) in [
        ("bind :81", "services.address"),
        ("server a 10.0.0.1:80", "its servers come from"),
        ("mode http\nbind :81", "line break"),
        ("frontend x", "begin another section"),
        ("listen x", "begin another section"),
        ("http-request set-header a \"$HOME\"", "environment variable"),
        ("errorfile 503 /etc/shadow", "is not below services.files"),
        ("acl a src -f /etc/shadow", "is not below services.files"),
        ("acl a src -f list", "is not the whole path of a file: write /etc/lists/list"),
        ("acl a src -f opt@/etc/shadow", "is not the whole path"),
        ("http-request set-header X %[src,map_ip(file@/etc/shadow)]", "is not the whole path"),
        ("http-request set-map(/m) a b", "\"set-map(\""),
        ("http-request lua.x", "\"lua.\""),
        ("http-request set-header a %[env(HOME)]", "\"env(\""),
        ("http-request track-sc0 src table learned", "no table but its own"),
        ("use_backend own-back", "a service has its own backend"),
        ("stats admin if TRUE", "haproxy.stats"),
        ("log 10.0.0.1 local0", "haproxy.log"),
        ("external-check command /bin/sh", "may run or load nothing"),
        ("option external-check", "may run nothing"),
        ("made-up", "is no line that a listen section has"),
        ("mode udp", "neither http nor tcp"),
        ("maxconn many", "is not a number"),
    ] {
        let why = read_service(&json!({"listen_options": [line]})).unwrap_err();
        assert!(why.starts_with("listen_options[0]: ") && why.contains(part), "{line}: {why}");
    }
    for (option, part) in [
        ("check intre 2s", "\"intre\" is not a server option"),
        ("check ssl crt /etc/key.pem", "is not below services.files"),
        ("check ssl crt key.pem", "is not the whole path"),
        ("check ssl ca-file @system-ca", "is not the whole path"),
        ("weight 10", "its own key"),
        ("check;quit", "can't be used"),
        ("check check", "given twice"),
    ] {
        let why = read_service(&json!({"server_options": [option]})).unwrap_err();
        assert!(why.starts_with("server_options: ") && why.contains(part), "{option}: {why}");
    }
}

#[test]
fn what_a_setting_exists_for_becomes_it_and_other_lines_go_to_their_section() {
    let web = service(&json!({
        "listen_options": [
            "mode http", "balance leastconn", "maxconn 500", "option forwardfor", "retries 2",
            "option redispatch", "timeout queue 5s", "option http-server-close",
            "option httpchk GET /ping", "timeout client 1m", "timeout server 2m",
            "acl old path_beg /old", "http-request deny if old", "use-server a if old",
            "stick-table type ip size 1k", "stick on src", "errorfile 503 /etc/lists/503.http",
        ],
        "server_options": ["check inter 2000", "slowstart 10s"],
    }));
    let made = over(&[("web", web)]);
    assert_eq!(made.rejected, []);
    let config = made.settings.haproxy_config(&DesiredServers::default()).unwrap();
    let text = rendered(&config).unwrap().text().to_owned();
    let (front, back) =
        text.split_once("frontend web-listen").unwrap().1.split_once("\nbackend web\n").unwrap();
    for line in [
        "bind 127.0.0.1:8080",
        "maxconn 500",
        "set-header X-Forwarded-For",
        "option http-server-close",
        "timeout client 1m",
        "acl old path_beg /old",
        "http-request deny if old",
        "default_backend web",
        "errorfile 503 /etc/lists/503.http",
    ] {
        assert!(front.contains(line), "{line}: {front}");
    }
    for line in [
        "balance leastconn",
        "http-check send meth GET uri /ping",
        "retries 2",
        "option redispatch",
        "timeout queue 5s",
        "timeout server 2m",
        "acl old path_beg /old",
        "use-server a if old",
        "stick-table type ip size 1k",
        "stick on src",
    ] {
        assert!(back.contains(line), "{line}: {back}");
    }
    let backend = made.settings.backends.last().unwrap();
    for option in ["check", "inter 2000", "slowstart 10s"] {
        assert!(backend.all_options().contains(&option.to_owned()), "{option}");
    }
}

#[test]
fn a_service_without_a_mode_is_tcp_as_in_haproxy() {
    let made = over(&[("web", service(&json!({})))]);
    let config = made.settings.haproxy_config(&DesiredServers::default()).unwrap();
    let text = rendered(&config).unwrap().text().to_owned();
    assert!(text.contains("frontend web-listen\n    mode tcp"), "{text}");
}

#[test]
fn credentials_go_only_where_the_settings_send_them() {
    for (server, path, expected) in [
        ("zk2:2181,zk1:2181", "/site/web", "zk format=proxymgr path=/web"),
        // Beside the source's path it is not what its credentials are for.
        ("zk1:2181,zk2:2181", "/other", "zookeeper:zk1:2181,zk2:2181 format=proxymgr path=/other"),
        ("zk1:2181", "/site/web", "zookeeper:zk1:2181 format=proxymgr path=/site/web"),
        ("evil:2181", "/site/web", "zookeeper:evil:2181 format=proxymgr path=/site/web"),
    ] {
        let made = over(&[("web", service(&json!({"server": server, "path": path})))]);
        assert_eq!(made.shown[0].servers, expected);
        let made = made.settings.sources.iter().filter(|source| source.name != "zk");
        for source in made {
            assert_eq!(source.of_kind.zookeeper.auth_file, None);
        }
    }
}

#[test]
fn names_and_ports_that_others_have_are_not_taken_from_them() {
    let port = |port: u16| service(&json!({"port": port}));
    let made = over(&[
        ("a", port(8080)),
        ("b", port(8080)),
        ("own", port(8081)),
        ("own-back", port(8082)),
        ("c", port(80)),
        ("d", port(8405)),
        ("e", port(7070)),
        ("mapsmith-x", port(8083)),
        ("no name", port(8084)),
        ("good", port(8085)),
    ]);
    for (name, part) in [
        ("b", "port: the service a listens on 8080 too"),
        ("own", "the frontend own of the settings has its name"),
        ("own-back", "the backend own-back of the settings has its name"),
        ("c", "the frontend own of the settings listens on 80"),
        ("d", "haproxy.metrics listens on 8405"),
        ("e", "api.listen listens on 7070"),
        ("mapsmith-x", "is reserved"),
        ("no name", "its name can be none in HAProxy"),
    ] {
        assert!(reason(&made, name).contains(part), "{name}: {}", reason(&made, name));
    }
    assert_eq!(made.forms.keys().collect::<Vec<_>>(), ["a", "good"]);
}

#[test]
fn there_are_no_more_services_than_the_settings_allow() {
    let many: Vec<_> =
        (0..7).map(|at| (format!("s{at}"), service(&json!({"port": 9000 + at})))).collect();
    let many: Vec<_> = many.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let made = over(&many);
    assert_eq!(made.forms.len(), 5);
    assert!(reason(&made, "s5").contains("more than 5 (services.max)"));
}

#[test]
fn a_service_that_was_good_stays_as_it_was() {
    let text = |port: u16| service(&json!({"port": port})).to_string();
    let good = ServiceForms::from([("a".to_owned(), text(1)), ("b".to_owned(), text(2))]);
    let with = |name: &str, text: String, refused: &Refusals| {
        let mut texts = ServiceTexts::from(good.clone());
        texts.texts.insert(name.to_owned(), Ok(text));
        overlay(&settings(FILE), &texts, &good, refused)
    };
    let none = Refusals::new();
    for (bad, part) in [("{".to_owned(), "is not JSON"), (text(2), "the service b listens on 2")] {
        let made = with("a", bad, &none);
        assert_eq!(made.forms, good);
        assert!(made.rejected[0].keeps_last_good && reason(&made, "a").contains(part));
    }
    // HAProxy refuses the new form, and says why.
    let said = [(text(3), "HAProxy refuses it".to_owned())];
    let refused = Refusals::from([("a".to_owned(), said.into())]);
    let made = with("a", text(3), &refused);
    assert_eq!(made.forms, good);
    assert!(made.rejected[0].by_haproxy);
    // Two may exchange their ports.
    let mut texts = ServiceTexts::from(good.clone());
    texts.texts.insert("a".to_owned(), Ok(text(2)));
    texts.texts.insert("b".to_owned(), Ok(text(1)));
    assert_eq!(overlay(&settings(FILE), &texts, &good, &none).rejected, []);
}

#[test]
fn a_service_that_keeps_its_last_good_form_loses_nothing_to_others() {
    let text = |port: u16| service(&json!({"port": port})).to_string();
    let forms = |services: &[(&str, u16)]| -> ServiceForms {
        services.iter().map(|(name, port)| ((*name).to_owned(), text(*port))).collect()
    };
    let over = |good: &ServiceForms, texts: &[(&str, String)]| {
        let texts: ServiceForms =
            texts.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        overlay(&settings(FILE), &texts.into(), good, &Refusals::new())
    };
    // A new one has its port, and comes first by name.
    let good = forms(&[("web", 8080)]);
    let made = over(&good, &[("a", text(8080)), ("web", "{".to_owned())]);
    assert_eq!(made.forms, good);
    assert!(reason(&made, "a").contains("the service web listens on 8080"));
    // There is no place for a new one.
    let good = forms(&[("v", 1), ("w", 2), ("x", 3), ("y", 4), ("z", 5)]);
    let mut texts: Vec<_> = good.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    texts[4].1 = text(6);
    texts.push(("a", text(9)));
    let made = over(&good, &texts);
    assert_eq!(made.forms.get("z"), Some(&text(6)));
    assert!(reason(&made, "a").contains("more than 5 (services.max)"));
    // One that changes has its port, and another one the port of that.
    let good = forms(&[("a", 1), ("b", 2), ("c", 3)]);
    let made = over(&good, &[("a", text(2)), ("b", text(3)), ("c", text(80))]);
    assert_eq!(made.forms, good);
    for (name, part) in
        [("a", "the service b listens on 2"), ("b", "the service c listens on 3"), ("c", "on 80")]
    {
        assert!(reason(&made, name).contains(part), "{name}: {}", reason(&made, name));
    }
    assert!(made.rejected.iter().all(|rejected| rejected.keeps_last_good));
}

#[test]
fn a_long_row_of_services_that_take_each_others_port_ends() {
    let wide = settings(&FILE.replace("max = 5", "max = 100"));
    let name = |at: u16| format!("s{at:02}");
    let text = |port: u16| service(&json!({"port": port})).to_string();
    let good: ServiceForms = (0..60).map(|at| (name(at), text(1000 + at))).collect();
    let mut texts: ServiceForms = (0..60).map(|at| (name(at), text(1001 + at))).collect();
    texts.insert(name(59), text(80));
    let made = overlay(&wide, &texts.into(), &good, &Refusals::new());
    assert_eq!(made.forms, good);
    assert!(reason(&made, "s00").contains("one after the other"));
}

#[test]
fn the_section_is_checked_with_the_others() {
    let bad = |from: &str, to: &str| {
        let text = FILE.replace(from, to);
        let read = Settings::of_text(Path::new("/etc/mapsmith/a.toml"), &text, []);
        read.map(|_| ()).unwrap_err().to_string()
    };
    for (from, to, part) in [
        ("source = \"zk\", path", "source = \"no\", path", "services.from: there is no source"),
        ("path = \"/service_config\"", "path = \"x\"", "services.from.path: \"x\" is not a path"),
        ("\"/etc/lists\"", "\"lists\"", "services.files: must be an absolute path"),
        ("max = 5", "max = 0", "services.max: must be 1 to 10000"),
        ("managed = true", "", "services.from: needs [haproxy] with managed"),
    ] {
        let why = bad(from, to);
        assert!(why.contains(part), "{part:?} is not in {why}");
    }
}

#[test]
fn the_file_of_haproxy_does_not_depend_on_which_service_changed_last() {
    let texts = |spaced: &str| -> ServiceForms {
        let text = |(name, port): (&str, u16)| {
            let file = format!("/etc/lists/{name}");
            let text = json!({"type": "file", "file": file, "port": port}).to_string();
            let text = if name == spaced { text + " " } else { text };
            (name.to_owned(), text)
        };
        [("a", 1), ("b", 2), ("c", 3)].map(text).into()
    };
    let good = texts("");
    let file = |texts: ServiceForms| {
        let made = overlay(&settings(FILE), &texts.into(), &good, &Refusals::new());
        let shown: Vec<_> = made.shown.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(shown, ["a", "b", "c"], "{:?}", made.rejected);
        let sources: Vec<_> = made.settings.sources.iter().map(|it| it.name.clone()).collect();
        (rendered(&made.settings.haproxy_config(&DesiredServers::default()).unwrap()), sources)
    };
    let expected = file(good.clone());
    for changed in ["a", "b", "c"] {
        assert_eq!(file(texts(changed)), expected, "{changed} has changed");
    }
}

#[test]
fn a_source_may_be_there_for_services_alone() {
    let problems = |text: &str| match Settings::of_text(Path::new("/a.toml"), text, []) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let dns = "[[source]]\nname = \"names\"\ntype = \"dns\"\n";
    let zookeeper = "[[source]]\nname = \"far\"\ntype = \"zookeeper\"\nservers = [\"far:2181\"]\n";
    let etcd = "[[source]]\nname = \"far\"\ntype = \"etcd\"\nservers = [\"http://far:2379\"]\n";
    assert_eq!(problems(&format!("{FILE}{dns}{zookeeper}")), "");
    let told = problems(&format!("{FILE}{etcd}"));
    assert!(told.contains("nothing is taken from it"), "{told}");
    let shadow = problems(&format!("{FILE}{dns}shadow = true\n"));
    assert!(shadow.contains("nothing is taken from it"), "{shadow}");
    let without = FILE.split_once("[services]").unwrap().0.to_owned();
    let own = FILE.split_once("[[frontend]]").unwrap().1;
    let told = problems(&format!("{without}{dns}[[frontend]]{own}"));
    assert!(told.contains("\"names\": nothing is taken from it"), "{told}");
    let made = overlay(
        &settings(&format!("{FILE}{dns}{zookeeper}")),
        &ServiceForms::from([
            ("a".to_owned(), service(&json!({"server": "far:2181"})).to_string()),
            (
                "b".to_owned(),
                json!({"type": "dns", "port": 1,
                "backends": [{"name": "web.example.com", "port": 80}]})
                .to_string(),
            ),
        ])
        .into(),
        &ServiceForms::new(),
        &Refusals::new(),
    );
    let from: Vec<_> = made.shown.iter().map(|service| service.servers.as_str()).collect();
    assert!(from[0].starts_with("far ") && from[1].starts_with("names "), "{from:?}");
}
