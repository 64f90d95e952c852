//! Durations, sizes and addresses as people write them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Longer than any of these durations can mean; beyond it the clock's arithmetic would overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "it has no unit; write \"{text}s\" for seconds or \"{text}m\" for minutes"
        ));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a year".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!(
            "{text:?} is not a duration like \"500ms\", \"60s\" or \"10m\": {error}"
        ))
    })
}

pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// The units of a size, the longer words first.
const UNITS: [(&str, u64); 10] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
];

/// Bytes: a number, or one with a unit.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(unit, size)| Some((lower.strip_suffix(unit)?, *size)));
    let (number, size) = unit.unwrap_or((&lower, 1));
    number.trim_end().parse::<u64>().ok()?.checked_mul(size)
}

pub(crate) fn size<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).and_then(|size| T::try_from(size).ok()).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?} is not a size in bytes like 15360 or \"512MiB\""
        ))
    })
}

pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address with a port like \"127.0.0.1:7070\"; a host name is none"
        ))
    };
    text.parse().map_err(wrong)
}
