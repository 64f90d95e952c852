//! How many files and connections the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the usual 1,024 are of a time when programs kept
/// descriptors in fixed tables. Returns how many there may be.
pub(super) fn raise_limit() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(error) => {
            let limit = limits.current;
            tracing::warn!(
                limit,
                "the limit of open files can't be raised: {error}; set it with LimitNOFILE or \
                    `ulimit -n`"
            );
            limit
        }
    };
    current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX))
}
