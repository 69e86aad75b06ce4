//! An open database: runs reads and mutations against the latest snapshot of its schema.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mesh::telemetry::Metrics;
use query::Schema;

use crate::{
    Error, Introspected, LeftOut,
    budget::{Budget, Memory},
    grant::Grants,
    meters::{Meters, timed},
    options::AnswerOptions,
    prepared::{CompiledReads, PreparedReads, ReadShape},
    resolve::Resolver,
    sql::{self, Dialect, Source},
    store::Store,
    tree::Answer,
    write::{self, Written},
};

/// Least time between two refreshes of the schema because of names that are not in it.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// Time after which the schema is read again where objects are left out that may come back without a change of it.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(30);

/// An open database: its store, and the latest snapshot of its schema.
#[derive(Debug)]
pub struct Database {
    store: Store,
    meters: Meters,
    memory: Memory,
    prepared: PreparedReads,
    snapshot: ArcSwap<SchemaSnapshot>,
    /// When an unknown name made us refresh the schema.
    last_refresh: Mutex<Option<Instant>>,
}

/// The schema of a database as it was when last read.
#[derive(Debug)]
pub struct SchemaSnapshot {
    /// Its tables.
    pub schema: Arc<Schema>,
    /// Objects of the database that are not in it.
    pub left_out: Vec<LeftOut>,
    /// Hash of the schema: the same for the same schema on every node.
    pub version: u64,
    /// SQL dialect of its engine.
    pub dialect: Dialect,
    /// [`Store::schema_mark`] before it was read.
    schema_mark: Option<String>,
    /// When it is read again although the mark is the same.
    expires: Option<Instant>,
    /// [`PreparedReads::next_snapshot`].
    id: u64,
}

impl Database {
    /// Connects to the database behind `store` and reads its schema.
    pub async fn connect(
        store: Store,
        dialect: Dialect,
        metrics: &Metrics,
        memory: Memory,
        prepared: PreparedReads,
    ) -> Result<Self, Error> {
        let meters = Meters::new(metrics, dialect.engine().name());
        let snapshot = ArcSwap::from_pointee(inspect(&store, dialect, &prepared).await?);
        Ok(Self { store, meters, memory, prepared, snapshot, last_refresh: Mutex::default() })
    }

    #[cfg(test)]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The latest snapshot of its schema.
    pub fn schema_snapshot(&self) -> Arc<SchemaSnapshot> {
        self.snapshot.load_full()
    }

    /// Reads the schema again if its mark changed; whether the schema did.
    pub async fn refresh(&self) -> Result<bool, Error> {
        let before = self.snapshot.load_full();
        let schema_mark = self.store.schema_mark().await?;
        let is_expired = before.expires.is_some_and(|expires| Instant::now() >= expires);
        if schema_mark.is_some() && schema_mark == before.schema_mark && !is_expired {
            return Ok(false);
        }
        let found = inspect(&self.store, before.dialect.clone(), &self.prepared).await?;
        let has_changed = found.version != before.version;
        self.snapshot.store(Arc::new(found));
        Ok(has_changed)
    }

    /// Runs reads, all in one read-only transaction.
    pub async fn read(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Answer>, Error> {
        let mut done = self.read_once(reads, grants, options).await;
        if self.should_retry(&done).await? {
            done = after_retry(self.read_once(reads, grants, options).await);
        }
        self.metered(done)
    }

    /// Runs mutations in their order, all of them or none.
    pub async fn write(
        &self,
        mutations: &[query::Mutation],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Written>, Error> {
        let mut done = self.write_once(mutations, grants, options).await;
        if self.should_retry(&done).await? {
            // Nothing was written: the transaction is rolled back.
            done = after_retry(self.write_once(mutations, grants, options).await);
        }
        self.metered(done)
    }

    /// `done`, metered where it is an answer that is too large.
    fn metered<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        done.inspect_err(|error| {
            if let Error::TooLarge(_) = error {
                self.meters.too_large.inc();
            }
        })
    }

    /// Whether the operation is retried, because the schema was stale or others wrote its rows meanwhile.
    ///
    /// Clients send unknown names as often as they like: those refresh it once in [`REFRESH_INTERVAL_MIN`] at most.
    async fn should_retry<T>(&self, done: &Result<T, Error>) -> Result<bool, Error> {
        let Err(error) = done else { return Ok(false) };
        if *error == Error::SchemaMoved {
            return self.refresh().await.map(|_| true);
        }
        if *error == Error::Raced {
            return Ok(true);
        }
        let is_unknown = matches!(error, Error::Query(error) if error.is_unknown_name());
        if is_unknown && self.may_refresh() { self.refresh().await } else { Ok(false) }
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
    ) -> Result<Vec<Answer>, Error> {
        let CompiledReads { plans, statements } = self.compiled(reads, grants, options)?;
        let mut budget = Budget::read(options.answer, &self.memory);
        let rows = match statements.is_empty() {
            true => Vec::new(),
            false => timed(&self.meters.reads, statements.len(), self.store.snapshot(&statements, &budget)).await?,
        };
        let mut rows = rows.into_iter();
        let mut answers = Vec::with_capacity(plans.len());
        for plan in plans {
            answers.push(plan.with_rows(None, &mut rows, options.numbers)?.answer(None, &mut budget).await?);
        }
        Ok(answers)
    }

    fn compiled(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<CompiledReads, Error> {
        let snapshot = self.snapshot.load();
        let shape = ReadShape::of(snapshot.id, reads, grants.terms(), options.limit);
        if grants.are_in_scope()
            && let Some(prepared) = self.prepared.bind(&shape)?
        {
            return Ok(prepared);
        }
        let mut resolver = Resolver::new(&snapshot.schema, grants);
        let nodes: Vec<_> = reads.iter().map(|read| resolver.read(read)).collect::<Result<_, _>>()?;
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
        let mut resolver = Resolver::new(&snapshot.schema, grants);
        let mutations: Vec<_> =
            mutations.iter().map(|mutation| resolver.mutation(mutation)).collect::<Result<_, _>>()?;
        resolver.finish()?;
        let Self { store, meters, .. } = self;
        write::perform_all(&write::WriteContext { store, dialect: &snapshot.dialect, options, meters }, &mutations)
            .await
    }
}

/// The outcome of a retry. A schema that does not fit although it was just read did not move: the statement is wrong.
fn after_retry<T>(done: Result<T, Error>) -> Result<T, Error> {
    done.map_err(|error| match error {
        Error::SchemaMoved => Error::Database("a statement does not fit the schema just read".to_owned()),
        other => other,
    })
}

/// Reads a snapshot of the schema.
///
/// The mark is read first: a change after it is seen by the next refresh.
async fn inspect(store: &Store, mut dialect: Dialect, prepared: &PreparedReads) -> Result<SchemaSnapshot, Error> {
    let schema_mark = store.schema_mark().await?;
    let Introspected { schema, left_out } = store.introspect().await?;
    let may_return = left_out.iter().any(|object| object.is_transient);
    if let Some(query) = dialect.index_query() {
        store.snapshot(&[query], &Budget::unlimited()).await?.iter().for_each(|rows| dialect.learn_indexes(rows));
    }
    Ok(SchemaSnapshot {
        version: version(&schema),
        schema: Arc::new(schema),
        left_out,
        dialect,
        schema_mark,
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
