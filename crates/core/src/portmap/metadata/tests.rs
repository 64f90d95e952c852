//! What Moirai reads, case by case, and what is said where it took something else in silence.

use std::time::Duration;

use super::*;
use crate::config::values::{BindAddress, Network};
use crate::config::{self, Config, Process};
use crate::render::render;

#[test]
fn a_load_balancer_runs_where_true_is_said_and_stops_where_false_is() {
    for (text, enabled) in [
        (" true ", Enabled::Yes),
        ("true\n", Enabled::Yes),
        ("TRUE", Enabled::Yes),
        ("false", Enabled::No),
        // To Moirai these are no more than not true. An order to stop is no typing error.
        ("", Enabled::Unknown),
        ("1", Enabled::Unknown),
        ("true false", Enabled::Unknown),
        ("truee", Enabled::Unknown),
        ("\"true\"", Enabled::Unknown),
    ] {
        assert_eq!(Enabled::parse(text), enabled, "{text:?}");
    }
}

#[test]
fn the_most_servers_are_within_their_bounds_and_what_is_no_such_number_is_told() {
    for (text, value, is_good) in [
        ("", 32, true),
        ("not a number", 32, false),
        ("31", 32, false),
        ("64", 64, true),
        ("128", 128, true),
        ("1024", 1024, true),
        ("1025", 1024, false),
        (" 100 ", 100, true),
        ("100\n", 100, true),
        ("0", 32, false),
        ("-5", 32, false),
        ("1e2", 32, false),
        ("99999999999999999999999", 32, false),
        ("100 200", 32, false),
    ] {
        let reading = max_servers(text);
        assert_eq!((reading.value, reading.problem.is_none()), (value, is_good), "{text:?}");
    }
    let problem = max_servers("a\nb").problem.unwrap();
    assert_eq!(problem, "max_rs: a\\nb is not a number from 32 to 1024; 32 counts");
}

#[test]
fn the_metrics_port_is_8405_unless_a_port_is_given() {
    for (text, port, is_good) in [
        ("", 8405, true),
        (" 9090 ", 9090, true),
        ("65534", 65534, true),
        ("-1", 8405, false),
        ("+9090", 9090, true),
        ("65535", 8405, false),
        ("0", 8405, false),
    ] {
        let reading = metrics_port(text);
        assert_eq!((reading.value.get(), reading.problem.is_none()), (port, is_good), "{text:?}");
    }
}

#[test]
fn metrics_are_for_the_networks_that_are_named_and_never_for_everybody() {
    let bind = || BindAddress::try_from("*:8405".to_owned()).unwrap();
    for (text, networks, problems) in [
        (
            "192.168.1.1/24 192.168.2.0/24,192.168.3.3",
            &["192.168.1.1/24", "192.168.2.0/24", "192.168.3.3"][..],
            0,
        ),
        ("", &[], 0),
        (" ", &[], 0),
        // HAProxy refuses its whole configuration for this one.
        ("10.0.0.0/99", &[], 1),
        ("10.0.0.0/99 ::1 a\u{0}b", &["::1"], 2),
        ("2001:db8::/32", &["2001:db8::/32"], 0),
    ] {
        let acl = MetricsAcl::parse(text);
        let read: Vec<_> = acl.networks.iter().map(Network::as_str).collect();
        assert_eq!((&read[..], acl.problems.len()), (networks, problems), "{text:?}");
        let metrics = acl.metrics(bind());
        assert_eq!(metrics.is_some(), !networks.is_empty(), "{text:?}");
        assert!(metrics.is_none_or(|metrics| metrics.allow == acl.networks));
    }
    let process =
        Process { metrics: MetricsAcl::parse("10.0.0.0/8").metrics(bind()), ..Process::default() };
    let text = render(&Config { process, ..Config::default() }).text().to_owned();
    let (_, section) = text.split_once("frontend mapsmith-metrics\n").expect("a frontend");
    let lines: Vec<_> = section.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "bind *:8405",
            "no log",
            "acl allowed src -- 10.0.0.0/8",
            "http-request deny deny_status 403 if !allowed",
            "http-request use-service prometheus-exporter if { path /metrics }",
            "http-request return status 404",
        ]
    );
}

#[test]
fn more_networks_than_anybody_scrapes_from_are_not_read() {
    let text: String =
        (0..1010).map(|host| format!("10.0.{}.{} ", host / 250, host % 250)).collect();
    let acl = MetricsAcl::parse(&text);
    assert_eq!((acl.networks.len(), acl.problems.len()), (1000, 1));
}

fn milliseconds(timeouts: Timeouts) -> [u128; 4] {
    [timeouts.queue, timeouts.connect, timeouts.client, timeouts.server]
        .map(|time| time.as_millis())
}

#[test]
fn timeouts_are_the_usual_ones_where_a_text_says_nothing_else() {
    for (text, expected) in [
        ("   ", [0, 2000, 55_000, 120_000]),
        ("{}", [0, 2000, 55_000, 120_000]),
        ("{ queue : 50 , connect : 3000 }", [50, 3000, 55_000, 120_000]),
        ("{queue:100ms,connect:5000ms}", [100, 5000, 55_000, 120_000]),
        ("{client:60s,server:180s}", [0, 2000, 60_000, 180_000]),
        ("{client:3601s}", [0, 2000, 3_600_000, 120_000]),
        ("{client:0}", [0, 2000, 0, 120_000]),
        ("server:300s", [0, 2000, 55_000, 300_000]),
        ("{queue:4294967295s}", [i32::MAX.unsigned_abs().into(), 2000, 55_000, 120_000]),
    ] {
        assert_eq!(Timeouts::parse(text).map(milliseconds), Ok(expected), "{text:?}");
    }
}

#[test]
fn a_text_that_names_no_timeouts_is_an_error_and_not_the_usual_ones() {
    for (text, words) in [
        ("{server:5min}", "invalid server timeout value: 5min"),
        ("{unknown:123,connect:5000}", "unknown timeout parameter: unknown"),
        ("{ }", "invalid timeout parameter format: "),
        ("{server:-5}", "invalid server timeout value: -5"),
        ("{server:1.5s}", "invalid server timeout value: 1.5s"),
        ("{Server:5s}", "unknown timeout parameter: Server"),
        ("{client:5s", "invalid timeout parameter format: {client:5s"),
        ("}", "invalid timeout parameter format: }"),
        ("{", "invalid timeout parameter format: {"),
        ("{client:5s,}", "invalid timeout parameter format: "),
        ("{client:5s,client:6s}", "client is given twice"),
        ("{queue:5\nx}", "invalid queue timeout value: 5\\nx"),
    ] {
        let error = Timeouts::parse(text).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{text:?}: {error}");
    }
}

#[test]
fn a_time_is_milliseconds_or_seconds() {
    for (text, expected) in [
        ("5000", Some(5000)),
        ("0", Some(0)),
        ("100ms", Some(100)),
        (" 5000 ", Some(5000)),
        ("5s", Some(5000)),
        (" 30 s", Some(30_000)),
        ("abc", None),
        ("", None),
        ("+5", None),
        ("s", None),
        ("4294967296", None),
    ] {
        assert_eq!(timeout(text), expected.map(Duration::from_millis), "{text:?}");
    }
}

/// HAProxy takes 0 for something else at each place.
#[test]
fn no_limit_is_the_longest_that_haproxy_counts() {
    let mut timeouts = config::Timeouts::default();
    Timeouts::parse("{client:0,connect:1s}").unwrap().apply(&mut timeouts);
    let days = |time: Duration| time.as_secs() / 86_400;
    assert_eq!((days(timeouts.queue), days(timeouts.client)), (24, 24));
    assert_eq!(
        (timeouts.connect, timeouts.server),
        (Duration::from_secs(1), Duration::from_secs(120))
    );
    let process = Process { timeouts, ..Process::default() };
    assert_eq!(Config { process, ..Config::default() }.problems(), []);
}

#[test]
fn logs_go_to_this_machine_and_to_the_one_that_is_named() {
    for (text, expected) in [
        ("", None),
        ("10.11.28.101:30514", Some("10.11.28.101:30514")),
        ("192.168.1.1:514", Some("192.168.1.1:514")),
        ("[2001:db8::1]:514", Some("[2001:db8::1]:514")),
        ("  10.11.28.101:30514  ", Some("10.11.28.101:30514")),
        ("logs.internal.company.net:30514", Some("logs.internal.company.net:30514")),
        ("10.11.28.101", Some("10.11.28.101")),
    ] {
        let reading = Syslog::parse(text);
        assert_eq!(reading.value.as_ref().map(Syslog::as_str), expected, "{text:?}");
        assert_eq!(reading.problem, None, "{text:?}");
        let mut process = Process::default();
        process.log_to_syslog(reading.value.as_ref());
        let rendered = render(&Config { process, ..Config::default() }).text().to_owned();
        assert!(rendered.contains("\n    log 127.0.0.1 len 4096 local0\n"), "{rendered}");
        assert_eq!(
            rendered.contains("\n    log-send-hostname\n"),
            expected.is_some(),
            "{rendered}"
        );
        if let Some(other) = expected {
            let line = format!("\n    log {other} len 4096 local0\n");
            assert!(rendered.replace('\'', "").contains(&line), "{rendered}");
        }
    }
    for text in ["2001:db8::1", "a b:514", "logs:0", "logs:+5", "[::1]x", "a\nlog b", "logs:"] {
        let reading = Syslog::parse(text);
        assert!(reading.value.is_none() && reading.problem.is_some(), "{text:?}");
    }
}

#[test]
fn a_certificate_has_the_names_that_are_listed_each_once_and_in_lower_case() {
    for (text, names, problems) in [
        ("example.com,www.example.com", &["example.com", "www.example.com"][..], 0),
        ("Foo.exAmpLe.Com", &["foo.example.com"], 0),
        ("", &[], 0),
        ("a.example.com b.example.com", &["a.example.com", "b.example.com"], 0),
        ("a.b, A.B a.b.\n*.a.b", &["a.b", "*.a.b"], 0),
        ("localhost 10.0.0.1 a_b.test *.*.test x/../y.test", &[], 5),
    ] {
        let read = CertificateNames::parse(text);
        assert_eq!(
            (&read.names[..], read.problems.len()),
            (&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], problems),
            "{text:?}"
        );
    }
}
