//! Which revisions can be reached, from the newest map back.

use super::{Malformed, Patch, RevisionRecord};

/// The revisions that hang together, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Each with the one that it leads to.
    steps: Vec<(u64, Option<u64>)>,
}

/// Why there is no way to a revision's map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached<E> {
    /// It is not kept any more, or lies behind one that could not be kept.
    #[error("it is not kept any more")]
    NotKept,
    #[error(transparent)]
    Malformed(Malformed),
    #[error("{0}")]
    Store(E),
}

impl Chain {
    /// What of all that is kept can be reached from the map of the revision `newest`.
    pub fn new<'a>(newest: u64, records: impl IntoIterator<Item = &'a RevisionRecord>) -> Self {
        let mut records: Vec<_> =
            records.into_iter().map(|record| (record.number, record.previous)).collect();
        records.sort_unstable();
        let mut chain = Self::default();
        let mut next = Some(newest);
        while let Some(number) = next {
            let found = records.binary_search_by_key(&number, |(number, _)| *number);
            let previous = found.ok().and_then(|at| records[at].1);
            chain.steps.push((number, previous));
            // A number never leads to a later one; where it does the store was changed.
            next = previous.filter(|previous| *previous < number);
        }
        chain
    }

    /// Whether the map of a revision can be had.
    pub fn reaches(&self, number: u64) -> bool {
        self.steps.iter().any(|(known, _)| *known == number)
    }

    /// The oldest revision whose map can be had.
    pub fn oldest(&self) -> Option<u64> {
        self.steps.last().map(|(number, _)| *number)
    }

    /// Goes on with a patch from the map of the revision `from` to the one of `to`, which is not
    /// later. `load` gives the blocks of a revision.
    ///
    /// # Errors
    /// There is no way, or what is kept of it can't be read.
    pub fn go_back<E>(
        &self,
        patch: &mut Patch,
        from: u64,
        to: u64,
        mut load: impl FnMut(u64) -> Result<Vec<Vec<u8>>, E>,
    ) -> Result<(), Unreached<E>> {
        if !self.reaches(from) || !self.reaches(to) || from < to {
            return Err(Unreached::NotKept);
        }
        let way = self.steps.iter().skip_while(|(number, _)| *number != from);
        for (number, _) in way.take_while(|(number, _)| *number != to) {
            for block in load(*number).map_err(Unreached::Store)? {
                patch.take(&block).map_err(Unreached::Malformed)?;
            }
        }
        Ok(())
    }
}
