//! The command line as an operator reads it: every text of a small fixed scene is held by a
//! snapshot, every exit code by a test.

use std::fs;
use std::process::Output;
use std::time::SystemTime;

use crate::support::haproxy::{Gateway, Plan};
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    ON_REQUEST, complaints, gateway_settings, printed, source_settings, version_3_0,
};

/// Holds a text against its snapshot, with what differs from run to run replaced by its name.
macro_rules! assert_text {
    ($text:expr, @$expected:literal) => {
        crate::cli::settled(|| insta::assert_snapshot!($text, @$expected))
    };
}

mod check;
mod local;
mod overrides;
mod portmap;
mod readme;
mod remote;
mod render;
mod usage;

/// What the registry of the scene answers: three nodes, and one that no master has reported for.
const ANSWER: &str =
    r#"{"alpha": "master1", "beta": "master2", "gamma": "master1", "delta": null}"#;

/// A gateway that knows two masters and was set up by hand, and a registry that knows better.
struct Scene {
    gateway: Gateway,
    registry: Registry,
}

impl Scene {
    fn new() -> Self {
        let registry = Registry::start(&[]);
        registry.answers(200, ANSWER);
        let plan = masters(Gateway::plan(version_3_0()));
        let gateway = plan
            .entry("alpha", "master1")
            .entry("beta", "master1")
            .entry("omega", "master1")
            .start();
        Self { gateway, registry }
    }

    /// The same with an empty map, and a registry that knows a single node.
    fn of_one_node() -> Self {
        let registry = Registry::start(&[("n000", "master1")]);
        Self { gateway: masters(Gateway::plan(version_3_0())).start(), registry }
    }

    fn settings(&self) -> String {
        let source = source_settings("registry", &self.registry.url());
        format!("{ON_REQUEST}{}{source}", gateway_settings(&self.gateway))
    }

    fn config(&self) -> Config {
        Mapsmith::config(&self.settings())
    }

    /// All that a verb which changes nothing must leave as it is.
    fn traces(&self) -> (Vec<u8>, SystemTime, Vec<String>, String) {
        let path = std::path::Path::new(self.gateway.map_path());
        let folder = path.parent().expect("a folder");
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("the gateway's folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("in UTF-8"))
            .collect();
        names.sort();
        let modified = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .expect("the map file is there");
        // With the counters, which tell of versions that were opened and dropped.
        let memory =
            self.gateway.command(&format!("show map;show map {path}", path = path.display()));
        (fs::read(path).expect("the map file is there"), modified, names, memory)
    }
}

/// The two masters of the scene; nobody sends them requests.
fn masters(plan: Plan) -> Plan {
    plan.master("master1", ([127, 0, 0, 1], 9).into()).master("master2", ([127, 0, 0, 1], 9).into())
}

/// The text of a verb that must end with this exit code.
fn text(output: &Output, expected: i32) -> String {
    let (code, text) = printed(output);
    assert_eq!(code, expected, "{text}{}", complaints(output));
    text
}

/// The complaint of a verb that must end with this exit code and print nothing.
fn complaint(output: &Output, expected: i32) -> String {
    assert_eq!(text(output, expected), "");
    complaints(output)
}

/// Runs `snapshots` with what differs from run to run replaced by its name.
fn settled(snapshots: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    for (pattern, name) in [
        (r"/tmp/mapsmith-gateway-\w+", "[GATEWAY]"),
        (r"/tmp/mapsmith-\w+", "[CONFIG]"),
        (r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:[PORT]"),
        (r"HAProxy \d+\.\d+[^ ,)]*", "HAProxy [VERSION]"),
        (r"pid \d+", "pid [PID]"),
        (r"(\d+[a-z]+ )+ago", "[AGE] ago"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ", "[TIME]"),
        // The cost model learns from what it measures: which way is taken is for its own tests.
        (r"by (edits|swap)", "by [STRATEGY]"),
        (r"((prepare|stage|edit|verify|commit|confirm) [0-9.]+ ms(, )?)+", "[STEPS]"),
        (r"by (a swap|single commands): .*", "by [STRATEGY]"),
        (r"[0-9.]+ ms", "[N] ms"),
    ] {
        settings.add_filter(pattern, name);
    }
    settings.bind(snapshots);
}
