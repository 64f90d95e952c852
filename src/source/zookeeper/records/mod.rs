//! What the children of a path hold -> servers, or entries of the node map. *Pure.*
//!
//! A child is read by itself: one that is no record is rejected with its name, and the rest goes
//! on. While it is, the servers that it was before stay in force: a writer that failed half-way is
//! no word that its server is gone.

pub(super) mod registrar;

use std::collections::BTreeMap;
use std::sync::Arc;

use mapsmith_core::server::list::{RawServer, Repeats, ServerListBuilder};
use mapsmith_core::{Content, EntryMap, Invalid, Rejections, ServerList, ServiceTexts};
use serde_json::{Map, Value};

use crate::source::format::{
    Collector, Field, Names, Row, Rows, raw_server, service_text, without_mark,
};
use registrar::Registrar;

/// The largest record, in bytes. One has some hundred.
const MAX_RECORD: usize = 64 * 1024;

/// A child of a path, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Child {
    pub name: String,
    pub data: Vec<u8>,
}

impl Child {
    /// The JSON object that it holds.
    fn object(&self) -> Result<Map<String, Value>, Unread> {
        if self.data.len() > MAX_RECORD {
            return Err(Unread::new(format!("is larger than {MAX_RECORD} bytes")));
        }
        match serde_json::from_slice(without_mark(&self.data)) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Unread::new("holds JSON, but no object")),
            Err(_) if self.data.is_empty() => Err(Unread::new("holds nothing")),
            Err(_) => Err(Unread::new("does not hold JSON")),
        }
    }
}

/// Why a child is no server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// It should be one, and something is wrong.
    Rejected(String),
    /// It is not for this list.
    OtherType,
}

impl Unread {
    fn new(detail: impl Into<String>) -> Self {
        Self::Rejected(detail.into())
    }
}

/// How children are read as servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChildFormat {
    /// `{"address": .., "port": ..}` each, with a server's other fields if it has them.
    ProxyMgr,
    /// Each is named like its host; the port is everybody's.
    CampanjaZk(u16),
    /// Triton's registrar.
    Registrar(Registrar),
}

impl ChildFormat {
    /// The servers of a child.
    fn servers(&self, child: &Child) -> Result<Vec<RawServer>, Unread> {
        match self {
            Self::ProxyMgr => {
                let object = child.object()?;
                raw_server(&object).map(|server| vec![server]).map_err(Unread::new)
            }
            Self::CampanjaZk(port) => Ok(vec![RawServer {
                address: child.name.clone(),
                port: Some(i64::from(*port)),
                ..RawServer::default()
            }]),
            Self::Registrar(registrar) => registrar.servers(&child.name, &child.object()?),
        }
    }
}

/// What children are read as.
pub(super) trait Reading: Clone + Send + Sync + 'static {
    type Content: Content;

    /// Whether what a child holds is read; otherwise its name says all.
    fn reads_data(&self) -> bool {
        true
    }

    /// Reads all children of a path. Takes CPU time in proportion to them: not for an async task.
    fn read(&mut self, children: &[Child]) -> (Self::Content, Rejections);
}

/// A list of servers.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    format: ChildFormat,
    /// The names of the servers that each child was when it was good last.
    known: BTreeMap<String, Vec<String>>,
}

impl Servers {
    pub(super) fn new(format: ChildFormat) -> Self {
        Self { format, known: BTreeMap::new() }
    }

    /// Takes a child's servers. The names of those that are in force for it.
    fn take(&self, builder: &mut ServerListBuilder, child: &Child) -> Vec<String> {
        let place = format!("child {:?}", child.name);
        let servers = match self.format.servers(child) {
            Ok(servers) => servers,
            Err(Unread::OtherType) => {
                builder.skip(&place, Invalid::RecordType);
                return Vec::new();
            }
            Err(Unread::Rejected(detail)) => {
                return self.reject(builder, &place, child, (Invalid::ServerRow, detail));
            }
        };
        let mut names = Vec::new();
        for server in servers {
            match builder.try_push(&place, server) {
                Ok(name) => names.push(name),
                Err(why) => return self.reject(builder, &place, child, why),
            }
        }
        names
    }

    /// Leaves a child out; what it was before stays in force.
    fn reject(
        &self,
        builder: &mut ServerListBuilder,
        place: &str,
        child: &Child,
        (reason, detail): (Invalid, String),
    ) -> Vec<String> {
        let known = self.known.get(&child.name).cloned().unwrap_or_default();
        if known.is_empty() {
            builder.reject(place, reason, detail);
        } else {
            for name in &known {
                builder.reject_known(place, name, reason, detail.clone());
            }
        }
        known
    }
}

impl Reading for Servers {
    type Content = ServerList;

    fn reads_data(&self) -> bool {
        !matches!(self.format, ChildFormat::CampanjaZk(_))
    }

    fn read(&mut self, children: &[Child]) -> (ServerList, Rejections) {
        let mut builder = ServerListBuilder::default();
        let names = |child: &Child| (child.name.clone(), self.take(&mut builder, child));
        self.known = children.iter().map(names).collect();
        builder.finish(Repeats::LowestAddress)
    }
}

/// The node map: each child is a node, and holds its master's name.
#[derive(Debug, Clone)]
pub(super) struct Nodes(pub Arc<Names>);

impl Reading for Nodes {
    type Content = EntryMap;

    fn read(&mut self, children: &[Child]) -> (EntryMap, Rejections) {
        let mut collector = Collector::new(Arc::clone(&self.0));
        for Child { name, data } in children {
            let master = match std::str::from_utf8(without_mark(data)).map(str::trim) {
                Ok("") => Field::Null,
                Ok(master) => Field::Text(master.into()),
                Err(_) => Field::Other,
            };
            let node = Field::Text(name.as_str().into());
            collector.take(&Row { node, master, ..Row::default() });
        }
        collector.settle()
    }
}

/// Services: each child is one, and holds its text.
#[derive(Debug, Clone)]
pub(super) struct Services;

impl Reading for Services {
    type Content = ServiceTexts;

    fn read(&mut self, children: &[Child]) -> (ServiceTexts, Rejections) {
        let text = |child: &Child| (child.name.clone(), service_text(&child.data));
        (ServiceTexts { texts: children.iter().map(text).collect() }, Rejections::default())
    }
}

#[cfg(test)]
mod tests;
