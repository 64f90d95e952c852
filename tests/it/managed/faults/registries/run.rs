//! A run: the schedule's faults, one after the other, while members come, go and move.

use std::thread;
use std::time::Duration;

use super::scene::{EMPTY, Scene};
use super::schedule::{Fault, Meanwhile, Schedule, Step};
use crate::faults::run::Figures;
use crate::faults::site::Outcome;
use crate::managed::faults::processes::{family, signal};
use crate::managed::faults::run::{change, run};
use crate::managed::faults::schedule::{Change, Fault as OfProcesses, Moment};
use crate::managed::faults::strike::Before;
use crate::support::random::Random;
use crate::support::tcp_proxy::Line;

/// Runs a seed's schedule.
///
/// # Errors
/// All there is to say about the law that was broken.
pub fn run_seed(seed: u64) -> Result<Figures, String> {
    let schedule = Schedule::of(seed);
    let start = |journal: &_| Scene::start(&schedule.site, journal);
    run(seed, "--registries ", start, |scene, figures| take_steps(scene, &schedule, figures))
}

fn take_steps(scene: &mut Scene, schedule: &Schedule, figures: &mut Figures) -> Outcome {
    scene.settle(figures)?;
    let mut rested = true;
    for (number, step) in schedule.steps.iter().enumerate() {
        scene.whole.journal.note(&format!("step {number}: {step:?}"));
        let taken = take(scene, step, rested).and_then(|()| {
            *figures.faults.entry(step.fault.kind()).or_default() += 1;
            if let Some(meanwhile) = step.meanwhile {
                *figures.faults.entry(meanwhile.kind()).or_default() += 1;
            }
            if step.settles { scene.settle(figures) } else { Ok(()) }
        });
        taken.map_err(|error| format!("step {number}: {error}"))?;
        rested = step.settles;
        if scene.whole.mapsmith.has_ended() {
            return Err(format!("step {number}: Mapsmith ended by itself"));
        }
        if !scene.whole.laws.all_broken().is_empty() {
            return Err(format!("at step {number}"));
        }
    }
    Ok(())
}

fn take(scene: &mut Scene, step: &Step, rested: bool) -> Outcome {
    let mut random = Random::new(step.seed);
    match step.fault {
        Fault::Nothing => with_changes(scene, step, &mut random, |_| {}),
        Fault::ConnectionsClosed => {
            with_changes(scene, step, &mut random, |scene| scene.proxy.set(Line::Good));
        }
        Fault::LineCut { bytes, time } => {
            spoilt(scene, step, &mut random, time, |scene| scene.proxy.set(Line::CutAfter(bytes)));
        }
        Fault::LineGarbled { bytes, time } => {
            let line = Line::GarbledFrom(bytes);
            spoilt(scene, step, &mut random, time, |scene| scene.proxy.set(line));
        }
        Fault::LineSilent { bytes, time } => {
            let line = Line::SilentAfter(bytes);
            spoilt(scene, step, &mut random, time, |scene| scene.proxy.set(line));
        }
        Fault::Silence { time } => {
            spoilt(scene, step, &mut random, time, |scene| scene.proxy.silence());
        }
        Fault::SessionLost => {
            scene.unseen(|scene| {
                scene.changes(&mut random);
                scene.registry.forget();
            });
            with_changes(scene, step, &mut random, |_| {});
        }
        Fault::Killed { down } => {
            scene.registry.kill();
            absent(scene, step, rested, &mut random, down)?;
            scene.registry.restart();
            scene.changes(&mut random);
        }
        Fault::Stopped { time } => {
            scene.registry.signal("STOP");
            let outcome = absent(scene, step, rested, &mut random, time);
            scene.registry.signal("CONT");
            outcome?;
            scene.changes(&mut random);
        }
        Fault::Emptied { at_once } => emptied(scene, step, rested && at_once, &mut random)?,
        Fault::Shrunk { approved } => shrunk(scene, step, rested, approved, &mut random)?,
        Fault::Lost => lost(scene, step, rested, &mut random)?,
        Fault::Refused { told } => refused(scene, step, rested, told, &mut random)?,
    }
    Ok(())
}

/// Something happens at once, between changes.
fn with_changes(
    scene: &mut Scene,
    step: &Step,
    random: &mut Random,
    fault: impl FnOnce(&mut Scene),
) {
    scene.changes(random);
    fault(scene);
    meanwhile(scene, step, random);
    scene.changes(random);
}

/// Something lasts for so long, and ends with new connections.
fn spoilt(
    scene: &mut Scene,
    step: &Step,
    random: &mut Random,
    time: u64,
    fault: impl FnOnce(&mut Scene),
) {
    scene.changes(random);
    fault(scene);
    scene.changes(random);
    meanwhile(scene, step, random);
    pause(time);
    scene.proxy.set(Line::Good);
    scene.changes(random);
}

/// The registry answers nobody.
fn absent(scene: &mut Scene, step: &Step, rested: bool, random: &mut Random, time: u64) -> Outcome {
    let before = scene.whole.app.listed.clone();
    meanwhile(scene, step, random);
    pause(time);
    if random.chance(50) {
        scene.reload();
        scene.is_told(&scene.proxy.address().to_string())?;
    }
    if rested { scene.is_unchanged(&before) } else { Ok(()) }
}

/// Why a list is held that lost too much.
const TOO_MANY: &str = "guard.max_removed";

/// Nothing is listed, which is held; then something is again.
fn emptied(scene: &mut Scene, step: &Step, at_once: bool, random: &mut Random) -> Outcome {
    let before = scene.whole.app.listed.clone();
    let after = scene.some_members(random);
    if at_once {
        scene.unseen(|scene| scene.empty(false));
    } else {
        // What Mapsmith sees of it is shorter and shorter.
        scene.empty(true);
    }
    scene.is_held(EMPTY)?;
    meanwhile(scene, step, random);
    if step.meanwhile.is_some() {
        scene.is_held(EMPTY)?;
    }
    if at_once {
        scene.is_unchanged(&before)?;
    }
    scene.refill(after);
    Ok(())
}

/// So much is gone that it is held. Where that was approved before, all comes back.
fn shrunk(
    scene: &mut Scene,
    step: &Step,
    rested: bool,
    approved: bool,
    random: &mut Random,
) -> Outcome {
    if scene.has_shrunk() {
        // So few are exempt from the guard's percentages.
        scene.grow();
        meanwhile(scene, step, random);
        return Ok(());
    }
    let before = (scene.whole.app.listed.clone(), scene.members());
    scene.unseen(|scene| scene.shrink(random));
    scene.is_held(TOO_MANY)?;
    meanwhile(scene, step, random);
    let id = scene.is_held(TOO_MANY)?;
    if rested {
        scene.is_unchanged(&before.0)?;
    }
    if approved {
        scene.hears();
        scene.approve(&id)?;
    } else {
        scene.unseen(|scene| scene.lists(before.1, true));
    }
    Ok(())
}

/// The registry comes back with nothing: whatever it says, servers stay until it lists some again.
fn lost(scene: &mut Scene, step: &Step, rested: bool, random: &mut Random) -> Outcome {
    let before = scene.whole.app.listed.clone();
    let after = scene.some_members(random);
    scene.registry.restart_empty();
    scene.is_told_or_held(scene.registry.complaints()[1])?;
    meanwhile(scene, step, random);
    if rested {
        scene.is_unchanged(&before)?;
    }
    scene.refill(after);
    scene.reload();
    Ok(())
}

/// Mapsmith may not read, and hears nothing of what changes.
fn refused(
    scene: &mut Scene,
    step: &Step,
    rested: bool,
    told: bool,
    random: &mut Random,
) -> Outcome {
    let before = scene.whole.app.listed.clone();
    scene.registry.refuse();
    let complaint = scene.registry.complaints()[0];
    scene.reload_says(complaint)?;
    let after = scene.some_members(random);
    scene.lists(after, false);
    meanwhile(scene, step, random);
    scene.is_told(complaint)?;
    if rested {
        scene.is_unchanged(&before)?;
    }
    scene.hears();
    scene.registry.allow();
    if told {
        scene.reload();
    }
    scene.changes(random);
    Ok(())
}

fn meanwhile(scene: &mut Scene, step: &Step, random: &mut Random) {
    let whole = &mut scene.whole;
    let delay = random.below(150) as u64;
    match step.meanwhile {
        None => {}
        Some(Meanwhile::MapsmithKilled { down }) => {
            let before = Before::now(whole);
            whole.strike(&before, Moment::After(delay), OfProcesses::MapsmithKilled { down });
            whole.restart_mapsmith();
        }
        Some(Meanwhile::HaproxyReloaded) => {
            pause(delay);
            change(whole, Change::Word, true, random);
        }
        Some(Meanwhile::HaproxySignalled) => {
            pause(delay);
            let masters = family(whole.volume.path()).masters;
            masters.iter().for_each(|master| {
                signal("USR2", *master);
            });
        }
    }
}

fn pause(time: u64) {
    thread::sleep(Duration::from_millis(time));
}
