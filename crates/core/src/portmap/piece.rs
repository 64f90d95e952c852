//! One piece of a portmap: `TYPE://PORT:NAME[:PORT][{KEY:VALUE,...}]`.

use std::num::NonZeroU16;

use super::service::shown;
use super::{BackendName, CheckPath, Port, PortmapError, Service, ServiceType};

/// What is wrong, and at which byte of the piece.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: usize,
    pub error: PortmapError,
}

fn fault<T>(at: usize, error: PortmapError) -> Result<T, Fault> {
    Err(Fault { at, error })
}

/// The service, and the byte at which its listen port stands.
///
/// # Errors
/// The first that is wrong, from left to right; braces before what they hold.
pub(super) fn parse(piece: &str) -> Result<(Service, usize), Fault> {
    let brace = piece.find('{');
    let head = &piece[..brace.unwrap_or(piece.len())];
    let Some((protocol, rest)) = head.split_once("://") else {
        return fault(0, PortmapError::NoType);
    };
    let Some(service_type) = ServiceType::parse(protocol) else {
        return fault(0, PortmapError::Type(shown(protocol)));
    };
    let port_at = protocol.len() + "://".len();
    let Some((listen, backend)) = rest.split_once(':') else {
        return fault(port_at, PortmapError::NoBackend);
    };
    let listen_port = port(listen, port_at, "listen")?;
    let name_at = port_at + listen.len() + 1;
    if backend.starts_with('[') {
        return fault(name_at, PortmapError::Ipv6);
    }
    let (name, port_text) = backend.split_once(':').unzip();
    let name = name.unwrap_or(backend);
    let backend_name =
        BackendName::parse(name).map_err(|(at, error)| Fault { at: name_at + at, error })?;
    let backend_port = port_text.map(|text| port(text, name_at + name.len() + 1, "backend"));
    let backend_port = backend_port.transpose()?;
    let mut service = Service {
        service_type,
        listen_port,
        backend_name,
        backend_port,
        check_path: None,
        check_port: None,
        rise: None,
        fall: None,
    };
    if let Some(at) = brace {
        parameters(piece, at, &mut service)?;
    }
    check_name(&service).or_else(|error| fault(name_at, error))?;
    Ok((service, port_at))
}

/// What only the whole tells: whether there is anything that the name could be asked for.
fn check_name(service: &Service) -> Result<(), PortmapError> {
    let name = &service.backend_name;
    if name.address().is_some() && service.backend_port.is_none() {
        return Err(PortmapError::AddressWithoutPort(name.clone()));
    }
    if service.service_type.verifies_servers() && name.host().is_none() {
        return Err(PortmapError::NothingToVerify(name.clone()));
    }
    Ok(())
}

/// A port that stands at this byte.
fn port(text: &str, at: usize, what: &'static str) -> Result<Port, Fault> {
    let Some(number) = number(text) else {
        return fault(at, PortmapError::Port(what, shown(text)));
    };
    Port::new(number).map_or_else(|| fault(at, PortmapError::PortRange(what, shown(text))), Ok)
}

/// A number in plain digits: without a sign, without zeros before it.
fn number(text: &str) -> Option<u16> {
    let is_plain = text == "0" || !text.starts_with('0');
    let has_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain && has_digits)
}

/// Reads what stands in braces, the first of them at this byte.
fn parameters(piece: &str, brace: usize, service: &mut Service) -> Result<(), Fault> {
    let inner_at = brace + 1;
    let Some(length) = piece[inner_at..].find('}') else {
        return fault(brace, PortmapError::Unclosed);
    };
    let inner = &piece[inner_at..inner_at + length];
    if let Some(at) = inner.find('{') {
        return fault(inner_at + at, PortmapError::Doubled);
    }
    let after = &piece[inner_at + length + 1..];
    if !after.is_empty() {
        return fault(inner_at + length + 1, PortmapError::AfterBrace(shown(after)));
    }
    let mut at = inner_at;
    for pair in inner.split(',') {
        parameter(pair, at, service)?;
        at += pair.len() + 1;
    }
    Ok(())
}

/// Reads one `KEY:VALUE`, which begins at this byte.
fn parameter(pair: &str, at: usize, service: &mut Service) -> Result<(), Fault> {
    let start = |text: &str| text.len() - text.trim_start().len();
    let Some((key, value)) = pair.split_once(':') else {
        return fault(at + start(pair), PortmapError::Parameter(shown(pair.trim())));
    };
    let (key_at, value_at) = (at + start(key), at + key.len() + 1 + start(value));
    let (key, value) = (key.trim(), value.trim());
    let twice = |key, is_given: bool| match is_given {
        true => fault(key_at, PortmapError::Twice(key)),
        false => Ok(()),
    };
    match key {
        "check" => {
            twice("check", service.check_path.is_some())?;
            let path = CheckPath::parse(value);
            let path = path.map_err(|(at, error)| Fault { at: value_at + at, error })?;
            service.check_path = Some(path);
        }
        "port" => {
            twice("port", service.check_port.is_some())?;
            service.check_port = Some(port(value, value_at, "health check")?);
        }
        "rise" => {
            twice("rise", service.rise.is_some())?;
            service.rise = Some(count(value, value_at, "rise")?);
        }
        "fall" => {
            twice("fall", service.fall.is_some())?;
            service.fall = Some(count(value, value_at, "fall")?);
        }
        _ => return fault(key_at, PortmapError::Key(shown(key))),
    }
    Ok(())
}

/// A number of checks. HAProxy refuses 0.
fn count(text: &str, at: usize, what: &'static str) -> Result<NonZeroU16, Fault> {
    let count = number(text).and_then(NonZeroU16::new);
    count.map_or_else(|| fault(at, PortmapError::Count(what, shown(text))), Ok)
}
