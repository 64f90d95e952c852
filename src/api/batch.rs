//! What a request wants registered: bodies with one node or many, checked before anything acts on
//! them. What is wrong is named with its place. Pure; the clock is an argument.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use mapsmith_core::Registration;
use mapsmith_core::registrations::MOST_AT_ONCE;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::requests::{Invalid, end, master, node, note};
use super::types::{RegisterNode, RegisterRequest};

/// The most problems that an answer names.
const NAMED: usize = 10;

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
        let nodes = nodes(body)?;
        let mut seen: HashMap<String, usize> = HashMap::with_capacity(nodes.len());
        let (mut valid, mut problems) = (Vec::with_capacity(nodes.len()), Vec::new());
        for (number, RegisterNode { node, master, duration, reason }) in (1..).zip(nodes) {
            let request = RegisterRequest { master, duration, reason };
            let registration = self.registration(node, request).and_then(|new| {
                match seen.insert(new.node.clone(), number) {
                    None => Ok(new),
                    Some(other) => {
                        Err(Invalid(format!("{:?} is named twice, also by {other}", new.node)))
                    }
                }
            });
            match registration {
                Ok(registration) => valid.push(registration),
                Err(problem) => problems.push(format!("node {number}: {problem}")),
            }
        }
        if problems.is_empty() {
            return Ok(valid);
        }
        let more = problems.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        problems.truncate(NAMED);
        Err(Invalid(format!("nothing is registered: {}{more}", problems.join("; "))))
    }
}

fn nodes(body: &[u8]) -> Result<Vec<RegisterNode>, Invalid> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let nodes = match first {
        None => Vec::new(),
        Some(b'[') => {
            let whole: Result<Bounded, _> = serde_json::from_slice(body);
            whole.map_err(|error| wrong(&error.to_string()))?.0
        }
        Some(_) => lines(body)?,
    };
    match nodes.len() {
        0 => Err(wrong("there is none")),
        1..=MOST_AT_ONCE => Ok(nodes),
        _ => Err(Invalid(format!("at most {MOST_AT_ONCE} nodes are registered at once"))),
    }
}

fn lines(body: &[u8]) -> Result<Vec<RegisterNode>, Invalid> {
    let lines = (1..).zip(body.split(|byte| *byte == b'\n'));
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let read = |(number, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| {
            // Its own line is always the first.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            wrong(&format!("line {number}, column {}: {text}", error.column()))
        })
    };
    lines.take(MOST_AT_ONCE + 1).map(read).collect()
}

fn wrong(error: &str) -> Invalid {
    Invalid(format!(
        "send nodes as [{{\"node\": \"...\", \"master\": \"...\"}}, ...], or such an object on \
            each line: {error}"
    ))
}

/// As many as one may register, and one more.
struct Bounded(Vec<RegisterNode>);

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor)
    }
}

struct BoundedVisitor;

impl<'de> Visitor<'de> for BoundedVisitor {
    type Value = Bounded;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "at most {MOST_AT_ONCE} nodes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Bounded, A::Error> {
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
