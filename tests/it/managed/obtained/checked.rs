//! What is said of certificates before there are any.

use std::fs;

use super::{Ground, oldest_and_newest, settings};
use crate::support::acme::Plan;
use crate::support::free_port;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::printed;

#[test]
fn settings_can_be_checked_and_planned_before_anything_was_issued() {
    for binary in oldest_and_newest() {
        let ground = Ground::new(binary);
        let acme = Plan::asks_at(ground.web.port()).is_down().start();
        let secure = ([127, 0, 0, 1], free_port()).into();
        let settings = settings(&ground, &acme.settings(), "acme", ground.web.port(), secure);
        let config = Mapsmith::config(&settings);
        let (code, text) = printed(&config.cli(&["check"]));
        assert!(code == 0 && text.contains("1 certificate from https://"), "{text}");
        let (code, text) = printed(&config.cli(&["plan"]));
        assert!(code == 3 && !text.contains("refuses"), "{code}: {text}");
        assert!(!ground.file("certificates").exists(), "nothing was written");
        let ca = acme.folder().join("ca.pem");
        fs::remove_file(&ca).expect("it was there");
        let (code, text) = printed(&config.cli(&["check"]));
        assert!(code == 1 && text.contains("acme.ca: "), "{text}");
    }
}
