//! What a seed decides: the HAProxy, and what is changed and broken in which order.

use crate::support::random::Random;

/// The HAProxy of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Of those installed.
    pub haproxy: usize,
    /// Mapsmith holds the sockets.
    pub holds: bool,
}

/// What somebody does that Mapsmith is to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another answer.
    Word,
    /// Another answer, and a frontend more or less.
    Frontend,
    /// Another answer, and the rules in another order with one more or less.
    Rules,
    /// The list of servers alone: nothing is reloaded for it.
    Servers,
    /// HAProxy's file is edited.
    Edit,
    /// A line that HAProxy refuses, in `global` or in a frontend.
    BadNative { frontend: bool },
    /// A frontend on a port that somebody else has.
    TakenPort,
    /// A frontend whose certificate is not there, or is none.
    BadCertificate { is_there: bool },
    /// A template with an error that shows when it is read, or when it is rendered.
    BadTemplate { syntax: bool },
    /// Settings that can't be read.
    BadSettings,
}

impl Change {
    /// Whether it must change nothing.
    pub fn is_refused(self) -> bool {
        matches!(
            self,
            Self::BadNative { .. }
                | Self::TakenPort
                | Self::BadCertificate { .. }
                | Self::BadTemplate { .. }
                | Self::BadSettings
        )
    }
}

/// When a fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds after the change.
    After(u64),
    /// The candidate is written.
    Candidate,
    /// HAProxy checks a file.
    Check,
    /// The file is replaced.
    Switched,
    /// A worker more is there, or a master.
    Worker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and started again after so many milliseconds.
    MapsmithKilled {
        down: u64,
    },
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    MapsmithStopped {
        time: u64,
    },
    MasterKilled,
    /// The newest.
    WorkerKilled,
    OldWorkerKilled,
    MasterStopped {
        time: u64,
    },
    WorkerStopped {
        time: u64,
    },
    FolderReadOnly {
        time: u64,
    },
    DiskFull {
        time: u64,
    },
}

impl Fault {
    /// Its kind, for the figures.
    pub fn kind(self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub change: Change,
    /// One, or two one after the other.
    pub faults: Vec<(Moment, Fault)>,
    /// What the change is drawn from.
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
        let mut random = Random::new(seed.wrapping_mul(0x9e6c_63d0_876a_68ee).wrapping_add(3));
        let site = Site { haproxy: random.below(4), holds: random.chance(40) };
        let count = random.between(8, 11);
        let mut steps: Vec<_> = (0..count).map(|_| step(&mut random)).collect();
        // What is refused is judged before there is something else.
        steps.iter_mut().filter(|step| step.change.is_refused()).for_each(|step| {
            step.settles = true;
        });
        if let Some(last) = steps.last_mut() {
            (last.change, last.settles) = (Change::Word, true);
        }
        Self { site, steps }
    }
}

fn step(random: &mut Random) -> Step {
    let change = change(random);
    let count = if random.chance(30) { 2 } else { 1 };
    let faults = (0..count).map(|_| (moment(random), fault(random))).collect();
    Step { change, faults, seed: random.next_u64(), settles: random.chance(75) }
}

fn change(random: &mut Random) -> Change {
    match random.below(100) {
        0..25 => Change::Word,
        25..40 => Change::Frontend,
        40..48 => Change::Rules,
        48..60 => Change::Servers,
        60..67 => Change::Edit,
        67..76 => Change::BadNative { frontend: random.chance(50) },
        76..85 => Change::TakenPort,
        85..92 => Change::BadCertificate { is_there: random.chance(50) },
        92..97 => Change::BadTemplate { syntax: random.chance(50) },
        _ => Change::BadSettings,
    }
}

fn moment(random: &mut Random) -> Moment {
    match random.below(100) {
        0..30 => Moment::After(random.below(600) as u64),
        30..45 => Moment::Candidate,
        45..60 => Moment::Check,
        60..80 => Moment::Switched,
        _ => Moment::Worker,
    }
}

fn fault(random: &mut Random) -> Fault {
    match random.below(100) {
        0..30 => Fault::MapsmithKilled { down: random.below(700) as u64 },
        30..37 => Fault::MapsmithStopped { time: random.between(50, 1500) as u64 },
        37..50 => Fault::MasterKilled,
        50..62 => Fault::WorkerKilled,
        62..69 => Fault::OldWorkerKilled,
        69..75 => Fault::MasterStopped { time: random.between(50, 1500) as u64 },
        75..82 => Fault::WorkerStopped { time: random.between(50, 1500) as u64 },
        82..91 => Fault::FolderReadOnly { time: random.between(50, 1500) as u64 },
        _ => Fault::DiskFull { time: random.between(50, 1500) as u64 },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_says_it_all_and_every_kind_of_fault_comes_up() {
        assert_eq!(Schedule::of(7), Schedule::of(7));
        assert_ne!(Schedule::of(7), Schedule::of(8));
        let (mut kinds, mut changes) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..200 {
            let steps = Schedule::of(seed).steps;
            assert!(steps.last().is_some_and(|step| step.settles), "seed {seed}");
            for step in steps {
                assert!(step.settles || !step.change.is_refused(), "seed {seed}: {step:?}");
                changes.insert(format!("{:?}", step.change));
                kinds.extend(step.faults.iter().map(|(_, fault)| fault.kind()));
            }
        }
        assert_eq!((kinds.len(), changes.len()), (9, 13), "{kinds:?} {changes:?}");
    }
}
