//! Somebody who watches: what they have been sent, and what is next.
//!
//! They are sent the newest alone, however long they took to take what came before: what counters
//! grew meanwhile stands in it. What was before they came is sent as it was, reading by reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::frames;
use super::history::{Gap, Heard, History, Outcome, Tick};
use super::series::{Selector, Series};
use super::subscription::Subscription;

/// The most series that one is sent.
pub const MOST_WATCHED: usize = 500;

/// How early a reading may be.
const EARLY: Duration = Duration::from_millis(500);

/// Readings that are told as one.
#[derive(Debug)]
pub(super) struct Group {
    /// How long the counters took to grow so; none where that is not known.
    pub over: Option<Duration>,
    pub unix_ms: i64,
    rows: BTreeMap<Arc<Series>, Heard>,
}

impl Group {
    /// Of readings one after the other; none of none.
    fn of<'t>(ticks: impl IntoIterator<Item = &'t Arc<Tick>>) -> Option<Self> {
        let mut group: Option<Self> = None;
        for tick in ticks {
            let Outcome::Read { over, rows, .. } = &tick.outcome else { continue };
            let before = group.take();
            let over = match &before {
                None => *over,
                Some(before) => before.over.zip(*over).map(|(before, over)| before + over),
            };
            let rows = rows.iter().map(|heard| {
                let known = before.as_ref().and_then(|it| it.rows.get(&heard.series));
                let mut heard = heard.clone();
                if let Some(known) = known {
                    heard.figures = known.figures.then(&heard.figures);
                }
                (Arc::clone(&heard.series), heard)
            });
            group = Some(Self { over, unix_ms: tick.unix_ms, rows: rows.collect() });
        }
        group
    }
}

/// How far one has got with an instance.
#[derive(Debug)]
struct View {
    instance: String,
    /// What is wanted of it.
    wanted: Vec<Selector>,
    /// The last reading that was looked at, and the last that was before they came.
    position: u64,
    backlog_until: u64,
    /// When the reading was that was sent last.
    sent_at: Option<Duration>,
    /// Series that they know, by their numbers.
    known: BTreeMap<Arc<Series>, u32>,
    has_looked_for_missing: bool,
    /// Some of what is wanted is not shown.
    is_cut: bool,
    complains: bool,
}

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher {
    every: Duration,
    /// Readings before this demand may lack what is wanted.
    demand: u64,
    views: Vec<View>,
    next_id: u32,
}

impl Watcher {
    /// Of these instances.
    pub fn new<'n>(instances: impl IntoIterator<Item = &'n str>) -> Self {
        let view = |instance: &str| View {
            instance: instance.to_owned(),
            wanted: Vec::new(),
            position: 0,
            backlog_until: 0,
            sent_at: None,
            known: BTreeMap::new(),
            has_looked_for_missing: false,
            is_cut: false,
            complains: false,
        };
        Self {
            every: Duration::ZERO,
            demand: 0,
            views: instances.into_iter().map(view).collect(),
            next_id: 1,
        }
    }

    /// Another subscription in place of that before, which is part of what is read from the demand
    /// of this number on. What to send first.
    pub fn subscribe(&mut self, subscription: &Subscription, demand: u64) -> String {
        self.every = subscription.every;
        self.demand = demand;
        for view in &mut self.views {
            let of_it = subscription.series.iter().filter(|it| it.is_of(&view.instance));
            view.wanted = of_it.cloned().collect();
            view.known.clear();
            (view.sent_at, view.is_cut, view.complains) = (None, false, false);
            view.has_looked_for_missing = false;
        }
        frames::begin(subscription)
    }

    /// Begins with what there is of an instance: so much of what was.
    pub fn begin_at(&mut self, index: usize, history: &History, backlog: Duration, now: Duration) {
        let Some(view) = self.views.get_mut(index) else { return };
        let newest = history.newest();
        view.backlog_until = newest.map_or(0, |newest| newest.number);
        view.position = match backlog.is_zero() {
            false => history.before_last(backlog, now),
            true => view.backlog_until,
        };
        // What is still so is told.
        let is_unreachable = newest
            .is_some_and(|newest| matches!(newest.outcome, Outcome::Gap(Gap::Unreachable(_))));
        if is_unreachable {
            view.position = view.position.min(view.backlog_until - 1);
        }
    }

    /// Whether anything of an instance is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.views.get(index).is_some_and(|view| !view.wanted.is_empty())
    }

    /// The readings of an instance that were not sent yet.
    pub fn ahead(&self, index: usize, history: &History) -> Vec<Arc<Tick>> {
        let position = self.views.get(index).map_or(u64::MAX - 1, |view| view.position);
        history.after(position).cloned().collect()
    }

    /// What is to be sent of them now. A backlog comes part by part: there may be more at once
    /// where this is not empty.
    pub fn take(&mut self, index: usize, ticks: &[Arc<Tick>]) -> Vec<String> {
        let Some(view) = self.views.get(index) else { return Vec::new() };
        let Some(first) = ticks.first() else { return Vec::new() };
        if first.number <= view.backlog_until {
            let part = part_of_backlog(ticks, view.backlog_until, self.every);
            return self.send(index, &ticks[..part], true);
        }
        // What lacks part of what is wanted is no row of zeros.
        let begin = ticks.iter().take_while(|tick| match &tick.outcome {
            Outcome::Read { demand, .. } => *demand < self.demand,
            Outcome::Gap(_) => false,
        });
        let ticks = &ticks[begin.count()..];
        let Some(newest) = ticks.last() else { return Vec::new() };
        let last_gap = ticks.iter().rposition(|tick| matches!(tick.outcome, Outcome::Gap(_)));
        let due_at = view.sent_at.map(|sent_at| sent_at + least(self.every));
        let is_due = due_at.is_none_or(|due_at| newest.at >= due_at);
        match (is_due, last_gap) {
            (true, _) => self.send(index, ticks, false),
            (false, Some(gap)) => self.send(index, &ticks[..=gap], false),
            (false, None) => Vec::new(),
        }
    }

    /// Tells readings as at most one before the last gap in them, the gap, and one after it.
    fn send(&mut self, index: usize, ticks: &[Arc<Tick>], is_backlog: bool) -> Vec<String> {
        let Some(last) = ticks.last() else { return Vec::new() };
        let last_gap = ticks.iter().rposition(|tick| matches!(tick.outcome, Outcome::Gap(_)));
        let (before, after) = ticks.split_at(last_gap.map_or(0, |gap| gap + 1));
        let mut sent = Vec::new();
        if let Some(group) = Group::of(before) {
            sent.extend(self.rows(index, &group, false));
        }
        if let Some(tick) = before.last()
            && let Outcome::Gap(gap) = &tick.outcome
        {
            let instance = self.views.get(index).map_or("", |view| &view.instance);
            sent.push(frames::gap(instance, gap, tick.unix_ms));
        }
        if let Some(group) = Group::of(after) {
            sent.extend(self.rows(index, &group, !is_backlog));
        }
        if let Some(view) = self.views.get_mut(index) {
            view.position = last.number;
            view.sent_at = Some(last.at);
        }
        sent
    }

    /// The frames of one group: first what has come and gone.
    fn rows(&mut self, index: usize, group: &Group, is_whole: bool) -> Vec<String> {
        let others = self.views.iter().enumerate().filter(|(other, _)| *other != index);
        let others: usize = others.map(|(_, view)| view.known.len()).sum();
        let Some(view) = self.views.get_mut(index) else { return Vec::new() };
        let wanted = |series: &Series| {
            view.wanted.iter().any(|it| it.is(&series.backend, series.server.as_deref()))
        };
        let rows: Vec<_> = group.rows.values().filter(|heard| wanted(&heard.series)).collect();
        let is_gone = |series: &Arc<Series>| !group.rows.contains_key(series);
        let gone: Vec<_> = view.known.extract_if(.., |series, _| is_gone(series)).collect();
        let mut sent = frames::gone(gone.into_iter().map(|(_, id)| id));
        let mut new = Vec::new();
        view.is_cut = false;
        for heard in &rows {
            if view.known.contains_key(&heard.series) {
                continue;
            }
            if others + view.known.len() >= MOST_WATCHED {
                view.is_cut = true;
                break;
            }
            new.push((self.next_id, format!("{}/{}", view.instance, heard.series)));
            view.known.insert(Arc::clone(&heard.series), self.next_id);
            self.next_id += 1;
        }
        sent.extend(frames::series(new.iter().map(|(id, name)| (*id, name.as_str()))));
        if is_whole && !std::mem::replace(&mut view.has_looked_for_missing, true) {
            let is_there = |wanted: &Selector| {
                let is = |series: &Series| wanted.is(&series.backend, series.server.as_deref());
                rows.iter().any(|heard| is(&heard.series))
            };
            let missing = view.wanted.iter().filter(|wanted| !is_there(wanted));
            sent.extend(frames::missing(&view.instance, missing.map(Selector::to_string)));
        }
        let known = rows.iter().filter_map(|heard| Some((*view.known.get(&heard.series)?, *heard)));
        sent.extend(frames::stats(&view.instance, group, known));
        sent
    }

    /// What to say of series that are too many, where that is news.
    pub fn complain(&mut self, index: usize, left_out: Option<(usize, usize)>) -> Option<String> {
        let view = self.views.get_mut(index)?;
        let text = match left_out {
            Some((left_out, most)) => format!(
                "of {} {most} series are kept, for all who watch; {left_out} more are watched, and \
                    some of yours may be among those that are not shown",
                view.instance
            ),
            None => format!(
                "you are shown {MOST_WATCHED} series, and no more can be; some of {} are left out: \
                    subscribe to fewer, or by another connection",
                view.instance
            ),
        };
        let complains = left_out.is_some() || view.is_cut;
        let is_news = complains && !view.complains;
        view.complains = complains;
        is_news.then(|| frames::error(&text))
    }
}

/// How far apart readings are that come `every` so often: a little early or late.
fn least(every: Duration) -> Duration {
    every - EARLY.min(every / 4)
}

/// How many of the first readings are told together: those of one interval, up to a gap.
fn part_of_backlog(ticks: &[Arc<Tick>], until: u64, every: Duration) -> usize {
    let Some(first) = ticks.first() else { return 0 };
    let end = first.at + least(every);
    let belongs = |tick: &&Arc<Tick>| {
        let is_gap = matches!(tick.outcome, Outcome::Gap(_));
        tick.number <= until && (tick.number == first.number || !is_gap && tick.at < end)
    };
    match first.outcome {
        Outcome::Gap(_) => 1,
        Outcome::Read { .. } => ticks.iter().take_while(belongs).count().max(1),
    }
}
