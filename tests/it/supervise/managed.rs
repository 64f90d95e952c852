//! A HAProxy that Mapsmith runs: it outlives who started it, is found again, comes back when it
//! dies, and stays away when it was stopped.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mapsmith::settings::supervision;
use mapsmith::supervise::keeper::{Event, Keeper};
use mapsmith::supervise::process::{Launch, ProcessError};
use mapsmith::supervise::reload::Outcome;
use mapsmith::supervise::sockets::Sockets;
use mapsmith_core::config::values::BindAddress;
use serde_json::Value;

use super::{Folder, PATIENCE, unseen};
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::process::{Ending, Process};
use crate::support::scene::{complaints, newest, oldest_and_newest, printed};
use crate::support::{eventually, free_port, http};

/// Waits to be ended, and ends what the folder's file names.
const REAPER: &str = r#"
trap 'read -r pid start <"$1/haproxy.pid" && kill -s KILL "$pid"; exit 0' TERM
while :; do sleep 1000 & wait; done
"#;

/// A folder whose HAProxy ends with the test.
pub(super) struct Managed {
    // Before the folder, since fields are dropped in this order.
    _reaper: Process,
    pub folder: Folder,
    config: Config,
}

impl Managed {
    /// With a configuration that answers `one`, which is not started yet.
    pub fn new(binary: &'static Binary) -> Self {
        let folder = Folder::new(binary);
        folder.write(&folder.answering("one"));
        let path = folder.path().display().to_string();
        let ending = Ending { signal: "TERM", remove: None };
        let command = ["sh", "-c", REAPER, "reaper", &path];
        let reaper = Process::start(&command, &folder.file("reaper.log"), ending);
        let config = Mapsmith::config(&format!(
            "[map]\npath = \"{path}/node-master.map\"\n[[source]]\nname = \"s\"\ntype = \
            \"file\"\npath = \"{path}/nodes.json\"\n[[instance]]\nname = \"edge1\"\nruntime = \
            \"unix@{path}/admin.sock\"\n[haproxy]\nmanaged = true\nfolder = \"{path}\"\nbinary = \
            \"{}\"\nmetrics = {{ bind = \"127.0.0.1:1\" }}\n",
            folder.program()
        ));
        Self { _reaper: reaper, folder, config }
    }

    pub fn launch(&self) -> Launch {
        Launch {
            program: self.folder.program().to_owned(),
            folder: supervision::Folder::new(self.folder.path()),
            extra: Vec::new(),
            admin_socket: self.folder.file("admin.sock"),
            bound: PATIENCE,
        }
    }

    /// `mapsmith haproxy VERB`: its exit code and its report.
    fn verb(&self, arguments: &[&str]) -> (i32, Value) {
        let arguments = [&["--output", "json", "haproxy"], arguments].concat();
        let output = self.config.cli(&arguments);
        let (code, text) = printed(&output);
        let report = serde_json::from_str(&text).unwrap_or(Value::String(complaints(&output)));
        (code, report)
    }

    fn signal(&self, name: &str, pid: u32) {
        let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
        assert!(status.expect("kill starts").success());
    }
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// Skips what is not of this kind.
async fn next(keeper: &mut Keeper) -> Event {
    tokio::time::timeout(PATIENCE, keeper.next()).await.expect("something happens")
}

#[test]
fn haproxy_is_started_reloaded_and_stopped_by_verbs_and_outlives_each() {
    for binary in installed() {
        let managed = Managed::new(binary);
        let (code, report) = managed.verb(&["start"]);
        assert_eq!((code, &report["outcome"]), (0, &"running".into()), "{report}");
        let pid = u32::try_from(report["pid"].as_u64().unwrap()).unwrap();
        assert_eq!(managed.folder.answer(), "one");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let own = &*pid.to_string();
        assert_eq!(fields[2..5], [own, own, "0"], "its group, its session, no terminal");
        let (code, report) = managed.verb(&["start"]);
        assert_eq!((code, report["pid"].as_u64()), (0, Some(pid.into())), "it runs already");

        managed.folder.write(&managed.folder.answering("two"));
        let (code, report) = managed.verb(&["reload"]);
        assert_eq!((code, &report["outcome"]), (0, &"loaded".into()), "{report}");
        managed.folder.comes_to_answer("two");
        managed.folder.write("frontend web\n    bind \"127.0.0.1\n");
        let (code, report) = managed.verb(&["reload"]);
        assert_eq!((code, &report["outcome"]), (1, &"refused".into()), "{report}");
        let secret = "http-request set-header Authorization Basic Z2VoZWltOjE=";
        managed.folder.write(&format!("frontend web\n    {secret}\n"));
        for verb in ["reload", "restart"] {
            let (code, report) = managed.verb(&[verb]);
            assert_eq!((code, &report["outcome"]), (1, &"refused".into()), "{report}");
            let message = report["message"].to_string();
            assert!(message.contains("'***'") && !message.contains("Z2VoZWltOjE"), "{message}");
        }
        assert_eq!(managed.folder.answer(), "two");

        managed.folder.write(&managed.folder.answering("three"));
        let (code, report) = managed.verb(&["restart", "--grace", "20s"]);
        assert_eq!((code, &report["outcome"]), (0, &"running".into()), "{report}");
        assert_ne!(report["pid"].as_u64(), Some(pid.into()), "another master");
        assert_eq!(managed.folder.answer(), "three");
        let (code, report) = managed.verb(&["stop"]);
        assert_eq!((code, &report["outcome"]), (0, &"stopped".into()), "{report}");
        assert!(refuses(managed.folder.address) && !managed.folder.file("haproxy.pid").exists());
        assert_eq!(managed.verb(&["stop"]).0, 0, "it does not run");
        let (code, report) = managed.verb(&["reload"]);
        assert_eq!(code, 1);
        assert!(report.to_string().contains("haproxy start"), "{report}");
    }
}

#[test]
fn a_configuration_that_does_not_start_is_told_in_haproxys_words() {
    for binary in installed() {
        let managed = Managed::new(binary);
        managed.folder.write(&format!("{}    nonsense\n", managed.folder.answering("one")));
        let (code, report) = managed.verb(&["start"]);
        assert_eq!((code, &report["outcome"]), (1, &"refused".into()), "{report}");
        assert!(report["message"].as_str().unwrap().contains("unknown keyword 'nonsense'"));
        // No check sees this one.
        let taken = TcpListener::bind(managed.folder.address).unwrap();
        managed.folder.write(&managed.folder.answering("one"));
        let (code, report) = managed.verb(&["start"]);
        assert_eq!(code, 1);
        let text = report.to_string();
        assert!(text.contains("HAProxy did not start") && text.contains("cannot bind"), "{text}");
        assert!(!managed.folder.file("haproxy.pid").exists());
        drop(taken);
        assert_eq!(managed.verb(&["start"]).0, 0);
    }
}

#[test]
fn connections_that_last_are_cut_when_the_grace_is_over() {
    for binary in oldest_and_newest() {
        let managed = Managed::new(binary);
        assert_eq!(managed.verb(&["start"]).0, 0);
        let _open = TcpStream::connect(managed.folder.address).unwrap();
        let (code, report) = managed.verb(&["stop", "--grace", "100ms"]);
        assert_eq!(code, 0);
        assert!(report["message"].as_str().unwrap().contains("were cut"), "{report}");
    }
}

#[test]
fn verbs_for_a_haproxy_that_is_somebody_elses_say_whose() {
    let config = Mapsmith::config(
        "[map]\npath = \"/tmp/m.map\"\n[[source]]\nname = \"s\"\ntype = \"file\"\npath = \
        \"/tmp/n.json\"\n[[instance]]\nname = \"e\"\nruntime = \"unix@/tmp/a.sock\"\n[haproxy]\n\
        managed = \"attached\"\nconfig = \"/tmp/h.cfg\"\nreload_command = [\"true\"]\n\
        metrics = { bind = \"127.0.0.1:1\" }\n",
    );
    let output = config.cli(&["haproxy", "stop"]);
    assert!(complaints(&output).contains("managed is \"attached\""), "{}", complaints(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_master_that_dies_is_started_again_after_a_pause() {
    for binary in installed() {
        let managed = Managed::new(binary);
        let extra = managed.folder.file("extra.cfg");
        let secret = "defaults\nbackend b\n    http-request set-header X-Token geheimnis\n";
        fs::write(&extra, secret).unwrap();
        let mut keeper = Keeper::new(Launch { extra: vec![extra], ..managed.launch() });
        assert!(matches!(next(&mut keeper).await, Event::Started));
        for _ in 0..2 {
            let pid = keeper.running().unwrap().identity().pid;
            let log = fs::OpenOptions::new().append(true).open(managed.folder.file("haproxy.log"));
            log.unwrap().write_all(b"[ALERT]    (7) : unexpected 'geheimnis'\n").unwrap();
            managed.signal("KILL", pid);
            match next(&mut keeper).await {
                Event::Died { said } => {
                    let said = said.without_secrets();
                    assert!(said.contains("unexpected '***'"), "{said}");
                }
                other => panic!("{other:?}"),
            }
            let event = next(&mut keeper).await;
            assert!(matches!(event, Event::Started), "{event:?}");
            assert_ne!(keeper.running().unwrap().identity().pid, pid);
            assert_eq!(managed.folder.answer(), "one");
        }
    }
}

#[tokio::test]
async fn one_that_does_not_start_is_tried_again_until_it_does() {
    let managed = Managed::new(newest());
    let secret = "http-request set-header Authorization Basic Z2VoZWltOjE=";
    managed.folder.write(&format!("frontend web\n    nonsense\n    {secret}\n"));
    let mut keeper = Keeper::new(managed.launch());
    match next(&mut keeper).await {
        Event::NotStarted { why: ProcessError::Refused { said, .. }, .. } => {
            assert!(said.contains("nonsense"), "{said}");
            assert!(said.contains("***") && !said.contains("Z2VoZWltOjE"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    managed.folder.write(&managed.folder.answering("one"));
    assert!(matches!(next(&mut keeper).await, Event::Started));
}

#[tokio::test]
async fn a_later_mapsmith_finds_the_haproxy_that_runs_and_no_other_process() {
    for binary in installed() {
        let managed = Managed::new(binary);
        let file = managed.folder.file("haproxy.pid");
        // Another process has the pid of an earlier one: this one.
        fs::write(&file, format!("{} 1\n", std::process::id())).unwrap();
        assert!(managed.launch().find().await.unwrap().is_none());
        assert_eq!(managed.verb(&["start"]).0, 0);
        let mut keeper = Keeper::new(managed.launch());
        assert!(matches!(next(&mut keeper).await, Event::Found));
        let identity = keeper.running().unwrap().identity();
        // Who starts it has died before he could write the file.
        fs::remove_file(&file).unwrap();
        let found = managed.launch().find().await.unwrap().expect("its master answers");
        assert_eq!(found.identity(), identity);
        assert!(file.exists(), "written again");
        let twice = managed.launch().start(&mut Sockets::default()).await;
        assert!(matches!(twice, Err(ProcessError::Running(pid)) if pid == identity.pid));
    }
}

#[tokio::test]
async fn one_that_was_stopped_on_purpose_stays_so_until_it_is_started() {
    for binary in oldest_and_newest() {
        let managed = Managed::new(binary);
        let mut keeper = Keeper::new(managed.launch());
        assert!(matches!(next(&mut keeper).await, Event::Started));
        assert_eq!(managed.verb(&["stop"]).0, 0);
        assert!(matches!(next(&mut keeper).await, Event::Stopped));
        let waited = tokio::time::timeout(Duration::from_millis(700), keeper.next()).await;
        assert!(waited.is_err(), "{waited:?}");
        assert!(refuses(managed.folder.address));
        assert_eq!(managed.verb(&["start"]).0, 0);
        let event = next(&mut keeper).await;
        assert!(matches!(event, Event::Found), "{event:?}");
        assert_eq!(managed.folder.answer(), "one");
    }
}

#[tokio::test]
async fn a_master_that_hangs_is_told_and_not_ended() {
    let managed = Managed::new(newest());
    let mut launch = managed.launch();
    let running = launch.start(&mut Sockets::default()).await.unwrap();
    let pid = running.identity().pid;
    managed.signal("STOP", pid);
    launch.bound = Duration::from_millis(100);
    match launch.find().await {
        Err(ProcessError::Unreachable { pid: told, .. }) => assert_eq!(told, pid),
        other => panic!("{other:?}"),
    }
    assert!(running.identity().is_alive());
}

/// Connects all the time, and counts who was refused and who was answered.
struct Probes {
    ending: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Probes {
    fn start(address: SocketAddr) -> Self {
        let (ending, refused, answered) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let probes = Self { ending, refused, answered: Arc::clone(&answered), thread: None };
        let (ending, refused) = (Arc::clone(&probes.ending), Arc::clone(&probes.refused));
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                // One whose HAProxy is killed is cut, not refused.
                match http::request(address, "GET", "/", &[], "") {
                    Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(_) => 0,
                };
            }
        });
        Self { thread: Some(thread), ..probes }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were refused.
    fn stop(mut self) -> usize {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("it does not panic");
        self.refused.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn connections_wait_in_held_sockets_while_haproxy_is_killed_and_started_again() {
    for binary in installed() {
        let managed = Managed::new(binary);
        let address = BindAddress::try_from(managed.folder.address.to_string()).unwrap();
        let text = managed.folder.answering("one");
        let mut keeper = Keeper::new(managed.launch());
        keeper.hold([&address]).await.unwrap();
        let place = keeper.sockets().unwrap().place(&address);
        managed.folder.write(&text.replace(address.as_str(), place.as_str()));
        let event = next(&mut keeper).await;
        assert!(matches!(event, Event::Started), "{event:?}");
        let probes = Probes::start(managed.folder.address);
        for _ in 0..2 {
            let before = probes.answered();
            eventually("it serves", PATIENCE, || (probes.answered() > before).then_some(()));
            managed.signal("KILL", keeper.running().unwrap().identity().pid);
            assert!(matches!(next(&mut keeper).await, Event::Died { .. }));
            let event = next(&mut keeper).await;
            assert!(matches!(event, Event::Started), "{event:?}");
        }
        let outcome = keeper.running().unwrap().reloader().reload(&unseen()).await;
        assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
        let before = probes.answered();
        eventually("it serves again", PATIENCE, || (probes.answered() > before).then_some(()));
        assert_eq!(probes.stop(), 0, "refused");
        // Another address, which the one that runs has not inherited.
        let other = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let wanted = BindAddress::try_from(other.to_string()).unwrap();
        keeper.hold([&wanted]).await.unwrap();
        assert_eq!(keeper.sockets().unwrap().place(&wanted), wanted);
        managed.folder.write(&text.replace(address.as_str(), wanted.as_str()));
        let outcome = keeper.running().unwrap().reloader().reload(&unseen()).await;
        assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
        keeper.release([&wanted]).unwrap();
        assert!(refuses(managed.folder.address), "nobody is to wait there");
        assert!(!refuses(other));
    }
}

#[test]
fn a_verb_finds_the_held_sockets_of_another_mapsmiths_haproxy() {
    for binary in oldest_and_newest() {
        let managed = Managed::new(binary);
        // As a Mapsmith before wrote them.
        let place = "fd@700";
        let text = managed.folder.answering("one");
        let address = managed.folder.address.to_string();
        fs::write(managed.folder.file("sockets"), format!("700 {address}\n")).unwrap();
        managed.folder.write(&text.replace(&address, place));
        let (code, report) = managed.verb(&["start"]);
        assert_eq!(code, 0, "{report}");
        assert_eq!(managed.folder.answer(), "one");
        let (code, report) = managed.verb(&["reload"]);
        assert_eq!(code, 0, "{report}");
        let probes = Probes::start(managed.folder.address);
        eventually("it serves", PATIENCE, || (probes.answered() > 0).then_some(()));
        let (code, report) = managed.verb(&["restart", "--grace", "1s"]);
        assert_eq!(code, 0, "{report}");
        let before = probes.answered();
        eventually("it serves again", PATIENCE, || (probes.answered() > before).then_some(()));
        assert_eq!(probes.stop(), 0, "refused");
        assert_eq!(managed.verb(&["stop"]).0, 0);
        assert!(refuses(managed.folder.address), "nobody is to wait there");
    }
}
