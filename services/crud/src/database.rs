//! An open database: runs reads and mutations against the latest snapshot of its schema.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use mesh::{Code, Tasks, telemetry::Metrics};
use proto::crud::{Answer, LogResponse, Seen};
use query::{Schema, resources::Numbers};
use tokio::sync::Notify;

use crate::{
    Error, Introspected, LeftOut,
    budget::{Budget, Memory},
    changes::{
        ChangeHub,
        log::{LogHub, SharedLog},
    },
    error::{ReadError, StatementError},
    grant::Grants,
    links::{self, DatabaseLinks},
    meters::{Meters, timed},
    options::AnswerOptions,
    prepared::{CompiledReads, PreparedOperations, RequestShape, SingleInsert},
    resolve::Resolver,
    sql::{self, Dialect, Source},
    store::{MERGED_FROM, Rows, Statement, Store, log::LogLag},
    tree::Plan,
    write::{self, CompiledInsert, WriteContext, Written},
};

/// Least time between two refreshes of the schema because of names that are not in it.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// How long the others may have asked for the grants of an operation by the schema before.
const GRANTS_LAG_MAX: Duration = Duration::from_secs(10);

/// Time after which the schema is read again where objects are left out that may come back without a change of it.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(30);

/// An open database: its store, and the latest snapshot of its schema.
#[derive(Debug)]
pub struct Database {
    store: Store,
    meters: Meters,
    memory: Memory,
    prepared: PreparedOperations,
    snapshot: ArcSwap<SchemaSnapshot>,
    /// Links of its tables. Who replaces the snapshot holds them meanwhile.
    links: Mutex<Arc<DatabaseLinks>>,
    /// When an unknown name made us refresh the schema.
    last_refresh: Mutex<Option<Instant>>,
    /// Told when a refresh found another schema.
    moved: Arc<Notify>,
    changes: ChangeHub,
    log: LogHub,
}

/// Answers of reads that were made in one snapshot.
#[derive(Debug, Default)]
pub struct Answers {
    /// One for each read.
    pub answers: Vec<Answer>,
    /// What they saw, where that was asked for, and a log is kept.
    pub seen: Option<Box<Seen>>,
}

/// The schema of a database as it was when last read.
#[derive(Debug, Clone)]
pub struct SchemaSnapshot {
    /// Its tables.
    pub schema: Arc<Schema>,
    /// Objects of the database that are not in it.
    pub left_out: Vec<LeftOut>,
    /// Links that are not in it.
    pub links_left_out: Vec<LeftOut>,
    /// Hash of the schema: the same for the same schema on every node.
    pub version: u64,
    /// SQL dialect of its engine.
    pub dialect: Dialect,
    /// [`Store::schema_mark`] before it was read.
    schema_mark: Option<String>,
    /// When it came in the place of another.
    changed: Option<Instant>,
    /// When it is read again although the mark is the same.
    expires: Option<Instant>,
    /// [`PreparedOperations::next_snapshot`].
    pub id: u64,
}

impl SchemaSnapshot {
    /// The snapshot with the relations that `links` declare, in the place of those declared before.
    fn with_links(self, links: &DatabaseLinks) -> Self {
        let has_none = || self.schema.all_tables().iter().all(|table| table.links.is_empty());
        if links.is_empty() && self.links_left_out.is_empty() && has_none() {
            return self;
        }
        let (schema, links_left_out) = links::apply(Arc::unwrap_or_clone(self.schema), links, &self.dialect);
        Self { version: version(&schema), schema: Arc::new(schema), links_left_out, ..self }
    }
}

impl Database {
    /// Connects to the database behind `store` and reads its schema. Its log is read by one of `nodes`, where there are any.
    pub async fn connect(
        store: Store,
        dialect: Dialect,
        metrics: &Metrics,
        memory: Memory,
        prepared: PreparedOperations,
        (tasks, nodes): (&Tasks, Option<SharedLog>),
    ) -> Result<Self, Error> {
        let changes = ChangeHub::new(&store, tasks);
        let meters = Meters::new(metrics, dialect.engine().name());
        let schema_mark = store.schema_mark(dialect.neighbours()).await?;
        let snapshot = inspect(&store, dialect, &prepared, schema_mark).await?;
        let log = LogHub::new(&store, snapshot.schema.clone(), snapshot.dialect.clone(), tasks, nodes);
        let snapshot = ArcSwap::from_pointee(snapshot);
        let (links, last_refresh, moved) = (Mutex::default(), Mutex::default(), Arc::default());
        Ok(Self { store, meters, memory, prepared, snapshot, links, last_refresh, moved, changes, log })
    }

    /// Puts `links` in the place of those declared before; whether they are others.
    pub fn link(&self, links: Arc<DatabaseLinks>) -> bool {
        let mut declared = self.links.lock().expect("no code panics while it holds this lock");
        if *declared == links {
            return false;
        }
        *declared = links;
        let before = SchemaSnapshot::clone(&self.snapshot.load());
        let (id, changed) = (self.prepared.next_snapshot(), Some(Instant::now()));
        self.snapshot.store(Arc::new(SchemaSnapshot { id, changed, ..before }.with_links(&declared)));
        true
    }

    #[cfg(test)]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The latest snapshot of its schema.
    pub fn schema_snapshot(&self) -> Arc<SchemaSnapshot> {
        self.snapshot.load_full()
    }

    /// Notified when a refresh finds another schema; one task waits for it.
    pub fn moved(&self) -> Arc<Notify> {
        self.moved.clone()
    }

    /// Changes of a table, as [`ChangeHub::listen`]. Errors: the table is not known.
    pub fn listen(&self, table: &str) -> Result<impl Stream<Item = Result<(), Error>> + Send + use<>, Error> {
        self.snapshot.load().schema.table(table)?;
        Ok(self.changes.listen(table))
    }

    /// Errors: the log does not tell each row of a table that is removed.
    pub async fn check_complete(&self, tables: &[String]) -> Result<(), Error> {
        self.store.check_complete(tables).await
    }

    /// Changes of tables with the rows before and after, as [`LogHub::follow`]. Errors: a table is not known.
    pub fn follow(
        &self,
        tables: Vec<String>,
        after: bytes::Bytes,
        numbers: Numbers,
    ) -> Result<impl Stream<Item = Result<LogResponse, Error>> + Send + use<>, Error> {
        let snapshot = self.snapshot.load();
        for table in &tables {
            snapshot.schema.table(table)?;
        }
        if tables.is_empty() {
            return Err(query::Error::Malformed("tables: expected at least one".to_owned()).into());
        }
        Ok(self.log.follow(tables, after, numbers))
    }

    /// How far followers of its log are behind what was committed.
    pub fn log_lag(&self) -> LogLag {
        self.log.lag()
    }

    /// Reads the schema again if its mark changed; whether the schema did.
    pub async fn refresh(&self) -> Result<bool, Error> {
        let before = self.schema_snapshot();
        let schema_mark = self.store.schema_mark(before.dialect.neighbours()).await?;
        let is_expired = before.expires.is_some_and(|expires| Instant::now() >= expires);
        if schema_mark.is_some() && schema_mark == before.schema_mark && !is_expired {
            return Ok(false);
        }
        let found = inspect(&self.store, before.dialect.clone(), &self.prepared, schema_mark).await?;
        let links = self.links.lock().expect("no code panics while it holds this lock");
        let (mut found, before) = (found.with_links(&links), self.schema_snapshot());
        let has_changed = found.version != before.version;
        found.changed = if has_changed { Some(Instant::now()) } else { before.changed };
        if found.schema_mark.is_some()
            && found.schema_mark == before.schema_mark
            && found.schema == before.schema
            && found.dialect == before.dialect
        {
            // Nothing moved that a statement depends on: what is prepared for it stays.
            found.id = before.id;
        }
        self.log.describe(found.schema.clone());
        self.snapshot.store(Arc::new(found));
        if has_changed {
            self.moved.notify_one();
        }
        Ok(has_changed)
    }

    /// Runs reads, all in one read-only transaction.
    pub async fn read(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Answers, ReadError> {
        let before = self.snapshot.load().id;
        let mut done = self.read_once(reads, grants, options).await;
        if let Err(failure) = &done
            && Box::pin(self.should_retry(&failure.error, before)).await?
        {
            // A failure is rare: what it takes is kept out of the futures of all others.
            done = Box::pin(self.read_once(reads, grants, options)).await;
        }
        done.map_err(|failure| match failure.error {
            Error::InvalidValue(invalid) => {
                let error = invalid.of_reads(&self.store, &self.snapshot.load().schema, reads);
                ReadError { error, ..failure }
            }
            Error::Unpopulated(view) => ReadError { error: unpopulated(view, reads), ..failure },
            error => ReadError { error: self.final_error(error), ..failure },
        })
    }

    /// Runs mutations in their order, all of them or none.
    pub async fn write(
        &self,
        mutations: &[query::Mutation],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Written>, Error> {
        let before = self.snapshot.load().id;
        let mut done = self.write_once(mutations, grants, options).await;
        if let Err(error) = &done
            && Box::pin(self.should_retry(error, before)).await?
        {
            // Nothing was written: the transaction is rolled back.
            done = Box::pin(self.write_once(mutations, grants, options)).await;
        }
        let leaves_null = |column: &str| {
            let schema = &self.snapshot.load().schema;
            mutations.iter().any(|mutation| write::leaves_null(schema, mutation, column))
        };
        done.map_err(|error| match error {
            Error::NotNull(column) if leaves_null(&column) => query::Error::Required(column).into(),
            Error::InvalidValue(invalid) => invalid.of_mutations(&self.store, &self.snapshot.load().schema, mutations),
            error => self.final_error(error),
        })
    }

    /// The error as it is told. A statement that does not fit the schema although that did not move is wrong itself.
    fn final_error(&self, error: Error) -> Error {
        match error {
            Error::SchemaMoved(cause) | Error::StaleStatement(cause) => {
                Error::Database(format!("a statement does not fit the schema just read: {cause}"))
            }
            // Not the caller's fault, nor for long.
            Error::Ungranted(cause) if self.has_just_changed() => Error::SchemaMoved(cause),
            Error::TooLarge(text) => {
                self.meters.too_large.inc();
                Error::TooLarge(text)
            }
            other => other,
        }
    }

    /// Whether an operation that failed with `error` is retried, because the schema was stale or others wrote its rows
    /// meanwhile; `before` is the snapshot that was in force when it began.
    ///
    /// Clients send unknown names as often as they like: those refresh it once in [`REFRESH_INTERVAL_MIN`] at most.
    async fn should_retry(&self, error: &Error, before: u64) -> Result<bool, Error> {
        match error {
            Error::StaleStatement(_) => self.refresh().await.map(|_| true),
            Error::Raced => Ok(true),
            Error::SchemaMoved(_) => Ok(self.refresh().await? || self.snapshot.load().id != before),
            Error::Query(error) if error.is_unknown_name() && self.may_refresh() => self.refresh().await,
            _ => Ok(false),
        }
    }

    fn has_just_changed(&self) -> bool {
        self.snapshot.load().changed.is_some_and(|changed| changed.elapsed() < GRANTS_LAG_MAX)
    }

    fn may_refresh(&self) -> bool {
        let mut last_refresh = self.last_refresh.lock().expect("no code panics while it holds this lock");
        let is_due = last_refresh.is_none_or(|last| last.elapsed() > REFRESH_INTERVAL_MIN);
        if is_due {
            *last_refresh = Some(Instant::now());
        }
        is_due
    }

    async fn read_once(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Answers, ReadError> {
        let CompiledReads { plans, mut statements } = self.compiled(reads, grants, options)?;
        if options.snapshot {
            // In a box: what is rare stays out of the futures of all others.
            Box::pin(self.keep_log(reads, options)).await.map_err(|error| ReadError { error, read: None })?;
            statements.push(self.store.log_end_statement());
        }
        let mut budget = Budget::read(options.answer, &self.memory);
        let rows = match statements.is_empty() {
            true => Vec::new(),
            false if statements.len() < MERGED_FROM => {
                timed(&self.meters.reads, statements.len(), self.store.snapshot(&statements, &budget))
                    .await
                    .map_err(|failure| of_read(failure, &plans))?
            }
            false => Box::pin(self.merged(&statements, &budget)).await.map_err(|failure| of_read(failure, &plans))?,
        };
        let mut rows = rows.into_iter();
        let mut answers = Vec::with_capacity(plans.len());
        for plan in plans {
            let of_plan = |error| ReadError { error, read: Some(answers.len()) };
            let tree = plan.with_rows(None, &mut rows, options.numbers).map_err(of_plan)?;
            answers.push(tree.answer(None, &mut budget).await.map_err(of_plan)?);
        }
        let end = if options.snapshot { rows.next() } else { None };
        Ok(Answers { answers, seen: end.and_then(|rows| self.seen(&rows)) })
    }

    /// The rows of many statements, of which those that differ in their values only are one where the engine can do that.
    async fn merged(&self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<Rows>, StatementError> {
        let start = Instant::now();
        let read = self.store.merged_snapshot(statements, budget).await;
        let sent = read.as_ref().map_or(statements.len(), |(_, sent)| *sent);
        self.meters.reads.done(sent, start.elapsed());
        read.map(|(rows, _)| rows)
    }

    /// Sees to it that the log is kept, in which `reads` are to have a position: who follows the tables may do so on another
    /// node.
    async fn keep_log(&self, reads: &[query::Read], options: AnswerOptions) -> Result<(), Error> {
        if self.log.is_kept() {
            return Ok(());
        }
        let tables = reads.iter().map(|read| (*read.table).into()).collect();
        let mut log = std::pin::pin!(self.log.follow(tables, bytes::Bytes::new(), options.numbers));
        log.next().await.transpose()?;
        Ok(())
    }

    /// What the snapshot saw in which the end of the log was read, and its position.
    fn seen(&self, rows: &Rows) -> Option<Box<Seen>> {
        let (snapshot, mark) = self.store.log_end(rows)?;
        let position = self.log.position(snapshot.clone(), mark)?.encode();
        Some(Box::new(Seen { snapshot: Some(snapshot), position }))
    }

    fn compiled(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<CompiledReads, ReadError> {
        let snapshot = self.snapshot.load();
        if reads.len() < MERGED_FROM {
            return self.compiled_at_once(&snapshot, reads, grants, options);
        }
        // Each by itself: what is prepared of one serves all of its shape.
        let mut compiled = CompiledReads { plans: Vec::with_capacity(reads.len()), statements: Vec::new() };
        let mut left = grants;
        for (index, read) in reads.iter().enumerate() {
            let of_read = |error| ReadError { error, read: Some(index) };
            let mut accesses = 0;
            query::visit_read_accesses(&snapshot.schema, read, |_| accesses += 1).map_err(|e| of_read(e.into()))?;
            let own = left.split_off(accesses);
            let read = self.compiled_at_once(&snapshot, std::slice::from_ref(read), own, options);
            let CompiledReads { plans, statements } = read.map_err(|failure| of_read(failure.error))?;
            compiled.plans.extend(plans);
            compiled.statements.extend(statements);
        }
        left.finish()?;
        Ok(compiled)
    }

    fn compiled_at_once(
        &self,
        snapshot: &SchemaSnapshot,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<CompiledReads, ReadError> {
        let shape = RequestShape::of(snapshot.id, reads, grants.terms(), options.limit);
        if grants.are_in_scope()
            && let Some(prepared) = self.prepared.bind(&shape)?
        {
            return Ok(prepared);
        }
        let mut resolver = Resolver::new(&snapshot.schema, grants);
        let node = |(index, read)| resolver.read(read).map_err(|error| ReadError { error, read: Some(index) });
        let nodes: Vec<_> = reads.iter().enumerate().map(node).collect::<Result<_, _>>()?;
        resolver.finish()?;
        let source = Source::Query { limit: options.limit };
        let mut statements = Vec::new();
        let plan = |node| sql::select(&snapshot.dialect, node, &source, &mut statements);
        let plans = nodes.iter().map(plan).collect();
        let reads = CompiledReads { plans, statements };
        self.prepared.keep(shape, &reads);
        Ok(reads)
    }

    async fn write_once(
        &self,
        mutations: &[query::Mutation],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Written>, Error> {
        let snapshot = self.snapshot.load_full();
        let Self { store, meters, .. } = self;
        let context = WriteContext { store, dialect: &snapshot.dialect, options, meters };
        let shape = SingleInsert::of(mutations).map(|one| one.shape(snapshot.id, grants.terms(), options.limit));
        if let Some(shape) = &shape
            && grants.are_in_scope()
            && let Some(insert) = self.prepared.bind_insert(shape, context.dialect)?
            && let Some(written) = insert.perform(&context).await?
        {
            return Ok(vec![written]);
        }
        // Kept out of the futures of all others.
        Box::pin(self.compile_and_write(&snapshot, (mutations, grants, shape), &context)).await
    }

    /// Runs mutations that were not prepared. An insert of one document has a shape, for which it is kept.
    async fn compile_and_write(
        &self,
        snapshot: &SchemaSnapshot,
        (mutations, grants, shape): (&[query::Mutation], Grants<'_>, Option<RequestShape<'_>>),
        context: &WriteContext<'_>,
    ) -> Result<Vec<Written>, Error> {
        let mut resolver = Resolver::new(&snapshot.schema, grants);
        let mutations: Vec<_> =
            mutations.iter().map(|mutation| resolver.mutation(mutation)).collect::<Result<_, _>>()?;
        resolver.finish()?;
        if let (Some(shape), [mutation]) = (shape, mutations.as_slice())
            && let Some(insert) = CompiledInsert::of(context.dialect, mutation, context.options.limit)?
        {
            self.prepared.keep_insert(shape, &insert);
            if let Some(written) = insert.perform(context).await? {
                return Ok(vec![written]);
            }
        }
        write::perform_all(context, &mutations).await
    }
}

/// The error of a statement as one of the read that it belongs to.
fn of_read(failure: StatementError, plans: &[Plan]) -> ReadError {
    let StatementError { error, statement } = failure;
    let mut end = 0;
    let ends_after = |plan: &Plan| {
        end += plan.statements();
        statement.is_some_and(|statement| statement < end)
    };
    let read = plans.iter().position(ends_after).or((plans.len() == 1).then_some(0));
    ReadError { error, read }
}

/// The error of reads of a view without data; one that is not named in them is read by another.
fn unpopulated(view: String, reads: &[query::Read]) -> Error {
    let text = match reads.iter().any(|read| *read.table == *view) {
        true => format!("{view} has no data yet; refresh it"),
        false => "a view that is read has no data yet; refresh it".to_owned(),
    };
    Error::refused(Code::Unavailable, &text, format!("{view} has not been populated"))
}

/// Reads a snapshot of the schema.
///
/// `schema_mark` was read before: a change after it is seen by the next refresh.
async fn inspect(
    store: &Store,
    mut dialect: Dialect,
    prepared: &PreparedOperations,
    schema_mark: Option<String>,
) -> Result<SchemaSnapshot, Error> {
    let Introspected { schema, left_out } = store.introspect(dialect.neighbours()).await?;
    let may_return = left_out.iter().any(|object| object.is_transient);
    if let Some(query) = dialect.index_query() {
        store.snapshot(&[query], &Budget::unlimited()).await?.iter().for_each(|rows| dialect.learn_indexes(rows));
    }
    Ok(SchemaSnapshot {
        version: version(&schema),
        schema: Arc::new(schema),
        left_out,
        links_left_out: Vec::new(),
        dialect,
        schema_mark,
        changed: None,
        expires: may_return.then(|| Instant::now() + LEFT_OUT_INTERVAL),
        id: prepared.next_snapshot(),
    })
}

/// Hash of the schema's encoding on the wire.
fn version(schema: &Schema) -> u64 {
    use std::hash::{DefaultHasher, Hasher};

    let mut hasher = DefaultHasher::new();
    hasher.write(&proto::crud::encoded(schema));
    hasher.finish()
}
