//! Renewals, with clients that connect all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{NAMES, Scene, Trust, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::Plan;
use crate::support::{free_port, http};

/// How often the certificate is renewed.
const RENEWALS: usize = 5;

#[test]
fn a_renewal_goes_live_without_a_reload_or_one_failed_handshake_and_whatever_nonces_are_lost() {
    // No frontend listens there, so HAProxy opens one for the authority alone.
    let port = free_port();
    let acme = Plan::asks_at(port).refuses_nonces(10).start();
    let scene = Scene::at(Ground::new(oldest_and_newest()[1]), &acme.settings(), "acme", port);
    scene.wait_for_trust(&acme);
    let (stop, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let trust = Trust::of(&acme.root());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        trust.ask(scene.secure, NAMES[0])?;
                        handshakes.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        let mut files = vec![scene.served()];
        for _ in 0..RENEWALS {
            let (code, answer) = scene.renew();
            assert_eq!(code, 202, "{answer}");
            let before = files.last().cloned();
            let next = scene.managed.mapsmith.wait_for("there is another", super::PATIENCE, |_| {
                Some(scene.served()).filter(|text| Some(text) != before.as_ref())
            });
            files.push(next);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("it ends").expect("every handshake is good");
        }
    });
    let handshakes = handshakes.into_inner();
    println!("{handshakes} handshakes across {RENEWALS} renewals");
    assert!(handshakes > RENEWALS, "clients connected meanwhile");
    assert_eq!(scene.managed.reloads(), 0);
    let alone = http::request(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/word", &[], "");
    assert_eq!(alone.expect("it is open").status, 404, "nothing else is answered there");
    assert_eq!(acme.orders(), 1 + RENEWALS);
}

impl Scene {
    /// The file that HAProxy loads.
    fn served(&self) -> String {
        std::fs::read_to_string(self.file("certificates/site.pem")).expect("it is there")
    }
}
