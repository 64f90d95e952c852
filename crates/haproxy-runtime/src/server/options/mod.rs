//! Which options a server may have that is made at runtime, and how each is written.
//!
//! HAProxy's `add server` takes most of what a `server` line takes, and says no to the rest only
//! when it is asked. The tables here were measured on 2.6, 3.0, 3.2 and 3.4, so that a wrong option
//! is reported by its place before any HAProxy sees it.

use super::ServerOptions;

/// The longest argument of an option, in bytes.
const MAX_ARGUMENT: usize = 1024;

/// A version of HAProxy: major, minor.
pub type Version = (u32, u32);

/// The oldest HAProxy with servers made at runtime that is supported.
const OLDEST: Version = (2, 6);

/// Why an option is none that a server made at runtime may have. Says what to do; the caller adds
/// the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No word at all.
    #[error("an empty option; remove it")]
    Empty,
    /// Characters that can't stand on HAProxy's command line.
    #[error(
        "{0:?}: quotes, backslashes, `;`, `#` and control characters can't be used; write one \
            option with its arguments, as in \"inter 2s\""
    )]
    Invalid(String),
    /// What has a key of its own.
    #[error("{0:?}: set it with its own key `{1}`, not as an option")]
    OwnKey(String, &'static str),
    /// An option of HAProxy that `add server` refuses, or that means nothing at runtime; with more
    /// about it, or nothing.
    #[error(
        "{0:?}: HAProxy does not take it for a server made at runtime{1}; remove it, or write the \
            server into HAProxy's configuration"
    )]
    NotAtRuntime(String, &'static str),
    /// None that is known.
    #[error(
        "{0:?} is not a server option that Mapsmith knows; see `server` in section 5.2 of \
            HAProxy's configuration manual"
    )]
    Unknown(String),
    /// Too few or too many arguments, or one of the wrong kind.
    #[error("{option:?}: write it as \"{form}\"{hint}")]
    #[expect(missing_docs, reason = "the message says what they are")]
    Arguments { option: String, form: String, hint: &'static str },
    /// Given more than once.
    #[error("{0:?} is given twice; keep one")]
    Twice(String),
}

/// What stands after an option's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arguments {
    None,
    /// A whole number.
    Number,
    /// A number with an optional unit of time.
    Time,
    /// A port, 1 to 65535.
    Port,
    /// `none` or `required`.
    Verify,
    /// Any word.
    Word,
    /// A word, or a word, `usesrc` and a word.
    Source,
}

use Arguments::{None as Bare, Number, Port, Source, Time, Verify, Word};

/// What `add server` takes: the oldest of the measured versions that does, and the names.
const TAKEN: &[(Arguments, Version, &str)] = &[
    (
        Bare,
        OLDEST,
        "agent-check allow-0rtt check check-send-proxy check-ssl check-via-socks4 force-tlsv10 \
            force-tlsv11 force-tlsv12 force-tlsv13 no-send-proxy no-send-proxy-v2 no-ssl-reuse \
            no-tfo no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 send-proxy send-proxy-v2 \
            send-proxy-v2-ssl send-proxy-v2-ssl-cn ssl tfo tls-tickets",
    ),
    (
        Number,
        OLDEST,
        "error-limit fall id maxconn maxqueue minconn pool-low-conn pool-max-conn rise",
    ),
    (Time, OLDEST, "agent-inter downinter fastinter inter pool-purge-delay slowstart"),
    (Port, OLDEST, "agent-port port"),
    (Verify, OLDEST, "verify"),
    (
        Word,
        OLDEST,
        "addr agent-addr agent-send alpn ca-file check-alpn check-proto check-sni ciphers \
            ciphersuites crl-file crt observe on-error on-marked-down on-marked-up proto \
            proxy-v2-options sni ssl-max-ver ssl-min-ver track verifyhost ws",
    ),
    (Source, OLDEST, "source"),
    (Word, (3, 0), "client-sigalgs cookie curves guid hash-key pool-conn-name sigalgs"),
    (Bare, (3, 2), "check-reuse-pool strict-maxconn"),
    (Time, (3, 2), "idle-ping"),
    (Word, (3, 2), "check-pool-conn-name init-state"),
    (Bare, (3, 4), "no-check-sni-auto no-renegotiate no-sni-auto renegotiate"),
    (Word, (3, 4), "healthcheck"),
];

/// Options of a `server` line that a server made at runtime can't have, and more about them.
const REFUSED: &[(&str, &str)] = &[
    (
        "cc ktls log-bufsize log-proto max-reuse namespace non-stick redir socks4 tcp-md5sig \
            tcp-ut",
        "",
    ),
    ("disabled", ": it would stay out of rotation; leave it out of the list instead"),
    ("enabled", ": Mapsmith enables every server that it adds"),
    ("init-addr", ": Mapsmith gives it an address"),
    (
        "no-agent-check no-backup no-check no-check-ssl no-ssl ssl-reuse stick",
        ": that is the default",
    ),
    ("resolve-net resolve-opts resolve-prefer resolvers", ": Mapsmith resolves names"),
    ("sni-auto", ": that is the default from 3.4 on"),
];

/// What has a key of its own in Mapsmith's settings and in a source's answer.
const OWN_KEYS: [&str; 4] = ["weight", "backup", "name", "address"];

fn taken(name: &str) -> Option<(Arguments, Version)> {
    TAKEN
        .iter()
        .find(|(.., names)| has(names, name))
        .map(|(arguments, oldest, _)| (*arguments, *oldest))
}

fn has(names: &str, name: &str) -> bool {
    names.split(' ').any(|known| known == name)
}

impl Arguments {
    fn form(self, name: &str) -> String {
        let argument = match self {
            Self::None => return name.to_owned(),
            Self::Number => "NUMBER",
            Self::Time => "TIME",
            Self::Port => "PORT",
            Self::Verify => "none|required",
            Self::Word => "VALUE",
            Self::Source => "ADDRESS [usesrc ADDRESS]",
        };
        format!("{name} {argument}")
    }

    fn fit(self, arguments: &[&str]) -> bool {
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match (self, arguments) {
            (Self::None, []) | (Self::Word | Self::Source, [_]) => true,
            // HAProxy reads an `int`.
            (Self::Number, [number]) => digits(number) && number.parse::<i32>().is_ok(),
            (Self::Port, [port]) => digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0),
            (Self::Time, [time]) => {
                let number = time.trim_end_matches(|unit: char| unit.is_ascii_lowercase());
                digits(number)
                    && number.parse::<i32>().is_ok()
                    && matches!(&time[number.len()..], "" | "us" | "ms" | "s" | "m" | "h" | "d")
            }
            (Self::Verify, [verify]) => matches!(*verify, "none" | "required"),
            (Self::Source, [_, "usesrc", _]) => true,
            _ => false,
        }
    }
}

impl ServerOptions {
    /// Reads options as the settings and the sources have them: each text is one option with its
    /// arguments, `"maxconn 1000"`.
    ///
    /// # Errors
    /// The first that a server made at runtime can't have, in no version, and what to do about it.
    pub fn parse(options: &[String]) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        let mut seen: Vec<&str> = Vec::with_capacity(options.len());
        for option in options {
            let (name, arguments) = split(option)?;
            if seen.contains(&name) {
                return Err(OptionError::Twice(name.to_owned()));
            }
            seen.push(name);
            match (name, arguments.as_slice()) {
                ("check", _) => parsed.check = true,
                // 0 is "no limit" in both.
                ("maxconn", [number]) => {
                    parsed.maxconn = number.parse().ok().filter(|number| *number > 0)
                }
                ("maxqueue", [number]) => {
                    parsed.maxqueue = number.parse().ok().filter(|number| *number > 0)
                }
                _ => parsed.other.push(
                    std::iter::once(&name).chain(&arguments).copied().collect::<Vec<_>>().join(" "),
                ),
            }
        }
        Ok(parsed)
    }

    /// Those of `usual` that `options` say nothing of: neither the option itself nor its opposite
    /// or another version of it.
    pub fn missing(options: &[String], usual: &[String]) -> Vec<String> {
        let given: Vec<&str> = options.iter().map(|option| subject(option)).collect();
        usual.iter().filter(|option| !given.contains(&subject(option))).cloned().collect()
    }

    /// These options, and those of `usual` that they say nothing of.
    ///
    /// # Errors
    /// Those of [`ServerOptions::parse`] about `usual`.
    pub fn with_usual(&self, usual: &[String]) -> Result<Self, OptionError> {
        let mut words = self.words();
        words.extend(Self::missing(&words, usual));
        Self::parse(&words)
    }

    /// The options as [`ServerOptions::parse`] reads them.
    pub fn words(&self) -> Vec<String> {
        let check = self.check.then(|| "check".to_owned());
        let maxconn = self.maxconn.map(|number| format!("maxconn {number}"));
        let maxqueue = self.maxqueue.map(|number| format!("maxqueue {number}"));
        [check, maxconn, maxqueue].into_iter().flatten().chain(self.other.iter().cloned()).collect()
    }

    /// The oldest HAProxy that was seen to take all of them, and the option that asks for it.
    pub fn oldest_version(&self) -> (Version, Option<&str>) {
        let names = self.other.iter().filter_map(|option| option.split(' ').next());
        let newer = names
            .filter_map(|name| Some((taken(name)?.1, name)))
            .filter(|(version, _)| *version > OLDEST);
        newer
            .max_by_key(|(version, _)| *version)
            .map_or((OLDEST, None), |(version, name)| (version, Some(name)))
    }

    /// Whether HAProxy would check a TLS port in plain text: `ssl` alone makes no TLS check of one
    /// that is added at runtime. A check that has its own `port` or `addr` may well be meant so.
    pub fn checks_tls_in_plain_text(&self) -> bool {
        let has =
            |name: &str| self.other.iter().any(|option| option.split(' ').next() == Some(name));
        self.check && has("ssl") && !["check-ssl", "port", "addr"].into_iter().any(has)
    }

    /// Whether an agent check is asked for, which `add server` leaves off as it does the health
    /// check.
    pub fn agent_check(&self) -> bool {
        self.other.iter().any(|option| option == "agent-check")
    }
}

/// What an option is about: `send-proxy` of `send-proxy-v2`, `no-send-proxy` and itself.
fn subject(option: &str) -> &str {
    let name = option.split_ascii_whitespace().next().unwrap_or_default();
    let name = name.strip_prefix("no-").unwrap_or(name);
    if name.starts_with("send-proxy") { "send-proxy" } else { name }
}

/// One option's name and arguments, checked.
fn split(option: &str) -> Result<(&str, Vec<&str>), OptionError> {
    let invalid = |character: char| {
        (character.is_control() && character != '\t')
            || matches!(character, ';' | '\\' | '"' | '\'' | '#')
    };
    if option.contains(invalid) || option.len() > MAX_ARGUMENT || option.contains("<<") {
        return Err(OptionError::Invalid(option.chars().take(80).collect()));
    }
    let mut words = option.split_ascii_whitespace();
    let name = words.next().ok_or(OptionError::Empty)?;
    let arguments: Vec<&str> = words.collect();
    if let Some(key) = OWN_KEYS.iter().find(|key| **key == name) {
        return Err(OptionError::OwnKey(option.to_owned(), key));
    }
    if let Some((_, hint)) = REFUSED.iter().find(|(names, _)| has(names, name)) {
        return Err(OptionError::NotAtRuntime(name.to_owned(), hint));
    }
    let Some((kind, _)) = taken(name) else {
        return Err(OptionError::Unknown(name.to_owned()));
    };
    if !kind.fit(&arguments) {
        let hint = if kind == Bare { "; each option is a text of its own" } else { "" };
        return Err(OptionError::Arguments {
            option: option.to_owned(),
            form: kind.form(name),
            hint,
        });
    }
    Ok((name, arguments))
}

#[cfg(test)]
mod tests;
