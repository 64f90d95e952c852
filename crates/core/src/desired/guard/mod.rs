//! Refuses maps that a registry in trouble would answer: empty, shrunken, overgrown or
//! mass-reassigned ones. Pure.
//!
//! A registry that lost its nodes answers `[]` with status 200; a mass expiry looks like a quiet
//! day. The guard compares what would change with what is in force, and what changed lately, and
//! holds back what an operator should review first.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::revision::ChangeCounts;

pub mod flapping;
pub mod partial;
pub mod window;

pub use flapping::Flapping;
pub use partial::Part;
pub use window::{Accepted, PastChange, Window};

/// How much of a map one change may touch: `"20%"` of the entries in force, or a number of entries.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "LimitText")]
pub enum Limit {
    /// A percentage of the entries in force, 0 to 100.
    Percent(f64),
    /// A number of entries, whatever the map's size.
    Entries(usize),
}

impl TryFrom<LimitText> for Limit {
    type Error = String;

    fn try_from(text: LimitText) -> Result<Self, String> {
        match text {
            LimitText::Number(entries) => Ok(Self::Entries(entries)),
            LimitText::Fraction(share) if (0.0..=1.0).contains(&share) => {
                // Rounded, for 0.07 * 100 is a little more than 7.
                let percent = (share * 100.0 * 1e6).round() / 1e6;
                Err(format!(
                    "{share} may be a percentage or a number; write \"{percent}%\" for this \
                        percentage of the entries in force"
                ))
            }
            LimitText::Fraction(number) => Err(wrong_limit(&number.to_string())),
            LimitText::Text(text) => match text.trim().parse::<usize>() {
                Ok(number) => Err(format!(
                    "{text:?} may be a percentage or a number; write \"{number}%\" for a \
                        percentage, or {number} without quotes for a number of entries"
                )),
                Err(_) => text.parse(),
            },
        }
    }
}

/// What may stand in the settings where a limit is expected.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write a percentage like \"20%\" (0% to 100%) or a number of entries like 500"
)]
enum LimitText {
    Number(usize),
    Fraction(f64),
    Text(String),
}

fn wrong_limit(text: &str) -> String {
    format!(
        "{text:?} is not a limit: write a percentage like \"20%\" (0% to 100%) or a number of \
            entries like 500"
    )
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || wrong_limit(text);
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim().parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => text.trim().parse().map(Self::Entries).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(out, "{percent}%"),
            Self::Entries(entries) => write!(out, "{entries} entries"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// How many of the entries in force one change may remove.
    pub max_removed: Limit,
    /// How many of the entries in force one change may send to another master.
    pub max_moved: Limit,
    /// How many entries one change may add to those in force.
    pub max_added: Limit,
    pub min_entries: usize,
    /// The most entries that a map may have; without it as many as the sources name.
    pub max_entries: Option<usize>,
    /// Maps in force with fewer entries than this are exempt from limits in per cent.
    pub small: usize,
    /// While a map has fewer entries than this, `max_added` holds nothing.
    pub free: usize,
    /// For limits in per cent the changes of this long count together, against the most entries
    /// within it.
    pub window: Duration,
    /// Whether what passes of a change of the map comes into force while the rest is held.
    pub partial: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_removed: Limit::Percent(20.0),
            max_moved: Limit::Percent(50.0),
            max_added: Limit::Percent(100.0),
            min_entries: 1,
            max_entries: None,
            small: 20,
            free: 10_000,
            window: Duration::from_secs(3600),
            partial: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Map,
    /// A backend's server list. Of `guard.min_entries`, a number of nodes, only this much holds for
    /// it: it must not be empty.
    Servers,
    /// The services of a registry, likewise.
    Services,
}

impl Subject {
    /// What it is called, and what it consists of.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Map => ("map", "entries"),
            Self::Servers => ("server list", "servers"),
            Self::Services => ("set of services", "services"),
        }
    }
}

/// What came into force within the window, beside the change that is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// The most entries that were in force.
    pub most: usize,
    pub counts: ChangeCounts,
    /// Whether the change leads to what was in force before one of those changes.
    pub is_return: bool,
    /// Entries in force before a part of what is held came into force, if one did: a removal that
    /// is held must not pass for what came beside it.
    pub before_part: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
pub struct Proposal {
    /// Entries in force; none before the first map or list.
    pub in_force: Option<usize>,
    /// Entries after the change.
    pub entries: usize,
    pub counts: ChangeCounts,
    pub recent: Recent,
}

/// Whether a map or list may be applied.
/// The error says which limit it breaks, with the figures.
pub fn check(subject: Subject, limits: &Limits, proposal: &Proposal) -> Result<(), String> {
    let Proposal { entries, counts, recent, .. } = *proposal;
    let (whole, parts) = subject.words();
    let least =
        if subject == Subject::Map { limits.min_entries } else { limits.min_entries.min(1) };
    if entries < least {
        return Err(format!(
            "the new {whole} has {entries} {parts}, guard.min_entries requires at least {least}"
        ));
    }
    // An empty map has nothing to lose.
    let in_force = proposal.in_force.unwrap_or(0);
    if let (Subject::Map, Some(most)) = (subject, limits.max_entries)
        && entries > most.max(in_force)
    {
        return Err(format!(
            "the new {whole} has {entries} {parts}, guard.max_entries allows {most}"
        ));
    }
    if in_force == 0 || recent.is_return {
        return Ok(());
    }
    // A list's servers may all get other names at once, as containers do; the damping lets the old
    // ones go slowly.
    if subject == Subject::Map && counts.removed == in_force {
        let what = if entries == 0 { "remove" } else { "replace" };
        return Err(format!(
            "the change would {what} every key of the {in_force} {parts} in force, which is held \
                at any size"
        ));
    }
    let base = recent.most.max(in_force);
    let lately = match subject {
        Subject::Map => recent.counts,
        // A deployment replaces every server one after the other: of a list only how much it shrank
        // adds up.
        Subject::Servers | Subject::Services => {
            ChangeCounts { removed: base - in_force, ..ChangeCounts::default() }
        }
    };
    for (what, setting, limit, count, before) in [
        ("remove", "max_removed", limits.max_removed, counts.removed, lately.removed),
        ("move", "max_moved", limits.max_moved, counts.moved, lately.moved),
        ("add", "max_added", limits.max_added, counts.added, lately.added),
    ] {
        let adds = what == "add";
        if count == 0 || (adds && entries < limits.free) {
            continue;
        }
        let before_part = recent.before_part.filter(|entries| !adds && *entries < base);
        let measure = before_part.unwrap_or(base);
        // No more can be removed or moved than was there; some of it was twice.
        let total = if adds { count + before } else { (count + before).min(measure) };
        let broken = match limit {
            Limit::Entries(most) => count > most,
            Limit::Percent(_) if base < limits.small => false,
            Limit::Percent(percent) => total as f64 > measure as f64 * percent / 100.0,
        };
        if broken {
            let of = if adds { "to" } else { "of" };
            let share = percentage(total, measure, limit);
            let lately = match (before, before_part) {
                (0, None) => String::new(),
                (0, Some(_)) => format!(", of {measure} before a part of the change was applied"),
                _ => format!(
                    ", {total} of {measure} within {}",
                    humantime::format_duration(limits.window)
                ),
            };
            return Err(format!(
                "the change would {what} {count} {of} the {in_force} {parts} in force{lately} \
                    ({share}%), guard.{setting} allows {limit}"
            ));
        }
    }
    Ok(())
}

/// Which per cent the part is of the whole, with as many digits as distinguish it from the limit
/// that it exceeds.
fn percentage(count: usize, in_force: usize, limit: Limit) -> String {
    let share = count as f64 * 100.0 / in_force.max(1) as f64;
    let text = |digits: usize| format!("{share:.digits$}");
    let differs = |text: &String| match limit {
        Limit::Percent(most) => text.parse().is_ok_and(|rounded: f64| rounded > most),
        Limit::Entries(_) => true,
    };
    (1..=12).map(text).find(differs).unwrap_or_else(|| text(1))
}

/// Whether a change may lead more entries to where an instance has nothing. Both are such entries
/// and all entries, before and after it. They count as removed ones do, for nobody serves them.
/// The error says which limit it breaks, with the figures; the names of the masters complete it.
pub fn check_references(
    limits: &Limits,
    before: (usize, usize),
    after: (usize, usize),
) -> Result<(), String> {
    // In an empty map nobody is served yet.
    if before.1 == 0 || after.0 <= before.0 {
        return Ok(());
    }
    let share =
        |(dangling, entries): (usize, usize)| dangling as f64 * 100.0 / entries.max(1) as f64;
    let broken = match limits.max_removed {
        Limit::Entries(most) => after.0 - before.0 > most,
        Limit::Percent(_) if before.1 < limits.small => false,
        Limit::Percent(percent) => share(after) - share(before) > percent,
    };
    if !broken {
        return Ok(());
    }
    Err(format!(
        "the change would lead {} of {} entries ({:.1}%) to masters that an instance has no ready \
            backend or server for, {} of {} are led \
         there now, guard.max_removed allows {} more",
        after.0,
        after.1,
        share(after),
        before.0,
        before.1,
        limits.max_removed
    ))
}

#[cfg(test)]
mod tests;
