//! Refuses maps that a registry in trouble would answer: empty, shrunken, overgrown or mass-reassigned
//! ones. Pure.
//!
//! A registry that lost its nodes answers `[]` with status 200; a mass expiry looks like a quiet
//! day. The guard compares what would change with what is in force, and what changed lately, and
//! holds back what an operator should look at first.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::revision::ChangeCounts;

pub mod flapping;
pub mod window;

pub use flapping::Flapping;
pub use window::{Accepted, Window};

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
            LimitText::Share(share) if (0.0..=1.0).contains(&share) => {
                // Rounded, for 0.07 * 100 is a little more than 7.
                let percent = (share * 100.0 * 1e6).round() / 1e6;
                Err(format!(
                    "{share} may be a percentage or a number; write \"{percent}%\" for this percentage of \
                        the entries in force"
                ))
            }
            LimitText::Share(number) => Err(wrong_limit(&number.to_string())),
            LimitText::Text(text) => match text.trim().parse::<usize>() {
                Ok(number) => Err(format!(
                    "{text:?} may be a percentage or a number; write \"{number}%\" for a percentage, or \
                        {number} without quotes for a number of entries"
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
    Share(f64),
    Text(String),
}

fn wrong_limit(text: &str) -> String {
    format!(
        "{text:?} is not a limit: write a percentage like \"20%\" (0% to 100%) or a number of entries \
            like 500"
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

/// The guard's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// How many of the entries in force one change may remove.
    pub max_removed: Limit,
    /// How many of the entries in force one change may send to another master.
    pub max_moved: Limit,
    /// How many entries one change may add to those in force.
    pub max_added: Limit,
    /// The fewest entries that a map must have.
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
        }
    }
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The node map.
    Map,
    /// A backend's server list. Of `guard.min_entries`, a number of nodes, only this much holds for
    /// it: it must not be empty.
    Servers,
}

impl Subject {
    /// What it is called, and what it consists of.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Map => ("map", "entries"),
            Self::Servers => ("server list", "servers"),
        }
    }
}

/// What came into force within the window, beside the change that is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// The most entries that were in force.
    pub most: usize,
    /// All that changed.
    pub counts: ChangeCounts,
    /// Whether the change leads to what was in force before one of those changes.
    pub is_return: bool,
}

/// A change as the guard sees it.
#[derive(Debug, Clone, Copy)]
pub struct Proposal {
    /// Entries in force; none before the first map or list.
    pub in_force: Option<usize>,
    /// Entries after the change.
    pub entries: usize,
    /// What it changes.
    pub counts: ChangeCounts,
    /// What came into force lately.
    pub recent: Recent,
}

/// Whether a map or list may be applied.
///
/// # Errors
/// Which limit it breaks, with the figures: one sentence for a person.
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
        Subject::Servers => ChangeCounts { removed: base - in_force, ..ChangeCounts::default() },
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
        // No more can be removed or moved than was there; some of it was twice.
        let total = if adds { count + before } else { (count + before).min(base) };
        let broken = match limit {
            Limit::Entries(most) => count > most,
            Limit::Percent(_) if base < limits.small => false,
            Limit::Percent(percent) => total as f64 > base as f64 * percent / 100.0,
        };
        if broken {
            let of = if adds { "to" } else { "of" };
            let share = share(total, base, limit);
            let lately = match before {
                0 => String::new(),
                _ => format!(
                    ", {total} of {base} within {}",
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

/// Which per cent the part is of the whole, with as many digits as tell it from the limit that it
/// is over.
fn share(count: usize, in_force: usize, limit: Limit) -> String {
    let share = count as f64 * 100.0 / in_force.max(1) as f64;
    let shown = |digits: usize| format!("{share:.digits$}");
    let told = |text: &String| match limit {
        Limit::Percent(most) => text.parse().is_ok_and(|shown: f64| shown > most),
        Limit::Entries(_) => true,
    };
    (1..=12).map(shown).find(told).unwrap_or_else(|| shown(1))
}

/// Whether a change may lead more entries to where an instance has nothing. Both are such entries
/// and all entries, before and after it. They count as removed ones do, for nobody serves them.
///
/// # Errors
/// Which limit it breaks, with the figures: a sentence that the names of the masters complete.
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
mod tests {
    use super::*;

    fn counts(moved: usize, removed: usize) -> ChangeCounts {
        ChangeCounts { added: 0, moved, removed }
    }

    /// A verdict on a change with nothing lately.
    fn judge(
        subject: Subject,
        limits: &Limits,
        in_force: Option<usize>,
        entries: usize,
        counts: ChangeCounts,
    ) -> Result<(), String> {
        super::check(
            subject,
            limits,
            &Proposal { in_force, entries, counts, recent: Recent::default() },
        )
    }

    #[test]
    fn an_empty_answer_is_held_even_at_the_first_start() {
        let reason = judge(Subject::Map, &Limits::default(), None, 0, counts(0, 0)).unwrap_err();
        assert!(reason.contains("0 entries") && reason.contains("guard.min_entries"), "{reason}");
        assert!(judge(Subject::Map, &Limits::default(), Some(10), 0, counts(0, 10)).is_err());
    }

    #[test]
    fn a_change_at_the_limit_passes_and_one_entry_more_is_held() {
        let limits = Limits::default();
        assert_eq!(judge(Subject::Map, &limits, Some(100), 80, counts(50, 20)), Ok(()));
        assert_eq!(
            judge(Subject::Map, &limits, Some(100), 79, counts(0, 21)).unwrap_err(),
            "the change would remove 21 of the 100 entries in force (21.0%), guard.max_removed \
                allows 20%"
        );
        assert_eq!(
            judge(Subject::Map, &limits, Some(100), 100, counts(51, 0)).unwrap_err(),
            "the change would move 51 of the 100 entries in force (51.0%), guard.max_moved allows \
                50%"
        );
    }

    #[test]
    fn the_figures_of_a_broken_limit_are_never_equal() {
        let limits = |percent| Limits { max_removed: Limit::Percent(percent), ..Limits::default() };
        for (percent, removed, in_force, told) in [
            (50.0, 50_001, 100_000, "(50.001%), guard.max_removed allows 50%"),
            (50.0, 500_001, 1_000_000, "(50.0001%), guard.max_removed allows 50%"),
            (12.5, 126, 1_000, "(12.6%), guard.max_removed allows 12.5%"),
            (33.3, 1, 3, "(33.33%), guard.max_removed allows 33.3%"),
            (20.0, 21, 100, "(21.0%), guard.max_removed allows 20%"),
            (0.0, 1, 1_000_000, "(0.0001%), guard.max_removed allows 0%"),
        ] {
            let limits = Limits { small: 0, ..limits(percent) };
            let reason = judge(
                Subject::Map,
                &limits,
                Some(in_force),
                in_force - removed,
                counts(0, removed),
            )
            .unwrap_err();
            assert!(reason.ends_with(told), "{reason}");
        }
    }

    #[test]
    fn small_maps_are_exempt_from_shares_but_not_from_numbers() {
        assert_eq!(judge(Subject::Map, &Limits::default(), Some(19), 1, counts(1, 18)), Ok(()));
        assert!(judge(Subject::Map, &Limits::default(), Some(20), 1, counts(1, 18)).is_err());
        let limits = Limits { max_removed: Limit::Entries(5), ..Limits::default() };
        assert!(judge(Subject::Map, &limits, Some(19), 13, counts(0, 6)).is_err());
        assert_eq!(judge(Subject::Map, &limits, Some(1_000_000), 999_995, counts(0, 5)), Ok(()));
    }

    #[test]
    fn the_first_map_ever_only_has_to_be_large_enough() {
        assert_eq!(judge(Subject::Map, &Limits::default(), None, 1, counts(0, 0)), Ok(()));
    }

    #[test]
    fn growth_is_held_once_the_map_is_large_and_a_ceiling_holds_at_any_size() {
        let added = |added| ChangeCounts { added, ..ChangeCounts::default() };
        let limits = Limits::default();
        assert_eq!(judge(Subject::Map, &limits, Some(200), 9_999, added(9_799)), Ok(()));
        assert_eq!(judge(Subject::Map, &limits, Some(10_000), 20_000, added(10_000)), Ok(()));
        assert_eq!(
            judge(Subject::Map, &limits, Some(200), 2_000_200, added(2_000_000)).unwrap_err(),
            "the change would add 2000000 to the 200 entries in force (1000000.0%), \
                guard.max_added allows 100%"
        );
        assert_eq!(
            judge(Subject::Map, &limits, Some(0), 2_000_000, added(2_000_000)),
            Ok(()),
            "a first fill"
        );
        let number = Limits { max_added: Limit::Entries(500), ..Limits::default() };
        assert_eq!(judge(Subject::Map, &number, Some(20_000), 20_500, added(500)), Ok(()));
        assert!(judge(Subject::Map, &number, Some(20_000), 20_501, added(501)).is_err());
        let ceiling = Limits { max_entries: Some(300), ..Limits::default() };
        assert_eq!(judge(Subject::Map, &ceiling, Some(200), 300, added(100)), Ok(()));
        for in_force in [None, Some(0), Some(200)] {
            assert_eq!(
                judge(Subject::Map, &ceiling, in_force, 301, added(101)).unwrap_err(),
                "the new map has 301 entries, guard.max_entries allows 300"
            );
        }
        assert_eq!(
            judge(Subject::Map, &ceiling, Some(400), 399, counts(0, 1)),
            Ok(()),
            "on its way back under it"
        );
        assert_eq!(judge(Subject::Servers, &ceiling, Some(400), 401, added(1)), Ok(()));
    }

    #[test]
    fn what_went_lately_counts_with_what_goes_now_against_the_most_that_there_was() {
        let lately =
            |moved, removed| Recent { most: 200, counts: counts(moved, removed), is_return: false };
        let judge = |in_force, entries, counts, recent| {
            super::check(
                Subject::Map,
                &Limits::default(),
                &Proposal { in_force: Some(in_force), entries, counts, recent },
            )
        };
        assert_eq!(judge(180, 160, counts(0, 20), lately(0, 20)), Ok(()));
        assert_eq!(
            judge(160, 128, counts(0, 32), lately(0, 40)).unwrap_err(),
            "the change would remove 32 of the 160 entries in force, 72 of 200 within 1h (36.0%), \
                guard.max_removed allows 20%"
        );
        assert!(
            judge(15, 14, counts(0, 1), lately(0, 185)).is_err(),
            "it was not small within the window"
        );
        assert_eq!(
            judge(160, 160, counts(10, 0), lately(0, 60)),
            Ok(()),
            "what went lately holds no other change"
        );
        assert!(judge(200, 200, counts(60, 0), lately(60, 0)).is_err());
        let recent = Recent { is_return: true, ..lately(0, 40) };
        assert_eq!(judge(160, 20, counts(0, 140), recent), Ok(()), "it was like that before");
        let all = Limits { max_moved: Limit::Percent(100.0), ..Limits::default() };
        let recent = lately(200, 0);
        let proposal =
            Proposal { in_force: Some(200), entries: 200, counts: counts(200, 0), recent };
        assert_eq!(
            super::check(Subject::Map, &all, &proposal),
            Ok(()),
            "100% allows everything, twice too"
        );
    }

    #[test]
    fn servers_that_are_replaced_one_after_the_other_never_add_up_and_a_list_that_shrinks_does() {
        let lately =
            |moved, removed| Recent { most: 20, counts: counts(moved, removed), is_return: false };
        let judge = |in_force, entries, counts, recent| {
            super::check(
                Subject::Servers,
                &Limits::default(),
                &Proposal { in_force: Some(in_force), entries, counts, recent },
            )
        };
        assert_eq!(judge(20, 20, counts(0, 1), lately(0, 19)), Ok(()));
        assert_eq!(judge(20, 20, counts(1, 0), lately(19, 0)), Ok(()));
        assert_eq!(judge(17, 16, counts(0, 1), lately(0, 3)), Ok(()));
        assert!(judge(16, 15, counts(0, 1), lately(0, 4)).is_err());
    }

    #[test]
    fn no_map_loses_every_key_at_once_however_small() {
        for (in_force, entries, word) in
            [(1, 1, "replace"), (3, 5, "replace"), (19, 1, "replace"), (3, 0, "remove")]
        {
            let limits =
                Limits { min_entries: 0, max_removed: Limit::Percent(100.0), ..Limits::default() };
            let reason = judge(Subject::Map, &limits, Some(in_force), entries, counts(0, in_force))
                .unwrap_err();
            assert!(
                reason.contains(&format!("{word} every key of the {in_force} entries")),
                "{reason}"
            );
        }
        assert_eq!(judge(Subject::Map, &Limits::default(), Some(3), 1, counts(0, 2)), Ok(()));
        assert_eq!(
            judge(Subject::Map, &Limits::default(), Some(3), 3, counts(3, 0)),
            Ok(()),
            "moves of a few nodes are no loss"
        );
    }

    #[test]
    fn entries_that_point_nowhere_are_held_when_their_share_grows_beyond_the_limit() {
        let limits = Limits::default();
        let judge = |before, after| check_references(&limits, before, after);
        assert_eq!(judge((0, 100), (20, 100)), Ok(()));
        assert_eq!(
            judge((0, 100), (50, 100)).unwrap_err(),
            "the change would lead 50 of 100 entries (50.0%) to masters that an instance has no \
                ready backend or server for, 0 of 100 are \
             led there now, guard.max_removed allows 20% more"
        );
        assert_eq!(judge((100, 100), (200, 200)), Ok(()), "the gateway has none of them yet");
        assert_eq!(judge((50, 100), (40, 41)), Ok(()), "fewer than before");
        assert_eq!(judge((0, 0), (50, 50)), Ok(()), "a first fill");
        assert_eq!(judge((0, 19), (19, 19)), Ok(()), "a small map");
        assert!(judge((0, 100), (100, 200)).is_err(), "new nodes count too");
        let number = Limits { max_removed: Limit::Entries(5), ..Limits::default() };
        assert!(check_references(&number, (1, 10), (7, 10)).is_err());
        assert_eq!(check_references(&number, (1, 10), (6, 10)), Ok(()));
    }

    #[test]
    fn a_server_list_is_judged_like_a_map_but_for_the_least_size() {
        let limits = Limits { min_entries: 1000, ..Limits::default() };
        assert_eq!(judge(Subject::Servers, &limits, None, 1, counts(0, 0)), Ok(()));
        assert_eq!(
            judge(Subject::Servers, &limits, Some(3), 0, counts(0, 3)).unwrap_err(),
            "the new server list has 0 servers, guard.min_entries requires at least 1"
        );
        assert_eq!(
            judge(Subject::Servers, &limits, Some(20), 10, counts(0, 10)).unwrap_err(),
            "the change would remove 10 of the 20 servers in force (50.0%), guard.max_removed \
                allows 20%"
        );
        assert_eq!(judge(Subject::Servers, &limits, Some(19), 1, counts(0, 18)), Ok(()));
    }

    #[test]
    fn limits_are_written_as_shares_or_numbers() {
        assert_eq!("20%".parse(), Ok(Limit::Percent(20.0)));
        assert_eq!("2.5 %".parse(), Ok(Limit::Percent(2.5)));
        assert_eq!("500".parse(), Ok(Limit::Entries(500)));
        for wrong in ["", "%", "-1%", "101%", "NaN%", "many"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
        }
    }
}
