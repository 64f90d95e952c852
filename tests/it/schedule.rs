//! When Mapsmith looks: by interval, by cron, when it is asked, and what a request for it is
//! answered.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{BINARY, Mapsmith};
use crate::support::process::{Ending, Process};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, entries, gateway_settings, in_sync, instance_settings, memory,
    newest, oldest_and_newest, reload, source_settings,
};
use crate::support::{eventually, run};

fn start(gateway: &Gateway, registry: &Registry, schedule: &str) -> Mapsmith {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{schedule}{}{source}", gateway_settings(gateway))).start()
}

#[test]
fn a_tick_of_either_kind_brings_a_change_to_haproxy_without_any_request() {
    for (binary, poll) in oldest_and_newest().into_iter().zip(["1s", "* * * * * *"]) {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&[("a", "m1")]);
        let mapsmith = start(
            &gateway,
            &registry,
            &format!("[schedule]\npoll = {poll:?}\njitter = \"100ms\"\n"),
        );
        in_sync(&mapsmith);
        for master in ["m2", "m3"] {
            registry.knows(&[("a", master)]);
            mapsmith.wait_for(
                &format!("a tick of {poll:?} moves the node to {master}"),
                BOUND,
                |_| (memory(&gateway) == entries(&[("a", master)])).then_some(()),
            );
        }
    }
}

#[test]
fn a_hangup_polls_at_once() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mut mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);
    registry.knows(&[("a", "m2")]);
    mapsmith.hangup();
    mapsmith.wait_for("SIGHUP moves the node", BOUND, |_| {
        (memory(&gateway) == entries(&[("a", "m2")])).then_some(())
    });
}

/// The program is held where it reads its settings, as on a slow disk, by a pipe in place of the
/// file.
#[test]
fn a_hangup_before_the_settings_are_read_does_not_end_the_daemon() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let source = source_settings("registry", &registry.url());
    let config = Mapsmith::config(&format!("{ON_REQUEST}{}{source}", gateway_settings(&gateway)));
    let text = fs::read_to_string(config.path()).expect("the settings");
    fs::remove_file(config.path()).expect("the settings can be replaced");
    run("mkfifo", &[config.path().to_str().expect("a path in UTF-8")]);
    let log = config.directory().join("early.log");
    let path = config.path();
    let command = [BINARY, "run", "-c", path.to_str().expect("a path in UTF-8")];
    let mut daemon = Process::start(&command, &log, Ending::default());
    // This returns when the program has opened the other end.
    let mut settings = fs::File::options().write(true).open(&path).expect("the pipe");
    daemon.signal("HUP");
    settings.write_all(text.as_bytes()).expect("the program reads");
    drop(settings);
    eventually("it has started", BOUND, || {
        assert!(daemon.exit_status().is_none(), "the signal ended it: {}", daemon.log());
        daemon.log().contains("API listening").then_some(())
    });
}

#[test]
fn a_schedule_that_has_run_out_is_told_once_and_polls_on_request_only() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    // A single second, soon, with its year.
    let tick = Timestamp::now() + SignedDuration::from_secs(5);
    let poll = tick.strftime("%-S %-M %-H %-d %-m * %Y");
    let mut mapsmith =
        start(&gateway, &registry, &format!("[schedule]\npoll = \"{poll}\"\njitter = \"0s\"\n"));
    in_sync(&mapsmith);
    let has_run_out =
        |mapsmith: &Mapsmith| mapsmith.log().matches("the poll schedule has run out").count();
    mapsmith.wait_for("the schedule has run out", BOUND, |mapsmith| {
        (has_run_out(mapsmith) > 0).then_some(())
    });
    registry.knows(&[("a", "m2")]);
    reload(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m2")]));
    assert_eq!(mapsmith.sigterm(), 0, "{}", mapsmith.log());
    // At the start, at its only tick, and when asked.
    assert!(registry.asked() <= 3, "it was asked {} times\n{}", registry.asked(), mapsmith.log());
    assert_eq!(
        (has_run_out(&mapsmith), mapsmith.log().matches("missed its tick").count()),
        (1, 0),
        "{}",
        mapsmith.log()
    );
}

#[test]
fn reload_requests_that_arrive_together_become_one_poll_and_all_are_answered() {
    const REQUESTS: usize = 8;
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);

    // The poll of the first request takes its time; the others come meanwhile, and one poll serves
    // them all.
    registry.takes(Duration::from_secs(2), &[("a", "m2")]);
    let before = registry.asked();
    thread::scope(|scope| {
        let first = scope.spawn(|| reload(&mapsmith));
        mapsmith.wait_for("the first poll is under way", BOUND, |_| {
            (registry.asked() > before).then_some(())
        });
        let others: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(|| reload(&mapsmith))).collect();
        for report in std::iter::once(first)
            .chain(others)
            .map(|thread| thread.join().expect("its assertions hold"))
        {
            assert_eq!(report["outcome"], "in_sync", "{report:#}");
        }
    });
    // One for the first request and one for those that came during it; a thread that started late
    // may need one more.
    let polls = registry.asked() - before;
    assert!((2..=3).contains(&polls), "{polls} polls for {REQUESTS} requests during one poll");
    assert_eq!(memory(&gateway), entries(&[("a", "m2")]));
}

#[test]
fn a_reload_that_is_waited_for_says_what_changed_and_how_long_each_step_took() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&[("a", "m1"), ("b", "m1"), ("c", "m1")]);
        let mapsmith = start(&gateway, &registry, ON_REQUEST);
        in_sync(&mapsmith);
        registry.knows(&[("a", "m2"), ("b", "m1"), ("d", "m1")]);
        let report = reload(&mapsmith);
        let change = &report["changes"][0];
        assert_eq!(
            (&change["added"], &change["moved"], &change["removed"]),
            (&json!(1), &json!(1), &json!(1)),
            "{report:#}"
        );
        assert_eq!(
            report["message"],
            "revision 2: 1 added, 1 moved, 1 removed; 1 of 1 instances in sync"
        );
        assert_eq!(report["instances"][0]["verified"], true);
        let timed = [&report["steps"], &report["instances"][0]["apply"]["steps"]];
        for steps in timed {
            let steps = steps.as_array().unwrap_or_else(|| panic!("no steps: {report:#}"));
            assert!(
                steps
                    .iter()
                    .all(|step| step["step"].is_string()
                        && step["milliseconds"].as_f64() >= Some(0.0)),
                "{report:#}"
            );
            assert!(!steps.is_empty(), "{report:#}");
        }

        let report = reload(&mapsmith);
        assert_eq!(
            (&report["changes"], &report["revision"]),
            (&json!([]), &json!(2)),
            "{report:#}"
        );
        assert_eq!(report["message"], "nothing changed; 1 of 1 instances in sync");
        assert_eq!(
            report["instances"][0]["apply"],
            Value::Null,
            "nothing had to be applied: {report:#}"
        );
    }
}

#[test]
fn a_reload_names_the_instance_that_is_behind_and_why() {
    let (good, mut hung) = (Gateway::plan(newest()).start(), Gateway::plan(newest()).start());
    let registry = Registry::start(&[("a", "m1")]);
    let gone = instance_settings("gone", "unix@/nonexistent/admin.sock");
    let settings = format!(
        "{}{gone}{}",
        gateway_settings(&good),
        instance_settings("other", &hung.runtime_address())
    );
    hung.stop_process();
    let source = source_settings("registry", &registry.url());
    let mapsmith = Mapsmith::config(&format!("{ON_REQUEST}{settings}{source}")).start();
    mapsmith.wait_for("each instance is known for what it is", BOUND, |mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        let states: Vec<_> =
            (0..3).map(|index| status["instances"][index]["state"].clone()).collect();
        (states == ["in_sync", "unreachable", "unreachable"]).then_some(())
    });
    let (status, report) = mapsmith.post("/v1/reload?wait=1s");
    assert_eq!((status, &report["outcome"]), (202, &json!("behind")), "{report:#}");
    let message = report["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("gone") && message.contains("other") && !message.contains("edge1"),
        "{message}"
    );
    let instances = &report["instances"];
    let state = |index: usize| {
        (&instances[index]["name"], &instances[index]["state"], &instances[index]["verified"])
    };
    assert_eq!(state(0), (&json!("edge1"), &json!("in_sync"), &json!(true)), "{report:#}");
    assert_eq!(state(1), (&json!("gone"), &json!("unreachable"), &json!(false)), "{report:#}");
    assert_eq!(state(2), (&json!("other"), &json!("unreachable"), &json!(false)), "{report:#}");
    assert!(
        instances[2]["error"].as_str().is_some_and(|error| error.contains("no answer within")),
        "{report:#}"
    );
    hung.continue_process();
}

#[test]
fn a_reload_that_is_not_waited_for_is_answered_at_once_with_202() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);
    registry.knows(&[("a", "m2")]);
    let (status, report) = mapsmith.post("/v1/reload");
    assert_eq!((status, &report["outcome"]), (202, &json!("requested")), "{report:#}");
    mapsmith.wait_for("the change arrives", BOUND, |_| {
        (memory(&gateway) == entries(&[("a", "m2")])).then_some(())
    });
}

#[test]
fn a_reload_of_a_registry_that_hangs_says_so_when_the_time_is_over() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);
    registry.hangs();
    let (status, problem) = mapsmith.post("/v1/reload?wait=1s");
    assert_eq!(status, 502, "{problem:#}");
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains("registry")),
        "{problem:#}"
    );
    assert_eq!(memory(&gateway), entries(&[("a", "m1")]));
}

#[test]
fn a_reload_that_is_waited_for_does_not_hold_up_the_end() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mut mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);
    registry.hangs();
    let asked = registry.asked();
    let mut waiting = mapsmith.connect();
    thread::scope(|scope| {
        let answer = scope.spawn(move || waiting.request("POST", "/v1/reload?wait=10m", &[], ""));
        mapsmith
            .wait_for("the poll is under way", BOUND, |_| (registry.asked() > asked).then_some(()));
        assert_eq!(mapsmith.sigterm(), 0, "{}", mapsmith.log());
        let answer =
            answer.join().expect("the client does not panic").expect("whoever waits is told");
        assert_eq!(answer.status, 502, "{}", answer.body);
    });
}

#[test]
fn a_second_daemon_on_the_same_address_ends_and_says_why() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);
    let asked = registry.asked();
    let address = mapsmith.api_url().replace("http://", "");
    let source = source_settings("registry", &registry.url());
    let second = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{source}[api]\nlisten = {address:?}\n",
        gateway_settings(&gateway)
    ));
    let output = second.cli(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaints(&output);
    assert!(complaint.contains(&format!("api.listen: can't listen on {address}")), "{complaint}");
    assert!(complaint.contains("is another Mapsmith running?"), "{complaint}");
    assert_eq!(registry.asked(), asked, "it asked the registry before it noticed");
}

#[test]
fn a_wait_that_is_no_duration_is_a_problem_and_polls_nothing() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = start(&gateway, &registry, ON_REQUEST);
    in_sync(&mapsmith);
    let before = registry.asked();
    for query in
        ["wait=soon", "wait=", "wait=30", "wait=-1s", "wait=11m", "weight=30s", "wait=1s&wait=2s"]
    {
        let response = mapsmith.ask("POST", &format!("/v1/reload?{query}"), &[], "");
        assert_eq!(
            (response.status, response.content_type.as_str()),
            (400, "application/problem+json"),
            "{query}"
        );
        assert!(response.body.contains("wait"), "{query}: {}", response.body);
    }
    assert_eq!(registry.asked(), before);
}
