//! Columns that a table or one of its operations shows, searches and writes.

use query::Columns;
use serde_json::Value as Json;

use crate::rule::Fault;

/// Parses `columns`, which stands at `path`; sets it does not name are those of `outer`.
///
/// Who may not see a column may not search by it either: where only `read` is given, it is also what may be searched.
pub fn parse(json: &Json, path: &str, outer: &Columns, faults: &mut Vec<Fault>) -> Columns {
    const KNOWN: [&str; 4] = ["read", "filter", "write", "deny"];
    let Json::Object(members) = json else {
        faults.push(Fault { path: path.to_owned(), message: "expected an object such as {read: [id]}".to_owned() });
        return outer.clone();
    };
    for key in members.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        let hint = query::nearest(key, KNOWN).map(|known| format!(", did you mean {known}?")).unwrap_or_default();
        faults.push(Fault { path: format!("{path}.{key}"), message: format!("key {key} is not known{hint}") });
    }
    let mut set = |key: &str| names(members.get(key)?, &format!("{path}.{key}"), faults);
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

fn names(json: &Json, path: &str, faults: &mut Vec<Fault>) -> Option<Vec<String>> {
    let names = match json {
        Json::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => None,
    };
    if names.is_none() {
        faults.push(Fault { path: path.to_owned(), message: "expected a list of column names".to_owned() });
    }
    names
}
