//! `perigee doctor`: asks the store of a database what live queries have of it, and removes what they left.

use std::{path::Path, path::PathBuf};

use mesh::Tasks;
use query::resources::{ChangesSource, Database, Engine};

use crate::{
    Error, blocking, config,
    store::{
        diagnosis::{Diagnosis, Removal, WhileUsed},
        mysql::Mysql,
        postgres::Postgres,
        sqlite::changes::diagnosis,
    },
};

/// Where a database is, as its resource says.
enum Location {
    File(PathBuf),
    Server(Postgres),
    /// In which nothing is made.
    Logged(Mysql),
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
        Location::Logged(server) => Box::pin(server.diagnose(spec.changes.source)).await,
    }
}

/// Removes what live queries left in the database that `spec` describes: all schemas of a server.
pub async fn remove(spec: &Database, data: &Path, while_used: WhileUsed) -> Result<Removal, Error> {
    match location(spec, data)? {
        Location::File(file) => blocking::run(move |_| diagnosis::remove(&file)).await?,
        Location::Server(server) => Box::pin(server.remove_capture(while_used)).await,
        Location::Logged(_) => Ok(Removal::default()),
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
            Ok(Location::Logged(server.map_err(Error::Unavailable)?))
        }
        None => Err(Error::Unavailable("expected a url of sqlite:, postgres: or mysql:".to_owned())),
    }
}
