use std::collections::BTreeMap;
use std::time::Duration;

use haproxy_runtime::stats::{COUNTERS, GAUGES, Row};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn row<'a>(backend: &'a str, server: Option<&'a str>, scur: u64, total: u64) -> Row<'a> {
    let mut gauges = [Some(0); GAUGES.len()];
    gauges[0] = Some(scur);
    let mut counters = [Some(0); COUNTERS.len()];
    counters[0] = Some(total);
    Row { backend, number: 1, server, status: "UP", gauges, counters }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn wanted(series: &[&str]) -> Vec<Selector> {
    series.iter().map(|text| text.parse().unwrap()).collect()
}

/// A reading at so many seconds, of this process.
fn read(history: &mut History, wanted: &[Selector], seconds: u64, pid: u32, rows: &[Row<'_>]) {
    let mut reading = history.begin(wanted);
    rows.iter().for_each(|it| reading.row(it));
    reading.end(pid, 1, at(seconds), seconds as i64 * 1000);
}

fn unreachable() -> Gap {
    Gap::Unreachable("no answer".to_owned())
}

fn subscription(series: &[&str], every: &str) -> Subscription {
    Subscription::new(series.iter().copied(), Some(every), None).unwrap()
}

/// One who watches the one instance, and what they are sent.
struct Client {
    watcher: Watcher,
    sent: Vec<Value>,
}

impl Client {
    fn new(history: &History, series: &[&str], every: &str, backlog: u64, now: u64) -> Self {
        let mut watcher = Watcher::new(["edge1"]);
        let first = watcher.subscribe(&subscription(series, every), 1);
        watcher.begin_at(0, history, at(backlog), at(now));
        Self { watcher, sent: vec![serde_json::from_str(&first).unwrap()] }
    }

    fn take(&mut self, history: &History) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let ticks = self.watcher.ahead(0, history);
            let frames = self.watcher.take(0, &ticks);
            if frames.is_empty() {
                return all;
            }
            for frame in frames {
                assert!(frame.len() <= LARGEST_FRAME, "{}", frame.len());
                let frame: Value = serde_json::from_str(&frame).expect("JSON");
                self.sent.push(frame.clone());
                all.push(frame);
            }
        }
    }
}

fn of<'v>(frames: &'v [Value], kind: &'v str) -> impl Iterator<Item = &'v Value> {
    frames.iter().filter(move |frame| frame["type"] == kind)
}

/// Where the counter `stot` stands in a row.
const STOT: usize = 1 + GAUGES.len();

#[test]
fn gauges_are_told_as_they_are_and_counters_as_what_they_grew_by() {
    let (wanted, mut history) = (wanted(&["backend/web"]), History::one_of(1));
    let mut client = Client::new(&history, &["backend/web"], "2s", 0, 0);
    let fields = client.sent[0]["fields"].as_array().unwrap().clone();
    assert_eq!((&fields[0], fields.last()), (&json!("scur"), Some(&json!("status"))));
    assert_eq!(fields[STOT - 1], "stot");
    read(&mut history, &wanted, 2, 7, &[row("web", None, 3, 100), row("other", None, 1, 1)]);
    let sent = client.take(&history);
    assert_eq!(sent[0], json!({"type": "schema", "series": {"1": "edge1/backend/web"}}));
    let rows = sent[1]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "nobody asked for the other");
    assert_eq!((&rows[0][0], &rows[0][1], &rows[0][STOT]), (&json!(1), &json!(3), &Value::Null));
    read(&mut history, &wanted, 4, 7, &[row("web", None, 0, 130)]);
    let sent = client.take(&history);
    assert_eq!((&sent[0]["t"], &sent[0]["over"]), (&json!(4.0), &json!(2.0)));
    let row = &sent[0]["rows"][0];
    assert_eq!(
        (&row[1], &row[STOT], row.as_array().map(Vec::len)),
        (&json!(0), &json!(30), Some(15))
    );
    assert_eq!(row[14], "UP");
}

#[test]
fn a_counter_that_fell_has_grown_by_nothing_that_is_known() {
    let (wanted, mut history) = (wanted(&["backend/web"]), History::one_of(1));
    let mut client = Client::new(&history, &["backend/web"], "1s", 0, 0);
    for (seconds, pid, total) in [(1, 7, 100), (2, 7, 120), (3, 7, 5), (4, 7, 6), (5, 8, 400)] {
        read(&mut history, &wanted, seconds, pid, &[row("web", None, 0, total)]);
        client.take(&history);
    }
    let told: Vec<_> = of(&client.sent, "stats").map(|it| it["rows"][0][STOT].clone()).collect();
    let none = Value::Null;
    assert_eq!(told, [none.clone(), json!(20), none.clone(), json!(1), none], "{:#?}", client.sent);
    let gaps: Vec<_> = of(&client.sent, "gap").map(|it| it["why"].clone()).collect();
    assert_eq!(gaps, ["restarted"], "another process, though its counter is greater");
}

#[test]
fn what_was_not_measured_is_a_gap_told_once_and_never_a_zero() {
    let (wanted, mut history) = (wanted(&["backend/web"]), History::one_of(1));
    let mut client = Client::new(&history, &["backend/web"], "2s", 0, 0);
    read(&mut history, &wanted, 2, 7, &[row("web", None, 0, 100)]);
    client.take(&history);
    for seconds in [3, 5, 7] {
        history.miss(unreachable(), at(seconds), 0);
        client.take(&history);
    }
    // Whoever comes now is told so, too.
    let mut late = Client::new(&history, &["backend/web"], "2s", 0, 8);
    let sent = late.take(&history);
    assert_eq!(
        (sent.len(), &sent[0]["why"], &sent[0]["text"]),
        (1, &json!("unreachable"), &json!("no answer"))
    );
    read(&mut history, &wanted, 9, 7, &[row("web", None, 0, 150)]);
    client.take(&history);
    let kinds: Vec<_> = client.sent[1..].iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["schema", "stats", "gap", "stats"]);
    assert_eq!(client.sent[4]["rows"][0][STOT], Value::Null, "{:#?}", client.sent);
}

#[test]
fn a_slow_reader_gets_the_newest_alone_with_all_that_counters_grew_by() {
    let (wanted, mut history) = (wanted(&["backend/web"]), History::one_of(1));
    let mut client = Client::new(&history, &["backend/web"], "2s", 0, 0);
    read(&mut history, &wanted, 2, 7, &[row("web", None, 0, 100)]);
    client.take(&history);
    for second in 2..=20 {
        read(&mut history, &wanted, 2 * second, 7, &[row("web", None, second, 100 + 3 * second)]);
    }
    let sent = client.take(&history);
    assert_eq!(sent.len(), 1, "{sent:#?}");
    assert_eq!((&sent[0]["rows"][0][1], &sent[0]["rows"][0][STOT]), (&json!(20), &json!(60)));
    assert_eq!(sent[0]["over"], 38.0);
}

#[test]
fn a_backlog_is_told_reading_by_reading_as_often_as_was_asked() {
    let (wanted, mut history) = (wanted(&["backend/web"]), History::one_of(1));
    for second in 0..400 {
        match second {
            350 => history.miss(unreachable(), at(second), 0),
            _ => read(&mut history, &wanted, second, 7, &[row("web", None, second, 10 * second)]),
        }
    }
    assert_eq!(history.after(0).count(), 301, "older ones are forgotten");
    let mut client = Client::new(&history, &["backend/web"], "1s", 300, 399);
    let sent = client.take(&history);
    assert_eq!((of(&sent, "stats").count(), of(&sent, "gap").count()), (300, 1));
    let mut client = Client::new(&history, &["backend/web"], "4s", 100, 399);
    let sent = client.take(&history);
    let frames: Vec<_> = of(&sent, "stats").collect();
    assert!((25..=28).contains(&frames.len()), "{}", frames.len());
    assert_eq!(frames[1]["rows"][0][STOT], 40);
    read(&mut history, &wanted, 403, 7, &[row("web", None, 1, 4000)]);
    assert_eq!(client.take(&history).len(), 1, "and then what comes");
    let none = Client::new(&history, &["backend/web"], "2s", 0, 399).take(&history);
    assert!(none.is_empty(), "{none:#?}");
}

#[test]
fn what_comes_goes_and_is_not_there_is_told_by_name() {
    let series = ["server/web/*", "backend/nope", "edge1/backend/web"];
    let (wanted, mut history) = (wanted(&series), History::one_of(1));
    let mut client = Client::new(&history, &series, "1s", 0, 0);
    let backend = row("web", None, 0, 0);
    read(&mut history, &wanted, 1, 7, &[backend, row("web", Some("w1"), 0, 0)]);
    let sent = client.take(&history);
    let names = json!({"1": "edge1/backend/web", "2": "edge1/server/web/w1"});
    assert_eq!(sent[0]["series"], names, "{sent:#?}");
    assert_eq!(sent[1], json!({"type": "schema", "i": "edge1", "missing": ["backend/nope"]}));
    read(&mut history, &wanted, 2, 7, &[backend, row("web", Some("w2"), 0, 0)]);
    let sent = client.take(&history);
    assert_eq!(sent[0], json!({"type": "schema", "gone": [2]}));
    assert_eq!(sent[1]["series"], json!({"3": "edge1/server/web/w2"}));
    assert_eq!(sent[2]["rows"].as_array().map(Vec::len), Some(2));
}

#[test]
fn more_series_than_may_be_are_left_out_and_that_is_said() {
    let mut history = History::one_of(1);
    let names: Vec<_> = (0..MOST_SERIES + 5).map(|number| format!("b{number:05}")).collect();
    let rows: Vec<_> = names.iter().map(|name| row(name, None, 0, 0)).collect();
    read(&mut history, &wanted(&["backend/*"]), 1, 7, &rows);
    assert_eq!(history.left_out(), Some((5, MOST_SERIES)));
    let mut client = Client::new(&history, &["backend/*"], "1s", 10, 1);
    let sent = client.take(&history);
    let rows: usize = of(&sent, "stats").map(|it| it["rows"].as_array().unwrap().len()).sum();
    assert_eq!(rows, MOST_WATCHED);
    let complaint = client.watcher.complain(0, history.left_out()).unwrap();
    assert!(complaint.contains("5 more are watched"), "{complaint}");
    assert_eq!(client.watcher.complain(0, history.left_out()), None, "once");
    assert_eq!(client.watcher.complain(0, None), None, "still some of theirs are left out");
}

#[test]
fn a_reading_that_was_made_before_the_subscription_hides_no_series() {
    let (wanted, mut history) = (wanted(&["backend/other"]), History::one_of(1));
    let mut client = Client::new(&history, &["backend/web"], "1s", 0, 0);
    let mut reading = history.begin(&wanted);
    reading.row(&row("other", None, 0, 0));
    reading.end(7, 0, at(1), 1000);
    assert_eq!(client.take(&history), Vec::<Value>::new(), "not missing, but not asked for yet");
}

#[test]
fn a_subscription_is_checked_and_says_what_is_wrong() {
    let parsed = Subscription::parse(r#"{"series": ["backend/web", "e/server/b/*"]}"#).unwrap();
    assert_eq!((parsed.every, parsed.backlog), (at(2), at(0)));
    assert_eq!(Subscription::parse(&parsed.message()), Ok(parsed));
    for (text, named) in [
        ("[]", "subscription"),
        (r#"{"series": [], "other": 1}"#, "other"),
        (r#"{"series": ["backend/"]}"#, "backend/"),
        (r#"{"series": ["backend/a b"]}"#, "names no series"),
        (r#"{"series": ["server/*/x"]}"#, "names no series"),
        (r#"{"series": ["web"]}"#, "names no series"),
        (r#"{"series": [], "every": "500ms"}"#, "every"),
        (r#"{"series": [], "every": "2h"}"#, "every"),
        (r#"{"series": [], "backlog": "301s"}"#, "backlog"),
    ] {
        let error = Subscription::parse(text).expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let many: Vec<_> = (0..=MOST_SELECTORS).map(|it| format!("backend/b{it}")).collect();
    let error = Subscription::new(many.iter().map(String::as_str), None, None).unwrap_err();
    assert_eq!(error, SubscriptionError::TooMany { given: MOST_SELECTORS + 1 });
}

/// What may happen between two readings.
#[derive(Debug, Clone)]
enum Step {
    Grow(u64),
    Restart,
    Clear,
    Miss,
    /// The client takes what there is.
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..50u64).prop_map(Step::Grow),
        1 => Just(Step::Restart),
        1 => Just(Step::Clear),
        1 => Just(Step::Miss),
        3 => Just(Step::Take),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn whoever_reads_however_slowly_is_told_no_more_than_counters_grew(steps in steps()) {
        let (wanted, mut history) = (wanted(&["backend/web"]), History::one_of(1));
        let mut quick = Client::new(&history, &["backend/web"], "1s", 0, 0);
        let mut slow = Client::new(&history, &["backend/web"], "1s", 0, 0);
        let (mut total, mut pid, mut grown, mut second) = (1000, 1, 0, 0);
        let mut is_whole = true;
        for step in &steps {
            second += 1;
            match step {
                Step::Grow(by) => {
                    grown += by;
                    total += by;
                    read(&mut history, &wanted, second, pid, &[row("web", None, 0, total)]);
                }
                Step::Restart => {
                    (pid, total, is_whole) = (pid + 1, 0, false);
                    read(&mut history, &wanted, second, pid, &[row("web", None, 0, total)]);
                }
                Step::Clear => {
                    (total, is_whole) = (0, false);
                    read(&mut history, &wanted, second, pid, &[row("web", None, 0, total)]);
                }
                Step::Miss => {
                    is_whole = false;
                    history.miss(unreachable(), at(second), 0);
                }
                Step::Take => drop(slow.take(&history)),
            }
            quick.take(&history);
        }
        slow.take(&history);
        let sum = |client: &Client| {
            let rows = of(&client.sent, "stats").flat_map(|it| it["rows"].as_array().unwrap());
            rows.filter_map(|row| row[STOT].as_u64()).sum::<u64>()
        };
        let first = steps.iter().find_map(|step| match step {
            Step::Grow(by) => Some(*by),
            _ => None,
        });
        prop_assert!(sum(&quick) <= grown && sum(&slow) <= grown);
        if is_whole {
            let known = grown - first.unwrap_or(0);
            prop_assert_eq!(sum(&quick), known);
        }
        let gaps = |client: &Client| of(&client.sent, "gap").count();
        prop_assert!(gaps(&slow) <= gaps(&quick));
    }

}

proptest! {
    // Each makes many names.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn frames_are_small_and_json_whatever_haproxy_calls_its_own(
        names in proptest::collection::vec("[a-z\"\\\\\u{0}-\u{1f}é]{1,255}", 1..300),
        status in "\\PC{0,600}",
        seconds in 1..400u64,
    ) {
        let (wanted, mut history) = (wanted(&["server/web/*"]), History::one_of(1));
        let mut client = Client::new(&history, &["server/web/*"], "1s", 0, 0);
        let rows = names.iter().map(|name| Row { status: &status, ..row("web", Some(name), 1, 1) });
        read(&mut history, &wanted, seconds, 7, &rows.collect::<Vec<_>>());
        let sent = client.take(&history);
        let known: BTreeMap<String, String> = of(&sent, "schema")
            .flat_map(|it| it["series"].as_object().into_iter().flatten())
            .map(|(id, name)| (id.clone(), name.as_str().unwrap().to_owned()))
            .collect();
        for row in of(&sent, "stats").flat_map(|it| it["rows"].as_array().unwrap()) {
            prop_assert!(known.contains_key(&row[0].to_string()));
        }
        let name = format!("edge1/server/web/{}", names[0]);
        prop_assert!(known.values().any(|known| *known == name));
    }

    #[test]
    fn no_text_of_a_stranger_makes_the_parsers_panic(text in "\\PC{0,80}") {
        let _ = Subscription::parse(&text);
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }
        let _ = error(&text);
    }
}
