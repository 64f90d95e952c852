//! Stick tables: what redispatch learned, and how a key of it is forgotten. Pure.
//!
//! Keys are whatever clients sent in a header. HAProxy shows them escaped, one row a line, and
//! takes any byte but the line's end after a backslash; both was measured for every byte on 2.6,
//! 3.0, 3.2 and 3.4.

use core::time::Duration;

use crate::error::ReplyError;
use crate::server::command::InvalidName;
use crate::server::is_valid_name;
use crate::wire::Lines;

#[cfg(feature = "client")]
pub mod client;

/// The longest row, in bytes: HAProxy's own buffer bounds a key, which may be four times as long
/// when escaped.
const LONGEST_ROW: usize = 128 * 1024;

/// Lists the tables with their sizes. See [`tables`].
pub const TABLES: &str = "show table\n";

/// A stick table: a backend's or a frontend's, by its name, or one of a `peers` section,
/// `SECTION/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName(String);

impl TableName {
    /// The table.
    ///
    /// # Errors
    /// When the name can't stand in a command.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let valid = match name.split_once('/') {
            Some((section, table)) => is_valid_name(section) && is_valid_name(table),
            None => is_valid_name(name),
        };
        if valid { Ok(Self(name.to_owned())) } else { Err(InvalidName { name: name.to_owned() }) }
    }

    /// Lists its rows. See [`Rows`].
    pub fn show(&self) -> String {
        format!("show table {}\n", self.0)
    }

    /// Forgets a key, without the line's end; silent, also where the key is not there. None for the
    /// empty key, which can't stand in a command: it is forgotten when it expires.
    pub fn forget(&self, key: &[u8]) -> Option<Vec<u8>> {
        if key.is_empty() || key.contains(&b'\n') {
            return None;
        }
        let mut command = format!("clear table {} key ", self.0).into_bytes();
        for byte in key {
            // Also `<<`, which would start a payload.
            if !byte.is_ascii_alphanumeric() {
                command.push(b'\\');
            }
            command.push(*byte);
        }
        Some(command)
    }
}

/// Whether the key is not there any more: false while a request holds it.
///
/// # Errors
/// The refusal.
pub fn forgotten(reply: &[u8]) -> Result<bool, ReplyError> {
    match reply {
        b"" => Ok(true),
        reply if reply.starts_with(b"Entry currently in use") => Ok(false),
        reply => Err(ReplyError::from_text(reply)),
    }
}

/// A table's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Its name.
    pub name: String,
    /// What its keys are: `string`, `ip`.
    pub kind: String,
    /// The most rows it takes.
    pub size: u64,
    /// The rows it has.
    pub used: u64,
}

/// A row: a key, and the server that it sticks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key, as the client sent it (of a `string` table; keys of other kinds are as HAProxy
    /// writes them).
    pub key: Vec<u8>,
    /// Time until it expires; zero where the table's rows don't.
    pub expires_in: Duration,
    /// The server's id within its backend; none where nothing sticks.
    pub server_id: Option<u32>,
    /// The server's name (its address where the table says `srvkey addr`). It stays when the server
    /// is removed.
    pub server: Option<String>,
}

/// Reads a `show table NAME` listing as it streams in: a head, a row a line, an empty line at the
/// end.
#[derive(Debug, Default)]
pub struct Rows {
    carry: Lines,
    head: Option<TableSize>,
    rows: u64,
    ended: bool,
}

impl Rows {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows were read so far.
    pub fn count(&self) -> u64 {
        self.rows
    }

    /// The table's size, once the head was read.
    pub fn head(&self) -> Option<&TableSize> {
        self.head.as_ref()
    }

    /// Takes the next bytes; calls `each` with every whole row.
    ///
    /// # Errors
    /// A refusal in place of the head, and a row that can't be read.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Row)) -> Result<(), ReplyError> {
        let mut carry = core::mem::take(&mut self.carry);
        let fed = carry.feed(bytes, LONGEST_ROW, |line| self.line(line, &mut each));
        self.carry = carry;
        fed
    }

    fn line(&mut self, line: &[u8], each: &mut impl FnMut(Row)) -> Result<(), ReplyError> {
        if self.ended {
            return Err(ReplyError::unexpected(line));
        }
        if self.head.is_none() {
            self.head = Some(
                str::from_utf8(line)
                    .ok()
                    .and_then(head)
                    .ok_or_else(|| ReplyError::from_text(line))?,
            );
        } else if line.is_empty() {
            self.ended = true;
        } else {
            self.rows += 1;
            let unreadable = || {
                ReplyError::unreadable(&String::from_utf8_lossy(line), "no row of a stick table")
            };
            each(row(line).ok_or_else(unreadable)?);
        }
        Ok(())
    }

    /// Called at the end of the stream.
    ///
    /// # Errors
    /// When the empty line that ends a listing has not come: the answer was cut.
    pub fn finish(self) -> Result<TableSize, ReplyError> {
        match self.head {
            Some(head) if self.ended && self.carry.rest().is_empty() => Ok(head),
            Some(head) => Err(ReplyError::Cut(format!("a part of the table {}", head.name))),
            None => Err(ReplyError::cut(self.carry.rest())),
        }
    }
}

/// All tables in the reply to [`TABLES`].
///
/// # Errors
/// When a line is not a table's.
pub fn tables(reply: &[u8]) -> Result<Vec<TableSize>, ReplyError> {
    let text = str::from_utf8(reply).map_err(|_| ReplyError::unexpected(reply))?;
    text.lines()
        .map(|line| head(line).ok_or_else(|| ReplyError::from_text(line.as_bytes())))
        .collect()
}

/// `# table: puppet, type: string, size:102400, used:22`.
fn head(line: &str) -> Option<TableSize> {
    let (name, rest) = line.strip_prefix("# table: ")?.split_once(", type: ")?;
    let (kind, rest) = rest.split_once(", size:")?;
    let (size, used) = rest.split_once(", used:")?;
    Some(TableSize {
        name: name.to_owned(),
        kind: kind.to_owned(),
        size: size.parse().ok()?,
        used: used.parse().ok()?,
    })
}

/// `0x55d0: key=a\ b use=0 exp=599971 shard=0 server_id=2 server_key=master2`; `shard` is not in
/// 2.6.
fn row(line: &[u8]) -> Option<Row> {
    let start = memchr::memmem::find(line, b": key=")?;
    if !line.starts_with(b"0x") || start > "0x".len() + 16 {
        return None;
    }
    let (key, rest) = unescape(&line[start + ": key=".len()..])?;
    let mut row = Row { key, expires_in: Duration::ZERO, server_id: None, server: None };
    let mut expires = false;
    for field in str::from_utf8(rest).ok()?.split(' ') {
        let (name, value) = field.split_once('=')?;
        match name {
            "exp" => {
                row.expires_in = Duration::from_millis(value.parse().ok()?);
                expires = true;
            }
            "server_id" => row.server_id = Some(value.parse::<u32>().ok()?).filter(|id| *id != 0),
            "server_key" => row.server = Some(value.to_owned()).filter(|name| name != "-"),
            _ => {}
        }
    }
    expires.then_some(row)
}

/// A key up to the first space that is not escaped, as HAProxy's `dump_text` writes it; and what
/// follows that space.
fn unescape(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // One allocation for nearly all keys: few have a space of their own.
    let mut key = Vec::with_capacity(memchr::memchr(b' ', text)?);
    let mut rest = text;
    loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        if *first == b' ' {
            return Some((key, rest));
        }
        if *first != b'\\' {
            key.push(*first);
            continue;
        }
        let (escaped, after) = rest.split_first()?;
        rest = after;
        key.push(match escaped {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'e' => 0x1b,
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "# table: puppet, type: string, size:102400, used:22\n";

    fn list(answer: &[u8], chunk: usize) -> Result<(TableSize, Vec<Row>), ReplyError> {
        let (mut rows, mut found) = (Rows::new(), Vec::new());
        for part in answer.chunks(chunk.max(1)) {
            rows.feed(part, |row| found.push(row))?;
        }
        Ok((rows.finish()?, found))
    }

    #[test]
    fn learned_routes_are_read_in_each_versions_format() {
        let answer = format!(
            "{HEAD}0x557d62255860: key=node1 use=0 exp=599981 server_id=2 server_key=master2\n\
             0x7f430d5a3490: key=a\\ b\\=\\\\ use=1 exp=1 shard=0 server_id=2 server_key=master2\n\
             0x1: key= use=0 exp=0 shard=0 server_id=0 server_key=-\n0x2: key=\\xFF\\t\\x3D use=0 \
             exp=7 gpc0=2\n\n"
        );
        let (size, rows) = list(answer.as_bytes(), 1000).unwrap();
        assert_eq!(
            (size.name.as_str(), size.kind.as_str(), size.size, size.used),
            ("puppet", "string", 102_400, 22)
        );
        let row = |key: &[u8], millis, server_id, server: Option<&str>| Row {
            key: key.to_vec(),
            expires_in: Duration::from_millis(millis),
            server_id,
            server: server.map(str::to_owned),
        };
        assert_eq!(rows[0], row(b"node1", 599_981, Some(2), Some("master2")));
        assert_eq!(rows[1], row(b"a b=\\", 1, Some(2), Some("master2")));
        assert_eq!(rows[2], row(b"", 0, None, None));
        assert_eq!(rows[3], row(b"\xff\t=", 7, None, None));
    }

    #[test]
    fn a_table_that_is_not_there_is_told() {
        assert_eq!(list(b"No such table\n\n", 5), Err(ReplyError::UnknownTable));
        assert_eq!(list(b"Permission denied\n\n", 5), Err(ReplyError::Denied));
        assert_eq!(list(b"", 5), Err(ReplyError::Nothing));
        let error = list(format!("{HEAD}0x1: key=a exp=x\n\n").as_bytes(), 9).unwrap_err();
        assert!(error.to_string().contains("key=a exp=x"), "{error}");
    }

    #[test]
    fn all_tables_are_listed_with_their_sizes() {
        let seen = tables(
            b"# table: pp/tt, type: ip, size:10, used:0\n# table: puppet, type: \
            string, size:5, used:2\n",
        )
        .unwrap();
        assert_eq!(
            seen.iter().map(|table| (table.name.as_str(), table.used)).collect::<Vec<_>>(),
            [("pp/tt", 0), ("puppet", 2)]
        );
        assert!(tables(b"").unwrap().is_empty());
        assert!(tables(b"Permission denied\n").is_err());
    }

    #[test]
    fn a_key_is_one_word_whatever_a_client_sent() {
        let table = TableName::new("puppet").unwrap();
        let forget = |key: &[u8]| String::from_utf8_lossy(&table.forget(key).unwrap()).into_owned();
        assert_eq!(forget(b"node1"), "clear table puppet key node1");
        assert_eq!(forget(b"a;show env"), r"clear table puppet key a\;show\ env");
        assert_eq!(forget(b"<<"), r"clear table puppet key \<\<");
        assert_eq!(table.forget(b""), None);
        assert_eq!(table.forget(b"a\nshow env"), None, "a line's end can't be escaped");
        assert!(TableName::new("peers/t").is_ok());
        for name in ["", "a b", "a;b", "a/b/c", "/a"] {
            assert!(TableName::new(name).is_err(), "{name}");
        }
    }

    /// A key as HAProxy's `dump_text` writes it.
    fn dumped(key: &[u8]) -> String {
        let mut text = String::new();
        for byte in key {
            match byte {
                b'\t' => text.push_str("\\t"),
                b'\n' => text.push_str("\\n"),
                b'\r' => text.push_str("\\r"),
                0x1b => text.push_str("\\e"),
                b'\\' | b' ' | b'=' => text.extend(['\\', char::from(*byte)]),
                0x20..=0x7e => text.push(char::from(*byte)),
                other => text.push_str(&format!("\\x{other:02X}")),
            }
        }
        text
    }

    proptest! {
        #[test]
        fn every_key_comes_back_as_it_was_sent_however_the_listing_is_cut_into_packets(
            keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..12),
            chunk in 1usize..50,
        ) {
            let rows: String = keys
                .iter()
                .map(|key| {
                    format!(
                        "0x55d0: key={} use=0 exp=5 \
                server_id=2 server_key=m2\n",
                        dumped(key)
                    )
                })
                .collect();
            let (_, seen) = list(format!("{HEAD}{rows}\n").as_bytes(), chunk).unwrap();
            prop_assert_eq!(seen.into_iter().map(|row| row.key).collect::<Vec<_>>(), keys);
        }

        #[test]
        fn a_listing_cut_at_any_byte_is_an_error(
            keys in proptest::collection::vec("[a-z =]{0,9}", 1..8),
            cut: prop::sample::Index,
        ) {
            let rows: String = keys
                .iter()
                .map(|key| {
                    format!(
                        "0x55d0: key={} use=0 \
                exp=5\n",
                        dumped(key.as_bytes())
                    )
                })
                .collect();
            let answer = format!("{HEAD}{rows}\n");
            prop_assert!(list(&answer.as_bytes()[..cut.index(answer.len())], 1000).is_err());
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            chunk in 1usize..9,
        ) {
            let _ = list(&bytes, chunk);
            let _ = list(&[HEAD.as_bytes(), b"0x1: key=", &bytes].concat(), chunk);
            let _ = tables(&bytes);
        }

        #[test]
        fn a_forgotten_key_never_ends_its_command(
            key in proptest::collection::vec(any::<u8>(), 1..20),
        ) {
            if let Some(command) = TableName::new("t").unwrap().forget(&key) {
                let word = &command["clear table t key ".len()..];
                let mut read = Vec::new();
                let mut bytes = word.iter();
                while let Some(byte) = bytes.next() {
                    let bare = byte.is_ascii_alphanumeric();
                    read.push(if bare { *byte } else { *bytes.next().unwrap() });
                    prop_assert!(bare || *byte == b'\\');
                }
                prop_assert_eq!(read, key);
            }
        }
    }
}
