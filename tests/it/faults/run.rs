//! A run: the schedule's faults, one after the other, against the running whole.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::schedule::{Fault, Schedule, Step};
use super::site::{Journal, NODES, Outcome, Whole};
use super::{answers, crowd, guard, map_file, outage, process, rollout};
use crate::support::admin_proxy::Weather;
use crate::support::process::{Ending, Process};
use crate::support::random::Random;
use crate::support::{find_program, poll};

/// How long a moment is waited for that may not come: a change takes another way than the one that
/// was to be broken.
pub const MOMENT: Duration = Duration::from_secs(3);

/// Longer than a tracer takes to attach.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
    Err(told(seed, "", &broken, &figures.journal, &log))
}

/// All there is to say about a run that failed. `kind` is an option of `scripts/faults`.
pub fn told(seed: u64, kind: &str, broken: &[String], journal: &str, log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    format!(
        "seed {seed}: {}\n\nwhat happened when:\n{journal}\nMapsmith's log, its last \
            {LOG_LINES} lines:\n{last}\n\nreplay: scripts/faults {kind}--seed {seed}\n",
        broken.join("\n")
    )
}

pub fn words(panic: &(dyn std::any::Any + Send)) -> String {
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
        Fault::PowerCut => process::power_cut(whole, random),
        Fault::GatewayKilled { instance, down } => whole.restart_gateway(*instance, |whole| {
            moves(whole, random);
            whole.nudge();
            milliseconds(*down);
        }),
        Fault::GatewayStopped { instance, time } => {
            process::gateway_stopped(whole, random, *instance, *time);
        }
        Fault::GatewayReloaded { instance } => process::gateway_reloaded(whole, random, *instance),
        Fault::GatewayAged { instance, back, mapsmith } => {
            process::gateway_aged(whole, *instance, *back, *mapsmith);
        }
        Fault::MapsmithEnded { down } => process::mapsmith_ended(whole, random, *down)?,
        Fault::MapsmithKilledAtCommand { instance, command, nth, arrives } => {
            process::killed_at_command(whole, random, *instance, command, *nth, *arrives);
        }
        Fault::MapsmithKilledAtCall { call, nth } => {
            return Ok(process::killed_at_call(whole, random, call, *nth));
        }
        Fault::MapsmithKilledInFile { bytes } => process::killed_in_file(whole, random, *bytes),
        Fault::RestartInOutage { source, bad } => {
            outage::restart_in_outage(whole, random, *source, *bad)?
        }
        Fault::RegistryCreeps => guard::registry_creeps(whole, random)?,
        Fault::NodeFlaps => guard::node_flaps(whole, random)?,
        Fault::RolledBack { killed } => return rollout::rollback(whole, random, *killed),
        Fault::Canary { promote, killed } => {
            return rollout::canary(whole, random, *promote, *killed);
        }
        Fault::RegistryLies { source, version } => {
            outage::registry_lies(whole, random, *source, *version)?
        }
        Fault::MapFileFifo => map_file::map_file_fifo(whole, random)?,
        Fault::MapDiskHung => return map_file::map_disk_hung(whole, random),
        Fault::HalfRequests { clients } => crowd::half_requests(whole, random, *clients)?,
        Fault::SecondMapsmith { takes_over } => crowd::second_mapsmith(whole, random, *takes_over)?,
        Fault::RegistryBad { source, bad, restart } => {
            answers::registry_bad(whole, random, *source, *bad, *restart)?
        }
        Fault::RegistrySlow { source, time } => {
            answers::registry_slow(whole, random, *source, *time);
        }
        Fault::RegistryOdd { source } => answers::registry_odd(whole, random, *source)?,
        Fault::RegistryOld { back } => return answers::registry_old(whole, random, *back),
        Fault::ServerListBad { bad } => answers::server_list_bad(whole, *bad)?,
        Fault::Sockets { instance, percent, time, seed } => {
            sockets(whole, random, *instance, *time, Weather::new(*seed, *percent));
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
        Fault::StoreDiskFull => return store_disk_full(whole, random),
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

/// Commands are lost, late or cut for so long.
fn sockets(whole: &mut Whole, random: &mut Random, instance: usize, time: u64, weather: Weather) {
    let proxy = &whole.proxies[instance];
    let before = proxy.suffered();
    proxy.weather(Some(weather));
    moves(whole, random);
    whole.nudge();
    milliseconds(time);
    let proxy = &whole.proxies[instance];
    proxy.weather(None);
    whole.journal.note(&format!("  {} commands suffered", proxy.suffered() - before));
}

/// The store's disk is full for a few orders.
fn store_disk_full(whole: &mut Whole, random: &mut Random) -> Result<bool, String> {
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
    Ok(true)
}

pub fn document(source: usize) -> String {
    format!("{NODES}{source}")
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
