//! Mapsmith ends while an order is half done.

use std::fs;

use super::by_dns::hook;
use super::{PATIENCE, Scene, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::Plan;

#[test]
fn an_order_that_was_half_done_at_a_kill_is_gone_on_with_and_no_second_one_is_placed() {
    let ground = Ground::new(oldest_and_newest()[1]);
    let acme = Plan::asks_at(1).start();
    let (calls, go) = (ground.file("calls"), ground.file("go"));
    let before = format!("until [ -e {} ]; do sleep 0.1; done\n", go.display());
    let settings = format!("{}{}", acme.settings(), hook(ground.path(), &acme, &before));
    let mut scene = Scene::on(ground, &settings, "acme");
    scene.managed.mapsmith.wait_for("the hook is called", PATIENCE, |_| {
        fs::read_to_string(&calls).is_ok_and(|calls| calls.contains("add")).then_some(())
    });
    let (code, answer) = scene.renew();
    assert_eq!(code, 409, "no second order while one is in progress: {answer}");
    scene.managed.mapsmith.kill();
    scene.managed.mapsmith.restart();
    fs::write(&go, "").expect("the folder can be written to");
    scene.wait_for_trust(&acme);
    scene.managed.wait_for_log("going on with the order in progress");
    assert_eq!(acme.orders(), 1, "{}", acme.log());
}
