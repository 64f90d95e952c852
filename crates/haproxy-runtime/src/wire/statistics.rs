//! `show stat`: CSV with a head after `# ` and a comma after the last field too. Pure.

use csv::{ReaderBuilder, StringRecord, Terminator};

use crate::error::ReplyError;

/// Reads the rows of `show stat`; `each` gets the fields at `columns` of each row, and its text.
///
/// # Errors
/// What is not such a list, a row that does not have as many fields as the head, and what `each`
/// answers.
pub(crate) fn rows<const N: usize>(
    reply: &str,
    columns: [&'static str; N],
    mut each: impl FnMut([&str; N], &str) -> Result<(), ReplyError>,
) -> Result<(), ReplyError> {
    let refused = || ReplyError::from_text(reply.as_bytes());
    let text = reply.strip_prefix("# ").filter(|text| text.starts_with("pxname,svname,"));
    let text = text.filter(|text| text.contains('\n')).ok_or_else(refused)?;
    if !text.ends_with('\n') {
        return Err(ReplyError::cut(reply.as_bytes()));
    }
    let mut reader = ReaderBuilder::new()
        .terminator(Terminator::Any(b'\n'))
        .flexible(true)
        .from_reader(text.as_bytes());
    let head = reader.headers().map_err(|_| refused())?.clone();
    let columns = positions(&head.iter().collect::<Vec<_>>(), columns)?;
    let mut record = StringRecord::new();
    loop {
        let start = reader.position().byte() as usize;
        let more = reader.read_record(&mut record);
        let row = text[start..reader.position().byte() as usize].trim_end_matches('\n');
        match more {
            Ok(false) => return Ok(()),
            Ok(true) if record.len() == head.len() => {
                each(columns.map(|column| &record[column]), row)?;
            }
            _ => return Err(ReplyError::unreadable(row, "its columns are not those of its head")),
        }
    }
}

/// Where columns stand among the names of a head.
pub(crate) fn positions<const N: usize>(
    names: &[&str],
    wanted: [&'static str; N],
) -> Result<[usize; N], ReplyError> {
    let mut found = [0; N];
    for (position, wanted) in found.iter_mut().zip(wanted) {
        *position = names.iter().position(|name| *name == wanted).ok_or_else(|| {
            ReplyError::unreadable("the head", &format!("there is no column {wanted}"))
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<const N: usize>(
        reply: &str,
        columns: [&'static str; N],
    ) -> Result<Vec<[String; N]>, ReplyError> {
        let mut read = Vec::new();
        rows(reply, columns, |fields, _| {
            read.push(fields.map(str::to_owned));
            Ok(())
        })?;
        Ok(read)
    }

    /// `haproxy_stats_csv.json`, except that a short row is an error here and not skipped.
    #[test]
    fn the_csv_is_read_as_other_controllers_read_it_but_for_a_short_row() {
        let columns = ["pxname", "svname", "status"];
        let read = |reply| read(reply, columns);
        let two = read("# pxname,svname,status,\nbe,s1,UP,\nbe,s2,MAINT,\n").unwrap();
        assert_eq!(two, [["be", "s1", "UP"], ["be", "s2", "MAINT"]]);
        assert_eq!(read("# pxname,svname,status,\nbe,s1,,\n").unwrap(), [["be", "s1", ""]]);
        assert!(read("# pxname,svname,status,\nbe,s1\n").is_err());
        assert!(read("Unknown command.\n").is_err());
        assert!(read("").is_err());
        assert!(read("# pxname,svname,status,\n").unwrap().is_empty());
    }

    /// The server and backend rows of `muppet_metrics.json`.
    #[test]
    fn the_rows_of_an_exporter_are_read_by_their_columns_names() {
        let reply = "# pxname,svname,scur,status,act,type,check_duration,qtime,ttime,addr,\n\
            secure_api,BACKEND,,UP,2,1,,1500,0,,\nsecure_api,u:80,0,UP 1/2,,2,12,,,10.0.0.1:80,\n";
        let columns = ["addr", "svname", "status", "qtime", "scur", "check_duration"];
        let seen = read(reply, columns).unwrap();
        assert_eq!(seen[0], ["", "BACKEND", "UP", "1500", "", ""]);
        assert_eq!(seen[1], ["10.0.0.1:80", "u:80", "UP 1/2", "", "0", "12"]);
    }

    #[test]
    fn a_row_that_is_cut_in_its_last_field_is_an_error_that_shows_it() {
        for cut in ["be,s1,\"UP,\n", "be,s1,\"a\nb\n", "be,s1,UP,,\n"] {
            let reply = format!("# pxname,svname,status,\nbe,s0,UP,\n{cut}");
            let error = read(&reply, ["status"]).unwrap_err();
            let row = cut.trim_end().to_owned();
            let why = "its columns are not those of its head".to_owned();
            assert_eq!(error, ReplyError::Unreadable { row, why });
        }
        let no_line = read("# pxname,svname,status,\nbe,s0,UP,", ["status"]).unwrap_err();
        assert!(matches!(no_line, ReplyError::Cut { .. }), "{no_line}");
    }

    proptest! {
        #[test]
        fn quoted_fields_come_back_as_they_were(
            fields in proptest::collection::vec("[a-z,\"\n ]{0,8}", 3),
        ) {
            let quoted: String =
                fields.iter().map(|field| format!("\"{}\",", field.replace('"', "\"\""))).collect();
            let reply = format!("# pxname,svname,status,\n{quoted}\n");
            let seen = read(&reply, ["pxname", "svname", "status"]).unwrap();
            prop_assert_eq!(seen.len(), 1);
            prop_assert_eq!(seen[0].to_vec(), fields);
        }
    }
}
