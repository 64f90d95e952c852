//! Answers of an authority that are lost, or that refuse for a while: orders are counted, so none
//! is placed twice without need.

use std::fs;

use super::by_dns::hook;
use super::{PATIENCE, Scene, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::{Acme, Plan};
use crate::support::acme_relay::AcmeRelay;

/// Where pebble takes new orders.
const NEW_ORDER: &str = "/order-plz";

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
