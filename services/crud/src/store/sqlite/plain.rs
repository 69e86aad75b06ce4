//! Which columns are known to hold all their values in the form in which they are read.
//!
//! A statement that compares such columns runs on the values as they are stored, which has indexes; any other on their
//! forms. What is known of a column is known of one state of the file, and stays known over the writes of this process,
//! which write that form. Another program's commit ends it, until a scan has looked at the column again.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension};

use super::{SqliteError, wal_index::WalHeader};
use crate::store::{FormedColumn, Statement};

/// Time between two scans of a column, as a multiple of what one takes.
const SCAN_INTERVAL_FACTOR: u32 = 20;
/// The least time between two scans of a column.
const SCAN_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Time after which a column that holds other forms is scanned again.
const FORMED_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of columns.
#[derive(Debug, Default)]
pub struct PlainColumns {
    columns: Mutex<HashMap<FormedColumn, Known>>,
    is_scanning: AtomicBool,
}

/// What is known of a column.
#[derive(Debug)]
struct Known {
    /// The state of the file in which all its values have the form.
    plain_in: Option<WalHeader>,
    /// Whether writes of this process leave it so.
    keeps: bool,
    /// When it may be scanned again.
    scan_after: Instant,
}

/// Result of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Whether all values have the form.
    pub is_plain: bool,
    /// Whether writes of this process leave it so.
    pub keeps: bool,
}

impl PlainColumns {
    /// Whether statements run on values as they are stored, where the file is in the state of `header`.
    pub fn hold(&self, statements: &[Statement], header: &WalHeader) -> bool {
        let columns = self.columns();
        let is_plain = |column| columns.get(column).is_some_and(|known| known.plain_in == Some(*header));
        formed(statements).all(is_plain)
    }

    /// As [`PlainColumns::hold`], in a transaction that has written since `header`.
    pub fn hold_while_writing(&self, statement: &Statement, header: &WalHeader) -> bool {
        let columns = self.columns();
        let is_plain = |column| columns.get(column).is_some_and(|known| known.keeps && known.plain_in == Some(*header));
        formed(std::slice::from_ref(statement)).all(is_plain)
    }

    /// Keeps what is known over a commit of this process, which found the file as `before` and left it as `after`.
    pub fn keep(&self, before: &WalHeader, after: WalHeader) {
        if !after.is_next_of(before) {
            return;
        }
        for known in self.columns().values_mut().filter(|known| known.keeps && known.plain_in == Some(*before)) {
            known.plain_in = Some(after);
        }
    }

    /// The columns of `statements` that are to be scanned now: by the caller, who ends that with
    /// [`PlainColumns::scanned_all`]. Empty while another scan runs.
    pub fn to_scan(&self, statements: &[Statement]) -> HashSet<FormedColumn> {
        let columns = self.columns();
        let now = Instant::now();
        let is_due = |column: &&FormedColumn| columns.get(column).is_none_or(|known| known.scan_after <= now);
        let due: HashSet<FormedColumn> = formed(statements).filter(is_due).cloned().collect();
        if due.is_empty() || self.is_scanning.swap(true, Ordering::Relaxed) { HashSet::new() } else { due }
    }

    /// Takes the result of a scan that began at `start`; `None` where it failed or the file's state is not known.
    pub fn scanned(&self, column: FormedColumn, start: Instant, found: Option<(Scan, WalHeader)>) {
        let interval = match found {
            Some((Scan { is_plain: false, .. }, _)) => FORMED_INTERVAL,
            Some(_) | None => SCAN_INTERVAL_MIN.max(start.elapsed() * SCAN_INTERVAL_FACTOR),
        };
        let plain = found.filter(|(scan, _)| scan.is_plain);
        let known = Known {
            plain_in: plain.map(|(_, header)| header),
            keeps: plain.is_some_and(|(scan, _)| scan.keeps),
            scan_after: Instant::now() + interval,
        };
        self.columns().insert(column, known);
    }

    /// Ends what [`PlainColumns::to_scan`] began.
    pub fn scanned_all(&self) {
        self.is_scanning.store(false, Ordering::Relaxed);
    }

    fn columns(&self) -> MutexGuard<'_, HashMap<FormedColumn, Known>> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether statements have a variant on values as they are stored.
pub fn have_plain(statements: &[Statement]) -> bool {
    statements.iter().any(|statement| statement.plain.is_some())
}

/// Looks at all values of a column.
pub fn scan(reader: &Connection, column: &FormedColumn) -> Result<Scan, SqliteError> {
    let ident = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (table, name, function) = (ident(&column.table), ident(&column.column), column.function);
    let others = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {function}({name}) IS NOT {name})");
    let is_plain = !reader.query_row(&others, [], |row| row.get::<_, bool>(0))?;
    Ok(Scan { is_plain, keeps: is_plain && keeps_form(reader, column)? })
}

/// Whether only what this server binds, and a default in its form, is written to a column: no trigger, no expression and no
/// other column fills it, and no affinity changes the value.
///
/// A trigger that writes a table names it.
fn keeps_form(reader: &Connection, column: &FormedColumn) -> Result<bool, SqliteError> {
    const KEPT: &str = "SELECT dflt_value, NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' \
             AND instr(lower(sql), lower(?1))) \
         AND NOT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1) WHERE \"from\" = ?2 COLLATE NOCASE \
             AND on_update NOT IN ('NO ACTION', 'RESTRICT')) \
         AND (hidden > 0 OR type LIKE '%CHAR%' OR type LIKE '%TEXT%' OR type LIKE '%CLOB%') IS FALSE \
         FROM pragma_table_xinfo(?1) WHERE name = ?2";
    // In a trigger the name may be written with its quotes doubled.
    if column.table.contains(['"', '\'', '`']) {
        return Ok(false);
    }
    let kept = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let kept: Option<(Option<String>, bool)> =
        reader.query_row(KEPT, [&column.table, &column.column], kept).optional()?;
    match kept {
        Some((None, keeps)) => Ok(keeps),
        Some((Some(default), true)) if is_literal(&default) => {
            let has_form = format!("SELECT {}({default}) IS {default}", column.function);
            Ok(reader.query_row(&has_form, [], |row| row.get(0))?)
        }
        Some((Some(_), _)) | None => Ok(false),
    }
}

/// Whether a default is the same for all rows of a moment, and SQL that may stand anywhere.
fn is_literal(default: &str) -> bool {
    const WORDS: [&str; 6] = ["CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "NULL", "TRUE", "FALSE"];
    let quoted = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(default))
        || (!default.is_empty() && default.bytes().all(|byte| byte.is_ascii_digit()))
        || quoted.is_some_and(|text| !text.contains('\''))
}

fn formed(statements: &[Statement]) -> impl Iterator<Item = &FormedColumn> {
    statements.iter().filter_map(|statement| statement.plain.as_ref()).flat_map(|plain| plain.columns.iter())
}
