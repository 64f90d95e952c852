//! A watch of a path and its children: a hint that it is time to poll, and no more.
//!
//! One recursive watch covers a path and everything below it. It ends with the connection: what
//! changes while there is none raises no event, so whoever has lost one polls, and watches anew
//! before he reads. Where the last poll failed that is left to its repetition.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use zookeeper_client::{
    AddWatchMode, Client, Error, EventType, OneshotWatcher, PersistentWatcher, SessionId,
};

/// A watch, ended on drop.
pub(super) struct PathWatch {
    session: SessionId,
    task: JoinHandle<()>,
    /// Whether it notices what a child holds, too.
    pub(super) is_whole: bool,
}

impl PathWatch {
    /// Watches a path from now on.
    ///
    /// # Errors
    /// The client's.
    pub(super) async fn arm(
        client: &Client,
        path: &str,
        events: &Arc<Notify>,
    ) -> Result<Self, Error> {
        let (session, events) = (client.session_id(), Arc::clone(events));
        match client.watch(path, AddWatchMode::PersistentRecursive).await {
            Ok(watcher) => {
                let task = tokio::spawn(follow(watcher, path.to_owned(), events));
                Ok(Self { session, task, is_whole: true })
            }
            // Before 3.6: who comes and goes is seen at once, the rest by the schedule's polls.
            Err(Error::Unimplemented) => {
                let (_, watcher) = client.list_and_watch_children(path).await?;
                let task = tokio::spawn(follow_once(watcher, events));
                Ok(Self { session, task, is_whole: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it still watches, for this client's session.
    pub(super) fn holds(&self, client: &Client) -> bool {
        self.session == client.session_id() && self.is_alive()
    }

    /// Whether it still watches.
    pub(super) fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Resolves when it watches no more. It is over then, and must not be asked again.
    pub(super) async fn ended(&mut self) {
        // However it ended, nothing is noticed from now on.
        let _ended = (&mut self.task).await;
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes the events as they come, since they are kept without a bound, until the connection is
/// lost.
async fn follow(mut watcher: PersistentWatcher, path: String, events: Arc<Notify>) {
    loop {
        let event = watcher.changed().await;
        if event.event_type == EventType::Session {
            return;
        }
        if concerns(&path, &event.path) {
            events.notify_one();
        }
    }
}

async fn follow_once(watcher: OneshotWatcher, events: Arc<Notify>) {
    if watcher.changed().await.event_type != EventType::Session {
        events.notify_one();
    }
}

/// Whether a change at `changed` is one of the path or of its children.
fn concerns(path: &str, changed: &str) -> bool {
    let below = changed.strip_prefix(path.trim_end_matches('/'));
    below.is_some_and(|below| below.matches('/').count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_and_its_children_count_and_what_is_below_them_does_not() {
        for (path, changed, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/b/c", true),
            ("/a/b", "/a/b/c/d", false),
            ("/", "/", true),
            ("/", "/a", true),
            ("/", "/a/b", false),
        ] {
            assert_eq!(concerns(path, changed), expected, "{path} {changed}");
        }
    }
}
