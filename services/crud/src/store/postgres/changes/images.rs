//! The log of changes with the rows before and after, read by difference of snapshots.
//!
//! An image is the text of the row, in which each value is as the type of its column writes it. It is read as a row of
//! its table and by the select list of reads, so it is what a read of the row would have answered. A text has no names:
//! where the columns of a table change, what was logged before is not read any more, and that is told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proto::crud::{ResyncReason, Snapshot};
use query::resources::Numbers;
use tokio_postgres::types::{ToSql, Type as Native};

use self::look::Looked;
use super::{
    CAPTURE_ATTEMPTS, CATALOG_INTERVAL, POLL_INTERVAL_MAX, POLL_INTERVAL_MIN, busy,
    history::SnapshotHistory,
    is_not_ours,
    setup::{self, TriggerKind},
    snapshot::ServerSnapshot,
};
use crate::{
    Error,
    store::{
        log::{ImageWriter, LogLag, LogLook, LogPosition, Loss},
        postgres::{Postgres, connection::Connection, error::PostgresError},
    },
};

mod look;
mod prune;

/// How the names of triggers of images begin: they run before those of applications.
pub const TRIGGER_PREFIX: &str = "!perigee_image_";

/// Tables of the log. Only our role may read what is of rows.
pub const TABLES: &str = "\
CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.images (seq bigint GENERATED ALWAYS AS IDENTITY, xid xid8 NOT NULL,
    at timestamp with time zone NOT NULL, tbl oid NOT NULL, op \"char\" NOT NULL, before text, after text,
    PRIMARY KEY (xid, seq)) USING heap;
CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.followed (
    tbl oid PRIMARY KEY, mark text NOT NULL, since text NOT NULL) USING heap;";

/// The body of the function of the triggers. It runs with the rights of our role, for whoever makes a trigger of it: a
/// row is written by its output function, as a cast to text may be one of the table's owner.
///
/// Where nobody has read the log for long, or the text of a row cannot be made, or is more than is told of a change, it
/// notes the change without the rows: once, and not for each row.
pub const IMAGE: &str = "
DECLARE
    size bigint := COALESCE(pg_catalog.pg_column_size(OLD), 0) + COALESCE(pg_catalog.pg_column_size(NEW), 0);
    kind \"char\" := CASE TG_OP WHEN 'INSERT' THEN 'i' WHEN 'UPDATE' THEN 'u' ELSE 'd' END;
    old_text text;
    new_text text;
BEGIN
    IF size < 32000000 AND (SELECT r.seen > pg_catalog.clock_timestamp() - '10 minutes'::pg_catalog.interval
            FROM perigee_changes.readers r WHERE r.schema = '!' || TG_ARGV[0]) THEN
        IF size < 100000 THEN
            INSERT INTO perigee_changes.images (xid, at, tbl, op, before, after)
            VALUES (pg_catalog.pg_current_xact_id(), pg_catalog.clock_timestamp(), TG_RELID, kind,
                CASE WHEN kind <> 'i' THEN pg_catalog.record_out(OLD)::text END,
                CASE WHEN kind <> 'd' THEN pg_catalog.record_out(NEW)::text END);
            RETURN NULL;
        END IF;
        BEGIN
            old_text := CASE WHEN kind <> 'i' THEN pg_catalog.record_out(OLD)::text END;
            new_text := CASE WHEN kind <> 'd' THEN pg_catalog.record_out(NEW)::text END;
            IF COALESCE(pg_catalog.octet_length(old_text), 0) + COALESCE(pg_catalog.octet_length(new_text), 0) < 64000000 THEN
                INSERT INTO perigee_changes.images (xid, at, tbl, op, before, after)
                VALUES (pg_catalog.pg_current_xact_id(), pg_catalog.clock_timestamp(), TG_RELID, kind, old_text, new_text);
                RETURN NULL;
            END IF;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END IF;
    INSERT INTO perigee_changes.images (xid, at, tbl, op)
    SELECT pg_catalog.pg_current_xact_id(), pg_catalog.clock_timestamp(), TG_RELID, 'x'
    WHERE (SELECT i.op = 'x' AND i.tbl = TG_RELID FROM perigee_changes.images i
        WHERE i.xid = pg_catalog.pg_current_xact_id() ORDER BY i.seq DESC LIMIT 1) IS NOT TRUE;
    RETURN NULL;
END ";

/// Tables of a schema with those below them: what a text of a row is read by, and whether the trigger is there.
const CATALOG: &str = "\
WITH RECURSIVE tree (name, relation) AS (
    SELECT c.relname::text, c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.name[])
    UNION
    SELECT tree.name, i.inhrelid
    FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) tree.relation
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
        AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
)
SELECT tree.name, tree.relation, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relfilenode,
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
        ORDER BY a.attnum),
    pg_catalog.concat_ws(' ',
        (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod,
                a.attisdropped), ',' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0),
        (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', t.oid, t.tgenabled), ',' ORDER BY t.oid)
            FROM pg_catalog.pg_trigger t
            WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid
                AND pg_catalog.starts_with(t.tgname::text, '!perigee_image_')))
FROM tree JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) tree.relation
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY tree.name, tree.relation";

/// Since when a table has been followed in this form.
const SINCE: &str = "SELECT f.since FROM perigee_changes.followed f WHERE f.tbl = $1 AND f.mark = $2";
/// Notes that it is from now on.
const FOLLOW: &str = "\
INSERT INTO perigee_changes.followed (tbl, mark, since) VALUES ($1, $2, $3)
ON CONFLICT (tbl) DO UPDATE SET mark = EXCLUDED.mark, since = EXCLUDED.since";

/// How far a log has been read, and for which tables.
#[derive(Debug, Clone, Default)]
pub struct ImageReader {
    tables: BTreeMap<String, FollowedTable>,
    cursor: Option<ImageCursor>,
    catalog_seen: Option<Instant>,
    pause: Duration,
    history: SnapshotHistory<Snapshot>,
    /// The limit up to which entries are removed now, a batch with each look.
    pruning: Option<Snapshot>,
    /// The first transaction of which entries may not be removed yet.
    pruned: u64,
    /// When the current look was begun, in microseconds since 1970.
    looked_us: Option<i64>,
}

/// A table that is followed.
#[derive(Debug, Clone)]
struct FollowedTable {
    writer: Arc<ImageWriter>,
    relations: ImageRelations,
}

/// A table and those below it, by their ids.
type ImageRelations = BTreeMap<u32, Relation>;

/// A table as the catalog has it.
#[derive(Debug, Clone, PartialEq)]
struct Relation {
    /// Its name in SQL.
    name: String,
    /// Its file: another one after `TRUNCATE`.
    file: u32,
    columns: Vec<String>,
    /// What changes when its columns or triggers do.
    mark: String,
}

/// What the log and the catalog are when a table is captured.
struct Baseline {
    source: u64,
    prepared: Vec<String>,
    now: Snapshot,
    root: u32,
    relations: ImageRelations,
}

/// Place up to which a log has been read.
#[derive(Debug, Clone)]
struct ImageCursor {
    source: u64,
    /// What has been told.
    told: Snapshot,
    /// What has been told of a look of another reader, which is to be finished.
    partly: Option<(Snapshot, (u64, u64))>,
    /// What need not be told besides.
    also: Option<Snapshot>,
    /// What is being told.
    look: Option<CurrentLook>,
    /// Transactions that were prepared before the server was started.
    prepared: Vec<String>,
}

/// A look that is told in several parts.
#[derive(Debug, Clone)]
struct CurrentLook {
    seen: Snapshot,
    /// The order of what was told last.
    order: (u64, u64),
    waiting: VecDeque<WaitingTransaction>,
    /// Tables whose images in this look cannot be read.
    skipped: BTreeSet<String>,
}

/// A transaction that is not told whole yet.
#[derive(Debug, Clone)]
struct WaitingTransaction {
    id: u64,
    /// Its last entry.
    last: u64,
    /// The last entry that was told.
    from: u64,
    /// Entries, and bytes of them.
    entries: u64,
    bytes: u64,
    /// The tables that it changed.
    relations: Vec<u32>,
    /// Tables of which it has a change without the rows.
    lost: Vec<u32>,
}

impl Postgres {
    /// Captures the changes of a table from now on. Its triggers are made where they are missing.
    ///
    /// Returns the position after which the log has all of them.
    pub async fn capture_images(
        &self,
        reader: &mut ImageReader,
        table: &str,
        writer: Arc<ImageWriter>,
    ) -> Result<LogPosition, Error> {
        reader.tables.remove(table);
        for _ in 0..CAPTURE_ATTEMPTS {
            self.make_triggers(table, TriggerKind::Image).await?;
            let Some(Baseline { source, prepared, now, root, relations }) = self.image_baseline(table).await? else {
                continue;
            };
            let since = self.followed_since(root, &relations, &now).await?;
            if reader.cursor.as_ref().is_none_or(|cursor| cursor.source != source) {
                reader.cursor = Some(ImageCursor { source, told: now, partly: None, also: None, look: None, prepared });
            }
            reader.tables.insert(table.to_owned(), FollowedTable { writer, relations });
            return Ok(LogPosition::of(source, since));
        }
        Err(busy(format!("the triggers of {table} are changed by others")))
    }

    /// What the log and the catalog are now for a table; `None` where triggers were lost before this look at them.
    async fn image_baseline(&self, table: &str) -> Result<Option<Baseline>, Error> {
        let looked = match self.look_at_images(&ServerSnapshot::of_all().into(), &[table], true).await {
            Ok(looked) => looked,
            Err(failure) if is_not_ours(&failure) => return Ok(None),
            Err(failure) => return Err(self.error(failure)),
        };
        let tree = self.tree(table, TriggerKind::Image).await?;
        let wanting = tree.wanting().map_err(|failure| self.error(failure))?;
        let root = tree.root().map_err(|failure| self.error(failure))?;
        let relations = looked.catalog.and_then(|mut catalog| catalog.remove(table));
        let (Some(epoch), Some(root), Some(relations)) = (looked.epoch, root, relations) else { return Ok(None) };
        let (source, prepared, now) = (source(&epoch), looked.prepared, looked.seen);
        Ok((wanting.is_empty()).then_some(Baseline { source, prepared, now, root, relations }))
    }

    /// Since when the log has all changes of a table in the form that it has now: since `now`, where it was another.
    async fn followed_since(&self, root: u32, relations: &ImageRelations, now: &Snapshot) -> Result<Snapshot, Error> {
        let mut hasher = DefaultHasher::new();
        hasher.write(format!("{relations:?}").as_bytes());
        let (mark, now) = (format!("{:x}", hasher.finish()), ServerSnapshot::from(now.clone()).to_string());
        let since = self.transaction(setup::BEGIN, |connection| async move {
            Ok(Ok(follow(&connection, root, &mark, &now).await?))
        });
        let since = since.await?.map_err(Error::Database)?;
        Ok(ServerSnapshot::parse(&since).into())
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end.
    pub async fn release_images(&self, reader: &mut ImageReader, kept: &[String]) -> Result<(), Error> {
        reader.tables.retain(|table, _| kept.contains(table));
        if kept.is_empty() {
            reader.cursor = None;
        }
        self.drop_triggers(kept, TriggerKind::Image).await
    }

    /// What was committed since the last look, or more of that.
    pub async fn changed_images(&self, reader: &mut ImageReader, numbers: Numbers) -> Result<LogLook, Error> {
        let Some(mut cursor) = reader.cursor.clone() else {
            return Err(Error::Unavailable("no table is captured".to_owned()));
        };
        let (mut losses, mut failed) = (Vec::new(), Vec::new());
        if cursor.look.is_none() {
            let is_due = reader.catalog_seen.is_none_or(|seen| seen.elapsed() >= CATALOG_INTERVAL);
            let names: Vec<&str> = reader.tables.keys().map(String::as_str).collect();
            let looked = match self.look_at_images(&cursor.told, &names, is_due).await {
                Ok(looked) => looked,
                Err(failure) if is_not_ours(&failure) => return self.lost_images(reader).await,
                Err(failure) => return Err(self.error(failure)),
            };
            if looked.has_lost(&cursor) {
                return self.lost_images(reader).await;
            }
            let skipped = match &looked.catalog {
                Some(catalog) => {
                    reader.catalog_seen = Some(Instant::now());
                    self.changed_catalog(reader, catalog, &mut losses, &mut failed).await?
                }
                None => BTreeSet::new(),
            };
            reader.pause = match looked.waiting.is_empty() {
                true => (reader.pause * 2).clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX),
                false => POLL_INTERVAL_MIN,
            };
            self.prune_images(reader, &looked.seen).await;
            let looked_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            reader.looked_us = i64::try_from(looked_us).ok();
            cursor.prepared = looked.prepared;
            let whole = CurrentLook { seen: looked.seen, order: (0, 0), waiting: looked.waiting, skipped };
            let mut look = match cursor.partly.take() {
                Some((seen, order)) => whole.rest_of(seen, order),
                None => whole,
            };
            look.waiting.retain(|one| !cursor.also.as_ref().is_some_and(|also| also.sees(one.id)));
            cursor.look = Some(look);
        }
        let look = self.images_of(reader, &mut cursor, losses, numbers).await?;
        reader.cursor = Some(cursor);
        Ok(LogLook { failed, ..look })
    }

    /// Finds tables that are not what they were, and captures them anew: what was logged of them meanwhile is skipped.
    async fn changed_catalog(
        &self,
        reader: &mut ImageReader,
        catalog: &BTreeMap<String, ImageRelations>,
        losses: &mut Vec<Loss>,
        failed: &mut Vec<(String, Error)>,
    ) -> Result<BTreeSet<String>, Error> {
        let is_other =
            |(name, table): &(&String, &FollowedTable)| catalog.get(*name).is_none_or(|now| *now != table.relations);
        let others: Vec<String> = reader.tables.iter().filter(is_other).map(|(name, _)| name.clone()).collect();
        for name in &others {
            let Some(before) = reader.tables.remove(name) else { continue };
            let is_emptied = catalog.get(name).is_some_and(|now| only_files_differ(&before.relations, now));
            let reason = if is_emptied { ResyncReason::Truncate } else { ResyncReason::LogLost };
            match self.capture_images(reader, name, before.writer.clone()).await {
                Ok(_) => losses.push(Loss { reason, tables: vec![name.clone()] }),
                Err(error) if matches!(error, Error::Query(_)) => failed.push((name.clone(), error)),
                // It is tried again with the next look.
                Err(error) => {
                    reader.tables.insert(name.clone(), before);
                    return Err(error);
                }
            }
        }
        Ok(others.into_iter().collect())
    }

    /// The log was lost: all tables are captured anew.
    async fn lost_images(&self, reader: &mut ImageReader) -> Result<LogLook, Error> {
        // Transactions of another server may have lower ids.
        let tables = std::mem::take(&mut reader.tables);
        *reader = ImageReader { tables, ..ImageReader::default() };
        let mut failed = Vec::new();
        for (name, table) in reader.tables.clone() {
            match self.capture_images(reader, &name, table.writer).await {
                Ok(_) => {}
                Err(error) if matches!(error, Error::Query(_)) => failed.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        let position = reader.position().ok_or_else(|| busy("the log was lost".to_owned()))?;
        let losses = vec![Loss { reason: ResyncReason::LogLost, tables: Vec::new() }];
        Ok(LogLook { losses, failed, parts: Vec::new(), position, has_more: false, visible: None })
    }

    /// Waits until it is time to look at the log again, or until something is committed by us.
    pub async fn image_commit_after(&self, reader: &ImageReader) {
        tokio::select! {
            () = self.inner.log_commits.notified() => {}
            () = tokio::time::sleep(reader.pause.max(POLL_INTERVAL_MIN)) => {}
        }
    }
}

impl Postgres {
    /// Waits until this process has committed something.
    pub async fn committed_image(&self) {
        self.inner.log_commits.notified().await;
    }
}

impl ImageReader {
    /// Images have the columns of `writer` from now on.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        if let Some(followed) = self.tables.get_mut(table) {
            followed.writer = writer;
        }
    }

    /// The position after the last look; `None` where nothing is captured.
    pub fn position(&self) -> Option<LogPosition> {
        self.cursor.as_ref().map(ImageCursor::position)
    }

    /// How far what was told is behind what was committed.
    pub fn lag(&self) -> LogLag {
        let waiting = self.cursor.as_ref().and_then(|cursor| cursor.look.as_ref()).map(|look| &look.waiting);
        let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) else { return LogLag::default() };
        LogLag { bytes: waiting.iter().map(|one| one.bytes).sum(), since_us: self.looked_us }
    }

    /// A reader of the same tables from a position on.
    pub fn at(&self, position: &LogPosition) -> Self {
        let prepared = self.cursor.as_ref().map(|cursor| cursor.prepared.clone()).unwrap_or_default();
        let LogPosition { source, seen, partly, also, .. } = position.clone();
        let cursor = ImageCursor { source, told: seen, partly, also, look: None, prepared };
        let (tables, catalog_seen) = (self.tables.clone(), self.catalog_seen);
        Self { tables, cursor: Some(cursor), catalog_seen, ..Self::default() }
    }
}

impl ImageCursor {
    fn position(&self) -> LogPosition {
        let whole = LogPosition::of(self.source, self.told.clone());
        let partly = self.look.as_ref().map(|look| (look.seen.clone(), look.order));
        LogPosition { partly: partly.or_else(|| self.partly.clone()), also: self.also.clone(), ..whole }
    }
}

impl CurrentLook {
    /// What is left of another look after `order`: it saw what this one sees, or less.
    fn rest_of(mut self, seen: Snapshot, order: (u64, u64)) -> Self {
        self.waiting.retain(|transaction| seen.sees(transaction.id) && (transaction.last, transaction.last) > order);
        for transaction in self.waiting.iter_mut().filter(|transaction| transaction.last == order.0) {
            transaction.from = order.1;
        }
        Self { seen, order, ..self }
    }
}

impl Looked {
    /// Whether entries may be missing that were made after `cursor`.
    fn has_lost(&self, cursor: &ImageCursor) -> bool {
        let is_other = self.epoch.as_deref().is_none_or(|epoch| source(epoch) != cursor.source);
        let told = ServerSnapshot::from(cursor.told.clone());
        is_other
            || cursor.prepared.iter().any(|transaction| !self.prepared.contains(transaction))
            || self.pruned.as_ref().is_some_and(|pruned| !told.sees_all_of(pruned))
    }
}

/// Hash of the epoch of the log.
fn source(epoch: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(epoch.as_bytes());
    hasher.finish()
}

/// Whether tables are what they were but for their files.
fn only_files_differ(before: &ImageRelations, now: &ImageRelations) -> bool {
    let same = |(id, before): (&u32, &Relation)| {
        now.get(id).is_some_and(|now| *before == Relation { file: before.file, ..now.clone() })
    };
    before.len() == now.len() && before.iter().all(same)
}

/// Since when a table has been followed with this mark: from now on, where it had another.
async fn follow(connection: &Connection, table: u32, mark: &str, now: &str) -> Result<String, PostgresError> {
    let since: [(&(dyn ToSql + Sync), Native); 2] = [(&table, Native::OID), (&mark, Native::TEXT)];
    if let Some(row) = connection.query(SINCE, &since).await?.first() {
        return Ok(row.try_get(0)?);
    }
    let args: [(&(dyn ToSql + Sync), Native); 3] = [(&table, Native::OID), (&mark, Native::TEXT), (&now, Native::TEXT)];
    connection.query(FOLLOW, &args).await?;
    Ok(now.to_owned())
}
