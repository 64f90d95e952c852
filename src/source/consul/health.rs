//! An answer of `/v1/health/service/NAME`: instances of a service -> servers. Pure.

use mapsmith_core::server::MAX_WEIGHT;
use mapsmith_core::server::list::{RawServer, Repeats, ServerList, ServerListBuilder};
use mapsmith_core::{Invalid, Rejections};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::source::error::{Excerpt, Position, SourceErrorKind};
use crate::source::format::{Format, Reader, Rows, parser_message, server_name};
use crate::source::transport::secret::Secret;

/// The largest answer, in bytes, whatever `max_bytes` says: its text is held in memory. An instance
/// with its checks is about two thousand bytes.
const MAX_BYTES: u64 = 128 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    port: i64,
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
}

impl Instance {
    fn server(self) -> RawServer {
        let Self { node, service } = self;
        RawServer {
            name: Some(server_name(&[&node.node, &service.id])),
            address: if service.address.is_empty() { node.address } else { service.address },
            port: Some(service.port),
            weight: service.weights.map(|weights| weights.passing),
            ..RawServer::default()
        }
    }
}

/// Instances of a service.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct HealthFormat;

impl Format for HealthFormat {
    type Content = ServerList;
    type Rows = Instances;
    type Reader = HealthReader;

    fn reader(&self, hidden: Option<Secret>) -> HealthReader {
        HealthReader { text: Vec::new(), hidden }
    }
}

/// Keeps the text until it has ended.
#[derive(Debug)]
pub(in crate::source) struct HealthReader {
    text: Vec<u8>,
    hidden: Option<Secret>,
}

impl HealthReader {
    fn excerpt(&self) -> String {
        let mut excerpt = Excerpt::new(self.hidden.clone());
        excerpt.push(&self.text);
        excerpt.to_string()
    }
}

impl Reader for HealthReader {
    type Rows = Instances;

    fn bytes(&self) -> u64 {
        self.text.len() as u64
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        if self.bytes() + chunk.len() as u64 > MAX_BYTES {
            return Err(SourceErrorKind::TooLarge(MAX_BYTES));
        }
        self.text.extend_from_slice(chunk);
        Ok(())
    }

    fn close(self) -> Result<Instances, SourceErrorKind> {
        match self.text.trim_ascii_start().first() {
            Some(b'[') | None => {}
            Some(b'{') => {
                return Err(SourceErrorKind::WrongShape {
                    expected: "a list of a service's instances was expected",
                    text: self.excerpt(),
                });
            }
            Some(_) => return Err(SourceErrorKind::NotJson(self.excerpt())),
        }
        // Each instance by itself: one that is of another form must not fail the others.
        match serde_json::from_slice::<Vec<&RawValue>>(&self.text) {
            Ok(rows) => Ok(Instances(rows.into_iter().map(server).collect())),
            Err(error) if error.is_eof() => Err(SourceErrorKind::Truncated {
                position: Position::START.after(&self.text),
                bytes: self.bytes(),
            }),
            Err(error) => {
                let position = Position { line: error.line(), column: error.column() };
                Err(SourceErrorKind::Syntax { position, message: parser_message(&error) })
            }
        }
    }
}

fn server(row: &RawValue) -> Result<RawServer, Misread> {
    let instance = serde_json::from_str::<Instance>(row.get());
    instance.map(Instance::server).map_err(|error| {
        let known = serde_json::from_str::<Value>(row.get()).ok().and_then(|row| {
            let (node, id) = (row.pointer("/Node/Node")?, row.pointer("/Service/ID")?);
            Some(server_name(&[node.as_str()?, id.as_str()?]))
        });
        Misread { known, detail: parser_message(&error) }
    })
}

/// An instance of another form.
#[derive(Debug)]
struct Misread {
    /// The server that it is, where that can be told.
    known: Option<String>,
    detail: String,
}

/// What could be read of each instance.
#[derive(Debug)]
pub(in crate::source) struct Instances(Vec<Result<RawServer, Misread>>);

impl Rows for Instances {
    type Content = ServerList;

    fn settle(self) -> (ServerList, Rejections) {
        let weights = self.0.iter().flatten().filter_map(|server| server.weight);
        let heaviest = weights.max().unwrap_or_default();
        let mut builder = ServerListBuilder::default();
        for (index, row) in self.0.into_iter().enumerate() {
            let place = format!("instance {}", index + 1);
            match row {
                Ok(server) => {
                    let name = server.name.as_deref().unwrap_or_default();
                    let place = format!("{place} {name:?}");
                    let weight = server.weight.map(|weight| scaled(weight, heaviest));
                    builder.push(&place, RawServer { weight, ..server });
                }
                Err(Misread { known: Some(name), detail }) => {
                    let place = format!("{place} {name:?}");
                    builder.reject_known(&place, &name, Invalid::ServerRow, detail);
                }
                Err(Misread { known: None, detail }) => {
                    builder.reject(&place, Invalid::ServerRow, detail);
                }
            }
        }
        builder.finish(Repeats::LowestAddress)
    }
}

/// A weight as HAProxy can have it: where the heaviest is too heavy, all are made lighter, and none
/// that gets requests is left without.
fn scaled(weight: i64, heaviest: i64) -> i64 {
    let most = i64::from(MAX_WEIGHT);
    if heaviest <= most || weight <= 0 {
        return weight;
    }
    let weight = i128::from(weight) * i128::from(most) / i128::from(heaviest);
    i64::try_from(weight).unwrap_or(most).max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<(ServerList, Rejections), SourceErrorKind> {
        let mut reader = HealthFormat.reader(None);
        for chunk in text.as_bytes().chunks(100) {
            reader.feed(chunk)?;
        }
        Ok(reader.close()?.settle())
    }

    fn instance(node: &str, id: &str, address: &str, weight: Value) -> Value {
        json!({
            "Node": {"Node": node, "Address": "10.0.0.9", "Datacenter": "dc1"},
            "Service": {
                "ID": id, "Service": "web", "Tags": null, "Address": address, "Port": 80,
                "Weights": weight,
            },
            "Checks": [{"Status": "passing"}],
        })
    }

    fn servers(list: &ServerList) -> Vec<(&str, String, Option<u16>)> {
        let host = |host: &_| format!("{host:?}");
        list.servers
            .iter()
            .map(|server| (&*server.name, host(&server.host), server.weight))
            .collect()
    }

    #[test]
    fn an_instance_is_a_server_at_its_own_address_or_else_its_nodes() {
        let answer = json!([
            instance("n1", "web", "10.0.0.1", json!({"Passing": 7, "Warning": 1})),
            instance("n2", "web", "", Value::Null),
            instance("n2", "web-2", "Web.example", json!({"Passing": 0, "Warning": 1})),
        ]);
        let (list, rejections) = read(&answer.to_string()).unwrap();
        assert_eq!(rejections.total(), 0, "{:?}", list.rejected);
        assert_eq!(
            servers(&list),
            [
                ("n1:web", "Address(10.0.0.1)".to_owned(), Some(7)),
                ("n2:web", "Address(10.0.0.9)".to_owned(), None),
                ("n2:web-2", "Name(\"web.example\")".to_owned(), Some(0)),
            ]
        );
    }

    #[test]
    fn weights_that_haproxy_can_not_have_are_scaled_and_none_is_scaled_to_nothing() {
        let weighted = |weights: &[i64]| {
            let rows: Vec<_> = (1..)
                .zip(weights)
                .map(|(number, weight)| {
                    instance(&format!("n{number}"), "web", "", json!({"Passing": weight}))
                })
                .collect();
            let (list, _) = read(&json!(rows).to_string()).unwrap();
            list.servers.iter().filter_map(|server| server.weight).collect::<Vec<_>>()
        };
        assert_eq!(weighted(&[256, 1, 0]), [256, 1, 0]);
        assert_eq!(weighted(&[65_535, 1, 0, 32_768]), [256, 1, 0, 128]);
        assert_eq!(weighted(&[i64::MAX, -1]), [256], "a weight below 0 is rejected");
    }

    #[test]
    fn an_instance_of_another_form_is_left_out_by_place_and_the_others_are_taken() {
        let mut rows = vec![json!({}), json!(1), instance("n1", "web", "10.0.0.1", Value::Null)];
        rows.push(instance("n2", "web", "not an address", Value::Null));
        let (list, _) = read(&json!(rows).to_string()).unwrap();
        assert_eq!(servers(&list).len(), 1);
        let places: Vec<_> = list.rejected.iter().map(|row| &*row.place).collect();
        assert_eq!(places, ["instance 1", "instance 2", "instance 4 \"n2:web\""]);
    }

    #[test]
    fn an_instance_that_went_wrong_names_its_server_whose_place_is_kept() {
        let mut row = instance("n1", "web", "10.0.0.1", Value::Null);
        row["Service"]["Port"] = json!("http");
        let no_id = json!({"Node": {"Node": "n2"}, "Service": {"Port": 80}});
        let (list, _) = read(&json!([row, no_id]).to_string()).unwrap();
        let places: Vec<_> = list.rejected.iter().map(|row| &*row.place).collect();
        assert_eq!(places, ["instance 1 \"n1:web\"", "instance 2"]);
        assert_eq!(list.unknown.iter().collect::<Vec<_>>(), ["n1:web"]);
    }

    #[test]
    fn what_is_no_whole_list_is_a_fault_and_an_empty_one_is_an_answer() {
        assert_eq!(read("[]").unwrap().0, ServerList::default());
        for (text, part) in [
            ("", "cut off"),
            ("[{\"Node\": {", "cut off at line 1"),
            ("<html>gone", "not JSON: <html>gone"),
            ("{\"a\": 1}", "a list of a service's instances was expected"),
            ("[] []", "mistake at line 1"),
            ("[1,]", "mistake at line 1"),
        ] {
            let fault = read(text).unwrap_err().to_string();
            assert!(fault.contains(part), "{text:?}: {fault}");
        }
    }

    #[test]
    fn ten_thousand_instances_are_read() {
        let checks: Vec<_> = (0..4).map(|_| json!({"Output": "x".repeat(300)})).collect();
        let rows = (0..10_000).map(|number| {
            let mut row = instance(&format!("n{number}"), "web", "10.0.0.1", Value::Null);
            row["Checks"] = json!(checks);
            row
        });
        let (list, rejections) = read(&json!(rows.collect::<Vec<_>>()).to_string()).unwrap();
        assert_eq!((list.servers.len(), rejections.total()), (10_000, 0));
    }
}
