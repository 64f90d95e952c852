//! `listen_options` and `server_options` of a service: lines and options as HAProxy's manual has
//! them.
//!
//! What a setting exists for becomes that setting. The rest are native lines, each in the section
//! that takes it, once it is known to be a line of HAProxy's that a registry may have.

use std::time::Duration;

use mapsmith_core::config::values::{HeaderName, Method, Text};
use mapsmith_core::config::{HttpReuse, HttpVersion, Native};
use mapsmith_core::render::words::words;
use mapsmith_core::server::ServerOptions;
use mapsmith_core::server::shown::shown_words;

use super::Services;
use super::keywords::{Place, files, place};
use crate::settings::backend::{Balance, Check};
use crate::settings::frontend::{KeepAlive, Mode};

/// The most words that an option of a server has.
const LONGEST_OPTION: usize = 4;

/// What the lines of a service say.
#[derive(Debug, Clone, Default)]
pub(super) struct Listen {
    pub mode: Option<Mode>,
    pub maxconn: Option<u32>,
    pub keep_alive: KeepAlive,
    pub forwarded_for: bool,
    pub balance: Option<Balance>,
    pub check: Option<Check>,
    pub retries: Option<u16>,
    pub redispatch: Option<bool>,
    pub queue_timeout: Option<Duration>,
    pub http_reuse: Option<HttpReuse>,
    /// Of the frontend.
    pub front: Vec<Native>,
    /// Of the backend.
    pub back: Vec<Native>,
}

/// Reads the lines of a service.
///
/// # Errors
/// The place of a line that can't be one, and why.
pub(super) fn listen_options(
    lines: &[String],
    server_options: &[String],
    settings: &Services,
) -> Result<Listen, (usize, String)> {
    let mut listen = Listen::default();
    let checks = server_options.iter().any(|option| option == "check");
    let mut natives = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let at = |why: String| (index, why);
        let native = Native::try_from(line.clone()).map_err(|error| at(error.to_string()))?;
        let words = words(line).map_err(|error| at(format!("the line {line:?} {error}")))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let place = match place(&words) {
            None => return Err(at(format!("{line:?} is no line that a listen section has"))),
            Some(Place::Refused(instead)) => {
                return Err(at(format!("{line:?} is not for a service: {instead}")));
            }
            Some(place) => place,
        };
        check_files(&words, settings).map_err(at)?;
        if listen.take(&words, checks).map_err(at)? {
            continue;
        }
        natives.push((place, native));
    }
    listen.place(natives);
    Ok(listen)
}

/// Reads the options of a service's servers: one text may have several. An option each.
///
/// # Errors
/// The first that a server can't have.
pub(super) fn server_options(texts: &[String], settings: &Services) -> Result<Vec<String>, String> {
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).collect();
    check_files(&words, settings)?;
    let mut options = Vec::new();
    let mut rest = &words[..];
    while !rest.is_empty() {
        let option = |length: usize| rest.get(..length).map(|words| words.join(" "));
        let is_option =
            |option: &String| ServerOptions::parse(std::slice::from_ref(option)).is_ok();
        // The longest: `source ADDRESS usesrc ADDRESS` begins like one without the rest.
        let taken = (1..=LONGEST_OPTION)
            .rev()
            .find(|length| option(*length).is_some_and(|it| is_option(&it)));
        match taken {
            Some(length) => {
                options.extend(option(length));
                rest = &rest[length..];
            }
            None => {
                let first = vec![rest[0].to_owned()];
                return match ServerOptions::parse(&first) {
                    Err(error) => Err(shown_words(error.to_string())),
                    Ok(_) => Err(shown_words(format!("{:?} can't be read", rest[0]))),
                };
            }
        }
    }
    ServerOptions::parse(&options).map_err(|error| shown_words(error.to_string()))?;
    Ok(options)
}

/// HAProxy reads these files: it takes a relative name from a folder of its own, and some words
/// before a path (`opt@`, `@store`) lead elsewhere.
fn check_files(words: &[&str], settings: &Services) -> Result<(), String> {
    for file in files(words)? {
        let path = settings.file(file)?;
        if path.as_os_str() != file {
            let path = path.display();
            return Err(format!("{file:?} is not the whole path of a file: write {path}"));
        }
    }
    Ok(())
}

impl Listen {
    /// Takes what a setting exists for; whether it is that.
    fn take(&mut self, words: &[&str], checks: bool) -> Result<bool, String> {
        match words {
            ["mode", mode] => self.mode = Some(mode_of(mode)?),
            ["maxconn", number] => self.maxconn = Some(number_of(number)?),
            ["retries", number] => self.retries = Some(number_of(number)?),
            ["balance", algorithm] => match balance(algorithm) {
                Some(balance) => self.balance = Some(balance),
                None => return Ok(false),
            },
            ["timeout", "queue", time] => self.queue_timeout = Some(time_of(time)?),
            ["http-reuse", reuse] => self.http_reuse = Some(reuse_of(reuse)?),
            ["option", "redispatch"] => self.redispatch = Some(true),
            ["no", "option", "redispatch"] => self.redispatch = Some(false),
            ["option", "forwardfor"] => self.forwarded_for = true,
            ["option", "http-keep-alive"] => self.keep_alive = KeepAlive::Both,
            ["option", "http-server-close"] => self.keep_alive = KeepAlive::Client,
            // The old name of the same.
            ["option", "httpclose" | "forceclose"] => self.keep_alive = KeepAlive::None,
            // Without checks of servers it asks nobody, and the setting would have them checked.
            ["option", "httpchk", request @ ..] if checks => match check(request) {
                Some(check) => self.check = Some(check),
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts each line into its section. What either may have is where requests come first, unless
    /// lines of the backend need it there.
    fn place(&mut self, natives: Vec<(Place, Native)>) {
        let of_backend =
            || natives.iter().filter(|(place, _)| *place == Place::Backend).map(|(_, line)| line);
        let back_asks = of_backend().any(|line| {
            let mut words = line.as_str().split_ascii_whitespace();
            words.any(|word| matches!(word, "if" | "unless"))
        });
        let sticks = of_backend().any(|line| line.is("stick"));
        for (place, line) in natives {
            match place {
                Place::Backend => self.back.push(line),
                Place::Either if sticks && line.is("stick-table") => self.back.push(line),
                _ => {
                    if back_asks && line.is("acl") {
                        self.back.push(line.clone());
                    }
                    self.front.push(line);
                }
            }
        }
    }
}

fn mode_of(mode: &str) -> Result<Mode, String> {
    match mode {
        "http" => Ok(Mode::Http),
        "tcp" => Ok(Mode::Tcp),
        _ => Err(format!("mode: {mode:?} is neither http nor tcp")),
    }
}

fn number_of<T: std::str::FromStr>(number: &str) -> Result<T, String> {
    number.parse().map_err(|_| format!("{number:?} is not a number that HAProxy takes here"))
}

fn balance(algorithm: &str) -> Option<Balance> {
    let header = || algorithm.strip_prefix("hdr(")?.strip_suffix(')');
    match algorithm {
        "roundrobin" => Some(Balance::RoundRobin),
        "leastconn" => Some(Balance::LeastConn),
        "random" => Some(Balance::Random),
        "source" => Some(Balance::Source),
        "uri" => Some(Balance::Uri),
        _ => Some(Balance::Header(HeaderName::try_from(header()?.to_owned()).ok()?)),
    }
}

/// A time as HAProxy has it: milliseconds, or a number with its unit.
fn time_of(time: &str) -> Result<Duration, String> {
    let wrong = || format!("{time:?} is not a time: 500ms, 30s, 5m");
    let digits = time.trim_end_matches(|unit: char| unit.is_ascii_lowercase());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &time[digits.len()..] {
        "us" => return Ok(Duration::from_micros(number)),
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(wrong)
}

fn reuse_of(reuse: &str) -> Result<HttpReuse, String> {
    let all = [HttpReuse::Never, HttpReuse::Safe, HttpReuse::Aggressive, HttpReuse::Always];
    all.into_iter()
        .find(|known| known.as_str() == reuse)
        .ok_or_else(|| format!("http-reuse: {reuse:?} is none of never, safe, aggressive, always"))
}

/// `option httpchk`, `httpchk URI`, `httpchk METHOD URI`, `httpchk METHOD URI HTTP/1.0`; none of
/// more, which only HAProxy reads.
fn check(request: &[&str]) -> Option<Check> {
    let (method, uri, version) = match request {
        [] => ("OPTIONS", "/", None),
        [uri] => ("OPTIONS", *uri, None),
        [method, uri] => (*method, *uri, None),
        [method, uri, "HTTP/1.0"] => (*method, *uri, Some(HttpVersion::Http10)),
        _ => return None,
    };
    Some(Check {
        uri: Some(Text::try_from(uri.to_owned()).ok()?),
        method: Some(Method::try_from(method.to_owned()).ok()?),
        version,
        ..Check::default()
    })
}
