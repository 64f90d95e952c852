//! The one task that decides: what is due, in which order, and what is published.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::config::Config;
use mapsmith_core::desired::Canary;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::desired::hold::Rejected;
use mapsmith_core::desired::rollout::Rollout;
use mapsmith_core::{Desired, DesiredMap, HeldChange, Revision, SourceState};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::inputs::Wake;
use super::map::MapDecider;
use super::memory::Memory;
use super::servers::ServerDecider;
use super::servers::resolve::HostNames;
use super::{Decision, HoldOrderError, Inputs, OwnError, RolledBack, Unrejected};
use crate::heartbeat;

mod orders;

/// How long the sources have at the start before the map file counts without them.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the instances' first passes may take before the first decision on the map.
const FIRST_PASSES: Duration = Duration::from_secs(2);
/// How much longer, where what the map may point to matters.
const FIRST_TARGETS: Duration = Duration::from_secs(5);
/// How long a round of polls that was asked for at once may take before the answers that are there
/// count by themselves.
const ROUND_BOUND: Duration = Duration::from_secs(5);
/// Between two tries to write a map file that can't be written.
const FILE_RETRY: Duration = Duration::from_secs(5);
/// Between two looks at the instances while a rollout is on its way.
const ROLLOUT_CHECK: Duration = Duration::from_millis(250);
/// Between two looks at a node whose time is over, where the first came to nothing.
const OWNERS_RETRY: Duration = Duration::from_secs(1);
/// The least time between two decisions that only what the map may point to led to: health checks
/// of many instances flap all the time, and each decision may be a revision.
const TARGETS_SPACING: Duration = Duration::from_secs(1);

/// Where the engine publishes.
#[derive(Debug)]
pub struct Outputs {
    /// What was decided, and why.
    pub decision: watch::Sender<Decision>,
    /// What the instances should hold.
    pub desired: watch::Sender<Desired>,
}

/// Somebody who waits for what an approval came to.
type Approved = (HeldChange, oneshot::Sender<Result<HeldChange, HoldOrderError>>);

/// Somebody who waits for a node to have its owner.
type Owned = oneshot::Sender<Result<u64, OwnError>>;

/// Somebody who waits for a rollback to be in force, and the map before it.
type RollingBack = (Arc<Revision>, oneshot::Sender<Result<RolledBack, HoldOrderError>>);

/// Somebody who waits for what was ordered of a rollout, or of a canary that begins.
type RollingOut = (Rollout, oneshot::Sender<Result<(Rollout, u64), HoldOrderError>>);

/// Somebody who waits for the sources to be followed again.
type Resumed = oneshot::Sender<Result<u64, HoldOrderError>>;

/// What was rejected until now, and who waits to hear what is held since.
type Unrejecting = (Rejected, oneshot::Sender<Result<Unrejected, HoldOrderError>>);

/// Decides what every instance should hold: the map, the server lists, and when.
pub struct Engine {
    map: MapDecider,
    servers: ServerDecider,
    /// HAProxy's configuration, without the servers of its backends; none where it is somebody
    /// else's.
    declared: Option<Config>,
    hosts: HostNames,
    inputs: Inputs,
    outputs: Outputs,
    desired: Desired,
    began: Instant,
    /// Whose times those of the lists are.
    clock: Instant,
    /// Before the first decision on the map.
    starting: bool,
    /// When the first try to observe each instance was over.
    tried_at: Option<Instant>,
    /// Whether the map is published: at the start the sources may be about to say something newer
    /// than what the file has.
    map_counts: bool,
    /// What the sources of the node map said at the end of the last round of polls.
    answers: Vec<SourceState>,
    /// When the round of polls in progress counts as over.
    round_ends: Option<Instant>,
    map_is_due: bool,
    lists_are_due: bool,
    targets_after: Instant,
    file_retry: Instant,
    /// When something becomes of a node whose owner is remembered.
    owners_due: Option<Instant>,
    approved_of_map: Vec<Approved>,
    approved_of_lists: Vec<Approved>,
    owned: Vec<Owned>,
    rolled_back: Vec<RollingBack>,
    resumed: Vec<Resumed>,
    /// What was rejected, with who took that back.
    unrejected: Vec<Unrejecting>,
    rolled_out: Vec<RollingOut>,
    /// Those whose approved change goes to a canary.
    in_canary: Vec<Approved>,
    /// When the instances are looked at for a rollout.
    rollout_due: Instant,
}

impl Engine {
    /// Decides nothing yet.
    pub fn new(
        map: MapDecider,
        servers: ServerDecider,
        hosts: HostNames,
        inputs: Inputs,
        outputs: Outputs,
    ) -> Self {
        let now = Instant::now();
        Self {
            map,
            servers,
            declared: None,
            hosts,
            inputs,
            outputs,
            desired: Desired::default(),
            began: now,
            clock: now,
            starting: true,
            tried_at: None,
            map_counts: false,
            answers: Vec::new(),
            round_ends: None,
            map_is_due: false,
            lists_are_due: true,
            targets_after: now,
            file_retry: now,
            owners_due: None,
            approved_of_map: Vec::new(),
            approved_of_lists: Vec::new(),
            owned: Vec::new(),
            rolled_back: Vec::new(),
            resumed: Vec::new(),
            unrejected: Vec::new(),
            rolled_out: Vec::new(),
            in_canary: Vec::new(),
            rollout_due: now,
        }
    }

    /// Has it say what HAProxy's configuration should be, too.
    pub fn with_config(self, declared: Option<Config>) -> Self {
        Self { declared, ..self }
    }

    /// Goes on from what was known with other settings; its map and servers do so already.
    pub fn remember(self, memory: Option<&Memory>) -> Self {
        Self { clock: memory.map_or(self.clock, |memory| memory.clock), ..self }
    }

    /// Decides whenever there is news, an approval comes, or a wait is over; until shutdown. What it
    /// knows then is for whoever goes on. `file_check` is the time between two comparisons of the
    /// map file with what it should hold.
    pub async fn run(mut self, file_check: Duration, shutdown: CancellationToken) -> Memory {
        self.decide_until(file_check, shutdown).await;
        Memory { clock: self.clock, map: self.map.memory(), lists: self.servers.memory() }
    }

    async fn decide_until(&mut self, file_check: Duration, shutdown: CancellationToken) {
        let mut file_checks = interval(file_check);
        file_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The lists that were in force before a restart are so from the first second on, and so is
        // what an operator has ordered of their servers.
        self.order_servers();
        self.publish();
        loop {
            heartbeat::beat();
            if shutdown.is_cancelled() {
                // Half a round is no ground for a revision that nobody would correct.
                return;
            }
            let now = Instant::now();
            self.step(now).await;
            let timer = self.next_timer(now);
            let file_is_checked = !self.starting && self.map.checks_its_file();
            tokio::select! {
                () = shutdown.cancelled() => return,
                wake = self.inputs.news(self.targets_after) => match wake {
                    Wake::Source => {
                        self.round_ends.get_or_insert_with(|| Instant::now() + ROUND_BOUND);
                    }
                    Wake::List => self.lists_are_due = true,
                    Wake::Overrides | Wake::Registrations => self.map_is_due = true,
                    // At the start each instance's first ones are waited for.
                    Wake::Targets if self.starting => {}
                    Wake::Targets => {
                        self.targets_after = Instant::now() + TARGETS_SPACING;
                        self.map_is_due = true;
                    }
                    Wake::Order(order) => self.take(order).await,
                    Wake::Ended => return,
                },
                () = self.map.rows_changed() => self.map_is_due = true,
                () = self.hosts.answered() => self.lists_are_due = true,
                _ = file_checks.tick(), if file_is_checked => if self.map.check_file().await {
                    self.publish();
                    // Where another Mapsmith has ended, its file is only the beginning.
                    self.map_is_due = true;
                },
                () = sleep_until(timer.unwrap_or(self.began)), if timer.is_some() => {}
                () = heartbeat::tick() => {}
            }
        }
    }

    /// Decides on what is due.
    async fn step(&mut self, now: Instant) {
        let published = self.map_counts;
        if self.starting {
            self.begin(now);
        } else if let Some(end) = self.round_ends
            && (now >= end || self.inputs.round_is_whole())
        {
            self.take_answers();
        }
        self.map_is_due |= self.map_timer().is_some_and(|due| now >= due);
        self.watch_rollout(now).await;
        let mut news = self.order_servers() || self.map_counts != published;
        if self.map_is_due && !self.starting {
            self.decide_map().await;
            news = true;
        }
        self.lists_are_due |= self.lists_timer().is_some_and(|due| now >= due);
        news |= self.decide_lists();
        if news {
            self.publish();
        }
        self.answer_orders();
    }

    /// Looks at the instances for a rollout that is on its way.
    async fn watch_rollout(&mut self, now: Instant) {
        if self.starting || now < self.rollout_due || !self.map.watches_rollout() {
            return;
        }
        self.rollout_due = now + ROLLOUT_CHECK;
        let views = self.inputs.instances.now();
        self.map_is_due |= self.map.observe_rollout(&views, Timestamp::now()).await;
    }

    /// Whether the first decision on the map can be made, which waits for what it should know,
    /// within bounds. The map file is the last good map, and where answers are missing after a
    /// second it is kept in force without them; not before, because they may be newer than a file
    /// that came from a backup, and so may be what HAProxy holds.
    fn begin(&mut self, now: Instant) {
        let answered = self.inputs.all_have_answered();
        self.map_counts |= !answered && now >= self.began + FIRST_ANSWERS;
        if (answered || self.map_counts) && self.instances_were_seen(now) {
            (self.starting, self.map_counts) = (false, true);
            // The first decision takes what is there.
            self.take_answers();
        }
    }

    /// Whether each instance that can be reached was observed, as far as the first decision needs
    /// to know, or has had its time.
    fn instances_were_seen(&mut self, now: Instant) -> bool {
        if !self.map.every_instance_was_tried() && now < self.began + FIRST_PASSES {
            return false;
        }
        let tried_at = *self.tried_at.get_or_insert(now);
        let unreached = self.map.unreached_instances().chain(std::iter::repeat(false));
        !self.map.targets_matter()
            || now >= tried_at + FIRST_TARGETS
            || self
                .inputs
                .targets
                .iter()
                .zip(unreached)
                .all(|(target, unreached)| unreached || target.borrow().is_some())
    }

    /// The round of polls is over.
    fn take_answers(&mut self) {
        self.answers = self.inputs.sources();
        self.round_ends = None;
        self.map_is_due = true;
    }

    /// An operator's orders of servers wait for nothing. Whether there are new ones.
    fn order_servers(&mut self) -> bool {
        let overrides = Arc::clone(&self.inputs.overrides.borrow());
        self.servers.order(&overrides)
    }

    /// On the answers of the last round: an operator, or who registers a node, does not wait for a
    /// registry.
    async fn decide_map(&mut self) {
        self.inputs.take_registrations(&mut self.answers);
        let overrides = Arc::clone(&self.inputs.overrides.borrow_and_update());
        self.map.see(self.inputs.targets());
        self.map.decide(&self.answers, overrides).await;
        self.file_retry = Instant::now() + FILE_RETRY;
        // What is due already waits for something else, as an answer.
        let wait = |wait: Duration| if wait.is_zero() { OWNERS_RETRY } else { wait };
        self.owners_due = self.map.owners_due().map(|due| Instant::now() + wait(due));
        self.map_is_due = false;
        self.lists_are_due = true;
    }

    /// Whether there was something to decide: lists wait for the addresses of their host names.
    fn decide_lists(&mut self) -> bool {
        let mut decided = false;
        while self.lists_are_due || self.servers.is_waiting() {
            if !self.servers.is_waiting() {
                self.lists_are_due = false;
                let lists = self.inputs.lists();
                self.servers.register(Arc::clone(&self.inputs.members.borrow_and_update()));
                self.servers.take_in(&lists, self.map.decision());
                if self.servers.question().hosts.is_empty() {
                    // What was asked before is of no use any more.
                    self.hosts.ask(self.servers.question());
                }
            }
            let addresses = self.hosts.addresses();
            if !self.servers.decide(&addresses, self.clock.elapsed()) {
                self.hosts.ask(self.servers.question());
                break;
            }
            decided = true;
        }
        if decided {
            for (held, answer) in self.approved_of_lists.drain(..) {
                let outcome = self.servers.outcome_of_approval(held);
                let _ = answer.send(outcome.map_err(HoldOrderError::NotHeld));
            }
        }
        decided
    }

    /// When something is due although nobody says anything new.
    fn next_timer(&self, now: Instant) -> Option<Instant> {
        let after = [FIRST_ANSWERS, FIRST_PASSES].map(|after| self.began + after);
        let targets = self.tried_at.map(|tried| tried + FIRST_TARGETS);
        let starts = after.into_iter().chain(targets).filter(|due| self.starting && *due > now);
        let after_the_start = [self.round_ends, self.map_timer()].into_iter().flatten();
        let after_the_start = after_the_start.filter(|_| !self.starting);
        let rollout = (!self.starting && self.map.watches_rollout()).then_some(self.rollout_due);
        starts.chain(after_the_start).chain(self.lists_timer()).chain(rollout).min()
    }

    fn map_timer(&self) -> Option<Instant> {
        let retry = self.map.must_try_again().then_some(self.file_retry);
        let owners = self.owners_due;
        self.map.next_release().into_iter().chain(retry).chain(owners).min()
    }

    fn lists_timer(&self) -> Option<Instant> {
        let due = self.servers.next_step().filter(|_| !self.servers.is_waiting())?;
        Some(self.clock + due)
    }

    /// A new generation is one that every instance should observe again. What an instance's own
    /// servers do is no reason: with a hundred whose health checks flap none would rest.
    fn publish(&mut self) {
        let decision = self.map.decision();
        let map = self.map.desired().filter(|_| self.map_counts);
        // Whose map it is, theirs are the servers too.
        let servers = self.servers.desired().filter(|_| decision.read_only.is_none());
        let canary = self.map.desired_canary().filter(|_| map.is_some());
        let mark = |map: &DesiredMap| {
            (map.revision.number, map.evaluated_request, Arc::clone(&map.overrides))
        };
        let marks = |map: &Option<DesiredMap>, canary: &Option<Arc<Canary>>| {
            let canary =
                canary.as_ref().map(|canary| (canary.instances.clone(), mark(&canary.map)));
            (map.as_ref().map(mark), canary)
        };
        let other_servers = servers != self.desired.servers;
        let first_config = self.declared.is_some() && self.desired.config.is_none();
        let desired = &self.desired;
        let other_map = marks(&map, &canary) != marks(&desired.map, &desired.canary);
        if other_map || other_servers || first_config {
            let generation = self.desired.generation + 1;
            let config = match &self.declared {
                Some(declared) if other_servers || first_config => {
                    Some(Arc::new(DesiredConfig::new(declared, servers.as_deref())))
                }
                _ => self.desired.config.clone(),
            };
            self.desired = Desired { generation, map, canary, servers, config };
            self.outputs.desired.send_replace(self.desired.clone());
        }
        self.outputs.decision.send_replace(Decision {
            generation: self.desired.generation,
            evaluated_request: self.servers.evaluated_request(),
            ordered: self.servers.ordered(),
            members: self.servers.evaluated_members(),
            map: decision.clone(),
            backends: self.servers.backends(self.clock.elapsed()),
        });
    }
}
