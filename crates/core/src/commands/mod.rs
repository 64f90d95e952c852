//! Commands that are run on a node, by its master: which there are, what somebody may give with
//! one, what is sent, and what came of it.
//!
//! A command is named by the settings: its path, its method and its body. Whoever runs it gives its
//! name and values for its parameters, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

mod path;
mod pattern;

pub use path::{NotAPath, PathTemplate};
pub use pattern::{LONGEST_VALUE, NotAPattern, Pattern};

/// The most commands.
pub const MOST_COMMANDS: usize = 100;
/// The most parameters of a command.
pub const MOST_PARAMETERS: usize = 32;
/// The longest name of a command or of a parameter.
const LONGEST_NAME: usize = 64;

/// Whether it is the name of a command or of a parameter: letters, digits, `.`, `_` and `-`.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(plain)
}

/// How a command is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = CommandMethod)]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A value that may be given with a command.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub name: String,
    pub pattern: Pattern,
    /// Where none is given; without it one must be.
    pub default: Option<String>,
    /// Nobody but the master sees the value.
    pub secret: bool,
}

/// What stands for a value that nobody is to see.
pub const MASKED: &str = "***";

/// A command.
#[derive(Debug, Clone)]
pub struct Command {
    pub name: String,
    pub path: PathTemplate,
    pub method: Method,
    /// What is always sent.
    pub body: Map<String, Value>,
    pub parameters: Vec<Parameter>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The most bytes that are kept of the answer.
    pub max_bytes: usize,
}

/// Why a command can't be sent so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("the command {command} has no parameter {name:?}; it has {known}")]
    Unknown { command: String, name: String, known: String },
    #[error("the command {command} needs the parameter {name:?}")]
    Missing { command: String, name: String },
    #[error(
        "the parameter {name:?} must match {pattern} as a whole, have at most {LONGEST_VALUE} \
            bytes, and no control character"
    )]
    Mismatch { name: String, pattern: String },
    #[error("a node of the name {0:?} can't stand in a path")]
    Node(String),
}

/// What is sent to a master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = CommandRequest)]
pub struct Request {
    pub method: Method,
    /// With the node's name in it, percent-encoded.
    pub path: String,
    #[schema(value_type = Object)]
    pub body: Map<String, Value>,
}

impl Command {
    /// What is sent for this node with these values.
    ///
    /// # Errors
    /// A value that the command does not take, or one that is missing.
    pub fn request(
        &self,
        node: &str,
        given: &BTreeMap<String, String>,
    ) -> Result<Request, NotSent> {
        let command = || self.name.clone();
        let is_known = |name: &String| self.parameters.iter().any(|known| known.name == *name);
        if let Some(name) = given.keys().find(|name| !is_known(name)) {
            let known: Vec<_> = self.parameters.iter().map(|known| known.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(NotSent::Unknown { command: command(), name: name.clone(), known });
        }
        let mut body = self.body.clone();
        for Parameter { name, pattern, default, .. } in &self.parameters {
            let value = given.get(name).or(default.as_ref());
            let value =
                value.ok_or_else(|| NotSent::Missing { command: command(), name: name.clone() })?;
            if !pattern.matches(value) {
                let (name, pattern) = (name.clone(), pattern.to_string());
                return Err(NotSent::Mismatch { name, pattern });
            }
            body.insert(name.clone(), Value::String(value.clone()));
        }
        let path = self.path.of(node).ok_or_else(|| NotSent::Node(node.to_owned()))?;
        Ok(Request { method: self.method, path, body })
    }

    /// What is sent, as anybody may see it.
    #[must_use]
    pub fn masked(&self, mut request: Request) -> Request {
        for parameter in self.parameters.iter().filter(|parameter| parameter.secret) {
            if let Some(value) = request.body.get_mut(&parameter.name) {
                *value = Value::String(MASKED.to_owned());
            }
        }
        request
    }
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CommandOutcome)]
pub enum Outcome {
    /// The master has answered 2xx.
    Ok,
    /// The master has answered 3xx or 4xx: it takes no such command.
    Refused,
    /// The master has answered 5xx.
    Failed,
    /// The master was not reached: nothing was sent to it.
    NoMaster,
    /// It was sent, and no whole answer came. It may have been run.
    Unknown,
}

impl Outcome {
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::Refused, Self::Failed, Self::NoMaster, Self::Unknown];

    /// Of an answer that the master itself gave.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            300..=499 => Self::Refused,
            500..=599 => Self::Failed,
            _ => Self::Unknown,
        }
    }

    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::NoMaster => "no_master",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn command() -> Command {
        let parameter = |name: &str, pattern: &str, default: Option<&str>| Parameter {
            name: name.to_owned(),
            pattern: Pattern::try_from(pattern.to_owned()).unwrap(),
            default: default.map(str::to_owned),
            secret: name == "tags",
        };
        let Value::Object(body) = json!({"command": "run", "deep": {"a": [1]}}) else { panic!() };
        Command {
            name: "puppet-run".to_owned(),
            path: PathTemplate::try_from("/nodes/{node}/commands".to_owned()).unwrap(),
            method: Method::Post,
            body,
            parameters: vec![
                parameter("noop", "true|false", Some("false")),
                parameter("tags", "[a-z,]*", None),
            ],
            timeout: Duration::from_secs(60),
            max_bytes: 65536,
        }
    }

    fn request(given: &[(&str, &str)]) -> Result<Request, NotSent> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        command().request("web1", &given.collect())
    }

    #[test]
    fn what_is_sent_is_the_fixed_body_with_the_values() {
        let sent = request(&[("tags", "a,b")]).unwrap();
        assert_eq!((sent.method.name(), sent.path.as_str()), ("POST", "/nodes/web1/commands"));
        let body = json!({"command": "run", "deep": {"a": [1]}, "noop": "false", "tags": "a,b"});
        assert_eq!(Value::Object(sent.body), body);
        assert_eq!(request(&[("tags", ""), ("noop", "true")]).unwrap().body["noop"], "true");
    }

    #[test]
    fn a_secret_is_sent_and_not_shown() {
        let sent = request(&[("tags", "hidden")]).unwrap();
        assert_eq!(sent.body["tags"], "hidden");
        let body = json!({"command": "run", "deep": {"a": [1]}, "noop": "false", "tags": "***"});
        assert_eq!(Value::Object(command().masked(sent).body), body);
    }

    #[test]
    fn what_a_command_does_not_take_is_refused() {
        for (given, part) in [
            (&[][..], "needs the parameter \"tags\""),
            (
                &[("tags", "a"), ("command", "rm")],
                "has no parameter \"command\"; it has noop, tags",
            ),
            (&[("tags", "A")], "must match [a-z,]* as a whole"),
            (&[("tags", "a\n")], "\"tags\" must match"),
            (&[("tags", "a"), ("noop", "truefalse")], "\"noop\" must match"),
        ] {
            let error = request(given).unwrap_err().to_string();
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        let error = command().request("..", &[("tags".into(), "a".into())].into()).unwrap_err();
        assert_eq!(error, NotSent::Node("..".to_owned()));
    }

    #[test]
    fn an_outcome_is_what_the_master_says() {
        for (status, outcome) in [
            (200, "ok"),
            (299, "ok"),
            (302, "refused"),
            (404, "refused"),
            (500, "failed"),
            (599, "failed"),
            (101, "unknown"),
            (600, "unknown"),
        ] {
            assert_eq!(Outcome::of_status(status).name(), outcome, "{status}");
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
        }
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name("puppet-run") && is_name("a.b_C9") && is_name(&"x".repeat(64)));
        for wrong in ["", "a b", "a/b", "a:b", "ü", "a\n", &"x".repeat(65)] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
