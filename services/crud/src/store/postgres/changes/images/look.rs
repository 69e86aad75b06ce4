//! Looks at the log of images: first which transactions are new, then what they changed, in parts.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
};

use proto::crud::{Change, Operation, ResyncReason, Snapshot};
use query::resources::Numbers;
use tokio_postgres::{
    Row,
    types::{ToSql, Type as Native},
};

use super::{CATALOG, FollowedTable, ImageCursor, ImageReader, ImageRelations, Relation, WaitingTransaction};
use crate::{
    Error,
    store::{
        log::{Image, ImageWriter, LogLook, LogPart, LogPosition, Loss, Place, change},
        postgres::{
            Postgres, PostgresRows, changes::snapshot::ServerSnapshot, connection::Connection, connection::decoders,
            error::PostgresError, pooler::TransactionKind,
        },
    },
};

/// Bytes of images of one part.
const PART_BYTES: u64 = 4 << 20;

/// How the log is read: as [`super::super::BY_INDEX`], but for the search path, by which names of objects are written.
const BY_INDEX: &str = "\
SET LOCAL enable_seqscan TO off; SET LOCAL enable_bitmapscan TO off; SET LOCAL jit TO off";
/// Fails as for a table that is not there, unless the log is of our role, and keeps it from being dropped.
const LOCK: &str =
    "LOCK TABLE perigee_changes.images, perigee_changes.state, perigee_changes.followed IN ACCESS SHARE MODE";
const REQUIRE_OWN: &str = "\
SELECT (CASE WHEN 3 OPERATOR(pg_catalog.=) (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c
        WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY['perigee_changes.images'::pg_catalog.regclass,
                'perigee_changes.state'::pg_catalog.regclass, 'perigee_changes.followed'::pg_catalog.regclass]::oid[])
            AND c.relkind OPERATOR(pg_catalog.=) 'r'
            AND pg_catalog.pg_get_userbyid(c.relowner) OPERATOR(pg_catalog.=) current_user)
    THEN 'pg_catalog.pg_class' ELSE 'pg_catalog.perigee_changes_of_another_role' END)::pg_catalog.regclass";
const STATE: &str = "\
SELECT pg_catalog.pg_current_snapshot()::text, (SELECT s.epoch FROM perigee_changes.state s),
    (SELECT f.since FROM perigee_changes.followed f WHERE f.tbl OPERATOR(pg_catalog.=) 0::oid),
    ARRAY(SELECT p.transaction::text FROM pg_catalog.pg_prepared_xact() p
        WHERE p.prepared OPERATOR(pg_catalog.<) pg_catalog.pg_postmaster_start_time())";
/// Transactions that a snapshot with this end and these in progress did not see.
const TRANSACTIONS: &str = "\
SELECT i.xid::text, pg_catalog.max(i.seq), pg_catalog.count(*),
    pg_catalog.sum(COALESCE(pg_catalog.octet_length(i.before), 0)
        OPERATOR(pg_catalog.+) COALESCE(pg_catalog.octet_length(i.after), 0))::int8,
    pg_catalog.array_agg(DISTINCT i.tbl),
    COALESCE(pg_catalog.array_agg(DISTINCT i.tbl) FILTER (WHERE i.op OPERATOR(pg_catalog.=) 'x'), '{}')
FROM (
    SELECT l.* FROM perigee_changes.images l WHERE l.xid OPERATOR(pg_catalog.>=) $1::xid8
    UNION ALL
    SELECT l.* FROM perigee_changes.images l WHERE l.xid OPERATOR(pg_catalog.=) ANY ($2::xid8[])
) i
GROUP BY i.xid ORDER BY pg_catalog.max(i.seq)";
/// The last of so many entries of a transaction after one.
const PART_END: &str = "\
SELECT COALESCE(pg_catalog.max(l.seq), 0) FROM (
    SELECT i.seq FROM perigee_changes.images i
    WHERE i.xid OPERATOR(pg_catalog.=) $1::xid8 AND i.seq OPERATOR(pg_catalog.>) $2 ORDER BY i.seq LIMIT $3) l";

/// What a look finds.
pub struct Looked {
    pub seen: Snapshot,
    /// Of the log; `None` where it was lost.
    pub epoch: Option<String>,
    /// Entries that this sees may have been removed.
    pub pruned: Option<ServerSnapshot>,
    pub prepared: Vec<String>,
    pub waiting: VecDeque<WaitingTransaction>,
    /// The tables that are followed, if the catalog was looked at.
    pub catalog: Option<BTreeMap<String, ImageRelations>>,
}

/// What is told at once: transactions, or a part of one.
struct Part {
    transactions: Vec<WaitingTransaction>,
    /// Entries after the first and up to the last of these.
    from: u64,
    to: u64,
}

/// Images of one table in a part.
struct TableImages {
    rows: PostgresRows,
    /// Positions in the table's writer of the columns that there are.
    columns: Vec<usize>,
}

/// Changes of a transaction, by their numbers and tables: two tables may show one row.
type ChangedRows = BTreeMap<(i64, String), ChangedRow>;

/// A change that is being put together of its rows.
struct ChangedRow {
    committed_us: i64,
    change: Change,
}

impl Postgres {
    /// Which transactions a snapshot did not see; and the catalog for tables, where there are any or it is due.
    pub(super) async fn look_at_images(
        &self,
        told: &Snapshot,
        tables: &[&str],
        is_due: bool,
    ) -> Result<Looked, PostgresError> {
        let schema = self.inner.schema.as_str();
        let look = self.with_retry(|connection| {
            Box::pin(async move { Box::pin(look(&connection, told, schema, tables, is_due)).await })
        });
        Box::pin(look).await
    }

    /// The next part of the current look of `cursor`.
    pub(super) async fn images_of(
        &self,
        reader: &ImageReader,
        cursor: &mut ImageCursor,
        mut losses: Vec<Loss>,
        numbers: Numbers,
    ) -> Result<LogLook, Error> {
        let source = cursor.source;
        let mut parts = Vec::new();
        if let Some(current) = &mut cursor.look
            && !current.waiting.is_empty()
        {
            let part = self.part(&mut current.waiting).await?;
            let mut changed = BTreeMap::new();
            for (name, table) in &reader.tables {
                let is_lost = |relations: &Vec<u32>| relations.iter().any(|id| table.relations.contains_key(id));
                let has_lost = part.transactions.iter().any(|transaction| is_lost(&transaction.lost));
                if current.skipped.contains(name) || !part.transactions.iter().any(|one| is_lost(&one.relations)) {
                    continue;
                }
                match self.table_images(table, &part).await {
                    Ok(images) if !has_lost => add(&mut changed, name, &table.writer, &images, numbers),
                    Err(failure) if failure.db_error().is_none() => return Err(self.error(failure)),
                    Ok(_) | Err(_) => {
                        // Rows that are not there, or texts of columns that the table does not have any more.
                        current.skipped.insert(name.clone());
                        losses.push(Loss { reason: ResyncReason::LogLost, tables: vec![name.clone()] });
                    }
                }
            }
            for transaction in part.transactions {
                let to = part.to.min(transaction.last);
                current.order = (transaction.last, to);
                let place = Place { id: transaction.id, order: current.order };
                let rows = changed.remove(&transaction.id).unwrap_or_default();
                let committed_us = rows.values().map(|row| row.committed_us).max().unwrap_or_default();
                let changes: Vec<Change> = rows.into_values().map(|row| row.change).collect();
                let partly = Some((current.seen.clone(), current.order));
                let also = cursor.also.clone();
                let position = LogPosition { partly, also, ..LogPosition::of(source, cursor.told.clone()) };
                if !changes.is_empty() {
                    parts.push(LogPart { place, committed_us, changes, position });
                }
            }
        }
        let is_over = cursor.look.as_ref().is_none_or(|look| look.waiting.is_empty());
        if is_over && let Some(look) = cursor.look.take() {
            cursor.told = look.seen;
            let told = ServerSnapshot::from(cursor.told.clone());
            cursor.also = cursor.also.take().filter(|also| !told.sees_all_of(&also.clone().into()));
        }
        let position = cursor.position();
        if is_over && let Some(last) = parts.last_mut() {
            last.position = position.clone();
        }
        Ok(LogLook { losses, failed: Vec::new(), parts, position, has_more: !is_over, visible: None })
    }

    /// Takes what is told next: as many transactions as fit, or a part of a large one.
    async fn part(&self, waiting: &mut VecDeque<WaitingTransaction>) -> Result<Part, Error> {
        let mut transactions: Vec<WaitingTransaction> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = waiting.front() {
            let is_large = next.bytes > PART_BYTES || next.from > 0;
            if !transactions.is_empty() && (is_large || bytes + next.bytes > PART_BYTES) {
                break;
            }
            bytes += next.bytes;
            transactions.extend(waiting.pop_front());
            if is_large {
                break;
            }
        }
        let mut part = Part { from: 0, to: i64::MAX as u64, transactions };
        if let [large] = part.transactions.as_mut_slice()
            && (large.bytes > PART_BYTES || large.from > 0)
        {
            let entries = (large.entries.saturating_mul(PART_BYTES) / large.bytes.max(1)).max(1);
            let end = self.part_end(large, entries).await?;
            (part.from, part.to) = (large.from, end);
            if end < large.last {
                waiting.push_front(WaitingTransaction { from: end, ..large.clone() });
            }
        }
        Ok(part)
    }

    async fn part_end(&self, transaction: &WaitingTransaction, entries: u64) -> Result<u64, Error> {
        let (id, from) = (transaction.id.to_string(), signed(transaction.from));
        let (id, from, entries) = (&id, &from, &signed(entries));
        let end = self.with_retry(|connection| {
            Box::pin(async move {
                let args: [(&(dyn ToSql + Sync), Native); 3] =
                    [(id, Native::TEXT), (from, Native::INT8), (entries, Native::INT8)];
                let rows = connection.query(PART_END, &args).await?;
                let row = rows.first().ok_or_else(PostgresError::unanswered)?;
                Ok(unsigned(row.try_get(0)?))
            })
        });
        let end: u64 = Box::pin(end).await.map_err(|failure| self.error(failure))?;
        Ok(if end <= transaction.from { transaction.last } else { end })
    }

    /// The images of a table in a part.
    async fn table_images(&self, table: &FollowedTable, part: &Part) -> Result<Vec<TableImages>, PostgresError> {
        let mut all = Vec::new();
        for (id, relation) in &table.relations {
            if !part.transactions.iter().any(|transaction| transaction.relations.contains(id)) {
                continue;
            }
            let columns = table.writer.columns();
            let is_there = |index: &usize| relation.columns.contains(&columns[*index].name);
            let columns: Vec<usize> = (0..columns.len()).filter(is_there).collect();
            let sql = select(relation, &table.writer, &columns);
            let read = self.with_retry(|connection| {
                let sql = &sql;
                Box::pin(async move { images(&connection, sql, *id, part).await })
            });
            all.push(TableImages { rows: Box::pin(read).await?, columns });
        }
        Ok(all)
    }
}

/// One look in one snapshot. It is never serializable, which could fail who writes to the log.
async fn look(
    connection: &Connection,
    told: &Snapshot,
    schema: &str,
    tables: &[&str],
    is_due: bool,
) -> Result<Looked, PostgresError> {
    let told = ServerSnapshot::from(told.clone());
    let (end, running) = (told.end.to_string(), told.running_texts());
    let log: [(&(dyn ToSql + Sync), Native); 2] = [(&end, Native::TEXT), (&running, Native::TEXT_ARRAY)];
    let (begun, ready, is_locked, is_own, state, transactions) = futures::join!(
        connection.begin(TransactionKind::Snapshot),
        connection.command(BY_INDEX),
        connection.command(LOCK),
        connection.query(REQUIRE_OWN, &[]),
        connection.query(STATE, &[]),
        connection.query(TRANSACTIONS, &log),
    );
    begun.and(ready).and(is_locked)?;
    is_own?;
    let (state, transactions) = (state?, transactions?);
    let catalog = match is_due || !transactions.is_empty() {
        true => Some(catalog(connection, schema, tables).await?),
        false => None,
    };
    connection.command("COMMIT").await?;
    let row = state.first().ok_or_else(PostgresError::unanswered)?;
    let pruned: Option<String> = row.try_get(2)?;
    Ok(Looked {
        seen: ServerSnapshot::parse(row.try_get(0)?).into(),
        epoch: row.try_get(1)?,
        pruned: pruned.map(|pruned| ServerSnapshot::parse(&pruned)),
        prepared: row.try_get(3)?,
        waiting: transactions.iter().map(waiting).collect::<Result<_, _>>()?,
        catalog,
    })
}

async fn catalog(
    connection: &Connection,
    schema: &str,
    tables: &[&str],
) -> Result<BTreeMap<String, ImageRelations>, PostgresError> {
    let args: [(&(dyn ToSql + Sync), Native); 2] = [(&schema, Native::TEXT), (&tables, Native::TEXT_ARRAY)];
    let mut catalog: BTreeMap<String, ImageRelations> = BTreeMap::new();
    for row in connection.query(CATALOG, &args).await? {
        let relation =
            Relation { name: row.try_get(2)?, file: row.try_get(3)?, columns: row.try_get(4)?, mark: row.try_get(5)? };
        catalog.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, relation);
    }
    Ok(catalog)
}

fn waiting(row: &Row) -> Result<WaitingTransaction, PostgresError> {
    let id: String = row.try_get(0)?;
    Ok(WaitingTransaction {
        id: id.parse().unwrap_or_default(),
        last: unsigned(row.try_get(1)?),
        from: 0,
        entries: unsigned(row.try_get(2)?),
        bytes: unsigned(row.try_get(3)?),
        relations: row.try_get(4)?,
        lost: row.try_get(5)?,
    })
}

/// The statement that reads images as rows of their table, by the select list of reads. Each text is parsed once.
fn select(relation: &Relation, writer: &ImageWriter, columns: &[usize]) -> String {
    let mut sql = String::from(
        "SELECT i.xid::text, i.seq, i.op::text, (EXTRACT(epoch FROM i.at) OPERATOR(pg_catalog.*) 1000000)::int8, v.side",
    );
    for index in columns {
        let column = &writer.columns()[*index];
        let name = column.name.replace('"', "\"\"");
        let _ = write!(sql, ", (r.image).\"{name}\"{}", column.cast);
    }
    let _ = write!(
        sql,
        " FROM perigee_changes.images i CROSS JOIN LATERAL (VALUES (0, i.before), (1, i.after)) v (side, image) \
         CROSS JOIN LATERAL (SELECT v.image::{} AS image OFFSET 0) r \
         WHERE i.xid OPERATOR(pg_catalog.=) ANY ($1::xid8[]) AND i.tbl OPERATOR(pg_catalog.=) $2 \
         AND i.seq OPERATOR(pg_catalog.>) $3 AND i.seq OPERATOR(pg_catalog.<=) $4 AND v.image IS NOT NULL",
        relation.name,
    );
    sql
}

async fn images(connection: &Connection, sql: &str, relation: u32, part: &Part) -> Result<PostgresRows, PostgresError> {
    let ids: Vec<String> = part.transactions.iter().map(|transaction| transaction.id.to_string()).collect();
    let (from, to) = (signed(part.from), signed(part.to));
    let args: [(&(dyn ToSql + Sync), Native); 4] =
        [(&ids, Native::TEXT_ARRAY), (&relation, Native::OID), (&from, Native::INT8), (&to, Native::INT8)];
    connection.begin(TransactionKind::Snapshot).await?;
    connection.command(BY_INDEX).await?;
    let rows = connection.query(sql, &args).await?;
    connection.command("COMMIT").await?;
    let decoders = rows.first().map(|row| decoders(row.columns())).transpose()?.unwrap_or_default();
    Ok(PostgresRows { rows, decoders, affected: 0, size: 0 })
}

/// Adds the changes of a table, by their transactions and numbers.
fn add(
    changed: &mut BTreeMap<u64, ChangedRows>,
    table: &str,
    writer: &ImageWriter,
    images: &[TableImages],
    numbers: Numbers,
) {
    for TableImages { rows, columns } in images {
        for row in 0..rows.len() {
            let head = |column: usize| match rows.cell(row, column) {
                crate::cell::Cell::Int(number) => number,
                crate::cell::Cell::Text(text) => text.parse().unwrap_or_default(),
                _ => 0,
            };
            let mut image = Image::new(numbers);
            for (at, index) in columns.iter().enumerate() {
                image.column(&writer.columns()[*index], &rows.cell(row, 5 + at));
            }
            let operation = match rows.cell(row, 2).text().as_deref() {
                Some("i") => Operation::Insert,
                Some("u") => Operation::Update,
                _ => Operation::Delete,
            };
            let rows = changed.entry(unsigned(head(0))).or_default();
            let entry = rows.entry((head(1), table.to_owned())).or_insert_with(|| ChangedRow {
                committed_us: head(3),
                change: change(table, operation, Default::default(), Default::default()),
            });
            match head(4) {
                0 => entry.change.before = image.finish(),
                _ => entry.change.after = image.finish(),
            }
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
