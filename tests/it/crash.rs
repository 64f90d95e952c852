//! HAProxy or Mapsmith killed at the worst moment: afterwards everything holds the registry's map,
//! and no older route returns.

use std::fs;
use std::path::Path;
use std::time::Duration;

use haproxy_runtime::{MapClient, MapName, RuntimeClient};
use mapsmith::instance::apply::{self, Timings};
use mapsmith_core::EntryMap;
use mapsmith_core::plan::{Edit, EditCounts};

use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Gateway, installed};
use crate::support::load::Load;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{
    BOUND, borrowed, in_sync, map_file, memory, metric, oldest_and_newest, reload,
};
use crate::support::site::{CALM, Nodes, Site, alternating, file_revision};
use crate::support::{eventually, run};

/// What a process gets that writes past the size a file may have.
const SIGXFSZ: i32 = 25;

/// The moments of a swap: the command that is about to arrive.
const MOMENTS: [(&str, usize); 4] =
    [("prepare map", 1), ("add map @", 3), ("show map @", 1), ("commit map", 1)];

fn two_maps() -> [Nodes; 2] {
    [alternating(400, 0), alternating(400, 1)]
}

#[test]
fn a_gateway_killed_in_the_middle_of_a_swap_comes_back_with_the_new_map() {
    for binary in installed() {
        let maps = two_maps();
        let mut site = Site::start(binary, &maps[0]);
        let mapsmith = site.mapsmith();
        for (round, (command, nth)) in MOMENTS.into_iter().enumerate() {
            let (old, new) = (&maps[round % 2], &maps[(round + 1) % 2]);
            site.proxy.hold(command, nth);
            site.change(&mapsmith, new);
            site.proxy.wait_held();
            assert_eq!(memory(&site.gateway), *old, "before {command}");
            assert_eq!(map_file(&site.gateway), *new, "before {command}: the file comes first");
            site.gateway.kill();
            site.proxy.lose();
            site.gateway.restart();
            assert_eq!(memory(&site.gateway), *new, "killed at {command}, it loaded the new map");
            site.converges(&mapsmith, new);
            assert_eq!(site.route("n000000"), new[0].1);
            assert_eq!(file_revision(&site.gateway), round as u64 + 2);
        }
    }
}

#[test]
fn a_worker_reloaded_in_the_middle_of_a_swap_ends_with_the_new_map() {
    for binary in installed() {
        let maps = two_maps();
        let mut site = Site::planned(binary, &maps[0], |plan| plan.master_worker());
        let mapsmith = site.mapsmith();
        for (round, (command, nth)) in MOMENTS.into_iter().enumerate() {
            let new = &maps[(round + 1) % 2];
            site.proxy.hold(command, nth);
            site.change(&mapsmith, new);
            site.proxy.wait_held();
            site.gateway.reload();
            // What was meant for the old worker reaches the new one.
            site.proxy.forward();
            site.converges(&mapsmith, new);
            assert_eq!(site.route("n000001"), new[1].1);
        }
        // And right after a change that Mapsmith has reported done.
        site.registry.knows(&borrowed(&maps[1]));
        reload(&mapsmith);
        site.gateway.reload();
        assert_eq!(memory(&site.gateway), maps[1]);
        site.converges(&mapsmith, &maps[1]);
    }
}

/// Kills Mapsmith at a moment of the change from `old` to `new` while a client asks, and starts it
/// again.
fn kill_and_restart(
    site: &Site,
    mapsmith: &mut Mapsmith,
    maps: (&Nodes, &Nodes),
    kill: impl FnOnce(&mut Mapsmith),
) {
    let (old, new) = maps;
    let revision = file_revision(&site.gateway);
    let load = Load::start(site.gateway.http_address(), &["n000000".to_owned()], 1);
    kill(mapsmith);
    assert!(file_revision(&site.gateway) >= revision, "the revision's number never goes back");
    mapsmith.restart();
    in_sync(mapsmith);
    site.converges(mapsmith, new);
    assert_eq!(
        file_revision(&site.gateway),
        revision + 1,
        "one change is one revision, killed or not"
    );
    let seen = load.answered();
    eventually("the client gets answers after the restart", BOUND, || {
        (load.answered() > seen + 20).then_some(())
    });
    let answers: Vec<_> =
        load.stop().into_iter().map(|answer| (answer.status, answer.master)).collect();
    let first_new = answers
        .iter()
        .position(|answer| *answer == (200, new[0].1.clone()))
        .expect("the new route is seen");
    assert!(
        answers[..first_new].iter().all(|answer| *answer == (200, old[0].1.clone())),
        "{answers:?}"
    );
    assert!(
        answers[first_new..].iter().all(|answer| *answer == (200, new[0].1.clone())),
        "an older route came back: {answers:?}"
    );
}

#[test]
fn a_mapsmith_killed_in_the_middle_of_a_swap_leaves_nothing_that_its_next_run_does_not_mend() {
    for binary in installed() {
        let maps = two_maps();
        let site = Site::start(binary, &maps[0]);
        let mut mapsmith = site.mapsmith();
        for (round, (command, nth)) in MOMENTS.into_iter().enumerate() {
            let (old, new) = (&maps[round % 2], &maps[(round + 1) % 2]);
            kill_and_restart(&site, &mut mapsmith, (old, new), |mapsmith| {
                site.proxy.hold(command, nth);
                site.change(mapsmith, new);
                site.proxy.wait_held();
                mapsmith.kill();
                site.proxy.lose();
                assert_eq!(memory(&site.gateway), *old, "killed before {command}");
                assert_eq!(
                    map_file(&site.gateway),
                    *new,
                    "killed before {command}: the file comes first"
                );
            });
        }
        // After the commit has arrived, before Mapsmith knows of it.
        kill_and_restart(&site, &mut mapsmith, (&maps[0], &maps[1]), |mapsmith| {
            site.proxy.hold("commit map", 1);
            site.change(mapsmith, &maps[1]);
            site.proxy.wait_held();
            mapsmith.kill();
            site.proxy.forward();
            eventually("the commit arrives", BOUND, || {
                (memory(&site.gateway) == maps[1]).then_some(())
            });
        });
    }
}

#[test]
fn a_mapsmith_killed_while_it_writes_the_map_file_leaves_the_old_file_whole() {
    for binary in oldest_and_newest() {
        // Larger than the file may be by then.
        let maps = [alternating(10_000, 0), alternating(10_000, 1)];
        let site = Site::start(binary, &maps[0]);
        let mut mapsmith = site.mapsmith();
        kill_and_restart(&site, &mut mapsmith, (&maps[0], &maps[1]), |mapsmith| {
            run("prlimit", &["--pid", &mapsmith.id().to_string(), "--fsize=65536"]);
            site.change(mapsmith, &maps[1]);
            assert_eq!(mapsmith.wait(), 128 + SIGXFSZ, "the system kills it at that byte");
            let folder = Path::new(site.gateway.map_path()).parent().expect("a file in a folder");
            let files =
                fs::read_dir(folder).expect("the map's folder").map(|file| file.expect("a file"));
            let half_written: Vec<_> = files
                .filter(|file| file.path().extension().is_some_and(|ending| ending == "tmp"))
                .collect();
            let sizes: Vec<_> =
                half_written.iter().map(|file| file.metadata().expect("a file").len()).collect();
            assert_eq!(sizes, [65536], "it stood in the middle of the file");
            assert_eq!(map_file(&site.gateway), maps[0]);
            assert_eq!(memory(&site.gateway), maps[0]);
        });
    }
}

#[test]
fn abandoned_versions_are_gone_in_the_end_though_nothing_else_is_to_be_changed() {
    for binary in installed() {
        let maps = two_maps();
        let site = Site::start(binary, &maps[0]);
        // The ten looks need not take so long.
        let mapsmith =
            site.config_with(&CALM.replace("observe = \"1s\"", "observe = \"100ms\"")).start();
        site.converges(&mapsmith, &maps[0]);
        site.next_is_a_swap();
        site.converges(&mapsmith, &maps[0]);
        assert_eq!(file_revision(&site.gateway), 1, "the map is the same all along");
        // HAProxy has it before the status of that look is there.
        mapsmith.wait_for("it is counted", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            (status["instances"][0]["drift_corrected"]["abandoned_versions"] == 1).then_some(())
        });
        let series =
            "mapsmith_drift_corrected_total{haproxy=\"edge1\",kind=\"abandoned_versions\"}";
        assert_eq!(metric(&mapsmith, series), Some(1.0));
    }
}

#[test]
fn a_cut_reply_is_told_and_put_right_and_no_request_suffers_from_it() {
    for binary in oldest_and_newest() {
        let maps = two_maps();
        let site = Site::start(binary, &maps[0]);
        let mapsmith = site.mapsmith();
        let load = Load::start(
            site.gateway.http_address(),
            &["n000000".to_owned(), "n000399".to_owned()],
            1,
        );
        let cuts = [
            ("prepare map", 7),
            ("add map @", 0),
            ("show map @", 1000),
            ("commit map", 0),
            ("show info", 50),
        ];
        for (round, (command, bytes)) in cuts.into_iter().enumerate() {
            let new = &maps[(round + 1) % 2];
            if command == "show info" {
                // The look that confirms the change, none of those before.
                site.proxy.hold("commit map", 1);
            }
            site.proxy.cut(command, 1, bytes);
            site.change(&mapsmith, new);
            if command == "show info" {
                site.proxy.wait_held();
                site.proxy.forward();
            }
            let failures = "mapsmith_apply_failures_total{haproxy=\"edge1\"}";
            mapsmith.wait_for(&format!("the cut of {command} is a failure"), BOUND, |mapsmith| {
                (metric(mapsmith, failures) == Some(round as f64 + 1.0)).then_some(())
            });
            // The count comes a moment before the line.
            mapsmith.wait_for(&format!("the cut of {command} is told"), BOUND, |mapsmith| {
                let told = |line: &str| line.contains("behind") && line.contains(command);
                mapsmith.log().lines().any(told).then_some(())
            });
            assert_eq!(site.proxy.shortened(), round + 1, "{command}");
            site.converges(&mapsmith, new);
        }
        let wrong: Vec<_> = load.stop().into_iter().filter(|answer| answer.status != 200).collect();
        assert_eq!(wrong, [], "HAProxy {:?}", binary.version);
    }
}

/// A client of the library behind a proxy.
fn library_client(gateway: &Gateway, proxy: &AdminProxy) -> MapClient {
    let address = proxy.address().parse().expect("an address");
    MapClient::new(
        RuntimeClient::new(address, Duration::from_secs(60)),
        MapName::new(gateway.map_path()),
        1024,
    )
}

/// A part of a change, with what it says where it fails.
type Step<'a> = &'a dyn Fn() -> Result<(), String>;

#[test]
fn no_step_of_a_change_takes_a_reply_cut_at_any_byte_for_a_success() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for binary in installed() {
        let gateway = Gateway::plan(binary).entry("a", "master1").entry("b", "master1").start();
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let client = library_client(&gateway, &proxy);
        let wanted: EntryMap = [("a", "master2"), ("c", "master1")].into_iter().collect();
        let swap = || {
            runtime
                .block_on(apply::swap(&client, &wanted, &mut Timings::default()))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        let edits = [
            Edit::Set { key: "a".to_owned(), value: "master2".to_owned() },
            Edit::Set { key: "c".to_owned(), value: "master1".to_owned() },
        ];
        let most = EditCounts { adding: 2, walking: 2 };
        let edit = || {
            runtime
                .block_on(apply::edit(&client, &edits, most, &mut Timings::default()))
                .map_err(|error| error.to_string())
        };
        let look =
            || runtime.block_on(client.probe()).map(|_| ()).map_err(|error| error.to_string());
        let steps: [(&str, Step<'_>); 7] = [
            ("prepare map", &swap),
            ("add map @", &swap),
            ("show map @", &swap),
            ("commit map", &swap),
            ("set map", &edit),
            ("get map", &edit),
            ("show info", &look),
        ];
        for (command, step) in steps {
            // At every byte until the cut is longer than the reply.
            let mut bytes = 0;
            loop {
                let before = proxy.shortened();
                proxy.cut(command, 1, bytes);
                let result = step();
                if proxy.shortened() == before {
                    assert_eq!(
                        result,
                        Ok(()),
                        "{command}: the whole reply of {bytes} bytes is a success"
                    );
                    break;
                }
                let told = result.expect_err(&format!(
                    "HAProxy {:?}: {command} cut after {bytes} bytes",
                    binary.version
                ));
                assert!(told.contains(command), "{told}");
                bytes += 1;
            }
            assert!(bytes > 0, "{command} was never cut");
        }
    }
}
