//! Answers of an authority that are lost, or that refuse for a while: orders are counted, so none
//! is placed twice without need.

use std::fs;

use jiff::SignedDuration;

use super::by_dns::hook;
use super::{PATIENCE, Scene, Trust, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::{Acme, Plan};
use crate::support::acme_relay::AcmeRelay;

/// Where pebble takes new orders, and where it has them.
const NEW_ORDER: &str = "/order-plz";
const ORDER: &str = "/my-order/";
/// Where it is asked for an order's certificate.
const FINALIZE: &str = "/finalize-order/";
/// Has a hook wait until there is a file `go` beside it.
const WAIT: &str = "until [ -e \"${0%hook}go\" ]; do sleep 0.1; done\n";

/// A gateway with a certificate by DNS, and an authority behind a relay.
fn start(before_hook: &str, relayed: impl FnOnce(&AcmeRelay)) -> (Acme, AcmeRelay, Scene) {
    let newest = oldest_and_newest()[1];
    let ground = Ground::new(newest);
    // An answer that is lost must be that to an order, and not to a nonce.
    let acme = Plan::asks_at(1).refuses_nonces(0).start();
    let relay = AcmeRelay::start(newest, &acme);
    relayed(&relay);
    let settings = relay.settings(&acme) + &hook(ground.path(), &acme, before_hook);
    let scene = Scene::on(ground, &settings, "acme");
    (acme, relay, scene)
}

impl Scene {
    pub(super) fn wait_for_hook(&self) {
        self.managed.mapsmith.wait_for("the hook is called", PATIENCE, |_| {
            let calls = fs::read_to_string(self.file("calls")).ok()?;
            calls.contains("add").then_some(())
        });
    }

    /// From now on no order can be written down, as on a full disk, which holds up root too.
    fn lose_orders(&self) {
        let orders = self.file("acme/orders");
        fs::rename(&orders, self.file("aside")).expect("the folder can be written to");
        fs::write(&orders, "").expect("the folder can be written to");
    }
}

#[test]
fn a_crash_before_an_orders_answer_costs_one_order_and_a_crash_loop_costs_two() {
    let (acme, relay, mut scene) = start("", |relay| relay.lose_answers(NEW_ORDER));
    for crash in 1..=4 {
        let placed = crash.min(2);
        scene.managed.mapsmith.wait_for("the authority has an order", PATIENCE, |_| {
            (acme.orders() == placed).then_some(())
        });
        scene.managed.mapsmith.kill();
        scene.managed.mapsmith.restart();
        if crash > 1 {
            let error = scene.wait_for_error("Mapsmith has ended before the answers to 2 orders");
            assert!(error.contains("`mapsmith certificates renew`"), "{error}");
            assert!(scene.pause() > SignedDuration::from_mins(4), "it waits for minutes");
        }
    }
    assert_eq!(acme.orders(), 2, "{}", acme.log());
    relay.pass();
    assert_eq!(scene.renew().0, 202, "an operator may say that it is all right");
    scene.wait_for_trust(&acme);
    assert_eq!(acme.orders(), 3, "{}", acme.log());
    assert!(scene.certificate()["renewal"]["error"].is_null());
}

#[test]
fn answers_that_get_lost_are_no_reason_to_order_again_and_again() {
    let (acme, _relay, scene) = start("", |relay| relay.refuse(NEW_ORDER, 502, "none", 1));
    let told = scene.wait_for_certificate("it is tried twice", |it| it["renewal"]["failures"] == 2);
    let error = told["renewal"]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("the authority serves nobody: "), "{error}");
    assert!(scene.pause() > SignedDuration::from_mins(4), "each may have been counted");
    assert_eq!(acme.orders(), 0, "{}", acme.log());
}

#[test]
fn a_certificate_that_was_issued_at_a_crash_is_not_lost() {
    let (acme, relay, mut scene) = start("", |relay| relay.lose_answers(FINALIZE));
    scene.managed.mapsmith.wait_for("the authority has issued it", PATIENCE, |_| {
        (acme.certificates() == 1).then_some(())
    });
    scene.managed.mapsmith.kill();
    relay.pass();
    scene.managed.mapsmith.restart();
    scene.wait_for_trust(&acme);
    assert_eq!((acme.orders(), acme.certificates()), (1, 1), "{}", acme.log());
}

#[test]
fn no_certificate_is_asked_for_while_its_key_can_not_be_kept() {
    let (acme, _relay, scene) = start(WAIT, |_| {});
    scene.wait_for_hook();
    scene.lose_orders();
    fs::write(scene.file("go"), "").expect("the folder can be written to");
    let error = scene.wait_for_error(&scene.file("acme/orders").display().to_string());
    assert_eq!((acme.orders(), acme.certificates()), (1, 0), "{error}: {}", acme.log());
    fs::remove_file(scene.file("acme/orders")).expect("the folder can be written to");
    scene.wait_for_trust(&acme);
    assert_eq!((acme.orders(), acme.certificates()), (1, 1), "{}", acme.log());
}

#[test]
fn an_order_stays_where_the_authority_has_no_time_for_it() {
    let (acme, relay, mut scene) = start(WAIT, |_| {});
    scene.wait_for_hook();
    scene.managed.mapsmith.kill();
    relay.refuse(ORDER, 429, "rateLimited", 1);
    scene.managed.mapsmith.restart();
    let error = scene.wait_for_error("rateLimited");
    assert!(error.starts_with("the authority refuses: by the relay"), "{error}");
    assert!(scene.pause() > SignedDuration::from_mins(4), "it is left alone for minutes");
    relay.pass();
    fs::write(scene.file("go"), "").expect("the folder can be written to");
    scene.managed.mapsmith.wait_for("it takes an operator's word", PATIENCE, |_| {
        (scene.renew().0 == 202).then_some(())
    });
    scene.wait_for_trust(&acme);
    assert_eq!(acme.orders(), 1, "{}", acme.log());
}

#[test]
fn a_refusal_while_the_authority_looks_is_told_in_its_words_and_the_order_stays() {
    let (acme, relay, scene) = start(WAIT, |_| {});
    scene.wait_for_hook();
    relay.refuse(ORDER, 429, "rateLimited", 1);
    fs::write(scene.file("go"), "").expect("the folder can be written to");
    let error = scene.wait_for_error("the authority refuses");
    assert!(error.contains("by the relay") && error.contains("rateLimited"), "{error}");
    relay.pass();
    scene.managed.mapsmith.wait_for("it takes an operator's word", PATIENCE, |_| {
        (scene.renew().0 == 202).then_some(())
    });
    scene.wait_for_trust(&acme);
    assert_eq!(acme.orders(), 1, "{}", acme.log());
}

#[test]
fn an_account_that_the_authority_still_takes_is_not_given_up_for_a_refusal() {
    let (acme, relay, scene) = start("", |_| {});
    scene.wait_for_trust(&acme);
    let account = scene.account();
    let before = fs::read(&account).expect("it can be read");
    relay.refuse(NEW_ORDER, 403, "unauthorized", 1);
    assert_eq!(scene.renew().0, 202);
    let error = scene.wait_for_error("unauthorized");
    let advice = format!("if the account is at fault, remove {}", account.display());
    assert!(error.contains("by the relay") && error.ends_with(&advice), "{error}");
    assert_eq!(fs::read(&account).expect("it is still there"), before);
    relay.pass();
    scene.managed.mapsmith.wait_for("it takes an operator's word", PATIENCE, |_| {
        (scene.renew().0 == 202).then_some(())
    });
    scene.wait_for_certificate("it is renewed", |it| it["renewal"]["error"].is_null());
    assert_eq!(acme.orders(), 2, "{}", acme.log());
}

#[test]
fn nothing_is_ordered_while_an_order_could_not_be_written_down() {
    let (acme, _relay, scene) = start("", |_| {});
    scene.wait_for_trust(&acme);
    scene.lose_orders();
    assert_eq!(scene.renew().0, 202);
    let error = scene.wait_for_error(&scene.file("acme/orders").display().to_string());
    assert_eq!(acme.orders(), 1, "{error}: {}", acme.log());
    fs::remove_file(scene.file("acme/orders")).expect("the folder can be written to");
    scene.renew_to_the_end(&Trust::of(&acme.root()));
    assert_eq!(acme.orders(), 2, "{}", acme.log());
}
