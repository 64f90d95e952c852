//! Keys below a folder of Consul's key-value store -> entries of the node map. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::source::format::{Field, Fields, Row};

/// What Consul calls a key and its value.
pub(super) fn fields() -> Fields {
    Fields { node: "Key".to_owned(), master: "Value".to_owned() }
}

/// The entry that a key is; none where it is a folder. A value that is no text stays one that no
/// entry can have.
pub(super) fn entry(row: &Row<'_>) -> Option<Row<'static>> {
    let node = match &row.node {
        Field::Text(key) => match key.rsplit('/').next().unwrap_or_default() {
            "" => return None,
            node => Field::Text(node.to_owned().into()),
        },
        Field::Absent | Field::Null => Field::Null,
        Field::Other => Field::Other,
    };
    let master = match &row.master {
        Field::Text(value) => decoded(value).map_or(Field::Other, |text| Field::Text(text.into())),
        Field::Absent | Field::Null => Field::Null,
        Field::Other => Field::Other,
    };
    Some(Row { node, master, producer_timestamp: Field::Absent })
}

/// The text of a value. What an editor put after it is not part of a name.
fn decoded(value: &str) -> Option<String> {
    let bytes = STANDARD.decode(value).ok()?;
    Some(String::from_utf8(bytes).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Field<'_> {
        Field::Text(text.into())
    }

    #[test]
    fn a_key_is_a_node_by_its_last_part_and_its_value_is_the_master() {
        for (key, value, expected) in [
            ("nodes/a.example", text("bTE="), Some(("a.example", text("m1")))),
            ("nodes/eu/a", text("bTEK"), Some(("a", text("m1")))),
            ("nodes/a", text("/w=="), Some(("a", Field::Other))),
            ("nodes/a", text("m1"), Some(("a", Field::Other))),
            ("nodes/a", Field::Null, Some(("a", Field::Null))),
            ("nodes/eu/", Field::Null, None),
        ] {
            let row = Row { node: text(key), master: value, producer_timestamp: Field::Absent };
            let found = entry(&row).map(|row| (row.node, row.master));
            assert_eq!(found, expected.map(|(node, master)| (text(node), master)), "{key}");
        }
    }
}
