//! A look at a binary log: what has become visible since the one before.

use std::{sync::Arc, time::Duration};

use proto::crud::ResyncReason;
use query::resources::Numbers;

use super::{
    ARRIVAL_TIMEOUT, BinlogCursor, BinlogReader, LookEnd, after_row,
    cascade::{self, Cascades},
    place::BinlogPlace,
    statement::{self, LoggedStatement},
    stream::{BinlogEnd, RawEvent, kind},
    transaction::{LoggedTables, OpenTransaction},
};
use crate::{
    Error,
    store::{
        log::{LogLag, LogLook, LogPart, LogPosition, Loss, Place},
        mysql::{Mysql, MysqlError},
    },
};

/// Bytes of images after which a look ends, and is followed by the next.
const LOOK_BYTES: usize = 4 << 20;

/// What is found so far. It outlives a look that is given up.
#[derive(Debug, Default)]
pub struct BinlogFindings {
    parts: Vec<LogPart>,
    bytes: usize,
    /// Tables that a statement may have changed in other ways than by rows.
    altered: Vec<(String, ResyncReason)>,
    /// Foreign keys may be others.
    has_altered_keys: bool,
    /// Those of them that cannot be followed any more.
    failed: Vec<(String, Error)>,
}

impl Mysql {
    /// Looks once, over the stream that there is.
    pub(super) async fn look_once(&self, reader: &mut BinlogReader, numbers: Numbers) -> Result<LogLook, LookEnd> {
        self.stream_of(reader).await.map_err(LookEnd::Stream)?;
        self.ask_altered(reader).await.map_err(LookEnd::Error)?;
        if let Some(look) = reader.without_statement().map_err(LookEnd::Stream)? {
            return Ok(look);
        }
        let (_, visible) = self.visible_place().await.map_err(LookEnd::Error)?;
        if let Some(cursor) = &mut reader.cursor {
            cursor.sees(visible).map_err(LookEnd::Stream)?;
        }
        let mut seen = 0;
        loop {
            let event = match reader.next(visible).await {
                Ok(event) => event,
                // What was found is told before.
                Err(_) if reader.found.has_any() => return Ok(reader.look(true)),
                Err(end) => return Err(LookEnd::Stream(end)),
            };
            let BinlogReader { tables, cursor: Some(cursor), found, lag, .. } = reader else {
                return Err(LookEnd::Error(nothing_captured()));
            };
            let Some(event) = event else {
                *lag = cursor.lag(visible, seen);
                return Ok(reader.look(false));
            };
            if event.kind == kind::FORMAT && cursor.file_made == 0 {
                cursor.file_made = event.timestamp;
                self.note_file(cursor.place.file(), event.timestamp);
            }
            seen = event.timestamp;
            cursor.take(&event, tables, found, numbers);
            cursor.check_stream(&event).map_err(LookEnd::Stream)?;
            let is_full = found.bytes > LOOK_BYTES;
            *lag = if is_full { cursor.lag(visible, seen) } else { *lag };
            self.ask_altered(reader).await.map_err(LookEnd::Error)?;
            if let Some(look) = reader.lost_again() {
                return Ok(look);
            }
            if is_full || !reader.found.failed.is_empty() {
                return Ok(reader.look(true));
            }
        }
    }

    /// Asks what tables are now that a statement has changed. Their rows are told again from now on, as they are then.
    async fn ask_altered(&self, reader: &mut BinlogReader) -> Result<(), Error> {
        while let Some((table, reason)) = reader.found.altered.last().cloned() {
            let writer = reader.tables.writer(&table);
            match Box::pin(self.surveyed_table(&table, writer.as_deref())).await {
                Ok(natures) => {
                    let (_, visible) = self.visible_place().await?;
                    reader.tables.void(&table, natures, visible, reason);
                }
                Err(error @ Error::Query(_)) => {
                    reader.tables.remove(&table);
                    reader.found.failed.push((table, error));
                }
                Err(error) => return Err(error),
            }
            reader.found.altered.pop();
        }
        if reader.found.has_altered_keys {
            self.ask_cascades(&mut reader.tables).await?;
            reader.found.has_altered_keys = false;
        }
        Ok(())
    }

    /// Asks which foreign keys change rows.
    pub(super) async fn ask_cascades(&self, tables: &mut LoggedTables) -> Result<(), Error> {
        let rules = self.in_binlog_session(|conn| Box::pin(cascade::rules(conn))).await?;
        tables.cascade(Cascades::new(&tables.database, &rules));
        Ok(())
    }
}

fn nothing_captured() -> Error {
    Error::Unavailable("no table is captured".to_owned())
}

impl BinlogReader {
    /// A look that needs no statement: it tells what was missed, or that nothing has arrived.
    fn without_statement(&mut self) -> Result<Option<LogLook>, BinlogEnd> {
        if let Some(look) = self.lost_again() {
            return Ok(Some(look));
        }
        let Self { tables, cursor: Some(cursor), stream: Some(stream), found, .. } = self else { return Ok(None) };
        while cursor.waiting.is_none() && !cursor.is_behind && !found.has_any() {
            match stream.try_next()? {
                None => return Ok(Some(self.look(false))),
                Some(event) if event.kind == kind::HEARTBEAT => {
                    cursor.take(&event, tables, found, Numbers::Exact);
                    cursor.check_stream(&event)?;
                    // What is visible tells whether it is still that log.
                    cursor.is_behind = true;
                }
                Some(event) => cursor.waiting = Some(Arc::new(event)),
            }
        }
        Ok(None)
    }

    /// The next event that is visible; `None` where there is none, or none has arrived.
    async fn next(&mut self, visible: BinlogPlace) -> Result<Option<Arc<RawEvent>>, BinlogEnd> {
        let Self { cursor: Some(cursor), stream: Some(stream), .. } = self else { return Ok(None) };
        let is_behind = cursor.place < visible;
        if cursor.waiting.is_none() {
            let wait = if is_behind { ARRIVAL_TIMEOUT } else { Duration::ZERO };
            cursor.waiting = stream.next(wait).await?.map(Arc::new);
        }
        cursor.is_behind = is_behind && cursor.waiting.is_none();
        let is_visible =
            |event: &Arc<RawEvent>, cursor: &BinlogCursor| event.kind != kind::GTID || cursor.start_of(event) < visible;
        match cursor.waiting.take() {
            Some(event) if is_visible(&event, cursor) => {
                cursor.unseen = 0;
                Ok(Some(event))
            }
            waiting => {
                cursor.unseen = if waiting.is_some() { cursor.unseen.saturating_add(1) } else { 0 };
                cursor.waiting = waiting;
                Ok(None)
            }
        }
    }

    /// What tells that something may have been missed, after what was found before, where it may.
    fn lost_again(&mut self) -> Option<LogLook> {
        let Self { tables, cursor: Some(cursor), found, .. } = self else { return None };
        cursor.lose_again(tables);
        if cursor.losses.is_empty() {
            return None;
        }
        if found.has_any() {
            return Some(self.look(true));
        }
        let mut losses = std::mem::take(&mut cursor.losses);
        if let Some(all) = losses.iter().position(|loss| loss.tables.is_empty()) {
            losses = vec![losses.swap_remove(all)];
        }
        Some(LogLook { losses, has_more: true, ..LogLook::of(Vec::new(), cursor.position()) })
    }

    /// What was found.
    fn look(&mut self, has_more: bool) -> LogLook {
        let found = std::mem::take(&mut self.found);
        (self.found.altered, self.found.has_altered_keys) = (found.altered, found.has_altered_keys);
        let position = self.position().unwrap_or_else(|| LogPosition::of(0, Default::default()));
        LogLook { failed: found.failed, has_more, ..LogLook::of(found.parts, position) }
    }
}

impl BinlogCursor {
    /// Where the transaction begins whose first event this is.
    fn start_of(&self, event: &RawEvent) -> BinlogPlace {
        let end = self.place.after_event(event.log_pos);
        BinlogPlace::new(end.file(), end.offset().saturating_sub(u64::from(event.size)))
    }

    /// Notes up to where transactions are visible, which only a log that was begun anew takes back.
    fn sees(&mut self, visible: BinlogPlace) -> Result<(), BinlogEnd> {
        if visible < self.visible {
            return Err(BinlogEnd::Gone("it was begun anew".to_owned()));
        }
        self.visible = visible;
        Ok(())
    }

    /// A server that says that it has sent all, and has not sent what was visible before, streams a log that is no more.
    fn check_stream(&self, event: &RawEvent) -> Result<(), BinlogEnd> {
        if event.kind == kind::HEARTBEAT && self.open.is_none() && self.place < self.visible {
            return Err(BinlogEnd::Lost(MysqlError::Connect("the server streams another binary log".to_owned())));
        }
        Ok(())
    }

    /// Takes the next event.
    fn take(&mut self, event: &RawEvent, tables: &mut LoggedTables, found: &mut BinlogFindings, numbers: Numbers) {
        match event.kind {
            kind::ROTATE => {
                self.give_up(tables);
                if let Some(place) = event.rotated_to() {
                    if place.file() != self.place.file() {
                        self.file_made = 0;
                    }
                    self.place = self.place.max(place);
                    tables.forget_layouts();
                }
            }
            kind::GTID => {
                self.give_up(tables);
                self.place = self.place.max(self.start_of(event));
                tables.begin();
                let flags = event.transaction_flags().unwrap_or_default();
                self.open = Some(OpenTransaction::new(self.start_of(event), flags, self.partly.take()));
            }
            kind::TABLE_MAP => tables.map(event),
            kind::WRITE_ROWS | kind::UPDATE_ROWS | kind::DELETE_ROWS => {
                let Some(open) = &mut self.open else { return };
                let lost: Vec<String> = tables.rows(event, open, numbers).into_iter().collect();
                if !lost.is_empty() {
                    self.losses.push(Loss { reason: ResyncReason::LogLost, tables: lost });
                }
                if open.bytes > LOOK_BYTES && !open.is_prepared {
                    self.tell(event.timestamp, found);
                }
            }
            kind::QUERY => self.statement(event, tables, found),
            kind::XID | kind::XA_PREPARE => self.end(event, tables, found),
            // Statements in the place of rows, or rows that are compressed.
            kind::INTVAR | kind::RAND | kind::USER_VAR | kind::BEGIN_LOAD | kind::EXECUTE_LOAD => self.lose_all(),
            kind::INCIDENT | kind::QUERY_COMPRESSED => self.lose_all(),
            compressed if kind::ROWS_COMPRESSED.contains(&compressed) => self.lose_all(),
            _ if self.open.is_none() && event.log_pos != 0 => self.place = self.place.after_event(event.log_pos),
            _ => {}
        }
    }

    /// Takes a statement.
    fn statement(&mut self, event: &RawEvent, tables: &mut LoggedTables, found: &mut BinlogFindings) {
        use LoggedStatement as Is;
        let (database, text) = event.statement().unwrap_or_default();
        let is_whole = self.open.as_ref().is_none_or(|open| open.is_standalone);
        let is = LoggedStatement::of(&text);
        // Tables of other databases may have the same names.
        let may_be_own = database == tables.database || statement::names(&text, &tables.database);
        let named = || tables.named(|table| may_be_own && statement::names(&text, table));
        let (named, reason) = match is {
            Is::Names => (named(), ResyncReason::LogLost),
            Is::Truncate => (named(), ResyncReason::Truncate),
            Is::DropDatabase if statement::names(&text, &tables.database) => {
                (tables.named(|_| true), ResyncReason::LogLost)
            }
            _ => (Vec::new(), ResyncReason::LogLost),
        };
        found.has_altered_keys |= is == Is::Names;
        found.altered.extend(named.into_iter().map(|table| (table, reason)));
        match is {
            Is::Rollback => self.roll_back(tables),
            Is::RollbackTo => {
                self.lose_touched();
                self.forget_changes();
            }
            Is::XaCommit | Is::Any => self.lose_all(),
            Is::Harmless | Is::Commit | Is::Truncate | Is::Names | Is::DropDatabase => {}
        }
        if is_whole || matches!(is, Is::Commit | Is::Rollback | Is::XaCommit) {
            self.end(event, tables, found);
        }
    }

    /// The rows of the transaction do not count. Those that were told have to be read again.
    fn roll_back(&mut self, tables: &LoggedTables) {
        let Some(open) = &self.open else { return };
        if open.told().is_some() {
            let touched = open.touched.iter().filter(|table| tables.writer(table).is_some()).cloned().collect();
            self.losses.push(Loss { reason: ResyncReason::LogLost, tables: touched });
        }
        self.forget_changes();
    }

    /// What has arrived of the transaction, and was not told, is not.
    fn forget_changes(&mut self) {
        if let Some(open) = &mut self.open {
            open.changes.clear();
            open.bytes = 0;
        }
    }

    /// Rows of the transaction may not count.
    fn lose_touched(&mut self) {
        let Some(open) = self.open.as_ref().filter(|open| !open.touched.is_empty()) else { return };
        let tables = open.touched.iter().cloned().collect();
        self.losses.push(Loss { reason: ResyncReason::LogLost, tables });
    }

    fn lose_all(&mut self) {
        let loss = Loss { reason: ResyncReason::LogLost, tables: Vec::new() };
        if !self.losses.contains(&loss) {
            self.losses.push(loss);
        }
    }

    /// The transaction ends with an event.
    fn end(&mut self, event: &RawEvent, tables: &mut LoggedTables, found: &mut BinlogFindings) {
        self.place = self.place.max(self.place.after_event(event.log_pos));
        let Some(mut open) = self.open.take().filter(|open| !open.is_prepared) else { return };
        tables.touch(&open.touched);
        let (changes, row) = open.take();
        if !changes.is_empty() {
            found.add((open.start, row), event.timestamp, changes, self.position());
        }
    }

    /// What has arrived of a transaction is all of it, and it has no end: a server that was killed wrote that, and undid it
    /// when it began again. Nothing of it counts; its tables are lost all the same, since nobody says so.
    fn give_up(&mut self, tables: &mut LoggedTables) {
        self.lose_touched();
        if let Some(open) = self.open.take() {
            tables.touch(&open.touched);
        }
    }

    /// Tells a part of the transaction.
    fn tell(&mut self, timestamp: u32, found: &mut BinlogFindings) {
        let Some(open) = &mut self.open else { return };
        let (start, (changes, row)) = (open.start, open.take());
        let before = LogPosition { mark: self.file_made, ..LogPosition::of(self.source, self.place.snapshot()) };
        found.add((start, row), timestamp, changes, after_row(before, (start.0, row)));
    }

    /// Tables whose rows are told again are lost until here.
    fn lose_again(&mut self, tables: &mut LoggedTables) {
        if self.open.is_some() {
            return;
        }
        for (table, reason) in tables.told_again(self.place) {
            match self.losses.iter_mut().find(|loss| loss.reason == reason && !loss.tables.is_empty()) {
                Some(loss) => loss.tables.push(table),
                None => self.losses.push(Loss { reason, tables: vec![table] }),
            }
        }
    }

    /// How far it is behind what is visible. `seen` is when the last event was made, in seconds since 1970.
    fn lag(&self, visible: BinlogPlace, seen: u32) -> LogLag {
        if self.place >= visible || seen == 0 {
            return LogLag::default();
        }
        let from = if self.place.file() == visible.file() { self.place.offset() } else { 0 };
        LogLag { bytes: visible.offset().saturating_sub(from), since_us: Some(i64::from(seen) * 1_000_000) }
    }
}

impl BinlogFindings {
    /// Whether there is anything to tell.
    fn has_any(&self) -> bool {
        !self.parts.is_empty() || !self.failed.is_empty()
    }

    fn add(
        &mut self,
        (start, row): (BinlogPlace, u64),
        timestamp: u32,
        changes: Vec<proto::crud::Change>,
        position: LogPosition,
    ) {
        let place = Place { id: start.0, order: (start.0, row) };
        let part = LogPart { place, committed_us: i64::from(timestamp) * 1_000_000, changes, position };
        self.bytes += part.bytes();
        self.parts.push(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> BinlogCursor {
        BinlogCursor::new(1, "log".to_owned(), BinlogPlace::new(1, 400))
    }

    /// One event, after which there is what is lost.
    fn taken(cursor: &mut BinlogCursor, event: &RawEvent) -> Vec<Loss> {
        let (mut tables, mut found) = (LoggedTables::default(), BinlogFindings::default());
        cursor.take(event, &mut tables, &mut found, Numbers::Exact);
        assert!(found.parts.is_empty());
        std::mem::take(&mut cursor.losses)
    }

    #[test]
    fn a_transaction_without_an_end_is_lost_and_the_log_goes_on_in_the_next_file() {
        let to_next = [&4_u64.to_le_bytes()[..], b"log.000002"].concat();
        for (event, place) in [
            (RawEvent::of(kind::ROTATE, 0, 0, to_next), BinlogPlace::new(2, 4)),
            (RawEvent::of(kind::GTID, 640, 40, vec![0; 19]), BinlogPlace::new(1, 600)),
        ] {
            let mut cursor = cursor();
            let mut open = OpenTransaction::new(cursor.place, 0, None);
            open.touched.insert("note".to_owned());
            cursor.open = Some(open);
            let lost = Loss { reason: ResyncReason::LogLost, tables: vec!["note".to_owned()] };
            assert_eq!(taken(&mut cursor, &event), [lost]);
            assert_eq!(cursor.place, place);
            assert_eq!(cursor.open.map(|open| open.start), (event.kind == kind::GTID).then_some(place));
        }
    }

    #[test]
    fn rows_before_a_savepoint_that_is_gone_back_to_are_lost_and_not_told() {
        let text = b"ROLLBACK TO `k`";
        let body = [&[0; 8][..], &[4, 0, 0, 0, 0], b"shop\0", text].concat();
        let mut cursor = cursor();
        let mut open = OpenTransaction::new(cursor.place, 0, None);
        open.touched.insert("note".to_owned());
        open.changes.push(proto::crud::Change::default());
        cursor.open = Some(open);
        let lost = Loss { reason: ResyncReason::LogLost, tables: vec!["note".to_owned()] };
        assert_eq!(taken(&mut cursor, &RawEvent::of(kind::QUERY, 500, 40, body)), [lost]);
        assert!(cursor.open.is_some_and(|open| open.changes.is_empty()));
    }

    #[test]
    fn a_log_that_is_begun_anew_is_found_out() {
        let mut cursor = cursor();
        assert!(cursor.sees(BinlogPlace::new(1, 400)).is_ok() && cursor.sees(BinlogPlace::new(1, 400)).is_ok());
        let heartbeat = RawEvent::of(kind::HEARTBEAT, 400, 40, Vec::new());
        assert!(taken(&mut cursor, &heartbeat).is_empty() && cursor.check_stream(&heartbeat).is_ok());
        assert!(matches!(cursor.sees(BinlogPlace::new(1, 399)), Err(BinlogEnd::Gone(_))));
        assert!(cursor.sees(BinlogPlace::new(1, 500)).is_ok());
        assert!(matches!(cursor.check_stream(&heartbeat), Err(BinlogEnd::Lost(_))));
    }
}
