//! A file as a source: noticed when it changes, and never taken for what it is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mapsmith::source::{self, PollRequests, TargetedLookups, poller};
use mapsmith_core::status::{PollKind, Watch};
use mapsmith_core::{Invalid, SourceState};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Registry, assert_says, entries, rejected};

struct Folder(TempDir, &'static str);

impl Folder {
    /// For a map file.
    fn new() -> Self {
        Self::of("nodes.map")
    }

    fn of(name: &'static str) -> Self {
        Self(tempfile::tempdir().unwrap(), name)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join(self.1)
    }

    /// As a careful writer does it.
    fn replace(&self, text: &str) {
        let new = self.0.path().join("nodes.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    /// As if it had been written long ago, so that its time of change says all.
    fn replace_old(&self, text: &str) {
        let new = self.0.path().join("nodes.new");
        fs::write(&new, text).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&new).unwrap().set_modified(long_ago).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn registry(&self, settings: Value) -> Registry {
        let mut all = json!({"type": "file", "path": self.file()});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Registry::new(all)
    }
}

#[tokio::test]
async fn an_object_a_list_or_a_map_file_is_a_map() {
    for (name, text, settings) in [
        ("nodes.json", "\n {\"A\": \"m1\", \"b\": \"m2\", \"c\": null}", json!({})),
        (
            "NODES.JSON",
            r#"[{"n":"a","m":"m1"},{"n":"b","m":"m2"},{"n":"c","m":null}]"#,
            json!({"node_field": "n", "master_field": "m"}),
        ),
        ("nodes", "{\"a\": \"m1\", \"b\": \"m2\", \"c\": 7}", json!({"format": "json"})),
        ("nodes", "# nodes\nA m1\n\nb\tm2\nc\n", json!({})),
        ("nodes.map", "\u{feff}a m1\nb m2\nc\n", json!({})),
        ("nodes.json", "\u{feff}{\"a\": \"m1\", \"b\": \"m2\", \"c\": 7}", json!({})),
        ("nodes.json", "a m1\nb m2\nc\n", json!({"format": "map"})),
    ] {
        let folder = Folder::of(name);
        folder.replace(text);
        let mut settings = settings;
        settings["masters"] = json!({"m2": "master2"});
        let polled = folder.registry(settings).poll().await;
        assert_eq!(
            (polled.kind, entries(&polled)),
            (PollKind::Full, vec![("a", "m1"), ("b", "master2")])
        );
        assert_eq!((polled.rejections.total(), polled.bytes), (1, text.len() as u64));
    }
}

#[tokio::test]
async fn a_file_that_holds_something_else_is_refused_whole_and_the_last_good_map_stays() {
    for (name, good, junk) in [
        ("nodes.map", "a m1\nb m2\n", "{\"a\": \"m1\"}"),
        ("nodes.map", "a m1\nb m2\n", "a: m1\nb: m2\n"),
        (
            "nodes.map",
            "a m1\nb m2\n",
            "<!DOCTYPE html>\n<html><head><title>Gone</title></head></html>\n",
        ),
        ("nodes.map", "a m1\nb m2\n", "Not Found"),
        ("nodes.map", "a m1\nb m2\n", "502 Bad Gateway\n"),
        ("nodes", "a m1\nb m2\n", "\u{feff}{\"a\": \"m1\"}"),
        ("nodes.json", "{\"a\": \"m1\"}", "a m1\nb m2\n"),
        ("nodes.json", "{\"a\": \"m1\"}", "Not Found"),
        ("nodes.json", "{\"a\": \"m1\"}", "<html>"),
        ("nodes.json", "{\"a\": \"m1\"}", "---\na: m1\n"),
    ] {
        let folder = Folder::of(name);
        folder.replace(good);
        let mut registry = folder.registry(json!({}));
        registry.poll().await;
        folder.replace(junk);
        let what = if name == "nodes.json" { "is not JSON" } else { "the file is not a map file" };
        assert_says(&registry.failure().await, &[name, what]);
        folder.replace(good);
        assert_eq!(registry.poll().await.entries.get("a"), Some("m1"), "{junk:?}");
    }
}

#[tokio::test]
async fn a_reload_reads_a_file_again_that_looks_untouched_and_so_does_a_poll_after_full_poll() {
    let folder = Folder::new();
    folder.replace_old("a m1\n");
    let mut registry = folder.registry(json!({"full_poll": "10m"}));
    registry.poll().await;
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    assert_eq!(registry.poll_everything().await.kind, PollKind::Full);
    registry.later(599);
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    registry.later(1);
    assert_eq!(registry.poll().await.kind, PollKind::Full);
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
}

#[tokio::test]
async fn invalid_lines_of_a_map_file_are_left_out_and_named() {
    let folder = Folder::new();
    folder.replace("a m1\nlonely\nb two words\na m2\n");
    let polled = folder.registry(json!({})).poll().await;
    assert_eq!(entries(&polled), [("a", "m1")]);
    assert_eq!(
        rejected(&polled),
        [("line 2", Invalid::EmptyValue), ("line 3", Invalid::ValueWhitespace)]
    );
}

#[tokio::test]
async fn an_untouched_file_is_not_read_again() {
    let folder = Folder::new();
    folder.replace_old("a m1\n");
    let mut registry = folder.registry(json!({}));
    let first = registry.poll().await;
    let second = registry.poll().await;
    assert_eq!((second.kind, second.bytes), (PollKind::Unchanged, 0));
    assert!(Arc::ptr_eq(&first.entries, &second.entries));
    registry.current = None;
    assert_eq!(registry.poll().await.kind, PollKind::Full);
    folder.replace_old("a m2\n");
    assert_eq!(entries(&registry.poll().await), [("a", "m2")]);
}

#[tokio::test]
async fn a_file_that_can_not_be_used_is_named_with_what_is_wrong() {
    let folder = Folder::of("nodes.json");
    let mut registry = folder.registry(json!({"max_bytes": "1000"}));
    let path = folder.file().display().to_string();
    assert_says(&registry.failure().await, &[&path, "there is no such file"]);
    fs::create_dir(folder.file()).unwrap();
    assert_says(&registry.failure().await, &[&path, "is a folder"]);
    fs::remove_dir(folder.file()).unwrap();
    for (text, part) in [
        ("{\"a\": \"m1\",\n \"b\"", "cut off at line 2, column 5"),
        ("{\"a\": \"m1\",\n b}", "mistake at line 2, column 2"),
        (
            "{\"a\": \"m1\"}\nmore",
            "something follows the end of the JSON text, at line 2, column 1",
        ),
        ("[{\"n\": \"a\"}]", "set node_field and master_field"),
    ] {
        folder.replace(text);
        assert_says(&registry.failure().await, &[&path, part]);
    }
    for beginning in ["", "{", " "] {
        folder.replace(&format!("{beginning}{}", "\"a\": \"b\",".repeat(1000)));
        assert_says(&registry.failure().await, &[&path, "larger than max_bytes (1000 bytes"]);
    }
    folder.replace(&" ".repeat(2000));
    assert_says(&registry.failure().await, &["larger than max_bytes"]);
    let folder = Folder::new();
    folder.replace(&"a m1\n".repeat(1000));
    assert_says(
        &folder.registry(json!({"max_bytes": "1000"})).failure().await,
        &["larger than max_bytes (1000 bytes"],
    );
}

#[tokio::test]
async fn an_unreadable_file_is_an_error() {
    let folder = Folder::new();
    folder.replace("a m1\n");
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(folder.file()).is_ok() {
        // Nothing is unreadable for a superuser.
        return;
    }
    assert_says(&folder.registry(json!({})).failure().await, &["can't be read", "denied"]);
}

/// A poller that nobody asks anything: what it learns it learns by watching.
struct Watched {
    state: watch::Receiver<SourceState>,
    shutdown: CancellationToken,
}

impl Watched {
    fn start(path: &Path) -> Self {
        let settings: mapsmith::settings::Source =
            serde_json::from_value(json!({"name": "file", "type": "file", "path": path})).unwrap();
        let source = source::registry(&settings, true).unwrap().node_map().unwrap();
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            "file".to_owned(),
            "file".to_owned(),
            true,
        ));
        let shutdown = CancellationToken::new();
        let end = shutdown.clone();
        tokio::spawn(async move {
            let (round, lookups) = (PollRequests::new().round(), TargetedLookups::new());
            poller::run(settings.name, source, round, &lookups, sender, poller::Use::Applied, end)
                .await;
        });
        Self { state, shutdown }
    }

    async fn until(&mut self, wanted: impl FnMut(&SourceState) -> bool) -> SourceState {
        let wait = self.state.wait_for(wanted);
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("the change is noticed")
            .unwrap()
            .clone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn master_of_a(state: &SourceState) -> Option<&str> {
    state.snapshot.as_ref().and_then(|snapshot| snapshot.entries.get("a"))
}

#[tokio::test]
async fn a_replaced_file_is_noticed_without_a_poll_being_due() {
    let folder = Folder::of("nodes.json");
    folder.replace("{\"a\": \"m1\"}");
    let mut watched = Watched::start(&folder.file());
    watched.until(|state| master_of_a(state) == Some("m1")).await;
    for master in ["m2", "m3"] {
        folder.replace(&format!("{{\"a\": \"{master}\"}}"));
        watched.until(|state| master_of_a(state) == Some(master)).await;
    }
    fs::write(folder.file(), "{\"a\": \"in place\"}".replace(' ', "")).unwrap();
    watched.until(|state| master_of_a(state) == Some("inplace")).await;
}

#[tokio::test]
async fn a_file_behind_a_link_that_is_turned_is_noticed() {
    // As Kubernetes replaces the files of a ConfigMap.
    let folder = Folder::new();
    for (version, master) in [("v1", "m1"), ("v2", "m2")] {
        fs::create_dir(folder.0.path().join(version)).unwrap();
        fs::write(folder.0.path().join(version).join("nodes.map"), format!("a {master}\n"))
            .unwrap();
    }
    let link = |version: &str| {
        let new = folder.0.path().join("data.new");
        std::os::unix::fs::symlink(version, &new).unwrap();
        fs::rename(new, folder.0.path().join("data")).unwrap();
    };
    link("v1");
    std::os::unix::fs::symlink("data/nodes.map", folder.file()).unwrap();
    let mut watched = Watched::start(&folder.file());
    watched.until(|state| master_of_a(state) == Some("m1")).await;
    link("v2");
    watched.until(|state| master_of_a(state) == Some("m2")).await;
}

/// Puts a link in the place of another, at once.
fn turn(link: &Path, target: &str) {
    let new = link.with_extension("new");
    std::os::unix::fs::symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test]
async fn a_file_is_watched_through_links_and_folders_that_are_turned_moved_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write = |path: &str, master: &str| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), format!("a {master}\n")).unwrap();
    };
    write("releases/1/data/nodes.map", "m1");
    write("releases/2/data/nodes.map", "m2");
    turn(&root.join("current"), "releases/1");
    let mut watched = Watched::start(&root.join("current/data/nodes.map"));
    let state = watched.until(|state| master_of_a(state) == Some("m1")).await;
    assert_eq!(state.status.watch, Some(Watch::Watched));

    turn(&root.join("current"), "releases/2");
    watched.until(|state| master_of_a(state) == Some("m2")).await;
    // The way is another now: what happens there must show, too.
    write("releases/2/data/nodes.map", "m3");
    watched.until(|state| master_of_a(state) == Some("m3")).await;

    // The file becomes a link into another folder.
    write("shared/all/nodes.map", "m4");
    turn(&root.join("releases/2/data/nodes.map"), "../../../shared/all/nodes.map");
    watched.until(|state| master_of_a(state) == Some("m4")).await;
    write("shared/all/nodes.map", "m5");
    watched.until(|state| master_of_a(state) == Some("m5")).await;

    // Folders vanish and come back, the last one first, then one far above.
    for (gone, master) in [("shared/all", "m6"), ("shared", "m7"), ("shared", "m8")] {
        fs::remove_dir_all(root.join(gone)).unwrap();
        let lost = watched.until(|state| state.status.error.is_some()).await;
        assert_says(lost.status.error.as_deref().unwrap(), &["no such file"]);
        assert_eq!(lost.status.watch, Some(Watch::Watched), "it is waited for");
        write("shared/all/nodes.map", master);
        watched.until(|state| master_of_a(state) == Some(master)).await;
    }
    let state = watched.until(|state| state.status.error.is_none()).await;
    assert_eq!(state.status.watch, Some(Watch::Watched));
}

#[tokio::test]
async fn a_file_that_nothing_watches_says_so() {
    let folder = Folder::new();
    folder.replace("a m1\n");
    let mut registry = folder.registry(json!({}));
    assert_eq!(registry.source.notes().watch, Some(Watch::PolledOnly), "before the first poll");
    registry.poll().await;
    assert_eq!(registry.source.notes().watch, Some(Watch::Watched));
}

#[tokio::test]
async fn a_truncated_or_lost_file_keeps_the_last_good_map() {
    let folder = Folder::of("nodes.json");
    folder.replace("{\"a\": \"m1\"}");
    let mut watched = Watched::start(&folder.file());
    let good = watched.until(|state| state.snapshot.is_some()).await;
    folder.replace("{\"a\": \"m");
    let failed = watched.until(|state| state.status.error.is_some()).await;
    assert_says(failed.status.error.as_deref().unwrap(), &["cut off at line 1, column 9"]);
    assert_eq!(master_of_a(&failed), Some("m1"));
    assert_eq!(failed.status.answered_at, good.status.answered_at);
    fs::remove_file(folder.file()).unwrap();
    let lost = watched
        .until(|state| {
            state.status.error.as_ref().is_some_and(|error| error.contains("no such file"))
        })
        .await;
    assert_eq!(master_of_a(&lost), Some("m1"));
    folder.replace("{\"a\": \"m2\"}");
    let corrected = watched.until(|state| master_of_a(state) == Some("m2")).await;
    assert_eq!(corrected.status.error, None);
}
