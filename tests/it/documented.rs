//! Each `curl` of docs/api.md, as it stands there, asks a real Mapsmith and is answered.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, settles, with_backend};
use crate::support::registry::Registry;
use crate::support::scene::{BOUND, borrowed, newest, source_settings};

const KEPT: &str = "[store]\npath = \"mapsmith.db\"\n\
    [[source]]\nname = \"registered\"\ntype = \"registrations\"\npriority = 10\n";
const NODES: &str = "{\"node\": \"db1.example.com\", \"master\": \"master1\"}\n\
    {\"node\": \"db2.example.com\", \"master\": \"master2\", \"for\": \"2h\"}\n";
/// As many as the guard's percentages are for.
const MANY: usize = 60;

/// What needs another site than this one: several HAProxys, or one that Mapsmith runs.
/// control/rollout.rs, managed/declared.rs, members and managed/commands.rs ask those.
const ELSEWHERE: [&str; 10] = [
    "/backends/live",
    "/backends/app?wait",
    "canary",
    "/rollouts",
    "/frontends",
    "/config",
    "PATCH",
    "$tag",
    "\"servers\": ",
    "\"command\": ",
];

/// The API's document.
pub(crate) fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    fs::read_to_string(path).expect("the document")
}

/// The blocks of commands below a heading of the document.
pub(crate) fn blocks<'a>(document: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, below) = document.split_once(heading).expect("the heading");
    let below = below.split("\n##").next().unwrap_or_default();
    let blocks = below.split("\n```sh\n").skip(1);
    blocks.filter_map(|block| block.split("\n```").next()).collect()
}

/// Runs what is written for a shell, and ends at what fails; `log` is shown then.
pub(crate) fn run(script: &str, folder: &Path, log: impl Fn() -> String) {
    let here = script.replace("curl -s", CURL);
    let output = Command::new("bash").args(["-ec", &here]).current_dir(folder).output();
    let output = output.expect("bash runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{here}\n{}{}\n{}",
        text(&output.stdout),
        text(&output.stderr),
        log()
    );
}

/// It says why it fails.
const CURL: &str = "curl --silent --show-error --fail-with-body --max-time 60 ";

/// The commands of a document, each in one line.
fn commands(document: &str) -> Vec<String> {
    let blocks = document.split("\n```sh\n").skip(1);
    let texts = blocks.filter_map(|block| block.split("\n```").next());
    let whole = texts.map(|text| text.replace("\\\n", "")).collect::<Vec<_>>().join("\n");
    let is_here = |line: &&str| {
        line.starts_with("curl ") && !ELSEWHERE.iter().any(|part| line.contains(part))
    };
    whole.lines().filter(is_here).map(str::to_owned).collect()
}

fn nodes(count: usize) -> Vec<(String, String)> {
    let node = |number| (format!("web{number}.example.com"), format!("master{}", number % 2 + 1));
    (1..=count).map(node).collect()
}

struct Scene {
    registry: Registry,
    mapsmith: Mapsmith,
    folder: tempfile::TempDir,
    /// How many nodes the registry knows.
    known: usize,
}

impl Scene {
    fn says(&mut self, count: usize) {
        self.known = count;
        self.registry.knows(&borrowed(&nodes(count)));
        self.mapsmith.ask("POST", "/v1/reload?wait=30s", &[], "");
    }

    /// A change that the guard holds: its id. Another one each time.
    fn held(&mut self) -> String {
        self.says(if self.known == MANY { 5 } else { self.known + 1 });
        self.mapsmith.wait_for("a change is held", BOUND, |mapsmith| {
            mapsmith.get("/v1/held").1[0]["id"].as_str().map(str::to_owned)
        })
    }

    /// A command of the document, for what there is here.
    fn here(&mut self, command: &str) -> String {
        let revision = self.mapsmith.get("/v1/status").1["revision"].as_u64().expect("a number");
        let mut here = command
            .replace("curl -sN", "curl -s --no-buffer")
            .replace("127.0.0.1:7070", &self.mapsmith.address().to_string())
            .replace("\"412\"", &format!("\"{revision:x}\""))
            .replace("1041", &(revision - 1).to_string())
            .replace("since=1039", "since=1")
            .replace("/1038/", "/1/")
            .replace("after=10420", "after=0")
            .replace("backend/web", &format!("backend/{BACKEND}"))
            .replace("server/web/", &format!("server/{BACKEND}/"))
            .replace("/web/servers/web1", &format!("/{BACKEND}/servers/m1"))
            .replace("/web/servers/web2", &format!("/{BACKEND}/servers/m2"))
            .replace("/backends/web", &format!("/backends/{BACKEND}"));
        if here.contains("--no-buffer") {
            // It has no end.
            here = here.replace("--no-buffer", "--no-buffer --max-time 1") + " || test $? = 28";
        }
        let place = "5f0c1d2e3a4b5c6d";
        if here.contains(place) { here.replace(place, &self.held()) } else { here }
    }
}

#[test]
fn each_command_of_the_api_document_does_what_it_says() {
    let commands = commands(&document());
    assert!(commands.len() > 20, "{commands:?}");

    let plan = Gateway::plan(newest()).entry("node1", BACKEND);
    let gateway = with_backend(plan, "    balance roundrobin\n").start();
    let masters = ["m1", "m2"].map(Master::start);
    let listed = masters.each_ref().map(|master| (master.name(), master.address()));
    let (pool, registry) = (Pool::start(&listed), Registry::start(&borrowed(&nodes(MANY - 1))));
    let more = format!("{KEPT}{}", source_settings("registry", &registry.url()));
    let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", &more).start();
    settles(&gateway, &mapsmith, &listed);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("nodes.ndjson"), NODES).expect("a file");
    let mut scene = Scene { registry, mapsmith, folder, known: 0 };
    scene.says(MANY);

    for command in commands {
        let here = scene.here(&command);
        run(&here, scene.folder.path(), || scene.mapsmith.log());
    }
}
