//! A watch of everything that decides which file a path leads to: each folder on the way, links
//! followed. Of a folder of lists also what is in it, and the way to each of its files.
//!
//! A file replaced by a rename, a link that is turned (`current -> releases/7`), a folder that is
//! removed and made again: each is a change of an entry in one of those folders. Which folders they
//! are changes with them, so the watch is armed again whenever they did; and always before the file
//! is read, so that nothing falls in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::off_thread;
use super::read::fragments;

/// The most links that are followed, as in Linux.
const MOST_LINKS: usize = 40;

/// The folders on the way to a file, and what matters of each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    /// Each folder by its path without links, with its device and inode: one that was made again is
    /// another.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    /// What is looked up in them: folders, links, and the file.
    entries: BTreeSet<PathBuf>,
    /// The folder that the path leads to, if it does: whatever comes and goes there matters.
    listed: Option<PathBuf>,
    /// The folders that hold a link, and the last one: a change of what the file is shows there. In
    /// the others only what removes a folder below, which shows there, too.
    telling: BTreeSet<PathBuf>,
}

impl Way {
    /// The way as far as it goes now: what is missing is looked for in the folder where it should
    /// be.
    fn to(path: &Path) -> Self {
        let mut way = Self::default();
        let Some(end) = way.go(path) else { return way };
        // A file, nearly always. (What can't be listed can't be read either: the poll says so.)
        let Ok(metadata) = std::fs::metadata(&end) else { return way };
        if metadata.is_dir() {
            way.folders.insert(end.clone(), (metadata.dev(), metadata.ino()));
            way.telling.insert(end.clone());
            for name in fragments(&end).unwrap_or_default() {
                way.go(&end.join(name));
            }
            way.listed = Some(end);
        }
        way
    }

    /// Adds the way to this path. Where it ends, without links; none where it is broken off.
    fn go(&mut self, path: &Path) -> Option<PathBuf> {
        let mut left: Vec<OsString> = Vec::new();
        push(&mut left, &std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let (mut at, mut last, mut links) = (PathBuf::from("/"), PathBuf::from("/"), 0);
        let mut is_whole = true;
        while let Some(name) = left.pop() {
            if name == "/" {
                at = PathBuf::from("/");
                continue;
            }
            if name == ".." {
                at.pop();
                continue;
            }
            let Ok(folder) = std::fs::metadata(&at) else {
                is_whole = false;
                break;
            };
            self.folders.insert(at.clone(), (folder.dev(), folder.ino()));
            let entry = at.join(name);
            self.entries.insert(entry.clone());
            last.clone_from(&at);
            match std::fs::read_link(&entry) {
                Ok(target) => {
                    self.telling.insert(at.clone());
                    links += 1;
                    if links > MOST_LINKS {
                        is_whole = false;
                        break;
                    }
                    push(&mut left, &target);
                }
                // No link, or nothing at all, which shows at the next step.
                Err(_) => at = entry,
            }
        }
        self.telling.insert(last);
        is_whole.then_some(at)
    }
}

/// Puts a path's parts on top of those that are left, the first one uppermost.
fn push(left: &mut Vec<OsString>, path: &Path) {
    let parts =
        path.components().filter(|part| !matches!(part, Component::CurDir | Component::Prefix(_)));
    left.extend(parts.rev().map(|part| part.as_os_str().to_owned()));
}

/// A watch of a file.
pub(in crate::source) struct FileWatch {
    path: PathBuf,
    /// Raised by a change of something on the way.
    events: Arc<Notify>,
    armed: Option<Armed>,
}

struct Armed {
    way: Way,
    /// Why not all of it is watched, if so.
    gap: Option<String>,
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Watches nothing yet.
    pub(in crate::source) fn new(path: PathBuf, events: Arc<Notify>) -> Self {
        Self { path, events, armed: None }
    }

    /// Whether the folders that are watched are those on the way no more.
    pub(in crate::source) async fn is_outdated(&self) -> bool {
        let path = self.path.clone();
        let way = off_thread(move || Way::to(&path)).await;
        !self.covers(&way)
    }

    fn covers(&self, way: &Way) -> bool {
        self.armed.as_ref().is_some_and(|armed| armed.gap.is_none() && armed.way == *way)
    }

    /// Watches what is on the way now. Blocks.
    ///
    /// # Errors
    /// Why a folder can't be watched whose changes show nowhere else but at the next poll.
    pub(in crate::source) fn arm(&mut self) -> Result<(), String> {
        let way = Way::to(&self.path);
        if self.covers(&way) {
            return Ok(());
        }
        // The old one first: there is a bound on how many a user may have.
        self.armed = None;
        let (events, entries) = (Arc::clone(&self.events), way.entries.clone());
        let listed = way.listed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may mean that events were lost: better poll.
            if event.map_or(true, |event| matters(&event, &entries, listed.as_deref())) {
                events.notify_one();
            }
        });
        let mut watcher = watcher.map_err(|error| error.to_string())?;
        let mut gap = None;
        for folder in way.folders.keys() {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
                && way.telling.contains(folder)
            {
                gap = Some(format!("{}: {error}", folder.display()));
            }
        }
        // What changed before its folder was watched has raised no event.
        if Way::to(&self.path) != way {
            self.events.notify_one();
        }
        let outcome = gap.clone().map_or(Ok(()), Err);
        self.armed = Some(Armed { way, gap, _watcher: watcher });
        outcome
    }
}

/// Whether something on the way may have changed. Reading raises events too, and the folders hold
/// other files.
fn matters(event: &notify::Event, entries: &BTreeSet<PathBuf>, listed: Option<&Path>) -> bool {
    let is_reading = event.kind.is_access()
        && event.kind != EventKind::Access(AccessKind::Close(AccessMode::Write));
    let concerns =
        |path: &PathBuf| entries.contains(path) || (listed.is_some() && path.parent() == listed);
    !is_reading && (event.need_rescan() || event.paths.iter().any(concerns))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_folder_on_the_way_is_watched_links_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("releases/7/data")).unwrap();
        fs::create_dir_all(root.join("shared")).unwrap();
        symlink("releases/7", root.join("current")).unwrap();
        symlink(root.join("shared/nodes.map"), root.join("releases/7/data/nodes.map")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, folders, telling, entry) in [
            (
                "current/data/nodes.map",
                &["", "releases", "releases/7", "releases/7/data", "shared"][..],
                &["", "releases/7/data", "shared"][..],
                "shared/nodes.map",
            ),
            ("current/../6/nodes.map", &["", "releases"], &["", "releases"], "releases/6"),
            ("./gone/nodes.map", &[""], &[""], "gone"),
            ("loop", &[""], &[""], "loop"),
        ] {
            let way = Way::to(&root.join(path));
            let below: Vec<_> =
                way.folders.keys().filter(|path| path.starts_with(&root)).cloned().collect();
            let expected: Vec<_> = folders
                .iter()
                .map(|name| root.join(name))
                .map(|path| path.components().collect())
                .collect::<Vec<PathBuf>>();
            assert_eq!(below, expected, "{path}");
            let telling: BTreeSet<PathBuf> =
                telling.iter().map(|name| root.join(name).components().collect()).collect();
            assert_eq!(way.telling, telling, "{path}");
            assert!(way.entries.contains(&root.join(entry)), "{path}: {:?}", way.entries);
            assert!(way.folders.contains_key(Path::new("/")), "{path}");
        }
    }

    #[test]
    fn of_a_folder_its_files_are_watched_too_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        // As Kubernetes mounts a volume: a change turns the link `..data`.
        fs::create_dir_all(root.join("lists/..2026_11_20")).unwrap();
        fs::write(root.join("lists/..2026_11_20/a.json"), "[]").unwrap();
        symlink("..2026_11_20", root.join("lists/..data")).unwrap();
        symlink("..data/a.json", root.join("lists/a.json")).unwrap();
        let way = Way::to(&root.join("lists"));
        assert_eq!(way.listed.as_deref(), Some(&*root.join("lists")));
        for folder in ["", "lists", "lists/..2026_11_20"] {
            let folder: PathBuf = root.join(folder).components().collect();
            assert!(way.telling.contains(&folder), "{}: {way:?}", folder.display());
        }
        for entry in ["lists/a.json", "lists/..data", "lists/..2026_11_20/a.json"] {
            assert!(way.entries.contains(&root.join(entry)), "{entry}: {way:?}");
        }
        let event = |path: &str| {
            let kind = EventKind::Create(notify::event::CreateKind::File);
            matters(
                &notify::Event::new(kind).add_path(root.join(path)),
                &way.entries,
                way.listed.as_deref(),
            )
        };
        assert!(event("lists/b.json") && event("lists/..data"));
        assert!(!event("other.json") && !event("lists/..2026_11_20/b.json"));
    }

    #[tokio::test]
    async fn a_folder_that_was_made_again_is_another_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/nodes.map");
        fs::create_dir(folder.path().join("data")).unwrap();
        let mut watch = FileWatch::new(path.clone(), Arc::default());
        assert!(watch.is_outdated().await);
        watch.arm().unwrap();
        assert!(!watch.is_outdated().await);
        fs::write(&path, "a m1\n").unwrap();
        assert!(!watch.is_outdated().await, "the file's own change is no other way");
        // Kept, so that the new one can't get its inode.
        fs::rename(folder.path().join("data"), folder.path().join("old")).unwrap();
        assert!(watch.is_outdated().await);
        fs::create_dir(folder.path().join("data")).unwrap();
        assert!(watch.is_outdated().await);
        watch.arm().unwrap();
        assert!(!watch.is_outdated().await);
    }
}
