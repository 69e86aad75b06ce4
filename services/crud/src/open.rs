//! An open database: reads and writes against its schema of the moment.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mesh::telemetry::Metrics;
use query::Schema;

use crate::{
    Error,
    budget::{Budget, Memory},
    grant::Grants,
    meters::{Meters, timed},
    options::AnswerOptions,
    resolve::Resolver,
    sql::{self, Dialect, Source},
    store::{Statement, Store},
    tree::{Answer, Plan},
    write::{self, Written},
};

/// Least time between two looks for names that are not known.
const ASKED: Duration = Duration::from_millis(200);

/// A database that has been reached.
#[derive(Debug)]
pub struct Open {
    store: Store,
    meters: Meters,
    memory: Memory,
    known: ArcSwap<Known>,
    /// When an unknown name made us look.
    asked: Mutex<Option<Instant>>,
}

/// What is known of a database.
#[derive(Debug)]
pub struct Known {
    /// Its tables.
    pub schema: Arc<Schema>,
    /// Changes whenever the schema does, and is the same for the same schema on every node.
    pub version: u64,
    /// What it speaks.
    pub dialect: Dialect,
    /// What the store said when it was looked at.
    mark: Option<String>,
}

impl Open {
    /// Reaches the database behind `store`.
    pub async fn reach(store: Store, dialect: Dialect, metrics: &Metrics, memory: Memory) -> Result<Self, Error> {
        let meters = Meters::new(metrics, dialect.engine().name());
        let known = ArcSwap::from_pointee(look(&store, dialect).await?);
        Ok(Self { store, meters, memory, known, asked: Mutex::default() })
    }

    #[cfg(test)]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is known of it now.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Looks again where something may have changed; whether the schema did.
    pub async fn refresh(&self) -> Result<bool, Error> {
        let before = self.known.load_full();
        let mark = self.store.schema_mark().await?;
        if mark.is_some() && mark == before.mark {
            return Ok(false);
        }
        let found = look(&self.store, before.dialect.clone()).await?;
        let has_changed = found.version != before.version;
        self.known.store(Arc::new(found));
        Ok(has_changed)
    }

    /// Reads, all in one snapshot.
    pub async fn read(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Answer>, Error> {
        match self.read_once(reads, grants, options).await {
            Err(error) if self.has_moved(&error).await? => {}
            settled => return self.counted(settled),
        }
        self.counted(settled(self.read_once(reads, grants, options).await))
    }

    /// Mutations in their order, all of them or none.
    pub async fn write(
        &self,
        mutations: &[query::Mutation],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Written>, Error> {
        match self.write_once(mutations, grants, options).await {
            // Nothing was written: the transaction is rolled back.
            Err(error) if self.has_moved(&error).await? => {}
            settled => return self.counted(settled),
        }
        self.counted(settled(self.write_once(mutations, grants, options).await))
    }

    /// `done`, counted where it is an answer that is too large.
    fn counted<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        done.inspect_err(|error| {
            if let Error::TooLarge(_) = error {
                self.meters.too_large.inc();
            }
        })
    }

    /// Whether the operation may succeed after `error`, because the schema was not what it is. Clients send names that
    /// nobody knows as often as they like: those are looked for now and then.
    async fn has_moved(&self, error: &Error) -> Result<bool, Error> {
        if *error == Error::SchemaMoved {
            return self.refresh().await.map(|_| true);
        }
        let is_unknown = matches!(error, Error::Query(error) if error.is_unknown_name());
        if is_unknown && self.is_due() { self.refresh().await } else { Ok(false) }
    }

    fn is_due(&self) -> bool {
        let mut asked = self.asked.lock().expect("no code panics while it holds this lock");
        let is_due = asked.is_none_or(|asked| asked.elapsed() > ASKED);
        if is_due {
            *asked = Some(Instant::now());
        }
        is_due
    }

    async fn read_once(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Answer>, Error> {
        let (plans, statements) = self.plans(reads, grants, options)?;
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

    /// Plans of all reads, and the statements that they take one after the other.
    fn plans(
        &self,
        reads: &[query::Read],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<(Vec<Plan>, Vec<Statement>), Error> {
        let known = self.known.load();
        let mut resolver = Resolver::new(&known.schema, grants);
        let nodes: Vec<_> = reads.iter().map(|read| resolver.read(read)).collect::<Result<_, _>>()?;
        resolver.finish()?;
        let source = Source::Query { limit: options.limit };
        let mut statements = Vec::new();
        let plan = |node| sql::select(&known.dialect, node, &source, &mut statements);
        Ok((nodes.iter().map(plan).collect(), statements))
    }

    async fn write_once(
        &self,
        mutations: &[query::Mutation],
        grants: Grants<'_>,
        options: AnswerOptions,
    ) -> Result<Vec<Written>, Error> {
        let known = self.known.load_full();
        let mut resolver = Resolver::new(&known.schema, grants);
        let mutations: Vec<_> =
            mutations.iter().map(|mutation| resolver.mutation(mutation)).collect::<Result<_, _>>()?;
        resolver.finish()?;
        let Self { store, meters, .. } = self;
        write::perform_all(&write::WriteContext { store, dialect: &known.dialect, options, meters }, &mutations).await
    }
}

/// A schema that does not fit although it was just looked at did not move: the statement is wrong.
fn settled<T>(done: Result<T, Error>) -> Result<T, Error> {
    done.map_err(|error| match error {
        Error::SchemaMoved => Error::Database("a statement does not fit the schema just read".to_owned()),
        other => other,
    })
}

/// The mark is taken first: a change after it is seen by the next look.
async fn look(store: &Store, mut dialect: Dialect) -> Result<Known, Error> {
    let mark = store.schema_mark().await?;
    let schema = store.introspect().await?;
    if let Some(question) = dialect.question() {
        store.snapshot(&[question], &Budget::unlimited()).await?.iter().for_each(|rows| dialect.learn(rows));
    }
    Ok(Known { version: version(&schema), schema: Arc::new(schema), dialect, mark })
}

/// The start of a hash of what the schema looks like on the wire.
fn version(schema: &Schema) -> u64 {
    use std::hash::{DefaultHasher, Hasher};

    let mut hasher = DefaultHasher::new();
    hasher.write(&proto::crud::encoded(schema));
    hasher.finish()
}
