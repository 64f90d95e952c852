//! PQL (PuppetDB's query language): the query for what changed, made of the query for everything.
//!
//! Grammar: PuppetDB's "Puppet query language (PQL) reference". Checked against PuppetDB 7.12.

/// Entities that carry `producer_timestamp` and one row a node.
const DERIVABLE: [&str; 2] = ["factsets", "catalogs"];
/// Words that end the condition: paging and grouping can't be combined with a further condition.
const CLAUSES: [&str; 4] = ["order", "limit", "offset", "group"];

/// `entity[fields] { condition }` -> `entity[fields] { (condition) and producer_timestamp > "{since}" }`.
///
/// None where the query is of another form: then only its author can say what "changed" means.
pub(super) fn derive_delta(query: &str) -> Option<String> {
    let (head, rest) = query.split_once('{')?;
    let condition = rest.trim_end().strip_suffix('}')?.trim();
    let (entity, fields) = head.split_once('[')?;
    let fields = fields.trim_end().strip_suffix(']')?;
    // A function among the fields (`count()`) makes rows of many nodes.
    if !DERIVABLE.contains(&entity.trim()) || fields.contains(['(', '[', ']', '"', '\'']) || !is_one_condition(condition) {
        return None;
    }
    let changed = "producer_timestamp > \"{since}\"";
    let head = head.trim();
    Some(if condition.is_empty() {
        format!("{head} {{ {changed} }}")
    } else {
        format!("{head} {{ ({condition}) and {changed} }}")
    })
}

/// Whether the text is a condition and nothing else: brackets paired, no paging clause outside of them.
fn is_one_condition(text: &str) -> bool {
    let mut open = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        match character {
            '"' | '\'' => {
                let mut escaped = false;
                let closed = characters.by_ref().any(|(_, inner)| {
                    let ends = inner == character && !escaped;
                    escaped = inner == '\\' && !escaped;
                    ends
                });
                if !closed {
                    return false;
                }
            }
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(character) => return false,
            _ if is_word(character) => {
                let mut end = start + character.len_utf8();
                while let Some((at, inner)) = characters.next_if(|(_, next)| is_word(*next)) {
                    end = at + inner.len_utf8();
                }
                if open.is_empty() && CLAUSES.contains(&&text[start..end]) {
                    return false;
                }
            }
            _ => {}
        }
    }
    open.is_empty()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_for_all_factsets_or_catalogs_yields_one_for_the_changed_ones() {
        for (query, delta) in [
            ("factsets[certname, producer] {}", r#"factsets[certname, producer] { producer_timestamp > "{since}" }"#),
            (
                " catalogs [certname,producer]\n{ environment = 'a } b' and certname ~ \"\\\"x{\" }\n",
                "catalogs [certname,producer] { (environment = 'a } b' and certname ~ \"\\\"x{\") and producer_timestamp > \"{since}\" }",
            ),
            (
                r#"factsets[certname, producer] { certname in nodes[certname] { node_state = "any" limit 3 } or a = 1 }"#,
                r#"factsets[certname, producer] { (certname in nodes[certname] { node_state = "any" limit 3 } or a = 1) and producer_timestamp > "{since}" }"#,
            ),
        ] {
            assert_eq!(derive_delta(query).as_deref(), Some(delta), "{query}");
        }
    }

    #[test]
    fn a_query_of_another_form_yields_none() {
        for query in [
            "facts[certname, value] { name = 'master' }",
            "inventory[certname, facts.master] {}",
            "factsets {}",
            "factsets[certname, count()] {}",
            "factsets[certname, producer] { limit 5 }",
            "factsets[certname, producer] { certname ~ 'a' order by certname }",
            "factsets[certname, producer] { certname ~ 'a } ",
            "factsets[certname, producer] { a = 1 } { b = 2 }",
            "factsets[certname, producer] { (a = 1 }",
            "[\"from\", \"factsets\"]",
            "",
        ] {
            assert_eq!(derive_delta(query), None, "{query}");
        }
    }
}
