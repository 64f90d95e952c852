//! How a registry's own words for a list of servers become ours: which field of a row is what, and
//! where in the answer the list is.

use serde_json::{Map, Value};

use crate::settings::keys::kind_keys;
use crate::source::SourceKind;
use crate::source::error::SourceErrorKind;

/// Rows whose fields are named where none has what is looked for.
const SEEN_ROWS: usize = 3;
/// The most fields that are named.
const SEEN_FIELDS: usize = 20;

kind_keys! {
    /// Keys of documents that list servers in words of their own: a CMDB, an inventory, a Thalassa
    /// server. `a.b` is the field `b` of the object in the field `a`.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub struct ServerFields {
        /// The field that holds the list.
        #[unset(says "the document is the list")]
        pub list_field: Option<String>,
        /// The field of a row that has the address or host name, with or without a port.
        #[unset(says "`address`")]
        pub address_field: Option<String>,
        /// The field that has the port.
        #[unset(says "`port`")]
        pub port_field: Option<String>,
        /// The field that has the server's name.
        #[unset(says "`name`; with `address_field` none: servers are called by address and port")]
        pub name_field: Option<String>,
        /// The field that has the weight, 0 to 256.
        #[unset(says "`weight`")]
        pub weight_field: Option<String>,
        /// The field that says whether it is a backup server.
        #[unset(says "`backup`")]
        pub backup_field: Option<String>,
    }
}

impl ServerFields {
    /// Each field's setting and what that says.
    fn given(&self) -> [(&'static str, &Option<String>); 6] {
        [
            ("list_field", &self.list_field),
            ("address_field", &self.address_field),
            ("port_field", &self.port_field),
            ("name_field", &self.name_field),
            ("weight_field", &self.weight_field),
            ("backup_field", &self.backup_field),
        ]
    }

    /// The settings that name a field.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.given().iter().filter(|(_, field)| field.is_some()).map(|(key, _)| *key).collect()
    }

    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        let names = self.names();
        if !names.is_empty() && !matches!(kind, SourceKind::HttpJson | SourceKind::File) {
            problem(format!("{}: a {kind} source has none", names.join(", ")));
        }
        let is_wrong = |field: &str| field.split('.').any(str::is_empty);
        for (key, field) in self.given() {
            if field.as_deref().is_some_and(is_wrong) {
                problem(format!("{key}: a field's name, or several with a dot between"));
            }
        }
    }

    /// The rows of an answer, in our words.
    ///
    /// # Errors
    /// If there is no list where it should be, or no row has the address.
    pub(super) fn rows(&self, answer: Value) -> Result<Vec<Value>, Misread> {
        let list = match &self.list_field {
            Some(field) => {
                take(answer, field).ok_or_else(|| Misread::ListMissing(field.clone()))?
            }
            None => answer,
        };
        let Value::Array(mut rows) = list else {
            return Err(self.list_field.clone().map_or(Misread::NotAList, Misread::ListMissing));
        };
        if let Some(field) = &self.address_field
            && !rows.is_empty()
            && !rows.iter().any(|row| find(row, field).is_some())
        {
            return Err(Misread::AddressMissing { field: field.clone(), seen: seen(&rows) });
        }
        if self.given().iter().any(|(_, field)| field.is_some()) {
            rows.iter_mut().for_each(|row| self.translate(row));
        }
        Ok(rows)
    }

    /// Gives a row's fields our names.
    fn translate(&self, row: &mut Value) {
        if !row.is_object() {
            return;
        }
        // Another's `name` is seldom the name of one server.
        let name = match (&self.name_field, &self.address_field) {
            (Some(field), _) => Some(field.as_str()),
            (None, Some(_)) => None,
            (None, None) => Some("name"),
        };
        let ours = [
            ("name", name),
            ("address", Some(self.address_field.as_deref().unwrap_or("address"))),
            ("port", Some(self.port_field.as_deref().unwrap_or("port"))),
            ("weight", Some(self.weight_field.as_deref().unwrap_or("weight"))),
            ("backup", Some(self.backup_field.as_deref().unwrap_or("backup"))),
            ("options", Some("options")),
        ];
        let translated: Map<_, _> = ours
            .into_iter()
            .filter_map(|(own, field)| Some((own.to_owned(), find(row, field?)?.clone())))
            .collect();
        *row = Value::Object(translated);
    }
}

/// Why an answer is no list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misread {
    /// It is no list, and should be one.
    NotAList,
    /// This field holds none.
    ListMissing(String),
    /// No row has this field for the address.
    AddressMissing { field: String, seen: Vec<String> },
}

impl Misread {
    /// The error, with how the answer begins.
    pub(super) fn into_error(self, excerpt: String) -> SourceErrorKind {
        match self {
            Self::NotAList => SourceErrorKind::WrongShape {
                expected: "a list of servers was expected",
                text: excerpt,
            },
            Self::ListMissing(field) => SourceErrorKind::NoList { field, text: excerpt },
            Self::AddressMissing { field, seen } => {
                SourceErrorKind::NoField { setting: "address_field", field, seen }
            }
        }
    }
}

/// The value of a field, which may be one of an object within.
fn find<'v>(value: &'v Value, field: &str) -> Option<&'v Value> {
    if let Some(found) = value.get(field) {
        return Some(found);
    }
    let (outer, inner) = field.split_once('.')?;
    find(value.get(outer)?, inner)
}

/// The same, taken out.
fn take(mut value: Value, field: &str) -> Option<Value> {
    let object = value.as_object_mut()?;
    if let Some(found) = object.remove(field) {
        return Some(found);
    }
    let (outer, inner) = field.split_once('.')?;
    take(object.remove(outer)?, inner)
}

fn seen(rows: &[Value]) -> Vec<String> {
    let rows = rows.iter().take(SEEN_ROWS).filter_map(Value::as_object);
    let mut fields: Vec<_> = rows.flat_map(|row| row.keys().cloned()).collect();
    fields.sort();
    fields.dedup();
    fields.truncate(SEEN_FIELDS);
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(given: &[(&str, &str)]) -> ServerFields {
        let mut fields = ServerFields::default();
        for (key, field) in given {
            let field = Some((*field).to_owned());
            match *key {
                "list" => fields.list_field = field,
                "address" => fields.address_field = field,
                "port" => fields.port_field = field,
                "name" => fields.name_field = field,
                "weight" => fields.weight_field = field,
                _ => fields.backup_field = field,
            }
        }
        fields
    }

    #[test]
    fn rows_are_taken_in_the_registrys_words_wherever_the_list_is() {
        let ours = json!([{"name": "a", "address": "10.0.0.1", "port": 80, "owner": "x"}]);
        assert_eq!(fields(&[]).rows(ours.clone()), Ok(vec![ours[0].clone()]), "as it is");
        let cmdb = json!({"result": {"hosts": [
            {"fqdn": "web1", "net": {"ip": "10.0.0.1", "port": "80"}, "share": 5, "spare": true},
            7,
        ]}});
        let given = [
            ("list", "result.hosts"),
            ("address", "net.ip"),
            ("port", "net.port"),
            ("name", "fqdn"),
            ("weight", "share"),
            ("backup", "spare"),
        ];
        let row = json!({
            "name": "web1", "address": "10.0.0.1", "port": "80", "weight": 5, "backup": true,
        });
        assert_eq!(fields(&given).rows(cmdb), Ok(vec![row, json!(7)]));
        let dotted = json!([{"net.ip": "10.0.0.2", "name": "web", "port": 1}]);
        assert_eq!(
            fields(&[("address", "net.ip")]).rows(dotted),
            Ok(vec![json!({"address": "10.0.0.2", "port": 1})]),
            "the row's name is not taken for the server's"
        );
    }

    #[test]
    fn a_list_that_is_not_there_is_no_empty_one() {
        let list = || fields(&[("list", "hosts")]);
        assert_eq!(list().rows(json!({"hosts": []})), Ok(vec![]));
        for answer in [json!({}), json!([]), json!({"hosts": {}}), json!({"hosts": null})] {
            assert_eq!(list().rows(answer), Err(Misread::ListMissing("hosts".to_owned())));
        }
        assert_eq!(fields(&[]).rows(json!({"hosts": []})), Err(Misread::NotAList));
        let seen = vec!["host".to_owned(), "port".to_owned()];
        assert_eq!(
            fields(&[("address", "ip")]).rows(json!([{"host": "a", "port": 1}, 7])),
            Err(Misread::AddressMissing { field: "ip".to_owned(), seen })
        );
    }
}
