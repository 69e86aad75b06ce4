//! Triggers of the log, and the tables that they write.
//!
//! `ALTER TABLE … DROP COLUMN` fails where a trigger names the column as one of `OLD` or `NEW`. So a column that can be
//! dropped is named as one of the row in its table, in a subselect within a select whose columns have the names of all:
//! one that is not in the table any more is that of the outer select, [`ABSENT`]. The row is selected by `*`, which
//! hides the name from `RENAME COLUMN`. Columns of the primary key cannot be dropped.
//!
//! The row before is read by a trigger before the change. `REPLACE` removes rows without a trigger: those that may be
//! are looked up before, and are told where they are gone after it.

use std::fmt::Write;

use rusqlite::{Connection, OptionalExtension};

use super::super::{SqliteError, changes, schema};
use crate::{Error, store::identifier};

/// What stands for the value of a column that is not there.
pub const ABSENT: &[u8] = b"perigee: absent\0";
/// The log: an entry has the values of one row, in the order of its shape.
pub const LOG_SQL: &str = "CREATE TABLE perigee_log (seq INTEGER PRIMARY KEY, shape INTEGER, op INTEGER, at REAL, k";
/// Shapes: the tables and columns that entries are of. The shape 0 is the log's epoch.
pub const SHAPES_SQL: &str = "CREATE TABLE perigee_log_shapes (shape INTEGER PRIMARY KEY, tbl TEXT NOT NULL, \
     columns TEXT NOT NULL, since INTEGER NOT NULL)";
/// Rows that an insert or update may be about to replace.
pub const REPLACED_SQL: &str = "CREATE TABLE perigee_log_replaced (shape INTEGER, k";
/// Names of the tables, and how their texts begin.
pub const TABLES: [(&str, &str); 3] =
    [("perigee_log", LOG_SQL), ("perigee_log_shapes", SHAPES_SQL), ("perigee_log_replaced", REPLACED_SQL)];
/// Most columns of a table. Each is a subselect of all, so the time to prepare a statement that changes rows grows with
/// their square: with 64 it is some 5 ms, with 400 half a second. That of `ALTER TABLE`, of any table of the file, grows
/// faster still: with 64 it is a second, with 100 four.
const COLUMNS_MAX: usize = 64;
/// Days after which triggers remove entries, whether they were read or not.
const AGE_MAX_DAYS: &str = "120 / 86400.0";
/// Entries of which triggers remove the oldest.
const ENTRIES_MAX: u64 = 1_000_000;

/// What an entry is of, as the log has it.
pub mod op {
    /// A row that is about to be changed.
    pub const BEFORE: i64 = 0;
    /// A row that was inserted.
    pub const INSERT: i64 = 1;
    /// A row that was updated; its row before has the same key.
    pub const UPDATE: i64 = 2;
    /// A row that was deleted, as [`UPDATE`] without values.
    pub const DELETE: i64 = 3;
    /// A row that was replaced, with its values.
    pub const REPLACED: i64 = 4;
    /// No row: the log begins.
    pub const MARK: i64 = 5;
}

/// A table, and its columns in the order of an entry's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The table's name.
    pub table: String,
    /// Names of columns.
    pub columns: Vec<String>,
    /// The last entry before its triggers.
    pub since: i64,
}

/// A table that is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// Its shape.
    pub shape: i64,
    /// The last entry before it was captured.
    pub since: i64,
}

/// A table as its triggers are made for it.
struct Target {
    name: String,
    columns: Vec<String>,
    /// Columns of the primary key, which cannot be dropped.
    key: Vec<String>,
    /// A name of the hidden row identifier; `None` where rows have none.
    row_id: Option<&'static str>,
    /// Columns of unique constraints with their collations, the row identifier aside.
    unique: Vec<Vec<(String, String)>>,
}

/// Captures a table, in a transaction of its own.
pub fn capture(writer: &Connection, table: &str) -> Result<Captured, SqliteError> {
    changes::check_followed(writer, table)?;
    let target = Target::of(writer, table)?;
    if let Some(captured) = target.captured(writer)? {
        return Ok(captured);
    }
    writer.execute_batch("BEGIN IMMEDIATE")?;
    // What has happened between is in the transaction.
    let target = Target::of(writer, table)?;
    make_tables(writer, table, target.columns.len())?;
    let before = target.continued(writer)?;
    let names = EVENTS.map(|event| trigger_name(table, event));
    for (name, sql) in triggers(writer)? {
        let is_wanted = names.iter().any(|wanted| wanted.eq_ignore_ascii_case(&name));
        if is_wanted && !is_ours(&sql) {
            return Err(changes::unfollowed(table, &format!("the database has another trigger called {name}")));
        }
        if is_wanted {
            writer.execute_batch(&format!("DROP TRIGGER {}", identifier(&name)))?;
        }
    }
    let captured = add_shape(writer, &target, before)?;
    for sql in target.triggers(captured.shape) {
        writer.execute_batch(&sql)?;
    }
    writer.execute_batch("COMMIT")?;
    Ok(captured)
}

/// Ends the capture of all tables but `kept`, in a transaction of its own. Without any, nothing is left.
pub fn release(writer: &Connection, kept: &[String]) -> Result<(), SqliteError> {
    let (ours, made) = (triggers(writer)?, made(writer)?);
    if made.is_empty() && !ours.iter().any(|(_, sql)| is_ours(sql)) {
        return Ok(());
    }
    writer.execute_batch("BEGIN IMMEDIATE")?;
    let is_kept = |name: &str| {
        kept.iter().any(|table| EVENTS.iter().any(|event| trigger_name(table, event).eq_ignore_ascii_case(name)))
    };
    let mut is_captured = false;
    for (name, _) in triggers(writer)?.iter().filter(|(_, sql)| is_ours(sql)) {
        match is_kept(name) {
            true => is_captured = true,
            false => writer.execute_batch(&format!("DROP TRIGGER {}", identifier(name)))?,
        }
    }
    if !is_captured {
        for name in self::made(writer)? {
            writer.execute_batch(&format!("DROP TABLE {name}"))?;
        }
    }
    Ok(writer.execute_batch("COMMIT")?)
}

/// Names of those of our tables that are there.
fn made(reader: &Connection) -> Result<Vec<&'static str>, SqliteError> {
    let mut made = Vec::new();
    for (name, begin) in TABLES {
        if found(reader, name)?.is_some_and(|sql| sql.starts_with(begin)) {
            made.push(name);
        }
    }
    Ok(made)
}

/// The text of the object of a name; empty where it has none.
fn found(reader: &Connection, name: &str) -> Result<Option<String>, SqliteError> {
    let sql = "SELECT coalesce(sql, '') FROM sqlite_schema WHERE type <> 'trigger' AND name = ?1 COLLATE NOCASE";
    Ok(reader.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
}

/// Whether the log is there, and of us.
pub fn is_made(reader: &Connection) -> Result<bool, SqliteError> {
    Ok(made(reader)?.len() == TABLES.len())
}

/// Makes our tables where they are missing, with room for so many columns.
fn make_tables(writer: &Connection, table: &str, columns: usize) -> Result<(), SqliteError> {
    for (name, begin) in TABLES {
        match found(writer, name)? {
            Some(sql) if sql.starts_with(begin) => {}
            Some(_) => {
                return Err(changes::unfollowed(table, &format!("the database has another object called {name}")));
            }
            None if name == "perigee_log_shapes" => writer.execute_batch(SHAPES_SQL)?,
            None => writer.execute_batch(&format!("{begin})"))?,
        }
        if name == "perigee_log_shapes" {
            continue;
        }
        for column in values_of(writer, name)?..columns {
            writer.execute_batch(&format!("ALTER TABLE {name} ADD COLUMN v{column}"))?;
        }
    }
    let epoch = "INSERT INTO perigee_log_shapes VALUES (0, '', hex(randomblob(16)), 0) ON CONFLICT DO NOTHING";
    Ok(writer.execute_batch(epoch)?)
}

/// Columns for values that one of our tables has.
pub fn values_of(reader: &Connection, name: &str) -> Result<usize, SqliteError> {
    let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name LIKE 'v%'";
    let count: i64 = reader.prepare_cached(sql)?.query_row([name], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Adds the shape of a table, and a mark at which it begins. It has been captured since the entry `before`, where it was.
fn add_shape(writer: &Connection, target: &Target, before: Option<i64>) -> Result<Captured, SqliteError> {
    let columns = serde_json::to_string(&target.columns).expect("names are written to memory");
    let shape: i64 =
        writer.query_row("SELECT coalesce(max(shape), 0) + 1 FROM perigee_log_shapes", [], |row| row.get(0))?;
    let mark = format!("INSERT INTO perigee_log (shape, op, at) VALUES ({shape}, {}, julianday('now'))", op::MARK);
    writer.execute_batch(&mark)?;
    let last = || writer.query_row("SELECT max(seq) FROM perigee_log", [], |row| row.get(0));
    let since: i64 = before.map_or_else(last, Ok)?;
    let sql = "INSERT INTO perigee_log_shapes (shape, tbl, columns, since) VALUES (?1, ?2, ?3, ?4)";
    writer.execute(sql, (shape, &target.name, columns, since))?;
    Ok(Captured { shape, since })
}

/// A shape of the log.
pub fn shape(reader: &Connection, shape: i64) -> Result<Option<Shape>, SqliteError> {
    let mut one = reader.prepare_cached("SELECT tbl, columns, since FROM perigee_log_shapes WHERE shape = ?1")?;
    let found = one.query_row([shape], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))).optional()?;
    Ok(found.map(|(table, columns, since)| Shape {
        table,
        columns: serde_json::from_str(&columns).unwrap_or_default(),
        since,
    }))
}

/// Timings of triggers.
const EVENTS: [&str; 6] = ["before_insert", "insert", "before_update", "update", "before_delete", "delete"];

fn trigger_name(table: &str, event: &str) -> String {
    format!("perigee_log_{table}_{event}")
}

/// Triggers whose name may be one of ours, and their text.
fn triggers(reader: &Connection) -> Result<Vec<(String, String)>, SqliteError> {
    let mut all = reader.prepare_cached(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'perigee\\_log\\_%' ESCAPE '\\'",
    )?;
    let triggers = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(triggers.collect::<Result<_, _>>()?)
}

/// Whether the text of a trigger is one of ours.
fn is_ours(sql: &str) -> bool {
    sql.contains("INTO perigee_log (shape, op, at, k") || sql.contains("FROM perigee_log_replaced WHERE shape")
}

impl Target {
    fn of(reader: &Connection, table: &str) -> Result<Self, SqliteError> {
        // The name in the case in which it was declared: it is kept as text.
        let declared = "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let (name, is_without): (String, bool) =
            reader.prepare_cached(declared)?.query_row([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut listed = reader.prepare_cached("SELECT name, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")?;
        let rows = listed.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let listed: Vec<(String, i64, i64)> = rows.collect::<Result<_, _>>()?;
        let columns: Vec<String> =
            listed.iter().filter(|(.., hidden)| *hidden != 1).map(|(name, ..)| name.clone()).collect();
        let mut key: Vec<(i64, String)> =
            listed.into_iter().filter(|(_, pk, _)| *pk > 0).map(|(name, pk, _)| (pk, name)).collect();
        key.sort();
        let row_id = schema::row_id(columns.iter().map(String::as_str));
        if columns.len() > COLUMNS_MAX || (row_id.is_none() && !is_without) {
            let why = format!("expected at most {COLUMNS_MAX} columns, and a name of rowid that none of them has");
            return Err(changes::unfollowed(table, &why));
        }
        Ok(Self {
            name,
            columns,
            key: key.into_iter().map(|(_, name)| name).collect(),
            row_id: row_id.filter(|_| !is_without),
            unique: unique(reader, table)?,
        })
    }

    /// The capture that is there, where its triggers are those wanted and the newest of their table: triggers run
    /// in the reverse order in which they were made, and what one of an application changes is logged after what it is
    /// run by.
    fn captured(&self, reader: &Connection) -> Result<Option<Captured>, SqliteError> {
        if !is_made(reader)? {
            return Ok(None);
        }
        let last = "SELECT max(shape) FROM perigee_log_shapes WHERE tbl = ?1 COLLATE NOCASE";
        let last: Option<i64> = reader.prepare_cached(last)?.query_row([&self.name], |row| row.get(0))?;
        let Some(last) = last else { return Ok(None) };
        let known = shape(reader, last)?.filter(|shape| shape.columns == self.columns);
        let on_table = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
                        ORDER BY rowid";
        let mut on_table = reader.prepare_cached(on_table)?;
        let found: Vec<String> = on_table.query_map([&self.name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let known = known.filter(|_| found.ends_with(&self.triggers(last)));
        Ok(known.map(|shape| Captured { shape: last, since: shape.since }))
    }

    /// The last entry before the table was captured, where it has been captured until now by triggers for other columns.
    fn continued(&self, reader: &Connection) -> Result<Option<i64>, SqliteError> {
        let last = "SELECT max(shape) FROM perigee_log_shapes WHERE tbl = ?1 COLLATE NOCASE";
        let last: Option<i64> = reader.prepare_cached(last)?.query_row([&self.name], |row| row.get(0))?;
        let Some(last) = last else { return Ok(None) };
        let on_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
             AND name IN (?2, ?3, ?4, ?5, ?6) AND (instr(sql, ?7) OR instr(sql, ?8))";
        let (select, values) = (format!(" SELECT {last}, "), format!(" VALUES ({last}, "));
        let names = ["insert", "before_update", "update", "before_delete", "delete"];
        let [insert, before_update, update, before_delete, delete] = names.map(|event| trigger_name(&self.name, event));
        let found: i64 = reader
            .prepare_cached(on_table)?
            .query_row((&self.name, insert, before_update, update, before_delete, delete, select, values), |row| {
                row.get(0)
            })?;
        match found {
            5 => Ok(shape(reader, last)?.map(|shape| shape.since)),
            _ => Ok(None),
        }
    }

    /// The texts of its triggers, which SQLite keeps as they are.
    fn triggers(&self, shape: i64) -> Vec<String> {
        let trigger = |timing: &str, event: &str, body: String| {
            let (name, table) = (identifier(&trigger_name(&self.name, event)), identifier(&self.name));
            format!("CREATE TRIGGER {name} {timing} ON {table} BEGIN{body} END")
        };
        let mut triggers = Vec::with_capacity(EVENTS.len());
        if !self.conflicts("NEW").is_empty() {
            triggers.push(trigger("BEFORE INSERT", "before_insert", self.note_replaced(shape, None)));
        }
        let before = |sql: &mut String| self.entry(sql, shape, op::BEFORE, "OLD");
        let mut body = String::new();
        self.told_replaced(&mut body, shape);
        self.entry(&mut body, shape, op::INSERT, "NEW");
        prune(&mut body);
        triggers.push(trigger("AFTER INSERT", "insert", body));
        let mut body = match self.conflicts("NEW").is_empty() {
            true => String::new(),
            false => self.note_replaced(shape, Some("OLD")),
        };
        before(&mut body);
        triggers.push(trigger("BEFORE UPDATE", "before_update", body));
        let mut body = String::new();
        self.told_replaced(&mut body, shape);
        self.entry(&mut body, shape, op::UPDATE, "NEW");
        prune(&mut body);
        triggers.push(trigger("AFTER UPDATE", "update", body));
        let mut body = String::new();
        before(&mut body);
        triggers.push(trigger("BEFORE DELETE", "before_delete", body));
        let mut body = String::new();
        self.deleted(&mut body, shape);
        prune(&mut body);
        triggers.push(trigger("AFTER DELETE", "delete", body));
        triggers
    }

    /// An entry with the values of the row `row`, which is in the table. An update has the key that the row had.
    fn entry(&self, sql: &mut String, shape: i64, op: i64, row: &str) {
        let key = if op == op::INSERT { "NULL".to_owned() } else { self.key_of("OLD") };
        let values = self.columns.iter().map(|column| match self.key.contains(column) {
            true => format!("{row}.{}", identifier(column)),
            false => self.value(column, &self.is_row(row)),
        });
        let values: Vec<String> = values.collect();
        let _ = write!(
            sql,
            " INSERT INTO perigee_log (shape, op, at, k{}) SELECT {shape}, {op}, julianday('now'), {key}, {} FROM ({});",
            self.names(),
            values.join(", "),
            self.absent(),
        );
    }

    /// An entry of a row that was deleted. With `PRAGMA recursive_triggers` one that is replaced is deleted, too.
    fn deleted(&self, sql: &mut String, shape: i64) {
        let _ = write!(
            sql,
            " DELETE FROM perigee_log_replaced WHERE shape = {shape} AND k = {key}; \
             INSERT INTO perigee_log (shape, op, at, k) VALUES ({shape}, {op}, julianday('now'), {key});",
            key = self.key_of("OLD"),
            op = op::DELETE,
        );
    }

    /// Notes the rows that the row `NEW` may be about to replace, those in conflict with it other than `own`.
    fn note_replaced(&self, shape: i64, own: Option<&str>) -> String {
        let table = identifier(&self.name);
        let keys: Vec<String> = match self.row_id {
            Some(row_id) => vec![format!("{row_id} AS perigee_k0")],
            None => {
                let keys = self.key.iter().enumerate();
                keys.map(|(index, column)| format!("{} AS perigee_k{index}", identifier(column))).collect()
            }
        };
        let is_row = match self.row_id {
            Some(row_id) => format!("{row_id} = perigee_c.perigee_k0"),
            None => {
                let keys = self.key.iter().enumerate();
                let keys = keys.map(|(index, column)| format!("{} = perigee_c.perigee_k{index}", identifier(column)));
                keys.collect::<Vec<_>>().join(" AND ")
            }
        };
        let conflicts = self.conflicts("NEW").join(" OR ");
        let other = own.map(|own| format!(" AND ({}) AND NOT ({})", self.changes_key(own), self.is_row(own)));
        let other = other.unwrap_or_default();
        let values: Vec<String> = self.columns.iter().map(|column| self.value(column, &is_row)).collect();
        format!(
            " DELETE FROM perigee_log_replaced WHERE shape = {shape}; \
             INSERT INTO perigee_log_replaced (shape, k{}) SELECT {shape}, {}, {} \
             FROM (SELECT {} FROM {table} WHERE ({conflicts}){other}) AS perigee_c, ({});",
            self.names(),
            self.quoted_key((0..keys.len()).map(|index| format!("perigee_c.perigee_k{index}")).collect()),
            values.join(", "),
            keys.join(", "),
            self.absent(),
        )
    }

    /// Entries of those noted rows that are gone, or have given their place to the row `NEW`.
    fn told_replaced(&self, sql: &mut String, shape: i64) {
        if self.conflicts("NEW").is_empty() {
            return;
        }
        let names = self.names();
        let places: Vec<String> = (0..self.columns.len()).map(|index| format!("r.v{index}")).collect();
        let is_it = |of: &str| match self.row_id {
            Some(row_id) => format!("{of}{row_id} = r.k"),
            None => {
                let at = |column: &String| self.columns.iter().position(|known| known == column).unwrap_or_default();
                let keys = self.key.iter().map(|column| format!("{of}{} = r.v{}", identifier(column), at(column)));
                keys.collect::<Vec<_>>().join(" AND ")
            }
        };
        let _ = write!(
            sql,
            " INSERT INTO perigee_log (shape, op, at, k{names}) SELECT {shape}, {op}, julianday('now'), r.k, {places} \
             FROM perigee_log_replaced AS r WHERE r.shape = {shape} \
             AND (({new}) OR NOT EXISTS (SELECT 1 FROM {table} WHERE {row})); \
             DELETE FROM perigee_log_replaced WHERE shape = {shape};",
            op = op::REPLACED,
            places = places.join(", "),
            new = is_it("NEW."),
            table = identifier(&self.name),
            row = is_it(""),
        );
    }

    /// Conditions under which a row of the table is in conflict with the row `new`.
    fn conflicts(&self, new: &str) -> Vec<String> {
        let row_id = self.row_id.map(|row_id| format!("{row_id} = {new}.{row_id}"));
        let of_key = |key: &Vec<(String, String)>| {
            let same = key.iter().map(|(column, collation)| {
                let column = identifier(column);
                format!("{column} = {new}.{column} COLLATE {}", identifier(collation))
            });
            format!("({})", same.collect::<Vec<_>>().join(" AND "))
        };
        row_id.into_iter().chain(self.unique.iter().map(of_key)).collect()
    }

    /// The condition that an update changes what may be in conflict.
    fn changes_key(&self, own: &str) -> String {
        let row_id = self.row_id.map(|row_id| format!("NEW.{row_id} IS NOT {own}.{row_id}"));
        let columns = self.unique.iter().flatten().map(|(column, _)| identifier(column));
        let columns = columns.map(|column| format!("NEW.{column} COLLATE BINARY IS NOT {own}.{column}"));
        row_id.into_iter().chain(columns).collect::<Vec<_>>().join(" OR ")
    }

    /// The value of a column of the row in the table for which a condition holds.
    fn value(&self, column: &str, is_row: &str) -> String {
        format!("(SELECT {} FROM (SELECT * FROM {} WHERE {is_row}))", identifier(column), identifier(&self.name))
    }

    /// The condition that a row of the table is the row `row` of a trigger.
    fn is_row(&self, row: &str) -> String {
        match self.row_id {
            Some(row_id) => format!("{row_id} = {row}.{row_id}"),
            None => {
                let keys = self.key.iter().map(|column| format!("{0} = {row}.{0}", identifier(column)));
                keys.collect::<Vec<_>>().join(" AND ")
            }
        }
    }

    /// The key of the row `row`, as one value.
    fn key_of(&self, row: &str) -> String {
        match self.row_id {
            Some(row_id) => format!("{row}.{row_id}"),
            None => self.quoted_key(self.key.iter().map(|column| format!("{row}.{}", identifier(column))).collect()),
        }
    }

    fn quoted_key(&self, parts: Vec<String>) -> String {
        match (self.row_id, parts.as_slice()) {
            (Some(_), parts) => parts.concat(),
            (None, parts) => {
                let quoted = parts.iter().map(|part| format!("quote({part})"));
                quoted.collect::<Vec<_>>().join(" || ',' || ")
            }
        }
    }

    /// Columns of the log for its values.
    fn names(&self) -> String {
        (0..self.columns.len()).fold(String::new(), |mut names, index| {
            let _ = write!(names, ", v{index}");
            names
        })
    }

    /// A select of what stands for each column that is not there.
    fn absent(&self) -> String {
        let mut hex = String::new();
        ABSENT.iter().for_each(|byte| {
            let _ = write!(hex, "{byte:02x}");
        });
        let columns = self.columns.iter().map(|column| format!("x'{hex}' AS {}", identifier(column)));
        format!("SELECT {}", columns.collect::<Vec<_>>().join(", "))
    }
}

/// Removes the oldest entries where they are old, or very many: also while nobody reads the log. Two for the two that a
/// change adds at most.
fn prune(sql: &mut String) {
    let _ = write!(
        sql,
        " DELETE FROM perigee_log WHERE seq IN (SELECT seq FROM perigee_log ORDER BY seq LIMIT 2) \
         AND (at < julianday('now') - {AGE_MAX_DAYS} OR seq < (SELECT max(seq) FROM perigee_log) - {ENTRIES_MAX});",
    );
}

/// Errors: a unique index of the table is none of a constraint. Rows that `REPLACE` removes by it are not told.
pub fn check_complete(reader: &Connection, table: &str) -> Result<(), SqliteError> {
    let index = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND origin = 'c'";
    match reader.query_row(index, [table], |row| row.get::<_, String>(0)).optional()? {
        Some(index) => {
            let why = format!("rows that REPLACE removes by the index {index} are not told");
            Err(changes::unfollowed(table, &why))
        }
        None => Ok(()),
    }
}

/// Columns of the unique constraints of a table with their collations. Columns of an index that is none of a constraint
/// can be dropped after it: a trigger must not name them.
fn unique(reader: &Connection, table: &str) -> Result<Vec<Vec<(String, String)>>, SqliteError> {
    let mut indexes = reader.prepare_cached(
        "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND origin IN ('u', 'pk') ORDER BY seq",
    )?;
    let mut columns =
        reader.prepare_cached("SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
    let mut unique = Vec::new();
    for index in indexes.query_map([table], |row| row.get::<_, String>(0))? {
        let rows = columns.query_map([index?], |row| Ok((row.get(0)?, row.get(1)?)))?;
        unique.push(rows.collect::<Result<_, _>>()?);
    }
    Ok(unique)
}

/// The error of a log that was removed, or made by others.
pub fn lost() -> SqliteError {
    Error::Unavailable("the log of changes is not there any more".to_owned()).into()
}
