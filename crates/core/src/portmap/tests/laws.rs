//! What holds of any text.

use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::declared::{config, declaration};
use super::*;
use crate::render::render;
use crate::render::words::words;

/// What a portmap is made of, and what ends a word, a line or a section in HAProxy's configuration.
const PARTS: [&str; 36] = [
    "http",
    "https",
    "https+insecure",
    "tcp-proxy-v2",
    "://",
    ":",
    "80",
    "443",
    "0",
    "65535",
    "web.example.com",
    "_http._tcp.a.b",
    "10.0.0.1",
    "{",
    "}",
    "{{",
    ",",
    " ",
    "\n",
    "\r\n",
    "\t",
    "check:/",
    "port:",
    "rise:",
    "fall:2",
    "'",
    "\"",
    "\\",
    "${HOME}",
    "#",
    "\0",
    "\u{202e}",
    "ü",
    "%[src]",
    "\nglobal\n",
    ";",
];

fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => select(&PARTS[..]).prop_map(str::to_owned), 1 => ".{0,4}"];
    vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// A good service with something foreign at some place.
fn disturbed() -> impl Strategy<Value = String> {
    (service(), any::<prop::sample::Index>(), hostile()).prop_map(|(service, at, foreign)| {
        let mut text = service.to_string();
        text.insert_str(at.index(text.len() + 1), &foreign);
        text
    })
}

fn any_portmap() -> impl Strategy<Value = String> {
    let several = vec(disturbed(), 2..4).prop_map(|all| all.join(","));
    prop_oneof![hostile(), disturbed(), several]
}

fn name() -> impl Strategy<Value = String> {
    let label = "[A-Za-z0-9_-]{1,63}";
    let name = vec(label, 0..3).prop_flat_map(|labels| {
        ("[A-Za-z_-][A-Za-z0-9_-]{0,62}", option::of(Just("."))).prop_map(move |(last, dot)| {
            let name: String = labels.iter().map(|label| format!("{label}.")).collect();
            format!("{name}{last}{}", dot.unwrap_or_default())
        })
    });
    prop_oneof![6 => name, 1 => Just("10.20.30.40".to_owned())]
}

fn service() -> impl Strategy<Value = Service> {
    let port = || (1..=Port::MAX).prop_map(|number| Port::new(number).unwrap());
    let path = "/([A-Za-z0-9._~!&()*+;=:@/?-]|%[0-9a-fA-F]{2}){0,30}";
    let count = || option::of((1..=u16::MAX).prop_map(|number| NonZeroU16::new(number).unwrap()));
    let backend = (name(), option::of(port()));
    let check = (option::of(path), option::of(port()), count(), count());
    (select(&ServiceType::ALL[..]), port(), backend, check)
        .prop_map(|(service_type, listen_port, (name, backend_port), check)| {
            let (path, check_port, rise, fall) = check;
            Service {
                service_type,
                listen_port,
                backend_name: BackendName::parse(&name).unwrap(),
                backend_port,
                check_path: path.map(|path| CheckPath::parse(&path).unwrap()),
                check_port,
                rise,
                fall,
            }
        })
        .prop_filter("nothing to ask for, or to verify", |service| {
            let name = &service.backend_name;
            (name.address().is_none() || service.backend_port.is_some())
                && (service.service_type != ServiceType::Https || name.host().is_some())
        })
}

/// What each service is in HAProxy's configuration has no more lines and words than a plain one.
fn stays_in_its_fields(portmap: &Portmap) -> Result<(), TestCaseError> {
    for service in &portmap.services {
        let one = [service.clone()];
        let mut plain = service.clone();
        plain.backend_name = BackendName::parse("plain.test").unwrap();
        plain.check_path = plain.check_path.map(|_| CheckPath::parse("/plain").unwrap());
        if service.backend_name.address().is_some() {
            // Without a name there is none to be asked for in a TLS handshake.
            plain.backend_name = service.backend_name.clone();
        }
        let shape = |services: &[Service]| -> Vec<usize> {
            let text = render(&config(services)).text().to_owned();
            let words_of = |line| words(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            text.lines().map(|line| words_of(line).len()).collect()
        };
        let of_name = service.backend_name.host().is_some();
        if of_name || !service.service_type.has_tls_servers() {
            prop_assert_eq!(shape(&one), shape(&[plain]), "{}", service);
        }
        let rendered = render(&config(&one)).text().to_owned();
        if let Some(path) = &service.check_path {
            let sent = |line: &str| words(line).unwrap().contains(&path.as_str().to_owned());
            prop_assert!(rendered.lines().any(sent), "{}", rendered);
        }
        prop_assert_eq!(config(&one).problems(), []);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_and_no_service_leaves_its_field(
        text in any_portmap(),
    ) {
        let portmap = Portmap::parse(&text);
        let length = text.chars().count();
        for piece in &portmap.rejected {
            prop_assert!(text.contains(&piece.string));
            prop_assert!((1..=length + 1).contains(&piece.column), "{:?}", piece);
            let message = piece.error.to_string();
            let is_plain = message.len() < 2000 && !message.contains(char::is_control);
            prop_assert!(is_plain, "{}", message);
        }
        let ports: std::collections::BTreeSet<_> =
            portmap.services.iter().map(|service| service.listen_port).collect();
        prop_assert_eq!(ports.len(), portmap.services.len());
        stays_in_its_fields(&portmap)?;
        for service in &portmap.services {
            let name = service.backend_name.as_str();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            prop_assert!(name.bytes().all(is_plain), "{}", name);
            let path = service.check_path.as_ref().map_or("/", CheckPath::as_str);
            let ends_a_word = |byte: u8| !byte.is_ascii_graphic() || b"'\"\\$#,{}".contains(&byte);
            prop_assert!(!path.bytes().any(ends_a_word), "{}", path);
        }
    }

    #[test]
    fn a_service_is_read_from_its_own_text(service in service()) {
        let portmap = Portmap::parse(&service.to_string());
        prop_assert_eq!(portmap.rejected, []);
        prop_assert_eq!(portmap.services, [service]);
    }

    #[test]
    fn every_service_can_be_declared(service in service()) {
        let portmap = Portmap { services: vec![service], rejected: Vec::new() };
        stays_in_its_fields(&portmap)?;
        let declared = declaration().declare(&portmap.services);
        prop_assert!(declared[0].is_ok());
    }
}
