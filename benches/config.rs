//! What a change of HAProxy's configuration costs beside what HAProxy itself takes for it:
//! `scripts/bench config [BACKENDS]`.
//!
//! Each round has the rendering, the comparison with the file in place, and `haproxy -c` of the
//! same text right after one another, so that their ratio does not depend on what else the machine
//! does. Then a HAProxy runs, and each round has a change from the model to the new worker, beside
//! `haproxy -c` and a bare `reload` of the same file.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::haproxies;
use haproxy_runtime::master::Target;
use mapsmith::settings::Settings;
use mapsmith::settings::supervision::Folder;
use mapsmith::supervise::candidate::Candidate;
use mapsmith::supervise::check;
use mapsmith::supervise::files::Files;
use mapsmith::supervise::process::Launch;
use mapsmith::supervise::reload::Outcome;
use mapsmith::supervise::running::Running;
use mapsmith::supervise::sockets::Sockets;
use mapsmith_core::DesiredServers;
use mapsmith_core::config::values::FilePath;
use mapsmith_core::config::{Config, Template};
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::server::{Server, ServerAddress, ServerOptions};

const BACKENDS: usize = 1000;
const SERVERS: usize = 10;
const ROUNDS: usize = 15;
const RELOADS: usize = 5;
/// Of the model with itself, which takes little.
const COMPARISONS: usize = 20;

fn main() -> anyhow::Result<()> {
    let backends =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(BACKENDS);
    println!("{backends} backends x {SERVERS} servers, a rule for each; medians of {ROUNDS}");
    let config = config(backends);
    assert_eq!(config.problems(), []);
    let templated = Config {
        template: Some(Template { name: "t".to_owned(), source: "{{ rendered }}\n".into() }),
        ..config.clone()
    };
    let folder = tempfile::tempdir()?;
    unchanged(&config);
    for binary in haproxies() {
        for (name, config) in [("shipped", &config), ("a template around it", &templated)] {
            let rounds: Vec<_> =
                (0..ROUNDS).map(|_| round(folder.path(), &binary, config)).collect();
            let of = |part: fn(&Round) -> Duration| {
                median(rounds.iter().map(|round| part(round).as_secs_f64() * 1000.0).collect())
            };
            let (render, compare, check) =
                (of(|round| round.render), of(|round| round.compare), of(|round| round.check));
            println!(
                "{}, {name}: render {render:.1} ms, compare {compare:.2} ms, haproxy -c \
                    {check:.1} ms: {:.1} % of it",
                binary.display(),
                (render + compare) / check * 100.0
            );
        }
        tokio::runtime::Runtime::new()?.block_on(loaded(&binary, &config))?;
    }
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Changes that a running HAProxy loads.
async fn loaded(haproxy: &Path, config: &Config) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut config = config.clone();
    let socket = folder.path().join("admin.sock").display().to_string();
    config.process.socket = FilePath::try_from(socket).ok();
    let launch = Launch {
        program: haproxy.display().to_string(),
        folder: Folder::new(folder.path()),
        extra: Vec::new(),
        admin_socket: folder.path().join("admin.sock"),
        bound: Duration::from_secs(120),
    };
    let file = launch.folder.configuration();
    let mut files = Files::new(&file, folder.path());
    files.switch(&candidate(&config).text, false)?;
    let running = launch.start(&mut Sockets::default()).await?;
    let (mut ours, mut rendering, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..RELOADS {
        config.process.maxconn = Some(1000 + number as u32);
        let start = Instant::now();
        let candidate = candidate(&config);
        let in_place = files.in_place()?.expect("it is there");
        assert!(!in_place.holds(&candidate.text));
        rendering.push(start.elapsed().as_secs_f64() * 1000.0);
        let written = files.write_candidate(&candidate.text)?;
        let (program, none) = (&*launch.program, Sockets::default());
        let (checked, rendered) = ([&*written], &candidate.rendered);
        let verdict = check::check(program, &checked, rendered, &none, check::CHECK_BOUND).await?;
        files.switch(&candidate.text, true)?;
        let outcome = running.reloader().reload(&verdict).await;
        ours.push(start.elapsed().as_secs_f64() * 1000.0);
        assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
        let start = Instant::now();
        let mut command = Command::new(haproxy);
        command.arg("-c").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status()?.success());
        reload_alone(&running).await?;
        bare.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    running.stop(Duration::ZERO).await?;
    let (ours, rendering, bare) = (median(ours), median(rendering), median(bare));
    println!(
        "{}: a change until the new worker serves {ours:.0} ms, haproxy -c and a bare reload \
            {bare:.0} ms: {:+.1} %; of it rendering and comparing {rendering:.1} ms: {:+.1} %",
        haproxy.display(),
        (ours / bare - 1.0) * 100.0,
        rendering / bare * 100.0
    );
    Ok(())
}

/// From the master's command until another worker serves: 2.6 answers before.
async fn reload_alone(running: &Running) -> anyhow::Result<()> {
    let serving = async || running.master().worker(Target::Current).await.map(|info| info.pid);
    let before = serving().await?;
    // 2.6 says nothing.
    let _ = running.master().within(Duration::from_secs(120)).reload().await;
    // 2.6's master can't be reached while it begins anew.
    while serving().await.map_or(true, |pid| pid == before) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// A pass in which nothing has changed: the model is compared with the one in force.
fn unchanged(config: &Config) {
    let same = config.clone();
    let start = Instant::now();
    for _ in 0..COMPARISONS {
        assert!(std::hint::black_box(&same) == std::hint::black_box(config));
    }
    let each = start.elapsed().as_secs_f64() * 1000.0 / COMPARISONS as f64;
    println!("an unchanged pass compares the models: {each:.2} ms, and renders nothing");
}

struct Round {
    render: Duration,
    compare: Duration,
    check: Duration,
}

fn round(folder: &Path, haproxy: &Path, config: &Config) -> Round {
    let file = folder.join("haproxy.cfg");
    let mut files = Files::new(&file, folder);
    let start = Instant::now();
    let Candidate { text, .. } = candidate(config);
    let render = start.elapsed();
    fs::write(&file, &text).expect("the file can be written");
    let start = Instant::now();
    let in_place = files.in_place().expect("the file can be read").expect("it is there");
    assert!(in_place.holds(&text));
    let compare = start.elapsed();
    let start = Instant::now();
    let mut command = Command::new(haproxy);
    command.arg("-c").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("HAProxy starts").success());
    Round { render, compare, check: start.elapsed() }
}

/// As Mapsmith makes it.
fn candidate(config: &Config) -> Candidate {
    let desired = DesiredConfig { config: config.clone(), unknown: Vec::new() };
    Candidate::new(&Arc::new(desired), &Sockets::default()).expect("it is rendered")
}

/// What settings with so many backends declare, with servers as a registry lists them.
fn config(backends: usize) -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mapsmith.toml");
    let mut text = "[haproxy]\nmanaged = true\nlog_format = \"json\"\n[[frontend]]\nname = \
        \"web\"\nbind = [\"127.0.0.1:18080\"]\ndefault_backend = \"app0\"\nrules = [\n"
        .to_owned();
    for backend in 0..backends {
        let _ = writeln!(
            text,
            "{{ host = \"app{backend}.example.test\", backend = \"app{backend}\" }},"
        );
    }
    text.push_str("]\n");
    for backend in 0..backends {
        let _ = writeln!(
            text,
            "[[backend]]\nname = \"app{backend}\"\nservers = []\ncheck = {{ uri = \"/ping\", host \
             = \"app{backend}.example.test\" }}\nnatives = [\"option abortonclose\"]"
        );
    }
    fs::write(&path, text).expect("the folder can be written to");
    let settings = Settings::load(&path, []).expect("settings");
    let mut config = settings.haproxy_config(&DesiredServers::default()).expect("[haproxy]");
    for (backend, declared) in config.backends.iter_mut().enumerate() {
        declared.servers = (0..SERVERS).map(|number| server(backend, number)).collect();
    }
    config
}

fn server(backend: usize, number: usize) -> Server {
    let options = ["check", "inter 2s", "maxconn 100"].map(str::to_owned);
    let ip = Ipv4Addr::new(10, (backend / 250) as u8, (backend % 250) as u8, number as u8 + 1);
    Server {
        name: format!("app{backend}-{number}"),
        address: ServerAddress { ip: IpAddr::V4(ip), port: 8080 },
        weight: Some(100),
        backup: false,
        options: ServerOptions::parse(&options).expect("options of a server"),
    }
}
