//! Against a real server, the one that `TEST_POSTGRES_URL` names: each test in a database of its own.

use mesh::tasks::Tasks;
use tokio_postgres::{Client, NoTls};

use super::*;

mod capture;
mod diagnosis;
mod images;
mod others;
mod recovery;
mod schema;
mod slot;
mod upkeep;

/// A database of its own, gone with the next run of the same test.
struct Server {
    url: String,
    client: Client,
}

impl Server {
    /// `None`, and a word about it, where there is no server and none is demanded.
    async fn with(test: &str, setup: &str) -> Option<Self> {
        let url = crate::tests::postgres_url()?;
        let admin = connect(&url).await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS changes_{test} WITH (FORCE)")).await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE changes_{test}")).await.unwrap();
        let (address, _) = url.rsplit_once('/').unwrap();
        let url = format!("{address}/changes_{test}");
        let client = connect(&url).await;
        client.batch_execute("SET client_min_messages TO warning; CREATE SCHEMA music").await.unwrap();
        client.batch_execute("SET search_path TO music").await.unwrap();
        client.batch_execute(setup).await.unwrap();
        Some(Self { url, client })
    }

    fn store(&self) -> Postgres {
        Postgres::open("shop", &self.url, "music", 4, &Tasks::default()).unwrap()
    }

    /// The store of another role, which is made.
    async fn store_of(&self, role: &str) -> Postgres {
        self.role(role).await;
        let url = self.url.replacen("postgres@", &format!("{role}@"), 1);
        Postgres::open("shop", &url, "music", 4, &Tasks::default()).unwrap()
    }

    /// Makes a role that may use all that there is in the schema.
    async fn role(&self, role: &str) {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT USAGE ON SCHEMA music TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA music TO {role}"
        );
        self.execute(&sql).await;
    }

    /// Another connection, to the same tables.
    async fn other(&self) -> Client {
        let other = connect(&self.url).await;
        other.batch_execute("SET search_path TO music").await.unwrap();
        other
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Objects of ours, and triggers.
    async fn ours(&self) -> i64 {
        let ours = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'perigee_changes')
            + (SELECT count(*) FROM pg_proc WHERE proname = 'note')
            + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'perigee%')";
        self.count(ours).await
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The tables that were changed, after a look at the catalog.
async fn changed(store: &Postgres, position: &mut Position) -> Vec<String> {
    position.catalog_seen = None;
    match store.changes_since(position).await.unwrap() {
        Changed::Tables(tables) => tables,
        Changed::Any => vec!["any".to_owned()],
    }
}

/// A store and its position, after the capture of these tables.
async fn captured(store: &Postgres, tables: &[&str]) -> Position {
    let mut position = Position::default();
    for table in tables {
        store.capture(&mut position, table).await.unwrap();
    }
    assert_eq!(changed(store, &mut position).await, Vec::<String>::new());
    position
}

async fn refusal(store: &Postgres, table: &str) -> String {
    store.capture(&mut Position::default(), table).await.unwrap_err().to_string()
}

const MUSIC: &str = "
    CREATE TABLE album (id int PRIMARY KEY, title text, by int);
    CREATE TABLE \"it's\" (id serial, album int REFERENCES album ON DELETE CASCADE);
    CREATE TABLE part (id int, year int) PARTITION BY RANGE (year);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (year);
    CREATE TABLE part_2_1 PARTITION OF part_2 FOR VALUES FROM (10) TO (20);
    CREATE TABLE parent (id int);
    CREATE TABLE child (more int) INHERITS (parent);
    CREATE TABLE above (id int);
    CREATE TABLE own (more int) INHERITS (above);
    INSERT INTO album VALUES (1, 'a'), (2, 'b');
    INSERT INTO \"it's\" (album) VALUES (1);
    CREATE VIEW titles AS SELECT title FROM album;
    CREATE MATERIALIZED VIEW kept AS SELECT title FROM album;
    CREATE UNLOGGED TABLE fleeting (id int);";
