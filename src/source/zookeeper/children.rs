//! A path's children with what they hold, whole: ZooKeeper lists names, and is asked for each
//! child by itself, while others register and leave.
//!
//! A child that is gone by then was listed beside some that may have come since. So the names are
//! read again, and with them what is new, until every child of one list was there to be read: else
//! a service whose members are replaced one by one could look empty.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use super::records::Child;

/// How many children are asked for before the first has answered.
const AT_ONCE: usize = 64;
/// How often names are read. A list of which this does not get hold changes all the time.
const MOST_LISTS: usize = 10;

/// The children of a path.
pub(super) trait Children: Sync {
    type Error: Send;

    /// Their names.
    fn names(&self) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send;

    /// What one holds; none where it is gone.
    fn data(&self, name: &str)
    -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;

    /// What they hold together is more than may be.
    fn too_large(&self, bytes: u64) -> Option<Self::Error>;

    /// They come and go faster than they are read.
    fn never_whole(&self) -> Self::Error;
}

/// Reads them, by name, and how many bytes they hold.
pub(super) async fn read<C: Children>(of: &C) -> Result<(Vec<Child>, u64), C::Error> {
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for _ in 0..MOST_LISTS {
        let listed: BTreeSet<_> = of.names().await?.into_iter().collect();
        known.retain(|name, _| listed.contains(name));
        let mut bytes = known.values().map(|data| data.len() as u64).sum();
        let new: Vec<_> = listed.into_iter().filter(|name| !known.contains_key(name)).collect();
        let mut answers = stream::iter(new)
            .map(|name| async move {
                let data = of.data(&name).await;
                (name, data)
            })
            .buffered(AT_ONCE);
        let mut is_whole = true;
        while let Some((name, data)) = answers.next().await {
            let Some(data) = data? else {
                is_whole = false;
                continue;
            };
            bytes += data.len() as u64;
            if let Some(error) = of.too_large(bytes) {
                return Err(error);
            }
            known.insert(name, data);
        }
        if is_whole {
            let child = |(name, data)| Child { name, data };
            return Ok((known.into_iter().map(child).collect(), bytes));
        }
    }
    Err(of.never_whole())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// A path whose children are others each time that they are listed: those of a step are there
    /// until the next one is.
    struct Changing {
        steps: Vec<&'static [&'static str]>,
        /// How often the names were read, and what was.
        asked: Mutex<(usize, Vec<String>)>,
    }

    impl Changing {
        /// What is listed now, after the names were read so often.
        fn at(&self, lists: usize) -> &'static [&'static str] {
            self.steps.get(lists).or(self.steps.last()).copied().unwrap_or_default()
        }
    }

    impl Children for Changing {
        type Error = &'static str;

        async fn names(&self) -> Result<Vec<String>, &'static str> {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.0 += 1;
            Ok(self.at(asked.0 - 1).iter().map(|name| (*name).to_owned()).collect())
        }

        async fn data(&self, name: &str) -> Result<Option<Vec<u8>>, &'static str> {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.1.push(name.to_owned());
            // The next change comes before any child is read.
            Ok(self.at(asked.0).contains(&name).then(|| name.as_bytes().to_owned()))
        }

        fn too_large(&self, bytes: u64) -> Option<&'static str> {
            (bytes > 20).then_some("too large")
        }

        fn never_whole(&self) -> &'static str {
            "never whole"
        }
    }

    /// What is read, and what was asked for.
    async fn read_while(
        steps: &[&'static [&'static str]],
    ) -> (Result<(Vec<String>, u64), &'static str>, Vec<String>) {
        let asked = Mutex::default();
        let children = Changing { steps: steps.to_vec(), asked };
        let names = |(children, bytes): (Vec<Child>, u64)| {
            let data = |child: &Child| String::from_utf8(child.data.clone()).unwrap();
            assert!(children.iter().all(|child| child.name == data(child)), "{children:?}");
            (children.into_iter().map(|child| child.name).collect(), bytes)
        };
        let found = read(&children).await.map(names);
        (found, children.asked.into_inner().unwrap().1)
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn members_that_are_replaced_while_they_are_read_are_none_of_them_missed() {
        for (steps, expected, asked) in [
            (&[&["b", "a"][..]][..], &["a", "b"][..], &["a", "b"][..]),
            (&[&["a", "b"], &["b"]], &["b"], &["a", "b"]),
            (&[&["a"], &["b"], &["b"]], &["b"], &["a", "b"]),
            // As it was when it was listed the second time.
            (&[&["a", "b"], &["b", "c"], &["c", "d"]], &["b", "c"], &["a", "b", "c"]),
            (&[&["a"], &[]], &[], &["a"]),
        ] {
            let (found, seen) = read_while(steps).await;
            let bytes = expected.len() as u64;
            assert_eq!(found, Ok((owned(expected), bytes)), "{steps:?}");
            assert_eq!(seen, asked, "{steps:?}: what is known is not asked for again");
        }
    }

    #[tokio::test]
    async fn a_list_that_never_holds_still_and_one_that_is_too_large_are_failures() {
        let never: Vec<&[&str]> = (0..20).map(|n| [&["a"][..], &["b"]][n % 2]).collect();
        assert_eq!(read_while(&never).await.0, Err("never whole"));
        let large: &[&[&str]] = &[&["abcdefghij", "bcdefghijk", "c"]];
        assert_eq!(read_while(large).await.0, Err("too large"));
    }
}
