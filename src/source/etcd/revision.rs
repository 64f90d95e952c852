//! Whether an answer is of the etcd, and of the time, that the last one was of. *Pure.*
//!
//! An etcd that was restored from a backup answers well, and with what was so when the backup was
//! made. Such an answer fails first, and is taken once an operator has reloaded since, or once its
//! revision has passed the known one. With another cluster id revisions don't compare: there a
//! reload is needed. A reload that came before the failure does not count: nobody knew of it then.

/// When an answer was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) cluster: u64,
    pub(super) revision: i64,
}

/// What the answers so far were of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct History {
    /// The last that was taken.
    taken: Option<Moment>,
    /// If one has been refused since: the latest reload at that time.
    refused: Option<u64>,
}

impl History {
    /// Whether an answer may be taken. `reload`: the number of the latest one.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(super) fn check(&mut self, answer: Moment, reload: u64) -> Result<(), String> {
        let Some(known) = self.taken else { return Ok(()) };
        let is_other = answer.cluster != known.cluster;
        if !is_other && answer.revision >= known.revision {
            return Ok(());
        }
        if self.refused.is_some_and(|refused| reload > refused) {
            return Ok(());
        }
        self.refused.get_or_insert(reload);
        Err(if is_other {
            format!(
                "this is another etcd than before (cluster id {:x}, before {:x}): it was made anew \
                    or restored from a backup, or endpoints name several; if its keys are right, \
                    have them taken by `mapsmith reload`",
                answer.cluster, known.cluster
            )
        } else {
            format!(
                "its revision went back from {} to {}: it was restored from a backup, or this \
                    member is behind; if its keys are right, have them taken by `mapsmith reload` \
                    (they are by themselves once the revision has passed the old one)",
                known.revision, answer.revision
            )
        })
    }

    /// The answer is whole, and was taken. Whether it is of an earlier time, or of another etcd.
    pub(super) fn take(&mut self, answer: Moment) -> bool {
        let is_next =
            |known: Moment| answer.cluster == known.cluster && answer.revision >= known.revision;
        let goes_back = !self.taken.is_none_or(is_next);
        *self = Self { taken: Some(answer), refused: None };
        goes_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(cluster: u64, revision: i64) -> Moment {
        Moment { cluster, revision }
    }

    #[test]
    fn a_revision_that_goes_back_is_refused_until_a_reload_or_until_it_has_passed() {
        let mut history = History::default();
        assert_eq!(history.check(moment(1, 10), 0), Ok(()));
        assert!(!history.take(moment(1, 10)));
        assert_eq!(history.check(moment(1, 10), 0), Ok(()));
        // Nobody who reloaded for another reason has it taken unseen, however often it is retried.
        let refused = history.check(moment(1, 9), 1).unwrap_err();
        assert!(refused.contains("from 10 to 9") && refused.contains("mapsmith reload"));
        assert!(history.check(moment(1, 9), 1).is_err());
        let mut passed = history;
        assert_eq!(passed.check(moment(1, 10), 1), Ok(()));
        assert_eq!(history.check(moment(1, 9), 2), Ok(()));
        assert!(history.take(moment(1, 9)), "it is told");
        assert_eq!(history.check(moment(1, 9), 2), Ok(()));
        assert!(history.check(moment(1, 8), 2).is_err(), "each time anew");
        assert!(!passed.take(moment(1, 10)));
        assert!(passed.check(moment(1, 9), 1).is_err());
    }

    #[test]
    fn another_cluster_is_refused_until_a_reload_whatever_its_revision() {
        let mut history = History::default();
        assert!(!history.take(moment(1, 10)));
        let refused = history.check(moment(2, 99), 7).unwrap_err();
        assert!(refused.contains("cluster id 2, before 1"), "{refused}");
        assert!(history.check(moment(2, 99), 7).is_err());
        assert_eq!(history.check(moment(2, 100), 8), Ok(()));
    }
}
