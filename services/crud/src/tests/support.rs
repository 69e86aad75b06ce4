//! A small database on each engine, and rules that allow everything unless told otherwise.

use std::{collections::HashMap, sync::Arc, sync::atomic::AtomicU32, sync::atomic::Ordering};

use mesh::Tasks;
use proto::crud::Answer;
use query::{
    Budget as RequestBudget, Columns, Filter, GrantTerms, Limits, Mutation, MutationKind, Operation, Options, Parser,
    Read, RuleFilter, Schema, Shape, Spelling, TableAccess, Value,
    resources::{Changes, ChangesSource, Numbers},
};
use serde_json::Value as Json;

use crate::{
    Error,
    budget::{AnswerLimit, Budget, Memory},
    changes::log::SharedLog,
    database::Database,
    grant::{GrantScope, Grants},
    options::AnswerOptions,
    prepared::PreparedOperations,
    sql::Dialect,
    store::{Statement, Store, mysql::Mysql, postgres::Postgres, sqlite::Sqlite},
    write::Written,
};

/// Types that all engines declare, but for those in braces.
const TABLES: [&str; 8] = [
    "CREATE TABLE {s}artist (artist_id {id}, name VARCHAR(120))",
    "CREATE TABLE {s}album (album_id {id}, title VARCHAR(160) NOT NULL UNIQUE, \
     artist_id INTEGER NOT NULL REFERENCES {s}artist (artist_id))",
    "CREATE TABLE {s}track (track_id {id}, name VARCHAR(200) NOT NULL, album_id INTEGER REFERENCES {s}album (album_id) \
     ON DELETE CASCADE, milliseconds INTEGER NOT NULL CHECK (milliseconds >= 0), \
     unit_price NUMERIC(10,2) NOT NULL DEFAULT 0.99)",
    "CREATE TABLE {s}\"odd \"\"name\" (\"select\" INTEGER, \"a b\" TEXT)",
    "CREATE TABLE {s}part (maker INTEGER NOT NULL, number INTEGER NOT NULL, label TEXT, PRIMARY KEY (maker, number))",
    "CREATE TABLE {s}stock (stock_id {id}, maker INTEGER, number INTEGER, amount INTEGER NOT NULL DEFAULT 7, \
     FOREIGN KEY (maker, number) REFERENCES {s}part (maker, number))",
    "CREATE TABLE {s}kinds (id {id}, flag BOOLEAN, big BIGINT, ratio DOUBLE PRECISION, price NUMERIC(10,2), words {text}, \
     raw {bytes}, born DATE, clock TIME{fraction}, seen {moment}, ident UUID, doc {json})",
    "CREATE VIEW {s}titles AS SELECT title, artist_id FROM {s}album",
];

const ROWS: [&str; 5] = [
    "INSERT INTO {s}artist VALUES (1, 'AC/DC'), (2, 'Accept'), (3, NULL)",
    "INSERT INTO {s}album VALUES (1, 'Let There Be Rock', 1), (2, 'Back in Black', 1), (3, 'Balls to the Wall', 2)",
    "INSERT INTO {s}track (track_id, name, album_id, milliseconds) VALUES (1, 'Go Down', 1, 331180), \
     (2, 'Dog Eat Dog', 1, 215196), (3, 'Overdose', 1, 369319), (4, 'Hells Bells', 2, 312000), (5, 'Alone', NULL, 1000)",
    "INSERT INTO {s}part VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c'), (2, 2, 'd')",
    "INSERT INTO {s}stock VALUES (1, 1, 2, 10), (2, 2, 1, 20), (3, 1, NULL, 30)",
];

/// What the rules say of a table in one operation; by default all is allowed.
#[derive(Clone)]
pub struct Rule {
    pub filter: RuleFilter,
    pub check: RuleFilter,
    pub columns: Columns,
    pub allow_all: bool,
}

/// A mesh whose nodes share a bus.
#[derive(Clone)]
struct MeshOf {
    /// Its secret.
    secret: String,
    /// What its nodes read the log from.
    source: ChangesSource,
}

/// A database, and rules for it.
pub struct Db {
    pub database: Database,
    pub rules: HashMap<(String, Operation), Rule>,
    pub options: AnswerOptions,
    pub prepared: PreparedOperations,
    /// Its tasks, which begin to drain where the test says so.
    pub tasks: Tasks,
    /// Its mesh, where that has a bus.
    mesh: Option<MeshOf>,
    folder: Option<tempfile::TempDir>,
    /// URL of its server, of MariaDB.
    url: Option<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { filter: Filter::TRUE, check: Filter::TRUE, columns: Columns::default(), allow_all: false }
    }
}

/// The same database on each engine that is there; where a server is demanded, all of them must be.
pub async fn engines() -> Vec<Db> {
    let mut all = vec![sqlite().await];
    if let Some(url) = super::postgres_url() {
        all.push(postgres(&url).await);
    }
    if let Some(url) = super::mysql_url() {
        all.push(mysql(&url).await);
    }
    all
}

/// The databases of [`sources`] and [`meshes`]: all tell of changes alike.
pub async fn logs() -> Vec<Db> {
    let mut all = sources().await;
    all.extend(meshes().await);
    all
}

/// The database of a server as a node of a mesh has it, whose log is read from each source that it has.
pub async fn meshes() -> Vec<Db> {
    let mut all = Vec::new();
    if let Some(url) = super::postgres_url() {
        for source in [ChangesSource::Triggers, ChangesSource::Slot] {
            all.extend(over_nats(&postgres(&url).await, source).await);
        }
    }
    if let Some(url) = super::mysql_url() {
        all.extend(over_nats(&mysql(&url).await, ChangesSource::Auto).await);
    }
    all
}

/// A node of a new mesh with the database of another process on a server, whose log is read from a source.
pub async fn over_nats(db: &Db, source: ChangesSource) -> Option<Db> {
    super::nats_url()?;
    let secret = format!("{}{:?}", std::process::id(), std::time::SystemTime::now());
    Some(on_server(db, source, Some(MeshOf { secret, source })).await)
}

/// What the nodes of a mesh share.
async fn bus(secret: &str, tasks: &Tasks) -> mesh::bus::Nats {
    let url = super::nats_url().unwrap();
    let bus = format!("bus: {{ kind: nats, url: '{url}', changes_bytes: 33554432 }}");
    let config = mesh::config::Node::parse("test", &bus, []).unwrap();
    let mesh::config::BusConfig::Nats(nats) = config.bus else { panic!("NATS") };
    let (health, metrics) = Default::default();
    mesh::bus::Nats::connect(&nats, secret.as_bytes(), &health, &metrics, tasks).await.unwrap()
}

pub async fn sqlite() -> Db {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let store = Store::Sqlite(Sqlite::open(&folder.path().join("test.db"), &[], &tasks).unwrap());
    let names = [
        ("{s}", ""),
        ("{id}", "INTEGER PRIMARY KEY"),
        ("{bytes}", "BLOB"),
        ("{json}", "JSON"),
        ("{moment}", "TIMESTAMP"),
        ("{text}", "TEXT"),
        ("{fraction}", ""),
    ];
    db(store, Dialect::Sqlite, &names, Some(folder), tasks).await
}

/// The same database on each engine that is there, whose log is read from each source that it has.
pub async fn sources() -> Vec<Db> {
    let mut all = engines().await;
    if let Some(url) = super::postgres_url() {
        all.push(postgres_by(&url, ChangesSource::Slot).await);
    }
    all
}

pub async fn postgres(url: &str) -> Db {
    postgres_by(url, ChangesSource::Triggers).await
}

/// What reads the log of changes of a server from a source.
pub fn by(source: ChangesSource) -> Changes {
    Changes { source, unbounded_slot: false }
}

pub async fn postgres_by(url: &str, source: ChangesSource) -> Db {
    let schema = unique();
    let tasks = Tasks::default();
    let store = Postgres::open("test", url, &schema, 4, &tasks).unwrap();
    let store = Store::Postgres(store.learning(by(source)));
    for sql in [format!("DROP SCHEMA IF EXISTS {schema} CASCADE"), format!("CREATE SCHEMA {schema}")] {
        execute(&store, &sql).await;
    }
    let id = "INTEGER GENERATED BY DEFAULT AS IDENTITY (START WITH 100) PRIMARY KEY";
    let prefix = format!("{schema}.");
    let names = [
        ("{s}", prefix.as_str()),
        ("{id}", id),
        ("{bytes}", "BYTEA"),
        ("{json}", "JSONB"),
        ("{moment}", "TIMESTAMP"),
        ("{text}", "TEXT"),
        ("{fraction}", ""),
    ];
    db(store, Dialect::postgres(&schema, Vec::new()), &names, None, tasks).await
}

/// A database of its own, with the collation that the server gives texts by default: it ignores case.
pub async fn mysql(url: &str) -> Db {
    let (server, query) = url.split_once('?').map_or((url, ""), |(server, query)| (server, query));
    let (server, _) = server.rsplit_once('/').unwrap();
    let name = unique();
    let admin = Store::Mysql(Mysql::open("admin", url, 1, &Tasks::default()).unwrap());
    execute(&admin, &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")).await;
    let url = format!("{server}/{name}?{query}");
    let tasks = Tasks::default();
    let store = Store::Mysql(Mysql::open("test", &url, 4, &tasks).unwrap());
    let names = [
        ("{s}", ""),
        ("{id}", "INTEGER AUTO_INCREMENT PRIMARY KEY"),
        ("{bytes}", "BLOB"),
        ("{json}", "JSON"),
        ("{moment}", "DATETIME(6)"),
        ("{text}", "LONGTEXT"),
        ("{fraction}", "(6)"),
    ];
    Db { url: Some(url), ..db(store, Dialect::Mysql, &names, None, tasks).await }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("crud_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The database of another process that has the same file.
pub async fn same_file(db: &Db) -> Db {
    let tasks = Tasks::default();
    connected(Store::Sqlite(Sqlite::existing(&db.file(), &tasks).unwrap()), Dialect::Sqlite, None, tasks, None).await
}

/// The database of another process that has the same schema of a server, whose log it reads from triggers: of another node,
/// where this one is of a mesh.
pub async fn same_schema(db: &Db) -> Db {
    match &db.mesh {
        Some(mesh) => on_server(db, mesh.source, Some(mesh.clone())).await,
        None => same_schema_by(db, ChangesSource::Triggers).await,
    }
}

/// As [`same_schema`], with a log that is read from a source.
pub async fn same_schema_by(db: &Db, source: ChangesSource) -> Db {
    on_server(db, source, None).await
}

async fn on_server(db: &Db, source: ChangesSource, mesh: Option<MeshOf>) -> Db {
    let known = db.schema();
    let tasks = Tasks::default();
    if let Some(url) = &db.url {
        let store = Store::Mysql(Mysql::open("test", url, 4, &tasks).unwrap());
        let other = connected(store, Dialect::Mysql, None, tasks, mesh).await;
        return Db { url: db.url.clone(), ..other };
    }
    let schema = known.dialect.schema().unwrap();
    let store = Postgres::open("test", &super::postgres_url().unwrap(), schema, 4, &tasks).unwrap();
    let store = Store::Postgres(store.learning(by(source)));
    connected(store, Dialect::postgres(schema, Vec::new()), None, tasks, mesh).await
}

async fn db(
    store: Store,
    dialect: Dialect,
    names: &[(&str, &str)],
    folder: Option<tempfile::TempDir>,
    tasks: Tasks,
) -> Db {
    for sql in TABLES.iter().chain(&ROWS) {
        let sql = names.iter().fold((*sql).to_owned(), |sql, (name, text)| sql.replace(name, text));
        execute(&store, &sql).await;
    }
    connected(store, dialect, folder, tasks, None).await
}

async fn connected(
    store: Store,
    dialect: Dialect,
    folder: Option<tempfile::TempDir>,
    tasks: Tasks,
    mesh: Option<MeshOf>,
) -> Db {
    let metrics = mesh::telemetry::Metrics::default();
    let nodes = match &mesh {
        Some(mesh) => Some(SharedLog::new(&bus(&mesh.secret, &tasks).await, "test", "test", &metrics)),
        None => None,
    };
    let options =
        AnswerOptions { limit: 1000, numbers: Numbers::Exact, answer: AnswerLimit::new(0, 0), snapshot: false };
    let prepared = PreparedOperations::default();
    let database = Database::connect(store, dialect, &metrics, Memory::default(), prepared.clone(), (&tasks, nodes))
        .await
        .unwrap();
    Db { database, rules: HashMap::new(), options, prepared, tasks, mesh, folder, url: None }
}

async fn execute(store: &Store, sql: &str) {
    let statement =
        Statement { text: sql.into(), args: Vec::new(), columns: [].into(), sources: Vec::new(), plain: None };
    store.write(&statement).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

impl Db {
    pub fn schema(&self) -> std::sync::Arc<crate::database::SchemaSnapshot> {
        self.database.schema_snapshot()
    }

    /// What stands before the names of its tables in SQL.
    pub fn prefix(&self) -> String {
        self.schema().dialect.schema().map(|schema| format!("{schema}.")).unwrap_or_default()
    }

    /// URL of its server, of MariaDB.
    pub fn url(&self) -> &str {
        self.url.as_ref().expect("the others have none")
    }

    /// Its file, of SQLite.
    pub fn file(&self) -> std::path::PathBuf {
        self.folder.as_ref().expect("a server has no file").path().join("test.db")
    }

    pub async fn execute(&self, sql: &str) {
        execute(self.database.store(), sql).await;
    }

    /// The number that a query answers.
    pub async fn count(&self, sql: &str) -> i64 {
        let columns = [query::Type::Int64.into()].into();
        let statement = Statement { text: sql.into(), args: Vec::new(), columns, sources: Vec::new(), plain: None };
        let rows = self.database.store().snapshot(&[statement], &Budget::unlimited()).await.unwrap();
        match rows[0].cell(0, 0) {
            crate::cell::Cell::Int(number) => number,
            other => panic!("a number, not {other:?}"),
        }
    }

    pub fn rule(&mut self, table: &str, operation: Operation) -> &mut Rule {
        self.rules.entry((table.to_owned(), operation)).or_default()
    }

    /// The JSON of a read in REST's grammar: `select`, `find`, `sort`, `skip`, `limit`, `shape`.
    pub async fn read(&self, table: &str, options: Json) -> Result<Json, Error> {
        let answer = self.answer(table, options).await?;
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }

    pub async fn answer(&self, table: &str, options: Json) -> Result<Answer, Error> {
        let read = read(&self.schema().schema, table, &options)?;
        Ok(self.answers(&[read]).await?.remove(0))
    }

    /// The answers to reads, which are the same when they are prepared.
    pub async fn answers(&self, reads: &[Read]) -> Result<Vec<Answer>, Error> {
        let answers = self.answers_once(reads).await;
        assert_eq!(self.answers_once(reads).await, answers);
        answers
    }

    /// The answers to reads while others write.
    pub async fn answers_once(&self, reads: &[Read]) -> Result<Vec<Answer>, Error> {
        let known = self.schema();
        let mut terms = Vec::new();
        for read in reads {
            terms.extend(self.terms(&query::read_accesses(&known.schema, read)?));
        }
        let read = self.database.read(reads, grants(&terms), self.options).await;
        read.map(|read| read.answers).map_err(|failure| failure.error)
    }

    pub async fn write(&self, mutations: &[Mutation]) -> Result<Vec<Written>, Error> {
        let known = self.schema();
        let mut terms = Vec::new();
        for mutation in mutations {
            terms.extend(self.terms(&query::mutation_accesses(&known.schema, mutation)?));
        }
        self.database.write(mutations, grants(&terms), self.options).await
    }

    /// How many rows were written, and the JSON of them.
    pub async fn mutate(&self, mutation: Mutation) -> Result<(u64, Json), Error> {
        let written = self.write(&[mutation]).await?.remove(0);
        let rows = if written.rows.is_empty() { Json::Null } else { serde_json::from_slice(&written.rows).unwrap() };
        Ok((written.affected, rows))
    }

    pub fn insert(&self, table: &str, docs: Json, returning: Option<Json>) -> Mutation {
        let known = self.schema();
        let docs =
            parser(&known.schema).docs(known.schema.table(table).unwrap(), &Value::from(&docs), &mut budget()).unwrap();
        self.mutation(table, MutationKind::Insert { docs: docs.into() }, returning)
    }

    pub fn update(&self, table: &str, find: Json, update: Json, returning: Option<Json>) -> Mutation {
        let known = self.schema();
        let of = known.schema.table(table).unwrap();
        let filter = parser(&known.schema).filter(of, &Value::from(&find), &mut budget()).unwrap();
        let changes = parser(&known.schema).changes(of, &Value::from(&update), &mut budget()).unwrap();
        self.mutation(table, MutationKind::Update { filter, changes, one: false }, returning)
    }

    pub fn delete(&self, table: &str, find: Json, returning: Option<Json>) -> Mutation {
        let known = self.schema();
        let filter = parser(&known.schema)
            .filter(known.schema.table(table).unwrap(), &Value::from(&find), &mut budget())
            .unwrap();
        self.mutation(table, MutationKind::Delete { filter, one: false }, returning)
    }

    fn mutation(&self, table: &str, kind: MutationKind, returning: Option<Json>) -> Mutation {
        let known = self.schema();
        let node = |select: Json| {
            let options = Options { select: Some(Value::from(&select)), ..Options::default() };
            parser(&known.schema).node(known.schema.table(table).unwrap(), &options, &mut budget()).unwrap()
        };
        Mutation { table: table.to_owned(), kind, returning: returning.map(node) }
    }

    pub fn terms(&self, accesses: &[TableAccess<'_>]) -> Vec<Arc<GrantTerms>> {
        accesses.iter().map(|access| Arc::new(self.grant(access))).collect()
    }

    pub fn grant(&self, access: &TableAccess<'_>) -> GrantTerms {
        let rule = self.rules.get(&(access.table.to_owned(), access.operation)).cloned().unwrap_or_default();
        grant(access, rule)
    }

    /// A filter of a rule, written as a condition.
    pub fn filter(&self, table: &str, find: Json) -> RuleFilter {
        let known = self.schema();
        let table = known.schema.table(table).unwrap();
        untyped(parser(&known.schema).filter(table, &Value::from(&find), &mut budget()).unwrap())
    }
}

fn untyped(filter: Filter) -> RuleFilter {
    let each = |filters: Vec<Filter>| filters.into_iter().map(untyped).collect();
    match filter {
        Filter::And(all) => Filter::And(each(all)),
        Filter::Or(any) => Filter::Or(each(any)),
        Filter::Not(filter) => Filter::Not(Box::new(untyped(*filter))),
        Filter::Compare { column, comparison, value } => {
            Filter::Compare { column, comparison, value: value.to_value() }
        }
        Filter::In { column, values } => {
            Filter::In { column, values: values.iter().map(query::Typed::to_value).collect() }
        }
        Filter::IsNull { column } => Filter::IsNull { column },
        Filter::Related { relation, long_name, quantifier, filter } => {
            Filter::Related { relation, long_name, quantifier, filter: Box::new(untyped(*filter)) }
        }
    }
}

/// What a rule grants of an access.
pub fn grant(access: &TableAccess<'_>, rule: Rule) -> GrantTerms {
    GrantTerms {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: access.table.to_owned(),
        operation: access.operation,
        filter: rule.filter,
        check: rule.check,
        columns: rule.columns.into(),
        allow_all: rule.allow_all,
        expires_ms: 2000,
    }
}

/// The grants of a request to the database of tests.
pub fn grants(terms: &[Arc<GrantTerms>]) -> Grants<'_> {
    Grants::new(GrantScope { project: "shop", database: "music", now_ms: 1000 }, terms)
}

/// A counter that lets pass what no gateway would: what the databases bear is crud's to test.
fn budget() -> RequestBudget {
    RequestBudget::new(Limits { nodes: 100_000, ..Limits::default() })
}

pub fn parser(schema: &Schema) -> Parser<'_> {
    Parser { schema, spelling: Spelling::Dollar }
}

/// A read in REST's grammar.
pub fn read(schema: &Schema, table: &str, options: &Json) -> Result<Read, Error> {
    let of = schema.table(table)?;
    let member = |name: &str| options.get(name).map(Value::from);
    let given =
        Options { select: member("select"), sort: member("sort"), skip: member("skip"), limit: member("limit") };
    let shape = match options.get("shape").and_then(Json::as_str) {
        Some("one") => Shape::One,
        Some("count") => Shape::Count,
        Some("aggregate") => Shape::Aggregate,
        _ => Shape::Many,
    };
    let mut node = parser(schema).node(of, &given, &mut budget())?;
    node.filter = parser(schema).filter(of, &member("find").unwrap_or(Value::Null), &mut budget())?;
    node.shape = shape;
    match shape {
        Shape::Count => node.fields = Vec::new().into(),
        Shape::Aggregate => {
            node.fields = vec![query::Field { key: "count".to_owned(), kind: query::FieldKind::Count }].into();
        }
        Shape::Many | Shape::One => {}
    }
    Ok(Read { database: "music".into(), table: table.into(), node })
}
