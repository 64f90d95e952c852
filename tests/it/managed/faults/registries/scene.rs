//! The running whole with a registry: members that come, go and move, and what must stay as it was
//! while nobody can say what is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::lists::{Lists, Servers};
use super::registry::{self, Registry};
use super::schedule::Site;
use crate::faults::run::Figures;
use crate::faults::site::{Journal, Outcome};
use crate::managed::faults::site::{AT_ONCE, App, Whole, followed, servers_at, serves};
use crate::support::master::Master;
use crate::support::poll;
use crate::support::random::Random;
use crate::support::tcp_proxy::TcpProxy;

/// Longer than anything takes that Mapsmith is to notice.
const BOUND: Duration = Duration::from_secs(120);
/// How long a server stays that is listed no more, where changes are damped.
const HOLD: Duration = Duration::from_secs(1);
/// A worker that just started may not answer yet.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two looks at HAProxy's servers.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// The fewest and the most members: of a large list so few come and go that the guard lets them.
const SMALL: (usize, usize) = (2, 5);
const LARGE: (usize, usize) = (22, 24);

/// Why an empty list is held.
pub const EMPTY: &str = "0 servers";

/// A backend whose servers a registry lists. The order is that in which its parts end.
pub struct Scene {
    pub whole: Whole,
    pub proxy: TcpProxy,
    pub registry: Box<dyn Registry>,
    lists: Arc<Lists>,
    /// Which master each member is.
    members: BTreeMap<String, usize>,
    size: (usize, usize),
    hold: Duration,
}

impl AsMut<Whole> for Scene {
    fn as_mut(&mut self) -> &mut Whole {
        &mut self.whole
    }
}

impl Scene {
    pub fn start(site: &Site, journal: &Journal) -> Self {
        journal.note(&format!("{site:?}"));
        let beside = tempfile::tempdir().expect("a temporary folder");
        let registry = registry::start(site.kind, beside.path());
        let proxy = TcpProxy::start(registry.address());
        let size = if site.large { LARGE } else { SMALL };
        let masters: Vec<_> =
            (0..size.1 + 2).map(|number| Master::start(&format!("s{number}"))).collect();
        let members: BTreeMap<_, _> =
            (0..=size.0).map(|number| (format!("m{number}"), number)).collect();
        for (member, master) in &members {
            registry.put(member, masters[*master].address(), true);
        }
        let hold = if site.damped { HOLD } else { Duration::ZERO };
        let damping = if site.damped {
            "[damping]\ndebounce = \"100ms\"\nmax_delay = \"1s\"\nhold = \"1s\"\n\
            max_removed = \"50%\"\n"
        } else {
            AT_ONCE
        };
        let settings = format!(
            "{}{damping}[guard]\nmax_removed = \"40%\"\n[store]\npath = {:?}\n\
            [[source]]\nname = \"app\"\n{}timeout = \"2s\"\n\
            [[backend]]\nname = \"app\"\nfrom = {{ source = \"app\", {} }}\n",
            followed(if site.polled { "1s" } else { "1h" }),
            beside.path().join("mapsmith.db"),
            registry.source(proxy.address()),
            registry.selector(),
        );
        let listed = servers(registry.as_ref(), &masters, &members);
        let lists = Arc::<Lists>::default();
        lists.changes(&listed, hold);
        let app = App { masters, listed, settings };
        let mut whole = Whole::start(site.haproxy.clone(), app, beside, journal);
        let (laws, admin, known) = (Arc::clone(&whole.laws), whole.admin(), Arc::clone(&lists));
        whole.clients.watch("the servers", move || {
            std::thread::sleep(BETWEEN_LOOKS);
            known.look(&laws, || servers_at(&admin))
        });
        Self { whole, proxy, registry, lists, members, size, hold }
    }

    /// Waits until what is listed is in force, and nothing else.
    pub fn settle(&mut self, figures: &mut Figures) -> Outcome {
        self.whole.settle(figures)?;
        // Where what was held, or was to come or go, is back as it was, nothing in force shows that
        // this was heard: a poll that begins from here on has it.
        let mut said = String::new();
        let polled = poll(BOUND, || {
            let answer = self.whole.mapsmith.try_ask("POST", "/v1/reload?wait=20s").ok()?;
            said = format!("{} {}", answer.status, answer.body);
            (answer.status == 200).then_some(())
        });
        polled.ok_or_else(|| format!("{BOUND:?} later a reload is not in force: {said}"))?;
        let mut seen = Value::Null;
        let heard = poll(BOUND, || {
            seen = self.whole.whole_status()?["backends"][0].clone();
            let leaving = seen["leaving"].as_array().is_some_and(|leaving| !leaving.is_empty());
            let is_quiet = seen["held"].is_null() && seen["change_due"].is_null() && !leaving;
            is_quiet.then_some(())
        });
        heard
            .ok_or_else(|| format!("{BOUND:?} later the list is not in force as it is: {seen}"))?;
        self.lists.rests(&self.whole.app.listed);
        Ok(())
    }

    /// A few members come, go or move, one after the other.
    pub fn changes(&mut self, random: &mut Random) {
        let most = if self.size == LARGE { 1 } else { 3 };
        for _ in 0..random.between(1, most) {
            let members = self.other_members(random);
            self.lists(members, true);
        }
    }

    /// The members after one change.
    fn other_members(&self, random: &mut Random) -> BTreeMap<String, usize> {
        let mut members = self.members.clone();
        let (least, most) = self.size;
        let free: Vec<_> = (0..self.whole.app.masters.len())
            .filter(|number| !members.values().any(|master| master == number))
            .collect();
        let names: Vec<_> = (0..=most).map(|number| format!("m{number}")).collect();
        let name = random.pick(&names).clone();
        let is_there = members.contains_key(&name);
        if is_there && members.len() > least && random.chance(50) {
            members.remove(&name);
        } else if is_there || members.len() < most {
            members.insert(name, *random.pick(&free));
        }
        members
    }

    /// Has the registry list these. Whether Mapsmith may hear of it is for the laws.
    pub fn lists(&mut self, members: BTreeMap<String, usize>, heard: bool) {
        let listed = servers(self.registry.as_ref(), &self.whole.app.masters, &members);
        self.whole.journal.note(&format!("  listed: {members:?}"));
        if heard {
            self.lists.changes(&listed, self.hold);
        }
        for gone in self.members.keys().filter(|member| !members.contains_key(*member)) {
            self.registry.remove(gone);
        }
        for (member, master) in &members {
            let before = self.members.get(member);
            if before != Some(master) {
                let address = self.whole.app.masters[*master].address();
                self.registry.put(member, address, before.is_none());
            }
        }
        self.members = members;
        self.whole.app.listed = listed;
    }

    /// Mapsmith may hear from now on what is listed.
    pub fn hears(&self) {
        self.lists.changes(&self.whole.app.listed, self.hold);
    }

    /// What may be listed after all that was is gone: the same, or a little else.
    pub fn some_members(&self, random: &mut Random) -> BTreeMap<String, usize> {
        let changed = self.other_members(random);
        if random.chance(50) { self.members.clone() } else { changed }
    }

    /// Mapsmith sees what was before and what is after, and nothing in between.
    pub fn unseen(&mut self, change: impl FnOnce(&mut Self)) {
        if self.whole.is_down {
            return change(self);
        }
        self.whole.mapsmith.signal("STOP");
        change(self);
        self.whole.mapsmith.signal("CONT");
    }

    /// No member is listed. `heard` as for [`Self::lists`].
    pub fn empty(&mut self, heard: bool) {
        let listed = self.whole.app.listed.clone();
        self.lists(BTreeMap::new(), heard);
        // What is in force stays, and is known.
        self.whole.app.listed = listed;
    }

    /// The registry has lost all; it lists these again.
    pub fn refill(&mut self, members: BTreeMap<String, usize>) {
        // Before the first of them is there.
        let listed = servers(self.registry.as_ref(), &self.whole.app.masters, &members);
        self.lists.changes(&listed, self.hold);
        self.members.clear();
        self.unseen(|scene| {
            scene.lists(members, true);
            scene.registry.allow_anew();
        });
    }

    /// Waits until the source says this.
    pub fn is_told(&self, words: &str) -> Outcome {
        let mut seen = Value::Null;
        let told = poll(BOUND, || {
            let status = self.whole.whole_status()?;
            seen = error_in(&status)?.clone();
            seen.as_str().is_some_and(|error| error.contains(words)).then_some(())
        });
        told.ok_or_else(|| format!("{BOUND:?} later the source does not say {words:?}: {seen}"))
    }

    /// The same, or that the list is empty and held: whoever began anew does not know that there
    /// was more.
    pub fn is_told_or_held(&self, words: &str) -> Outcome {
        let mut seen = Value::Null;
        let told = poll(BOUND, || {
            seen = self.whole.whole_status()?;
            let is_told = error_in(&seen)?.as_str().is_some_and(|error| error.contains(words));
            let held = &seen["backends"][0]["held"]["reason"];
            let is_held = held.as_str().is_some_and(|reason| reason.contains(EMPTY));
            (is_told || is_held).then_some(())
        });
        told.ok_or_else(|| format!("{BOUND:?} later nothing says {words:?} or holds: {seen}"))
    }

    /// Waits until the list is held for this reason; the id of the held change.
    pub fn is_held(&self, words: &str) -> Result<String, String> {
        let mut seen = Value::Null;
        let held = poll(BOUND, || {
            seen = self.whole.whole_status()?["backends"].clone();
            let held = &seen[0]["held"];
            let is_so = held["reason"].as_str()?.contains(words);
            is_so.then(|| held["id"].as_str().map(str::to_owned))?
        });
        held.ok_or_else(|| format!("{BOUND:?} later the list is not held, {words:?}: {seen}"))
    }

    /// An operator says that the change is right.
    pub fn approve(&self, id: &str) -> Outcome {
        let output = self.whole.mapsmith.cli(&["approve", id]);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("the change can't be approved: {output:?}")),
        }
    }

    /// Half of the members are gone at once.
    pub fn shrink(&mut self, random: &mut Random) {
        let mut members = self.members.clone();
        let half = members.len() / 2;
        while members.len() > half {
            let names: Vec<_> = members.keys().cloned().collect();
            members.remove(random.pick(&names));
        }
        self.lists(members, false);
    }

    /// Whether most members are gone for good.
    pub fn has_shrunk(&self) -> bool {
        self.members.len() < self.size.0
    }

    /// As many members come as there were at first.
    pub fn grow(&mut self) {
        let mut members = self.members.clone();
        let free = (0..self.whole.app.masters.len())
            .filter(|number| !self.members.values().any(|master| master == number));
        let names = (0..=self.size.0).map(|number| format!("m{number}"));
        let absent = names.filter(|name| !self.members.contains_key(name));
        members.extend(absent.zip(free));
        self.lists(members, true);
    }

    /// The members that there are.
    pub fn members(&self) -> BTreeMap<String, usize> {
        self.members.clone()
    }

    /// Whoever asks for everything hears what is wrong.
    pub fn reload_says(&self, words: &str) -> Outcome {
        let mut seen = String::new();
        let told = poll(BOUND, || {
            let answer = self.whole.mapsmith.try_ask("POST", "/v1/reload?wait=20s").ok()?;
            seen = format!("{} {}", answer.status, answer.body);
            (answer.status == 502 && answer.body.contains(words)).then_some(())
        });
        told.ok_or_else(|| format!("{BOUND:?} later a reload does not say {words:?}: {seen}"))
    }

    /// Asks for everything, and waits for nothing.
    pub fn reload(&self) {
        // While other settings come into force nobody answers, and all is asked for anyway.
        let _ = self.whole.mapsmith.try_ask("POST", "/v1/reload");
    }

    /// HAProxy has exactly what was in force before.
    pub fn is_unchanged(&self, before: &Servers) -> Outcome {
        let has = poll(ANSWER, || self.whole.servers());
        let has = has.ok_or("HAProxy does not say which servers it has")?;
        match serves(&has, before) {
            true => Ok(()),
            false => Err(format!("HAProxy has {has:?}, and {before:?} were in force")),
        }
    }
}

/// What is wrong with the backend's list: its feed is called by the source and the selector.
fn error_in(status: &Value) -> Option<&Value> {
    let is_list =
        |source: &&Value| source["name"].as_str().is_some_and(|name| name.starts_with("app "));
    Some(&status["sources"].as_array()?.iter().find(is_list)?["error"])
}

fn servers(
    registry: &dyn Registry,
    masters: &[Master],
    members: &BTreeMap<String, usize>,
) -> Servers {
    let server = |(member, master): (&String, &usize)| {
        let address = masters[*master].address();
        (registry.server(member, address), address)
    };
    members.iter().map(server).collect()
}
