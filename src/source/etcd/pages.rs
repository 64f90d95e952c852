//! Everything below a prefix as it was at one revision, page by page, so that no answer is too
//! large. What does not fit together is no answer.

use std::time::Duration;

use etcd_client::{GetOptions, GetResponse, KvClient};
use tokio::time::timeout;

use super::failure::Failure;
use super::revision::Moment;
use crate::source::error::SourceErrorKind;

/// How many keys are asked for at once.
const KEYS_AT_ONCE: i64 = 1000;
/// The largest page, in bytes; fewer keys are asked for where one is larger. A server takes a value
/// of 1.5 MiB, unless it is told otherwise.
const MAX_PAGE: usize = 16 * 1024 * 1024;
/// What a key costs beside its bytes, roughly.
const OVERHEAD: u64 = 32;

/// What is asked for, and within which bounds.
pub(super) struct Wanted<'a> {
    pub(super) prefix: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) serializable: bool,
    pub(super) max_bytes: u64,
    /// How long a page may take.
    pub(super) page: Duration,
}

/// Reads everything; each key, without the prefix, and its value go to `take`. `check` has its say
/// before anything is taken. When it was so, and how many bytes it was.
///
/// # Errors
/// If there is no whole answer: then what was taken is none.
pub(super) async fn read(
    kv: KvClient,
    wanted: &Wanted<'_>,
    mut check: impl FnMut(Moment) -> Result<(), Failure>,
    mut take: impl FnMut(&[u8], &[u8]),
) -> Result<(Moment, u64), Failure> {
    let mut kv = kv.max_decoding_message_size(MAX_PAGE);
    let mut cursor = Cursor::new(wanted.prefix, wanted.max_bytes);
    loop {
        let request = kv.get(cursor.next.clone(), Some(cursor.options(wanted.serializable)));
        let page = match timeout(wanted.page, request).await {
            Err(_) => return Err(Failure::Member(SourceErrorKind::NoAnswer(wanted.page))),
            Ok(Err(error)) => match Failure::new(&error, wanted.prefix, wanted.user) {
                Failure::PageTooLarge if cursor.limit > 1 => {
                    cursor.limit = (cursor.limit / 8).max(1);
                    continue;
                }
                failure => return Err(failure),
            },
            Ok(Ok(page)) => Page::new(page).map_err(Failure::Member)?,
        };
        if cursor.moment.is_none() {
            check(page.moment)?;
        }
        if let Some(whole) = cursor.advance(page, &mut take).map_err(Failure::Member)? {
            return Ok(whole);
        }
    }
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    moment: Moment,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether there are more keys behind.
    more: bool,
    /// How many keys there are from the one on that was asked for.
    count: i64,
}

impl Page {
    fn new(mut page: GetResponse) -> Result<Self, SourceErrorKind> {
        let moment = page
            .header()
            .map(|header| Moment { cluster: header.cluster_id(), revision: header.revision() })
            .filter(|moment| moment.revision > 0)
            .ok_or(SourceErrorKind::NotWhole("the answer does not say of which revision it is"))?;
        let (more, count) = (page.more(), page.count());
        let pairs = page.take_kvs().into_iter().map(|pair| pair.into_key_value()).collect();
        Ok(Self { moment, pairs, more, count })
    }
}

/// How far a prefix was read.
struct Cursor {
    prefix: Vec<u8>,
    /// The first key that does not begin with the prefix.
    end: Vec<u8>,
    next: Vec<u8>,
    limit: i64,
    /// Of the first page: the others are of the same revision.
    moment: Option<Moment>,
    missing: i64,
    bytes: u64,
    max_bytes: u64,
}

impl Cursor {
    fn new(prefix: &str, max_bytes: u64) -> Self {
        Self {
            prefix: prefix.into(),
            end: end_of(prefix),
            next: prefix.into(),
            limit: KEYS_AT_ONCE,
            moment: None,
            missing: 0,
            bytes: 0,
            max_bytes,
        }
    }

    fn options(&self, serializable: bool) -> GetOptions {
        let options = GetOptions::new().with_range(self.end.clone()).with_limit(self.limit);
        let options = if serializable { options.with_serializable() } else { options };
        match self.moment {
            Some(moment) => options.with_revision(moment.revision),
            None => options,
        }
    }

    /// Takes a page; when it was so and its size, once it was the last.
    fn advance(
        &mut self,
        page: Page,
        take: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<(Moment, u64)>, SourceErrorKind> {
        let moment = match self.moment {
            Some(moment) => moment,
            None => {
                self.missing = page.count;
                *self.moment.insert(page.moment)
            }
        };
        for (key, value) in &page.pairs {
            let rest = key.strip_prefix(&*self.prefix).filter(|_| *key >= self.next);
            let Some(rest) = rest else {
                return Err(SourceErrorKind::NotWhole(
                    "the answer has a key that was not asked for; is there something between \
                        Mapsmith and etcd that changes keys?",
                ));
            };
            self.bytes += (key.len() + value.len()) as u64 + OVERHEAD;
            if self.bytes > self.max_bytes {
                return Err(SourceErrorKind::TooLarge(self.max_bytes));
            }
            self.next.clone_from(key);
            self.next.push(0);
            self.missing -= 1;
            take(rest, value);
        }
        match (page.more, page.pairs.is_empty()) {
            (true, false) => Ok(None),
            (false, _) if self.missing == 0 => Ok(Some((moment, self.bytes))),
            _ => Err(SourceErrorKind::NotWhole(
                "the answer has other keys than it says that there are; what was answered last \
                    stays",
            )),
        }
    }
}

/// The first key that does not begin with the prefix, which ends with `/`.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { cluster: 1, revision: 7 };

    fn page(keys: &[&str], more: bool, count: i64) -> Page {
        let pair = |key: &&str| (key.as_bytes().to_vec(), b"v".to_vec());
        Page { moment: MOMENT, pairs: keys.iter().map(pair).collect(), more, count }
    }

    fn read(pages: &[Page], max_bytes: u64) -> Result<(Vec<String>, bool), SourceErrorKind> {
        let (mut cursor, mut taken) = (Cursor::new("/a/", max_bytes), Vec::new());
        let mut whole = None;
        for page in pages {
            let mut take =
                |key: &[u8], _: &[u8]| taken.push(String::from_utf8(key.to_vec()).unwrap());
            whole = cursor.advance(page.clone(), &mut take)?;
        }
        Ok((taken, whole.is_some()))
    }

    #[test]
    fn pages_are_joined_and_the_last_one_ends_the_answer() {
        let pages = [page(&["/a/", "/a/b"], true, 3), page(&["/a/c/d"], false, 1)];
        let keys = ["", "b", "c/d"].map(str::to_owned).to_vec();
        assert_eq!(read(&pages, 1000), Ok((keys.clone(), true)));
        assert_eq!(read(&pages[..1], 1000), Ok((keys[..2].to_vec(), false)));
        assert_eq!(read(&[page(&[], false, 0)], 1000), Ok((Vec::new(), true)));
        assert_eq!(end_of("/a/"), b"/a0");
    }

    #[test]
    fn what_does_not_fit_together_is_no_answer() {
        for pages in [
            &[page(&["/b/c"], false, 1)][..],
            &[page(&["/a"], false, 1)],
            &[page(&["/a/b"], false, 2)],
            &[page(&[], false, 1)],
            &[page(&[], true, 1)],
            &[page(&["/a/c", "/a/b"], false, 2)],
            &[page(&["/a/b", "/a/b"], false, 2)],
            &[page(&["/a/b"], true, 2), page(&["/a/b"], false, 1)],
            &[page(&["/a/b", "/a/c"], false, 1)],
        ] {
            let fault = read(pages, 1000).unwrap_err();
            assert!(matches!(fault, SourceErrorKind::NotWhole(_)), "{pages:?}: {fault}");
        }
        let large = read(&[page(&["/a/b", "/a/c"], false, 2)], 50);
        assert_eq!(large, Err(SourceErrorKind::TooLarge(50)));
    }
}
