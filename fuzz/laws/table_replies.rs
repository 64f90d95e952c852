//! `show table`, `show table NAME`.

use haproxy_runtime::error::ReplyError;
use haproxy_runtime::table::{self, Row, Rows, TableName, TableSize};
use haproxy_runtime::wire;

use super::commands::haproxy_reads;
use super::{cuts, whatever_the_pieces};

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

pub(super) fn table_head(size: &TableSize) -> String {
    format!("# table: {}, type: {}, size:{}, used:{}\n", size.name, size.kind, size.size, size.used)
}

/// A row as HAProxy writes it, with its key escaped as `dump_text` does it.
pub(super) fn table_row(row: &Row) -> Vec<u8> {
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
