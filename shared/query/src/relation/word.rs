//! Words in the names of foreign key columns.

use crate::ForeignKey;

/// Ends of columns that say what kind of value refers, besides the name of the column that they refer to.
const SUFFIXES: [&str; 5] = ["_uuid", "_guid", "_key", "_code", "_fk"];
/// The same before the name, as in many languages: `id_cliente`.
const PREFIXES: [&str; 2] = ["id_", "fk_"];

/// What the row that `key` refers to is to its row: `author` for `author_id`, `origin` for `origin_code`.
///
/// Of several columns the one decides that is called otherwise than the column it refers to, as `author_id` does beside
/// `tenant_id`; where there is none, or more than one, it is the name of the other table.
pub fn role(key: &ForeignKey) -> &str {
    let mut pairs = key.columns.iter().zip(&key.foreign_columns);
    if let ([column], [foreign]) = (key.columns.as_slice(), key.foreign_columns.as_slice()) {
        return bare(column, foreign);
    }
    let mut differing = pairs.by_ref().filter(|(column, foreign)| column != foreign);
    match (differing.next(), differing.next()) {
        (Some((column, foreign)), None) => bare(column, foreign),
        (Some(_), Some(_)) | (None, _) => &key.foreign_table,
    }
}

/// What the other direction of a self reference in the role `role` is called, where there is a word for it.
pub fn opposite(role: &str) -> Option<&'static str> {
    match role {
        "parent" => Some("children"),
        "Parent" => Some("Children"),
        _ => None,
    }
}

/// `column` without a trailing `_id`, `Id` or `ID`; empty where nothing else is in it.
pub fn without_id(column: &str) -> &str {
    ["_id", "Id", "ID"].iter().find_map(|suffix| column.strip_suffix(suffix)).unwrap_or(column).trim_end_matches('_')
}

/// `column`, which refers to a column `foreign`, without what only says that it refers; itself where nothing would be left.
fn bare<'c>(column: &'c str, foreign: &str) -> &'c str {
    let stripped = match without_id(column) {
        name if name != column => Some(name),
        _ => without_foreign(column, foreign)
            .or_else(|| SUFFIXES.iter().find_map(|suffix| column.strip_suffix(suffix)))
            .or_else(|| PREFIXES.iter().find_map(|prefix| column.strip_prefix(prefix))),
    };
    stripped.map(|name| name.trim_matches('_')).filter(|name| !name.is_empty()).unwrap_or(column)
}

/// `origin_code` or `originCode` without the name of the column `code`.
fn without_foreign<'c>(column: &'c str, foreign: &str) -> Option<&'c str> {
    let first = foreign.chars().next()?;
    let rest = column.strip_suffix(&foreign[first.len_utf8()..])?;
    let capital = first.to_ascii_uppercase();
    match rest.strip_suffix(capital) {
        // A word that begins with a capital, after one that does not end with one.
        Some(name) if capital.is_ascii_uppercase() && !name.ends_with(|c: char| c.is_ascii_uppercase()) => Some(name),
        Some(_) | None => rest.strip_suffix(first)?.strip_suffix('_'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(columns: &[&str], foreign: &[&str]) -> ForeignKey {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ForeignKey {
            columns: names(columns),
            foreign_database: None,
            foreign_table: "far".to_owned(),
            foreign_columns: names(foreign),
        }
    }

    #[test]
    fn a_column_is_a_role_without_what_says_that_it_refers() {
        for (column, foreign, expected) in [
            ("author_id", "id", "author"),
            ("authorId", "id", "author"),
            ("AuthorID", "ID", "Author"),
            ("origin_code", "code", "origin"),
            ("originCode", "code", "origin"),
            ("OriginCode", "Code", "Origin"),
            ("origin_country_code", "country_code", "origin"),
            ("origin_iso", "iso", "origin"),
            ("barcode", "code", "barcode"),
            ("BARCODE", "CODE", "BARCODE"),
            ("BAR_CODE", "CODE", "BAR"),
            ("author_uuid", "id", "author"),
            ("author_key", "pk", "author"),
            ("id_cliente", "id", "cliente"),
            ("fk_user", "id", "user"),
            ("reports_to", "employee_id", "reports_to"),
            ("entity0", "id", "entity0"),
            ("code", "code", "code"),
            ("_code", "code", "_code"),
            ("_id", "id", "_id"),
            ("id", "id", "id"),
            ("id_", "id", "id"),
            ("größeé", "é", "größeé"),
            ("größe_é", "é", "größe"),
            ("a_", "", "a"),
        ] {
            assert_eq!(role(&key(&[column], &[foreign])), expected, "{column} to {foreign}");
        }
    }

    #[test]
    fn of_several_columns_the_one_decides_that_is_called_otherwise() {
        assert_eq!(role(&key(&["tenant_id", "author_id"], &["tenant_id", "id"])), "author");
        assert_eq!(role(&key(&["tenant_id", "user_id"], &["tenant_id", "user_id"])), "far");
        assert_eq!(role(&key(&["r", "n"], &["row", "number"])), "far");
    }
}
