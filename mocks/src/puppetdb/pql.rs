//! The part of PuppetDB's query language (PQL) that asks for factsets. No I/O.
//!
//! ```text
//! factsets[FIELD, ...] { [CONDITION [and CONDITION ...]] [order by producer_timestamp] }
//! FIELD     = certname | producer | producer_timestamp
//! CONDITION = certname = "NODE" | certname in ["NODE", ...] | producer_timestamp > "TIME"
//! ```
//! Parentheses may stand around conditions: with `and` alone they change nothing.
//! Everything else is refused, in PuppetDB's words where it has some.

use std::collections::BTreeSet;

use jiff::Timestamp;

/// A field of a factset that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The node.
    Certname,
    /// The certname of the Puppet Server that sent the facts.
    Producer,
    /// When it sent them.
    ProducerTimestamp,
}

impl Field {
    const ALL: [Field; 3] = [Field::Certname, Field::Producer, Field::ProducerTimestamp];

    /// The field's name in queries and answers.
    pub fn name(self) -> &'static str {
        match self {
            Field::Certname => "certname",
            Field::Producer => "producer",
            Field::ProducerTimestamp => "producer_timestamp",
        }
    }

    fn named(name: &str) -> Option<Field> {
        Field::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// What a factset must fulfil to be in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is one of these nodes'.
    Certname(BTreeSet<String>),
    /// It was produced after this time.
    NewerThan(Timestamp),
}

/// A query for factsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsetQuery {
    /// What to answer of each factset, in this order.
    pub fields: Vec<Field>,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// Whether to order the answer by `producer_timestamp`; else by certname.
    pub oldest_first: bool,
}

/// Why a query is refused; the text is the body of the 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is not the grammar above.
    #[error("PQL parse error at line {line}, column {column}:\n\n{text}\n{marker}\n\nExpected one \
        of:\n\n{expected}\n",
        marker = format!("{:>column$}", "^"))]
    Syntax {
        /// The offending line, from 1.
        line: usize,
        /// The offending character in it, from 1.
        column: usize,
        /// That line.
        text: String,
        /// What would have been understood there.
        expected: &'static str,
    },
    /// A field that this stand-in has not.
    #[error(
        "Can't extract unknown 'factsets' field '{0}'. Acceptable fields are 'certname', \
            'producer', and 'producer_timestamp'"
    )]
    UnknownField(String),
    /// A condition on something it cannot compare.
    #[error(
        "'{0}' is not a queryable object for factsets. Known queryable objects are 'certname', \
            and 'producer_timestamp'"
    )]
    NotQueryable(String),
    /// A time that is none.
    #[error("'{0}' is not a valid timestamp value")]
    NotATimestamp(String),
}

/// Parses a query for factsets.
pub fn parse(query: &str) -> Result<FactsetQuery, QueryError> {
    let mut reader = Reader { query, position: 0 };
    reader.expect("factsets")?;
    let fields = reader.fields()?;
    reader.expect("{")?;
    let mut conditions = Vec::new();
    if !reader.sees("}") && !reader.sees("order") {
        reader.conditions(&mut conditions)?;
    }
    let oldest_first = reader.takes("order");
    if oldest_first {
        reader.expect("by")?;
        reader.expect("producer_timestamp")?;
    }
    reader.expect("}")?;
    reader.end()?;
    Ok(FactsetQuery { fields, conditions, oldest_first })
}

/// Walks over the query; `position` is always at a character boundary.
struct Reader<'query> {
    query: &'query str,
    position: usize,
}

impl<'query> Reader<'query> {
    fn skip_space(&mut self) {
        let rest = &self.query[self.position..];
        self.position += rest.len() - rest.trim_start().len();
    }

    /// The next token without taking it: a word, or one character; empty at the end.
    fn peek(&mut self) -> &'query str {
        self.skip_space();
        let rest = &self.query[self.position..];
        let word =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        &rest[..length]
    }

    fn sees(&mut self, token: &str) -> bool {
        self.peek() == token
    }

    fn takes(&mut self, token: &str) -> bool {
        let seen = self.sees(token);
        if seen {
            self.position += token.len();
        }
        seen
    }

    fn expect(&mut self, token: &'static str) -> Result<(), QueryError> {
        if self.takes(token) { Ok(()) } else { Err(self.wrong(token)) }
    }

    fn word(&mut self, expected: &'static str) -> Result<&'query str, QueryError> {
        let token = self.peek();
        if !token.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(self.wrong(expected));
        }
        self.position += token.len();
        Ok(token)
    }

    fn fields(&mut self) -> Result<Vec<Field>, QueryError> {
        self.expect("[")?;
        let mut fields = Vec::new();
        loop {
            let name = self.word("a field")?;
            fields.push(Field::named(name).ok_or_else(|| QueryError::UnknownField(name.into()))?);
            if !self.takes(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(fields)
    }

    /// Conditions that must all hold, so that it is enough to count the parentheses.
    fn conditions(&mut self, conditions: &mut Vec<Condition>) -> Result<(), QueryError> {
        let mut open = 0_usize;
        loop {
            while self.takes("(") {
                open += 1;
            }
            conditions.push(self.condition()?);
            while open > 0 && self.takes(")") {
                open -= 1;
            }
            if !self.takes("and") {
                break;
            }
        }
        if open == 0 { Ok(()) } else { Err(self.wrong(")")) }
    }

    fn condition(&mut self) -> Result<Condition, QueryError> {
        let name = self.word("a condition")?;
        match Field::named(name) {
            Some(Field::Certname) if self.takes("in") => Ok(Condition::Certname(self.texts()?)),
            Some(Field::Certname) => {
                self.expect("=")?;
                Ok(Condition::Certname(BTreeSet::from([self.text()?.into()])))
            }
            Some(Field::ProducerTimestamp) => {
                self.expect(">")?;
                let time = self.text()?;
                time.parse()
                    .map(Condition::NewerThan)
                    .map_err(|_| QueryError::NotATimestamp(time.into()))
            }
            Some(Field::Producer) | None => Err(QueryError::NotQueryable(name.into())),
        }
    }

    /// Texts in brackets.
    fn texts(&mut self) -> Result<BTreeSet<String>, QueryError> {
        self.expect("[")?;
        let mut texts = BTreeSet::from([self.text()?.into()]);
        while self.takes(",") {
            texts.insert(self.text()?.into());
        }
        self.expect("]")?;
        Ok(texts)
    }

    /// A text in double or single quotes. Certnames and times hold neither, so no escape is known.
    fn text(&mut self) -> Result<&'query str, QueryError> {
        const EXPECTED: &str = "a text in quotes";
        let quote = self.peek();
        if quote != "\"" && quote != "'" {
            return Err(self.wrong(EXPECTED));
        }
        let start = self.position + quote.len();
        match self.query[start..].find(quote) {
            Some(length) => {
                self.position = start + length + quote.len();
                Ok(&self.query[start..start + length])
            }
            None => {
                self.position = self.query.len();
                Err(self.wrong(EXPECTED))
            }
        }
    }

    fn end(&mut self) -> Result<(), QueryError> {
        if self.peek().is_empty() { Ok(()) } else { Err(self.wrong("the end of the query")) }
    }

    /// The error for what stands at the current position.
    fn wrong(&self, expected: &'static str) -> QueryError {
        let before = &self.query[..self.position];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = self.query[line_start..].lines().next().unwrap_or_default();
        QueryError::Syntax {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: text.into(),
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queries_the_source_asks_are_understood() {
        use Field::*;
        let time = "2026-11-20T10:25:04.290Z";
        let newer = Condition::NewerThan(time.parse().unwrap());
        let query = |fields: &[Field], conditions: &[Condition], oldest_first| {
            Ok(FactsetQuery {
                fields: fields.to_vec(),
                conditions: conditions.to_vec(),
                oldest_first,
            })
        };
        assert_eq!(
            parse("factsets[certname, producer] {}"),
            query(&[Certname, Producer], &[], false)
        );
        assert_eq!(
            parse(&format!(
                "factsets[certname,producer_timestamp]{{producer_timestamp>\"{time}\"}}"
            )),
            query(&[Certname, ProducerTimestamp], std::slice::from_ref(&newer), false)
        );
        assert_eq!(
            parse(&format!(
                "factsets[producer] \
                    {{ certname = 'n1'\n and producer_timestamp > \"{time}\" order by \
                    producer_timestamp }}"
            )),
            query(
                &[Producer],
                &[Condition::Certname(BTreeSet::from(["n1".into()])), newer.clone()],
                true
            )
        );
        assert_eq!(
            parse("factsets [certname] { order by producer_timestamp } "),
            query(&[Certname], &[], true)
        );
        // What a learned route makes it ask: the usual query, narrowed to some nodes.
        let nodes = Condition::Certname(BTreeSet::from(["a.example.test".into(), "c".into()]));
        assert_eq!(
            parse("factsets[certname, producer] { certname in [\"a.example.test\", \"c\"] }"),
            query(&[Certname, Producer], std::slice::from_ref(&nodes), false)
        );
        assert_eq!(
            parse(&format!(
                "factsets[certname] {{ ((producer_timestamp > \"{time}\")) and certname in ['c', \
                    'a.example.test'] }}"
            )),
            query(&[Certname], &[newer, nodes], false)
        );
    }

    #[test]
    fn a_refusal_points_at_the_place_as_puppetdb_does() {
        let text = parse("factsets[certname]").unwrap_err().to_string();
        let wanted = "PQL parse error at line 1, column \
            19:\n\nfactsets[certname]\n                  ^\n\nExpected one of:\n\n{\n";
        assert_eq!(text, wanted);
        let text = parse("factsets[certname] {\n certname ~ \"n\" }").unwrap_err().to_string();
        assert!(
            text.starts_with(
                "PQL parse error at line 2, column 11:\n\n certname ~ \"n\" }\n          ^"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_the_stand_in_does_not_know_is_refused() {
        for query in [
            "",
            "nodes[certname] {}",
            "factsets {}",
            "factsets[] {}",
            "factsets[certname, producer",
            "factsets[environment] {}",
            "factsets[certname] { producer = \"p\" }",
            "factsets[certname] { certname > \"n\" }",
            "factsets[certname] { producer_timestamp > \"yesterday\" }",
            "factsets[certname] { certname = \"n",
            "factsets[certname] { certname = \"a\" or certname = \"b\" }",
            "factsets[certname] { (certname = \"a\" }",
            "factsets[certname] { certname = \"a\") }",
            "factsets[certname] { certname in [] }",
            "factsets[certname] { certname in [\"a\" \"b\"] }",
            "factsets[certname] { certname in [\"a\", }",
            "factsets[certname] { certname in \"a\" }",
            "factsets[certname] {} extra",
            "factsets[certname] { certname = ü }",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}
