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
use crate::store::{FormedColumn, Statement, identifier};

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
    let (table, name, function) = (identifier(&column.table), identifier(&column.column), column.function);
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

#[cfg(test)]
mod tests {
    use super::{super::wal_index::WalIndex, *};
    use crate::store::PlainStatement;

    fn column(name: &str) -> FormedColumn {
        FormedColumn { table: "t".to_owned(), column: name.to_owned(), function: "perigee_timestamp" }
    }

    fn statement(columns: &[&str]) -> Statement {
        let plain =
            PlainStatement { text: "SELECT 2".into(), columns: columns.iter().map(|name| column(name)).collect() };
        let (args, sources) = (Vec::new(), Vec::new());
        Statement { text: "SELECT 1".into(), args, columns: [].into(), sources, plain: Some(plain) }
    }

    /// States of a file, each one commit after the one before.
    fn states() -> [WalHeader; 3] {
        let folder = tempfile::tempdir().unwrap();
        let file = Connection::open(folder.path().join("a.db")).unwrap();
        let mode: String = file.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        file.execute_batch("CREATE TABLE t (a)").unwrap();
        let index = WalIndex::of(&file).unwrap();
        std::array::from_fn(|_| {
            file.execute_batch("INSERT INTO t VALUES (1)").unwrap();
            index.header()
        })
    }

    #[test]
    fn a_commit_of_this_process_keeps_what_its_writes_leave_so() {
        let [before, after, later] = states();
        let columns = PlainColumns::default();
        for (name, header, keeps) in [("kept", before, true), ("lost", before, false), ("old", later, true)] {
            columns.scanned(column(name), Instant::now(), Some((Scan { is_plain: true, keeps }, header)));
        }
        let hold = |name, header| columns.hold(&[statement(&[name])], header);
        let hold_while_writing = |name, header| columns.hold_while_writing(&statement(&[name]), header);

        assert!(hold("kept", &before) && hold("lost", &before) && !hold("kept", &after) && !hold("unknown", &before));
        assert!(hold_while_writing("kept", &before) && !hold_while_writing("lost", &before));
        assert!(!columns.hold(&[statement(&["kept"]), statement(&["kept", "unknown"])], &before));

        columns.keep(&before, later);
        assert!(hold("kept", &before), "there was another commit between them");

        columns.keep(&before, after);
        assert!(hold("kept", &after) && !hold("lost", &after));
        assert!(hold("old", &later) && !hold("old", &after), "it was not known to be so in the state before");
    }

    #[test]
    fn a_column_is_scanned_by_one_at_a_time_and_not_again_at_once() {
        let [state, ..] = states();
        let columns = PlainColumns::default();
        let statements = [statement(&["a", "b"]), statement(&["a"])];
        let due = columns.to_scan(&statements);
        assert_eq!(due, HashSet::from([column("a"), column("b")]));
        assert!(columns.to_scan(&statements).is_empty(), "another scan runs");

        columns.scanned(column("a"), Instant::now(), Some((Scan { is_plain: true, keeps: true }, state)));
        columns.scanned_all();
        assert_eq!(columns.to_scan(&statements), HashSet::from([column("b")]));
        columns.scanned_all();
        assert!(columns.to_scan(&statements[1..]).is_empty());
        assert_eq!(columns.to_scan(&statements), HashSet::from([column("b")]), "no scan ran");
    }

    #[test]
    fn a_column_is_scanned_again_after_a_multiple_of_the_time_that_it_took() {
        let [state, ..] = states();
        let columns = PlainColumns::default();
        let plain = Some((Scan { is_plain: true, keeps: true }, state));
        let formed = Some((Scan { is_plain: false, keeps: false }, state));
        let minute = Duration::from_secs(60);
        for (took, found, least) in [
            (Duration::ZERO, plain, SCAN_INTERVAL_MIN),
            (minute, plain, minute * SCAN_INTERVAL_FACTOR),
            (minute, None, minute * SCAN_INTERVAL_FACTOR),
            (Duration::ZERO, formed, FORMED_INTERVAL),
        ] {
            let Some(start) = Instant::now().checked_sub(took) else { continue };
            let before = Instant::now();
            columns.scanned(column("a"), start, found);
            let after = columns.columns()[&column("a")].scan_after;
            assert!(after >= before + least, "{took:?} {found:?}");
            assert!(after <= Instant::now() + least + minute, "{took:?} {found:?}");
        }
    }

    #[test]
    fn literals_are_words_digits_and_whole_texts() {
        for default in ["NULL", "current_timestamp", "5", "''", "'a'"] {
            assert!(is_literal(default), "{default}");
        }
        for default in ["", "-5", "5.5", "now", "datetime('now')", "'it''s'", "'a' || 'b'", "'", "5a"] {
            assert!(!is_literal(default), "{default}");
        }
    }

    #[test]
    fn statements_without_a_variant_have_none() {
        let without = Statement { plain: None, ..statement(&[]) };
        assert!(!have_plain(&[]) && !have_plain(std::slice::from_ref(&without)));
        assert!(have_plain(&[without, statement(&["a"])]));
    }
}
