//! What metadata makes of the settings, and what it can't.

use std::path::Path;

use mapsmith_core::portmap::texts::Wanted;
use mapsmith_core::render::rendered;
use mapsmith_core::{DesiredServers, ServiceForms, ServiceTexts};
use proptest::prelude::*;

use super::overlay;
use crate::settings::Settings;
use crate::settings::services::{Overlay, Refusals};

const FILE: &str = r#"
    [haproxy]
    managed = true
    log = ["stdout format raw local0"]
    [api]
    listen = "127.0.0.1:7070"
    [[source]]
    name = "md"
    type = "metadata"
    path = "/etc/metadata.json"
    [portmap]
    source = "md"
    certificate = "site"
    [[certificate]]
    name = "site"
    path = "/etc/site.pem"
    [[frontend]]
    name = "own"
    bind = ["127.0.0.1:9000"]
    default_backend = "own-back"
    [[backend]]
    name = "own-back"
    servers = []
"#;

fn settings(text: &str) -> Settings {
    Settings::of_text(Path::new("/etc/mapsmith/a.toml"), text, []).unwrap()
}

fn over(file: &str, keys: &[(&str, &str)], good: &[(&str, &str)]) -> Overlay {
    let file = settings(file);
    let portmap = file.portmap.as_ref().unwrap();
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let metadata = keys.iter().chain(&[("loadbalancer", "true")]).map(text);
    let metadata = ServiceTexts::from(metadata.collect::<ServiceForms>());
    let good: ServiceForms = good.iter().map(text).collect();
    let wanted = Wanted::new(&metadata, &good, portmap.is_ordered());
    let mut texts = wanted.services.unwrap_or_default();
    texts.texts.extend(wanted.values);
    overlay(&file, portmap, &texts, &good, &Refusals::new())
}

fn text(overlay: &Overlay) -> String {
    let config = overlay.settings.haproxy_config(&DesiredServers::default()).unwrap();
    rendered(&config).unwrap().text().to_owned()
}

fn reasons(overlay: &Overlay) -> Vec<(&str, &str, bool)> {
    overlay
        .rejected
        .iter()
        .map(|it| (it.name.as_str(), it.reason.as_str(), it.keeps_last_good))
        .collect()
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_service_of_each_type_is_a_frontend_and_a_backend_with_servers_of_dns() {
    let portmap = "http://80:web.test:8080{check:/ok} https://443:web.test tcp://25:10.0.0.1:2525 \
        tcp-proxy-v2://26:_smtp._tcp.mx.test https-http://444:web.test:1 \
        https+insecure://445:web.test:1";
    let all = over(FILE, &[("portmap", portmap), ("max_rs", "64")], &[]);
    assert_eq!(reasons(&all), []);
    let config = text(&all);
    assert_has(
        &config,
        &[
            "frontend fe-80\n",
            "backend be-80\n",
            "bind *:443 ssl crt /etc/site.pem alpn h2,http/1.1\n",
            "http-check send meth GET uri /ok",
            "http-check expect status 200",
        ],
    );
    let from = |name: &str| {
        let backend = all.settings.backends.iter().find(|backend| backend.name == name).unwrap();
        assert_eq!(backend.max_servers, Some(64));
        (backend.origin(), backend.options.join(" "))
    };
    for (name, source, options) in [
        ("be-80", "source dns:resolv.conf family=ipv4 name=web.test port=8080", "rise 2 fall 1"),
        ("be-443", "source dns:resolv.conf srv=web.test", "verifyhost web.test"),
        ("be-26", "source dns:resolv.conf srv=_smtp._tcp.mx.test", "send-proxy-v2"),
        ("be-25", "settings", "check"),
        ("be-445", "source dns:resolv.conf family=ipv4 name=web.test port=1", "verify none"),
    ] {
        let (origin, all) = from(name);
        assert_eq!(origin, source);
        assert!(all.contains(options), "{name}: {options} is not in {all}");
    }
    let shown = &all.shown[2];
    assert_eq!((&*shown.name, &*shown.bind), ("80", "*:80"));
    assert_eq!(shown.kind.as_deref(), Some("http"));
    assert_eq!(shown.servers, "addresses of web.test, port 8080");
}

#[test]
fn a_dns_source_of_the_file_is_asked_and_one_address_listened_on() {
    let file = FILE.replace("source = \"md\"", "source = \"md\"\naddress = \"10.0.0.9\"")
        + "[[source]]\nname = \"ns\"\ntype = \"dns\"\nservers = [\"10.0.0.53\"]\n";
    let one = over(&file, &[("portmap", "http://80:web.test:8080")], &[]);
    assert_has(&text(&one), &["bind 10.0.0.9:80\n"]);
    let backend = one.settings.backends.iter().find(|backend| backend.name == "be-80").unwrap();
    assert_eq!(backend.from.as_ref().unwrap().source, "ns");
}

#[test]
fn names_are_by_place_where_the_settings_say_so() {
    let file = FILE.replace("source = \"md\"", "source = \"md\"\nnames = \"place\"");
    let keys = [("portmap", "tcp://9001:a.test:1 tcp://25:b.test:1")];
    let by_place = over(&file, &keys, &[]);
    let backends: Vec<_> = by_place.backends.clone().into_iter().collect();
    let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert_eq!(backends, [pair("be0", "9001"), pair("be1", "25")]);
    assert_eq!(by_place.forms["order"], "9001 25");
}

#[test]
fn what_the_file_has_is_nobody_elses() {
    let portmap = "http://9000:web.test:1 http://7070:web.test:1 http://80:web.test:1";
    let some = over(FILE, &[("portmap", portmap)], &[]);
    let [(first, why, _), (second, other, _)] = reasons(&some)[..] else {
        panic!("{:?}", some.rejected)
    };
    assert_eq!((first, second), ("7070", "9000"));
    assert!(why.contains("api.listen listens on 7070 too"), "{why}");
    assert!(other.contains("the frontend own of the settings listens on 9000 too"), "{other}");
    assert_eq!(some.shown.len(), 1);
}

/// What the certificate of the metadata is: the names of `acme` and of `self_signed`.
fn certificate(overlay: &Overlay) -> Option<[Vec<String>; 2]> {
    let own = overlay.settings.certificates.iter().find(|it| it.name.as_str() == "portmap")?;
    let path = own.path.as_ref().map(ToString::to_string);
    assert_eq!(path.as_deref(), Some("/var/lib/mapsmith/haproxy/certificates/portmap.pem"));
    assert!(text(overlay).contains("ssl crt /var/lib/mapsmith/haproxy/certificates/portmap.pem"));
    Some([&own.acme, &own.self_signed].map(|names| names.iter().map(ToString::to_string).collect()))
}

#[test]
fn without_a_certificate_of_the_settings_one_of_the_given_names_is_shown() {
    let signed = FILE.replace("certificate = \"site\"\n", "\n");
    let acme = format!("{signed}\n[acme]\nterms_agreed = true\n");
    let by_dns = format!("{acme}challenge = \"dns-01\"\nhook = [\"/x\"]\n");
    let closed = format!("{acme}port_80 = false\n");
    let (https, names) = ("https-http://443:a.test:1", "www.a.test, *.b.test");
    let plain = "http://80:a.test:1 https-http://443:a.test:1";
    let tcp = "tcp://80:a.test:1 https-http://443:a.test:1";
    let on_80 = "https-http://80:a.test:1";
    let all = ["www.a.test", "*.b.test"].as_slice();
    for (file, portmap, names, of_acme, of_own, part) in [
        (&signed, https, "", &[][..], &["localhost"][..], ""),
        (&signed, https, names, &[], all, ""),
        (&acme, https, "", &[], &["localhost"], ""),
        (&acme, https, names, &["www.a.test"], &[], "*.b.test needs acme.challenge"),
        (&acme, plain, "www.a.test", &["www.a.test"], &[], ""),
        (&by_dns, tcp, names, all, &[], ""),
        (&acme, tcp, "www.a.test", &[], &["www.a.test"], "port 80 must be of mode http"),
        (&acme, on_80, "www.a.test", &[], &["www.a.test"], "service on port 80 listens on port 80"),
        (&closed, https, "www.a.test", &[], &["www.a.test"], "no frontend listens at port 80"),
        (&closed, plain, "www.a.test", &["www.a.test"], &[], ""),
    ] {
        let some = over(file, &[("portmap", portmap), ("certificate_name", names)], &[]);
        let why = reasons(&some).first().map_or("", |(_, why, _)| why).to_owned();
        assert!(why.contains(part) && part.is_empty() == why.is_empty(), "{portmap}: {why}");
        let is = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(certificate(&some), Some([is(of_acme), is(of_own)]), "{portmap} {names}");
    }
    let none = over(&acme, &[("portmap", "http://80:a.test:1"), ("certificate_name", names)], &[]);
    assert!(none.settings.certificates.iter().all(|it| it.name.as_str() != "portmap"));
    assert!(none.settings.challenges().is_none(), "nobody is asked for what nobody sees");
}

#[test]
fn a_name_of_the_certificate_that_is_gone_is_no_order_and_an_empty_one_is() {
    let file = FILE.replace("certificate = \"site\"\n", "\n");
    let good = [("certificate_name", "www.a.test")];
    let portmap = ("portmap", "https-http://443:a.test:1");
    let gone = over(&file, &[portmap], &good);
    assert_eq!(certificate(&gone), Some([vec![], vec!["www.a.test".to_owned()]]));
    assert_eq!(gone.forms["certificate_name"], "www.a.test", "it is known at the next change too");
    let empty = over(&file, &[portmap, ("certificate_name", "")], &good);
    assert_eq!(certificate(&empty), Some([vec![], vec!["localhost".to_owned()]]));
}

#[test]
fn a_piece_that_is_wrong_keeps_its_last_good_form() {
    let good = [("80", "http://80:web.test:8080"), ("81", "http://81:a.test:1")];
    let kept = over(FILE, &[("portmap", "http://80:web.test:0 http://81:b.test:1")], &good);
    let [(name, why, true)] = reasons(&kept)[..] else { panic!("{:?}", kept.rejected) };
    assert!(name == "80" && why.starts_with("column 20, "), "{why}");
    assert_eq!(kept.forms["80"], "http://80:web.test:8080");
    assert_eq!(kept.forms["81"], "http://81:b.test:1");
}

#[test]
fn values_are_put_over_the_settings_of_haproxy() {
    let keys = [
        ("portmap", "http://80:web.test:8080"),
        ("timeouts", "{connect:3s,client:7200s}"),
        ("syslog", "logs.test:514"),
        ("metrics_acl", "10.0.0.0/8 192.0.2.7"),
        ("metrics_port", "9100"),
    ];
    let all = over(FILE, &keys, &[]);
    assert_eq!(reasons(&all), []);
    assert_has(
        &text(&all),
        &[
            "timeout connect 3s\n",
            "timeout client 1h\n",
            "log stdout format raw local0\n",
            "log logs.test:514 len 4096 local0\n",
            "log-send-hostname\n",
            "bind *:9100\n",
            "10.0.0.0/8",
            "192.0.2.7",
        ],
    );
    assert_eq!(all.forms["syslog"], "logs.test:514");
    let none = over(FILE, &[("portmap", "http://80:web.test:8080"), ("metrics_port", "9100")], &[]);
    assert!(!text(&none).contains("prometheus-exporter"), "nobody may read them");
}

#[test]
fn a_wrong_value_keeps_its_last_good_one_and_says_why() {
    let keys = [
        ("portmap", "http://80:web.test:8080"),
        ("timeouts", "{client:1.5s}"),
        ("max_rs", "many"),
        ("syslog", "a b"),
        ("metrics_acl", "10.0.0.0/99"),
        ("metrics_port", "http"),
    ];
    let good = [
        ("timeouts", "{client:5s}"),
        ("max_rs", "100"),
        ("syslog", "10.0.0.1:514"),
        ("metrics_acl", "10.0.0.0/8"),
        ("metrics_port", "9100"),
    ];
    let kept = over(FILE, &keys, &good);
    assert_eq!(kept.rejected.len(), 5, "{:?}", kept.rejected);
    assert!(kept.rejected.iter().all(|rejected| rejected.keeps_last_good));
    assert_has(
        &text(&kept),
        &["timeout client 5s\n", "10.0.0.1:514", "10.0.0.0/8", "bind *:9100\n"],
    );
    assert_eq!(kept.settings.backends.last().unwrap().max_servers, Some(100));
    let new = over(FILE, &keys, &[]);
    assert!(new.rejected.iter().all(|rejected| !rejected.keeps_last_good), "{:?}", new.rejected);
    // The nearest of what is allowed, as Moirai has it.
    let most = over(FILE, &[keys[0], ("max_rs", "5000")], &good);
    assert_eq!(most.settings.backends.last().unwrap().max_servers, Some(1024));
    assert!(reasons(&most)[0].1.contains("1024 counts"));
}

#[test]
fn metrics_give_way_to_a_service_on_their_port() {
    let keys = [("portmap", "http://8405:web.test:1"), ("metrics_acl", "10.0.0.0/8")];
    let some = over(FILE, &keys, &[]);
    let [(name, why, false)] = reasons(&some)[..] else { panic!("{:?}", some.rejected) };
    assert!(name == "metrics_port" && why.contains("the service on port 8405 listens"), "{why}");
}

#[test]
fn http_redirects_to_https_where_port_80_is_free_and_browsers_are_told_to_stay() {
    let more = "source = \"md\"\nredirect_http = true\nhsts = \"180d\"";
    let file = FILE.replace("source = \"md\"", more);
    let redirects = |portmap: &str| {
        let config = text(&over(&file, &[("portmap", portmap)], &[]));
        (config.contains("frontend fe-redirect"), config.contains("max-age=15552000"))
    };
    assert_eq!(redirects("https-http://443:a.test:1"), (true, true));
    assert_eq!(redirects("https-http://443:a.test:1 http://80:a.test:1"), (false, true));
    assert_eq!(redirects("https-http://8443:a.test:1"), (false, true));
    assert_eq!(redirects("tcp://443:a.test:1"), (false, false));
}

#[test]
fn what_contradicts_itself_is_named_with_its_key() {
    let metadata = "[[source]]\nname = \"md\"\ntype = \"metadata\"\nenvironment = true\n";
    let managed = "[haproxy]\nmanaged = true\n";
    let portmap = "[portmap]\nsource = \"md\"\n";
    let zk = "[[source]]\nname = \"zk\"\ntype = \"zookeeper\"\nservers = [\"a:1\"]\n[services]\n\
        from = { source = \"zk\", path = \"/a\" }\n";
    for (text, part) in [
        (format!("[map]\npath = \"/m\"\n{metadata}{portmap}"), "portmap.source: needs [haproxy]"),
        (format!("{managed}{portmap}"), "portmap.source: there is no source of the name \"md\""),
        (
            format!(
                "{managed}{}{portmap}",
                metadata.replace("metadata", "dns").replace("environment = true", "")
            ),
            "portmap.source: \"md\" is of type dns; name one of type metadata",
        ),
        (format!("{managed}{metadata}{zk}{portmap}"), "[services] declares services already"),
        (
            format!("{managed}{metadata}{portmap}certificate = \"a\"\n"),
            "no [[certificate]] of the name a",
        ),
        (
            format!(
                "{managed}{metadata}{portmap}[[certificate]]\nname = \"portmap\"\npath = \"/p\"\n"
            ),
            "certificate: a [[certificate]] has the name portmap",
        ),
        (format!("{managed}{metadata}"), "nothing is taken from it"),
    ] {
        let path = Path::new("/etc/mapsmith/a.toml");
        let error = Settings::of_text(path, &text, []).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("http://80:web.test:8080".to_owned()),
        Just("https-http://443:web.test:8080{check:/a}".to_owned()),
        Just("tcp://81:".to_owned()),
        Just("\n    bind *:1\n".to_owned()),
        Just("${HOME}".to_owned()),
        Just("\"'\\ #".to_owned()),
        Just("{check:/".to_owned()),
        Just("}".to_owned()),
        ".{0,20}",
        "[ -~]{0,20}",
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in the keys: what is rendered has the lines of valid values and no other,
    /// and each word of them is a word of HAProxy's.
    #[test]
    fn nothing_of_metadata_leaves_its_place_in_the_configuration(
        portmap in hostile(),
        values in prop::collection::vec((0usize..6, hostile()), 0..6),
    ) {
        let keys =
            ["certificate_name", "max_rs", "metrics_acl", "metrics_port", "syslog", "timeouts"];
        let portmap = format!("http://8080:web.test:8080 {portmap}");
        let mut all = vec![("portmap", portmap.as_str())];
        all.extend(values.iter().map(|(at, text)| (keys[*at], text.as_str())));
        let made = over(FILE, &all, &[]);
        let config = text(&made);
        prop_assert!(!config.contains("${") && !config.contains("bind *:1\n"), "{config}");
        let sections = |word: &str| config.lines().filter(|line| line.starts_with(word)).count();
        let of_metrics = usize::from(config.contains("prometheus-exporter"));
        prop_assert_eq!(sections("frontend "), made.shown.len() + 1 + of_metrics);
        prop_assert_eq!(sections("backend "), made.shown.len() + 1);
        prop_assert!(config.lines().all(|line| !line.contains(['\'', '`'])), "{config}");
    }
}
