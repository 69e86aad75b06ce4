//! Column permissions of a table or of one of its operations.

use query::Columns;
use serde_json::Value as Json;

use super::Diagnostic;

/// Parses the `columns` at `path`; lists that it does not have are inherited from `outer`.
///
/// A column that may not be read may not be searched by either, since a search reveals values: where only `read` is
/// given, `filter` is the same.
pub fn parse(json: &Json, path: &str, outer: &Columns, errors: &mut Vec<Diagnostic>) -> Columns {
    const KNOWN: [&str; 4] = ["read", "filter", "write", "deny"];
    let Json::Object(members) = json else {
        errors
            .push(Diagnostic { path: path.to_owned(), message: "expected an object such as {read: [id]}".to_owned() });
        return outer.clone();
    };
    for key in members.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        let hint = query::nearest(key, KNOWN).map(|known| format!(", did you mean {known}?")).unwrap_or_default();
        errors.push(Diagnostic { path: format!("{path}.{key}"), message: format!("unknown key {key}{hint}") });
    }
    let mut set = |key: &str| names(members.get(key)?, &format!("{path}.{key}"), errors);
    let read = set("read");
    let filter = set("filter").or_else(|| read.clone());
    let write = set("write");
    let deny = set("deny");
    Columns {
        read: read.or_else(|| outer.read.clone()),
        filter: filter.or_else(|| outer.filter.clone()),
        write: write.or_else(|| outer.write.clone()),
        deny: outer.deny.iter().cloned().chain(deny.unwrap_or_default()).collect(),
    }
}

fn names(json: &Json, path: &str, errors: &mut Vec<Diagnostic>) -> Option<Vec<String>> {
    let names = match json {
        Json::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => None,
    };
    if names.is_none() {
        errors.push(Diagnostic { path: path.to_owned(), message: "expected a list of column names".to_owned() });
    }
    names
}
