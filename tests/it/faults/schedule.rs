//! What a seed decides: the site, and the faults with the moves of nodes between them. Nothing here
//! looks at anything else.

use crate::support::random::Random;

/// How requests find their master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// One backend a master, chosen by the map alone: what the map says is what a client gets.
    Map,
    /// One backend of all masters: a master that is not the owner is followed by another in the
    /// same request.
    Redispatch,
}

/// When sources are polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    EverySecond,
    Cron,
    OnRequest,
}

/// The site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Of the installed HAProxies, counted round.
    pub haproxy: usize,
    pub instances: usize,
    pub nodes: usize,
    pub sources: usize,
    pub routing: Routing,
    pub polling: Polling,
    /// Gateways have a master process, and can be reloaded.
    pub master_worker: bool,
    /// A backend whose servers a source lists is one of the masters.
    pub servers: bool,
    /// There is a store, and nodes are pinned.
    pub pins: bool,
}

/// A registry's bad answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Status 500.
    Broken,
    /// A page where data should be.
    Page,
    /// A list where an object should be.
    Shape,
    /// `{}`.
    Empty,
    /// Every third node, in a valid document.
    Part,
    /// A body that ends in the middle, its length right.
    HalfText,
    /// A connection that ends in the middle of the body.
    CutOff,
    /// No answer.
    Hangs,
    /// The connection closes before the answer.
    Closes,
}

impl Bad {
    const ALL: [Self; 9] = [
        Self::Broken,
        Self::Page,
        Self::Shape,
        Self::Empty,
        Self::Part,
        Self::HalfText,
        Self::CutOff,
        Self::Hangs,
        Self::Closes,
    ];
}

/// Where Mapsmith is killed while it writes the map file: at a system call, which is not carried
/// out.
const CALLS: [(&str, usize); 4] = [("fchmod", 1), ("fsync", 1), ("rename", 1), ("fsync", 2)];

/// What a broken disk fails at: the replacement's sync and the folder's, which are the first and
/// the second of a write, and the rename.
const BROKEN: [(&str, &str); 4] =
    [("fsync", "1+2"), ("fsync", "2+2"), ("fsync", "2+2"), ("rename", "1+")];

/// Where else: each command to HAProxy begins with this one, so that the number of calls says which
/// step it is.
const EACH_STEP: &str = "connect";

/// The commands at which it is killed: a place in each part of a change, and of a look.
const COMMANDS: [(&str, usize); 10] = [
    ("prepare map", 1),
    ("add map @", 1),
    ("add map @", 3),
    ("show map @", 1),
    ("commit map", 1),
    ("set map", 1),
    ("show map", 1),
    ("show info", 1),
    ("add server", 1),
    ("set server", 1),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every HAProxy and Mapsmith are killed, and started again.
    PowerCut,
    GatewayKilled {
        instance: usize,
        down: u64,
    },
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    GatewayStopped {
        instance: usize,
        time: u64,
    },
    GatewayReloaded {
        instance: usize,
    },
    /// Killed, and started with the map file as it was so many settled states ago, while Mapsmith
    /// runs or not.
    GatewayAged {
        instance: usize,
        back: usize,
        mapsmith: bool,
    },
    /// SIGTERM, and started again after so many milliseconds.
    MapsmithEnded {
        down: u64,
    },
    /// SIGKILL while a command is on its way, which then arrives or does not.
    MapsmithKilledAtCommand {
        instance: usize,
        command: &'static str,
        nth: usize,
        arrives: bool,
    },
    /// Killed at the `nth` such system call from now on.
    MapsmithKilledAtCall {
        call: &'static str,
        nth: usize,
    },
    /// Killed by the system as it writes beyond so many bytes of a file.
    MapsmithKilledInFile {
        bytes: u64,
    },
    RegistryBad {
        source: usize,
        bad: Bad,
        restart: bool,
    },
    /// The right answer, over so many milliseconds.
    RegistrySlow {
        source: usize,
        time: u64,
    },
    /// The right answer, among rows that no map may have.
    RegistryOdd {
        source: usize,
    },
    /// What was right so many settled states ago, then right again.
    RegistryOld {
        back: usize,
    },
    ServerListBad {
        bad: Bad,
    },
    /// So many in a hundred commands are lost, cut, broken, late or unanswered.
    Sockets {
        instance: usize,
        percent: usize,
        time: u64,
        seed: u64,
    },
    /// Nobody can connect.
    SocketAbsent {
        instance: usize,
        time: u64,
    },
    MapDiskFull {
        killed: Option<usize>,
    },
    MapDiskReadOnly {
        killed: Option<usize>,
    },
    /// Such a system call of Mapsmith fails, as `strace` counts them, as with a disk that breaks.
    MapDiskBroken {
        call: &'static str,
        which: &'static str,
    },
    StoreDiskFull,
    /// The clock steps to so many seconds from the right time.
    Clock {
        seconds: i64,
    },
    /// Mapsmith is killed and started while a registry answers badly; then others change maps and
    /// file, and orders are given.
    RestartInOutage {
        source: usize,
        bad: Bad,
    },
    /// The registry's document changes, and its version does not.
    RegistryLies {
        source: usize,
        /// Of the registry's versions.
        version: usize,
    },
    /// Where the map file was is a FIFO.
    MapFileFifo,
    /// Every call that has to do with the map file or its folder waits, as on a mount whose server
    /// is gone.
    MapDiskHung,
    /// So many clients of the API send the beginning of a request, and wait.
    HalfRequests {
        clients: usize,
    },
    /// A second Mapsmith on the same HAProxies and map file: with other registries, or with the
    /// same ones and `--take-over`.
    SecondMapsmith {
        takes_over: bool,
    },
    /// A registry loses a few nodes at each poll.
    RegistryCreeps,
    /// A node goes back and forth.
    NodeFlaps,
    /// An operator goes back to an older map, and resumes; Mapsmith is killed after the order.
    RolledBack {
        killed: bool,
    },
    /// The same in one gateway first.
    Canary {
        promote: bool,
        killed: Killed,
    },
}

/// Who is killed while a canary is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    Nobody,
    /// Mapsmith, right after the order.
    AtOnce,
    /// Mapsmith, while it bakes.
    Later,
    /// The canary's own.
    Gateway,
}

impl Killed {
    const ALL: [Self; 4] = [Self::Nobody, Self::AtOnce, Self::Later, Self::Gateway];
}

impl Fault {
    /// Its kind, for the figures.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }

    /// It begins and is judged with everything in sync.
    pub fn needs_rest(&self) -> bool {
        matches!(
            self,
            Self::RegistryBad { .. }
                | Self::RegistryOld { .. }
                | Self::ServerListBad { .. }
                | Self::MapDiskFull { .. }
                | Self::MapDiskReadOnly { .. }
                | Self::MapDiskBroken { .. }
                | Self::StoreDiskFull
                | Self::RestartInOutage { .. }
                | Self::RegistryLies { .. }
                | Self::MapFileFifo
                | Self::MapDiskHung
                | Self::HalfRequests { .. }
                | Self::SecondMapsmith { .. }
                | Self::RegistryCreeps
                | Self::NodeFlaps
                | Self::RolledBack { .. }
                | Self::Canary { .. }
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    /// What the moves of this step are drawn from.
    pub seed: u64,
    /// Everything must be in sync again before the next one.
    pub settles: bool,
    /// Every socket is bad besides, while the fault lasts: this many in a hundred commands suffer.
    pub weather: Option<usize>,
}

/// All that a seed decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub site: Site,
    pub steps: Vec<Step>,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1));
        let routing = if random.chance(25) { Routing::Redispatch } else { Routing::Map };
        let site = Site {
            haproxy: random.below(4),
            instances: random.between(1, 2),
            nodes: *random.pick(&[10, 25, 60, 150, 400, 1000, 2000]),
            sources: random.between(1, 2),
            routing,
            polling: *random.pick(&[
                Polling::EverySecond,
                Polling::EverySecond,
                Polling::Cron,
                Polling::OnRequest,
            ]),
            master_worker: random.chance(50),
            servers: random.chance(50) && routing == Routing::Map,
            pins: random.chance(50),
        };
        let count = random.between(8, 12);
        let mut steps: Vec<_> = (0..count).map(|_| step(&site, &mut random)).collect();
        // Two steps may pile up, not more: what moved in between must stay within what the guard
        // lets pass.
        for at in 1..steps.len() {
            if !steps[at - 1].settles
                || steps.get(at + 1).is_none_or(|next| next.fault.needs_rest())
            {
                steps[at].settles = true;
            }
        }
        if steps[1].fault.needs_rest() {
            steps[0].settles = true;
        }
        steps.extend(later_steps(seed, &site));
        steps.extend(operators_steps(seed, &site));
        Self { site, steps }
    }
}

/// Faults that the first schedules did not know: of a chance of their own and behind the others, so
/// that these stayed what they were.
fn later_steps(seed: u64, site: &Site) -> Vec<Step> {
    let mut random = Random::new(!seed);
    let count = random.between(2, 3);
    (0..count)
        .map(|_| Step {
            fault: later_fault(site, &mut random),
            seed: random.next_u64(),
            settles: true,
            weather: None,
        })
        .collect()
}

/// What an operator does, which needs a store; likewise behind the others.
fn operators_steps(seed: u64, site: &Site) -> Vec<Step> {
    let mut random = Random::new(seed.rotate_left(17) ^ !0x5eed);
    let count = if site.pins { random.between(1, 2) } else { 0 };
    let fault = |random: &mut Random| match site.instances > 1 && random.chance(70) {
        true => Fault::Canary { promote: random.chance(50), killed: *random.pick(&Killed::ALL) },
        false => Fault::RolledBack { killed: random.chance(50) },
    };
    (0..count)
        .map(|_| Step {
            fault: fault(&mut random),
            seed: random.next_u64(),
            settles: true,
            weather: None,
        })
        .collect()
}

fn later_fault(site: &Site, random: &mut Random) -> Fault {
    let source = random.below(site.sources);
    match random.below(100) {
        0..25 => Fault::RestartInOutage { source, bad: *random.pick(&Bad::ALL) },
        25..38 => Fault::RegistryLies { source, version: random.below(2) },
        38..48 => Fault::MapFileFifo,
        48..58 => Fault::MapDiskHung,
        58..68 => Fault::HalfRequests { clients: 1010 },
        // Without a store the second one would not know of pins.
        68..80 => Fault::SecondMapsmith { takes_over: random.chance(50) && !site.pins },
        80..90 => Fault::RegistryCreeps,
        _ => Fault::NodeFlaps,
    }
}

fn step(site: &Site, random: &mut Random) -> Step {
    let fault = fault(site, random);
    let (seed, settles) = (random.next_u64(), random.chance(60));
    // Of its own chance; and not where everything must be in sync before the fault is over.
    let mut own = Random::new(!seed);
    let waits = matches!(
        fault,
        Fault::RegistryOdd { .. } | Fault::RegistryOld { .. } | Fault::Sockets { .. }
    );
    let weather = (!waits && own.chance(25)).then(|| own.between(3, 25));
    Step { fault, seed, settles, weather }
}

fn fault(site: &Site, random: &mut Random) -> Fault {
    let instance = random.below(site.instances);
    let source = random.below(site.sources);
    match random.below(100) {
        0..3 => Fault::PowerCut,
        3..10 => Fault::GatewayKilled { instance, down: random.below(500) as u64 },
        10..16 => Fault::GatewayStopped { instance, time: random.between(100, 2500) as u64 },
        16..22 if site.master_worker => Fault::GatewayReloaded { instance },
        16..22 => Fault::GatewayKilled { instance, down: 0 },
        22..28 => {
            Fault::GatewayAged { instance, back: random.between(1, 3), mapsmith: random.chance(50) }
        }
        28..33 => Fault::MapsmithEnded { down: random.below(500) as u64 },
        33..44 => {
            let (command, nth) = *random.pick(&COMMANDS);
            Fault::MapsmithKilledAtCommand { instance, command, nth, arrives: random.chance(50) }
        }
        44..51 => {
            let each = (EACH_STEP, random.between(1, 12));
            let (call, nth) = if random.chance(40) { each } else { *random.pick(&CALLS) };
            Fault::MapsmithKilledAtCall { call, nth }
        }
        51..54 => Fault::MapsmithKilledInFile { bytes: random.below(site.nodes * 12) as u64 },
        54..67 => {
            Fault::RegistryBad { source, bad: *random.pick(&Bad::ALL), restart: random.chance(30) }
        }
        67..69 => Fault::RegistrySlow { source, time: random.between(100, 900) as u64 },
        69..71 => Fault::RegistryOdd { source },
        71..75 => Fault::RegistryOld { back: random.between(1, 3) },
        75..77 if site.servers => Fault::ServerListBad { bad: *random.pick(&Bad::ALL) },
        75..86 => Fault::Sockets {
            instance,
            percent: *random.pick(&[5, 20, 50]),
            time: random.between(300, 2500) as u64,
            seed: random.next_u64(),
        },
        86..88 => Fault::SocketAbsent { instance, time: random.between(100, 1500) as u64 },
        88..91 => Fault::MapDiskFull { killed: random.chance(40).then_some(instance) },
        91..93 => Fault::MapDiskReadOnly { killed: random.chance(40).then_some(instance) },
        93..94 => {
            let (call, which) = *random.pick(&BROKEN);
            Fault::MapDiskBroken { call, which }
        }
        94..97 if site.pins => Fault::StoreDiskFull,
        _ => Fault::Clock {
            seconds: *random.pick(&[-172_800, -3600, -5, 5, 60, 3600, 172_800, 31_536_000]),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_says_it_all_and_another_one_says_something_else() {
        assert_eq!(Schedule::of(7), Schedule::of(7));
        assert_ne!(Schedule::of(7), Schedule::of(8));
    }

    #[test]
    fn no_more_than_two_steps_pile_up_and_what_is_judged_at_rest_begins_at_rest() {
        let mut kinds = BTreeSet::new();
        for seed in 0..500 {
            let steps = Schedule::of(seed).steps;
            assert!(steps.last().is_some_and(|step| step.settles), "seed {seed}");
            for pair in steps.windows(2) {
                assert!(pair[0].settles || pair[1].settles, "seed {seed}: {pair:?}");
                assert!(pair[0].settles || !pair[1].fault.needs_rest(), "seed {seed}: {pair:?}");
            }
            kinds.extend(steps.iter().map(|step| step.fault.kind()));
        }
        assert_eq!(kinds.len(), 31, "every kind of fault comes up: {kinds:?}");
    }
}
