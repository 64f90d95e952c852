//! A list of servers:
//! `[{"name": ..., "address": ..., "port": ..., "weight": ..., "backup": ..., "options": [...]}]`,
//! in a registry's own words where the settings say so, or lines.
//!
//! Such lists are small (some hundred rows), so the text is kept until it has ended and then parsed
//! at once.

use std::sync::Arc;

use mapsmith_core::server::list::{RawServer, Repeats, ServerList, ServerListBuilder};
use mapsmith_core::{Invalid, Rejections};
use serde_json::{Map, Number, Value};

use super::json::ERROR_KEYS;
use super::repair::repair;
use super::server_fields::{Misread, ServerFields};
use super::{Format, Reader, Rows, parser_message, server_lines, without_mark};
use crate::source::error::{Excerpt, Position, SourceErrorKind};
use crate::source::transport::secret::Secret;

/// The largest list, in bytes, whatever `max_bytes` says: it is held in memory as text and as
/// values.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;

/// Server lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerFormat {
    fields: Arc<ServerFields>,
    /// Whether they are lines, not JSON.
    lines: bool,
}

impl ServerFormat {
    /// JSON, whose rows have these fields.
    pub(crate) fn json(fields: &ServerFields) -> Self {
        Self { fields: Arc::new(fields.clone()), lines: false }
    }

    /// `host:port` on each line.
    pub(crate) fn lines() -> Self {
        Self { lines: true, ..Self::default() }
    }
}

impl Format for ServerFormat {
    type Content = ServerList;
    type Rows = ServerRows;
    type Reader = ServerReader;

    fn reader(&self, hidden: Option<Secret>) -> ServerReader {
        ServerReader { text: Vec::new(), hidden, format: self.clone() }
    }
}

/// Rows, each with its place.
#[derive(Debug)]
pub(crate) struct ServerRows(Vec<(String, Value)>);

/// Keeps the text until it has ended.
#[derive(Debug)]
pub(crate) struct ServerReader {
    text: Vec<u8>,
    hidden: Option<Secret>,
    format: ServerFormat,
}

impl ServerReader {
    fn excerpt(&self) -> String {
        let mut excerpt = Excerpt::new(self.hidden.clone());
        excerpt.push(&self.text);
        excerpt.to_string()
    }
}

impl Reader for ServerReader {
    type Rows = ServerRows;

    fn bytes(&self) -> u64 {
        self.text.len() as u64
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        if self.bytes() + chunk.len() as u64 > MAX_LIST_BYTES {
            return Err(SourceErrorKind::TooLarge(MAX_LIST_BYTES));
        }
        self.text.extend_from_slice(chunk);
        Ok(())
    }

    fn close(mut self) -> Result<ServerRows, SourceErrorKind> {
        if self.format.lines {
            let rows = server_lines::rows(without_mark(&self.text));
            let place = |(line, row)| (format!("line {line}"), row);
            return match rows {
                Ok(rows) => Ok(ServerRows(rows.into_iter().map(place).collect())),
                Err(why) => Err(SourceErrorKind::NoLines(why)),
            };
        }
        let first = without_mark(&self.text).trim_ascii_start().first();
        if first.is_some_and(|byte| !matches!(byte, b'[' | b'{')) {
            return Err(SourceErrorKind::NotJson(self.excerpt()));
        }
        let mut parsed = serde_json::from_slice::<Value>(without_mark(&self.text));
        if parsed.as_ref().is_err_and(|error| !error.is_eof()) && repair(&mut self.text, true) {
            parsed = serde_json::from_slice(without_mark(&self.text));
        }
        match parsed {
            Ok(answer) => {
                let is_error = ERROR_KEYS.iter().any(|key| answer.get(key).is_some());
                match self.format.fields.rows(answer) {
                    Ok(rows) => {
                        let place = |(index, row)| (format!("row {index}"), row);
                        Ok(ServerRows((1..).zip(rows).map(place).collect()))
                    }
                    Err(Misread::NotAList | Misread::ListMissing(_)) if is_error => {
                        Err(SourceErrorKind::ErrorObject(self.excerpt()))
                    }
                    Err(misread) => Err(misread.into_error(self.excerpt())),
                }
            }
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

impl Rows for ServerRows {
    type Content = ServerList;

    fn joined(texts: Vec<(String, Self)>) -> Option<Self> {
        let rows = texts.into_iter().flat_map(|(name, Self(rows))| {
            rows.into_iter().map(move |(place, row)| (format!("{name} {place}"), row))
        });
        Some(Self(rows.collect()))
    }

    fn settle(self) -> (ServerList, Rejections) {
        let mut builder = ServerListBuilder::default();
        for (place, row) in self.0 {
            match row {
                Value::Object(row) => {
                    let place = match row.get("name").and_then(Value::as_str) {
                        Some(name) => format!("{place} {name:?}"),
                        None => place,
                    };
                    match raw_server(&row) {
                        Ok(raw) => builder.push(&place, raw),
                        Err(detail) => match known_name(&row) {
                            Some(name) => {
                                builder.reject_known(&place, &name, Invalid::ServerRow, detail);
                            }
                            None => builder.reject(&place, Invalid::ServerRow, detail),
                        },
                    }
                }
                _ => builder.reject(&place, Invalid::ServerRow, "the row is no object".to_owned()),
            }
        }
        builder.finish(Repeats::LowestAddress)
    }
}

/// A whole number, also where it is written as a fraction (`80.0`) or as text.
pub(crate) fn whole_number(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(text) => serde_json::from_str(text.trim()).ok(),
        value => value.as_number().cloned(),
    };
    number.as_ref().and_then(whole)
}

fn whole(number: &Number) -> Option<i64> {
    // Up to 2^53 each whole number is one of these.
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| number.as_f64().filter(exact).map(|number| number as i64))
}

/// The server that a row of which [`raw_server`] makes none is about, where that can be told.
fn known_name(row: &Map<String, Value>) -> Option<String> {
    let field = |name: &str| row.get(name).filter(|value| !value.is_null());
    let name = field("name").map(|name| name.as_str().ok_or(())).transpose().ok()?;
    let port = field("port").map(|port| whole_number(port).ok_or(())).transpose();
    let raw = RawServer {
        name: name.map(str::to_owned),
        address: field("address").and_then(Value::as_str).unwrap_or_default().to_owned(),
        port: port.ok().flatten(),
        ..RawServer::default()
    };
    raw.known_name()
}

/// A row's fields; registries write numbers and truth values as text, too. Other fields are the
/// registry's own business.
pub(crate) fn raw_server(row: &Map<String, Value>) -> Result<RawServer, String> {
    let field = |name: &str| row.get(name).filter(|value| !value.is_null());
    let text = |name: &str| match field(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} is not a string")),
    };
    let number = |name: &str| match field(name) {
        None => Ok(None),
        Some(value) => {
            whole_number(value).map(Some).ok_or_else(|| format!("{name} is not a whole number"))
        }
    };
    let backup = match field("backup") {
        None => false,
        Some(Value::Bool(backup)) => *backup,
        Some(Value::String(text)) if text == "true" => true,
        Some(Value::String(text)) if text == "false" => false,
        Some(_) => return Err("backup is neither true nor false".to_owned()),
    };
    let options = match field("options") {
        None => None,
        Some(Value::Array(options)) => {
            let words: Option<Vec<_>> =
                options.iter().map(|option| option.as_str().map(str::to_owned)).collect();
            Some(words.ok_or("options holds something that is not a string")?)
        }
        Some(_) => return Err("options is not a list of strings".to_owned()),
    };
    let address = text("address")?.ok_or("the row has no address")?;
    Ok(RawServer {
        name: text("name")?,
        address,
        port: number("port")?,
        weight: number("weight")?,
        backup,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapsmith_core::server::list::Host;

    fn read(text: &str) -> Result<(ServerList, Rejections), SourceErrorKind> {
        let mut reader = ServerFormat::default().reader(None);
        for chunk in text.as_bytes().chunks(7) {
            reader.feed(chunk)?;
        }
        Ok(reader.close()?.settle())
    }

    #[test]
    fn rows_are_taken_with_numbers_as_numbers_or_as_text() {
        let (list, rejections) = read(
            r#"[
                {"address": "10.0.0.2", "port": "8140", "weight": "7", "backup": "true",
                    "datacenter": {"a": 1}},
                {"name": "m1", "address": "10.0.0.1:8140", "weight": 100, "backup": false,
                    "options": ["check", "maxconn 10"]},
                {"name": null, "address": "Puppet00.example", "port": 8140, "options": null},
                {"name": "m2", "address": "10.0.0.3", "port": 80.0, "weight": "1e1"}
            ]"#,
        )
        .unwrap();
        assert_eq!(rejections.total(), 0, "{:?}", list.rejected);
        let servers: Vec<_> = list
            .servers
            .iter()
            .map(|server| (&*server.name, server.weight, server.backup))
            .collect();
        assert_eq!(
            servers,
            [
                ("10.0.0.2:8140", Some(7), true),
                ("m1", Some(100), false),
                ("m2", Some(10), false),
                ("puppet00.example:8140", None, false)
            ]
        );
        assert_eq!(list.servers[3].host, Host::Name("puppet00.example".to_owned()));
        assert_eq!(list.servers[1].options.as_ref().unwrap().maxconn, Some(10));
    }

    #[test]
    fn rows_that_are_no_servers_are_left_out_by_place() {
        let (list, rejections) = read(
            r#"[1, {"name": "a"}, {"name": "b", "address": 7},
                {"name": "c", "address": "10.0.0.1", "port": 1.5},
                {"address": "10.0.0.1:1", "backup": "maybe"},
                {"address": "10.0.0.1:1", "options": "check"},
                {"address": "10.0.0.1:1", "options": [1]},
                {"name": "good", "address": "10.0.0.1:1"},
                {"name": "d\u001b[31m", "address": "nowhere:"}]"#,
        )
        .unwrap();
        assert_eq!(list.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(), ["good"]);
        assert_eq!(
            (rejections.counts[&Invalid::ServerRow], rejections.counts[&Invalid::ServerAddress]),
            (7, 1)
        );
        assert_eq!(
            (&*list.rejected[1].place, &*list.rejected[1].reason),
            ("row 2 \"a\"", "the row has no address")
        );
        assert!(
            list.rejected.iter().all(|rejected| !rejected.place.contains('\u{1b}')),
            "{:?}",
            list.rejected
        );
    }

    #[test]
    fn a_row_that_went_wrong_names_its_server_whose_place_is_kept() {
        let (list, _) = read(
            r#"[{"name": "a", "address": "10.0.0.1:1", "weight": "heavy"},
                {"name": "b"},
                {"name": "c", "address": "10.0.0.3", "port": 1.5},
                {"name": "d", "address": "10.0.0.4:1", "weight": 1e999},
                {"address": "10.0.0.5", "port": 80, "weight": 300},
                {"address": "10.0.0.6", "port": "80", "backup": "maybe"},
                {"address": "[fe80::1]:80", "options": "check"},
                {"name": 7, "address": "10.0.0.8:80"},
                {"address": "10.0.0.9", "port": "http"},
                {"name": "e f", "address": "10.0.0.9:80"}]"#,
        )
        .unwrap();
        let unknown: Vec<_> = list.unknown.iter().map(String::as_str).collect();
        assert_eq!(unknown, ["10.0.0.5:80", "10.0.0.6:80", "a", "b", "c", "d", "fe80::1:80"]);
        assert!(list.servers.is_empty() && list.rejected_count == 10, "{list:?}");
    }

    #[test]
    fn a_row_that_holds_what_json_may_not_is_left_out_and_the_rest_is_taken() {
        for row in [
            r#"{"name": "a\ud800", "address": "10.0.0.1:1"}"#,
            "{\"name\": \"a\u{1}\", \"address\": \"10.0.0.1:1\"}",
            r#"{"name": "a", "address": "10.0.0.1:1", "weight": 1e999}"#,
            r#"{"name": "a", "address": "10.0.0.1", "port": 80.5}"#,
        ] {
            let (list, rejections) = read(&format!(
                "\u{feff}[{row}, {{\"name\": \"good\", \"address\": \"10.0.0.2:1\"}}]"
            ))
            .unwrap();
            assert_eq!(
                list.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(),
                ["good"],
                "{row}"
            );
            assert_eq!(rejections.total(), 1, "{row}");
        }
    }

    #[test]
    fn an_empty_list_is_an_answer() {
        assert_eq!(read(" [ ] \n").unwrap().0, ServerList::default());
    }

    #[test]
    fn what_is_no_whole_list_is_a_fault() {
        for (text, part) in [
            ("", "cut off"),
            ("[{\"address\": \"10.0.0.1", "cut off at line 1"),
            ("[{}]\n[", "mistake at line 2, column 1: trailing characters"),
            ("<html><title>Gone</title>", "not JSON: Gone"),
            ("{\"error\": \"down\"}", "error object"),
            ("{\"servers\": []}", "a list of servers was expected"),
            ("[{,}]", "mistake at line 1"),
        ] {
            let fault = read(text).unwrap_err().to_string();
            assert!(fault.contains(part), "{text:?}: {fault}");
        }
    }

    #[test]
    fn a_list_beyond_all_measure_is_refused_as_it_arrives() {
        let mut reader = ServerFormat::default().reader(None);
        let chunk = vec![b' '; 1024 * 1024];
        let fault = (0..=16).find_map(|_| reader.feed(&chunk).err());
        assert_eq!(fault, Some(SourceErrorKind::TooLarge(MAX_LIST_BYTES)));
    }
}
