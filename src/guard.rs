//! Refuses maps that a registry in trouble would answer: empty, shrunken or upended ones. Pure.
//!
//! A registry that lost its nodes answers `[]` with status 200; a mass expiry looks like a quiet day. The guard compares
//! what would change with what is in force, and holds back what an operator should look at first.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::model::revision::ChangeCounts;

/// How much of a map one change may touch: `"20%"` of the entries in force, or a number of entries.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "LimitText")]
pub enum Limit {
    /// A share of the entries in force, 0 to 100.
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
                Err(format!("{share} may be a share or a number; write \"{percent}%\" for this share of the entries in force"))
            }
            LimitText::Share(number) => Err(wrong_limit(&number.to_string())),
            LimitText::Text(text) => match text.trim().parse::<usize>() {
                Ok(number) => Err(format!(
                    "{text:?} may be a share or a number; write \"{number}%\" for a share, or {number} without quotes for a number of entries"
                )),
                Err(_) => text.parse(),
            },
        }
    }
}

/// What may stand in the settings where a limit is expected.
#[derive(Deserialize)]
#[serde(untagged, expecting = "write a share like \"20%\" (0% to 100%) or a number of entries like 500")]
enum LimitText {
    Number(usize),
    Share(f64),
    Text(String),
}

fn wrong_limit(text: &str) -> String {
    format!("{text:?} is no limit: write a share like \"20%\" (0% to 100%) or a number of entries like 500")
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
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many of the entries in force one change may remove.
    pub max_removed: Limit,
    /// How many of the entries in force one change may send to another master.
    pub max_moved: Limit,
    /// The fewest entries that a map must have.
    pub min_entries: usize,
    /// Maps in force with fewer entries than this are exempt from limits in per cent.
    pub small: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_removed: Limit::Percent(20.0), max_moved: Limit::Percent(50.0), min_entries: 1, small: 20 }
    }
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The node map.
    Map,
    /// A backend's server list. Of `guard.min_entries`, a number of nodes, only this much holds for it: it must not be empty.
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

/// Whether a map or list with `entries` entries, which differs from the one in force (of `in_force` entries; none before the
/// first) by `counts`, may be applied.
///
/// # Errors
/// Which limit it breaks, with the figures: one sentence for a person.
pub fn judge(
    subject: Subject,
    limits: &Limits,
    in_force: Option<usize>,
    entries: usize,
    counts: ChangeCounts,
) -> Result<(), String> {
    let (whole, parts) = subject.words();
    let least = if subject == Subject::Map { limits.min_entries } else { limits.min_entries.min(1) };
    if entries < least {
        return Err(format!("the new {whole} has {entries} {parts}, guard.min_entries asks for at least {least}"));
    }
    let Some(in_force) = in_force else { return Ok(()) };
    for (what, setting, limit, count) in
        [("remove", "max_removed", limits.max_removed, counts.removed), ("move", "max_moved", limits.max_moved, counts.moved)]
    {
        let broken = match limit {
            Limit::Entries(most) => count > most,
            Limit::Percent(_) if in_force < limits.small => false,
            Limit::Percent(percent) => count as f64 > in_force as f64 * percent / 100.0,
        };
        if broken {
            let share = share(count, in_force, limit);
            return Err(format!(
                "the change would {what} {count} of the {in_force} {parts} in force ({share}%), guard.{setting} allows {limit}"
            ));
        }
    }
    Ok(())
}

/// Which per cent the part is of the whole, with as many digits as tell it from the limit that it is over.
fn share(count: usize, in_force: usize, limit: Limit) -> String {
    let share = count as f64 * 100.0 / in_force.max(1) as f64;
    let shown = |digits: usize| format!("{share:.digits$}");
    let told = |text: &String| match limit {
        Limit::Percent(most) => text.parse().is_ok_and(|shown: f64| shown > most),
        Limit::Entries(_) => true,
    };
    (1..=12).map(shown).find(told).unwrap_or_else(|| shown(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(moved: usize, removed: usize) -> ChangeCounts {
        ChangeCounts { added: 0, moved, removed }
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
            "the change would remove 21 of the 100 entries in force (21.0%), guard.max_removed allows 20%"
        );
        assert_eq!(
            judge(Subject::Map, &limits, Some(100), 100, counts(51, 0)).unwrap_err(),
            "the change would move 51 of the 100 entries in force (51.0%), guard.max_moved allows 50%"
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
            let reason = judge(Subject::Map, &limits, Some(in_force), in_force - removed, counts(0, removed)).unwrap_err();
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
    fn a_server_list_is_judged_like_a_map_but_for_the_least_size() {
        let limits = Limits { min_entries: 1000, ..Limits::default() };
        assert_eq!(judge(Subject::Servers, &limits, None, 1, counts(0, 0)), Ok(()));
        assert_eq!(
            judge(Subject::Servers, &limits, Some(3), 0, counts(0, 3)).unwrap_err(),
            "the new server list has 0 servers, guard.min_entries asks for at least 1"
        );
        assert_eq!(
            judge(Subject::Servers, &limits, Some(20), 10, counts(0, 10)).unwrap_err(),
            "the change would remove 10 of the 20 servers in force (50.0%), guard.max_removed allows 20%"
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
