//! Authorities of other tempers: a certificate is issued in the end, and for each one order is
//! placed. With `MAPSMITH_TEST_LONG` they lose so many nonces that whole tries fail.

use super::{Scene, Trust, oldest_and_newest};
use crate::support::acme::Plan;

/// `validations` are those that a certificate, its renewal and another renewal take.
fn issues_in_the_end(plan: impl FnOnce(Plan) -> Plan, validations: usize) {
    let newest = oldest_and_newest()[1];
    let lost = if std::env::var_os("MAPSMITH_TEST_LONG").is_some() { 30 } else { 15 };
    let plan = |port| plan(Plan::asks_at(port).is_strict().refuses_nonces(lost));
    let (acme, scene) = Scene::start(newest, plan, "");
    scene.wait_for_trust(&acme);
    let trust = Trust::of(&acme.root());
    (0..2).for_each(|_| _ = scene.renew_to_the_end(&trust));
    assert_eq!(acme.orders(), 3, "{}", acme.log());
    assert_eq!(acme.validations(), validations, "{}", acme.log());
}

#[test]
fn a_strict_authority_that_asks_for_every_name_each_time_issues_and_so_do_lost_nonces() {
    issues_in_the_end(|plan| plan.reuses_authorizations(0), 6);
}

#[test]
fn a_strict_authority_that_remembers_names_issues_without_asking_again() {
    issues_in_the_end(|plan| plan.reuses_authorizations(100), 2);
}
