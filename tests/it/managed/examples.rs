//! `examples/managed.toml`, started as it stands: with free ports and a folder of the test's, and
//! nothing else changed.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::{Ground, Managed, PATIENCE};
use crate::render::echo::Echo;
use crate::render::running::{Reply, ask};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::{oldest_and_newest, printed};
use crate::support::{free_port, http};

/// The example, running.
struct Example {
    managed: Managed,
    postgres: SocketAddr,
    health: SocketAddr,
    metrics: SocketAddr,
}

impl Example {
    /// `servers` are where the example's are.
    fn start(ground: Ground, servers: &[(&str, SocketAddr)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/managed.toml");
        let mut text = fs::read_to_string(path).expect("the example");
        let mut replace = |from: &str, to: &str| {
            assert!(text.contains(from), "the example has no {from}");
            text = text.replace(from, to);
        };
        let [postgres, health, metrics] =
            [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let fronts =
            [("8080", ground.web), ("5433", postgres), ("8404", health), ("8405", metrics)];
        for (port, address) in fronts.iter().chain(servers) {
            replace(&format!("\"127.0.0.1:{port}\""), &format!("\"{address}\""));
        }
        replace("\"/var/lib/mapsmith/haproxy\"", &format!("{:?}", ground.path()));
        let program = ground.binary.path.to_str().expect("a path in UTF-8");
        let config = Mapsmith::config(&text).variable("MAPSMITH__HAPROXY__BINARY", program);
        // As it is before its first start.
        let (code, checked) = printed(&config.cli(&["check"]));
        assert!(code == 0 && checked.contains("not started yet; `mapsmith run`"), "{checked}");
        let managed = Managed { mapsmith: config.start(), ground };
        managed.wait_for_state("in_force");
        Self { managed, postgres, health, metrics }
    }

    fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[])
    }

    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        ask(self.managed.ground.web, &format!("GET {path}"), headers)
    }

    fn wait_for(&self, what: &str, look: impl Fn() -> bool) {
        self.managed.mapsmith.wait_for(what, PATIENCE, |_| look().then_some(()));
    }
}

#[test]
fn the_managed_example_answers_what_it_says() {
    for binary in oldest_and_newest() {
        let [app1, app2, api1, api2, primary, standby] =
            ["app1", "app2", "api1", "api2", "primary", "standby"].map(Master::start);
        let staged = Echo::start();
        let servers = [
            ("9001", app1.address()),
            ("9002", app2.address()),
            ("9101", api1.address()),
            ("9102", api2.address()),
            ("9201", staged.address()),
            ("5432", primary.address()),
            ("5434", standby.address()),
        ];
        let example = Example::start(Ground::new(binary), &servers);
        example.wait_for("it is ready", || ask(example.health, "GET /", &[]).status == 200);

        // The web frontend's rules.
        let robots = example.get("/robots.txt");
        assert_eq!((robots.status, robots.body.as_str()), (200, "User-agent: *"));
        let inside = example.get("/admin/users");
        assert!(inside.status == 200 && inside.body.starts_with("app"), "loopback may: {inside:?}");
        for path in ["/api/things", "/v1/things"] {
            assert!(example.get(path).body.starts_with("api"), "{path}");
        }
        let host = [("Host", "www.staged.example.com")];
        let head = example.get_with("/", &host).body;
        assert!(head.contains("host: staged.internal\r\n"), "{head}");

        // A client comes back to its server.
        let first = example.get("/");
        let cookie = first.header("set-cookie").expect("a cookie");
        let cookie = cookie.split(';').next().expect("its value").to_owned();
        assert!(cookie.starts_with("SRV="), "{cookie}");
        for _ in 0..6 {
            let again = example.get_with("/", &[("Cookie", &cookie)]);
            assert_eq!((again.status, &again.body), (200, &first.body), "{cookie}");
        }

        // What operators see.
        let metrics = ask(example.metrics, "GET /metrics", &[]).body;
        assert!(metrics.contains("haproxy_backend_status{proxy=\"api\",state=\"UP\"} 1"));
        let log = fs::read_to_string(example.managed.ground.file("haproxy.log")).expect("a log");
        let lines = log.lines().filter_map(|line| line.get(line.find('{')?..));
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        assert!(lines.any(|line| line["url"] == "/robots.txt"), "{log}");

        // A server that goes fails no request, and the standby takes over.
        drop(api1);
        for _ in 0..6 {
            assert_eq!(example.get("/api/things").body, "api2");
        }
        let database =
            || http::request(example.postgres, "GET", "/", &[], "").map(|answer| answer.body).ok();
        assert_eq!(database().as_deref(), Some("primary"));
        drop(primary);
        example.wait_for("the standby answers", || database().as_deref() == Some("standby"));

        // Nobody serves: in the words of the settings.
        drop((app1, app2));
        example.wait_for("the servers are down", || example.get("/").status == 503);
        let none = example.get("/");
        assert_eq!(none.body, "{\"error\": \"unavailable\"}", "{none:?}");
        assert_eq!(none.header("content-type").as_deref(), Some("application/json"));
        assert_eq!(none.header("retry-after").as_deref(), Some("5"));
    }
}
