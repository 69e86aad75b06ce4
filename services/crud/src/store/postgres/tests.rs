//! Against a real server, the one that `TEST_POSTGRES_URL` names.

use std::time::Duration;

use query::Typed;
use tokio_postgres::NoTls;

use super::*;
use crate::invalid_value::InvalidKind;

mod merged;
mod running;
mod schema;
mod values;

/// A schema of its own on the test server, gone with the next run of the same test.
struct Server {
    url: String,
    schema: String,
    client: tokio_postgres::Client,
}

impl Server {
    /// `None`, and a word about it, where there is no server and none is demanded.
    async fn with(test: &str, setup: &str) -> Option<Self> {
        let url = crate::tests::postgres_url()?;
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let schema = format!("store_{test}");
        let script = format!(
            "SET client_min_messages TO warning; DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; \
             SET search_path TO {schema}; {setup}"
        );
        client.batch_execute(&script).await.unwrap();
        Some(Self { url, schema, client })
    }

    fn store(&self, max: usize) -> Postgres {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}application_name={}", self.url, self.schema);
        Postgres::open("shop", &url, &self.schema, max, &Tasks::default()).unwrap()
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }
}

fn statement(text: &str, args: Vec<Typed>) -> Statement {
    let args = args.into_iter().map(Bind::Value).collect();
    // What the columns hold is the server's word here; the compiler's is for engines that do not know.
    Statement { text: text.into(), args, columns: [].into(), sources: Vec::new(), plain: None }
}

fn int(value: i64) -> Typed {
    Typed::Int(value)
}

fn text(value: &str) -> Typed {
    Typed::Text(value.to_owned())
}

async fn cells(store: &Postgres, sql: &str, args: Vec<Typed>) -> Vec<String> {
    first_cells(store, statement(sql, args)).await
}

/// The cells of the first column, where the only placeholder is a list.
async fn listed_cells(store: &Postgres, sql: &str, items: Vec<Typed>) -> Vec<String> {
    first_cells(store, Statement { args: vec![Bind::List(items)], ..statement(sql, Vec::new()) }).await
}

async fn first_cells(store: &Postgres, statement: Statement) -> Vec<String> {
    let rows = store.snapshot(&[statement], &Budget::unlimited()).await.unwrap().remove(0);
    (0..rows.len()).map(|row| format!("{:?}", rows.cell(row, 0))).collect()
}

/// Handlers of the service must be able to move between threads.
#[test]
fn futures_may_move_between_threads() {
    fn moves<T: Send>(_: impl Fn(Postgres) -> T) {}
    moves(|store| async move { store.snapshot(&[], &Budget::unlimited()).await.map(drop) });
    moves(|store| async move { store.write(&statement("", Vec::new())).await.map(drop) });
    moves(|store| async move { store.introspect(&[]).await.map(drop) });
    moves(|store| async move { store.schema_mark(&[]).await.map(drop) });
    moves(|store| async move { store.ping().await });
    moves(|store| async move {
        let mut tx = store.begin().await?;
        tx.run(&[], &Budget::unlimited()).await?;
        tx.commit().await
    });
}

/// Waits until `sql` counts `wanted`; the test's time limit ends it otherwise.
async fn until(server: &Server, sql: &str, wanted: i64) {
    let reached = async {
        while server.count(sql).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap_or_else(|_| panic!("{sql} is not {wanted}"));
}
