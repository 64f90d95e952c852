//! What a registry says of a service.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use mapsmith::settings::Settings;
use mapsmith::settings::services::{Overlay, Refusals, overlay};
use mapsmith_core::render::rendered;
use mapsmith_core::{DesiredServers, ServiceForms, ServiceTexts};

const FILE: &str = r#"
    [haproxy]
    managed = true
    metrics = { bind = "127.0.0.1:8405" }
    [[source]]
    name = "zk"
    type = "zookeeper"
    servers = ["zk1:2181"]
    [services]
    from = { source = "zk", path = "/service_config" }
    files = "/etc/lists"
    [[frontend]]
    name = "own"
    bind = ["127.0.0.1:80"]
    default_backend = "own-back"
    [[backend]]
    name = "own-back"
    servers = []
"#;

/// The words that begin a section of HAProxy's file, however a line is indented.
const SECTIONS: [&str; 20] = [
    "acme",
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "dynamic-update",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    Settings::of_text(Path::new("/etc/mapsmith/a.toml"), FILE, []).expect("these are right")
});

/// The text of a service `web`.
pub fn services(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let alone = over(&ServiceForms::new());
    let made = over(&ServiceForms::from([("web".to_owned(), text.to_owned())]));
    if made.forms.is_empty() {
        let [rejected] = &made.rejected[..] else { panic!("{:?}", made.rejected) };
        assert!(rejected.name == "web" && !rejected.keeps_last_good, "{rejected:?}");
        assert!(!rejected.reason.trim().is_empty());
        assert!(!rejected.reason.contains(char::is_control), "{:?}", rejected.reason);
        assert_eq!(sections(&made), sections(&alone));
        return;
    }
    assert!(made.rejected.is_empty(), "{:?}", made.rejected);
    let mut sections_with = sections(&made);
    let mut take = |header: &str| {
        sections_with.remove(header).unwrap_or_else(|| panic!("there is no section {header:?}"))
    };
    let (frontend, backend) = (take("frontend web-listen"), take("backend web"));
    assert_eq!(sections_with, sections(&alone), "a service changes what is not its own");
    let begin_with = |lines: &[String], word: &str| {
        lines.iter().filter(|line| line.split_whitespace().next() == Some(word)).count()
    };
    assert_eq!(begin_with(&frontend, "bind"), 1, "{frontend:#?}");
    for forbidden in ["server", "stats", "bind", "program", "server-template", "log"] {
        assert_eq!(begin_with(&backend, forbidden), 0, "{backend:#?}");
    }
}

fn over(forms: &ServiceForms) -> Overlay {
    let texts = ServiceTexts::from(forms.clone());
    overlay(&SETTINGS, &texts, &ServiceForms::new(), &Refusals::new())
}

/// The sections of HAProxy's file with their lines.
fn sections(made: &Overlay) -> BTreeMap<String, Vec<String>> {
    let config =
        made.settings.haproxy_config(&DesiredServers::default()).expect("[haproxy] is set");
    let rendered = rendered(&config).expect("the template is right");
    let mut sections = BTreeMap::<String, Vec<String>>::new();
    let mut header = String::new();
    for line in rendered.text().lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        // A tab stands between words, as a space does.
        assert!(!line.contains(|sign: char| sign.is_control() && sign != '\t'), "{line:?}");
        let first = line.split_whitespace().next().unwrap_or_default();
        if SECTIONS.contains(&first) {
            line.clone_into(&mut header);
            assert!(sections.insert(header.clone(), Vec::new()).is_none(), "{header:?} twice");
        } else if !line.is_empty() {
            sections.entry(header.clone()).or_default().push(line.to_owned());
        }
    }
    sections
}
