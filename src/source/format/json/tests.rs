//! The laws of the reader: chunks never matter, and nothing but a whole answer is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use mapsmith_core::Invalid;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::source::format::{Collected, Names};

fn list() -> Shape {
    Shape::List(Fields { node: "certname".to_owned(), master: "producer".to_owned() })
}

fn reader(shape: Shape) -> JsonReader {
    JsonReader::new(shape, Collector::new(Arc::new(Names::new(true, &BTreeMap::new()))), None)
}

fn read_chunks<'a>(
    shape: Shape,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Collected, SourceErrorKind> {
    let mut reader = reader(shape);
    for chunk in chunks {
        reader.feed(chunk)?;
    }
    reader.close().map(Collector::finish)
}

fn read(shape: Shape, text: &str) -> Result<Collected, SourceErrorKind> {
    read_chunks(shape, [text.as_bytes()])
}

fn entries(collected: &Collected) -> Vec<(&str, &str)> {
    collected.entries.iter().collect()
}

#[test]
fn rows_of_a_list_become_entries() {
    let answer = read(
        list(),
        r#" [ {"certname":"B","producer":"m1","producer_timestamp":"2026-11-20T10:25:04.290Z"},
            {"other":[1,{"a":null}],"producer":"m\u0032","certname":"\u0061.example"} ]
        "#,
    )
    .unwrap();
    assert_eq!(entries(&answer), [("a.example", "m2"), ("b", "m1")]);
    assert_eq!(answer.rejections.total(), 0);
}

#[test]
fn entries_of_an_object_become_entries() {
    let answer = read(
        Shape::Object,
        r#"{"a": "m1", "b" : "m2","c":null,"d":7,"e":["m1"],"f":{"x":1}, "":"m1"}"#,
    )
    .unwrap();
    assert_eq!(entries(&answer), [("a", "m1"), ("b", "m2")]);
    assert_eq!(
        answer.rejections.counts.into_iter().collect::<Vec<_>>(),
        [(Invalid::EmptyKey, 1), (Invalid::NoMaster, 1), (Invalid::NotString, 3)]
    );
}

#[test]
fn an_empty_answer_is_an_answer() {
    assert!(read(list(), " [ ] \n").unwrap().entries.is_empty());
    assert!(read(Shape::Object, "{}").unwrap().entries.is_empty());
}

#[test]
fn rows_that_name_nothing_valid_are_left_out_with_their_reason() {
    let answer = read(
        list(),
        r#"[{"certname":"a","producer":null},{"certname":"b"},{"producer":"m1"},
            {"certname":null,"producer":"m1"},{"certname":3,"producer":"m1"},
            {"certname":"c","producer":true},{"certname":"d","producer":"m 1"},
            3,"text",null,[1,2],{"certname":"e","producer":"m1"}]"#,
    )
    .unwrap();
    assert_eq!(entries(&answer), [("e", "m1")]);
    assert_eq!(
        answer.rejections.counts.into_iter().collect::<Vec<_>>(),
        [
            (Invalid::NoMaster, 2),
            (Invalid::ValueWhitespace, 1),
            (Invalid::NotString, 6),
            (Invalid::NoNode, 2)
        ]
    );
    assert_eq!(answer.rejections.named["a"], Invalid::NoMaster);
}

#[test]
fn an_answer_cut_at_any_byte_is_an_error() {
    for (shape, text) in [
        (
            list(),
            r#"[{"certname":"a\u00e9","producer":"m1","n":[1,{"x":-1.5e3}]}, 12, true,
                {"certname":"bé","producer":null}]"#,
        ),
        (list(), "[]"),
        (Shape::Object, r#"{"a":"m1", "b\n": null , "c":12,"d":[true]}"#),
    ] {
        assert!(read(shape.clone(), text).is_ok());
        for cut in 0..text.len() {
            let cut = &text.as_bytes()[..cut];
            for chunk in [1, 7, text.len()] {
                let fault = read_chunks(shape.clone(), cut.chunks(chunk)).unwrap_err();
                let came = cut.len() as u64;
                assert!(
                    matches!(fault, SourceErrorKind::Truncated { bytes, .. } if bytes == came),
                    "{cut:?}: {fault}"
                );
            }
        }
    }
}

#[test]
fn what_follows_the_end_makes_it_no_answer() {
    let fault = read(list(), "[]\n[]").unwrap_err();
    assert_eq!(
        fault.to_string(),
        "something follows the end of the JSON text, at line 2, column 1"
    );
    assert!(matches!(read(Shape::Object, r#"{"a":"m1"}x"#), Err(SourceErrorKind::Trailing(_))));
}

#[test]
fn an_error_object_in_place_of_a_map_is_shown_with_its_text() {
    for text in [
        r#"{"error":"database is down"}"#,
        r#"{"a":"m1","errors":["database is down"]}"#,
        r#"{"exception":"database is down"}"#,
    ] {
        for chunk in [1, 5, 100] {
            let fault = read_chunks(Shape::Object, text.as_bytes().chunks(chunk)).unwrap_err();
            let cause = "database is down";
            assert!(
                matches!(&fault, SourceErrorKind::ErrorObject(text) if text.contains(cause)),
                "{fault}"
            );
        }
    }
    let fault =
        read_chunks(list(), r#"{"error":"database is down"}"#.as_bytes().chunks(1)).unwrap_err();
    let cause = "database is down";
    assert!(
        matches!(&fault, SourceErrorKind::WrongShape { text, .. } if text.contains(cause)),
        "{fault}"
    );
}

#[test]
fn what_is_no_json_or_of_the_wrong_shape_says_so() {
    let message = read(list(), "<html><title>Sign in</title>").unwrap_err().to_string();
    assert_eq!(message, "the answer is not JSON: Sign in");
    let message = read(Shape::Object, r#"[{"certname":"a"}]"#).unwrap_err().to_string();
    assert!(message.contains("set node_field and master_field"), "{message}");
    let long = format!("nonsense {}", "x".repeat(10_000));
    assert!(read_chunks(list(), long.as_bytes().chunks(1000)).unwrap_err().to_string().len() < 500);
}

#[test]
fn a_mistake_is_named_by_line_and_column_whatever_the_chunks() {
    for (shape, text, position) in [
        (list(), "[\n {\"certname\":\"a\",\n  \"producer\":nil}]", "line 3, column"),
        (list(), "[\n1,\n]", "line 3, column 1"),
        (list(), "[\n1 2]", "line 2, column 3"),
        (Shape::Object, "{\n\"a\":\"m1\",\n  b:1}", "line 3, column 3"),
        (Shape::Object, "{\"a\" \"m1\"}", "line 1, column 6"),
    ] {
        for chunk in [1, 3, 100] {
            let fault = read_chunks(shape.clone(), text.as_bytes().chunks(chunk)).unwrap_err();
            assert!(
                matches!(fault, SourceErrorKind::Syntax { .. })
                    && fault.to_string().contains(position),
                "{text:?}: {fault}"
            );
        }
    }
}

#[test]
fn a_list_without_the_configured_fields_names_those_it_has() {
    let message = read(list(), r#"[{"name":"a","value":"m1"},{"name":"b","environment":"x"}]"#)
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "no row has the field \"certname\" (node_field); the rows have: name, value, environment"
    );
    let message = read(list(), r#"[{"certname":"a","value":"m1"}]"#).unwrap_err().to_string();
    assert!(
        message.contains("\"producer\" (master_field)") && message.contains("certname, value"),
        "{message}"
    );
    let message = read(list(), r#"["a","b"]"#).unwrap_err().to_string();
    assert!(message.contains("they are no objects"), "{message}");
}

/// Each of these is what JSON may not hold, or what no program can.
const ODD: [&[u8]; 7] = [
    br#""x\ud800""#,
    br#""\udc00\ud83dx""#,
    b"\"x\ny\"",
    b"\"\x00\"",
    b"\"x\xff\"",
    b"1e999",
    b"-9e+4000",
];

#[test]
fn one_row_that_is_no_good_json_is_left_out_and_the_rest_is_taken_whatever_the_chunks() {
    for odd in ODD {
        let row = |node: &[u8], master: &[u8]| {
            [b"{\"certname\":", node, b",\"producer\":", master, b"}"].concat()
        };
        let list_text = |row: &[u8]| {
            [
                b"[{\"certname\":\"a\",\"producer\":\"m1\"},",
                row,
                b",{\"certname\":\"z\",\"producer\":\"m2\"}]",
            ]
            .concat()
        };
        let object = |entry: &[u8]| [b"{\"a\":\"m1\",", entry, b",\"z\":\"m2\"}"].concat();
        let mut texts = vec![
            (list(), list_text(&row(odd, b"\"m1\"")), 1),
            (list(), list_text(&row(b"\"n\"", odd)), 1),
            (list(), list_text(odd), 1),
            // In a field that nobody asked for it harms nothing.
            (
                list(),
                list_text(
                    &[b"{\"other\":", odd, b",\"certname\":\"a\",\"producer\":\"m1\"}"].concat(),
                ),
                0,
            ),
            (Shape::Object, object(&[b"\"n\": ", odd].concat()), 1),
        ];
        if odd.starts_with(b"\"") {
            texts.push((Shape::Object, object(&[odd, b":\"m1\""].concat()), 1));
        }
        for (shape, text, rejected) in texts {
            for chunk in [1, 2, 5, text.len()] {
                let describe = || format!("{} in chunks of {chunk}", text.escape_ascii());
                let answer = read_chunks(shape.clone(), text.chunks(chunk))
                    .unwrap_or_else(|fault| panic!("{}: {fault}", describe()));
                assert_eq!(entries(&answer), [("a", "m1"), ("z", "m2")], "{}", describe());
                assert_eq!(answer.rejections.total(), rejected, "{}", describe());
            }
            for cut in 0..text.len() {
                let fault = read_chunks(shape.clone(), text[..cut].chunks(7)).unwrap_err();
                assert!(
                    matches!(fault, SourceErrorKind::Truncated { .. }),
                    "{}: {fault}",
                    text[..cut].escape_ascii()
                );
            }
        }
    }
}

#[test]
fn a_byte_order_mark_is_skipped_at_the_beginning_only() {
    for (shape, text) in
        [(list(), r#"[{"certname":"a","producer":"m1"}]"#), (Shape::Object, r#" {"a":"m1"}"#)]
    {
        for chunk in [1, 2, 100] {
            let marked = format!("\u{feff}{text}");
            let answer = read_chunks(shape.clone(), marked.as_bytes().chunks(chunk)).unwrap();
            assert_eq!(entries(&answer), [("a", "m1")], "in chunks of {chunk}");
        }
        for text in [
            format!("\u{feff}\u{feff}{text}"),
            format!(" \u{feff}{text}"),
            format!("{text}\u{feff}"),
        ] {
            assert!(read(shape.clone(), &text).is_err(), "{text:?}");
        }
    }
}

#[test]
fn a_node_named_error_is_a_node() {
    let many = |error: &str| {
        let nodes: String = (0..LIKE_A_MAP).map(|number| format!(r#""n{number}":"m1","#)).collect();
        format!(r#"{{{nodes}"null":null,"error":{error}}}"#)
    };
    for (text, entries, rejected) in [
        (r#"{"error":"m1","a":"m2"}"#.to_owned(), 2, 0),
        (r#"{"a":"m1","errors":"m1","exception":"m2"}"#.to_owned(), 3, 0),
        (many(r#""m2""#), LIKE_A_MAP + 1, 1),
        (many("null"), LIKE_A_MAP, 2),
    ] {
        let answer = read(Shape::Object, &text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        assert_eq!(
            (answer.entries.len(), answer.rejections.total()),
            (entries, rejected),
            "{text}"
        );
    }
    for text in [
        r#"{"error":"down"}"#,
        r#"{"error":"not_found","errors":"x"}"#,
        r#"{"error":"not found","code":"x1"}"#,
        r#"{"status":404,"error":"down","path":"/x"}"#,
        r#"{"a":"m1","errors":["down"]}"#,
    ] {
        assert!(
            matches!(read(Shape::Object, text), Err(SourceErrorKind::ErrorObject(_))),
            "{text}"
        );
    }
}

#[test]
fn an_object_of_which_nothing_is_legal_is_an_error() {
    let message = read(Shape::Object, r#"{"status":500,"path":["x"]}"#).unwrap_err().to_string();
    assert!(message.contains("none of the object's 2 entries"), "{message}");
}

#[test]
fn a_row_without_end_is_refused_before_it_fills_the_memory() {
    let mut reader = reader(list());
    let outcome = std::iter::once(&b"[\""[..])
        .chain(std::iter::repeat_n(&[b'x'; 64 * 1024][..], 1000))
        .try_for_each(|chunk| reader.feed(chunk));
    assert_eq!(outcome, Err(SourceErrorKind::RowTooLarge(MAX_ROW_BYTES)));
}

fn arbitrary_row() -> impl Strategy<Value = Value> {
    let name = prop_oneof![8 => "[a-c]{1,2}", 1 => ".{0,4}"];
    let master = prop_oneof![
        6 => "m[12]".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!(3)),
        1 => ".{0,4}".prop_map(Value::from),
    ];
    let row = |(node, master): (String, Value)| {
        let other = json!(["\"}],", -1.5e-3, true]);
        json!({"certname": node, "x": other, "producer": master})
    };
    prop_oneof![
        8 => (name, master).prop_map(row),
        1 => Just(json!({"producer": "m1"})),
        1 => prop_oneof![Just(json!(-1.5)), Just(json!(null)), Just(json!(["}"]))],
    ]
}

proptest! {
    #[test]
    fn the_chunks_in_which_an_answer_comes_do_not_matter(
        rows in proptest::collection::vec(arbitrary_row(), 0..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        pretty: bool,
    ) {
        let mut rows = rows;
        rows.push(json!({"certname": "sure", "producer": "m1"}));
        let text =
            if pretty { serde_json::to_string_pretty(&rows) } else { serde_json::to_string(&rows) }
                .unwrap();
        let mut cuts: Vec<_> =
            cuts.iter().map(|cut| cut.index(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let chunks: Vec<_> =
            cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
        let (cut, whole) = (read_chunks(list(), chunks).unwrap(), read(list(), &text).unwrap());
        prop_assert_eq!(&cut.entries, &whole.entries);
        prop_assert_eq!(cut.rejections, whole.rejections);

        let mut expected = BTreeMap::new();
        for row in &rows {
            let (Some(node), Some(master)) = (row["certname"].as_str(), row["producer"].as_str())
            else {
                continue;
            };
            let node = node.to_ascii_lowercase();
            if mapsmith_core::names::check_key(&node).is_ok()
                && mapsmith_core::names::check_value(master).is_ok()
            {
                let known = expected.entry(node).or_insert_with(|| master.to_owned());
                *known = known.clone().min(master.to_owned());
            }
        }
        let expected: Vec<_> =
            expected.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect();
        prop_assert_eq!(whole.entries.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_taken_for_an_answer_is_json(
        rows in proptest::collection::vec(arbitrary_row(), 0..4),
        at: prop::sample::Index,
        byte: u8,
        delete: bool,
        chunk in 1usize..20,
    ) {
        let mut text = serde_json::to_vec(&rows).unwrap();
        let at = at.index(text.len());
        if delete {
            text.remove(at);
        } else {
            text[at] = byte;
        }
        if read_chunks(list(), text.chunks(chunk)).is_ok() {
            // But for control characters within texts, which cost a row at most.
            let plain: Vec<_> =
                text.iter().map(|byte| if *byte < 0x20 { b' ' } else { *byte }).collect();
            prop_assert!(
                serde_json::from_slice::<IgnoredAny>(&plain).is_ok(),
                "{}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        text in proptest::collection::vec(any::<u8>(), 0..80),
        chunk in 1usize..20,
        object: bool,
    ) {
        let _ = read_chunks(if object { Shape::Object } else { list() }, text.chunks(chunk));
        let opened: Vec<u8> = [if object { b"{\"" } else { b"[{" }, &text[..]].concat();
        let _ = read_chunks(if object { Shape::Object } else { list() }, opened.chunks(chunk));
    }
}
