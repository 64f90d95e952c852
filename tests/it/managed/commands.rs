//! Commands on nodes, by HAProxys of Mapsmith's own: at the right master, once, and nowhere else.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::Binary;
use crate::support::http::{self, Response};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{metric, oldest_and_newest, printed};
use crate::support::{eventually, free_port};

mod detours;

/// What a master does with each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answer(u16),
    /// 200 with so many bytes.
    Say(usize),
    /// Never answers.
    Silent,
    /// Reads it and closes.
    Close,
}

/// A master that keeps what it gets: it has no health check, and whatever comes is a request.
#[derive(Clone)]
struct Recorder {
    address: SocketAddr,
    state: Arc<Mutex<(Manner, Vec<String>)>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let recorder =
            Self { address, state: Arc::new(Mutex::new((Manner::Answer(200), Vec::new()))) };
        let kept = recorder.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let recorder = kept.clone();
                thread::spawn(move || recorder.serve(stream));
            }
        });
        recorder
    }

    fn becomes(&self, manner: Manner) {
        self.state.lock().expect("no thread panics with it").0 = manner;
    }

    /// All requests so far, each as it came.
    fn heard(&self) -> Vec<String> {
        self.state.lock().expect("no thread panics with it").1.clone()
    }

    /// Its commands so far.
    fn commands(&self) -> usize {
        self.heard().iter().filter(|request| request.starts_with("POST ")).count()
    }

    fn serve(&self, mut stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let mut requests = BufReader::new(reading);
        while let Some(request) = read(&mut requests) {
            let mut state = self.state.lock().expect("no thread panics with it");
            state.1.push(request);
            let manner = state.0;
            drop(state);
            let (status, body) = match manner {
                Manner::Answer(status) => (status, format!("{status} of a master")),
                Manner::Say(bytes) => (200, "x".repeat(bytes)),
                // Until whoever asked leaves.
                Manner::Silent => {
                    let _ = stream.read(&mut [0]);
                    return;
                }
                Manner::Close => return,
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
            if stream.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn read(requests: &mut impl BufRead) -> Option<String> {
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        request += &line;
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    requests.read_exact(&mut body).ok()?;
    Some(request + &String::from_utf8_lossy(&body))
}

/// Two masters behind a public frontend, that finds owners by redispatch, and one of commands.
struct Scene {
    managed: Managed,
    public: SocketAddr,
    /// To the same masters, and asks nobody for a node.
    web: SocketAddr,
    of_commands: SocketAddr,
    masters: [Recorder; 2],
    token: String,
}

const FILE: &str = "s3cret-of-the-file";

impl Scene {
    fn start(binary: &'static Binary) -> Self {
        let ground = Ground::new(binary);
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (public, web, of_commands) = (port(), port(), port());
        let masters = [Recorder::start(), Recorder::start()];
        let dead = port();
        let nodes = json!({"a": "m1", "b/../c": "m1", "d": "dead", "e": "gone"});
        fs::write(ground.file("nodes.json"), nodes.to_string()).expect("nodes can be written");
        let servers: String =
            [("m1", masters[0].address), ("m2", masters[1].address), ("dead", dead)]
                .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }},"))
                .concat();
        let more = format!(
            "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n\
            [store]\npath = \"mapsmith.db\"\n\
            [references]\nunknown = \"keep\"\n\
            [[source]]\nname = \"nodes\"\ntype = \"file\"\npath = \"{}\"\n\
            [[frontend]]\nname = \"gateway\"\nbind = [\"{public}\"]\n\
            route = {{ by = {{ header = \"X-Node-Name\" }}, backend = \"masters\", \
                misdirected = 404 }}\n\
            [[frontend]]\nname = \"plain\"\nbind = [\"{web}\"]\n\
            default_backend = \"masters\"\n\
            [[backend]]\nname = \"masters\"\nservers = [{servers}]\n\
            [[backend]]\nname = \"commands\"\nservers = [{servers}]\n\
            [commands]\ngateway = \"http://{of_commands}\"\nbackend = \"commands\"\n\
            [[command]]\nname = \"run\"\npath = \"/nodes/{{node}}/commands\"\n\
            body = {{ command = \"run\" }}\ntimeout = \"1s\"\nmax_bytes = \"1KiB\"\n\
            params = [{{ name = \"noop\", pattern = \"true|false\", default = \"false\" }}]\n\
            [[command]]\nname = \"stop\"\npath = \"/nodes/{{node}}/commands\"\n\
            params = [{{ name = \"password\", pattern = \"[a-z-]+\", default = \"of-the-file\", \
                secret = true }}]\n",
            ground.file("nodes.json").display()
        );
        let config = Mapsmith::config(&ground.settings("one", &more));
        fs::write(config.directory().join("token"), FILE).expect("a token can be written");
        let mapsmith = config.start();
        mapsmith.wait_for("the gateway of commands is there", PATIENCE, |_| {
            TcpStream::connect(of_commands).ok().map(drop)
        });
        let mut scene = Self {
            managed: Managed { mapsmith, ground },
            public,
            web,
            of_commands,
            masters,
            token: FILE.to_owned(),
        };
        scene.token = scene.token(&["commands"]);
        // Each may change so much at once.
        let other = scene.token(&["commands"]);
        scene.managed.mapsmith.wait_for("HAProxy has the nodes", PATIENCE, |_| {
            let (status, report) = scene.run_as(&other, "a", "", json!({"command": "run"}));
            (status == 200 && report["outcome"] == "ok").then_some(())
        });
        scene
    }

    /// A viewer's token, with these grants.
    fn token(&self, grants: &[&str]) -> String {
        let name = format!("t{}", free_port());
        let token = json!({"name": name, "role": "viewer", "grants": grants}).to_string();
        let made = self.ask_as(FILE, "POST", "/v1/tokens", &token);
        let made: Value = serde_json::from_str(&made.body).expect("a token");
        made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    fn ask_as(&self, token: &str, method: &str, path: &str, body: &str) -> Response {
        let bearer = format!("Bearer {token}");
        self.managed.mapsmith.ask(method, path, &[("Authorization", &bearer)], body)
    }

    /// Runs a command, and gives the status and the report.
    fn run(&self, node: &str, body: Value) -> (u16, Value) {
        self.run_as(&self.token, node, "", body)
    }

    fn run_as(&self, token: &str, node: &str, query: &str, body: Value) -> (u16, Value) {
        let path = format!("/v1/nodes/{node}/commands{query}");
        let response = self.ask_as(token, "POST", &path, &body.to_string());
        (response.status, serde_json::from_str(&response.body).unwrap_or_default())
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let token = ["--token", &self.token];
        self.managed.mapsmith.cli(&[&["command"][..], arguments, &token].concat())
    }

    /// The latest rows of the audit.
    fn audit(&self) -> Vec<Value> {
        let rows = self.ask_as(FILE, "GET", "/v1/audit", "");
        let rows: Value = serde_json::from_str(&rows.body).expect("rows");
        rows["items"].as_array().cloned().unwrap_or_default()
    }

    fn commands(&self) -> [usize; 2] {
        self.masters.each_ref().map(Recorder::commands)
    }

    /// What HAProxy has learned.
    fn learned(&self) -> String {
        let socket = format!("unix@{}", self.managed.ground.file("admin.sock").display());
        crate::support::haproxy::ask(&socket, "show table masters").expect("an answer")
    }
}

#[test]
fn a_command_is_run_by_the_nodes_master_once_and_nowhere_else() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary);
        let [first, other] = &scene.masters;
        let before = first.commands();
        let order = json!({"command": "run", "params": {"noop": "true"}, "reason": "kernel"});
        let (status, report) = scene.run("a", order);
        assert_eq!(
            (status, &report["outcome"], &report["status"]),
            (200, &json!("ok"), &json!(200))
        );
        assert_eq!(
            (&report["master"], &report["output"]),
            (&json!("m1"), &json!("200 of a master"))
        );
        assert_eq!(scene.commands(), [before + 1, 0]);
        let heard = first.heard().pop().expect("a request").to_ascii_lowercase();
        let id = report["id"].as_str().expect("an id");
        for part in [
            "post /nodes/a/commands http/1.1\r\n",
            "\r\nx-node-name: a\r\n",
            "\r\nx-mapsmith-actor: token:t",
            &format!("\r\nx-command-id: {id}\r\n"),
            r#"{"command":"run","noop":"true"}"#,
        ] {
            assert!(heard.contains(part), "{part:?} is not in {heard}");
        }
        assert!(!heard.contains("x-mapsmith-secret"), "{heard}");

        // Its 404 is its answer: nobody else is asked, and nothing is learned of an answer.
        first.becomes(Manner::Answer(404));
        let refused = scene.run("a", json!({"command": "run"})).1;
        assert_eq!((&refused["outcome"], &refused["status"]), (&json!("refused"), &json!(404)));
        first.becomes(Manner::Answer(503));
        let failed = scene.run("a", json!({"command": "run"})).1;
        assert_eq!((&failed["outcome"], &failed["status"]), (&json!("failed"), &json!(503)));
        assert_eq!(scene.commands(), [before + 3, 0]);
        assert!(scene.learned().contains("used:0"), "{}", scene.learned());

        // It closes without an answer, and takes its time: it may have been run, and is not again.
        for manner in [Manner::Close, Manner::Silent] {
            let before = first.commands();
            first.becomes(manner);
            let (status, unknown) = scene.run("a", json!({"command": "run"}));
            assert_eq!((status, &unknown["outcome"]), (200, &json!("unknown")), "{unknown}");
            assert_eq!(scene.commands(), [before + 1, 0], "{manner:?}: {unknown}");
        }
        first.becomes(Manner::Say(100_000));
        let cut = scene.run("a", json!({"command": "run"})).1;
        assert_eq!((&cut["outcome"], &cut["truncated"]), (&json!("ok"), &json!(true)), "{cut}");
        assert_eq!(cut["output"].as_str().map(str::len), Some(1024));

        // Nobody is there, and HAProxy has no such server.
        for node in ["d", "e"] {
            let nobody = scene.run(node, json!({"command": "run"})).1;
            assert_eq!(nobody["outcome"], "no_master", "{node}: {nobody}");
        }
        assert_eq!(other.heard().len(), 0, "{:?}", other.heard());
    }
}

#[test]
fn what_the_public_frontend_searches_and_learns_is_denied_there_to_commands() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary);
        let [first, other] = &scene.masters;
        // The public frontend would have searched: there a node that its master disowns is asked
        // of the others, and the one that answers is remembered.
        first.becomes(Manner::Answer(404));
        let node = [("X-Node-Name", "a")];
        let found = http::request(scene.public, "POST", "/facts", &node, "{}").expect("an answer");
        assert_eq!((found.status, other.commands()), (200, 1), "another master has run it");
        assert!(scene.learned().contains("key=a"), "{}", scene.learned());
        for path in ["/nodes/a/commands", "//nodes/a/%63ommands/", "/x/../nodes/a/commands;x"] {
            let denied = http::request(scene.public, "POST", path, &node, "{}").expect("an answer");
            assert_eq!(denied.status, 403, "{path}: {}", denied.body);
        }
        let read = http::request(scene.public, "GET", "/nodes/a/commands", &node, "");
        assert_eq!(read.expect("an answer").status, 200, "who only reads may");
        assert_eq!(other.commands(), 1);

        // Whatever was learned there, commands go where the map says.
        first.becomes(Manner::Answer(200));
        assert_eq!(scene.run("a", json!({"command": "run"})).1["outcome"], "ok");
        assert_eq!(other.commands(), 1);

        // Nobody else gets through the frontend of commands, not even for a node that is there.
        let before = first.heard().len();
        for secret in ["", "0".repeat(43).as_str()] {
            let headers =
                [("X-Node-Name", "a"), ("X-Mapsmith-Master", "m1"), ("X-Mapsmith-Secret", secret)];
            let path = "/nodes/a/commands";
            let denied = http::request(scene.of_commands, "POST", path, &headers, "{}");
            assert_eq!(denied.expect("an answer").status, 403);
        }
        assert_eq!(first.heard().len(), before);
        scene.no_detour_reaches_a_master();
    }
}

#[test]
fn who_has_no_grant_runs_nothing_and_what_is_run_is_noted() {
    let [_, newest] = oldest_and_newest();
    let scene = Scene::start(newest);
    let [first, _] = &scene.masters;
    let before = first.commands();
    let run = || json!({"command": "run"});
    let operator = json!({"name": "op", "role": "operator", "grants": []}).to_string();
    let operator = scene.ask_as(FILE, "POST", "/v1/tokens", &operator);
    let operator: Value = serde_json::from_str(&operator.body).expect("a token");
    let operator = operator["token"].as_str().expect("a token").to_owned();
    let stop_alone = scene.token(&["commands:stop"]);
    for token in [FILE, &operator, &stop_alone] {
        let (status, problem) = scene.run_as(token, "a", "", run());
        assert_eq!(status, 403, "{problem}");
        assert!(problem["detail"].to_string().contains("grant"), "{problem}");
    }
    for (node, body, expected) in [
        ("a", json!({"command": "rm"}), 404),
        ("z", run(), 404),
        ("..%2f..", run(), 404),
        ("a", json!({"command": "run", "path": "/x"}), 400),
        ("a", json!({"command": "run", "params": {"noop": "maybe"}}), 400),
        ("a", json!({"command": "run", "params": {"noop": "true\r\nX: y"}}), 400),
        ("a", json!({"command": "run", "params": {"command": "rm"}}), 400),
        ("a", json!({"command": "run", "reason": "x".repeat(501)}), 400),
        ("a%0d%0aX:%20y", run(), 400),
    ] {
        let (status, problem) = scene.run(node, body.clone());
        assert_eq!(status, expected, "{node} {body}: {problem}");
    }
    let (status, dry) = scene.run_as(&scene.token, "a", "?dry_run=true", run());
    assert_eq!((status, &dry["outcome"], &dry["id"]), (200, &Value::Null, &Value::Null));
    let sent = json!({"method": "POST", "path": "/nodes/a/commands",
        "body": {"command": "run", "noop": "false"}});
    assert_eq!((&dry["master"], &dry["request"]), (&json!("m1"), &sent));
    assert_eq!(scene.commands(), [before, 0], "nothing was sent");

    let (code, listed) = printed(&scene.cli(&["list"]));
    assert_eq!(code, 0, "{listed}");
    assert!(listed.contains("run  POST /nodes/{node}/commands  1s\n  noop=true|false"), "{listed}");
    let (code, done) = printed(&scene.cli(&["run", "a", "run", "--param", "noop=true"]));
    assert_eq!((code, done.as_str()), (0, "run on a: ok: m1 answered 200\n200 of a master\n"));
    let node = "b%2F..%2Fc";
    let report = scene.run(node, run()).1;
    assert_eq!((&report["outcome"], &report["node"]), (&json!("ok"), &json!("b/../c")), "{report}");
    let heard = first.heard().pop().expect("a request");
    assert!(heard.starts_with("POST /nodes/b%2F..%2Fc/commands HTTP/1.1\r\n"), "{heard}");
    first.becomes(Manner::Close);
    let (code, unknown) = printed(&scene.cli(&["run", "a", "run", "--reason", "kernel"]));
    assert_eq!(code, 5, "{unknown}");

    // Each of them is noted, with what came of it.
    let row = eventually("the row has its end", PATIENCE, || {
        scene.audit().into_iter().find(|row| row["reason"] == "kernel" && row["status"] == 200)
    });
    assert_eq!(
        (&row["outcome"], &row["target"]),
        (&json!("unknown"), &json!("nodes/a/commands/run"))
    );
    assert!(row["detail"].as_str().is_some_and(|it| it.ends_with(" at m1)")), "{row}");
    let events = scene.ask_as(FILE, "GET", "/v1/activity?topics=command&limit=2", "");
    let events: Value = serde_json::from_str(&events.body).expect("events");
    let states: Vec<_> = events["items"].as_array().expect("items").iter().collect();
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&json!("begun"), &json!("unknown")));
    let unknown = "mapsmith_commands_total{command=\"run\",outcome=\"unknown\"}";
    assert_eq!(metric(&scene.managed.mapsmith, unknown), Some(1.0));

    let secret = scene.managed.ground.file("commands.secret");
    let mode = fs::metadata(&secret).expect("a secret").permissions().mode();
    let secret = fs::read_to_string(secret).expect("a secret");
    let config = fs::read_to_string(scene.managed.ground.file("haproxy.cfg")).expect("a file");
    assert_eq!((mode & 0o777, config.contains(secret.trim())), (0o600, false));
}

#[test]
fn a_secret_of_a_command_reaches_the_master_and_nobody_else() {
    let [_, newest] = oldest_and_newest();
    let scene = Scene::start(newest);
    let [first, _] = &scene.masters;
    let order = json!({"command": "stop", "params": {"password": "hush-hush"}});
    let (status, dry) = scene.run_as(&scene.token, "a", "?dry_run=true", order.clone());
    assert_eq!((status, &dry["request"]["body"]["password"]), (200, &json!("***")), "{dry}");
    let (status, done) = scene.run("a", order);
    assert_eq!((status, &done["outcome"]), (200, &json!("ok")), "{done}");
    let heard = first.heard().pop().expect("a request");
    assert!(heard.ends_with(r#"{"password":"hush-hush"}"#), "{heard}");
    scene.run("a", json!({"command": "stop"}));
    let heard = first.heard().pop().expect("a request");
    assert!(heard.ends_with(r#"{"password":"of-the-file"}"#), "{heard}");

    let audit = json!(scene.audit()).to_string();
    assert!(audit.contains(r#"stop password=\"***\" (c-"#), "{audit}");
    let answers = ["/v1/commands", "/v1/activity?limit=100", "/v1/audit", "/v1/status"];
    let answers = answers.map(|path| scene.ask_as(FILE, "GET", path, "").body).concat();
    let listed = printed(&scene.cli(&["list"])).1;
    assert!(listed.contains("password=[a-z-]+, \"***\" unless given, not shown"), "{listed}");
    let all = [answers, listed, dry.to_string(), done.to_string(), scene.managed.mapsmith.log()];
    for secret in ["hush-hush", "of-the-file"] {
        assert!(all.iter().all(|text| !text.contains(secret)), "{secret} is in {all:#?}");
    }
}

#[test]
fn a_command_goes_on_without_whoever_asked_and_one_that_a_crash_interrupts_is_unknown() {
    let [_, newest] = oldest_and_newest();
    let mut scene = Scene::start(newest);
    let first = scene.masters[0].clone();
    let before = first.commands();
    first.becomes(Manner::Silent);
    let begin = |scene: &Scene, name: &str| {
        let body = json!({"command": name}).to_string();
        let mut stream = TcpStream::connect(scene.managed.mapsmith.address()).expect("the API");
        let request = format!(
            "POST /v1/nodes/a/commands HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
            Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            scene.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it takes a request");
        stream
    };
    let outcome = |scene: &Scene, name: &str| {
        let target = format!("nodes/a/commands/{name}");
        let row = scene.audit().into_iter().find(|row| row["target"] == target);
        row.unwrap_or_default()["outcome"].clone()
    };
    let asker = begin(&scene, "run");
    eventually("the master has it", PATIENCE, || (first.commands() == before + 1).then_some(()));
    drop(asker);
    eventually("its end is noted", PATIENCE, || {
        (outcome(&scene, "run") == "unknown").then_some(())
    });
    assert_eq!(first.commands(), before + 1);

    let _asker = begin(&scene, "stop");
    eventually("the master has it", PATIENCE, || (first.commands() == before + 2).then_some(()));
    let (status, problem) = scene.run("a", json!({"command": "run"}));
    assert_eq!(status, 429, "one at a time: {problem}");
    assert_eq!(outcome(&scene, "stop"), "running");
    scene.managed.mapsmith.kill();
    scene.managed.mapsmith.restart();
    assert_eq!(outcome(&scene, "stop"), "unknown", "{}", scene.managed.mapsmith.log());
    first.becomes(Manner::Answer(200));
    scene.managed.mapsmith.wait_for("commands run again", PATIENCE, |_| {
        (scene.run("a", json!({"command": "run"})).1["outcome"] == "ok").then_some(())
    });
    let stops = first.heard().iter().filter(|it| !it.contains("\"command\":\"run\"")).count();
    assert_eq!(stops, 1, "it was not run again: {:?}", first.heard());
}
