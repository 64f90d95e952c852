//! `[acme]`: the certificate authority that certificates come from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mapsmith_core::config::Challenges;
use mapsmith_core::config::values::{BindAddress, FilePath, Name, Text};
use reqwest::Url;
use serde::Deserialize;

use super::frontend::Mode;
use super::keys::section;
use super::units::duration;
use super::{Certificate, Frontend, Settings};

/// Where what was issued and the account's key are without `[haproxy]`.
const FOLDER: &str = "/var/lib/mapsmith/acme";
/// The longest time that a hook may be given.
const LONGEST_HOOK: Duration = Duration::from_secs(600);

section! {
    /// The certificate authority (ACME, RFC 8555) that the certificates with `acme` come from.
    /// [certificates.md](certificates.md) is the guide.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Acme {
        /// The URL of its directory. Try things with
        /// `https://acme-staging-v02.api.letsencrypt.org/directory`.
        #[unset("https://acme-v02.api.letsencrypt.org/directory")]
        #[serde(default = "lets_encrypt")]
        pub directory: String,
        /// Whether you agree to its terms of service. Must be `true`.
        #[unset(required)]
        pub terms_agreed: bool,
        /// Mail addresses that it may write to.
        #[unset(says "none")]
        #[serde(default)]
        pub contact: Vec<Text>,
        /// External account binding, where it asks for one: `{ kid = "...", key_file = "..." }`.
        /// The file holds the HMAC key in base64url, as the authority gave it; its mode must be
        /// 0600.
        pub eab: Option<Eab>,
        /// The CA's certificates (PEM) that the directory's own TLS is verified by.
        #[unset(says "the system's")]
        pub ca: Option<PathBuf>,
        /// The folder of the account's key, of orders in progress and of what was issued. An
        /// absolute path; only Mapsmith's user can read it.
        #[unset(says "`acme` in `haproxy.folder`")]
        pub folder: Option<FilePath>,
        /// The profile of certificates that is asked for, such as `shortlived`.
        #[unset(says "the authority's default")]
        pub profile: Option<Text>,
        /// How it is shown that the names are yours: `http-01`, answered by HAProxy itself (needs
        /// `[haproxy]`), or `dns-01`, by `hook`.
        #[unset("http-01")]
        #[serde(default)]
        pub challenge: Challenge,
        /// `dns-01`: the command that adds and removes TXT records, each word one text. It is
        /// called with `add` or `remove`, the record's name (`_acme-challenge.www.example.com`) and
        /// its value. `add` must not end before all name servers of the zone have the record.
        #[unset(says "none")]
        #[serde(default)]
        pub hook: Vec<Text>,
        /// How long one call of the hook may take, at most 10 minutes.
        #[unset("2m")]
        #[serde(default = "hook_timeout", deserialize_with = "duration")]
        pub hook_timeout: Duration,
        /// `http-01`: whether each name is first asked for by HTTP, and nothing is ordered where
        /// the answer does not come from this gateway. Where the gateway can't reach itself by its
        /// public names, set it to `false`.
        #[unset("true")]
        #[serde(default = "yes")]
        pub check_names: bool,
        /// `http-01`: the port where this gateway gets what is sent to port 80. Set it where a
        /// firewall forwards port 80 to another one.
        #[unset("80")]
        #[serde(default = "http")]
        pub http_port: u16,
        /// `http-01`: whether HAProxy listens at that port for the authority alone where no
        /// frontend listens there.
        #[unset("true")]
        #[serde(default = "yes")]
        pub port_80: bool,
        /// The DNS server, `IP:PORT`, that `check_names` asks.
        #[unset(says "the system's")]
        pub resolver: Option<SocketAddr>,
    }
}

section! {
    /// External account binding.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Eab {
        /// The key's id, as the authority gave it.
        #[unset(required)]
        pub kid: Text,
        /// The file with the HMAC key in base64url.
        #[unset(required)]
        pub key_file: PathBuf,
    }
}

/// How it is shown that a name is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Challenge {
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    #[serde(rename = "dns-01")]
    Dns01,
}

impl fmt::Display for Challenge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        })
    }
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}

fn hook_timeout() -> Duration {
    Duration::from_secs(120)
}

fn http() -> u16 {
    80
}

fn yes() -> bool {
    true
}

impl Acme {
    pub(super) fn resolve(&mut self, folder: &Path) {
        let key = self.eab.as_mut().map(|eab| &mut eab.key_file);
        self.ca.iter_mut().chain(key).for_each(|path| *path = folder.join(&*path));
    }

    fn problems(&self, mut problem: impl FnMut(&str)) {
        if !self.terms_agreed {
            problem("terms_agreed: must be true; read the authority's terms of service first");
        }
        let url = Url::parse(&self.directory);
        if url.is_err() || url.is_ok_and(|url| url.scheme() != "https") {
            problem("directory: is not a URL that begins with https://");
        }
        for contact in self.contact.iter().filter(|contact| !contact.as_str().contains('@')) {
            problem(&format!("contact: {:?} is not a mail address", contact.as_str()));
        }
        let hook = self.hook.first().map(Text::as_str);
        match (self.challenge, hook) {
            (Challenge::Dns01, None) => problem("hook: is missing; dns-01 needs it"),
            (Challenge::Http01, Some(_)) => problem("hook: is for challenge = \"dns-01\" only"),
            (Challenge::Dns01, Some(program)) if !program.starts_with('/') => {
                problem("hook: its first word must be the absolute path of a program");
            }
            _ => {}
        }
        if self.hook_timeout.is_zero() || self.hook_timeout > LONGEST_HOOK {
            problem("hook_timeout: must be more than 0 and at most 10m");
        }
        if self.http_port == 0 {
            problem("http_port: must not be 0");
        }
    }
}

impl Settings {
    /// Where the account's key, orders in progress and what was issued are kept.
    pub fn acme_folder(&self) -> PathBuf {
        let given = self.acme.as_ref().and_then(|acme| acme.folder.as_ref());
        match (given, &self.haproxy) {
            (Some(folder), _) => PathBuf::from(folder.as_str()),
            (None, Some(haproxy)) => haproxy.files().path().join("acme"),
            (None, None) => PathBuf::from(FOLDER),
        }
    }

    /// Adds a certificate, with its files.
    pub fn add_certificate(&mut self, mut certificate: Certificate) {
        certificate.place(self.haproxy.as_ref(), &self.acme_folder().join("issued"));
        self.tls_files.extend(certificate.tls_file());
        self.certificates.push(certificate);
    }

    /// Gives the certificates that Mapsmith gets itself their files.
    pub(super) fn with_issued(mut self) -> Self {
        let folder = self.acme_folder().join("issued");
        let haproxy = self.haproxy.as_ref();
        self.certificates.iter_mut().for_each(|certificate| certificate.place(haproxy, &folder));
        self
    }

    /// Which of them come from a certificate authority, and how to ask it.
    pub fn acme_certificates(&self) -> Option<(&Acme, Vec<&Certificate>)> {
        let certificates: Vec<_> =
            self.certificates.iter().filter(|certificate| !certificate.acme.is_empty()).collect();
        self.acme.as_ref().filter(|_| !certificates.is_empty()).map(|acme| (acme, certificates))
    }

    /// What HAProxy answers to the authority, where it is asked by HTTP.
    pub fn challenges(&self) -> Option<Challenges> {
        let (acme, _) = self.acme_certificates()?;
        let haproxy = self.haproxy.as_ref().filter(|_| acme.challenge == Challenge::Http01)?;
        let map = haproxy.files().challenges().into_os_string().into_string().ok()?;
        let plain = self.frontends.iter().filter(|it| listens_at(it, acme.http_port));
        let plain = plain.filter(|it| it.mode == Mode::Http);
        let frontends: Vec<Name> = plain.map(|frontend| frontend.name.clone()).collect();
        let alone = frontends.is_empty() && acme.port_80;
        let bind = alone.then(|| BindAddress::try_from(format!(":{}", acme.http_port)).ok());
        Some(Challenges { map: FilePath::try_from(map).ok()?, frontends, bind: bind.flatten() })
    }
}

/// Whether it listens there in the clear.
fn listens_at(frontend: &Frontend, port: u16) -> bool {
    let mut plain = frontend.bind.iter().filter(|bind| bind.certificate.is_none());
    plain.any(|bind| bind.address.internet().is_some_and(|it| it.port() == port))
}

pub(super) fn problems(settings: &Settings, problems: &mut Vec<String>) {
    let with_acme = settings.certificates.iter().enumerate();
    let with_acme = with_acme.filter(|(_, certificate)| !certificate.acme.is_empty());
    let Some(acme) = &settings.acme else {
        problems.extend(with_acme.map(|(index, _)| {
            format!("certificate[{index}].acme: needs [acme] with terms_agreed = true")
        }));
        return;
    };
    acme.problems(|text| problems.push(format!("acme.{text}")));
    if acme.challenge == Challenge::Dns01 {
        return;
    }
    for (index, certificate) in with_acme {
        for name in certificate.acme.iter().filter(|name| name.is_wildcard()) {
            problems
                .push(format!("certificate[{index}].acme: {name} needs challenge = \"dns-01\""));
        }
    }
    if settings.acme_certificates().is_some() && settings.haproxy.is_none() {
        problems.push(
            "acme.challenge: http-01 is answered by the HAProxy of [haproxy], which is missing; \
                without it use dns-01"
                .to_owned(),
        );
    }
    if let Some(challenges) = settings.challenges() {
        let port = acme.http_port;
        let tcp = settings
            .frontends
            .iter()
            .enumerate()
            .find(|(_, frontend)| frontend.mode == Mode::Tcp && listens_at(frontend, port));
        if let Some((index, _)) = tcp {
            problems.push(format!(
                "frontend[{index}].mode: port {port} must be of mode http, for http-01"
            ));
        } else if challenges.frontends.is_empty() && challenges.bind.is_none() {
            problems.push(format!(
                "acme.port_80: no frontend listens at port {port}, where the authority asks"
            ));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{SMALL, load};
    use super::*;

    /// An authority that is shown names by this hook.
    pub(crate) fn by_hook(words: &[&str], bound: Duration) -> Acme {
        let text = format!(
            "{SMALL}[acme]\nterms_agreed = true\nchallenge = \"dns-01\"\nhook = {:?}\n\
            hook_timeout = \"{}ms\"\n",
            ["/bin/true"],
            bound.as_millis()
        );
        let acme = load(&text, &[]).unwrap().acme.unwrap();
        let word = |word: &&str| Text::try_from((*word).to_owned()).unwrap();
        Acme { hook: words.iter().map(word).collect(), ..acme }
    }

    const SITE: &str = "[haproxy]\nfolder = \"/srv/h\"\n[acme]\nterms_agreed = true\n\
        [[certificate]]\nname = \"site\"\nacme = [\"a.test\"]\n";

    fn frontend(bind: &str, more: &str) -> String {
        format!(
            "[[frontend]]\nname = \"web\"\nbind = [{bind}]\n{more}\n\
            rules = [{{ return = {{ status = 200 }} }}]\n"
        )
    }

    #[test]
    fn the_authority_is_answered_where_plain_http_comes_in() {
        let challenges = |more: &str| {
            let settings = load(&format!("{SMALL}{SITE}{more}"), &[]).unwrap();
            let challenges = settings.challenges().unwrap();
            assert_eq!(challenges.map.as_str(), "/srv/h/challenges.map");
            let bind = challenges.bind.map(String::from);
            (challenges.frontends.iter().map(ToString::to_string).collect::<Vec<_>>(), bind)
        };
        assert_eq!(challenges(""), (vec![], Some(":80".to_owned())));
        assert_eq!(challenges(&frontend("\"127.0.0.1:80\"", "")), (vec!["web".to_owned()], None));
        let other = challenges(&frontend("\":8080\"", ""));
        assert_eq!(other, (vec![], Some(":80".to_owned())), "another port");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (from, to, part) in [
            ("terms_agreed = true", "terms_agreed = false", "acme.terms_agreed: must be true"),
            ("[acme]", "[acme]\ndirectory = \"http://ca\"", "acme.directory: is not a URL"),
            ("[acme]", "[acme]\ncontact = [\"me\"]", "acme.contact: \"me\" is not a mail"),
            ("[acme]", "[acme]\nchallenge = \"dns-01\"", "acme.hook: is missing"),
            ("[acme]", "[acme]\nhook = [\"/x\"]", "acme.hook: is for challenge"),
            ("[acme]", "[acme]\nport_80 = false", "acme.port_80: no frontend listens at port 80"),
            ("a.test", "*.a.test", "certificate[0].acme: *.a.test needs challenge = \"dns-01\""),
            ("[haproxy]\nfolder = \"/srv/h\"", "", "acme.challenge: http-01 is answered by"),
        ] {
            let text = format!("{SMALL}{}", SITE.replace(from, to));
            let message = load(&text, &[]).unwrap_err();
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        let tcp = frontend("\":80\"", "mode = \"tcp\"");
        let message = load(&format!("{SMALL}{SITE}{tcp}"), &[]).unwrap_err();
        assert!(message.contains("frontend[0].mode: port 80 must be of mode http"), "{message}");
    }
}
