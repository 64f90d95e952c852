//! What is told of contradictions where a part of the settings can't be read.

/// Whether a problem may come of this doubtful key alone: what was left out as wrong is not missing,
/// and what it would contradict is not known.
pub(in crate::settings) fn comes_of(problem: &str, key: &str) -> bool {
    let section = section(key);
    let Some(rest) = problem.strip_prefix(section) else { return false };
    let is_in_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let within = key.strip_prefix(section).unwrap_or_default();
    let name = within.split(|letter| !is_in_word(letter)).find(|word| !word.is_empty());
    name.is_none_or(|name| rest.split(|letter| !is_in_word(letter)).any(|word| word == name))
}

/// Whether a problem is one of a section that stands once and names nothing of others.
pub(in crate::settings) fn stands_alone(problem: &str) -> bool {
    let is_bare =
        |word: &str| word.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_');
    problem.split_once('.').is_some_and(|(section, _)| is_bare(section) && section != "services")
}

/// The part of a path up to the element of a list, or the section: what contradicts itself does so
/// within one.
pub(in crate::settings) fn section(key: &str) -> &str {
    key.find(']').map(|end| &key[..=end]).or_else(|| key.split('.').next()).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::{SMALL, load};

    #[test]
    fn a_wrong_word_hides_no_other_problem_but_what_comes_of_it() {
        let message = load(
            r#"
[api]
listen = "0.0.0.0:7070"
[map]
path = "/etc/haproxy/n.map"
[guard]
min_entries = 9
max_entries = 8
window = "often"
[[source]]
name = "one"
type = "http_json"
colour = "blue"
cert = "c.pem"
[[source]]
name = "two"
type = "consul"
ulr = "http://127.0.0.1:8500"
kv = "nodes/"
"#,
            &[],
        )
        .unwrap_err();
        for part in [
            "api.listen",
            "guard.window: \"often\"",
            "guard.max_entries: 8 is below",
            "source[0].colour: there is no such key",
            "source[0] \"one\": url is missing",
            "cert and key go together",
            "source[1].ulr: there is no such key; did you mean url?",
            "instance: there is none",
        ] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        assert!(!message.contains("\"two\": url is missing"), "it is misspelt: {message}");

        // An element that can't be read is not there, and what may come of that is not told.
        let text = SMALL.replace("type = \"puppetdb\"", "type = \"pupetdb\"");
        let message = load(&format!("{text}\n[guard]\nmin_entries = 9\nmax_entries = 8"), &[]);
        let message = message.unwrap_err();
        let told =
            message.contains("2 problem(s)") && message.contains("guard.max_entries: 8 is below");
        assert!(told && message.contains("\"pupetdb\" is none of"), "{message}");
    }
}
