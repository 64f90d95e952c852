//! Nodes whose master goes back and forth: each is kept where it is until the sources have said one
//! thing for a while. Pure; the clock is an argument.

use std::time::Duration;

use rustc_hash::FxHashMap;

/// So many changes of master within the window are flapping.
pub const CHANGES: usize = 3;
/// The most nodes that are watched at once, 10 MB or so. Where more move, those that moved only
/// once are forgotten first.
const MOST_NODES: usize = 100_000;

#[derive(Debug, Clone)]
struct Moves {
    /// The master that the sources name.
    said: Box<str>,
    /// When they named another one than before, the latest last.
    at: [Option<Duration>; CHANGES],
}

impl Moves {
    fn note(&mut self, said: &str, now: Duration) {
        if *self.said != *said {
            self.said = said.into();
            self.at.rotate_left(1);
            self.at[CHANGES - 1] = Some(now);
        }
    }

    fn last(&self) -> Duration {
        self.at[CHANGES - 1].unwrap_or_default()
    }
}

/// The nodes that moved within the window. Times are those of one steady clock that the caller
/// reads.
#[derive(Debug, Clone)]
pub struct Flapping {
    window: Duration,
    hold: Duration,
    nodes: FxHashMap<Box<str>, Moves>,
}

impl Flapping {
    /// No node has moved yet. A node that flaps within `window` is kept until it has been still for
    /// `hold`; with a `hold` of 0 none is.
    pub fn new(window: Duration, hold: Duration) -> Self {
        Self { window, hold, nodes: FxHashMap::default() }
    }

    /// Goes on from what was seen before, by the same clock, if it is judged alike.
    pub fn go_on(&mut self, before: &Self) {
        if (before.window, before.hold) == (self.window, self.hold) {
            self.nodes.clone_from(&before.nodes);
        }
    }

    /// No node has moved yet, once more.
    pub fn forget(&mut self) {
        self.nodes.clear();
    }

    /// Takes what the sources say now. `moved` are the nodes that they route elsewhere than the map
    /// in force does, each with its master; `said` gives the master that they name for any node.
    pub fn see<'a>(
        &mut self,
        moved: impl Iterator<Item = (&'a str, &'a str)>,
        said: impl Fn(&str) -> Option<&'a str>,
        now: Duration,
    ) {
        if self.hold.is_zero() {
            return;
        }
        let (window, hold) = (self.window, self.hold);
        self.nodes.retain(|_, moves| now.saturating_sub(moves.last()) < window);
        // A node that is kept may well be said to be where it is: that is a change of what is said,
        // though none of the map.
        for (node, moves) in
            self.nodes.iter_mut().filter(|(_, moves)| flaps(moves, window, hold, now))
        {
            if let Some(master) = said(node) {
                moves.note(master, now);
            }
        }
        let mut crowded = false;
        for (node, master) in moved {
            if let Some(moves) = self.nodes.get_mut(node) {
                moves.note(master, now);
                continue;
            }
            if self.nodes.len() >= MOST_NODES {
                if std::mem::replace(&mut crowded, true) {
                    continue;
                }
                self.nodes
                    .retain(|_, moves| moves.at[CHANGES - 2].is_some() || moves.last() == now);
                if self.nodes.len() >= MOST_NODES {
                    continue;
                }
            }
            let mut at = [None; CHANGES];
            at[CHANGES - 1] = Some(now);
            self.nodes.insert(node.into(), Moves { said: master.into(), at });
        }
    }

    pub fn keeps(&self, node: &str, now: Duration) -> bool {
        self.nodes.get(node).is_some_and(|moves| flaps(moves, self.window, self.hold, now))
    }

    /// The nodes that stay where they are, sorted, each with the master that the sources name.
    pub fn kept(&self, now: Duration) -> Vec<(&str, &str)> {
        let flap = self.nodes.iter().filter(|(_, moves)| flaps(moves, self.window, self.hold, now));
        let mut kept: Vec<_> = flap.map(|(node, moves)| (&**node, &*moves.said)).collect();
        kept.sort_unstable();
        kept
    }

    /// When the first of them has been still for long enough, as things stand; none while none
    /// flaps.
    pub fn next_release(&self, now: Duration) -> Option<Duration> {
        let flap = self.nodes.values().filter(|moves| flaps(moves, self.window, self.hold, now));
        flap.map(|moves| moves.last() + self.hold).min()
    }
}

fn flaps(moves: &Moves, window: Duration, hold: Duration, now: Duration) -> bool {
    moves.at[0].is_some_and(|first| now.saturating_sub(first) < window)
        && now.saturating_sub(moves.last()) < hold
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOLD: Duration = Duration::from_secs(90);

    /// A node `n` that starts at m1; at each second the sources name a master. Gives where it is
    /// after each.
    fn follow(flapping: &mut Flapping, said: &[(u64, &'static str)]) -> Vec<&'static str> {
        let mut in_force = "m1";
        said.iter()
            .map(|(second, master)| {
                let now = Duration::from_secs(*second);
                let moved = (in_force != *master).then_some(("n", *master));
                flapping.see(moved.into_iter(), |_| Some(*master), now);
                if !flapping.keeps("n", now) {
                    in_force = master;
                }
                in_force
            })
            .collect()
    }

    #[test]
    fn a_node_that_alternates_three_times_stays_until_it_has_been_still() {
        let mut flapping = Flapping::new(HOUR, HOLD);
        let said = [
            (60, "m2"),
            (120, "m1"),
            (180, "m2"),
            (240, "m1"),
            (300, "m2"),
            (360, "m2"),
            (389, "m2"),
            (390, "m2"),
        ];
        assert_eq!(follow(&mut flapping, &said), ["m2", "m1", "m1", "m1", "m1", "m1", "m1", "m2"]);
        assert_eq!(flapping.kept(Duration::from_secs(389)), [("n", "m2")]);
        assert_eq!(flapping.next_release(Duration::from_secs(389)), Some(Duration::from_secs(390)));
        assert_eq!(
            (
                flapping.kept(Duration::from_secs(390)),
                flapping.next_release(Duration::from_secs(390))
            ),
            (vec![], None)
        );
    }

    #[test]
    fn a_node_that_goes_and_comes_back_once_or_takes_its_time_is_not_kept() {
        for said in [
            vec![(60, "m2"), (120, "m1"), (180, "m1")],
            vec![(60, "m2"), (1800, "m1"), (3660, "m2"), (5400, "m1")],
            vec![(60, "m2"), (61, "m2"), (62, "m2"), (63, "m2")],
        ] {
            let followed = follow(&mut Flapping::new(HOUR, HOLD), &said);
            assert_eq!(followed, said.iter().map(|(_, master)| *master).collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_a_hold_no_node_is_kept() {
        let said = [(1, "m2"), (2, "m1"), (3, "m2"), (4, "m1")];
        assert_eq!(
            follow(&mut Flapping::new(HOUR, Duration::ZERO), &said),
            ["m2", "m1", "m2", "m1"]
        );
    }

    #[test]
    fn the_watched_nodes_are_bounded_and_those_that_moved_more_than_once_go_last() {
        let mut flapping = Flapping::new(HOUR, HOLD);
        let now = Duration::from_secs;
        flapping.see([("twice", "m2")].into_iter(), |_| None, now(1));
        flapping.see([("twice", "m1")].into_iter(), |_| None, now(2));
        for round in 3..5 {
            let nodes: Vec<_> = (0..MOST_NODES).map(|node| format!("n{round}-{node}")).collect();
            flapping.see(nodes.iter().map(|node| (node.as_str(), "m2")), |_| None, now(round));
            assert_eq!(flapping.nodes.len(), MOST_NODES);
        }
        flapping.see([("twice", "m2")].into_iter(), |_| None, now(5));
        assert!(flapping.keeps("twice", now(5)));
    }
}
