//! Introspection of a database from `information_schema`, which shows what our user may use.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

use mysql_async::{Conn, Row, Value, prelude::Queryable};
use query::{
    Abilities, Column, Comparisons, Equality, EqualityClass, ForeignKey, Matching, Schema, Table, TableKind, Type,
    Writes,
};

use super::error::{MysqlError, UniqueKeys};
use crate::{Introspected, LeftOut};

const TABLES: &str = "\
SELECT t.TABLE_NAME, t.TABLE_TYPE, t.TABLE_COMMENT, e.TRANSACTIONS FROM information_schema.TABLES AS t
LEFT JOIN information_schema.ENGINES AS e ON e.ENGINE = t.ENGINE
WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE <> 'SEQUENCE' ORDER BY t.TABLE_NAME";
const COLUMNS: &str = "\
SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, COLLATION_NAME, PRIVILEGES
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION";
const VIEWS: &str = "\
SELECT TABLE_NAME, IS_UPDATABLE FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME";
/// Unique indexes. A part of a column is none, nor is an expression: it has no name.
const KEYS: &str = "\
SELECT TABLE_NAME, INDEX_NAME, IF(SUB_PART IS NULL, COLUMN_NAME, NULL) FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = DATABASE() AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX";
const FOREIGN_KEYS: &str = "\
SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME
FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_SCHEMA = DATABASE()
ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION";
const TRIGGERS: &str = "\
SELECT DISTINCT EVENT_OBJECT_TABLE, EVENT_MANIPULATION FROM information_schema.TRIGGERS
WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND ACTION_TIMING = 'BEFORE' ORDER BY EVENT_OBJECT_TABLE, EVENT_MANIPULATION";
/// Columns of JSON, which MariaDB declares as texts with a check.
const JSON: &str = "\
SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.CHECK_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = DATABASE() AND LEVEL = 'Column' AND CHECK_CLAUSE LIKE 'json\\_valid(%' ESCAPE '\\'
ORDER BY TABLE_NAME, CONSTRAINT_NAME";

/// What a server says of itself where it is MariaDB.
const MARIADB: &str = "MariaDB";
/// The first version with what statements are made of: `JSON_TABLE` last.
const VERSION_MIN: (u32, u32) = (10, 6);

/// Rows of texts, each of which may be null.
type Texts = Vec<Vec<Option<String>>>;

/// What the catalog says of a database.
#[derive(Debug, Default)]
pub struct MysqlCatalog {
    tables: Texts,
    columns: Texts,
    views: Texts,
    keys: Texts,
    foreign_keys: Texts,
    triggers: Texts,
    json: Texts,
}

/// Reads the catalog of the database that the connection is in.
pub async fn read(conn: &mut Conn) -> Result<MysqlCatalog, MysqlError> {
    let version: Option<String> = conn.query_first("SELECT version()").await?;
    let version = version.unwrap_or_default();
    if !is_served(&version) {
        return Err(MysqlError::Connect(format!("expected MariaDB 10.6 or later, found version {version}")));
    }
    Ok(MysqlCatalog {
        tables: texts(conn, TABLES).await?,
        columns: texts(conn, COLUMNS).await?,
        views: texts(conn, VIEWS).await?,
        keys: texts(conn, KEYS).await?,
        foreign_keys: texts(conn, FOREIGN_KEYS).await?,
        triggers: texts(conn, TRIGGERS).await?,
        json: texts(conn, JSON).await?,
    })
}

/// Whether a server of a version, as `10.11.6-MariaDB`, is served. MySQL returns no rows that it writes.
fn is_served(version: &str) -> bool {
    // Some say so with a version of MySQL before their own: `5.5.5-10.11.6-MariaDB`.
    let own = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = own.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    version.contains(MARIADB) && (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) >= VERSION_MIN
}

async fn texts(conn: &mut Conn, query: &str) -> Result<Texts, MysqlError> {
    let rows: Vec<Row> = conn.query(query).await?;
    let text = |value: Value| match value {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    };
    Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
}

/// A text that changes when the catalog does.
pub fn mark(catalog: &MysqlCatalog) -> String {
    use std::hash::Hash;

    let mut hasher = DefaultHasher::new();
    let MysqlCatalog { tables, columns, views, keys, foreign_keys, triggers, json } = catalog;
    for texts in [tables, columns, views, keys, foreign_keys, triggers, json] {
        texts.hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// The schema that a catalog describes, and the columns of its unique keys.
pub fn introspected(catalog: &MysqlCatalog) -> (Introspected, UniqueKeys) {
    let mut left_out = Vec::new();
    let mut tables = Vec::new();
    let json: HashSet<(&str, &str)> = catalog.json.iter().map(|row| (text(row, 0), text(row, 1))).collect();
    for row in &catalog.tables {
        let name = text(row, 0);
        let columns: Vec<&Vec<Option<String>>> = catalog.columns.iter().filter(|row| text(row, 0) == name).collect();
        let is_view = text(row, 1).ends_with("VIEW");
        // What a rule refuses after it was written could not be taken back.
        let is_written = is_view || text(row, 3) == "YES";
        match reason(text(row, 2), is_view, columns.is_empty()) {
            Some(why) => left_out.push(LeftOut::until_change(name, why)),
            None => tables.push(table(name, (is_view, is_written), &columns, catalog, &json)),
        }
    }
    let names = keys(&mut tables, &catalog.keys);
    foreign_keys(&mut tables, &catalog.foreign_keys);
    (Introspected { schema: Schema::new(tables), left_out }, names)
}

/// Why a table or view cannot be served: its comment says so of a view.
fn reason(comment: &str, is_view: bool, has_no_columns: bool) -> Option<String> {
    let is_broken = is_view && (has_no_columns || comment.contains("references invalid table(s)"));
    match (is_broken, has_no_columns) {
        (true, _) => {
            Some("it refers to tables, columns or functions that are not there, or may not be used".to_owned())
        }
        (false, true) => Some("none of its columns may be used".to_owned()),
        (false, false) => None,
    }
}

fn table(
    name: &str,
    (is_view, is_written): (bool, bool),
    columns: &[&Vec<Option<String>>],
    catalog: &MysqlCatalog,
    json: &HashSet<(&str, &str)>,
) -> Table {
    let columns = columns.iter().map(|row| column(row, json.contains(&(name, text(row, 1))))).collect();
    let is_updatable = || catalog.views.iter().any(|row| text(row, 0) == name && text(row, 1) == "YES");
    let has_trigger = |event: &str| catalog.triggers.iter().any(|row| text(row, 0) == name && text(row, 1) == event);
    Table {
        kind: if is_view { TableKind::View } else { TableKind::Table },
        writes: if is_written && (!is_view || is_updatable()) { Writes::ALL } else { Writes::NONE },
        row_triggers: Writes { insert: has_trigger("INSERT"), update: has_trigger("UPDATE"), delete: false },
        ..Table::new(name, columns)
    }
}

fn column(row: &[Option<String>], is_json: bool) -> Column {
    let (native, extra) = (text(row, 3), text(row, 6).to_ascii_uppercase());
    let collation = row[7].as_deref();
    let mut r#type = declared(text(row, 2), native);
    if is_json {
        r#type = Type::Json;
    }
    let equality = equality(text(row, 2), r#type, collation);
    let default = row[5].as_deref().filter(|default| *default != "NULL");
    Column {
        nullable: text(row, 4) == "YES",
        has_default: default.is_some() || extra.contains("AUTO_INCREMENT"),
        generated: is_generated(&extra) || is_spatial(text(row, 2)),
        readable: text(row, 8).contains("select"),
        abilities: Abilities {
            comparisons: comparisons(text(row, 2)),
            wide_times: false,
            matching: matching(r#type, &equality),
        },
        equality,
        ..Column::new(text(row, 1), r#type, native)
    }
}

/// Whether the database computes a column: `VIRTUAL GENERATED`, `STORED GENERATED`, and the times of a row's version.
fn is_generated(extra: &str) -> bool {
    extra.contains("VIRTUAL")
        || extra.contains("STORED")
        || extra.contains("PERSISTENT")
        || extra.contains("INVISIBLE ROW")
}

fn is_spatial(data_type: &str) -> bool {
    let name = data_type.to_ascii_lowercase();
    ["geometry", "point", "linestring", "polygon", "geometrycollection"].iter().any(|kind| name.ends_with(kind))
        || name == "vector"
}

/// The type that a declaration means. An unsigned `bigint`, and bits, are decimals: half of their values are no `Int64`.
fn declared(data_type: &str, native: &str) -> Type {
    let is_unsigned = native.contains("unsigned");
    match data_type.to_ascii_lowercase().as_str() {
        "tinyint" if native.starts_with("tinyint(1)") && !is_unsigned => Type::Bool,
        "bit" if native == "bit(1)" => Type::Bool,
        "tinyint" | "year" => Type::Int16,
        "smallint" if !is_unsigned => Type::Int16,
        "smallint" | "mediumint" => Type::Int32,
        "int" if !is_unsigned => Type::Int32,
        "int" => Type::Int64,
        "bigint" if !is_unsigned => Type::Int64,
        "bigint" | "bit" | "decimal" => Type::Decimal,
        "float" | "double" => Type::Float,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Type::Text,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Type::Bytes,
        "date" => Type::Date,
        "time" => Type::Time,
        "datetime" | "timestamp" => Type::Timestamp,
        "uuid" => Type::Uuid,
        "json" => Type::Json,
        name if is_spatial(name) => Type::Bytes,
        _ => Type::Other,
    }
}

/// What decides whether values are equal. Of texts a collation without folding and padding is what their bytes say; all
/// others are the database's to compare.
fn equality(data_type: &str, r#type: Type, collation: Option<&str>) -> Equality {
    let class = match (r#type, data_type.to_ascii_lowercase().as_str()) {
        (Type::Decimal, "decimal") => EqualityClass::Number,
        (Type::Int16 | Type::Int32 | Type::Int64 | Type::Decimal, _) => EqualityClass::Integer,
        (Type::Float, "float") => EqualityClass::Single,
        (Type::Float, _) => EqualityClass::Double,
        (Type::Bool, _) => EqualityClass::Bool,
        (Type::Text, _) if collation.is_some_and(is_binary) => EqualityClass::Text,
        (Type::Bytes, _) => EqualityClass::Bytes,
        (Type::Date, _) => EqualityClass::Date,
        (Type::Time, _) => EqualityClass::Time,
        (Type::Timestamp, _) => EqualityClass::Timestamp,
        (Type::Uuid, _) => EqualityClass::Uuid,
        _ => EqualityClass::Database,
    };
    Equality { class, collation: collation.map(Arc::from) }
}

/// Whether texts of a collation are equal where their bytes are, and ordered as these.
fn is_binary(collation: &str) -> bool {
    collation.starts_with("utf8mb4") && collation.ends_with("_nopad_bin")
}

/// Labels are ordered by their numbers, and compared as texts.
fn comparisons(data_type: &str) -> Comparisons {
    match data_type.to_ascii_lowercase().as_str() {
        "enum" | "set" => Comparisons::Equality,
        name if is_spatial(name) => Comparisons::None,
        _ => Comparisons::All,
    }
}

/// Which comparisons of values as they are read have the result that the database gives.
fn matching(r#type: Type, equality: &Equality) -> Matching {
    match (r#type, equality.class) {
        (Type::Bool | Type::Int16 | Type::Int32 | Type::Int64 | Type::Decimal, _)
        | (Type::Float, EqualityClass::Double)
        | (Type::Text, EqualityClass::Text)
        | (Type::Bytes | Type::Date | Type::Time | Type::Timestamp, _) => Matching::All,
        // Equality is by bytes; the order is that of a collation, or of the parts of a UUID.
        (Type::Text | Type::Uuid, _) => Matching::Equality,
        _ => Matching::None,
    }
}

/// Notes the unique keys of `tables`; the columns of each by the names of table and key.
fn keys(tables: &mut [Table], rows: &Texts) -> UniqueKeys {
    let mut found: BTreeMap<(&str, &str), Option<Vec<String>>> = BTreeMap::new();
    for row in rows {
        let key = found.entry((text(row, 0), text(row, 1))).or_insert_with(|| Some(Vec::new()));
        match (&row[2], key.as_mut()) {
            (Some(column), Some(columns)) => columns.push(column.clone()),
            _ => *key = None,
        }
    }
    let mut names = UniqueKeys::new();
    let mut by_name: HashMap<String, &mut Table> = tables.iter_mut().map(|table| (table.name.clone(), table)).collect();
    for ((table, name), columns) in found {
        let Some(columns) = columns else { continue };
        names.insert((table.to_owned(), name.to_owned()), columns.clone());
        let Some(table) = by_name.get_mut(table) else { continue };
        let is_readable = |name: &String| table.column(name).is_ok_and(|column| column.readable);
        if !columns.iter().all(is_readable) {
            continue;
        }
        if name == "PRIMARY" {
            table.primary_key = columns;
        } else if !table.unique_keys.contains(&columns) {
            table.unique_keys.push(columns);
        }
    }
    for table in by_name.into_values() {
        let primary = table.primary_key.clone();
        table.unique_keys.retain(|key| *key != primary);
    }
    names
}

fn foreign_keys(tables: &mut [Table], rows: &Texts) {
    let mut found: BTreeMap<(&str, &str), ForeignKey> = BTreeMap::new();
    for row in rows {
        let key = found.entry((text(row, 0), text(row, 1))).or_insert_with(|| ForeignKey {
            columns: Vec::new(),
            foreign_database: None,
            foreign_table: text(row, 3).to_owned(),
            foreign_columns: Vec::new(),
        });
        key.columns.push(text(row, 2).to_owned());
        key.foreign_columns.push(text(row, 4).to_owned());
    }
    let known: HashMap<String, HashSet<String>> = tables
        .iter()
        .map(|table| {
            let readable = table.columns.iter().filter(|column| column.readable).map(|column| column.name.clone());
            (table.name.clone(), readable.collect())
        })
        .collect();
    let has = |table: &str, columns: &[String]| {
        known.get(table).is_some_and(|known| columns.iter().all(|column| known.contains(column)))
    };
    for ((name, _), key) in found {
        if !has(name, &key.columns) || !has(&key.foreign_table, &key.foreign_columns) {
            continue;
        }
        if let Some(table) = tables.iter_mut().find(|table| table.name == name) {
            table.foreign_keys.push(key);
        }
    }
}

/// Labels of a declaration `enum('a','it''s')`, in their order; `None` of another.
pub fn labels(native: &str) -> Option<Vec<String>> {
    let listed = native.strip_prefix("enum('").or_else(|| native.strip_prefix("set('"))?.strip_suffix("')")?;
    Some(listed.split("','").map(|label| label.replace("''", "'")).collect())
}

fn text(row: &[Option<String>], at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_mean_what_they_say() {
        for (data_type, native, r#type) in [
            ("tinyint", "tinyint(1)", Type::Bool),
            ("tinyint", "tinyint(4)", Type::Int16),
            ("bit", "bit(1)", Type::Bool),
            ("bit", "bit(8)", Type::Decimal),
            ("int", "int(10) unsigned", Type::Int64),
            ("bigint", "bigint(20) unsigned", Type::Decimal),
            ("decimal", "decimal(10,2)", Type::Decimal),
            ("year", "year(4)", Type::Int16),
            ("timestamp", "timestamp(6)", Type::Timestamp),
            ("enum", "enum('a','b')", Type::Other),
            ("inet6", "inet6", Type::Other),
            ("multipolygon", "multipolygon", Type::Bytes),
        ] {
            assert_eq!(declared(data_type, native), r#type, "{native}");
        }
    }

    #[test]
    fn servers_of_mariadb_are_served_from_a_version_on() {
        for version in ["10.6.12-MariaDB-log", "5.5.5-10.11.19-MariaDB-0+deb12u1", "11.4.2-MariaDB"] {
            assert!(is_served(version), "{version}");
        }
        for version in ["10.5.23-MariaDB", "5.5.5-10.3.1-MariaDB", "8.0.36", "8.4.0-commercial", ""] {
            assert!(!is_served(version), "{version}");
        }
    }

    #[test]
    fn labels_are_those_of_the_declaration() {
        assert_eq!(labels("enum('a','it''s')"), Some(vec!["a".to_owned(), "it's".to_owned()]));
        assert_eq!(labels("varchar(3)"), None);
    }

    #[test]
    fn texts_are_equal_by_their_bytes_in_collations_that_neither_fold_nor_pad() {
        let class = |collation| equality("varchar", Type::Text, Some(collation)).class;
        assert_eq!(class("utf8mb4_nopad_bin"), EqualityClass::Text);
        for other in ["utf8mb4_bin", "utf8mb4_general_ci", "latin1_nopad_bin"] {
            assert_eq!(class(other), EqualityClass::Database, "{other}");
        }
    }
}
