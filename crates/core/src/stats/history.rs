//! What was read of one instance: the last 300 seconds of what somebody watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::stats::Row;

use super::series::{Selector, Series};
use super::{Figures, Totals};

/// How long a reading is kept.
pub const KEPT: Duration = Duration::from_secs(300);
/// The most series that are kept, over all instances: at one reading a second they and their
/// figures take 50 MB.
pub const MOST_SERIES: usize = 2000;
/// The most readings that are kept, however close together they are.
const MOST_TICKS: usize = 301;

/// Why nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// HAProxy gave no answer that could be read; why, as a person reads it.
    Unreachable(String),
    /// Another process answers: its counters began anew.
    Restarted,
    /// Nobody watched.
    Unwatched,
}

impl Gap {
    /// Its name.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Restarted => "restarted",
            Self::Unwatched => "unwatched",
        }
    }

    /// What is known beside.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Unreachable(text) => Some(text),
            Self::Restarted | Self::Unwatched => None,
        }
    }
}

/// What was heard of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub series: Arc<Series>,
    pub figures: Figures,
    pub status: Arc<str>,
}

/// What a reading came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Read {
        /// How long before the reading before was; none where there was none to compare with.
        over: Option<Duration>,
        /// The number of the demand that it was made for.
        demand: u64,
        /// By their series.
        rows: Vec<Heard>,
    },
    Gap(Gap),
}

/// One reading, or one that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Its number, from 1 on.
    pub number: u64,
    /// When it was, since the history began to be kept.
    pub at: Duration,
    /// When that was for others: milliseconds since 1970.
    pub unix_ms: i64,
    pub outcome: Outcome,
}

/// The counters of the last reading.
#[derive(Debug, Default)]
struct Before {
    at: Duration,
    pid: u32,
    totals: BTreeMap<Arc<Series>, (Totals, Arc<str>)>,
}

/// What was read of one instance.
#[derive(Debug)]
pub struct History {
    ticks: VecDeque<Arc<Tick>>,
    last: u64,
    before: Option<Arc<Before>>,
    /// The most series that it keeps.
    most: usize,
    /// How many there would be to keep beyond that.
    left_out: usize,
}

impl History {
    /// One of so many instances.
    pub fn one_of(instances: usize) -> Self {
        let most = MOST_SERIES / instances.max(1);
        Self { ticks: VecDeque::new(), last: 0, before: None, most: most.max(1), left_out: 0 }
    }

    /// Those after a number, the oldest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Arc<Tick>> {
        let known = self.ticks.front().map_or(0, |first| (number + 1).saturating_sub(first.number));
        self.ticks.iter().skip(usize::try_from(known).unwrap_or(usize::MAX))
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Arc<Tick>> {
        self.ticks.back()
    }

    /// The last before those that are not older than `age`.
    pub fn before_last(&self, age: Duration, now: Duration) -> u64 {
        let is_old = |tick: &&Arc<Tick>| now.saturating_sub(tick.at) > age;
        let old = self.ticks.iter().take_while(is_old).last();
        let first = self.ticks.front().map_or(self.last, |first| first.number - 1);
        old.map_or(first, |tick| tick.number)
    }

    /// How many watched series are not kept because there are too many, and how many are.
    pub fn left_out(&self) -> Option<(usize, usize)> {
        (self.left_out > 0).then_some((self.left_out, self.most))
    }

    /// Forgets everything but how far it has counted.
    pub fn forget(&mut self) {
        self.ticks.clear();
        self.before = None;
        self.left_out = 0;
    }

    /// Begins a reading of what `wanted` names.
    pub fn begin<'h>(&'h mut self, wanted: &'h [Selector]) -> Reading<'h> {
        let mut of_one: BTreeMap<&str, Vec<&Selector>> = BTreeMap::new();
        let mut of_all = Vec::new();
        for selector in wanted {
            match selector.backend() {
                Some(backend) => of_one.entry(backend).or_default().push(selector),
                None => of_all.push(selector),
            }
        }
        let last = self.before.clone();
        Reading {
            history: self,
            of_one,
            of_all,
            last,
            now: BTreeMap::new(),
            rows: Vec::new(),
            extra: 0,
        }
    }

    /// There is nothing to be had. The same once more is no news.
    pub fn miss(&mut self, gap: Gap, at: Duration, unix_ms: i64) {
        self.before = None;
        let is_known = self.newest().is_some_and(|last| match &last.outcome {
            Outcome::Gap(known) => known.why() == gap.why(),
            Outcome::Read { .. } => false,
        });
        if !is_known {
            self.keep(Outcome::Gap(gap), at, unix_ms);
        }
    }

    fn keep(&mut self, outcome: Outcome, at: Duration, unix_ms: i64) {
        self.last += 1;
        self.ticks.push_back(Arc::new(Tick { number: self.last, at, unix_ms, outcome }));
        while self.ticks.len() > MOST_TICKS
            || self.ticks.front().is_some_and(|first| at.saturating_sub(first.at) > KEPT)
        {
            self.ticks.pop_front();
        }
    }
}

/// A reading that is under way. One that is not ended leaves no trace.
#[derive(Debug)]
pub struct Reading<'h> {
    history: &'h mut History,
    /// What is wanted of each backend by its name, and of every one.
    of_one: BTreeMap<&'h str, Vec<&'h Selector>>,
    of_all: Vec<&'h Selector>,
    last: Option<Arc<Before>>,
    now: BTreeMap<Arc<Series>, (Totals, Arc<str>)>,
    rows: Vec<Heard>,
    extra: usize,
}

impl Reading<'_> {
    /// Takes a row, if it is wanted.
    pub fn row(&mut self, row: &Row<'_>) {
        let of_one = self.of_one.get(row.backend).into_iter().flatten();
        if !of_one.chain(&self.of_all).any(|wanted| wanted.is(row.backend, row.server)) {
            return;
        }
        if self.rows.len() >= self.history.most {
            self.extra += 1;
            return;
        }
        let series =
            Series { backend: row.backend.to_owned(), server: row.server.map(str::to_owned) };
        let known = self.last.as_ref().and_then(|last| last.totals.get_key_value(&series));
        // What is known already is not kept twice.
        let (series, status) = match known {
            Some((known, (_, status))) if **status == *row.status => {
                (Arc::clone(known), Arc::clone(status))
            }
            Some((known, _)) => (Arc::clone(known), row.status.into()),
            None => (Arc::new(series), row.status.into()),
        };
        let figures = Figures::new(row, known.map(|(_, (totals, _))| totals));
        self.now.insert(Arc::clone(&series), (row.counters, Arc::clone(&status)));
        self.rows.push(Heard { series, figures, status });
    }

    /// The reading is whole: this process has answered, for the demand of this number.
    /// How many rows it has.
    pub fn end(mut self, pid: u32, demand: u64, at: Duration, unix_ms: i64) -> usize {
        let over = self.last.as_ref().map(|last| at.saturating_sub(last.at));
        self.rows.sort_by(|one, other| one.series.cmp(&other.series));
        let is_other = self.last.as_ref().is_some_and(|last| last.pid != pid);
        if is_other {
            self.history.keep(Outcome::Gap(Gap::Restarted), at, unix_ms);
            // Whatever grew, grew in another process.
            for row in &mut self.rows {
                row.figures.forget_growth();
            }
        }
        let (over, count) = (over.filter(|_| !is_other), self.rows.len());
        self.history.keep(Outcome::Read { over, demand, rows: self.rows }, at, unix_ms);
        self.history.before = Some(Arc::new(Before { at, pid, totals: self.now }));
        self.history.left_out = self.extra;
        count
    }
}

/// The backends that selectors name; none where they name every one.
pub fn backends<'s>(wanted: impl IntoIterator<Item = &'s Selector>) -> Option<BTreeSet<&'s str>> {
    wanted.into_iter().map(Selector::backend).collect()
}
