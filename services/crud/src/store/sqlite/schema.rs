//! Introspection of a database file.

use query::{Column, ForeignKey, Schema, Table, TableKind, Type, Writes};
use rusqlite::{Connection, Error as DriverError, ErrorCode, Result as DriverResult};

use super::{
    SqliteError, changes,
    equality::{self, Holder},
    log,
};
use crate::{Introspected, LeftOut, store::identifier};

/// Tables and views, without SQLite's own, those behind virtual tables and ours: the one that counts changes, and those
/// of the log, whose texts begin as given.
const TABLES: &str = "SELECT name, type, wr, strict FROM pragma_table_list \
     WHERE schema = 'main' AND type IN ('table', 'view', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
     AND NOT EXISTS (SELECT 1 FROM sqlite_schema AS ours WHERE ours.name = pragma_table_list.name AND (ours.sql = ?1 \
         OR (ours.name = 'perigee_log' AND instr(ours.sql, ?2) = 1) \
         OR (ours.name = 'perigee_log_shapes' AND instr(ours.sql, ?3) = 1) \
         OR (ours.name = 'perigee_log_replaced' AND instr(ours.sql, ?4) = 1))) \
     ORDER BY name";

/// A table or view as SQLite lists it.
struct Listed {
    name: String,
    kind: TableKind,
    has_rowid: bool,
    holder: Holder,
}

/// Reads the schema in one snapshot, which the caller ends. Views that do not compile, and virtual tables whose module
/// is not there, are left out.
pub fn introspect(reader: &Connection) -> Result<Introspected, SqliteError> {
    reader.execute_batch("BEGIN")?;
    let (mut tables, mut left_out) = (Vec::new(), Vec::new());
    for listed in listed(reader)? {
        match table(reader, &listed) {
            Ok(table) => tables.push(table),
            Err(error) => match reason(&error) {
                Some(why) => left_out.push(LeftOut::until_change(listed.name, why)),
                None => return Err(error.into()),
            },
        }
    }
    resolve(&mut tables);
    Ok(Introspected { schema: Schema::new(tables), left_out })
}

fn listed(reader: &Connection) -> DriverResult<Vec<Listed>> {
    let mut listed = reader.prepare_cached(TABLES)?;
    let ours = [changes::TABLE_SQL, log::LOG_SQL, log::SHAPES_SQL, log::REPLACED_SQL];
    let rows = listed.query_map(ours, |row| {
        let kind = match row.get::<_, String>(1)?.as_str() {
            "view" => TableKind::View,
            "virtual" => TableKind::Virtual,
            _ => TableKind::Table,
        };
        let holder = match (row.get::<_, String>(1)?.as_str(), row.get(3)?) {
            ("table", false) => Holder::Plain,
            ("table", true) => Holder::Strict,
            _ => Holder::Other,
        };
        Ok(Listed { name: row.get(0)?, kind, has_rowid: !row.get::<_, bool>(2)?, holder })
    })?;
    rows.collect()
}

fn table(reader: &Connection, listed: &Listed) -> DriverResult<Table> {
    let Listed { name, kind, has_rowid, holder } = listed;
    // Reading it has to compile: of a view, with all that it is made of.
    reader.prepare(&format!("SELECT * FROM {}", identifier(name)))?;
    let mut columns = columns(reader, name, *kind)?;
    let key = primary_key(reader, name, *has_rowid)?;
    for column in &mut columns {
        column.equality = equality::of(reader, name, &column.name, &column.native, *holder)?;
        column.abilities.matching = equality::matching(column.r#type, &column.equality);
        let is_in_key = key.columns.contains(&column.name);
        column.nullable &= !is_in_key || key.may_be_null;
        column.has_default |= is_in_key && key.is_rowid;
    }
    let writes = match kind {
        TableKind::Table | TableKind::Virtual => Writes::ALL,
        TableKind::View => view_writes(reader, name, &mut columns),
    };
    let row_id = match kind {
        TableKind::Table | TableKind::Virtual if *has_rowid && (key.columns.is_empty() || key.may_be_null) => {
            row_id(columns.iter().map(|column| column.name.as_str()))
        }
        TableKind::Table | TableKind::View | TableKind::Virtual => None,
    };
    Ok(Table {
        kind: *kind,
        unique_keys: unique_keys(reader, name)?,
        foreign_keys: foreign_keys(reader, name)?,
        primary_key: key.columns,
        writes,
        // A trigger of SQLite does not change the row that is written.
        row_triggers: Writes::NONE,
        row_id: row_id.into_iter().map(str::to_owned).collect(),
        ..Table::new(name, columns)
    })
}

/// What `INSTEAD OF` triggers let be written through a view: what SQLite compiles. A column that none of them takes is
/// marked as computed, where inserts do not take it either.
fn view_writes(reader: &Connection, name: &str, columns: &mut [Column]) -> Writes {
    let view = identifier(name);
    let compiles = |sql: String| reader.prepare(&sql).is_ok();
    let is_updated = |column: &Column| compiles(format!("UPDATE {view} SET {} = NULL", identifier(&column.name)));
    let updated: Vec<bool> = columns.iter().map(is_updated).collect();
    let writes = Writes {
        insert: compiles(format!("INSERT INTO {view} DEFAULT VALUES")),
        update: updated.contains(&true),
        delete: compiles(format!("DELETE FROM {view}")),
    };
    if writes.update && !writes.insert {
        columns.iter_mut().zip(updated).for_each(|(column, is_updated)| column.generated = !is_updated);
    }
    writes
}

/// The first of SQLite's names of the hidden row identifier that no column has.
pub fn row_id<'c>(columns: impl Iterator<Item = &'c str> + Clone) -> Option<&'static str> {
    let is_free = |name: &&str| columns.clone().all(|column| !column.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(is_free)
}

/// Why one object cannot be read; `None` for failures of the connection or the file.
fn reason(error: &DriverError) -> Option<String> {
    let (code, text) = match error {
        DriverError::SqliteFailure(code, text) => (code, text.clone().unwrap_or_else(|| code.to_string())),
        DriverError::SqlInputError { error, msg, .. } => (error, msg.clone()),
        _ => return None,
    };
    // Of SQLite's codes the one without a name: the statement is wrong.
    (code.code == ErrorCode::Unknown).then_some(text)
}

fn columns(reader: &Connection, table: &str, kind: TableKind) -> DriverResult<Vec<Column>> {
    let mut listed = reader.prepare_cached(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let mut rows = listed.query([table])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let (native, hidden): (String, i64) = (row.get(1)?, row.get(4)?);
        // 1 is a hidden column of a virtual table; 2 and 3 are computed.
        if hidden == 1 {
            continue;
        }
        columns.push(Column {
            nullable: !row.get::<_, bool>(2)?,
            has_default: row.get(3)?,
            generated: hidden > 1,
            ..Column::new(row.get::<_, String>(0)?, declared(&native, kind), native)
        });
    }
    Ok(columns)
}

/// A primary key as SQLite keeps it.
struct PrimaryKey {
    /// Its columns in its order; empty where there is none.
    columns: Vec<String>,
    /// It is another name of the hidden row identifier, which SQLite gives.
    is_rowid: bool,
    /// Rows may have nulls in it, any number of them: it is an index beside the rows, and a column says no `NOT NULL`.
    may_be_null: bool,
}

fn primary_key(reader: &Connection, table: &str, has_rowid: bool) -> DriverResult<PrimaryKey> {
    let mut listed =
        reader.prepare_cached("SELECT name, \"notnull\" FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let columns = listed.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
    let columns: Vec<(String, bool)> = columns.collect::<DriverResult<_>>()?;
    let mut indexes = reader.prepare_cached("SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk'")?;
    let is_rowid = has_rowid && columns.len() == 1 && !indexes.exists([table])?;
    let may_be_null = has_rowid && !is_rowid && columns.iter().any(|(_, is_not_null)| !is_not_null);
    Ok(PrimaryKey { columns: columns.into_iter().map(|(name, _)| name).collect(), is_rowid, may_be_null })
}

fn unique_keys(reader: &Connection, table: &str) -> DriverResult<Vec<Vec<String>>> {
    let mut listed = reader.prepare_cached(
        "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial AND origin <> 'pk' ORDER BY seq",
    )?;
    let mut of_index = reader.prepare_cached("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?;
    let mut keys = Vec::new();
    for index in listed.query_map([table], |row| row.get::<_, String>(0))? {
        let columns = of_index.query_map([index?], |row| row.get::<_, Option<String>>(0))?;
        let columns: Option<Vec<String>> = columns.collect::<Result<_, _>>()?;
        // An expression has no name; such an index is no key of columns.
        keys.extend(columns);
    }
    Ok(keys)
}

fn foreign_keys(reader: &Connection, table: &str) -> DriverResult<Vec<ForeignKey>> {
    // SQLite lists the key declared last first.
    let mut listed = reader.prepare_cached(
        "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id DESC, seq",
    )?;
    let mut rows = listed.query([table])?;
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if keys.last().is_none_or(|(last, _)| *last != id) {
            let key = ForeignKey {
                columns: Vec::new(),
                foreign_database: None,
                foreign_table: row.get(1)?,
                foreign_columns: Vec::new(),
            };
            keys.push((id, key));
        }
        let (_, key) = keys.last_mut().expect("one was pushed");
        key.columns.push(row.get(2)?);
        key.foreign_columns.extend(row.get::<_, Option<String>>(3)?);
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// Foreign keys name tables and columns in any case, and leave the columns out where they mean the primary key.
fn resolve(tables: &mut [Table]) {
    let known: Vec<(String, Vec<String>, Vec<String>)> = tables
        .iter()
        .map(|table| {
            let columns = table.columns.iter().map(|column| column.name.clone()).collect();
            (table.name.clone(), columns, table.primary_key.clone())
        })
        .collect();
    for table in tables {
        table.foreign_keys.retain_mut(|key| {
            let target = known.iter().find(|(name, ..)| name.eq_ignore_ascii_case(&key.foreign_table));
            let Some((name, columns, primary_key)) = target else {
                return false;
            };
            key.foreign_table.clone_from(name);
            if key.foreign_columns.is_empty() {
                key.foreign_columns.clone_from(primary_key);
            }
            let own = table.columns.iter().map(|column| &column.name);
            exact(&mut key.columns, own)
                && exact(&mut key.foreign_columns, columns)
                && key.columns.len() == key.foreign_columns.len()
        });
    }
}

/// Gives each name the case it is declared with; whether all are declared.
fn exact<'a>(names: &mut [String], declared: impl IntoIterator<Item = &'a String> + Clone) -> bool {
    names.iter_mut().all(|name| {
        let found = declared.clone().into_iter().find(|declared| declared.eq_ignore_ascii_case(name));
        found.map(|declared| name.clone_from(declared)).is_some()
    })
}

/// The type that a declaration means. Source of the classes: SQLite, "Datatypes", 3.1, and common usage beyond it.
///
/// Numbers are read as such only where SQLite compares them as numbers: not in a `NUMERIC TEXT`. SQLite calls `BLOB`
/// what a view shows of values of several types.
fn declared(native: &str, kind: TableKind) -> Type {
    let name = native.split('(').next().unwrap_or_default().trim().to_ascii_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let holds_texts = has(&["CHAR", "TEXT", "CLOB"]);
    if has(&["BOOL"]) {
        Type::Bool
    } else if has(&["INTERVAL", "POINT"]) {
        Type::Any
    } else if has(&["INT"]) {
        Type::Int64
    } else if has(&["DECIMAL", "NUMERIC", "NUMBER", "MONEY"]) && !holds_texts && !has(&["BLOB"]) {
        Type::Decimal
    } else if has(&["REAL", "FLOA", "DOUB"]) && !holds_texts && !has(&["BLOB"]) {
        Type::Float
    } else if has(&["DATETIME", "TIMESTAMP"]) {
        Type::Timestamp
    } else if has(&["DATE"]) {
        Type::Date
    } else if has(&["TIME"]) {
        Type::Time
    } else if has(&["UUID", "GUID"]) {
        Type::Uuid
    } else if has(&["JSON"]) {
        Type::Json
    } else if has(&["BLOB", "BINARY", "BYTEA"]) && kind != TableKind::View {
        Type::Bytes
    } else if holds_texts || has(&["STRING"]) {
        Type::Text
    } else {
        Type::Any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_mean_what_they_say() {
        for (native, r#type) in [
            ("INTEGER", Type::Int64),
            ("bigint", Type::Int64),
            ("BOOLEAN", Type::Bool),
            ("NUMERIC(10,2)", Type::Decimal),
            ("double precision", Type::Float),
            ("TIMESTAMP", Type::Timestamp),
            ("datetime", Type::Timestamp),
            ("DATE", Type::Date),
            ("TIME", Type::Time),
            ("uuid", Type::Uuid),
            ("JSONB", Type::Json),
            ("BLOB", Type::Bytes),
            ("VARCHAR(120)", Type::Text),
            ("NUMERIC TEXT", Type::Text),
            ("POINT", Type::Any),
            ("ANY", Type::Any),
            ("NUM", Type::Any),
            ("", Type::Any),
        ] {
            assert_eq!(declared(native, TableKind::Table), r#type, "{native}");
        }
        assert_eq!(declared("BLOB", TableKind::View), Type::Any);
    }

    #[test]
    fn foreign_keys_without_columns_mean_the_primary_key() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(
            "CREATE TABLE Artist (Id INTEGER PRIMARY KEY, name TEXT UNIQUE);
             CREATE TABLE album (a INT, b INT NOT NULL DEFAULT 1, artist INT REFERENCES artist,
                                 other INT REFERENCES nowhere, twice INT AS (a * 2), PRIMARY KEY (b, a));
             CREATE UNIQUE INDEX some ON album (artist) WHERE artist > 1;
             CREATE VIEW titles AS SELECT name FROM artist;",
        )
        .unwrap();

        let schema = introspect(&file).unwrap().schema;

        let album = schema.table("album").unwrap();
        assert_eq!(album.primary_key, ["b", "a"]);
        assert!(album.unique_keys.is_empty());
        assert_eq!(album.foreign_keys.len(), 1);
        assert_eq!(album.foreign_keys[0].foreign_table, "Artist");
        assert_eq!(album.foreign_keys[0].foreign_columns, ["Id"]);
        assert!(album.column("twice").unwrap().generated);
        assert!(album.column("b").unwrap().has_default);
        let artist = schema.table("Artist").unwrap();
        assert!(artist.column("Id").unwrap().has_default && !artist.column("Id").unwrap().nullable);
        assert_eq!(artist.unique_keys, [["name"]]);
        assert_eq!(schema.table("titles").unwrap().kind, TableKind::View);
    }

    #[test]
    fn broken_objects_are_left_out() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(
            "CREATE TABLE good (id INTEGER PRIMARY KEY, v TEXT);
             CREATE VIEW fine AS SELECT id FROM good;
             CREATE VIEW column_gone AS SELECT gone FROM good;
             CREATE VIEW table_gone AS SELECT 1 AS one FROM nowhere;
             CREATE VIEW of_broken AS SELECT * FROM column_gone;
             CREATE VIEW function_gone AS SELECT lost(id) AS n FROM good;
             CREATE VIEW too_few (a, b) AS SELECT id FROM good;
             CREATE VIEW ring AS SELECT * FROM \"ring \"\"two\";
             CREATE VIEW \"ring \"\"two\" AS SELECT * FROM ring;
             PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema VALUES ('table', 'virtual', 'virtual', 0, 'CREATE VIRTUAL TABLE virtual USING lost(a)');
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();

        let found = introspect(&file).unwrap();

        let names: Vec<&str> = found.schema.tables().iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["fine", "good"]);
        let left_out: Vec<(&str, &str)> =
            found.left_out.iter().map(|object| (object.name.as_str(), object.why.as_str())).collect();
        assert_eq!(
            left_out,
            [
                ("column_gone", "no such column: gone"),
                ("function_gone", "no such function: lost"),
                ("of_broken", "no such column: gone"),
                ("ring", "view ring is circularly defined"),
                ("ring \"two", "view ring \"two is circularly defined"),
                ("table_gone", "no such table: main.nowhere"),
                ("too_few", "expected 2 columns for 'too_few' but got 1"),
                ("virtual", "no such module: lost"),
            ]
        );
    }
}
