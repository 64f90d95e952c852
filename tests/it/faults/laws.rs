//! What must hold, whatever happens: judged from what clients got, from the map file, and from
//! HAProxy's memory.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::schedule::Routing;
use crate::support::load::Answer;
use crate::support::site::Nodes;

/// More would say nothing new.
const MOST: usize = 5;

/// What the map file says: its revision and its entries.
pub type MapFile = (u64, Nodes);

/// Reads a map file as strictly as Mapsmith promises to write it.
pub fn read_map(text: &[u8]) -> Result<MapFile, String> {
    let text = str::from_utf8(text).map_err(|error| format!("not text: {error}"))?;
    let body = text.strip_suffix('\n').ok_or("the last line is cut")?;
    let mut lines = body.split('\n');
    let first = lines.next().unwrap_or_default();
    let revision = first
        .strip_prefix("# Written by Mapsmith: ")
        .and_then(|rest| rest.rsplit_once("Revision "))
        .and_then(|(_, number)| number.parse().ok())
        .ok_or_else(|| format!("no revision in its first line {first:?}"))?;
    let mut entries: Nodes = Vec::new();
    // Comments before the first entry say more of the map; none stands between entries.
    for line in lines.skip_while(|line| line.starts_with('#')) {
        let (node, master) = line.split_once(' ').ok_or_else(|| format!("no entry: {line:?}"))?;
        let is_word =
            |word: &str| !word.is_empty() && !word.contains(|letter: char| letter.is_whitespace());
        if !is_word(node) || !is_word(master) || node.starts_with('#') {
            return Err(format!("no entry: {line:?}"));
        }
        if entries.last().is_some_and(|(before, _)| before.as_str() >= node) {
            return Err(format!("{node} is not behind the line before it"));
        }
        entries.push((node.to_owned(), master.to_owned()));
    }
    Ok((revision, entries))
}

/// A time in which a gateway may fail requests for a reason that is the harness's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// It is down, or being replaced: nobody answers.
    Down,
    /// It was given an older map, or the registry says something older: nodes that are new since
    /// then have no route.
    Old,
}

#[derive(Debug)]
struct Window {
    gateway: usize,
    excuse: Excuse,
    from: Instant,
    to: Option<Instant>,
}

/// A request's answer, and what was true then.
#[derive(Debug)]
pub struct Judged<'a> {
    pub gateway: usize,
    pub from: Instant,
    pub to: Instant,
    pub answer: &'a Answer,
    /// Every owner that the node had since the request began; with [`Routing::Map`] every one it
    /// ever had.
    pub owners: &'a [String],
    /// Whether the map has had this node since everything was in sync, and has it now.
    pub known: bool,
}

#[derive(Debug, Default)]
struct State {
    broken: Vec<String>,
    windows: Vec<Window>,
    requests: usize,
    /// Every pair of node and master that the file ever held.
    written: HashSet<(String, String)>,
    /// The highest number it ever had.
    highest: u64,
    /// A number was never seen: its entries are not in `written`.
    gap: bool,
    last: Option<u64>,
    /// The entries of each number, as a digest.
    contents: BTreeMap<u64, u64>,
    /// The text that the harness put in place: its number says nothing.
    placed: Option<Vec<u8>>,
    /// The harness has taken the file away: nobody looks at it.
    hidden: bool,
    /// What told the last file seen from another one.
    stamp: Option<(u64, u64, std::time::SystemTime)>,
}

/// The laws and what was seen of them.
#[derive(Debug)]
pub struct Laws {
    routing: Routing,
    state: Mutex<State>,
}

impl Laws {
    pub fn new(routing: Routing) -> Self {
        Self { routing, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was seen so far.
    pub fn all_broken(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    pub fn requests(&self) -> usize {
        self.state().requests
    }

    /// From now on the gateway may fail requests, until [`Self::closed`].
    pub fn excused(&self, gateway: usize, excuse: Excuse) {
        self.state().windows.push(Window { gateway, excuse, from: Instant::now(), to: None });
    }

    /// Ends every such time of a gateway.
    pub fn closed(&self, gateway: usize, excuse: Excuse) {
        let now = Instant::now();
        let mut state = self.state();
        let open = state
            .windows
            .iter_mut()
            .filter(|window| (window.gateway, window.excuse) == (gateway, excuse));
        open.for_each(|window| window.to = window.to.or(Some(now)));
    }

    /// No request is answered by a master that neither owns nor ever owned the node, and none fails
    /// for a reason that is ours.
    pub fn judge(&self, judged: &Judged) {
        let Judged { answer, owners, .. } = judged;
        let mut state = self.state();
        state.requests += 1;
        let excused = |excuse| {
            let matching =
                |window: &&Window| (window.gateway, window.excuse) == (judged.gateway, excuse);
            let overlaps = |window: &Window| {
                window.from <= judged.to && window.to.is_none_or(|to| judged.from <= to)
            };
            state.windows.iter().filter(matching).any(overlaps)
        };
        let wrong = match answer.status {
            200 => !owners.contains(&answer.master),
            0 => !excused(Excuse::Down),
            // The gateway's own answer to a node without an entry.
            404 if self.routing == Routing::Map && answer.master == "none" => {
                judged.known && !excused(Excuse::Old)
            }
            _ => true,
        };
        if wrong && state.broken.len() < MOST {
            let Answer { node, status, master } = answer;
            state.broken.push(format!(
                "gateway {} answered a request for {node} with {status} {master:?}; its owners: \
                    {owners:?}",
                judged.gateway
            ));
        }
    }

    /// The file always parses, its number never goes back, and one number is one map. Nothing is
    /// done where it is the file that was seen last.
    pub fn look_at_file(&self, path: &Path) {
        // Held while it is read, so that a file that the harness puts in place is not taken for a
        // step back.
        let mut state = self.state();
        if state.hidden {
            return;
        }
        let stamp = fs::metadata(path).and_then(|file| {
            use std::os::unix::fs::MetadataExt;
            Ok((file.ino(), file.size(), file.modified()?))
        });
        if stamp.as_ref().is_ok_and(|stamp| state.stamp == Some(*stamp)) {
            return;
        }
        match fs::read(path) {
            Ok(text) if state.placed.as_ref() == Some(&text) => {}
            Ok(text) => {
                state.placed = None;
                state.file_is(&text);
            }
            Err(error) => state.breaks(format!("the map file can't be read: {error}")),
        }
        state.stamp = stamp.ok();
    }

    /// Puts another map file in place; what Mapsmith wrote before no longer counts.
    pub fn replace_file(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fresh = path.with_extension("older");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, path)?;
        state.placed = Some(text.to_owned());
        state.last = None;
        state.contents.clear();
        state.stamp = None;
        Ok(())
    }

    /// The harness takes the map file away, or there is one again: what was written meanwhile was
    /// not seen.
    pub fn hide_file(&self, hidden: bool) {
        let mut state = self.state();
        state.hidden = hidden;
        state.gap = true;
        state.stamp = None;
    }

    /// The harness puts an entry into a memory, which the file never said.
    pub fn put_in_memory(&self, node: &str, master: &str) {
        self.state().written.insert((node.to_owned(), master.to_owned()));
    }

    /// What is in memory was in the file before: `entries` were read from a gateway, the file is
    /// looked at now.
    pub fn memory_is(&self, gateway: usize, entries: &[(String, String)], path: &Path) {
        self.look_at_file(path);
        let mut state = self.state();
        if state.gap || state.hidden {
            return;
        }
        if let Some((node, master)) = entries.iter().find(|entry| !state.written.contains(*entry)) {
            let last = state.last;
            state.breaks(format!(
                "gateway {gateway} had {node} -> {master} in memory, which the map file never \
                    said (revision {last:?} by now)"
            ));
        }
    }

    /// Everything is in sync: what was missed of the file before does not matter any more.
    pub fn rest(&self) {
        self.state().gap = false;
    }
}

impl State {
    fn breaks(&mut self, what: String) {
        if self.broken.len() < MOST {
            self.broken.push(what);
        }
    }

    fn file_is(&mut self, text: &[u8]) {
        let (revision, entries) = match read_map(text) {
            Ok(file) => file,
            Err(error) => return self.breaks(format!("the map file does not parse: {error}")),
        };
        if let Some(last) = self.last.filter(|last| *last > revision) {
            self.breaks(format!("the map file went back from revision {last} to {revision}"));
        }
        let mut hasher = DefaultHasher::new();
        entries.hash(&mut hasher);
        let digest = hasher.finish();
        if self.contents.insert(revision, digest).is_some_and(|before| before != digest) {
            self.breaks(format!(
                "revision {revision} stood in the map file with two different maps"
            ));
        }
        self.gap |= self.highest > 0 && revision > self.highest + 1;
        self.highest = self.highest.max(revision);
        self.last = Some(revision);
        self.written.extend(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "# Written by Mapsmith: external changes are overwritten. Revision ";

    fn file(revision: u64, lines: &str) -> String {
        format!("{HEADER}{revision}\n{lines}")
    }

    /// What breaks when the file holds these texts, one after the other.
    fn after(texts: &[String]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("n.map");
        let laws = Laws::new(Routing::Map);
        for (number, text) in texts.iter().enumerate() {
            // As a rename brings it.
            let fresh = folder.path().join(number.to_string());
            fs::write(&fresh, text).expect("a file");
            fs::rename(&fresh, &path).expect("in place");
            laws.look_at_file(&path);
        }
        laws.all_broken()
    }

    #[test]
    fn a_whole_map_file_passes_and_every_kind_of_damage_is_told() {
        assert_eq!(
            after(&[file(1, "a m1\nb m2\n"), file(1, "#= a m2\na m1\nb m2\n"), file(2, "a m2\n")]),
            [""; 0]
        );
        let damaged = [
            "a m1",
            "a m1\nb\n",
            "a m1\na m2\n",
            "b m1\na m1\n",
            "a m1 m2\n",
            "a m1\n\n",
            " m1\n",
            "a m1\n# b\n",
        ];
        for lines in damaged {
            assert!(after(&[file(1, lines)])[0].contains("does not parse"), "{lines:?}");
        }
        assert!(after(&["a m1\n".to_owned()])[0].contains("no revision"));
        assert!(after(&[String::new()])[0].contains("cut"));
    }

    #[test]
    fn a_revision_that_goes_back_or_changes_is_told() {
        assert!(
            after(&[file(2, "a m1\n"), file(1, "a m1\n")])[0].contains("back from revision 2 to 1")
        );
        assert!(after(&[file(2, "a m1\n"), file(2, "a m2\n")])[0].contains("two different maps"));
    }

    #[test]
    fn memory_that_is_ahead_of_the_file_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("n.map");
        let laws = Laws::new(Routing::Map);
        fs::write(&path, file(1, "a m1\n")).expect("a file");
        let entry = |master: &str| vec![("a".to_owned(), master.to_owned())];
        laws.memory_is(0, &entry("m1"), &path);
        laws.replace_file(&path, file(1, "").as_bytes()).expect("in place");
        laws.memory_is(0, &entry("m1"), &path);
        assert_eq!(laws.all_broken(), [""; 0], "an older map is no newer one");
        laws.memory_is(0, &entry("m2"), &path);
        assert!(laws.all_broken()[0].contains("a -> m2"));
    }

    #[test]
    fn a_file_that_the_harness_took_away_is_not_missed_and_a_lost_one_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("n.map");
        let laws = Laws::new(Routing::Map);
        laws.hide_file(true);
        laws.look_at_file(&path);
        assert_eq!(laws.all_broken(), [""; 0]);
        laws.hide_file(false);
        laws.look_at_file(&path);
        assert!(laws.all_broken()[0].contains("can't be read"));
    }

    fn answered(laws: &Laws, status: u16, master: &str, owners: &[&str], known: bool) -> usize {
        let answer = Answer { node: "a".to_owned(), status, master: master.to_owned() };
        let owners: Vec<_> = owners.iter().map(|owner| (*owner).to_owned()).collect();
        let now = Instant::now();
        laws.judge(&Judged {
            gateway: 0,
            from: now,
            to: now,
            answer: &answer,
            owners: &owners,
            known,
        });
        laws.all_broken().len()
    }

    #[test]
    fn an_answer_of_a_master_that_never_owned_the_node_is_told_whatever_goes_on() {
        let laws = Laws::new(Routing::Map);
        laws.excused(0, Excuse::Down);
        laws.excused(0, Excuse::Old);
        assert_eq!(answered(&laws, 200, "m1", &["m1", "m2"], true), 0);
        assert_eq!(answered(&laws, 200, "m3", &["m1", "m2"], false), 1);
    }

    #[test]
    fn a_failed_request_is_told_unless_the_harness_made_it_fail() {
        let laws = Laws::new(Routing::Map);
        assert_eq!(answered(&laws, 404, "none", &["m1"], false), 0, "not in the map yet");
        assert_eq!(answered(&laws, 404, "none", &["m1"], true), 1);
        assert_eq!(answered(&laws, 0, "refused", &["m1"], true), 2);
        laws.excused(1, Excuse::Down);
        assert_eq!(answered(&laws, 0, "refused", &["m1"], true), 3, "another gateway is down");
        laws.excused(0, Excuse::Down);
        laws.excused(0, Excuse::Old);
        assert_eq!(answered(&laws, 0, "refused", &["m1"], true), 3);
        assert_eq!(answered(&laws, 404, "none", &["m1"], true), 3);
        laws.closed(0, Excuse::Down);
        assert_eq!(answered(&laws, 0, "refused", &["m1"], true), 4);
        assert_eq!(answered(&laws, 503, "", &["m1"], true), 5, "nothing excuses that");
    }
}
