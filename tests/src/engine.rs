//! Databases with throw-away data.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::Context;
use mysql_async::{Conn, prelude::Queryable};
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;

/// Which database a mesh stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// The server that `TEST_POSTGRES_URL` names.
    Postgres,
    /// The server of MariaDB that `TEST_MYSQL_URL` names.
    Mysql,
}

/// A database of its own.
#[derive(Debug, Clone)]
pub struct Database {
    /// URL of the database, as a resource has it.
    pub url: String,
    engine: Engine,
}

static CHINOOK: OnceCell<Vec<u8>> = OnceCell::const_new();
static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static MYSQL_TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The example that every scenario of the shop runs on.
pub fn chinook() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/chinook")
}

/// URL of the PostgreSQL server that tests may use.
///
/// # Panics
/// When `TEST_POSTGRES_URL` is not set: a test that needs a server fails when there is none.
pub fn server() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL names a server; scripts/test starts one")
}

fn unique() -> String {
    format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Database {
    /// The music shop with all its rows.
    pub async fn shop(engine: Engine, folder: &Path) -> anyhow::Result<Self> {
        match engine {
            Engine::Sqlite => {
                let file = folder.join(format!("{}.db", unique()));
                std::fs::write(&file, CHINOOK.get_or_try_init(sqlite_shop).await?)?;
                Ok(Self { url: format!("sqlite:{}", file.display()), engine })
            }
            Engine::Postgres => {
                let template = TEMPLATE.get_or_try_init(postgres_shop).await?;
                Self::create(Some(template)).await
            }
            Engine::Mysql => {
                let template = MYSQL_TEMPLATE.get_or_try_init(mysql_shop).await?;
                let database = Self::create_mysql().await?;
                let (tables, indexes) = mysql_tables()?;
                database.run(&tables).await?;
                for table in tables.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")) {
                    let table = table.trim_end_matches(" (");
                    database.run(&format!("INSERT INTO {table} SELECT * FROM {template}.{table}")).await?;
                }
                database.run(&indexes).await?;
                Ok(database)
            }
        }
    }

    /// A database that `script` fills.
    pub async fn filled(engine: Engine, folder: &Path, script: &str) -> anyhow::Result<Self> {
        let database = match engine {
            Engine::Sqlite => {
                let url = format!("sqlite:{}", folder.join(format!("{}.db", unique())).display());
                Self { url, engine }
            }
            Engine::Postgres => Self::create(None).await?,
            Engine::Mysql => Self::create_mysql().await?,
        };
        database.run(script).await?;
        Ok(database)
    }

    /// A database of the server that is there.
    pub fn on_server(name: &str) -> anyhow::Result<Self> {
        Ok(Self::at(&on_server(name)?))
    }

    /// A database of a server, by its URL.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), engine: Engine::Postgres }
    }

    /// Runs SQL beside the mesh.
    pub async fn run(&self, script: &str) -> anyhow::Result<()> {
        match self.engine {
            Engine::Sqlite => {
                let connection = rusqlite::Connection::open(self.file()?)?;
                connection.busy_timeout(std::time::Duration::from_secs(10))?;
                connection.pragma_update(None, "journal_mode", "WAL")?;
                Ok(connection.execute_batch(script)?)
            }
            Engine::Postgres => Ok(connect(&self.url).await?.batch_execute(script).await?),
            Engine::Mysql => {
                let mut conn = mysql(&self.url).await?;
                conn.query_drop(script).await?;
                Ok(conn.disconnect().await?)
            }
        }
    }

    /// The number that a query answers, asked beside the mesh.
    pub async fn number(&self, query: &str) -> anyhow::Result<i64> {
        match self.engine {
            Engine::Sqlite => {
                let connection = rusqlite::Connection::open(self.file()?)?;
                Ok(connection.query_row(query, [], |row| row.get(0))?)
            }
            Engine::Postgres => Ok(connect(&self.url).await?.query_one(query, &[]).await?.get(0)),
            Engine::Mysql => mysql(&self.url).await?.query_first(query).await?.context("a row"),
        }
    }

    /// URL of the database for connections of another role.
    pub fn url_of(&self, role: &str) -> anyhow::Result<String> {
        let (scheme, rest) = self.url.split_once("://").context("a server has roles")?;
        let address = rest.split_once('@').map_or(rest, |(_, address)| address);
        Ok(format!("{scheme}://{role}@{address}"))
    }

    fn file(&self) -> anyhow::Result<&str> {
        self.url.strip_prefix("sqlite:").context("a file")
    }

    async fn create(template: Option<&String>) -> anyhow::Result<Self> {
        let name = unique();
        let admin = connect(&server()).await?;
        let from = template.map(|template| format!(" TEMPLATE {template}")).unwrap_or_default();
        admin.batch_execute(&format!("CREATE DATABASE {name}{from}")).await?;
        Ok(Self { url: on_server(&name)?, engine: Engine::Postgres })
    }
}

impl Database {
    /// A database of MariaDB whose texts have the collation that is usual there, which ignores case.
    async fn create_mysql() -> anyhow::Result<Self> {
        let (server, name) = (mysql_server(), unique());
        let sql = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci");
        mysql(&server).await?.query_drop(sql).await?;
        let (address, _) = server.rsplit_once('/').context("a URL with a database")?;
        Ok(Self { url: format!("{address}/{name}"), engine: Engine::Mysql })
    }
}

/// URL of the server of MariaDB that tests may use.
///
/// # Panics
/// When `TEST_MYSQL_URL` is not set.
fn mysql_server() -> String {
    std::env::var("TEST_MYSQL_URL").expect("TEST_MYSQL_URL names a server; scripts/test starts one")
}

async fn mysql(url: &str) -> anyhow::Result<Conn> {
    let mut conn = Conn::from_url(url).await?;
    // The dialect that scripts of all engines have in common.
    conn.query_drop(
        "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'",
    )
    .await?;
    Ok(conn)
}

/// The tables of the example as MariaDB declares them, and their indexes.
fn mysql_tables() -> anyhow::Result<(String, String)> {
    let (tables, rest) = mysql_script()?;
    let indexes = rest.lines().filter(|line| line.starts_with("CREATE INDEX ")).collect::<Vec<_>>().join("\n");
    Ok((tables, indexes))
}

/// The example's SQL for PostgreSQL in MariaDB's words: what makes its tables, and what follows.
fn mysql_script() -> anyhow::Result<(String, String)> {
    let script = std::fs::read_to_string(chinook().join("postgresql.sql"))?;
    let script = script
        .replace("GENERATED BY DEFAULT AS IDENTITY", "AUTO_INCREMENT")
        .replace(" TIMESTAMP", " DATETIME(6)")
        .replace("BEGIN;", "")
        .replace("COMMIT;", "")
        .replace("ANALYZE;", "");
    let others = |line: &&str| !line.contains("RESTART WITH");
    let script = script.lines().filter(others).collect::<Vec<_>>().join("\n");
    let at = script.find("INSERT INTO ").context("rows")?;
    let (tables, rest) = script.split_at(at);
    Ok((tables.to_owned(), rest.to_owned()))
}

/// The name of a database of MariaDB that the example's SQL filled.
async fn mysql_shop() -> anyhow::Result<String> {
    let database = Database::create_mysql().await?;
    let (tables, rest) = mysql_script()?;
    database.run(&tables).await?;
    database.run(&rest).await?;
    let (_, name) = database.url.rsplit_once('/').context("a name")?;
    Ok(name.to_owned())
}

fn on_server(database: &str) -> anyhow::Result<String> {
    let server = server();
    let (address, _) = server.rsplit_once('/').context("a URL with a database")?;
    Ok(format!("{address}/{database}"))
}

async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The file that the example's SQL makes.
async fn sqlite_shop() -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("shop.db");
    let connection = rusqlite::Connection::open(&file)?;
    connection.execute_batch(&std::fs::read_to_string(chinook().join("sqlite.sql"))?)?;
    drop(connection);
    Ok(std::fs::read(file)?)
}

/// The name of a database that the example's SQL filled.
async fn postgres_shop() -> anyhow::Result<String> {
    let name = unique();
    connect(&server()).await?.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    let shop = connect(&on_server(&name)?).await?;
    shop.batch_execute(&std::fs::read_to_string(chinook().join("postgresql.sql"))?).await?;
    drop(shop);
    // A template must have no connection left; the server notices the end of ours a moment later.
    let admin = connect(&server()).await?;
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
    while admin.query_one(&gone, &[]).await?.get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    Ok(name)
}
