//! What listens beside the services: the redirect to HTTPS and HAProxy's metrics. Each is there, or
//! is left out alone, with its reason, until another program gives its port back.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use super::{Ground, Managed, Mapsmith, PATIENCE, Site, free_port, service};
use crate::render::running::ask;
use crate::support::authority::Authority;
use crate::support::haproxy::Binary;
use crate::support::http::{Response, request};
use crate::support::master::Master;
use crate::support::scene::{newest, oldest_and_newest, printed};
use crate::support::{eventually, run};

/// An address of loopback on which nobody else has port 80 or 443. Clients choose these by
/// themselves, so no setting has others.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, second, third, _] = std::process::id().to_be_bytes().map(|byte| byte % 250 + 2);
    IpAddr::from([127, second, third, NEXT.fetch_add(1, Ordering::Relaxed)])
}

/// A gateway at an address of its own that redirects to HTTPS, before it has a portmap.
fn start(binary: &'static Binary, address: IpAddr) -> Site {
    let ground = Ground::new(binary);
    let metadata = ground.file("metadata.json");
    super::write(&metadata, &json!({"loadbalancer": "true"}));
    let folder = ground.file("authority");
    fs::create_dir(&folder).expect("a folder");
    let authority = Authority::create(&folder);
    authority.issue("web.test");
    let certificate = authority.both("web.test").display().to_string();
    let place = format!("path = {:?}", metadata.display().to_string());
    let more = format!(
        "certificate = \"site\"\nredirect_http = true\n\
            [[certificate]]\nname = \"site\"\npath = {certificate:?}\n\
            [store]\npath = {:?}",
        ground.file("mapsmith.db").display().to_string()
    );
    let text = super::settings(&place, &more)
        .replace("address = \"127.0.0.1\"", &format!("address = \"{address}\""));
    let settings = ground.settings("own", &text);
    let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
    Site { managed, metadata }
}

impl Site {
    fn wait_for_status(&self, address: SocketAddr, path: &str, status: u16) -> Response {
        let what = format!("{address}{path} is answered {status}");
        self.managed.mapsmith.wait_for(&what, PATIENCE, |_| {
            let response = request(address, "GET", path, &[("Host", "web.test")], "").ok()?;
            (response.status == status).then_some(response)
        })
    }

    /// The keys because of which something listens beside the services, and where.
    fn listeners(&self) -> Vec<(String, String)> {
        let status = self.status();
        let all = status["listeners"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.iter().map(|one| (text(&one["key"]), text(&one["bind"]))).collect()
    }
}

/// Has a port as another program has it, one that shares it with nobody.
fn take(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap_or_else(|error| {
        panic!("{address}: {error}; below port 1024 only root may listen, or whoever is let to")
    })
}

#[test]
fn who_comes_by_http_is_sent_to_https_and_status_names_the_port() {
    for binary in oldest_and_newest() {
        let web = Master::start("web");
        let address = own_address();
        let site = start(binary, address);
        site.declare(&service("https-http", 443, &web));
        let http = (address, 80).into();
        site.wait_for_status(http, "/", 301);
        let redirected = ask(http, "GET /a?b=c", &[("Host", "web.test")]);
        assert_eq!(redirected.header("location").as_deref(), Some("https://web.test/a?b=c"));
        let bind = format!("{address}:80");
        assert_eq!(site.listeners(), [("redirect_http".to_owned(), bind.clone())]);
        let (_, text) = printed(&site.managed.mapsmith.cli(&["status"]));
        assert!(text.contains(&format!("redirect_http  {bind}, redirects to HTTPS")), "{text}");
        // A service on port 80 is what was asked for.
        let both = format!("{} {}", service("https-http", 443, &web), service("http", 80, &web));
        site.declare(&both);
        assert_eq!(site.wait_for_status(http, "/", 200).body, "web");
        assert_eq!(site.listeners(), []);
    }
}

#[test]
fn a_port_that_another_program_has_keeps_only_its_own_listener_out_until_it_is_free() {
    for binary in [newest(), oldest_and_newest()[0]] {
        let web = Master::start("web");
        let address = own_address();
        let [port, later, metrics] = [(); 3].map(|()| free_port());
        let taken = [80, metrics].map(|port| take((address, port).into()));
        let site = start(binary, address);
        let say = |more: &str| {
            let portmap = format!(
                "{} {} {more}",
                service("https-http", 443, &web),
                service("http", port, &web)
            );
            site.say(&json!({
                "loadbalancer": "true",
                "portmap": portmap,
                "metrics_acl": "127.0.0.0/8",
                "metrics_port": metrics,
            }));
        };
        // From the first start on all the rest is served, and it changes.
        say("");
        assert_eq!(site.wait_for_status((address, port).into(), "/", 200).body, "web");
        std::net::TcpStream::connect((address, 443)).expect("HTTPS is served too");
        say(&service("http", later, &web));
        site.wait_for_status((address, later).into(), "/", 200);
        for (key, port) in [("redirect_http", 80), ("metrics_port", metrics)] {
            let reason = format!("{address}:{port} is taken by another program");
            let rejected = site.wait_for_rejected(key, &reason);
            assert_eq!(rejected["by_haproxy"], true, "{rejected}");
        }
        assert_eq!(site.listeners(), []);

        let [http, other] = taken;
        drop(http);
        site.wait_for_status((address, 80).into(), "/", 301);
        site.wait_for_rejected("metrics_port", "is taken by another program");
        drop(other);
        let answer = site.wait_for_status((address, metrics).into(), "/metrics", 200);
        assert!(answer.body.contains("haproxy_process_"), "{}", answer.body);
        site.managed.wait_for_state("in_force");
        assert!(site.status()["rejected"].is_null(), "{:#}", site.status());
        assert_eq!(site.listeners().len(), 2);
    }
}

/// As after a reboot: what was in force is stored, and somebody was quicker to have its ports.
#[test]
fn a_haproxy_that_finds_ports_taken_when_it_starts_serves_everything_else() {
    let web = Master::start("web");
    let address = own_address();
    let [port, taken] = [(); 2].map(|()| free_port());
    let mut site = start(newest(), address);
    let portmap = [443, port, taken]
        .map(|port| service(if port == 443 { "https-http" } else { "http" }, port, &web));
    site.declare(&portmap.join(" "));
    site.wait_for_status((address, 80).into(), "/", 301);
    site.wait_for_status((address, taken).into(), "/", 200);
    site.managed.wait_for_state("in_force");
    site.managed.wait_for_stored(&site.managed.ground.file("mapsmith.db"), &taken.to_string());
    let master = site.managed.ground.master();
    site.managed.mapsmith.kill();
    run("kill", &["-9", &master.to_string()]);
    let is_closed = || std::net::TcpStream::connect((address, taken)).is_err().then_some(());
    eventually("HAProxy is gone", PATIENCE, is_closed);
    let others = [80, taken].map(|port| take((address, port).into()));
    site.managed.mapsmith.restart();
    site.wait_for_rejected("redirect_http", "is taken by another program");
    let rejected = site.wait_for_rejected(&taken.to_string(), "is taken by another program");
    assert_eq!(rejected["keeps_last_good"], false, "{rejected}");
    assert_eq!(site.wait_for_status((address, port).into(), "/", 200).body, "web");
    drop(others);
    site.wait_for_status((address, 80).into(), "/", 301);
}
