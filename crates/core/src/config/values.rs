//! Values of a declared configuration, checked where they come in: whatever is here can be written
//! into a line of HAProxy's configuration as one word.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::is_valid_name;

/// The longest value in bytes: four of them fit in HAProxy's buffer for a line's words.
pub const MAX_BYTES: usize = 4096;

/// Why a text is no value of its kind, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("is empty")]
    Empty,
    #[error("is longer than 4096 bytes")]
    TooLong,
    #[error("contains a line break or another control character at byte {0}")]
    Control(usize),
    #[error("{0:?} is not a name in HAProxy: 1 to 255 letters, digits and . _ : -")]
    Name(String),
    #[error("{0:?} is not the name of a header: letters, digits and ! # $ % & ' * + - . ^ _ ` | ~")]
    Header(String),
    #[error("{0:?} is not an address to listen on: HOST:PORT, :PORT, unix@PATH or fd@N")]
    Bind(String),
    #[error("{0:?} is not an address or a network: 10.0.0.0/8")]
    Network(String),
    #[error("{0:?} is not a path from /: letters, digits and / . _ - + @ : only")]
    Path(String),
    #[error("{0:?} is not a method: upper-case letters")]
    Method(String),
    #[error("{0} is not a status from 200 to 599")]
    Status(u16),
}

/// A value that is made of text, and is checked when it is.
macro_rules! text_value {
    ($(#[doc = $doc:literal])* $name:ident, $check:expr) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ValueError;

            fn try_from(text: String) -> Result<Self, ValueError> {
                check_text(&text)?;
                let check: fn(&str) -> Result<(), ValueError> = $check;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

text_value! {
    /// Any text without control characters, not empty.
    Text, |_| Ok(())
}

text_value! {
    /// The name of a frontend, a backend, a server or a certificate.
    Name, |text| match is_valid_name(text) {
        true => Ok(()),
        false => Err(ValueError::Name(text.to_owned())),
    }
}

text_value! {
    /// The name of a header (RFC 9110, 5.6.2: a token).
    HeaderName, |text| match text.bytes().all(is_token) {
        true => Ok(()),
        false => Err(ValueError::Header(text.to_owned())),
    }
}

text_value! {
    /// A method, as a request line has it.
    Method, |text| match text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        true => Ok(()),
        false => Err(ValueError::Method(text.to_owned())),
    }
}

text_value! {
    /// An address or a network: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
    Network, |text| match is_network(text) {
        true => Ok(()),
        false => Err(ValueError::Network(text.to_owned())),
    }
}

text_value! {
    /// The whole path of a file that HAProxy opens: `/etc/haproxy/maps/a.map`. Plain characters
    /// only, as it may stand within an expression.
    FilePath, |text| match text.starts_with('/') && text.bytes().all(is_path_byte) {
        true => Ok(()),
        false => Err(ValueError::Path(text.to_owned())),
    }
}

text_value! {
    /// Where a frontend listens: `127.0.0.1:8080`, `:443`, `[::1]:80`, `unix@/run/x.sock`, `fd@7`.
    BindAddress, |text| match is_bind_address(text) {
        true => Ok(()),
        false => Err(ValueError::Bind(text.to_owned())),
    }
}

/// A status that HAProxy may answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Status(u16);

impl TryFrom<u16> for Status {
    type Error = ValueError;

    fn try_from(code: u16) -> Result<Self, ValueError> {
        (200..600).contains(&code).then_some(Self(code)).ok_or(ValueError::Status(code))
    }
}

impl From<Status> for u16 {
    fn from(status: Status) -> Self {
        status.0
    }
}

/// A time as HAProxy writes it, in the largest unit that is exact: `5s`, `1500ms`, `1d`.
pub fn time(time: Duration) -> String {
    let milliseconds = time.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let exact =
        units.into_iter().find(|(_, size)| milliseconds > 0 && milliseconds.is_multiple_of(*size));
    exact.map_or_else(
        || format!("{milliseconds}ms"),
        |(unit, size)| format!("{}{unit}", milliseconds / size),
    )
}

fn check_text(text: &str) -> Result<(), ValueError> {
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(ValueError::TooLong);
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, _)) => Err(ValueError::Control(at)),
        None => Ok(()),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+@:".contains(&byte)
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| is_number(bits) && bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_bind_address(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("unix@") {
        return path.starts_with('/') && path.len() <= 107;
    }
    if let Some(number) = text.strip_prefix("fd@") {
        return is_number(number) && number.len() <= 6;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = is_number(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    is_port
        && match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.is_empty() || host == "*" || host.parse::<std::net::Ipv4Addr>().is_ok(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<T: TryFrom<String, Error = ValueError>>(text: &str) -> Result<T, ValueError> {
        T::try_from(text.to_owned())
    }

    #[test]
    fn no_value_has_a_line_break_or_is_empty() {
        assert_eq!(value::<Text>(""), Err(ValueError::Empty));
        assert_eq!(value::<Text>("a\nb"), Err(ValueError::Control(1)));
        assert_eq!(value::<Text>("a\u{85}"), Err(ValueError::Control(1)));
        assert_eq!(value::<Text>(&"x".repeat(4097)), Err(ValueError::TooLong));
        assert_eq!(value::<Text>("ü 'x'").map(String::from).as_deref(), Ok("ü 'x'"));
    }

    #[test]
    fn each_kind_takes_what_haproxy_takes_and_names_what_it_does_not() {
        for good in ["127.0.0.1:80", ":443", "*:443", "[::1]:80", "unix@/run/a.sock", "fd@7"] {
            assert!(value::<BindAddress>(good).is_ok(), "{good}");
        }
        for bad in ["80", "::1:80", "localhost:80", ":0", ":65536", "unix@a", "fd@", "1.2.3:80"] {
            assert!(value::<BindAddress>(bad).is_err(), "{bad}");
        }
        for (text, is_good) in [
            ("10.0.0.0/8", true),
            ("::1", true),
            ("10.0.0.0/33", false),
            ("a", false),
            ("1.1.1.1/+8", false),
        ] {
            assert_eq!(value::<Network>(text).is_ok(), is_good, "{text}");
        }
        assert!(value::<HeaderName>("X-Node-Name").is_ok());
        assert!(value::<HeaderName>("X Node").is_err());
        assert!(value::<Name>("a b").is_err());
        assert!(value::<Method>("get").is_err());
        assert_eq!(Status::try_from(199), Err(ValueError::Status(199)));
    }

    #[test]
    fn a_time_is_written_in_its_largest_unit() {
        let texts = [0, 1, 1000, 1500, 60_000, 90_000, 7_200_000, 86_400_000]
            .map(|milliseconds| time(Duration::from_millis(milliseconds)));
        assert_eq!(texts, ["0ms", "1ms", "1s", "1500ms", "1m", "90s", "2h", "1d"]);
    }
}
