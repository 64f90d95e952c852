//! HAProxy is reloaded while an authority is to be answered.

use std::fs;
use std::net::TcpListener;

use super::{PATIENCE, Scene, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::Plan;

#[test]
fn what_an_authority_is_answered_outlives_a_reload_of_haproxy() {
    let ground = Ground::new(oldest_and_newest()[0]);
    let port = ground.web.port();
    // Whoever asks there waits: so Mapsmith does, for the answer to its own question.
    let silent = TcpListener::bind(("127.0.0.9", port)).expect("nobody listens there");
    let acme = Plan::asks_at(port).start();
    acme.names_lead_to("127.0.0.9");
    let scene = Scene::on(ground, &acme.settings(), "acme");
    let open = || -> Option<(String, String)> {
        let text = fs::read_to_string(scene.file("challenges.map")).ok()?;
        let (token, answer) = text.lines().next()?.split_once(' ')?;
        Some((token.to_owned(), answer.to_owned()))
    };
    let asked = |token: &str| {
        let path = format!("/.well-known/acme-challenge/{token}");
        scene.managed.ground.get(&path).map(|response| (response.status, response.body))
    };
    let reloaded = scene.managed.mapsmith.wait_for("an answer is open all along", PATIENCE, |it| {
        let (token, answer) = open()?;
        asked(&token).filter(|(_, body)| *body == answer)?;
        let output = it.configuration().cli(&["haproxy", "reload"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let after = asked(&token);
        // Otherwise it was given up meanwhile, and says nothing.
        (open()? == (token, answer.clone())).then_some((after, answer))
    });
    let (after, answer) = reloaded;
    assert_eq!(after, Some((200, answer)));
    assert!(scene.managed.ground.reloads() > 0);
    assert_ne!(asked("unknown").map(|(status, _)| status), Some(200));
    drop(silent);
}
