//! The table of messages held against the source, and the source's errors against the table.

use std::fs;
use std::path::{Path, PathBuf};

/// What a message's parts must have at least, for one of them: shorter ones are found anywhere.
const TELLING: usize = 10;

/// Messages in the libraries' own words.
const LIBRARIES: [&str; 1] = ["TOML parse error"];

/// What joins the parts of a message that stand apart in the source.
const JOINTS: [char; 6] = [' ', ':', ';', ',', '(', '`'];

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every text literal of the program, a file's after one another, as it prints: escapes undone,
/// lines joined.
fn literals() -> Vec<(PathBuf, Vec<String>)> {
    let mut folders = vec![
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates"),
    ];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                files.push((path, texts(code)));
            }
        }
    }
    assert!(files.len() > 40, "only {} files were found", files.len());
    files
}

/// The text literals of code, without those in comments; braces that stand for braces are single.
fn texts(code: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut characters = code.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '/' if characters.peek() == Some(&'/') => {
                while characters.next().is_some_and(|next| next != '\n') {}
            }
            // A quote as a character: '"' and b'"'.
            '\'' if characters.peek() == Some(&'"') => {
                characters.next();
            }
            '"' => {
                let mut text = String::new();
                while let Some(character) = characters.next().filter(|character| *character != '"')
                {
                    match (character, characters.peek()) {
                        ('\\', Some('\n')) => {
                            while characters.next_if(|next| next.is_whitespace()).is_some() {}
                        }
                        ('\\', Some('n')) => {
                            characters.next();
                            text.push('\n');
                        }
                        ('\\', Some(_)) => text.extend(characters.next()),
                        (_, _) => text.push(character),
                    }
                }
                texts.push(text.replace("{{", "{").replace("}}", "}"));
            }
            _ => {}
        }
    }
    texts
}

/// The messages of the table's first columns: what stands between backticks, of which a message may
/// hold some itself.
fn messages(table: &str) -> Vec<String> {
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    cells
        .flat_map(|cell| cell.split(" · "))
        .map(|message| message.trim_start_matches('`').trim_end_matches('`').to_owned())
        .collect()
}

#[test]
fn each_message_of_the_table_is_one_that_the_program_prints() {
    let messages = messages(&file("docs/messages.md"));
    assert!(messages.len() > 100, "{}", messages.len());
    let texts: Vec<String> = literals().into_iter().flat_map(|(_, texts)| texts).collect();
    let mut unknown = Vec::new();
    for message in
        messages.iter().filter(|message| !LIBRARIES.iter().any(|words| message.starts_with(words)))
    {
        let found = |part: &str| texts.iter().any(|text| text.contains(part));
        let parts = || message.split('…').map(|part| part.trim_matches(JOINTS));
        // Of a short message the longest part tells.
        let least = parts().map(str::len).max().unwrap_or_default().min(TELLING);
        let known =
            |part: &str| found(part) || (part.contains("; ") && part.split("; ").all(found));
        if least < 5 || !parts().filter(|part| part.len() >= least).all(known) {
            unknown.push(message);
        }
    }
    assert!(unknown.is_empty(), "docs/messages.md has what no source prints: {unknown:#?}");
}

#[test]
fn each_error_of_the_program_stands_in_the_table() {
    let table = file("docs/messages.md");
    let mut missing = Vec::new();
    let mut seen = 0;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/core/src");
    let files = literals();
    for (path, _) in &files {
        let text = fs::read_to_string(path).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        // The planner's own words are for its model of the process; no person sees them.
        if path.starts_with(root.join("plan")) {
            continue;
        }
        for error in code.split("#[error(").skip(1) {
            let Some(words) =
                texts(error).into_iter().next().filter(|_| error.trim_start().starts_with('"'))
            else {
                continue;
            };
            let parts = words.split(['{', '}']).map(|part| part.trim_matches(JOINTS));
            let told = parts.max_by_key(|part| part.len()).unwrap_or_default();
            // Where the cause is put in, the cause is the message.
            if told.len() < TELLING {
                continue;
            }
            seen += 1;
            if !table
                .replace('\n', " ")
                .contains(told.lines().next().unwrap_or_default().trim_matches(JOINTS))
            {
                missing.push(format!("{}: {words}", path.display()));
            }
        }
    }
    assert!(seen > 60, "only {seen} errors were found");
    assert!(missing.is_empty(), "docs/messages.md lacks: {missing:#?}");
}

#[test]
fn the_reader_of_literals_undoes_what_the_compiler_does() {
    let code =
        "let a = \"x\\\"y {{z}} \\\n      w\"; // no \"text\"\nlet b = '\"'; let c = \"\\n\";";
    assert_eq!(texts(code), ["x\"y {z} w", "\n"]);
}
