//! What a request's body says, and what is wrong with it: in the order and the words of Aqueduct's
//! validation, which names the first fault only.

use serde_json::{Map, Value};

use super::{Backend, BackendType, Frontend, Health, KeepAlive, Mode, Refusal, round_robin};

/// What `httpVersion` may be.
const HTTP_VERSIONS: [&str; 2] = ["HTTP/1.0", "HTTP/1.1"];
/// The time between two checks, in milliseconds.
pub(super) const INTERVAL: u64 = 2000;
/// A day: beyond it HAProxy's clock ends.
const LONGEST_INTERVAL: f64 = 86_400_000.0;

/// What a version switch asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The same name as before where it says none.
    pub name: Option<String>,
    pub version: String,
}

/// The frontend that a body declares.
///
/// # Errors
/// It declares none.
pub fn frontend(body: &Value) -> Result<Frontend, Refusal> {
    let fields = Fields::of(body)?;
    fields.string("_type")?;
    fields.required("key")?;
    let bind = fields.required("bind")?.to_owned();
    let backend = fields.required("backend")?.to_owned();
    let mode = fields.mode()?;
    let keepalive = match fields.one_of("keepalive", &["default", "close", "server-close"])? {
        None | Some("default") => KeepAlive::Default,
        Some("close") => KeepAlive::Close,
        Some(_) => KeepAlive::ServerClose,
    };
    let rules = fields.array("rules")?;
    let natives = fields.natives()?;
    let keys = ["_type", "key", "bind", "backend", "mode", "keepalive", "rules", "natives"];
    fields.only(&keys)?;
    Ok(Frontend { bind, backend, mode, keepalive, rules, natives })
}

/// The backend that a body declares.
///
/// # Errors
/// It declares none.
pub fn backend(body: &Value) -> Result<Backend, Refusal> {
    let fields = Fields::of(body)?;
    fields.string("_type")?;
    fields.required("key")?;
    let kind = match fields.one_of("type", &["dynamic", "static"])? {
        Some("dynamic") => BackendType::Dynamic,
        Some(_) => BackendType::Static,
        None => return Err(fields.refusal("type", "is required")),
    };
    let text = |key: &str| Ok::<_, Refusal>(fields.string(key)?.map(str::to_owned));
    let (name, version) = (text("name")?, text("version")?);
    let balance = text("balance")?.unwrap_or_else(round_robin);
    let host = text("host")?;
    let mode = fields.mode()?;
    let members = fields.array("members")?;
    let natives = fields.natives()?;
    let health = fields.health()?;
    fields.only(&[
        "_type", "key", "type", "name", "version", "balance", "host", "mode", "members", "natives",
        "health",
    ])?;
    if health.as_ref().is_some_and(|health| health.http_version == HTTP_VERSIONS[1])
        && host.is_none()
    {
        return Err(Refusal::new("host is required with health check with httpVersion=HTTP/1.1"));
    }
    let health = health.filter(|_| mode == Mode::Http);
    Ok(Backend { kind, name, version, balance, host, mode, members, natives, health })
}

/// The version switch that a body asks for.
///
/// # Errors
/// It asks for none.
pub fn switch(body: &Value) -> Result<Switch, Refusal> {
    let fields = Fields::of(body)?;
    fields.string("key")?;
    let name = fields.string("name")?.map(str::to_owned);
    let version = fields.required("version")?.to_owned();
    fields.only(&["key", "name", "version"])?;
    Ok(Switch { name, version })
}

/// An object of a body.
struct Fields<'a> {
    fields: &'a Map<String, Value>,
    /// The key that it stands under, with a dot.
    within: &'static str,
}

impl<'a> Fields<'a> {
    fn of(body: &'a Value) -> Result<Self, Refusal> {
        let Value::Object(fields) = body else {
            return Err(Refusal::payload("value", "value must be an object"));
        };
        for (key, value) in fields {
            if has_control(value) || key.contains(char::is_control) {
                let text = format!("{key} must not contain a line break or a control character");
                return Err(Refusal::payload(key, text));
            }
        }
        Ok(Self { fields, within: "" })
    }

    fn refusal(&self, key: &str, what: &str) -> Refusal {
        Refusal::payload(&format!("{}{key}", self.within), format!("{key} {what}"))
    }

    fn string(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => {
                Err(self.refusal(key, "is not allowed to be empty"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.refusal(key, "must be a string")),
        }
    }

    fn required(&self, key: &str) -> Result<&'a str, Refusal> {
        self.string(key)?.ok_or_else(|| self.refusal(key, "is required"))
    }

    fn one_of(&self, key: &str, choice: &[&str]) -> Result<Option<&'a str>, Refusal> {
        match self.fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if choice.contains(&text.as_str()) => Ok(Some(text)),
            Some(_) => Err(self.refusal(key, &format!("must be one of {}", choice.join(", ")))),
        }
    }

    fn mode(&self) -> Result<Mode, Refusal> {
        Ok(match self.one_of("mode", &["http", "tcp"])? {
            Some("tcp") => Mode::Tcp,
            _ => Mode::Http,
        })
    }

    fn array(&self, key: &str) -> Result<Vec<Value>, Refusal> {
        match self.fields.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => Ok(values.clone()),
            Some(_) => Err(self.refusal(key, "must be an array")),
        }
    }

    fn natives(&self) -> Result<Vec<String>, Refusal> {
        let lines = self.array("natives")?.into_iter().enumerate();
        let line = |(at, line): (usize, Value)| match line {
            Value::String(line) => Ok(line),
            _ => Err(Refusal::payload(&format!("natives.{at}"), format!("{at} must be a string"))),
        };
        lines.map(line).collect()
    }

    fn health(&self) -> Result<Option<Health>, Refusal> {
        let fields = match self.fields.get("health") {
            None => return Ok(None),
            Some(Value::Object(fields)) => Self { fields, within: "health." },
            Some(_) => return Err(self.refusal("health", "must be an object")),
        };
        let method = fields.one_of("method", &["GET", "POST"])?.unwrap_or("GET");
        let uri = fields.string("uri")?.unwrap_or("/");
        let version = fields.one_of("httpVersion", &HTTP_VERSIONS)?.unwrap_or(HTTP_VERSIONS[0]);
        let interval = fields.interval()?;
        fields.only(&["method", "uri", "httpVersion", "interval"])?;
        Ok(Some(Health {
            method: method.to_owned(),
            uri: uri.to_owned(),
            http_version: version.to_owned(),
            interval,
        }))
    }

    /// Whole milliseconds.
    fn interval(&self) -> Result<u64, Refusal> {
        let number = match self.fields.get("interval") {
            None => return Ok(INTERVAL),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match number {
            None => Err(self.refusal("interval", "must be a number")),
            Some(number) if number < 1.0 => {
                Err(self.refusal("interval", "must be larger than or equal to 1"))
            }
            Some(number) if number <= LONGEST_INTERVAL => Ok(number.ceil() as u64),
            Some(_) => Err(self.refusal("interval", "must be less than or equal to 86400000")),
        }
    }

    /// Nothing else stands there.
    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.fields.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(self.refusal(key, "is not allowed")),
        }
    }
}

/// Whether a text anywhere in it could begin another line.
fn has_control(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(char::is_control),
        Value::Array(values) => values.iter().any(has_control),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains(char::is_control) || has_control(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
