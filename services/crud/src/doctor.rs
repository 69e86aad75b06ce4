//! `perigee doctor`: asks the store of a database what live queries have of it, and removes what they left.

use std::{path::Path, path::PathBuf};

use mesh::Tasks;
use query::resources::{ChangesSource, Database, Engine};

use crate::{
    Error, blocking,
    changes::UNFOLLOWED,
    config,
    store::{
        diagnosis::{Diagnosis, Finding, Removal, Severity, WhileUsed},
        mysql::Mysql,
        postgres::Postgres,
        sqlite::changes::diagnosis,
    },
};

/// Where a database is, as its resource says.
enum Location {
    File(PathBuf),
    Server(Postgres),
    /// Without live queries.
    Unfollowed(Mysql),
}

/// What is found in a database whose engine has no live queries.
async fn unfollowed(server: &Mysql) -> Result<Diagnosis, Error> {
    let found = server.introspect().await?;
    let tables = found.schema.tables().iter().map(|table| table.name.clone()).collect();
    let text = format!("live queries: {UNFOLLOWED}");
    let findings = vec![Finding { severity: Severity::Unfollowed, text, sql: None }];
    Ok(Diagnosis { source: "none", tables, findings, ..Diagnosis::default() })
}

/// What live queries have of the database that `spec` describes, which is opened for it. Nothing is changed.
pub async fn diagnose(spec: &Database, data: &Path) -> Result<Diagnosis, Error> {
    match location(spec, data)? {
        Location::File(file) => {
            let found = blocking::run(move |_| diagnosis::diagnose(&file)).await??;
            let source = if spec.changes.source == ChangesSource::Off { "off" } else { found.source };
            Ok(Diagnosis { source, ..found })
        }
        Location::Server(server) => Box::pin(server.diagnose()).await,
        Location::Unfollowed(server) => Box::pin(unfollowed(&server)).await,
    }
}

/// Removes what live queries left in the database that `spec` describes: all schemas of a server.
pub async fn remove(spec: &Database, data: &Path, while_used: WhileUsed) -> Result<Removal, Error> {
    match location(spec, data)? {
        Location::File(file) => blocking::run(move |_| diagnosis::remove(&file)).await?,
        Location::Server(server) => Box::pin(server.remove_capture(while_used)).await,
        Location::Unfollowed(_) => Ok(Removal::default()),
    }
}

fn location(spec: &Database, data: &Path) -> Result<Location, Error> {
    match spec.engine() {
        Some(Engine::Sqlite) => Ok(Location::File(config::path(&spec.url, data).map_err(Error::Unavailable)?)),
        Some(Engine::Postgres) => {
            let server = Postgres::open("server", &spec.url, &spec.schema, 1, &Tasks::default());
            Ok(Location::Server(server.map_err(Error::Unavailable)?.learning(spec.changes)))
        }
        Some(Engine::Mysql) => {
            let server = Mysql::open("server", &spec.url, 1, &Tasks::default());
            Ok(Location::Unfollowed(server.map_err(Error::Unavailable)?))
        }
        None => Err(Error::Unavailable("expected a url of sqlite:, postgres: or mysql:".to_owned())),
    }
}
