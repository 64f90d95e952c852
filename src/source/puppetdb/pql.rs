//! PQL (PuppetDB's query language): the query for what changed, made of the query for everything.
//!
//! Grammar: PuppetDB's "Puppet query language (PQL) reference". Checked against PuppetDB 7.12.

/// Entities that carry `producer_timestamp` and one row a node.
const DERIVABLE: [&str; 2] = ["factsets", "catalogs"];
/// Entities that carry `certname`, with one row a node for what names its master.
const NARROWABLE: [&str; 5] = ["factsets", "catalogs", "nodes", "facts", "inventory"];
/// Words that end the condition: paging and grouping can't be combined with a further condition.
const CLAUSES: [&str; 4] = ["order", "limit", "offset", "group"];

/// `entity[fields] { condition }` ->
/// `entity[fields] { (condition) and producer_timestamp > "{since}" }`.
///
/// None where the query is of another form: then only its author can say what "changed" means.
pub(super) fn derive_delta(query: &str) -> Option<String> {
    let query = Query::parse(query)?;
    DERIVABLE.contains(&query.entity).then(|| query.and("producer_timestamp > \"{since}\""))
}

/// `entity[fields] { condition }` -> `entity[fields] { (condition) and certname in ["a", "b"] }`.
///
/// None where the query is of another form, or no node's name can be written: a certname needs no
/// escapes.
pub(super) fn narrow(query: &str, nodes: &[String]) -> Option<String> {
    let query = Query::parse(query)?;
    let names: Vec<_> = nodes
        .iter()
        .filter(|node| !node.contains(['"', '\'', '\\']))
        .map(|node| format!("\"{node}\""))
        .collect();
    let narrowed = NARROWABLE.contains(&query.entity) && !names.is_empty();
    narrowed.then(|| query.and(&format!("certname in [{}]", names.join(", "))))
}

/// `entity[fields] { condition }`.
struct Query<'a> {
    /// The entity with its fields.
    head: &'a str,
    entity: &'a str,
    condition: &'a str,
}

impl<'a> Query<'a> {
    /// None where it is of another form, or its rows are not one node's each.
    fn parse(query: &'a str) -> Option<Self> {
        let (head, rest) = query.split_once('{')?;
        let condition = rest.trim_end().strip_suffix('}')?.trim();
        let (entity, fields) = head.split_once('[')?;
        let fields = fields.trim_end().strip_suffix(']')?;
        // A function among the fields (`count()`) makes rows of many nodes.
        let plain = !fields.contains(['(', '[', ']', '"', '\'']) && is_one_condition(condition);
        plain.then(|| Self { head: head.trim(), entity: entity.trim(), condition })
    }

    /// With a further condition.
    fn and(&self, more: &str) -> String {
        let Self { head, condition, .. } = self;
        if condition.is_empty() {
            format!("{head} {{ {more} }}")
        } else {
            format!("{head} {{ ({condition}) and {more} }}")
        }
    }
}

/// Whether the text is a condition and nothing else: brackets paired, no paging clause outside of
/// them.
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
            (
                "factsets[certname, producer] {}",
                r#"factsets[certname, producer] { producer_timestamp > "{since}" }"#,
            ),
            (
                " catalogs [certname,producer]\n{ environment = 'a } b' and certname \
                    ~ \"\\\"x{\" }\n",
                "catalogs [certname,producer] { (environment = 'a } b' and certname \
                    ~ \"\\\"x{\") and producer_timestamp > \"{since}\" }",
            ),
            (
                "factsets[certname, producer] { certname in nodes[certname] \
                    { node_state = \"any\" limit 3 } or a = 1 }",
                "factsets[certname, producer] { (certname in nodes[certname] \
                    { node_state = \"any\" limit 3 } or a = 1) and \
                    producer_timestamp > \"{since}\" }",
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

    #[test]
    fn a_query_for_all_nodes_is_narrowed_to_some_of_them() {
        let nodes = ["a.example.test", "b\"] or certname ~ [\"", "c"].map(str::to_owned);
        for (query, narrowed) in [
            (
                "factsets[certname, producer] {}",
                r#"factsets[certname, producer] { certname in ["a.example.test", "c"] }"#,
            ),
            (
                "facts[certname, value] { name = 'master' }",
                "facts[certname, value] { (name = 'master') and certname in \
                    [\"a.example.test\", \"c\"] }",
            ),
        ] {
            assert_eq!(narrow(query, &nodes).as_deref(), Some(narrowed));
        }
        for query in [
            "factsets[certname, count()] {}",
            "factsets[certname] { limit 5 }",
            "resources[certname] {}",
        ] {
            assert_eq!(narrow(query, &nodes), None, "{query}");
        }
        assert_eq!(
            narrow("factsets[certname, producer] {}", &nodes[1..2]),
            None,
            "no name is left to ask for"
        );
    }
}
