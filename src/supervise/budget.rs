use std::time::Duration;
use tokio::time::Instant;
pub struct Budget {
    interval: Duration,
    most_old: usize,
    last: Option<Instant>,
}
pub enum Due {
    Now,
    Waits(String),
}
impl Budget {
    pub fn new(interval: Duration, most_old: usize) -> Self {
        Self { interval, most_old, last: None }
    }
    pub fn due(&self, now: Instant, old: usize) -> Due {
        if old >= self.most_old {
            return Due::Waits(format!("{old} old workers"));
        }
        match self.last {
            Some(last) if now < last + self.interval => Due::Waits("interval".into()),
            _ => Due::Now,
        }
    }
    pub fn reloaded(&mut self, now: Instant) {
        self.last = Some(now);
    }
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.last
            .map(|l| (l + self.interval).saturating_duration_since(now))
            .filter(|d| !d.is_zero())
    }
}
