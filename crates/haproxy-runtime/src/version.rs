//! Versions of HAProxy.

use std::fmt;
use std::str::FromStr;

/// A HAProxy version, as far as behaviour depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HaproxyVersion {
    /// 3 in 3.0.11.
    pub major: u16,
    /// 0 in 3.0.11.
    pub minor: u16,
}

impl FromStr for HaproxyVersion {
    type Err = String;

    /// Reads `2.6.12-1+deb12u1`, `3.4-dev5`, ...
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: Option<&str>| {
            let part = part?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        };
        let mut parts = text.split('.');
        match (number(parts.next()), number(parts.next())) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(format!("{text:?} is not a HAProxy version")),
        }
    }
}

impl fmt::Display for HaproxyVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_haproxy_prints_them() {
        for (text, major, minor) in
            [("2.6.12-1+deb12u1", 2, 6), ("3.4-dev5-a1b2", 3, 4), ("3.0.11", 3, 0), ("2.9", 2, 9)]
        {
            assert_eq!(text.parse(), Ok(HaproxyVersion { major, minor }), "{text}");
        }
        for wrong in ["", "3", "x.y", "HAProxy"] {
            assert!(wrong.parse::<HaproxyVersion>().is_err(), "{wrong:?}");
        }
    }
}
