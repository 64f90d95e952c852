//! What HAProxy says of a configuration, without the secrets of its lines.
//!
//! What looks like a secret may be an ordinary word, like `true` or `http`, so nothing is hidden but
//! whole words: what is only a part of a name stays. HAProxy may show a secret as it stands in the
//! line or as it has read it, in quotes, from its middle on, or cut off. So whatever begins as a word
//! of a secret does is hidden, as far as it goes on like the secret, to the end of a word.

use std::collections::BTreeSet;
use std::ops::Range;

use super::secrets::{HIDDEN, apart, read, replaced, secrets};

/// The fewest bytes that are hidden of a secret, or of a part of one, but in what is said of its own
/// line: fewer are in any text.
const SHORTEST: usize = 4;

/// The secrets of a configuration.
#[derive(Default)]
pub struct Mask {
    /// As they stand in their lines, and as HAProxy reads them.
    forms: Vec<String>,
    /// Where each word of a form begins, by what follows there.
    words: Vec<(usize, usize)>,
}

impl Mask {
    /// Those of the lines of these texts.
    pub fn of<'a>(configs: impl IntoIterator<Item = &'a str>) -> Self {
        let lines = configs.into_iter().flat_map(str::lines);
        let forms: BTreeSet<String> = lines.flat_map(forms).collect();
        let mut mask = Self { forms: forms.into_iter().collect(), words: Vec::new() };
        let mut words: Vec<_> = mask.forms.iter().enumerate().flat_map(words_of).collect();
        let rest = |(form, at): (usize, usize)| &mask.forms[form].as_bytes()[at..];
        words.sort_unstable_by_key(|word| rest(*word));
        words.dedup_by_key(|word| rest(*word));
        mask.words = words;
        mask
    }

    /// What was said, of this line where it is known, without the secrets.
    pub fn over(&self, said: &str, about: Option<&str>) -> String {
        let mut found = Vec::new();
        let mut end = 0;
        for at in said.char_indices().map(|(at, _)| at) {
            if at >= end && !is_inside(said, at) {
                end = self.end_of_secret(said, at).unwrap_or(end);
                found.push(at..end.max(at));
            }
        }
        // Its own are found however short they are.
        for form in about.into_iter().flat_map(forms).filter(|form| form.len() < SHORTEST) {
            let places = said.match_indices(&form).map(|(at, _)| at..at + form.len());
            found.extend(places.filter(|it: &Range<usize>| {
                !is_inside(said, it.start) && !is_inside(said, it.end)
            }));
        }
        replaced(said, &apart(found)).unwrap_or_else(|| said.to_owned())
    }

    /// The end of the secret, or the part of one, that begins at this place.
    fn end_of_secret(&self, said: &str, at: usize) -> Option<usize> {
        let rest = &said.as_bytes()[at..];
        let word = |(form, at): &(usize, usize)| &self.forms[*form].as_bytes()[*at..];
        // What begins most alike is beside its place in their order.
        let place = self.words.partition_point(|it| word(it) <= rest);
        let beside = [place.checked_sub(1), Some(place)].into_iter().flatten();
        let beside = beside.filter_map(|place| self.words.get(place).map(word));
        let alike = |word: &[u8]| word.iter().zip(rest).take_while(|it| it.0 == it.1).count();
        let longest = beside.map(alike).max()?;
        let is_end = |end: &usize| {
            said.is_char_boundary(*end)
                && !is_inside(said, *end)
                && !said[at..*end].ends_with(char::is_whitespace)
        };
        (at + SHORTEST..=at + longest).rev().find(is_end)
    }
}

/// The secrets of a line, as they stand there and as HAProxy reads them.
fn forms(line: &str) -> impl Iterator<Item = String> {
    let raw = secrets(line).into_iter().map(|range| line[range].to_owned());
    raw.flat_map(|raw| [read(&raw), raw]).filter(|form| !form.is_empty() && form != HIDDEN)
}

/// Where the words of a form begin that are long enough.
fn words_of((index, form): (usize, &String)) -> impl Iterator<Item = (usize, usize)> {
    let begins = |at: usize, first: char| at == 0 || first.is_alphanumeric();
    let words = form.char_indices().filter(move |(at, first)| begins(*at, *first));
    let words = words.map(|(at, _)| at).filter(|at| !is_inside(form, *at));
    words.filter(|at| form.len() - at >= SHORTEST).map(move |at| (index, at))
}

/// Whether a word goes on here. A dash, a dot or an underscore joins what stands on both sides.
fn is_inside(text: &str, at: usize) -> bool {
    let (mut before, mut after) = (text[..at].chars().rev(), text[at..].chars());
    let (Some(last), Some(next)) = (before.next(), after.next()) else { return false };
    let joins = |it: char| matches!(it, '-' | '_' | '.');
    let is_of_word = |it: Option<char>| it.is_some_and(char::is_alphanumeric);
    match (last.is_alphanumeric(), next.is_alphanumeric()) {
        (true, true) => true,
        (true, false) => joins(next) && is_of_word(after.next()),
        (false, true) => joins(last) && is_of_word(before.next()),
        (false, false) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        stats auth ann:geheim
        user b password 'x y'
        http-request set-header X-Auth-Scheme http
        http-request set-header X-Token-Present true
        http-request set-header X-Auth-User "a%[nonsense]wort-17"
        http-request set-header Authorization "Bearer nobody.knows-it"
        http-request set-var(txn.token) str(hidden-one)
        option httpchk GET / HTTP/1.1\r\nAuthorization:\ Basic\ YTpiOmM=\r\nHost:\ a
        tcp-check send "AUTH over\r\nthe-line\r\n"
        http-request set-header X-Api-Key ein\ leer\"zeichen
        http-request set-header X-Api-Key-2 k1
    "#;

    #[test]
    fn haproxys_words_have_no_secret_however_it_shows_it() {
        let mask = Mask::of([CONFIG]);
        for (said, shown) in [
            ("'user' : unknown keyword 'x y' (ann:geheim)", "'user' : unknown keyword *** (***)"),
            ("unknown keyword 'x y'.", "unknown keyword ***."),
            // As it is written and as it is read, from its middle on, and cut off.
            (r"in Basic\ YTpiOmM=\r\nHost", r"in ***\r\nHost"),
            ("value 'Bearer nobody.knows-it'", "value '***'"),
            ("value \"Bearer nobody.knows-it\"", "value ***"),
            ("value nobody.knows-it.", "value ***."),
            ("value 'Bearer nobody.kno", "value '***"),
            ("value 'Bearer nobody.kno...", "value '***..."),
            ("argument 'hidden-one'", "argument '***'"),
            ("argument <hidden-one) x>", "argument <*** x>"),
            ("after <wort-17>", "after <***>"),
            ("'ein leer\"zeichen'", "'***'"),
            (r#"'ein\ leer\"zeichen'"#, "'***'"),
            ("it is AUTH over", "it is ***"),
            ("the-line: unknown", "***: unknown"),
            ("geheim, (geheim) geheim.", "***, (***) ***."),
            ("\u{201c}geheim\u{201d}", "\u{201c}***\u{201d}"),
            ("--geheim- geheim_", "--***- ***_"),
        ] {
            assert_eq!(mask.over(said, None), shown, "{said}");
        }
    }

    #[test]
    fn what_is_a_part_of_another_word_stays() {
        let mask = Mask::of([CONFIG]);
        for said in [
            "proxy 'http-in-listen': https is untrue, http_2 and www.http.test",
            "geheimnis, ungeheim, k1 and gehe",
            "the line",
            "",
        ] {
            let shown = mask.over(said, None);
            assert_eq!(shown.replace("***", "gehe"), said, "{shown}");
        }
        assert_eq!(mask.over("'http' is not true.", None), "'***' is not ***.");
    }

    #[test]
    fn of_its_own_line_a_short_one_is_hidden_too() {
        let line = CONFIG.lines().find(|line| line.contains("k1"));
        let mask = Mask::of([CONFIG]);
        assert_eq!(mask.over("'k1' is no k12, k1.", line), "'***' is no k12, ***.");
        assert_eq!(mask.over("'k1' is no k12", None), "'k1' is no k12");
    }
}
