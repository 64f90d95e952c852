//! Renewals, with clients that connect all the time: a few here, and 20 on the oldest and the
//! newest HAProxy with `MAPSMITH_TEST_LONG`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{NAMES, PATIENCE, Scene, Trust, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::Plan;
use crate::support::haproxy::Binary;
use crate::support::{eventually, free_port, http};

/// How many connect at a time.
const CLIENTS: usize = 4;
/// Between two handshakes: all clients together make 1,000 a second, where the machine can.
const PACE: Duration = Duration::from_millis(1);

/// Clients that connect until they are stopped; each handshake is a full one.
struct Load<'a> {
    trust: &'a Trust,
    address: SocketAddr,
    begun: Instant,
    /// How many handshakes were begun.
    number: AtomicU32,
    stop: AtomicBool,
}

/// What they have seen.
#[derive(Default)]
struct Seen {
    certificates: BTreeSet<Vec<u8>>,
    /// The longest that one waited for its handshake and the answer.
    slowest: Duration,
}

impl<'a> Load<'a> {
    /// Has them connect while this is done, and prints how they fared. All must be answered.
    fn during(trust: &'a Trust, address: SocketAddr, what: &str, work: impl FnOnce(&Self)) -> Seen {
        let (number, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        let load = Self { trust, address, begun: Instant::now(), number, stop };
        let mut all = Seen::default();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| load.connect())).collect();
            work(&load);
            load.stop.store(true, Ordering::Relaxed);
            for client in clients {
                let seen = client.join().expect("it ends").expect("every handshake is good");
                all.certificates.extend(seen.certificates);
                all.slowest = all.slowest.max(seen.slowest);
            }
        });
        let (handshakes, seconds) = (load.number.into_inner(), load.begun.elapsed().as_secs_f64());
        println!(
            "{what}: {handshakes} full handshakes in {seconds:.1} s, {:.0} a second, none failed; \
                the slowest took {:.0?} with its answer",
            f64::from(handshakes) / seconds,
            all.slowest
        );
        all
    }

    fn connect(&self) -> Result<Seen, String> {
        let mut seen = Seen::default();
        while !self.stop.load(Ordering::Relaxed) {
            let due = self.begun + PACE * self.number.fetch_add(1, Ordering::Relaxed);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            let (_, certificate) = self.trust.connect(self.address, NAMES[0])?;
            seen.slowest = seen.slowest.max(begun.elapsed());
            seen.certificates.insert(certificate);
        }
        Ok(seen)
    }
}

/// `quiet` is how many handshakes are made before the first renewal.
fn renewals_under_load(binary: &'static Binary, renewals: usize, quiet: u32) {
    // No frontend listens there, so HAProxy opens one for the authority alone.
    let port = free_port();
    let acme = Plan::asks_at(port).refuses_nonces(10).start();
    let scene = Scene::at(Ground::new(binary), &acme.settings(), "acme", port);
    scene.wait_for_trust(&acme);
    let trust = Trust::of(&acme.root());
    Load::during(&trust, scene.secure, "no renewal", |load| {
        eventually("so many handshakes", PATIENCE, || {
            (load.number.load(Ordering::Relaxed) >= quiet).then_some(())
        });
    });
    let mut issued = BTreeSet::from([scene.served()]);
    let seen = Load::during(&trust, scene.secure, &format!("{renewals} renewals"), |_| {
        for _ in 0..renewals {
            issued.insert(scene.renew_to_the_end(&trust));
        }
    });
    assert_eq!(issued.len(), 1 + renewals);
    assert_eq!(seen.certificates, issued, "clients connected before and after each renewal");
    assert_eq!(scene.managed.reloads(), 0);
    let alone = http::request(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/word", &[], "");
    assert_eq!(alone.expect("it is open").status, 404, "nothing else is answered there");
    assert_eq!(acme.orders(), 1 + renewals);
}

#[test]
fn renewals_go_live_without_a_reload_or_one_failed_handshake_and_whatever_nonces_are_lost() {
    let [oldest, newest] = oldest_and_newest();
    if std::env::var_os("MAPSMITH_TEST_LONG").is_none() {
        return renewals_under_load(newest, 5, 100);
    }
    renewals_under_load(oldest, 20, 10_000);
    renewals_under_load(newest, 20, 10_000);
}
