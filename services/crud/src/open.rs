//! An open database: reads and writes against its schema of the moment.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use mesh::telemetry::Metrics;
use query::{Schema, resources::Numbers};

use crate::{
    Error,
    grant::Grants,
    resolve::Resolver,
    sql::{self, Dialect, Source},
    store::{Statement, Store},
    tree::{Answer, Plan},
    write::{self, Written},
};

/// A database that has been reached.
#[derive(Debug)]
pub struct Open {
    store: Store,
    dialect: Dialect,
    meter: Meter,
    known: ArcSwap<Known>,
}

/// Counts the statements of one database.
#[derive(Debug)]
pub struct Meter {
    metrics: Metrics,
    engine: &'static str,
}

/// What is known of a database.
#[derive(Debug)]
pub struct Known {
    /// Its tables.
    pub schema: Schema,
    /// Changes whenever the schema does, and is the same for the same schema on every node.
    pub version: u64,
    /// What the store said when it was looked at.
    mark: Option<String>,
}

/// How a project wants its answers.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Rows that a read answers where the client gives no limit.
    pub limit: u64,
    /// How numbers that a double cannot hold are written.
    pub numbers: Numbers,
}

impl Open {
    /// Reaches the database behind `store`.
    pub async fn reach(store: Store, dialect: Dialect, metrics: Metrics) -> Result<Self, Error> {
        let known = ArcSwap::from_pointee(look(&store).await?);
        let meter = Meter { metrics, engine: dialect.engine().name() };
        Ok(Self { store, dialect, meter, known })
    }

    #[cfg(test)]
    pub fn store(&self) -> &Store {
        &self.store
    }

    #[cfg(test)]
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// What is known of it now.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Looks again where something may have changed; whether the schema did.
    pub async fn refresh(&self) -> Result<bool, Error> {
        let mark = self.store.schema_mark().await?;
        if mark.is_some() && mark == self.known.load().mark {
            return Ok(false);
        }
        let found = look(&self.store).await?;
        let has_changed = found.version != self.known.load().version;
        self.known.store(Arc::new(found));
        Ok(has_changed)
    }

    /// Reads, all in one snapshot.
    pub async fn read(&self, reads: &[query::Read], grants: &Grants<'_>, style: Style) -> Result<Vec<Answer>, Error> {
        match self.read_once(reads, grants.clone(), style).await {
            Err(Error::SchemaMoved) => {}
            settled => return settled,
        }
        self.refresh().await?;
        settled(self.read_once(reads, grants.clone(), style).await)
    }

    /// Mutations in their order, all of them or none.
    pub async fn write(
        &self,
        mutations: &[query::Mutation],
        grants: &Grants<'_>,
        style: Style,
    ) -> Result<Vec<Written>, Error> {
        match self.write_once(mutations, grants.clone(), style).await {
            // Nothing was written: the transaction is rolled back.
            Err(Error::SchemaMoved) => {}
            settled => return settled,
        }
        self.refresh().await?;
        settled(self.write_once(mutations, grants.clone(), style).await)
    }

    async fn read_once(&self, reads: &[query::Read], grants: Grants<'_>, style: Style) -> Result<Vec<Answer>, Error> {
        let plans = self.plans(reads, grants, style)?;
        let statements: Vec<Statement> = plans.iter().flat_map(Plan::statements).cloned().collect();
        let rows = match statements.is_empty() {
            true => Vec::new(),
            false => self.meter.time("read", statements.len(), self.store.snapshot(&statements)).await?,
        };
        let mut rows = rows.into_iter();
        let mut answers = Vec::with_capacity(plans.len());
        for plan in plans {
            answers.push(plan.with(None, &mut rows, style.numbers)?.answer(None).await?);
        }
        Ok(answers)
    }

    fn plans(&self, reads: &[query::Read], grants: Grants<'_>, style: Style) -> Result<Vec<Plan>, Error> {
        let known = self.known.load();
        let mut resolver = Resolver::new(&known.schema, grants);
        let nodes: Vec<_> = reads.iter().map(|read| resolver.read(read)).collect::<Result<_, _>>()?;
        resolver.finish()?;
        let source = Source::Query { limit: style.limit };
        Ok(nodes.iter().map(|node| sql::select(&self.dialect, node, &source)).collect())
    }

    async fn write_once(
        &self,
        mutations: &[query::Mutation],
        grants: Grants<'_>,
        style: Style,
    ) -> Result<Vec<Written>, Error> {
        let known = self.known.load_full();
        let mut resolver = Resolver::new(&known.schema, grants);
        let mutations: Vec<_> =
            mutations.iter().map(|mutation| resolver.mutation(mutation)).collect::<Result<_, _>>()?;
        resolver.finish()?;
        let Self { store, dialect, meter, .. } = self;
        write::all(&write::Context { store, dialect, style, meter }, &mutations).await
    }
}

impl Meter {
    /// Does `work`, which runs this many statements of one kind: `read` or `write`.
    pub async fn time<T>(&self, kind: &'static str, statements: usize, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        let elapsed = start.elapsed();
        (0..statements).for_each(|_| self.metrics.statement(self.engine, kind, elapsed));
        done
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
async fn look(store: &Store) -> Result<Known, Error> {
    let mark = store.schema_mark().await?;
    let schema = store.introspect().await?;
    let version = version(&schema);
    Ok(Known { schema, version, mark })
}

/// The start of a hash of what the schema looks like on the wire.
fn version(schema: &Schema) -> u64 {
    use std::hash::{DefaultHasher, Hasher};

    let wire = prost::Message::encode_to_vec(&proto::query::v1::Schema::from(schema));
    let mut hasher = DefaultHasher::new();
    hasher.write(&wire);
    hasher.finish()
}
