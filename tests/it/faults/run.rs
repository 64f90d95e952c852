//! A run: the schedule's faults, one after the other, against the running whole.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::laws::Excuse;
use super::registry::Reply;
use super::schedule::{Bad, Fault, Schedule, Step};
use super::site::{Journal, NODES, Outcome, Photograph, Whole, is_held, with_pins};
use super::{crowd, guard, map_file, outage};
use crate::support::admin_proxy::Weather;
use crate::support::process::{Ending, Process};
use crate::support::random::Random;
use crate::support::{find_program, poll, run};

/// How long a moment is waited for that may not come: a change takes another way than the one that
/// was to be broken.
const MOMENT: Duration = Duration::from_secs(3);

/// Longer than a tracer takes to attach.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of the log of a run that fails.
const LOG_LINES: usize = 150;

/// What a run did.
#[derive(Debug, Default)]
pub struct Figures {
    pub requests: usize,
    pub faults: BTreeMap<String, usize>,
    pub took: Duration,
    /// The longest time from the end of a fault until everything was in sync again.
    pub longest: Duration,
    /// What happened when.
    pub journal: String,
}

/// Runs a seed's schedule.
///
/// # Errors
/// All there is to say about the law that was broken.
pub fn run_seed(seed: u64) -> Result<Figures, String> {
    let began = Instant::now();
    let schedule = Schedule::of(seed);
    let journal = Journal::new();
    let mut figures = Figures::default();
    let mut log = String::new();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut whole = Whole::start(seed, &schedule, &journal);
        // Caught here, where Mapsmith's log is still there.
        let outcome =
            catch_unwind(AssertUnwindSafe(|| take_steps(&mut whole, &schedule, &mut figures)));
        figures.requests = whole.laws.requests();
        figures.longest = whole.longest;
        let mut broken = whole.laws.all_broken();
        broken.extend(whole.watchers.blind());
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => broken.push(error),
            Err(panic) => broken.push(words(&*panic)),
        }
        if !broken.is_empty() {
            log = whole.mapsmith.log();
        }
        broken
    }));
    let broken = ended.unwrap_or_else(|panic| vec![words(&*panic)]);
    figures.took = began.elapsed();
    figures.journal = journal.text();
    if broken.is_empty() {
        return Ok(figures);
    }
    let lines: Vec<_> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    Err(format!(
        "seed {seed}: {}\n\nwhat happened when:\n{}\nMapsmith's log, its last {LOG_LINES} \
            lines:\n{last}\n\nreplay: scripts/faults --seed {seed}\n",
        broken.join("\n"),
        figures.journal
    ))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn take_steps(whole: &mut Whole, schedule: &Schedule, figures: &mut Figures) -> Outcome {
    let mut rested = true;
    for (number, step) in schedule.steps.iter().enumerate() {
        let besides = step
            .weather
            .map_or(String::new(), |percent| format!(", and {percent} % of all commands suffer"));
        whole.journal.note(&format!("step {number}: {:?}{besides}", step.fault));
        let mut random = Random::new(step.seed);
        if rested && whole.site.pins && random.chance(50) {
            whole.order(&mut random, false)?;
            if random.chance(25) {
                whole.journal.note("  killed right after");
                whole.restart_mapsmith();
            }
            if step.fault.needs_rest() {
                whole.settle()?;
            }
        }
        for (number, proxy) in whole.proxies.iter().enumerate() {
            proxy.weather(
                step.weather.map(|percent| Weather::new(step.seed ^ number as u64, percent)),
            );
        }
        let taken = take(whole, step, &mut random)?;
        whole.proxies.iter().for_each(|proxy| proxy.weather(None));
        if taken {
            *figures.faults.entry(step.fault.kind()).or_default() += 1;
        } else {
            whole.journal.note("  rejected: it can't be done here");
        }
        if step.weather.is_some() {
            *figures.faults.entry("bad sockets besides".to_owned()).or_default() += 1;
        }
        whole.publish();
        rested = step.settles;
        if rested {
            whole.settle()?;
        }
        let broken = whole.laws.all_broken();
        if !broken.is_empty() {
            return Err(format!("at step {number}"));
        }
    }
    whole.ask_for_all()
}

pub fn milliseconds(time: u64) {
    thread::sleep(Duration::from_millis(time));
}

/// Nodes move, and the registries say so.
pub fn moves(whole: &mut Whole, random: &mut Random) {
    whole.changes(random);
    whole.publish();
}

/// The fault, with the moves around it. False where this machine can't show it.
fn take(whole: &mut Whole, step: &Step, random: &mut Random) -> Result<bool, String> {
    match &step.fault {
        Fault::PowerCut => {
            moves(whole, random);
            whole.nudge();
            milliseconds(random.below(300) as u64);
            let all = 0..whole.gateways.len();
            whole.mapsmith.kill();
            for gateway in all.clone() {
                whole.laws.excused(gateway, Excuse::Down);
                whole.gateways[gateway].kill();
            }
            moves(whole, random);
            // Either may be there first.
            let mapsmith_first = random.chance(50);
            if mapsmith_first {
                whole.restart_mapsmith();
            }
            for gateway in all {
                whole.gateways[gateway].restart();
                whole.laws.closed(gateway, Excuse::Down);
            }
            if !mapsmith_first {
                whole.restart_mapsmith();
            }
        }
        Fault::GatewayKilled { instance, down } => whole.restart_gateway(*instance, |whole| {
            moves(whole, random);
            whole.nudge();
            milliseconds(*down);
        }),
        Fault::GatewayStopped { instance, time } => {
            moves(whole, random);
            whole.nudge();
            milliseconds(random.below(150) as u64);
            whole.gateways[*instance].stop_process();
            moves(whole, random);
            milliseconds(*time);
            whole.gateways[*instance].continue_process();
        }
        Fault::GatewayReloaded { instance } => {
            moves(whole, random);
            whole.nudge();
            milliseconds(random.below(300) as u64);
            whole.laws.excused(*instance, Excuse::Down);
            whole.gateways[*instance].reload();
            whole.laws.closed(*instance, Excuse::Down);
        }
        Fault::GatewayAged { instance, back, mapsmith } => {
            if !mapsmith {
                whole.mapsmith.kill();
            }
            let file = whole.older_file(*back).to_vec();
            whole.laws.excused(*instance, Excuse::Old);
            whole.restart_gateway(*instance, |whole| {
                whole
                    .laws
                    .replace_file(&whole.map_path(), &file)
                    .expect("the map's folder can be written");
            });
            if !mapsmith {
                whole.restart_mapsmith();
            }
        }
        Fault::MapsmithEnded { down } => {
            moves(whole, random);
            whole.nudge();
            milliseconds(random.below(200) as u64);
            let code = whole.mapsmith.sigterm();
            if code != 0 {
                return Err(format!("Mapsmith ended with {code} on SIGTERM"));
            }
            moves(whole, random);
            milliseconds(*down);
            whole.restart_mapsmith();
        }
        Fault::MapsmithKilledAtCommand { instance, command, nth, arrives } => {
            let proxy = &whole.proxies[*instance];
            if command.contains("map @") || command.ends_with("e map") || *command == "commit map" {
                stage_elsewhere(whole, *instance);
            }
            proxy.hold(command, *nth);
            moves(whole, random);
            whole.nudge();
            let proxy = &whole.proxies[*instance];
            let held = poll(MOMENT, || proxy.held());
            let line = held
                .as_ref()
                .map_or("no such command came", |held| held.line.get(..60).unwrap_or(&held.line));
            whole.journal.note(&format!("  killed at {line:?}"));
            whole.mapsmith.kill();
            if held.is_some() && *arrives {
                whole.proxies[*instance].forward();
            }
            whole.proxies[*instance].clear();
            whole.restart_mapsmith();
        }
        Fault::MapsmithKilledAtCall { call, nth } => {
            return Ok(killed_at_call(whole, random, call, *nth));
        }
        Fault::MapsmithKilledInFile { bytes } => {
            run(
                "prlimit",
                &["--pid", &whole.mapsmith.id().to_string(), &format!("--fsize={bytes}")],
            );
            moves(whole, random);
            whole.nudge_if_alive();
            let killed = poll(MOMENT, || whole.mapsmith.has_ended().then_some(())).is_some();
            whole.journal.note(if killed { "  it wrote beyond" } else { "  it wrote less" });
            whole.restart_mapsmith();
        }
        Fault::RestartInOutage { source, bad } => {
            outage::restart_in_outage(whole, random, *source, *bad)?
        }
        Fault::RegistryCreeps => guard::registry_creeps(whole, random)?,
        Fault::NodeFlaps => guard::node_flaps(whole, random)?,
        Fault::RegistryLies { source, version } => {
            outage::registry_lies(whole, random, *source, *version)?
        }
        Fault::MapFileFifo => map_file::map_file_fifo(whole, random)?,
        Fault::MapDiskHung => return map_file::map_disk_hung(whole, random),
        Fault::HalfRequests { clients } => crowd::half_requests(whole, random, *clients)?,
        Fault::SecondMapsmith { takes_over } => crowd::second_mapsmith(whole, random, *takes_over)?,
        Fault::RegistryBad { source, bad, restart } => {
            registry_bad(whole, random, *source, *bad, *restart)?
        }
        Fault::RegistrySlow { source, time } => {
            whole.changes(random);
            whole.publish();
            let body = Value::Object(whole.document(*source)).to_string();
            whole
                .registries
                .answers(&document(*source), Reply::Slow(body, Duration::from_millis(*time)));
            whole.nudge();
            milliseconds(*time);
        }
        Fault::RegistryOdd { source } => {
            whole.changes(random);
            whole.publish();
            let mut rows = whole.document(*source);
            for odd in ["two words", "#comment", "<<", "line\nbreak", "", "a;b\\ c", "\u{1}"] {
                rows.insert(odd.to_owned(), "m1".into());
            }
            rows.insert("of-two-words.example.test".to_owned(), "m1 m2".into());
            rows.insert("of-two-lines.example.test".to_owned(), "m1\nm2".into());
            whole
                .registries
                .answers(&document(*source), Reply::Whole(200, Value::Object(rows).to_string()));
            whole.nudge();
            whole
                .settles_on(&whole.expected())
                .map_err(|error| format!("among odd rows: {error}"))?;
        }
        Fault::RegistryOld { back } => return registry_old(whole, random, *back),
        Fault::ServerListBad { bad } => {
            let before = whole.photograph()?;
            whole
                .registries
                .answers("servers", bad_reply(*bad, &json!([{ "address": "127.0.0.1" }])));
            whole.nudge();
            told_bad(whole, &before, "servers", whole.site.sources, *bad)?;
        }
        Fault::Sockets { instance, percent, time, seed } => {
            let proxy = &whole.proxies[*instance];
            let before = proxy.suffered();
            proxy.weather(Some(Weather::new(*seed, *percent)));
            moves(whole, random);
            whole.nudge();
            milliseconds(*time);
            let proxy = &whole.proxies[*instance];
            proxy.weather(None);
            whole.journal.note(&format!("  {} commands suffered", proxy.suffered() - before));
        }
        Fault::SocketAbsent { instance, time } => {
            whole.proxies[*instance].absent(true);
            moves(whole, random);
            whole.nudge();
            milliseconds(*time);
            whole.proxies[*instance].absent(false);
        }
        Fault::MapDiskFull { killed } | Fault::MapDiskReadOnly { killed } => {
            if !whole.map_volume.is_own() {
                return Ok(false);
            }
            let full = matches!(step.fault, Fault::MapDiskFull { .. });
            map_file::map_disk(whole, random, full, *killed)?;
        }
        Fault::MapDiskBroken { call, which } => {
            return map_file::map_disk_broken(whole, random, call, which);
        }
        Fault::StoreDiskFull => {
            if !whole.store_volume.is_own() {
                return Ok(false);
            }
            whole.store_volume.fill();
            let ordered = (0..3).try_for_each(|_| whole.order(random, true));
            whole.store_volume.clear();
            ordered?;
            if random.chance(50) {
                whole.journal.note("  killed right after");
                whole.restart_mapsmith();
            }
        }
        Fault::Clock { seconds } => {
            if !whole.step_clock(*seconds) {
                return Ok(false);
            }
            moves(whole, random);
            whole.nudge();
        }
    }
    Ok(true)
}

pub fn document(source: usize) -> String {
    format!("{NODES}{source}")
}

/// Another tool stages an entry, so that what follows is a swap whatever it costs.
fn stage_elsewhere(whole: &Whole, instance: usize) {
    let gateway = &whole.gateways[instance];
    let map = gateway.map_path();
    let reply = gateway.command(&format!("prepare map {map}"));
    if let Some((_, version)) = reply.trim_end().rsplit_once(' ') {
        gateway.command(&format!("add map @{version} {map} staged-by-another-tool m1"));
    }
}

/// Has `strace` do something at such calls of Mapsmith; none where it can't.
/// Where there are `places`, only with calls that have to do with one of these files.
pub fn tracer(
    whole: &mut Whole,
    call: &str,
    places: &[&str],
    what: &str,
) -> Option<(Process, TempDir)> {
    let strace = find_program("strace")?.display().to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("strace.log");
    // Of one thing there are several calls, not all of them on every machine.
    let calls = if call == "rename" { "?rename,?renameat,?renameat2" } else { call };
    let (filter, inject) = (format!("trace={calls}"), format!("inject={calls}:{what}"));
    let id = whole.mapsmith.id().to_string();
    let mut command =
        vec![strace.as_str(), "-f", "-p", &id, "-o", "/dev/null", "-e", &filter, "-e", &inject];
    places.iter().for_each(|place| command.extend(["-P", *place]));
    let mut tracer = Process::start(&command, &log, Ending { signal: "TERM", remove: None });
    // Mapsmith may be killed, and the tracer be gone with it, before this sees it.
    let attached = poll(PATIENCE, || match tracer.log().contains("attached") {
        true => Some(true),
        false => tracer.exit_status().is_some().then_some(false),
    });
    if attached != Some(true) && !whole.mapsmith.has_ended() {
        static NOTE: Once = Once::new();
        NOTE.call_once(|| {
            println!(
                "strace can't attach here ({}): system calls don't fail here",
                tracer.log().trim()
            )
        });
        return None;
    }
    Some((tracer, folder))
}

fn killed_at_call(whole: &mut Whole, random: &mut Random, call: &str, nth: usize) -> bool {
    let Some(_tracer) = tracer(whole, call, &[], &format!("signal=SIGKILL:when={nth}")) else {
        return false;
    };
    moves(whole, random);
    whole.nudge_if_alive();
    let killed = poll(MOMENT, || whole.mapsmith.has_ended().then_some(())).is_some();
    whole.journal.note(if killed { "  killed there" } else { "  no such call came: killed now" });
    whole.restart_mapsmith();
    true
}

pub fn bad_reply(bad: Bad, right: &Value) -> Reply {
    let empty = if right.is_array() { json!([]) } else { json!({}) };
    let other = if right.is_array() { json!({ "a": "b" }) } else { json!([right]) };
    let text = right.to_string();
    match bad {
        Bad::Broken => Reply::Whole(500, "{\"error\": \"out of memory\"}".to_owned()),
        Bad::Page => Reply::Whole(200, "<html><body>Sign in</body></html>".to_owned()),
        Bad::Shape => Reply::Whole(200, other.to_string()),
        Bad::Empty => Reply::Whole(200, empty.to_string()),
        Bad::Part => {
            let third = |rows: &serde_json::Map<String, Value>| {
                let kept = rows.iter().enumerate().filter(|(number, _)| number % 3 == 0);
                Value::Object(
                    kept.map(|(_, (node, master))| (node.clone(), master.clone())).collect(),
                )
            };
            Reply::Whole(200, right.as_object().map_or(empty, third).to_string())
        }
        Bad::HalfText => Reply::Whole(200, text[..text.len() / 2].to_owned()),
        Bad::CutOff => {
            let half = text.len() / 2;
            Reply::Cut(text, half)
        }
        Bad::Hangs => Reply::Hang,
        Bad::Closes => Reply::Close,
    }
}

/// Waits until Mapsmith tells of a source's bad answer and has asked twice more, and sees that
/// nothing changes meanwhile.
pub fn told_bad(
    whole: &Whole,
    before: &Photograph,
    document: &str,
    source: usize,
    bad: Bad,
) -> Outcome {
    let (mut nudged, mut asked_when_told) = (0, None);
    whole.stays(before, &format!("{document} answered badly ({bad:?})"), |whole| {
        let status = whole.status();
        let told = match bad {
            Bad::Empty | Bad::Part => is_held(&status),
            _ => !status["sources"][source]["error"].is_null(),
        };
        let asked = whole.registries.asked(document);
        let first = match asked_when_told {
            Some(first) => first,
            None if told => *asked_when_told.insert(asked),
            None => return false,
        };
        if asked - first >= nudged && nudged < 2 {
            nudged += 1;
            whole.nudge();
        }
        told && asked - first >= 2
    })
}

fn registry_bad(
    whole: &mut Whole,
    random: &mut Random,
    source: usize,
    bad: Bad,
    restart: bool,
) -> Outcome {
    let before = whole.photograph()?;
    let right = Value::Object(whole.document(source));
    whole.registries.answers(&document(source), bad_reply(bad, &right));
    whole.nudge();
    told_bad(whole, &before, &document(source), source, bad)?;
    if restart {
        whole.journal.note("  restarted meanwhile");
        whole.restart_mapsmith();
        told_bad(whole, &before, &document(source), source, bad)?;
    }
    whole.changes(random);
    Ok(())
}

fn registry_old(whole: &mut Whole, random: &mut Random, back: usize) -> Result<bool, String> {
    let Some((older, held)) = whole.older_registry(back) else {
        moves(whole, random);
        return Ok(true);
    };
    whole.journal.note(if held { "  the guard must hold it" } else { "  the guard lets it pass" });
    let before = whole.photograph()?;
    (0..whole.gateways.len()).for_each(|gateway| whole.laws.excused(gateway, Excuse::Old));
    whole.publish_map(&older);
    whole.nudge();
    if held {
        let told = |whole: &Whole| is_held(&whole.status());
        whole.stays(&before, "the registry is back with old data", told)?;
    } else {
        whole
            .settles_on(&with_pins(&older, &whole.pins))
            .map_err(|error| format!("old data: {error}"))?;
    }
    whole.changes(random);
    Ok(true)
}
