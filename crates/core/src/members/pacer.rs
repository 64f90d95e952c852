//! Events of members, at most so many a second: beyond that they are counted.

use std::time::Duration;

use jiff::Timestamp;

use crate::events::{EventKind, Happening};

/// How many events of single members there are a second.
const A_SECOND: usize = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Lets so many events through.
#[derive(Debug, Clone, Default)]
pub struct EventPacer {
    since: Option<Duration>,
    told: usize,
    untold: Vec<(String, usize)>,
}

impl EventPacer {
    /// What of these is told now, after what could not be told before. `now` is the time of a
    /// steady clock.
    pub fn take(
        &mut self,
        news: impl IntoIterator<Item = Happening>,
        now: Duration,
        at: Timestamp,
    ) -> Vec<Happening> {
        let mut out = Vec::new();
        if self.since.is_none_or(|since| now.saturating_sub(since) >= SECOND) {
            (self.since, self.told) = (Some(now), 0);
            out.extend(self.counted(at));
        }
        for happening in news {
            if self.told < A_SECOND {
                self.told += 1;
                out.push(happening);
                continue;
            }
            let state = happening.state.unwrap_or_default();
            match self.untold.iter_mut().find(|(known, _)| *known == state) {
                Some((_, count)) => *count += 1,
                None => self.untold.push((state, 1)),
            }
        }
        out
    }

    /// Whether there is something to tell later.
    pub fn is_behind(&self) -> bool {
        !self.untold.is_empty()
    }

    fn counted(&mut self, at: Timestamp) -> Option<Happening> {
        if self.untold.is_empty() {
            return None;
        }
        let counts: Vec<_> =
            self.untold.drain(..).map(|(state, count)| format!("{count} {state}")).collect();
        let text = format!("more members: {}", counts.join(", "));
        Some(Happening::new(at, EventKind::Registration, "many", text).in_state("many"))
    }
}
