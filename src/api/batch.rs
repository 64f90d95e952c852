//! What a request wants registered: bodies with one node or many, checked before anything acts on
//! them. What is wrong is named with its place. Pure; the clock is an argument.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use mapsmith_core::Registration;
use mapsmith_core::registrations::MOST_AT_ONCE;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};

use super::requests::{Invalid, end, master, node, note};
use super::types::{RegisterNode, RegisterRequest, UnregisterNode};

/// The most problems that an answer names.
const NAMED: usize = 10;
/// A row of a body that registers, and of one that ends registrations.
const REGISTER_ROW: &str = "{\"node\": \"...\", \"master\": \"...\"}";
const UNREGISTER_ROW: &str = "{\"node\": \"...\"}";

/// What all nodes of a request have in common.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Who asks, where that is known.
    pub by: Option<String>,
    /// Why, where a node has no reason of its own.
    pub reason: Option<String>,
    pub now: Timestamp,
    /// Whether the map has nodes in lower case.
    pub lowercase: bool,
}

impl Asker {
    /// The registration of a node that begins now.
    ///
    /// # Errors
    /// A name, a time or a reason that can be none.
    pub fn registration(
        &self,
        name: String,
        request: RegisterRequest,
    ) -> Result<Registration, Invalid> {
        let RegisterRequest { master: name_of_master, duration, reason } = request;
        let mut node = node(name)?;
        if self.lowercase {
            node.make_ascii_lowercase();
        }
        let master = master(name_of_master)?;
        let until = duration.map(|duration| end(&duration, self.now)).transpose()?;
        let note = note(reason.or_else(|| self.reason.clone()), self.by.clone())?;
        Ok(Registration { node, master, since: self.now, until, note })
    }

    /// The registrations of a body with many: a JSON array, or an object on each line. All of them
    /// or none.
    ///
    /// # Errors
    /// What is wrong with it, node by node.
    pub fn registrations(&self, body: &[u8]) -> Result<Vec<Registration>, Invalid> {
        let registration = |RegisterNode { node, master, duration, reason }| {
            self.registration(node, RegisterRequest { master, duration, reason })
        };
        let nodes = rows(body, REGISTER_ROW)?.into_iter().map(registration);
        let valid = whole(nodes, |new| &new.node);
        valid.map_err(|problems| Invalid(format!("nothing is registered: {problems}")))
    }

    /// The nodes of a body with many whose registrations are to end, as the map has them: a JSON
    /// array, or an object on each line. All of them or none.
    ///
    /// # Errors
    /// What is wrong with it, node by node.
    pub fn ended(&self, body: &[u8]) -> Result<Vec<String>, Invalid> {
        let name = |UnregisterNode { node: name, .. }| {
            let mut node = node(name)?;
            if self.lowercase {
                node.make_ascii_lowercase();
            }
            Ok(node)
        };
        let valid = whole(rows(body, UNREGISTER_ROW)?.into_iter().map(name), |node| node);
        valid.map_err(|problems| Invalid(format!("no registration ends: {problems}")))
    }
}

/// All of them, where each is valid and of another node than the others; else what is wrong.
fn whole<T>(
    rows: impl ExactSizeIterator<Item = Result<T, Invalid>>,
    node: impl Fn(&T) -> &String,
) -> Result<Vec<T>, String> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(rows.len());
    let (mut valid, mut problems) = (Vec::with_capacity(rows.len()), Vec::new());
    for (number, row) in (1..).zip(rows) {
        let row = row.and_then(|row| match seen.insert(node(&row).clone(), number) {
            None => Ok(row),
            Some(other) => {
                Err(Invalid(format!("{:?} is named twice, also by {other}", node(&row))))
            }
        });
        match row {
            Ok(row) => valid.push(row),
            Err(problem) => problems.push(format!("node {number}: {problem}")),
        }
    }
    if problems.is_empty() {
        return Ok(valid);
    }
    let more = problems.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    problems.truncate(NAMED);
    Err(format!("{}{more}", problems.join("; ")))
}

/// The rows of a body; `example` is one.
fn rows<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<Vec<T>, Invalid> {
    let wrong = |error: &str| {
        Invalid(format!("send nodes as [{example}, ...], or such an object on each line: {error}"))
    };
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let nodes = match first {
        None => Vec::new(),
        Some(b'[') => {
            let whole: Result<Bounded<T>, _> = serde_json::from_slice(body);
            whole.map_err(|error| wrong(&error.to_string()))?.0
        }
        Some(_) => lines(body).map_err(|error| wrong(&error))?,
    };
    match nodes.len() {
        0 => Err(wrong("there is none")),
        1..=MOST_AT_ONCE => Ok(nodes),
        _ => Err(Invalid(format!("at most {MOST_AT_ONCE} nodes are taken at once"))),
    }
}

fn lines<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, String> {
    let lines = (1..).zip(body.split(|byte| *byte == b'\n'));
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let read = |(number, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| {
            // Its own line is always the first.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("line {number}, column {}: {text}", error.column())
        })
    };
    lines.take(MOST_AT_ONCE + 1).map(read).collect()
}

/// As many as may be registered at once.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "at most {MOST_AT_ONCE} nodes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Bounded<T>, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = rows.next_element()? {
            if nodes.len() == MOST_AT_ONCE {
                let most = serde::de::Unexpected::Other("more nodes");
                return Err(serde::de::Error::invalid_value(most, &self));
            }
            nodes.push(node);
        }
        Ok(Bounded(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<Registration>, String> {
        let (by, reason) = (Some("anna".to_owned()), Some("rack 7".to_owned()));
        let asker = Asker { by, reason, now: Timestamp::UNIX_EPOCH, lowercase: true };
        asker.registrations(body.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_row_must_be_is_said_in_the_words_of_the_body() {
        let asker = Asker { by: None, reason: None, now: Timestamp::UNIX_EPOCH, lowercase: true };
        let wrong = asker.ended(b"[\"n1\"]").unwrap_err().to_string();
        assert!(wrong.contains("expected an object like {\"node\": \"...\"}"), "{wrong}");
        let wrong = read("[\"n1\"]").unwrap_err();
        assert!(wrong.contains("expected an object like {\"node\": \"...\", \"ma"), "{wrong}");
    }

    #[test]
    fn many_nodes_are_an_array_or_lines() {
        let array = "[{\"node\": \"N1\", \"master\": \"m1\"}, {\"node\": \"n2\", \"master\": \
            \"m2\", \"for\": \"2h\", \"reason\": \"spare\"}]";
        let lines = "{\"node\": \"N1\", \"master\": \"m1\"}\n\n  {\"node\": \"n2\", \"master\": \
            \"m2\", \"for\": \"2h\", \"reason\": \"spare\"}\r\n";
        let nodes = read(array).unwrap();
        assert_eq!(read(lines), Ok(nodes.clone()));
        let told: Vec<_> = nodes
            .iter()
            .map(|new| {
                let until = new.until.map(|until| until.as_second());
                (&*new.node, &*new.master, until, new.note.reason.as_deref())
            })
            .collect();
        let expected =
            [("n1", "m1", None, Some("rack 7")), ("n2", "m2", Some(7200), Some("spare"))];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_nothing_is_taken() {
        for (body, words) in [
            ("", "there is none"),
            ("[]", "there is none"),
            ("{\"node\": \"a\"}", "line 1, column 13: missing field `master`"),
            ("{\"node\": \"a\", \"master\": \"m\"}\nx", "line 2, column 1: expected value"),
            ("[{\"node\": \"a\", \"master\": \"m\", \"x\": 1}]", "unknown field `x`"),
            ("[1]", "invalid type: integer `1`"),
            ("{\"a\": ", "line 1, column"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
        let rows = [
            "{\"node\": \"a\", \"master\": \"m\"}",
            "{\"node\": \"a b\", \"master\": \"m\"}",
            "{\"node\": \"A\", \"master\": \"m\"}",
            "{\"node\": \"b\", \"master\": \"m\", \"for\": \"0s\"}",
            "{\"node\": \"#c\", \"master\": \"m\"}",
        ];
        let error = read(&rows.join("\n")).unwrap_err();
        for words in [
            "nothing is registered: node 2: \"a b\" is not a valid node name",
            "node 3: \"a\" is named twice, also by 1",
            "node 4: \"0s\" is not a duration",
            "node 5: \"#c\" is not a valid node name",
        ] {
            assert!(error.contains(words), "{words}: {error}");
        }
        let many = vec!["{\"node\": \"a b\", \"master\": \"m\"}"; 30].join("\n");
        assert!(read(&many).unwrap_err().ends_with("; and 20 more"));
    }

    #[test]
    fn the_body_that_registered_nodes_names_those_whose_registrations_end() {
        let asker = Asker { by: None, reason: None, now: Timestamp::UNIX_EPOCH, lowercase: true };
        let ended = |body: &str| asker.ended(body.as_bytes()).map_err(|error| error.to_string());
        let names = Ok(vec!["n1".to_owned(), "n2".to_owned()]);
        let rows = "{\"node\": \"N1\", \"master\": \"m1\", \"for\": \"2h\"}\n{\"node\": \"n2\"}\n";
        assert_eq!(ended(rows), names);
        assert_eq!(ended("[{\"node\": \"n1\"}, {\"node\": \"n2\"}]"), names);
        for (body, words) in [
            ("", "send nodes as [{\"node\": \"...\"}, ...], or such an object on each line"),
            ("[{\"nod\": \"a\"}]", "unknown field `nod`"),
            (
                "[{\"node\": \"a\"}, {\"node\": \"A\"}]",
                "no registration ends: node 2: \"a\" is named",
            ),
        ] {
            let error = ended(body).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
    }

    #[test]
    fn more_than_ten_thousand_at_once_are_refused() {
        let row = |number: usize| format!("{{\"node\":\"n{number}\",\"master\":\"m\"}}");
        let rows: Vec<_> = (0..=MOST_AT_ONCE).map(row).collect();
        assert_eq!(read(&rows[1..].join("\n")).map(|nodes| nodes.len()), Ok(MOST_AT_ONCE));
        assert!(read(&rows.join("\n")).unwrap_err().contains("at most 10000 nodes"));
        let array = |rows: &[String]| format!("[{}]", rows.join(","));
        assert_eq!(read(&array(&rows[1..])).map(|nodes| nodes.len()), Ok(MOST_AT_ONCE));
        assert!(read(&array(&rows)).unwrap_err().contains("at most 10000 nodes"));
    }
}
