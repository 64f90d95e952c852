//! Values of a declared configuration, checked where they come in: whatever is here can be rendered
//! as one word of a line.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::is_valid_name;

/// The longest value in bytes: four of them fit in HAProxy's buffer for a line's words.
pub const MAX_BYTES: usize = 4096;

/// The longest path of a socket: HAProxy binds it under a longer name, for which there is room for
/// 107 bytes.
pub(super) const MAX_SOCKET_PATH: usize = 97;

/// Why a text is not a value of its kind.
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
    #[error("{0:?} is not the name of a header: letters, digits and - _ . only")]
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
    #[error("{0} is none of the statuses {ERROR_STATUSES:?}")]
    ErrorStatus(u16),
    #[error("{0:?} is not a list of statuses: \"200\", \"200,204\" or \"200-399\"")]
    StatusRanges(String),
    #[error("{0:?} is not the name of a protocol, like h2 or http/1.1")]
    Alpn(String),
    #[error("{0:?} is not a host, like app.example.com or 10.0.0.1:8080")]
    Host(String),
    #[error("{0:?} is not a DNS name like www.example.com or *.example.com, in lower case")]
    DnsName(String),
}

/// Statuses that every version from HAProxy 2.6 on can deny with, or has an answer of its own for.
const ERROR_STATUSES: [u16; 18] =
    [400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 501, 502, 503, 504];

/// What ends the host of a URL, or stands in none.
const NOT_IN_HOST: &str = "/?#@,\\\"<>^`{}|";

/// A type of checked text.
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
    /// What a `Host` header may say: a name or an address, with a port if any.
    HostValue, |text| match text.chars().all(|it| it.is_ascii_graphic() && !NOT_IN_HOST.contains(it)) {
        true => Ok(()),
        false => Err(ValueError::Host(text.to_owned())),
    }
}

impl From<HostValue> for Text {
    fn from(HostValue(text): HostValue) -> Self {
        Self(text)
    }
}

text_value! {
    /// The name of a frontend, a backend, a server or a certificate.
    Name, |text| match is_valid_name(text) {
        true => Ok(()),
        false => Err(ValueError::Name(text.to_owned())),
    }
}

text_value! {
    /// The name of a header. Fewer characters than RFC 9110 has, as it stands within expressions.
    HeaderName, |text| match text.bytes().all(is_header_byte) {
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
    /// The absolute path of a file that HAProxy opens: `/etc/haproxy/maps/a.map`. Plain characters
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

text_value! {
    /// Statuses that a health check expects: `200`, `200,204`, `200-399`.
    StatusRanges, |text| match text.split(',').all(is_status_range) {
        true => Ok(()),
        false => Err(ValueError::StatusRanges(text.to_owned())),
    }
}

text_value! {
    /// A protocol as TLS names it (ALPN): `h2`, `http/1.1`.
    Alpn, |text| match text.bytes().all(|byte| is_header_byte(byte) || byte == b'/') {
        true => Ok(()),
        false => Err(ValueError::Alpn(text.to_owned())),
    }
}

text_value! {
    /// A name that a certificate is for: `www.example.com`, or `*.example.com` for all names below
    /// it. In lower case, so that there is one way to write it.
    DnsName, |text| match is_dns_name(text) {
        true => Ok(()),
        false => Err(ValueError::DnsName(text.to_owned())),
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, bits) =
            self.0.split_once('/').map_or((&*self.0, None), |(a, b)| (a, Some(b)));
        let bits = bits.and_then(|bits| bits.parse::<u32>().ok());
        match (network.parse::<IpAddr>(), address.to_canonical()) {
            (Ok(IpAddr::V4(network)), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                differing.leading_zeros() >= bits.unwrap_or(32)
            }
            (Ok(IpAddr::V6(network)), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                differing.leading_zeros() >= bits.unwrap_or(128)
            }
            _ => false,
        }
    }
}

impl DnsName {
    /// Whether it stands for all names below one.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name that it is about: without the `*.` of a wildcard.
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(Text);

impl Secret {
    pub fn new(text: Text) -> Self {
        Self(text)
    }

    /// For HAProxy alone.
    pub fn reveal(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
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

/// A status that HAProxy has an answer of its own for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct ErrorStatus(u16);

impl ErrorStatus {
    pub const FORBIDDEN: Self = Self(403);
    pub const BAD_GATEWAY: Self = Self(502);
    pub const UNAVAILABLE: Self = Self(503);
    pub const GATEWAY_TIMEOUT: Self = Self(504);
}

impl TryFrom<u16> for ErrorStatus {
    type Error = ValueError;

    fn try_from(code: u16) -> Result<Self, ValueError> {
        ERROR_STATUSES.contains(&code).then_some(Self(code)).ok_or(ValueError::ErrorStatus(code))
    }
}

impl From<ErrorStatus> for u16 {
    fn from(status: ErrorStatus) -> Self {
        status.0
    }
}

impl fmt::Display for ErrorStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
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

fn is_header_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn is_status_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let code = text.parse::<u16>().ok().filter(|code| (100..600).contains(code));
        code.filter(|_| text.len() == 3 && is_number(text))
    };
    matches!((status(first), status(last)), (Some(first), Some(last)) if first <= last)
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+@:".contains(&byte)
}

fn is_dns_name(text: &str) -> bool {
    let labels = text.strip_prefix("*.").unwrap_or(text).split('.');
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The last label of an address is a number.
    let is_address = text.rsplit('.').next().is_some_and(is_number);
    text.len() <= 253 && !is_address && labels.clone().all(is_label)
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
        // A comma would end the address, and `$` begins a variable even in quotes.
        let is_plain = path.bytes().all(is_path_byte);
        return path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && is_plain;
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
        for bad in [
            "80",
            "::1:80",
            "localhost:80",
            ":0",
            ":65536",
            "unix@a",
            "unix@/a,:80",
            "unix@/$HOME",
            "fd@",
            "1.2.3:80",
        ] {
            assert!(value::<BindAddress>(bad).is_err(), "{bad}");
        }
        for (text, is_good) in [
            ("app.example.com", true),
            ("10.0.0.1:8080", true),
            ("[::1]:80", true),
            ("_a.test.", true),
            ("a b", false),
            ("a\u{a0}b", false),
            ("http://a", false),
            ("a,b", false),
            ("a\"b", false),
        ] {
            assert_eq!(value::<HostValue>(text).is_ok(), is_good, "{text}");
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
        let network = |text: &str| value::<Network>(text).unwrap();
        for (text, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "::1", false),
            ("0.0.0.0/0", "::1", false),
        ] {
            assert_eq!(network(text).contains(address.parse().unwrap()), is_in, "{text} {address}");
        }
        assert!(value::<HeaderName>("X-Node-Name").is_ok());
        for bad in ["X Node", "X'Node", "X#Node", "X)"] {
            assert!(value::<HeaderName>(bad).is_err(), "{bad}");
        }
        for (text, is_good) in [
            ("200", true),
            ("200,204", true),
            ("200-399", true),
            ("399-200", false),
            ("20", false),
            ("200,", false),
            ("+20", false),
        ] {
            assert_eq!(value::<StatusRanges>(text).is_ok(), is_good, "{text}");
        }
        assert!(value::<Alpn>("http/1.1").is_ok() && value::<Alpn>("h2,http/1.1").is_err());
        for (text, is_good) in [
            ("www.example.com", true),
            ("*.example.com", true),
            ("localhost", true),
            ("xn--bcher-kva.example", true),
            ("Example.com", false),
            ("a.*.example.com", false),
            ("example.com.", false),
            ("-a.example.com", false),
            ("10.0.0.1", false),
            ("a/../b", false),
        ] {
            assert_eq!(value::<DnsName>(text).is_ok(), is_good, "{text}");
        }
        assert_eq!(ErrorStatus::try_from(418), Err(ValueError::ErrorStatus(418)));
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
