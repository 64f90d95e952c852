//! A run: the schedule's changes and faults, one after the other, against the running whole.

use std::fs;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mapsmith_core::render::stamp::{self, Stamp};
use serde_json::Value;

use super::laws::Excuse;
use super::processes::{accepts, family};
use super::schedule::{Change, Schedule, Step};
use super::site::{
    App, Declared, Flaw, Whole, ask, bad_certificate, servers_in, serves, taken_port,
};
use super::strike::Before;
use crate::faults::run::{Figures, told, words};
use crate::faults::site::{Journal, Outcome};
use crate::support::master::Master;
use crate::support::poll;
use crate::support::random::Random;

/// Within this all is in force, or refused, after a fault: Mapsmith tries again after at most half
/// a minute.
const SETTLED: Duration = Duration::from_secs(90);
/// As long as nobody says otherwise.
const MOST_OLD_WORKERS: usize = 8;

/// Runs a seed's schedule.
///
/// # Errors
/// All there is to say about the law that was broken.
pub fn run_seed(seed: u64) -> Result<Figures, String> {
    let schedule = Schedule::of(seed);
    let start = |journal: &Journal| {
        let beside = tempfile::tempdir().expect("a temporary folder");
        let app = App::in_file(beside.path());
        Whole::start(schedule.site.clone(), app, beside, journal)
    };
    run(seed, "--managed ", start, |whole, figures| take_steps(whole, &schedule, figures))
}

/// Starts something that runs, takes steps with it, and tells what broke. `kind` is an option of
/// `scripts/faults`.
///
/// # Errors
/// All there is to say about the law that was broken.
pub fn run<R: AsMut<Whole>>(
    seed: u64,
    kind: &str,
    start: impl FnOnce(&Journal) -> R,
    take_steps: impl FnOnce(&mut R, &mut Figures) -> Outcome,
) -> Result<Figures, String> {
    let began = Instant::now();
    let journal = Journal::new();
    let mut figures = Figures::default();
    let mut log = String::new();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut running = start(&journal);
        // Caught here, where Mapsmith's log is still there.
        let outcome = catch_unwind(AssertUnwindSafe(|| take_steps(&mut running, &mut figures)));
        let whole = running.as_mut();
        figures.requests = whole.laws.requests();
        let mut broken = whole.laws.all_broken();
        match outcome {
            Ok(Ok(())) => broken.extend(whole.clients.blind()),
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
    match broken.is_empty() {
        true => Ok(figures),
        false => Err(told(seed, kind, &broken, &figures.journal, &log)),
    }
}

fn take_steps(whole: &mut Whole, schedule: &Schedule, figures: &mut Figures) -> Outcome {
    whole.settle(figures)?;
    let mut rested = true;
    for (number, step) in schedule.steps.iter().enumerate() {
        whole.journal.note(&format!("step {number}: {step:?}"));
        take(whole, step, rested, figures).map_err(|error| format!("step {number}: {error}"))?;
        rested = step.settles;
        if whole.mapsmith.has_ended() {
            return Err(format!("step {number}: Mapsmith ended by itself"));
        }
        if !whole.laws.all_broken().is_empty() {
            return Err(format!("at step {number}"));
        }
    }
    Ok(())
}

fn take(whole: &mut Whole, step: &Step, rested: bool, figures: &mut Figures) -> Outcome {
    let mut random = Random::new(step.seed);
    if step.change.is_refused() {
        return take_refused(whole, step, &mut random, figures);
    }
    let before = Before::now(whole);
    let edited = change(whole, step.change, rested, &mut random);
    strike_all(whole, step, &before, figures);
    whole.restart_mapsmith();
    whole.wait_for_service()?;
    if step.settles {
        whole.settle(figures)?;
        if let Some(edited) = edited {
            whole.laws.closed(Excuse::Edited);
            is_kept(whole, &edited)?;
        }
    }
    Ok(())
}

fn strike_all(whole: &mut Whole, step: &Step, before: &Before, figures: &mut Figures) {
    for (moment, fault) in &step.faults {
        match whole.strike(before, *moment, *fault) {
            true => *figures.faults.entry(fault.kind()).or_default() += 1,
            false => whole.journal.note(&format!("  rejected: {fault:?} can't be done here")),
        }
    }
}

/// Makes a change; the word of an edit.
pub fn change(
    whole: &mut Whole,
    change: Change,
    rested: bool,
    random: &mut Random,
) -> Option<String> {
    let word = whole.new_word();
    match change {
        Change::Servers => {
            let masters = &whole.app.masters;
            let mut listed: Vec<_> = masters.iter().filter(|_| random.chance(60)).collect();
            if listed.is_empty() {
                listed.push(random.pick(masters));
            }
            let row = |master: &&Master| (master.name().to_owned(), master.address());
            whole.app.listed = listed.iter().map(row).collect();
            whole.app.write_list(whole.beside.path());
            return None;
        }
        // Only what is in force can be told from what Mapsmith is about to replace.
        Change::Edit if rested => {
            let path = whole.file("haproxy.cfg");
            let text = fs::read_to_string(&path).expect("HAProxy's file");
            let text = text.replace(&whole.declared.word, &word);
            whole.laws.allow(&word);
            whole.laws.excused(Excuse::Edited);
            let new = whole.file("edit");
            fs::write(&new, &text).expect("the folder can be written");
            fs::rename(new, path).expect("the folder can be written");
            return Some(word);
        }
        Change::Frontend => whole.declared.other = !whole.declared.other,
        Change::Rules => {
            whole.declared.rule = match whole.declared.rule {
                Some(_) if random.chance(50) => None,
                _ => Some(format!("r{word}")),
            };
        }
        _ => {}
    }
    whole.declared.word = word;
    whole.laws.allow(&whole.declared.word.clone());
    let declared = whole.declared.clone();
    whole.write(&declared, &Flaw::default());
    None
}

/// A change that changes nothing, and after it a good one.
fn take_refused(
    whole: &mut Whole,
    step: &Step,
    random: &mut Random,
    figures: &mut Figures,
) -> Outcome {
    // Of what is in force: a good change may have been due still.
    whole.settle(figures)?;
    let word = whole.new_word();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let bad = Declared { word, ..whole.declared.clone() };
    let template = whole.beside.path().join("haproxy.cfg.j2");
    let certificate = whole.beside.path().join(format!("{}.pem", bad.word));
    let with_template = |text: &str| {
        fs::write(&template, text).expect("a template");
        Flaw {
            haproxy: format!("template = {template:?}\n"),
            named: "haproxy.template".to_owned(),
            ..Flaw::default()
        }
    };
    let native = "[\"no-such-keyword yes\"]";
    let (flaw, is_unread) = match step.change {
        Change::BadNative { frontend: true } => {
            let (frontend, named) =
                (format!("natives = {native}\n"), "frontend[0].natives[0]".to_owned());
            (Flaw { frontend, named, ..Flaw::default() }, false)
        }
        Change::TakenPort => (taken_port(&taken), false),
        Change::BadCertificate { is_there } => (bad_certificate(&certificate, is_there), false),
        Change::BadTemplate { syntax: true } => (with_template("{{ rendered"), true),
        Change::BadTemplate { syntax: false } => {
            let named = template.display().to_string();
            (Flaw { named, ..with_template("{{ rendered }}\n{{ nope }}\n") }, false)
        }
        Change::BadSettings => {
            let (haproxy, named) = ("maxconn = \"many\"\n".to_owned(), "maxconn".to_owned());
            (Flaw { haproxy, named, ..Flaw::default() }, true)
        }
        _ => {
            let (haproxy, named) = (format!("global = {native}\n"), "haproxy.global[0]".to_owned());
            (Flaw { haproxy, named, ..Flaw::default() }, false)
        }
    };
    let log = whole.mapsmith.log().len();
    let before = Before::now(whole);
    whole.write(&bad, &flaw);
    strike_all(whole, step, &before, figures);
    if is_unread {
        whole.is_told(&flaw, log)?;
    } else {
        whole.restart_mapsmith();
        whole.wait_for_service()?;
        whole.is_refused(&flaw)?;
    }
    whole.journal.note("  and the next good change");
    if random.chance(50) {
        change(whole, Change::Frontend, true, random);
    } else {
        change(whole, Change::Word, true, random);
    }
    whole.restart_mapsmith();
    whole.wait_for_service()?;
    whole.settle(figures)?;
    drop(taken);
    Ok(())
}

fn is_kept(whole: &Whole, edited: &str) -> Outcome {
    let files = fs::read_dir(whole.file("edited")).into_iter().flatten().flatten();
    let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    match texts.any(|text| text.contains(edited)) {
        true => Ok(()),
        false => Err(format!("the edit with {edited:?} is not kept aside")),
    }
}

impl Whole {
    /// Waits until what is declared is in force, and nothing else is there.
    pub fn settle(&mut self, figures: &mut Figures) -> Outcome {
        let began = Instant::now();
        let mut missing = String::new();
        let settled = poll(SETTLED, || match self.missing() {
            _ if self.mapsmith.has_ended() => Some(false),
            Some(what) => {
                missing = what;
                None
            }
            None => Some(true),
        });
        figures.longest = figures.longest.max(began.elapsed());
        match settled {
            Some(true) => {}
            Some(false) => return Err("Mapsmith ended by itself".to_owned()),
            None => return Err(format!("{SETTLED:?} after the faults {missing}")),
        }
        self.journal.note(&format!("  in force after {:.1} s", began.elapsed().as_secs_f64()));
        self.laws.only(&self.declared.word);
        self.laws.closed(Excuse::Unheld);
        accepts(&self.binary.path, &self.file("haproxy.cfg"))
            .map_err(|said| format!("the file in force is refused: {said}"))
    }

    /// What is not yet as it should be in the end.
    fn missing(&self) -> Option<String> {
        let Some(status) = self.status() else { return Some("the API answers nobody".to_owned()) };
        let Declared { word, rule, other } = &self.declared;
        if status["state"]["state"] != "in_force" {
            return Some(format!("status is not in_force: {status}"));
        }
        for (address, path, expected) in [
            (self.web, "/word", Some(word)),
            (self.other, "/word", other.then_some(word)),
            (self.web, "/rule", rule.as_ref()),
        ] {
            let answer = ask(address, path);
            let is_server = path == "/rule" && expected.is_none();
            if answer.as_ref() != expected && !is_server {
                return Some(format!("{address}{path} answers {answer:?}, not {expected:?}"));
            }
        }
        self.missing_in_files(&status).or_else(|| self.missing_processes(&status))
    }

    fn missing_in_files(&self, status: &Value) -> Option<String> {
        let text = fs::read(self.file("haproxy.cfg")).unwrap_or_default();
        let loaded = status["loaded"].as_str().unwrap_or_default().to_owned();
        let stamp = stamp::read(&text);
        if stamp != (Stamp::Whole { mark: loaded.clone() }) {
            return Some(format!("the process has loaded {loaded:?}, and the file is {stamp:?}"));
        }
        let wanted = &self.app.listed;
        let servers: Vec<_> = servers_in(&String::from_utf8_lossy(&text)).into_keys().collect();
        if !servers.iter().eq(wanted.keys()) {
            return Some(format!("the file has the servers {servers:?}, not {wanted:?}"));
        }
        let known = self.servers().unwrap_or_default();
        if !serves(&known, wanted) {
            return Some(format!("HAProxy has the servers {known:?}, not {wanted:?}"));
        }
        let folders = ["", "candidate", "last-good"].map(|name| self.file(name));
        let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok());
        let mut left = files.flatten().flatten().map(|file| file.path());
        left.find(|path| path.to_string_lossy().ends_with(".tmp"))
            .map(|path| format!("{} is left", path.display()))
    }

    fn missing_processes(&self, status: &Value) -> Option<String> {
        let family = family(self.volume.path());
        let master = family.masters.first().copied();
        let told = status["process"]["master_pid"].as_u64();
        if family.masters.len() != 1 || told != master.map(u64::from) {
            return Some(format!("status tells of the master {told:?}, and there are {family:?}"));
        }
        if !family.checks.is_empty() || family.workers.len() > MOST_OLD_WORKERS + 1 {
            return Some(format!("processes are left: {family:?}"));
        }
        let lock = fs::File::open(self.file("lock")).ok()?;
        lock.try_lock().err().map(|_| "the lock is held".to_owned())
    }

    /// Waits until Mapsmith says that it is refused, and why, with the last good one in force.
    fn is_refused(&mut self, flaw: &Flaw) -> Outcome {
        let mut seen = String::new();
        let told = poll(SETTLED, || {
            let status = self.status()?;
            let text = status.to_string();
            let loaded = status["loaded"].as_str().unwrap_or_default().to_owned();
            let in_place = fs::read(self.file("haproxy.cfg")).ok()?;
            let is_good = stamp::read(&in_place) == Stamp::Whole { mark: loaded };
            let is_told = status["state"]["state"] == "refused" && text.contains(&flaw.named);
            seen = text;
            (is_told && is_good).then_some(())
        });
        told.ok_or_else(|| {
            format!("{SETTLED:?} after the faults nothing says {:?} is refused: {seen}", flaw.named)
        })?;
        self.serves_the_last_good_one()
    }

    /// Of settings that can't be read: the log says so, and so does `mapsmith check`.
    fn is_told(&mut self, flaw: &Flaw, log: usize) -> Outcome {
        let checked = self.mapsmith.configuration().cli(&["check"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        if checked.status.success() || !said.contains(&flaw.named) {
            return Err(format!("`mapsmith check` does not name {:?}: {checked:?}", flaw.named));
        }
        // It would not start with them.
        if self.is_down {
            return Ok(());
        }
        let told = poll(SETTLED, || {
            let now = self.mapsmith.log();
            let now = now.get(log..).unwrap_or_default();
            (now.contains("the settings in force stay so") && now.contains(&flaw.named))
                .then_some(())
        });
        told.ok_or_else(|| format!("the log does not name {:?}", flaw.named))?;
        self.wait_for_service()?;
        self.serves_the_last_good_one()
    }

    fn serves_the_last_good_one(&self) -> Outcome {
        let answer = ask(self.web, "/word");
        match answer.as_ref() == Some(&self.declared.word) {
            true => Ok(()),
            false => Err(format!("{answer:?} is answered, not {:?}", self.declared.word)),
        }
    }
}
