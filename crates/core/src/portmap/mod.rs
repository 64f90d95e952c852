//! The portmap: one text that declares a load balancer, service by service, as Triton's Moirai
//! reads it from metadata: `https-http://443:web.example.com:8080{check:/healthz}`. Pure.
//!
//! Stricter than Moirai where that let something through which means another thing than it says,
//! or which HAProxy refuses: then one service is rejected, and not all of them lost.

use std::collections::BTreeMap;
use std::fmt;

mod declared;
mod error;
pub mod metadata;
mod piece;
mod service;
pub mod texts;

pub use declared::{Declaration, DeclaredService, Naming, NoCertificate, ServersFrom};
pub use error::PortmapError;
use serde::Serialize;
pub use service::{BackendName, CheckPath, Port, Service, ServiceType};

/// The longest text that is read, in bytes. It holds many more services than one HAProxy serves.
pub const MAX_TEXT: usize = 1024 * 1024;
/// The most services: each is a listener and a backend.
pub const MAX_SERVICES: usize = 1000;
/// The most pieces that are read; what follows is rejected as one.
const MAX_PIECES: usize = 10_000;
/// How much of a rejected piece is shown, in characters.
const MAX_SHOWN: usize = 1000;

/// What a text says: the services in its order, and what is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Portmap {
    /// No two of them listen on one port.
    pub services: Vec<Service>,
    pub rejected: Vec<Rejected>,
}

/// A piece of a text that is no service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The piece as it stands there, a very long one cut.
    pub string: String,
    /// Where in the whole text it is wrong: characters, from 1. A line break counts as one.
    pub column: usize,
    pub error: PortmapError,
}

impl Portmap {
    /// Reads a text. What is wrong with a piece has no effect on the others.
    pub fn parse(text: &str) -> Self {
        let mut portmap = Self::default();
        if text.len() > MAX_TEXT {
            portmap.reject(text, 1, PortmapError::TooLong);
            return portmap;
        }
        let mut taken: BTreeMap<Port, usize> = BTreeMap::new();
        let mut position = Position::default();
        for (number, (start, piece)) in pieces(text).enumerate() {
            let mut column = |offset| position.column(text, start + offset);
            if number == MAX_PIECES {
                portmap.reject(&text[start..], column(0), PortmapError::TooManyPieces);
                break;
            }
            match piece::parse(piece) {
                Err(fault) => portmap.reject(piece, column(fault.at), fault.error),
                Ok((service, port_at)) => {
                    let port = service.listen_port;
                    if let Some(first) = taken.get(&port).map(|first| &portmap.services[*first]) {
                        let error = PortmapError::PortTaken { port, by: first.to_string() };
                        portmap.reject(piece, column(port_at), error);
                    } else if portmap.services.len() == MAX_SERVICES {
                        portmap.reject(piece, column(0), PortmapError::TooManyServices);
                    } else {
                        taken.insert(port, portmap.services.len());
                        portmap.services.push(service);
                    }
                }
            }
        }
        portmap
    }

    fn reject(&mut self, piece: &str, column: usize, error: PortmapError) {
        let string = piece.chars().take(MAX_SHOWN).collect();
        self.rejected.push(Rejected { string, column, error });
    }
}

/// For a person.
impl fmt::Display for Rejected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { string, column, error } = self;
        write!(out, "column {column}, {}: {error}", service::shown(string))
    }
}

/// Counts characters up to offsets that only grow, so that a long text is counted once.
#[derive(Default)]
struct Position {
    bytes: usize,
    characters: usize,
}

impl Position {
    /// The column of a byte.
    fn column(&mut self, text: &str, at: usize) -> usize {
        let between = text.get(self.bytes..at).unwrap_or_default();
        self.characters += between.chars().count();
        self.bytes = self.bytes.max(at);
        self.characters + 1
    }
}

/// The pieces of a text, each with its offset: commas, spaces and line breaks are between them, but
/// not within braces. What else is white space is no part of a piece's ends.
fn pieces(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut within = false;
    let separates = move |character: char| {
        match character {
            '{' => within = true,
            '}' => within = false,
            _ => {}
        }
        !within && matches!(character, ',' | ' ' | '\n')
    };
    let mut next = 0;
    text.split(separates).filter_map(move |raw| {
        let start = next + raw.len() - raw.trim_start().len();
        next += raw.len() + 1;
        Some((start, raw.trim())).filter(|(_, piece)| !piece.is_empty())
    })
}

#[cfg(test)]
mod tests;
