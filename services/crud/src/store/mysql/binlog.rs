//! Changes of a server's tables, read from its binary log: nothing is made in the database, and any number may read.
//!
//! The server streams transactions when they are in the log, which is before others see them: those that are not visible yet
//! wait. The place of a transaction in the log is its number; a snapshot knows the place before which it sees all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mysql_async::Conn;
use proto::crud::{ResyncReason, Snapshot};
use query::resources::Numbers;

use self::{
    layout::ColumnNature,
    look::BinlogFindings,
    place::BinlogPlace,
    stream::{BinlogEnd, EventStream, FIRST_OFFSET, RawEvent},
    survey::{BinlogObstacle, ServerSurvey},
    transaction::{LoggedTables, OpenTransaction},
};
use super::{ConnState, Mysql, MysqlError};
use crate::{
    Error,
    store::{
        Changed, Output, Rows, Statement,
        log::{ImageWriter, LogLag, LogLook, LogPosition, Loss},
    },
};

mod cascade;
mod charset;
mod decode;
pub mod diagnosis;
mod layout;
mod look;
mod place;
mod statement;
mod stream;
mod survey;
mod transaction;

/// How long a look waits for what is visible and has not arrived.
const ARRIVAL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long it is waited before it is asked again whether what has arrived is visible: first, and at most after so many
/// doublings. A server may wait for its replicas before others see a commit.
const VISIBLE_INTERVAL: Duration = Duration::from_millis(2);
const DOUBLINGS_MAX: u32 = 5;

/// How far the binary log has been read, and for which tables.
#[derive(Debug, Default)]
pub struct BinlogReader {
    tables: LoggedTables,
    cursor: Option<BinlogCursor>,
    stream: Option<EventStream>,
    found: BinlogFindings,
    lag: LogLag,
}

/// The place up to which a log has been read.
#[derive(Debug, Clone)]
struct BinlogCursor {
    source: u64,
    /// The base name of the log's files.
    base: String,
    /// After the last whole transaction.
    place: BinlogPlace,
    /// When the file of the place was made, in seconds since 1970; zero where that is not known.
    file_made: u32,
    /// The transaction that is told in parts, and the last row of it that was told.
    partly: Option<(u64, u64)>,
    /// What has arrived of a transaction.
    open: Option<OpenTransaction>,
    /// What has arrived and is not visible.
    waiting: Option<Arc<RawEvent>>,
    /// How often that was found.
    unseen: u32,
    /// There may be more to look at than what has arrived.
    is_behind: bool,
    /// Up to where transactions were visible when that was last asked.
    visible: BinlogPlace,
    /// What is to be told by the next look.
    losses: Vec<Loss>,
}

/// What ends a look that fails.
enum LookEnd {
    Stream(BinlogEnd),
    Error(Error),
}

/// The statement whose rows are the place up to which a snapshot sees transactions.
pub fn end_statement() -> Statement {
    let columns = [Output::from(query::Type::Text), Output::from(query::Type::Text)];
    Statement {
        text: survey::VISIBLE.into(),
        args: Vec::new(),
        columns: columns.into(),
        sources: Vec::new(),
        plain: None,
    }
}

impl Mysql {
    /// What the snapshot sees in which [`end_statement`] was run, and the mark of its position.
    pub fn binlog_end(&self, rows: &Rows) -> Option<(Snapshot, u32)> {
        let text = |row, column| match rows.cell(row, column) {
            crate::cell::Cell::Text(text) => Some(text.into_owned()),
            _ => None,
        };
        let status: BTreeMap<String, String> =
            (0..rows.len()).filter_map(|row| Some((text(row, 0)?.to_ascii_lowercase(), text(row, 1)?))).collect();
        let value = |name: &str| status.get(name).map(String::as_str);
        let (_, place) = survey::place(value("binlog_snapshot_file"), value("binlog_snapshot_position"))?;
        Some((place.snapshot(), self.file_made(place.file())))
    }

    /// Captures the changes of a table; the position after which the log has all of them. With a writer, their images.
    pub async fn capture_binlog(
        &self,
        reader: &mut BinlogReader,
        table: &str,
        writer: Option<Arc<ImageWriter>>,
    ) -> Result<LogPosition, Error> {
        let survey = self.in_binlog_session(|conn| Box::pin(survey::server(conn))).await?;
        if let Some(obstacle) = survey.obstacles.first() {
            return Err(Error::unfollowed(table, &obstacle.to_string()));
        }
        // Statements that alter the table after it was looked at are in the log after this place.
        let begun = match reader.cursor {
            None => Some(self.visible_place().await?),
            Some(_) => None,
        };
        let natures = self.surveyed_table(table, writer.as_deref()).await?;
        if let Some((base, place)) = begun {
            reader.cursor = Some(BinlogCursor::new(survey.source, base, place));
            reader.tables.database.clone_from(&survey.database);
        }
        if let Err(error) = self.open_stream(reader, Some(table)).await {
            if reader.tables.is_empty() {
                *reader = BinlogReader::default();
            }
            return Err(error);
        }
        self.ask_cascades(&mut reader.tables).await?;
        reader.tables.add(table, writer, natures);
        let source = reader.cursor.as_ref().map_or(survey.source, |cursor| cursor.source);
        // The log has the changes of all tables, as far as it goes back.
        Ok(LogPosition::of(source, Snapshot::default()))
    }

    /// Ends the capture of all tables but `kept`.
    pub fn release_binlog(&self, reader: &mut BinlogReader, kept: &[String]) {
        reader.tables.retain(kept);
        if kept.is_empty() {
            *reader = BinlogReader::default();
        }
    }

    /// The tables that were changed since this was last asked.
    pub async fn changes_in_binlog(&self, reader: &mut BinlogReader) -> Result<Changed, Error> {
        loop {
            let look = self.look_at_binlog(reader, Numbers::Exact).await?;
            if !look.losses.is_empty() || !look.failed.is_empty() {
                return Ok(Changed::Any);
            }
            let touched = reader.tables.take_touched();
            if !touched.is_empty() || !look.has_more {
                return Ok(Changed::Tables(touched));
            }
        }
    }

    /// What was committed since the last look.
    pub async fn look_at_binlog(&self, reader: &mut BinlogReader, numbers: Numbers) -> Result<LogLook, Error> {
        let mut is_retried = false;
        loop {
            match Box::pin(self.look_once(reader, numbers)).await {
                Ok(look) => return Ok(look),
                Err(LookEnd::Error(error)) => return Err(error),
                Err(LookEnd::Stream(BinlogEnd::Gone(why))) => return self.begin_binlog_anew(reader, &why).await,
                Err(LookEnd::Stream(BinlogEnd::Lost(failure))) => {
                    // It goes on after the last whole transaction, over another connection.
                    reader.end_stream();
                    if std::mem::replace(&mut is_retried, true) {
                        return Err(self.error_of(failure, None));
                    }
                    tracing::debug!(database = self.inner.database, ?failure, "the stream of the binary log is lost");
                }
            }
        }
    }

    /// The log does not go on where it was read: it is read from where it is now on.
    async fn begin_binlog_anew(&self, reader: &mut BinlogReader, why: &str) -> Result<LogLook, Error> {
        tracing::warn!(database = self.inner.database, why, "the binary log is begun anew");
        reader.end_stream();
        reader.found = BinlogFindings::default();
        // Files of another log have the same numbers.
        self.files().clear();
        let survey = self.in_binlog_session(|conn| Box::pin(survey::server(conn))).await?;
        let (base, place) = self.visible_place().await?;
        self.ask_cascades(&mut reader.tables).await?;
        let mut failed = Vec::new();
        for (table, writer) in reader.tables.writers() {
            let surveyed = match survey.obstacles.first() {
                Some(obstacle) => Err(Error::unfollowed(&table, &obstacle.to_string())),
                None => self.surveyed_table(&table, writer.as_deref()).await,
            };
            match surveyed {
                Ok(natures) => reader.tables.add(&table, writer, natures),
                Err(error @ Error::Query(_)) => {
                    reader.tables.remove(&table);
                    failed.push((table, error));
                }
                Err(error) => return Err(error),
            }
        }
        let cursor = reader.cursor.insert(BinlogCursor::new(survey.source, base, place));
        let mut position = cursor.position();
        if let Ok(()) = self.open_stream(reader, None).await
            && let Some(cursor) = &reader.cursor
        {
            position = cursor.position();
        }
        let losses = vec![Loss { reason: ResyncReason::LogLost, tables: Vec::new() }];
        Ok(LogLook { losses, failed, ..LogLook::of(Vec::new(), position) })
    }

    /// Opens the stream where it is not. With a table, what keeps us from that is an error of it.
    async fn open_stream(&self, reader: &mut BinlogReader, table: Option<&str>) -> Result<(), Error> {
        match self.stream_of(reader).await {
            Ok(()) => Ok(()),
            Err(BinlogEnd::Lost(failure)) => {
                if let (Some(table), true) = (table, is_denied(&failure)) {
                    let user = self.in_binlog_session(|conn| Box::pin(survey::user(conn))).await?;
                    return Err(Error::unfollowed(table, &survey::no_right(&user).to_string()));
                }
                Err(self.error_of(failure, None))
            }
            // The next look finds that as well, and says so.
            Err(BinlogEnd::Gone(_)) if !reader.tables.is_empty() => Ok(()),
            Err(BinlogEnd::Gone(why)) => Err(Error::Unavailable(format!("the binary log: {why}"))),
        }
    }

    /// Opens the stream at the cursor. A file of the same number that was made at another time is one of another log.
    async fn stream_of(&self, reader: &mut BinlogReader) -> Result<(), BinlogEnd> {
        let Some(cursor) = reader.cursor.as_mut().filter(|_| reader.stream.is_none()) else { return Ok(()) };
        if u32::try_from(cursor.place.offset()).is_err() {
            // Only the last transaction of a file ends there, where no stream can begin.
            cursor.place = BinlogPlace::new(cursor.place.file() + 1, FIRST_OFFSET);
            cursor.file_made = 0;
        }
        let stream = EventStream::open(&self.inner.pool.connector, &cursor.base, cursor.place).await?;
        if cursor.file_made != 0 && cursor.file_made != stream.file_made {
            return Err(BinlogEnd::Gone("its file is of another log".to_owned()));
        }
        cursor.file_made = stream.file_made;
        cursor.is_behind = true;
        self.note_file(cursor.place.file(), cursor.file_made);
        reader.stream = Some(stream);
        Ok(())
    }

    /// The natures of a table's columns. Errors: it cannot be followed.
    async fn surveyed_table(
        &self,
        table: &str,
        writer: Option<&ImageWriter>,
    ) -> Result<BTreeMap<String, ColumnNature>, Error> {
        let name = table.to_owned();
        let wanted: Vec<String> = writer.iter().flat_map(|writer| writer.columns()).map(|c| c.name.clone()).collect();
        let found = self.in_binlog_session(move |conn| {
            Box::pin(async move { survey::table(conn, &name, |column| wanted.iter().any(|name| name == column)).await })
        });
        found.await?.map_err(|obstacle| Error::unfollowed(table, &obstacle.to_string()))
    }

    /// The base name of the log's files, and the place up to which transactions are visible.
    async fn visible_place(&self) -> Result<(String, BinlogPlace), Error> {
        let visible = self.in_binlog_session(|conn| Box::pin(survey::visible(conn))).await?;
        visible.ok_or_else(|| Error::Unavailable("the server has no binary log".to_owned()))
    }

    /// What the server has for following its log, and the right to do so, which only the attempt shows.
    async fn binlog_survey(&self) -> Result<ServerSurvey, Error> {
        let mut survey = self.in_binlog_session(|conn| Box::pin(survey::server(conn))).await?;
        let has_log = |obstacle: &BinlogObstacle| !matches!(obstacle, BinlogObstacle::Setting { name: "log_bin", .. });
        if survey.obstacles.iter().all(has_log) {
            let (base, place) = self.visible_place().await?;
            match EventStream::open(&self.inner.pool.connector, &base, place).await {
                Err(BinlogEnd::Lost(failure)) if is_denied(&failure) => {
                    let user = self.in_binlog_session(|conn| Box::pin(survey::user(conn))).await?;
                    survey.obstacles.push(survey::no_right(&user));
                }
                Err(BinlogEnd::Lost(failure)) => return Err(self.error_of(failure, None)),
                Ok(_) | Err(BinlogEnd::Gone(_)) => {}
            }
        }
        Ok(survey)
    }

    /// Asks over a connection of the pool.
    async fn in_binlog_session<T>(
        &self,
        ask: impl FnOnce(&mut Conn) -> futures::future::BoxFuture<'_, Result<T, MysqlError>> + Clone,
    ) -> Result<T, Error> {
        let mut lease = self.lease().await?;
        let mut asked = lease.run(ConnState::Clean, ask.clone()).await;
        if asked.as_ref().is_err_and(MysqlError::is_lost) {
            drop(lease);
            lease = self.inner.pool.lease_new().await.map_err(|failure| self.error_of(failure, None))?;
            asked = lease.run(ConnState::Clean, ask).await;
        }
        asked.map_err(|failure| self.error_of(failure, None))
    }

    /// When a file was made, as far as this process knows.
    fn file_made(&self, file: u32) -> u32 {
        self.files().get(&file).copied().unwrap_or_default()
    }

    fn note_file(&self, file: u32, made: u32) {
        /// Files that are remembered.
        const FILES_MAX: usize = 16;
        let mut files = self.files();
        files.insert(file, made);
        while files.len() > FILES_MAX {
            files.pop_first();
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, u32>> {
        self.inner.files.lock().expect("no code panics while it holds this lock")
    }
}

impl BinlogReader {
    /// Images of a table have the columns of `writer` from now on.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        self.tables.describe(table, writer);
    }

    /// A reader of the same tables from a position on.
    pub fn at(&self, position: &LogPosition) -> Self {
        let cursor = self.cursor.as_ref().map(|cursor| BinlogCursor {
            file_made: position.mark,
            partly: position.partly.as_ref().map(|(_, order)| *order),
            ..BinlogCursor::new(position.source, cursor.base.clone(), BinlogPlace(position.seen.end))
        });
        Self { tables: self.tables.clone(), cursor, ..Self::default() }
    }

    /// The position after the last look; `None` where nothing is captured.
    pub fn position(&self) -> Option<LogPosition> {
        self.cursor.as_ref().map(BinlogCursor::position)
    }

    /// How far what was told is behind what is visible.
    pub fn lag(&self) -> LogLag {
        self.lag
    }

    /// Waits until something may be visible that was not looked at. Runs no statement.
    pub async fn arrival(&self) {
        let behind = self.cursor.as_ref().filter(|cursor| cursor.waiting.is_some() || cursor.is_behind);
        match (behind, &self.stream) {
            (Some(cursor), _) => {
                let doublings = cursor.unseen.saturating_sub(1).min(DOUBLINGS_MAX);
                tokio::time::sleep(VISIBLE_INTERVAL * (1 << doublings)).await;
            }
            (None, Some(stream)) => stream.arrival().await,
            (None, None) => tokio::time::sleep(ARRIVAL_TIMEOUT).await,
        }
    }

    /// Another stream begins after the last whole transaction.
    fn end_stream(&mut self) {
        self.stream = None;
        self.tables.forget_layouts();
        if let Some(cursor) = &mut self.cursor {
            cursor.partly = cursor.open.take().and_then(|open| open.told()).or(cursor.partly);
            cursor.waiting = None;
        }
    }
}

impl BinlogCursor {
    fn new(source: u64, base: String, place: BinlogPlace) -> Self {
        Self {
            source,
            base,
            place,
            file_made: 0,
            partly: None,
            open: None,
            waiting: None,
            unseen: 0,
            is_behind: true,
            visible: BinlogPlace(0),
            losses: Vec::new(),
        }
    }

    /// The position after what was told.
    fn position(&self) -> LogPosition {
        let whole = LogPosition { mark: self.file_made, ..LogPosition::of(self.source, self.place.snapshot()) };
        match self.open.as_ref().and_then(OpenTransaction::told).or(self.partly) {
            Some(told) => after_row(whole, told),
            None => whole,
        }
    }
}

/// The position after a row of the transaction that begins at a place.
fn after_row(before: LogPosition, (start, row): (u64, u64)) -> LogPosition {
    LogPosition { partly: Some((BinlogPlace(start + 1).snapshot(), (start, row))), ..before }
}

fn is_denied(failure: &MysqlError) -> bool {
    matches!(failure, MysqlError::Driver(mysql_async::Error::Server(error)) if survey::is_denied(error.code))
}
