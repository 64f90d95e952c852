//! What a seed decides: the registry, how it is followed, and what fails in which order.

use crate::managed::faults::schedule;
use crate::support::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ZooKeeper,
    Etcd,
    Consul,
}

/// The registry and the HAProxy of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub kind: Kind,
    pub haproxy: schedule::Site,
    /// It is polled by the clock; else what is not told is not seen.
    pub polled: bool,
    /// Servers that are listed no more stay for a moment, and go in parts.
    pub damped: bool,
    /// It lists so many servers that the guard counts them.
    pub large: bool,
}

/// What fails. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, beside what fails meanwhile.
    Nothing,
    /// Every connection closes.
    ConnectionsClosed,
    /// New connections close after so many bytes of an answer, for so long.
    LineCut { bytes: usize, time: u64 },
    /// From this byte on all are other ones. Not of ZooKeeper, whose answers have no checksum.
    LineGarbled { bytes: usize, time: u64 },
    /// New connections fall silent after so many bytes.
    LineSilent { bytes: usize, time: u64 },
    /// All connections fall silent, and none closes.
    Silence { time: u64 },
    /// Mapsmith stands still until the registry has forgotten whoever listened.
    SessionLost,
    /// SIGKILL, and started again.
    Killed { down: u64 },
    /// SIGSTOP and SIGCONT.
    Stopped { time: u64 },
    /// No member is listed any more: at once, or one after the other.
    Emptied { at_once: bool },
    /// Half of the members of a large list are gone at once, until they are back, or an operator
    /// has said that this is right.
    Shrunk { approved: bool },
    /// SIGKILL, and started again with nothing of what it knew.
    Lost,
    /// Mapsmith may not read any more; it asks again by itself once it may, or is told to.
    Refused { told: bool },
}

/// What fails, or happens, in the midst of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    MapsmithKilled {
        down: u64,
    },
    /// By other settings.
    HaproxyReloaded,
    /// By a signal that is not Mapsmith's.
    HaproxySignalled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    pub meanwhile: Option<Meanwhile>,
    /// What the members' moves are drawn from.
    pub seed: u64,
    /// All must be in force before the next one.
    pub settles: bool,
}

/// All that a seed decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub site: Site,
    pub steps: Vec<Step>,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(5));
        // Three seeds in a row have one of each.
        let kinds = [Kind::ZooKeeper, Kind::Etcd, Kind::Consul];
        let kind = kinds[(seed % kinds.len() as u64) as usize];
        let haproxy = schedule::Site { haproxy: random.below(4), holds: random.chance(20) };
        let (polled, damped, large) = (random.chance(50), random.chance(30), random.chance(25));
        let site = Site { kind, haproxy, polled, damped, large };
        let count = random.between(5, 7);
        let mut steps: Vec<_> = (0..count).map(|_| step(&site, &mut random)).collect();
        if let Some(last) = steps.last_mut() {
            last.settles = true;
        }
        // Or so much would change at once that the guard holds it.
        steps.iter_mut().for_each(|step| step.settles |= site.large);
        Self { site, steps }
    }
}

impl Fault {
    /// Its kind, for the figures.
    pub fn kind(self) -> String {
        name_of(&format!("{self:?}"))
    }
}

impl Meanwhile {
    pub fn kind(self) -> String {
        name_of(&format!("{self:?}"))
    }
}

fn name_of(text: &str) -> String {
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn step(site: &Site, random: &mut Random) -> Step {
    let fault = fault(site, random);
    let meanwhile =
        (fault == Fault::Nothing || random.chance(35)).then(|| match random.below(100) {
            0..50 => Meanwhile::MapsmithKilled { down: random.below(400) as u64 },
            50..75 => Meanwhile::HaproxyReloaded,
            _ => Meanwhile::HaproxySignalled,
        });
    Step { fault, meanwhile, seed: random.next_u64(), settles: random.chance(75) }
}

fn fault(site: &Site, random: &mut Random) -> Fault {
    let (bytes, time) = (random.below(900), random.between(50, 1200) as u64);
    match random.below(100) {
        0..10 => Fault::Nothing,
        10..18 => Fault::ConnectionsClosed,
        18..28 => Fault::LineCut { bytes, time },
        28..35 if site.kind == Kind::ZooKeeper => Fault::LineCut { bytes: bytes / 10, time },
        28..35 => Fault::LineGarbled { bytes, time },
        35..42 => Fault::LineSilent { bytes, time },
        42..50 => Fault::Silence { time },
        50..60 => Fault::SessionLost,
        60..70 => Fault::Killed { down: time },
        70..76 => Fault::Stopped { time },
        76..83 if site.large => Fault::Shrunk { approved: random.chance(50) },
        76..86 => Fault::Emptied { at_once: random.chance(80) },
        86..92 => Fault::Lost,
        _ => Fault::Refused { told: random.chance(60) },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_says_it_all_and_every_kind_of_fault_comes_up() {
        assert_eq!(Schedule::of(7), Schedule::of(7));
        assert_ne!(Schedule::of(7), Schedule::of(10));
        let (mut kinds, mut meanwhile) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..200 {
            let Schedule { site, steps } = Schedule::of(seed);
            assert!(steps.last().is_some_and(|step| step.settles), "seed {seed}");
            for step in steps {
                kinds.insert(format!("{:?} {}", site.kind, step.fault.kind()));
                meanwhile.extend(step.meanwhile.map(Meanwhile::kind));
            }
        }
        assert_eq!((kinds.len(), meanwhile.len()), (3 * 13 - 1, 3), "{kinds:?} {meanwhile:?}");
    }
}
