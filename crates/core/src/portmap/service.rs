//! A service of a portmap. Whatever is here was checked where it came in: it can stand in one word
//! of HAProxy's configuration, and its text is read as itself again.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use serde::Serialize;

use super::PortmapError;

/// What a service is at its front and towards its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum ServiceType {
    /// HTTP to servers with HTTP.
    #[serde(rename = "http")]
    Http,
    /// HTTPS to servers with HTTPS, whose certificates are verified.
    #[serde(rename = "https")]
    Https,
    /// HTTPS to servers with HTTPS, whatever certificate they show.
    #[serde(rename = "https+insecure")]
    HttpsInsecure,
    /// HTTPS to servers with HTTP.
    #[serde(rename = "https-http")]
    HttpsHttp,
    /// Connections as they are.
    #[serde(rename = "tcp")]
    Tcp,
    /// Connections that begin with a PROXY protocol header (version 2).
    #[serde(rename = "tcp-proxy-v2")]
    TcpProxyV2,
}

impl ServiceType {
    pub const ALL: [Self; 6] = [
        Self::Http,
        Self::Https,
        Self::HttpsInsecure,
        Self::HttpsHttp,
        Self::Tcp,
        Self::TcpProxyV2,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::HttpsInsecure => "https+insecure",
            Self::HttpsHttp => "https-http",
            Self::Tcp => "tcp",
            Self::TcpProxyV2 => "tcp-proxy-v2",
        }
    }

    /// Upper and lower case are the same.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text))
    }

    pub fn is_http(self) -> bool {
        !matches!(self, Self::Tcp | Self::TcpProxyV2)
    }

    /// Whether clients come by TLS, which ends here.
    pub fn has_certificate(self) -> bool {
        matches!(self, Self::Https | Self::HttpsInsecure | Self::HttpsHttp)
    }

    /// Whether servers are reached by TLS.
    pub fn has_tls_servers(self) -> bool {
        matches!(self, Self::Https | Self::HttpsInsecure)
    }

    /// Whether servers must show a certificate of their name.
    pub fn verifies_servers(self) -> bool {
        self == Self::Https
    }

    pub fn sends_proxy(self) -> bool {
        self == Self::TcpProxyV2
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A port, 1 to 65534.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Port(u16);

impl Port {
    pub const MAX: u16 = 65534;
    /// Of HAProxy's metrics, unless another is given.
    pub const METRICS: Self = Self(8405);

    pub fn new(number: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// What a service's servers are found by: a DNS name or an IPv4 address, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct BackendName(String);

/// RFC 1035, section 2.3.4.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

impl BackendName {
    /// # Errors
    /// What is wrong with it, and at which byte.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, PortmapError)> {
        if text.is_empty() {
            return Err((0, PortmapError::EmptyName));
        }
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if let Some((at, character)) =
            text.char_indices().find(|(_, character)| !is_plain(*character))
        {
            return Err((at, PortmapError::NameCharacter(character)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let mut labels = name.split('.');
        if name.len() > MAX_NAME || labels.any(|label| label.is_empty() || label.len() > MAX_LABEL)
        {
            return Err((0, PortmapError::NameLength(shown(text))));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && text.parse::<Ipv4Addr>().is_err() {
            return Err((0, PortmapError::NameNumber(shown(text))));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is asked for: in lower case, without a final dot.
    pub fn canonical(&self) -> String {
        self.0.strip_suffix('.').unwrap_or(&self.0).to_ascii_lowercase()
    }

    pub fn address(&self) -> Option<Ipv4Addr> {
        self.0.parse().ok()
    }

    /// Whether it names SRV records by itself: `_https._tcp.web.example.com`.
    pub fn is_srv(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The name that its servers' certificates have: without the labels of an SRV record before it
    /// (RFC 6125, section 6.5.1). None where nothing else is there.
    pub fn host(&self) -> Option<String> {
        let name = self.canonical();
        let mut host = name.as_str();
        // `_https` and `_tcp`.
        for _ in 0..2 {
            if host.starts_with('_') {
                host = host.split_once('.').map_or("", |(_, host)| host);
            }
        }
        let is_name = !host.is_empty() && !host.starts_with('_') && self.address().is_none();
        is_name.then(|| host.to_owned())
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The path of a health check, with its query: `/healthz?full=1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct CheckPath(String);

/// HAProxy takes longer ones; nobody writes them.
const MAX_PATH: usize = 1000;

impl CheckPath {
    /// # Errors
    /// What is wrong with it, and at which byte.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, PortmapError)> {
        if text.is_empty() {
            return Err((0, PortmapError::EmptyPath));
        }
        if !text.starts_with('/') {
            return Err((0, PortmapError::PathStart(shown(text))));
        }
        if text.len() > MAX_PATH {
            return Err((0, PortmapError::PathLength));
        }
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            let is_escape = character == '%' && is_hexadecimal(characters.as_str());
            // What RFC 3986 allows, but quotes, `$` and the comma, which mean something elsewhere.
            let is_plain =
                character.is_ascii_alphanumeric() || "-._~!&()*+;=:@/?".contains(character);
            if !is_escape && !is_plain {
                return Err((at, PortmapError::PathCharacter(character)));
            }
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text begins with two hexadecimal digits.
fn is_hexadecimal(text: &str) -> bool {
    text.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// A part of a text within a message.
pub(super) fn shown(text: &str) -> String {
    crate::snapshot::sanitize(text)
}

/// A service: what listens where, and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Service {
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    pub listen_port: Port,
    pub backend_name: BackendName,
    /// None: SRV records have it.
    pub backend_port: Option<Port>,
    /// What servers are asked for to see whether they are well; none: a connection is enough.
    pub check_path: Option<CheckPath>,
    /// None: the server's own.
    pub check_port: Option<Port>,
    pub rise: Option<NonZeroU16>,
    pub fall: Option<NonZeroU16>,
}

impl Service {
    /// After so many good checks a server is up.
    pub fn rise_or_default(&self) -> u16 {
        self.rise.map_or(2, NonZeroU16::get)
    }

    /// After so many failed checks it is down.
    pub fn fall_or_default(&self) -> u16 {
        self.fall.map_or(1, NonZeroU16::get)
    }
}

/// As a portmap has it.
impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}:{}", self.service_type, self.listen_port, self.backend_name)?;
        if let Some(port) = self.backend_port {
            write!(out, ":{port}")?;
        }
        let parameters = [
            self.check_path.as_ref().map(|path| format!("check:{}", path.as_str())),
            self.check_port.map(|port| format!("port:{port}")),
            self.rise.map(|rise| format!("rise:{rise}")),
            self.fall.map(|fall| format!("fall:{fall}")),
        ];
        let parameters: Vec<String> = parameters.into_iter().flatten().collect();
        if parameters.is_empty() { Ok(()) } else { write!(out, "{{{}}}", parameters.join(",")) }
    }
}
