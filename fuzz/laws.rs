//! What must hold of any bytes from outside: one function a fuzz target, each of which panics where
//! a law is broken.
//!
//! `scripts/fuzz` feeds them what libFuzzer finds; `tests/it/fuzz.rs` includes this file and feeds
//! them the committed seeds, so that a finding stays mended. Where a thing can be told in a second
//! way, slow and plain, the two are compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use haproxy_runtime::HaproxyVersion;
use haproxy_runtime::error::ReplyError;
use haproxy_runtime::server::command::{self, BackendName, ServerCommand, ServerPath, ServerState};
use haproxy_runtime::table::{self, Row, Rows, TableName, TableSize};
use haproxy_runtime::{MapName, map, process, wire};
use mapsmith::settings::{Place, PollSchedule, Problem, Settings, SettingsError, Source};
use mapsmith::source::{self, SourceErrorKind};
use mapsmith_core::map_file::{Header, MapFile};
use mapsmith_core::names::{self, MAX_BYTES};
use mapsmith_core::server::list::{Host, ListedServer, RawServer, Repeats, ServerListBuilder};
use mapsmith_core::server::{Server, ServerAddress, ServerOptions};
use mapsmith_core::{
    EntryMap, EntryMapBuilder, Invalid, ObservedServers, Rejections, ServerList, map_file,
};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// What must hold of any bytes; panics where it does not.
pub type Law = fn(&[u8]);

/// The targets by name. Each has a file in `targets/` and a folder in `seeds/`.
pub const TARGETS: [(&str, Law); 7] = [
    ("answers", answers),
    ("map_file", map_file),
    ("map_replies", map_replies),
    ("names", names),
    ("server_replies", server_replies),
    ("settings", settings),
    ("table_replies", table_replies),
];

/// Places to cut a text at: the first, the last and some between.
fn cuts(text: &[u8]) -> impl Iterator<Item = usize> {
    let length = text.len();
    (0..length).filter(move |at| *at < 8 || *at + 8 > length || at % (length / 16).max(1) == 0)
}

/// The text in pieces: whole, byte by byte, and in two uneven ways.
fn chunkings(text: &[u8]) -> [Vec<&[u8]>; 4] {
    let uneven = |first: usize, size: usize| {
        let (head, rest) = text.split_at(first.min(text.len()));
        std::iter::once(head).chain(rest.chunks(size)).collect()
    };
    [vec![text], text.chunks(1).collect(), uneven(text.len() / 3, 7), uneven(1, 64)]
}

/// One outcome for all ways to cut `text` into pieces.
fn whatever_the_pieces<T: PartialEq + std::fmt::Debug>(
    text: &[u8],
    read: impl Fn(&[&[u8]]) -> T,
) -> T {
    let [whole, others @ ..] = chunkings(text);
    let outcome = read(&whole);
    for pieces in others {
        assert_eq!(
            read(&pieces),
            outcome,
            "in pieces of {:?} bytes",
            pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>()
        );
    }
    outcome
}

// ---- Frames, `show info`, `show map`, `show cli level`, `get map`, `prepare map`.

/// Replies about maps: framed, looked at, listed.
pub fn map_replies(answer: &[u8]) {
    for commands in 0..5 {
        let replies = wire::replies(answer, commands).ok();
        assert_eq!(replies, plain_replies(answer, commands), "the frames of {commands} commands");
        if replies.is_some() {
            for cut in cuts(answer) {
                assert!(
                    wire::replies(&answer[..cut], commands).is_err(),
                    "cut at {cut} it is still whole"
                );
            }
        }
    }
    listing(answer);
    if let Ok(probe) = process::probe(answer, "/etc/haproxy/maps/node-master.map") {
        let _ = probe.process.version.parse::<HaproxyVersion>();
    }
    if let Ok(version) = map::prepared(answer) {
        assert_eq!(
            map::prepared(format!("New version created: {version}\n").as_bytes()),
            Ok(version)
        );
    }
    if let Ok(Some(value)) = map::looked_up(answer) {
        let again = format!(
            "type=str, case=sensitive, found=yes, idx=tree, key=\"k\", value=\"{value}\", \
                type=\"str\"\n"
        );
        assert_eq!(map::looked_up(again.as_bytes()), Ok(Some(value)));
    }
    assert_eq!(map::silent(answer).is_ok(), answer.is_empty());
}

/// Line by line: a reply ends with its first empty line.
fn plain_replies(answer: &[u8], commands: usize) -> Option<Vec<&[u8]>> {
    let (mut replies, mut start, mut line) = (Vec::new(), 0, 0);
    for (at, _) in answer.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if at == line {
            replies.push(wire::without_severity(&answer[start..at]));
            start = at + 1;
        }
        line = at + 1;
    }
    (start == answer.len() && replies.len() == commands).then_some(replies)
}

type Listed = Result<Vec<(Vec<u8>, Vec<u8>)>, ReplyError>;

fn listing(answer: &[u8]) {
    let read = |pieces: &[&[u8]]| -> Listed {
        let mut entries = Vec::new();
        let mut listing = wire::Listing::new();
        for piece in pieces {
            listing.feed(piece, |key, value| entries.push((key.to_vec(), value.to_vec())))?;
        }
        listing.finish().map(|()| entries)
    };
    let Ok(entries) = whatever_the_pieces(answer, read) else { return };
    // What `show map` prints of them reads the same; an entry with a line break in it is beyond
    // that.
    if !answer.starts_with(b"\n")
        && entries.iter().all(|(key, _)| !key.is_empty() && !key.contains(&b' '))
    {
        let mut again = Vec::new();
        for (key, value) in &entries {
            again.extend_from_slice(b"0x55d0 ");
            again.extend_from_slice(key);
            again.push(b' ');
            again.extend_from_slice(value);
            again.push(b'\n');
        }
        again.push(b'\n');
        assert_eq!(read(&[&again]), Ok(entries));
        for cut in cuts(&again) {
            assert!(read(&[&again[..cut]]).is_err(), "cut at {cut} it is still whole");
        }
    }
}

// ---- `show servers state`, `show stat`, the outcomes of commands.

/// Replies about servers: looked at, and judged as outcomes of commands.
pub fn server_replies(answer: &[u8]) {
    if let Ok(names) = process::backends_and_servers(answer) {
        assert!(
            answer.starts_with(b"# pxname,svname,")
                && names.iter().all(|name| !name.contains([',', '\n']))
        );
    }
    if let Ok(seen) = haproxy_runtime::server::reply::observed(answer) {
        let again = printed(&seen);
        assert_eq!(haproxy_runtime::server::reply::observed(again.as_bytes()), Ok(seen), "{again}");
        for cut in cuts(answer) {
            assert!(
                haproxy_runtime::server::reply::observed(&answer[..cut]).is_err(),
                "cut at {cut} it is still whole"
            );
        }
    }
    for commands in COMMANDS.iter() {
        if let Ok(outcomes) = command::outcomes(answer, commands) {
            assert_eq!(outcomes.len(), commands.len());
            for cut in cuts(answer) {
                assert!(
                    command::outcomes(&answer[..cut], commands).is_err(),
                    "cut at {cut} {commands:?} are still whole"
                );
            }
        }
    }
    let _ = command::removable(answer);
}

/// As HAProxy shows these servers, in the columns that are read.
fn printed(seen: &ObservedServers) -> String {
    let mut states = "1\n# be_name srv_name srv_addr srv_port srv_fqdn srv_uweight srv_op_state \
            srv_admin_state srv_check_state srv_check_result srv_agent_state\n"
        .to_owned();
    let mut statistics =
        "# pxname,svname,type,status,bck,scur,slim,stot,qcur,qlimit,algo,\n".to_owned();
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let limit = |limit: Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
    for (backend, shown) in seen {
        let proxy = quoted(backend);
        statistics += &format!(
            "{proxy},BACKEND,1,,,,,,,,{},\n",
            quoted(shown.algorithm.as_deref().unwrap_or_default())
        );
        for (name, server) in &shown.servers {
            states += &format!(
                "{backend} {name} {} {} {} {} {} {} {} {} {}\n",
                server.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
                server.port,
                server.fqdn.as_deref().unwrap_or("-"),
                server.weight,
                if server.running { 2 } else { 0 },
                server.admin.0,
                if server.check_configured { 2 } else { 0 }
                    + if server.check_enabled { 4 } else { 0 },
                if server.check_failed { 2 } else { 0 },
                if server.agent_enabled { 4 } else { 0 },
            );
            statistics += &format!(
                "{proxy},{},2,{},{},{},{},{},{},{},,\n",
                quoted(name),
                quoted(&server.status),
                u8::from(server.backup),
                server.sessions,
                limit(server.maxconn),
                server.sessions_total,
                server.queued,
                limit(server.maxqueue),
            );
        }
    }
    format!("{states}\n{statistics}\n")
}

/// Lines of commands whose answer may be any.
static COMMANDS: LazyLock<[Vec<ServerCommand>; 5]> = LazyLock::new(|| {
    let at = || ServerPath::new("b", "s").expect("valid names");
    let backend = |name| BackendName::new(name).expect("a valid name");
    let address = ServerAddress { ip: [127, 0, 0, 1].into(), port: 8140 };
    let mut server = Server {
        name: "s".to_owned(),
        address,
        weight: Some(7),
        backup: true,
        options: Default::default(),
    };
    server.options.check = true;
    [
        vec![ServerCommand::Add { at: at(), server: Box::new(server) }],
        vec![
            ServerCommand::SetState { at: at(), state: ServerState::Maintenance },
            ServerCommand::Delete { at: at() },
        ],
        vec![ServerCommand::AddBackend { backend: backend("b"), defaults: backend("d") }],
        vec![
            ServerCommand::SetAddress { at: at(), address },
            ServerCommand::SetWeight { at: at(), weight: 256 },
        ],
        vec![],
    ]
});

// ---- `show table`, `show table NAME`.

/// Replies about stick tables, whose keys are whatever clients sent.
pub fn table_replies(answer: &[u8]) {
    if let Ok(tables) = table::tables(answer) {
        let again: String = tables.iter().map(table_head).collect();
        assert_eq!(table::tables(again.as_bytes()), Ok(tables));
    }
    let _ = table::forgotten(answer);
    let read = |pieces: &[&[u8]]| -> Result<(TableSize, Vec<Row>), ReplyError> {
        let (mut rows, mut found) = (Rows::new(), Vec::new());
        for piece in pieces {
            rows.feed(piece, |row| found.push(row))?;
        }
        Ok((rows.finish()?, found))
    };
    let Ok((size, rows)) = whatever_the_pieces(answer, read) else { return };
    for cut in cuts(answer) {
        assert!(read(&[&answer[..cut]]).is_err(), "cut at {cut} it is still whole");
    }
    let mut again = table_head(&size).into_bytes();
    for row in &rows {
        again.extend_from_slice(&table_row(row));
    }
    again.push(b'\n');
    assert_eq!(read(&[&again]), Ok((size, rows.clone())));
    let table = TableName::new("puppet").expect("a valid name");
    let commands: Vec<_> = rows.iter().filter_map(|row| table.forget(&row.key)).collect();
    let keys: Vec<_> = rows
        .iter()
        .map(|row| &*row.key)
        .filter(|key| !key.is_empty() && !key.contains(&b'\n'))
        .collect();
    assert_eq!(commands.len(), keys.len(), "only a key that no command can name is left alone");
    let told: Vec<_> = wire::Batches::new(commands.iter(), 1024, usize::MAX)
        .flat_map(|(line, count)| {
            let commands = haproxy_reads(&line);
            assert_eq!(commands.len(), count);
            assert!(line.len() <= 1024 || count == 1);
            commands
        })
        .collect();
    for (words, key) in told.iter().zip(&keys) {
        assert_eq!(words, &[b"clear".as_slice(), b"table", b"puppet", b"key", key]);
    }
    assert_eq!(told.len(), keys.len());
}

fn table_head(size: &TableSize) -> String {
    format!("# table: {}, type: {}, size:{}, used:{}\n", size.name, size.kind, size.size, size.used)
}

/// A row as HAProxy writes it, with its key escaped as `dump_text` does it.
fn table_row(row: &Row) -> Vec<u8> {
    let mut line = b"0x55d0: key=".to_vec();
    for byte in &row.key {
        match byte {
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            0x1b => line.extend_from_slice(b"\\e"),
            b'\\' | b' ' | b'=' => line.extend_from_slice(&[b'\\', *byte]),
            byte if byte.is_ascii_graphic() => line.push(*byte),
            byte => line.extend_from_slice(format!("\\x{byte:02X}").as_bytes()),
        }
    }
    let server = row.server.as_deref().unwrap_or("-");
    let exp = row.expires_in.as_millis();
    line.extend_from_slice(
        format!(" use=0 exp={exp} server_id={} server_key={server}\n", row.server_id.unwrap_or(0))
            .as_bytes(),
    );
    line
}

// ---- The map file.

/// A map file's text.
pub fn map_file(text: &[u8]) {
    let file = map_file::parse(text);
    let as_haproxy = map_file_in_haproxy(text);
    if file.is_exact() {
        let loaded: BTreeMap<&[u8], &[u8]> = as_haproxy.iter().copied().collect();
        assert_eq!(loaded.len(), as_haproxy.len(), "HAProxy loads a key twice");
        let read: BTreeMap<&[u8], &[u8]> =
            file.entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        assert_eq!(read, loaded, "HAProxy loads something else");
    }
    for (key, value) in file.entries.iter() {
        assert!(
            as_haproxy.contains(&(key.as_bytes(), value.as_bytes())),
            "HAProxy loads no {key} {value}"
        );
        harmless(key);
        harmless(value);
    }
    assert!(file.rejected.iter().map(|(line, _)| *line).is_sorted(), "{:?}", file.rejected);
    harmless_said(&file);
    round_trip(&file);
    // As a source it is the same map or none at all.
    let source = SOURCES.iter().find(|source| source.name == "file").expect("one of these sources");
    let answer =
        whatever_the_pieces(text, |pieces| source::read_map(source, false, pieces.iter().copied()));
    entries_are_harmless(&answer);
    if let Ok((entries, _)) = answer {
        let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        assert_eq!(entries, map_file::parse(plain).entries);
    }
}

/// What the comments say goes to commands once a pin ends.
fn harmless_said(file: &MapFile) {
    assert!(
        file.header.is_some() || file.said.is_empty(),
        "comments of somebody else's file mean nothing"
    );
    for (node, master) in &file.said {
        harmless(node);
        master.iter().for_each(|master| harmless(master));
    }
}

fn round_trip(file: &MapFile) {
    let header = file.header.clone().unwrap_or(Header { revision: 7, writer: None });
    let said = file.said_by_sources();
    let differ = file.entries.iter().map(|(node, _)| node).chain(said.iter().map(|(node, _)| node));
    let differ = differ
        .filter(|node| file.entries.get(node) != said.get(node))
        .map(|node| (node, said.get(node)));
    let mut text = Vec::new();
    map_file::print(&file.entries, &header, differ, &mut text).expect("a vector takes everything");
    let again = map_file::parse(&text);
    assert!(
        again.is_exact()
            && again.revision() == Some(header.revision)
            && again.entries == file.entries
    );
    assert_eq!(again.said_by_sources(), said);
    assert_eq!(map_file_in_haproxy(&text).len(), file.entries.len());
}

/// HAProxy's `pat_ref_read_from_file_smp`: what it loads of a map file, in order. (It reads lines
/// as C texts, which a zero byte ends.)
fn map_file_in_haproxy(text: &[u8]) -> Vec<(&[u8], &[u8])> {
    let until = |text: &'_ [u8], ends: &[u8]| {
        text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len())
    };
    let mut entries = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = &line[..until(line, b"\0")];
        let start = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let rest = &line[start..];
        if line.starts_with(b"#") || matches!(rest.first(), None | Some(b'\r')) {
            continue;
        }
        let (key, rest) = rest.split_at(until(rest, b" \t\r"));
        let value = &rest[rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..];
        entries.push((key, without_blanks_at_its_end(&value[..until(value, b"\r")])));
    }
    entries
}

fn without_blanks_at_its_end(text: &[u8]) -> &[u8] {
    let end =
        text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    &text[..end]
}

// ---- Settings.

/// Settings as TOML, or as JSON where they begin with a brace.
pub fn settings(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let path = match text.bytes().next() {
        Some(b'{') => "/etc/mapsmith/mapsmith.json",
        Some(b'-' | b'%' | b'?') => "/etc/mapsmith/mapsmith.yaml",
        _ => "/etc/mapsmith/mapsmith.toml",
    };
    match Settings::of_text(Path::new(path), text, []) {
        Err(SettingsError::Unreadable { path: named, message }) => {
            assert_eq!(named, path);
            assert!(!message.trim().is_empty());
        }
        Err(SettingsError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty());
            for Problem { place, text: problem } in problems {
                assert!(
                    !matches!(place, Some(Place::Line(line)) if line == 0 || line > text.lines().count() + 1),
                    "{place:?}"
                );
                assert!(!problem.contains(|character: char| character.is_control()), "{problem:?}");
                if problem.contains("there is no such key")
                    || problem == "a table of keys must stand here"
                {
                    continue;
                }
                let key = problem.split([':', ' ', '[']).next().unwrap_or_default();
                let known = [
                    "schedule",
                    "api",
                    "map",
                    "guard",
                    "damping",
                    "references",
                    "store",
                    "learned",
                    "source",
                    "instance",
                    "backend",
                ];
                assert!(
                    known.contains(&key.split('.').next().unwrap_or_default()),
                    "the key is not named: {problem}"
                );
            }
        }
        Ok(settings) => taken(&settings),
    }
}

/// Settings that were taken: what of them stands in a command can't be more than its word, and
/// nothing is out of its bounds.
fn taken(settings: &Settings) {
    let map = settings.map.path.to_str().expect("a map's path is UTF-8");
    assert_eq!(words(&MapName::new(map).set("k", "v")), ["set", "map", map, "k", "v"]);
    assert_eq!(words(&MapName::new(map).show(None)), ["show", "map", map]);
    if let Some(table) = &settings.learned.table {
        let table = TableName::new(table).expect("a table's name that was taken is valid");
        assert_eq!(words(&table.show()).len(), 3);
    }
    if let PollSchedule::Every(interval) = settings.schedule.poll {
        assert!(interval.as_secs() > 0 && interval.subsec_nanos() == 0);
    }
    assert!(!settings.sources.is_empty() && !settings.instances.is_empty());
    for instance in &settings.instances {
        assert_eq!(instance.runtime.to_string().parse(), Ok(instance.runtime.clone()));
        assert!(
            (1024..=1024 * 1024).contains(&instance.max_payload) && !instance.timeout.is_zero()
        );
        harmless(&instance.name);
    }
    for source in settings.sources.iter().chain(&settings.list_sources) {
        harmless(&source.name);
        source.masters.values().for_each(|master| harmless(master));
    }
    for backend in &settings.backends {
        BackendName::new(&backend.name).expect("a backend's name that was taken is valid");
        let declared = backend.declared();
        let defaults = backend.default_options();
        for server in &declared.servers {
            added(&backend.name, server, &defaults);
        }
    }
}

// ---- Answers of registries.

/// Sources of the settings that answers are read for.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let text = r#"
        map = { path = "/m" }
        instance = [{ name = "edge1", runtime = "unix@/s" }]
        [[source]]
        name = "puppetdb"
        type = "puppetdb"
        url = "http://localhost"
        [[source]]
        name = "list"
        type = "http_json"
        url = "http://localhost"
        node_field = "node"
        master_field = "master"
        masters = { "puppet00.example.test" = "master1" }
        [[source]]
        name = "object"
        type = "http_json"
        url = "http://localhost"
        [[source]]
        name = "file"
        type = "file"
        path = "nodes.map"
    "#;
    Settings::of_text(Path::new("/mapsmith.toml"), text, [])
        .expect("these settings are right")
        .sources
});

/// A JSON answer: PuppetDB's rows, a list of objects, an object, a list of servers.
pub fn answers(text: &[u8]) {
    // A byte order mark is skipped.
    let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let value = serde_json::from_slice::<Value>(plain);
    // A control character within a text costs a row at most.
    let harmless: Vec<_> =
        plain.iter().map(|byte| if *byte < 0x20 { b' ' } else { *byte }).collect();
    for source in SOURCES.iter().filter(|source| source.name != "file") {
        let fields = match source.name.as_str() {
            "puppetdb" => Some(("certname", "producer")),
            "list" => Some(("node", "master")),
            _ => None,
        };
        let answer = whatever_the_pieces(text, |pieces| {
            source::read_map(source, true, pieces.iter().copied())
        });
        entries_are_harmless(&answer);
        if answer.is_ok() {
            assert!(
                serde_json::from_slice::<IgnoredAny>(&harmless).is_ok(),
                "what is no JSON text was taken"
            );
        }
        let Ok(value) = &value else { continue };
        match (&answer, plain_rows(plain, value, fields)) {
            (Ok((entries, rejections)), Some(rows)) => compare(entries, rejections, &rows, source),
            (Ok(_), None) => panic!("an answer of another shape was taken: {value}"),
            (
                Err(
                    SourceErrorKind::NoField { .. }
                    | SourceErrorKind::NothingValid { .. }
                    | SourceErrorKind::ErrorObject(_),
                ),
                Some(_),
            )
            | (Err(_), None) => {}
            (Err(fault), Some(_)) => panic!("a whole answer was refused: {fault}"),
        }
    }
    let list = whatever_the_pieces(text, |pieces| source::read_list(pieces.iter().copied()));
    if let Ok((ServerList { servers, rejected, disputed }, rejections)) = list {
        assert!(value.as_ref().map_or_else(|error| !error.is_eof(), Value::is_array));
        assert!(servers.is_sorted_by(|one, next| one.name < next.name), "each name once, in order");
        assert!(rejected.len() as u64 <= rejections.total());
        assert!(
            disputed.iter().all(|name| servers.iter().any(|server| server.name == *name)),
            "what is disputed is there"
        );
        servers.iter().for_each(|server| added("b", server, &Default::default()));
    }
}

type Plain = Vec<(Value, Value)>;

/// The rows as nodes and masters, read at once; none where the answer has another shape.
fn plain_rows(text: &[u8], answer: &Value, fields: Option<(&str, &str)>) -> Option<Plain> {
    match (answer, fields) {
        (Value::Array(rows), Some((node, master))) => {
            let field = |row: &Value, name| row.get(name).cloned().unwrap_or_default();
            Some(rows.iter().map(|row| (field(row, node), field(row, master))).collect())
        }
        (Value::Object(_), None) => serde_json::from_slice::<Pairs>(text).ok().map(|pairs| pairs.0),
        _ => None,
    }
}

/// An object's entries in their order, also those whose name stands there twice.
struct Pairs(Plain);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Pairs;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some((node, master)) = map.next_entry::<String, Value>()? {
                    pairs.push((Value::String(node), master));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Every valid row whose node stands in the answer once is an entry, and no entry comes from
/// nowhere.
fn compare(entries: &EntryMap, rejections: &Rejections, rows: &Plain, source: &Source) {
    let mut valid: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, master) in rows {
        if let (Some(node), Some(master)) = (node.as_str(), master.as_str()) {
            let master = source.masters.get(master).map_or(master, String::as_str);
            let node = node.to_ascii_lowercase();
            if names::check_key(&node).is_ok() && names::check_value(master).is_ok() {
                valid.entry(node).or_default().push(master);
            }
        }
    }
    assert!(
        entries.iter().map(|(key, _)| key).eq(valid.keys().map(String::as_str)),
        "other nodes: {entries:?}, {valid:?}"
    );
    for (node, master) in entries.iter() {
        assert!(valid[node].contains(&master), "{node} is at {master}");
    }
    let conflicts = rejections.counts.get(&Invalid::Conflict).copied().unwrap_or(0);
    let taken: usize = valid.values().map(Vec::len).sum();
    assert_eq!(rejections.total() - conflicts, (rows.len() - taken) as u64, "{rejections:?}");
}

fn entries_are_harmless(answer: &Result<(EntryMap, Rejections), SourceErrorKind>) {
    match answer {
        Ok((entries, _)) => entries.iter().for_each(|(key, value)| {
            harmless(key);
            harmless(value);
        }),
        Err(fault) => {
            let shown = fault.to_string();
            assert!(!shown.contains(|character: char| character.is_control()), "{shown:?}");
        }
    }
}

// ---- Names.

/// `KEY|VALUE`: what a header, a registry or an operator names a node and a master.
pub fn names(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let (key, value) = text.split_once('|').unwrap_or((text, text));
    let mut builder = EntryMapBuilder::new();
    let valid = builder.push(key, value).is_ok();
    assert_eq!(valid, names::check_key(key).is_ok() && names::check_value(value).is_ok());
    if valid {
        harmless(key);
        harmless(value);
        commands(key, value);
        round_trip(&MapFile { entries: builder.finish(), ..MapFile::default() });
    }
    // A node that clients name so in their header, and the table that shows it.
    let row = Row {
        key: key.as_bytes().to_vec(),
        expires_in: Duration::from_millis(1),
        server_id: Some(1),
        server: None,
    };
    let head = TableSize { name: "puppet".to_owned(), kind: "string".to_owned(), size: 1, used: 1 };
    table_replies(&[table_head(&head).as_bytes(), &table_row(&row), b"\n"].concat());
    if let Ok(path) = ServerPath::new(key, value) {
        assert_eq!(
            words(&ServerCommand::Delete { at: path }.to_string()),
            ["del", "server", &format!("{key}/{value}")]
        );
    }
    if let Ok(table) = TableName::new(key) {
        assert_eq!(words(&table.show()), ["show", "table", key]);
    }
    // A row of a server list: name, address, and options word by word.
    let mut options = value.split(',').map(str::to_owned);
    let address = options.next().unwrap_or_default();
    let mut list = ServerListBuilder::default();
    list.push(
        "row",
        RawServer {
            name: Some(key.to_owned()),
            address,
            options: Some(options.collect()),
            ..RawServer::default()
        },
    );
    for server in &list.finish(Repeats::First).0.servers {
        added("b", server, &Default::default());
    }
}

/// What may stand in a map: one word, printable, of a length that a stick table and a DNS name can
/// have.
fn harmless(word: &str) {
    assert!(!word.is_empty() && word.len() <= MAX_BYTES, "{word:?}");
    assert!(
        !word.contains(|character: char| character.is_whitespace() || character.is_control()),
        "{word:?}"
    );
    assert!(!word.starts_with('#') && !word.starts_with("<<") && !word.ends_with("<<"), "{word:?}");
}

/// Every command that names an entry is one command with exactly these words, alone, in a line of
/// many, and as a payload.
fn commands(key: &str, value: &str) {
    for path in ["/etc/haproxy/maps/node-master.map", r"/m/a;b\c.map"] {
        let map = MapName::new(path);
        let commands = [map.add(key, value), map.set(key, value), map.remove(key), map.get(key)];
        let expected: [&[&str]; 4] = [
            &["add", "map", path, key, value],
            &["set", "map", path, key, value],
            &["del", "map", path, key],
            &["get", "map", path, key],
        ];
        for (command, expected) in commands.iter().zip(expected) {
            assert_eq!(words(command), expected);
        }
        let mut told = Vec::new();
        for (line, count) in wire::Batches::new(commands.iter().cloned(), 300, 3) {
            let read = haproxy_reads(&line);
            assert!(
                read.len() == count && count <= 3 && (line.len() <= 300 || count == 1),
                "{line:?}"
            );
            told.extend(read);
        }
        assert_eq!(told.len(), 4);
        for (words, expected) in told.iter().zip(expected) {
            assert_eq!(words, &expected.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        }
        let header = map.stage_header(3);
        let mut payload = Vec::new();
        let mut entries = Vec::new();
        let mut payloads = wire::Payloads::new(&header, [(key, value); 3].into_iter(), 1024);
        while payloads.next_into(&mut payload) {
            assert!(payload.len() <= 1024);
            let lines = payload
                .strip_prefix(format!("{header}\n").as_bytes())
                .and_then(|rest| rest.strip_suffix(b"\n\n"));
            entries.extend(
                lines
                    .expect("a header, lines and an empty line")
                    .split(|byte| *byte == b'\n')
                    .map(<[u8]>::to_vec),
            );
        }
        assert_eq!(entries, vec![format!("{key} {value}").into_bytes(); 3]);
        let found = format!(
            "type=str, case=sensitive, found=yes, idx=tree, key=\"{key}\", value=\"{value}\", \
                type=\"str\"\n"
        );
        assert_eq!(map::looked_up(found.as_bytes()), Ok(Some(value)));
    }
}

/// The commands that add a listed server are those and no more, whatever its name and options are.
fn added(backend: &str, server: &ListedServer, defaults: &ServerOptions) {
    let ip = match server.host {
        Host::Address(ip) => ip,
        // What it resolves to does not come from the list.
        Host::Name(_) => [127, 0, 0, 1].into(),
    };
    let options = server.options.clone().unwrap_or_else(|| defaults.clone());
    let agent = options.agent_check();
    let check = options.check;
    let others: Vec<String> =
        options.other.iter().flat_map(|option| option.split(' ').map(str::to_owned)).collect();
    let address = ServerAddress { ip, port: server.port };
    let at = ServerPath::new(backend, &server.name).expect("a listed server's name is valid");
    let path = at.to_string();
    let server = Server {
        name: server.name.clone(),
        address,
        weight: server.weight,
        backup: server.backup,
        options,
    };
    let line = ServerCommand::Add { at, server: Box::new(server) }.to_string();
    let read = haproxy_reads(format!("{line}\n").as_bytes());
    assert_eq!(read.len(), 2 + 3 * usize::from(check) + usize::from(agent), "{line:?}");
    assert_eq!(
        read[0][..4],
        [b"add".as_slice(), b"server", path.as_bytes(), address.to_string().as_bytes()]
    );
    assert!(
        read[0].ends_with(&others.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>()),
        "{line:?}"
    );
    let (enabling, down) = read[1..].split_at(read.len() - 1 - 3 * usize::from(check));
    assert!(
        enabling
            .iter()
            .all(|words| words[0] == b"enable" && words.len() == 3 && words[2] == path.as_bytes()),
        "{line:?}"
    );
    let set = |what: &'static [u8], to: &'static [u8]| {
        [b"set".as_slice(), b"server", path.as_bytes(), what, to]
    };
    let entering = [set(b"state", b"drain"), set(b"health", b"down"), set(b"state", b"ready")];
    assert!(down.iter().zip(&entering).all(|(words, entering)| words == entering), "{line:?}");
}

// ---- HAProxy's command line, read plainly.

/// The words of a line that must be one command.
fn words(line: &str) -> Vec<String> {
    let mut commands =
        haproxy_reads(format!("{}\n", line.strip_suffix('\n').unwrap_or(line)).as_bytes());
    assert_eq!(commands.len(), 1, "{line:?} is more than one command");
    commands
        .remove(0)
        .into_iter()
        .map(|word| String::from_utf8(word).expect("a word of UTF-8"))
        .collect()
}

/// A line as HAProxy's `cli_io_handler` and `cli_parse_request` read it: commands end at `;` and
/// the line's end, words at blanks, and the character after a backslash counts as it is. A `<<`
/// that begins a last word (2.6: ends a line) would wait for a payload.
fn haproxy_reads(line: &[u8]) -> Vec<Vec<Vec<u8>>> {
    assert!(
        line.ends_with(b"\n") && !line[..line.len() - 1].contains(&b'\n'),
        "one line: {:?}",
        String::from_utf8_lossy(line)
    );
    let mut commands = vec![vec![]];
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line[..line.len() - 1].iter();
    let mut raw = vec![];
    let mut raws: Vec<Vec<u8>> = vec![];
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let escaped = bytes
                    .next()
                    .expect("a backslash before the line's end would take the end for a character");
                word.get_or_insert_default().push(*escaped);
                raw.extend_from_slice(&[*byte, *escaped]);
                continue;
            }
            b' ' | b'\t' | b';' => {
                commands.last_mut().expect("there is one").extend(word.take());
                if *byte == b';' {
                    commands.push(vec![]);
                    raws.push(std::mem::take(&mut raw));
                    continue;
                }
            }
            byte => word.get_or_insert_default().push(*byte),
        }
        raw.push(*byte);
    }
    commands.last_mut().expect("there is one").extend(word);
    raws.push(raw);
    for raw in raws {
        let last = raw.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        assert!(
            !last.starts_with(b"<<") && !raw.ends_with(b"<<"),
            "{:?} waits for a payload",
            String::from_utf8_lossy(&raw)
        );
    }
    commands
}
