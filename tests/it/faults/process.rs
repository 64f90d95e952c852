//! HAProxy and Mapsmith are killed, stopped, reloaded and started again.

use super::laws::Excuse;
use super::run::{MOMENT, milliseconds, moves, tracer};
use super::site::{Outcome, Whole};
use crate::support::random::Random;
use crate::support::{poll, run};

/// Every process goes at once, and nodes move before they are back.
pub fn power_cut(whole: &mut Whole, random: &mut Random) {
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

/// A gateway is frozen for so long.
pub fn gateway_stopped(whole: &mut Whole, random: &mut Random, instance: usize, time: u64) {
    moves(whole, random);
    whole.nudge();
    milliseconds(random.below(150) as u64);
    whole.gateways[instance].stop_process();
    moves(whole, random);
    milliseconds(time);
    whole.gateways[instance].continue_process();
}

/// A gateway gets a new worker while a change is on its way.
pub fn gateway_reloaded(whole: &mut Whole, random: &mut Random, instance: usize) {
    moves(whole, random);
    whole.nudge();
    milliseconds(random.below(300) as u64);
    whole.laws.excused(instance, Excuse::Down);
    whole.gateways[instance].reload();
    whole.laws.closed(instance, Excuse::Down);
}

/// A gateway is started again with an old map file, with Mapsmith running or not.
pub fn gateway_aged(whole: &mut Whole, instance: usize, back: usize, mapsmith: bool) {
    if !mapsmith {
        whole.mapsmith.kill();
    }
    let file = whole.older_file(back).to_vec();
    whole.laws.excused(instance, Excuse::Old);
    whole.restart_gateway(instance, |whole| {
        whole.laws.replace_file(&whole.map_path(), &file).expect("the map's folder can be written");
    });
    if !mapsmith {
        whole.restart_mapsmith();
    }
}

/// Mapsmith is asked to end, and is started again after so long.
pub fn mapsmith_ended(whole: &mut Whole, random: &mut Random, down: u64) -> Outcome {
    moves(whole, random);
    whole.nudge();
    milliseconds(random.below(200) as u64);
    let code = whole.mapsmith.sigterm();
    if code != 0 {
        return Err(format!("Mapsmith ended with {code} on SIGTERM"));
    }
    moves(whole, random);
    milliseconds(down);
    whole.restart_mapsmith();
    Ok(())
}

/// Mapsmith is killed while a command is on its way, which arrives or not.
pub fn killed_at_command(
    whole: &mut Whole,
    random: &mut Random,
    instance: usize,
    command: &str,
    nth: usize,
    arrives: bool,
) {
    let proxy = &whole.proxies[instance];
    if command.contains("map @") || command.ends_with("e map") || command == "commit map" {
        stage_elsewhere(whole, instance);
    }
    proxy.hold(command, nth);
    moves(whole, random);
    whole.nudge();
    let proxy = &whole.proxies[instance];
    let held = poll(MOMENT, || proxy.held());
    let line = held
        .as_ref()
        .map_or("no such command came", |held| held.line.get(..60).unwrap_or(&held.line));
    whole.journal.note(&format!("  killed at {line:?}"));
    whole.mapsmith.kill();
    if held.is_some() && arrives {
        whole.proxies[instance].forward();
    }
    whole.proxies[instance].clear();
    whole.restart_mapsmith();
}

/// Mapsmith is killed when it has written so many bytes of the map file.
pub fn killed_in_file(whole: &mut Whole, random: &mut Random, bytes: u64) {
    run("prlimit", &["--pid", &whole.mapsmith.id().to_string(), &format!("--fsize={bytes}")]);
    moves(whole, random);
    whole.nudge_if_alive();
    let killed = poll(MOMENT, || whole.mapsmith.has_ended().then_some(())).is_some();
    whole.journal.note(if killed { "  it wrote beyond" } else { "  it wrote less" });
    whole.restart_mapsmith();
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

pub fn killed_at_call(whole: &mut Whole, random: &mut Random, call: &str, nth: usize) -> bool {
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
