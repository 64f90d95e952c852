//! Lists that are written piece by piece, as fast as they are read: all members together may be
//! large, and a reader has a few of them in memory.
//!
//! Whoever comes or goes while a list is written may be in it or not; whoever is there all the time
//! is in it, once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use mapsmith_core::compat::aqueduct::shown;
use mapsmith_core::compat::{aqueduct, thalassa};
use mapsmith_core::members::MemberKey;
use mapsmith_core::objects::Objects;
use serde_json::Value;

use super::{Listener, aqueduct as own, hapi};

/// How many members are looked at together: while that lasts nobody registers.
const TOGETHER: usize = 32;
/// How many bytes are worth sending.
const ENOUGH: usize = 64 * 1024;

/// What comes next.
pub(super) enum Piece {
    /// A list begins after it.
    Begin(&'static str),
    /// A list has ended before it.
    End(&'static str),
    Element(Value),
    Members(Members),
    /// The backend of this key, with its members.
    Backend(String),
}

/// Members of a name, of a version of it, or all.
#[derive(Default)]
pub(super) struct Members {
    pub name: Option<String>,
    pub version: Option<String>,
    /// The last that was written.
    pub after: Option<MemberKey>,
}

/// What is left to write.
struct Writer {
    listener: Arc<Listener>,
    objects: Arc<Objects>,
    pieces: VecDeque<Piece>,
    /// Whether the list has an element already.
    has_element: bool,
}

/// These pieces are the answer; backends are those of `objects`.
pub(super) fn respond(
    listener: Arc<Listener>,
    objects: Arc<Objects>,
    pieces: impl IntoIterator<Item = Piece>,
) -> Response {
    let pieces = pieces.into_iter().collect();
    let mut writer = Writer { listener, objects, pieces, has_element: false };
    let first = writer.next().unwrap_or_default();
    if writer.pieces.is_empty() {
        return hapi::json_text(Body::from(first));
    }
    let rest = stream::unfold(writer, async |mut writer| {
        let text = writer.next()?;
        Some((text, writer))
    });
    let all = stream::once(std::future::ready(first)).chain(rest);
    hapi::json_text(Body::from_stream(all.map(Ok::<_, Infallible>)))
}

impl Writer {
    fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        while text.len() < ENOUGH
            && let Some(piece) = self.pieces.pop_front()
        {
            self.write(piece, &mut text);
        }
        (!text.is_empty()).then_some(text)
    }

    fn write(&mut self, piece: Piece, text: &mut String) {
        match piece {
            Piece::Begin(begin) => {
                text.push_str(begin);
                self.has_element = false;
            }
            Piece::End(end) => {
                text.push_str(end);
                self.has_element = true;
            }
            Piece::Element(value) => {
                self.separate(text);
                text.push_str(&value.to_string());
            }
            Piece::Members(members) => self.write_members(members, text),
            Piece::Backend(key) => self.write_backend(&key, text),
        }
    }

    fn separate(&mut self, text: &mut String) {
        if self.has_element {
            text.push(',');
        }
        self.has_element = true;
    }

    fn write_members(&mut self, members: Members, text: &mut String) {
        let Members { name, version, after } = &members;
        let name_and_version = (name.as_deref(), version.as_deref());
        let heard = self.listener.api.heard(name_and_version, after.as_ref(), TOGETHER);
        for (member, at) in &heard {
            self.separate(text);
            text.push_str(&thalassa::shown(member, *at).to_string());
        }
        if heard.len() == TOGETHER {
            let after = heard.into_iter().last().map(|(member, _)| member.key);
            self.pieces.push_front(Piece::Members(Members { after, ..members }));
        }
    }

    fn write_backend(&mut self, key: &str, text: &mut String) {
        let object = aqueduct::backend_key(key).ok().and_then(|key| self.objects.get(&key));
        let Some(object) = object else { return };
        let taken = own::takes(&self.listener.api, key, object);
        let registered = taken.clone().map(|(name, version)| shown::Registered {
            name,
            version,
            members: vec![],
        });
        let mut shown = shown::backend(key, object, registered);
        self.separate(text);
        if let (Some((name, version)), Value::Object(fields)) = (taken, &mut shown) {
            fields.remove("members");
            let shown = shown.to_string();
            text.push_str(shown.strip_suffix('}').unwrap_or(&shown));
            let (name, version) = (Some(name), Some(version));
            self.pieces.push_front(Piece::End("]}"));
            self.pieces.push_front(Piece::Members(Members { name, version, after: None }));
            self.pieces.push_front(Piece::Begin(",\"members\":["));
        } else {
            text.push_str(&shown.to_string());
        }
    }
}
