//! The database that a folder is made for.

use std::path::Path;

use anyhow::{anyhow, bail};
use crud::{Introspected, LeftOut, OutwardKey, SchemaSize, Survey};
use query::{Schema, resources::Engine};

use crate::progress::Progress;

/// PostgreSQL's schema where none is named.
pub const DEFAULT_SCHEMA: &str = "public";

/// A database given on the command line.
#[derive(Debug, Clone)]
pub struct Source {
    engine: Engine,
    url: String,
}

/// A database that was looked at.
pub struct Found {
    /// Its engine.
    pub engine: Engine,
    /// URL by which a node reaches it from any folder.
    pub url: String,
    /// Its schemas, one for each `database` document.
    pub schemas: Vec<FoundSchema>,
    /// Foreign keys that lead out of one of these schemas.
    pub outward_keys: Vec<OutwardKey>,
    /// Other schemas that have tables.
    pub others: Vec<SchemaSize>,
}

/// A schema that was looked at.
pub struct FoundSchema {
    /// Suggested id of its `database` document.
    pub id: String,
    /// Its name, where it was asked for by name.
    pub name: Option<String>,
    /// Its tables.
    pub schema: Schema,
    /// What of the database is not in it.
    pub left_out: Vec<LeftOut>,
}

impl Source {
    /// `url` with an engine that we know.
    pub fn parse(url: &str) -> Result<Self, String> {
        let Some(engine) = Engine::of_url(url) else {
            return Err("expected sqlite:FILE, postgres://USER@HOST/NAME or mysql://USER@HOST/NAME".to_owned());
        };
        let url = match engine {
            Engine::Sqlite => sqlite(url)?,
            Engine::Postgres => {
                let mut parameters = url.split_once('?').map_or("", |(_, parameters)| parameters).split('&');
                if let Some(name) = parameters.find_map(|parameter| parameter.strip_prefix("schema=")) {
                    return Err(format!("expected --schema {name}, found schema={name} in the url"));
                }
                url.to_owned()
            }
            Engine::Mysql => url.to_owned(),
        };
        Ok(Self { engine, url })
    }

    /// Opens it, reads the schemas called `names` and closes it. Without names: the file, or the schema `public`.
    pub async fn look(self, names: &[String]) -> anyhow::Result<Found> {
        match self.engine {
            Engine::Sqlite | Engine::Mysql => self.look_into_one(names).await,
            Engine::Postgres => self.look_into_server(names).await,
        }
    }

    async fn look_into_one(self, names: &[String]) -> anyhow::Result<Found> {
        let what = match self.engine {
            Engine::Sqlite => "an SQLite file",
            Engine::Postgres | Engine::Mysql => "a database of MariaDB",
        };
        if let Some(name) = names.first() {
            bail!("{what} has no schema {name}: leave --schema out");
        }
        let _progress = Progress::start("reading the tables");
        let Introspected { schema, left_out } = introspect(&self.url, DEFAULT_SCHEMA).await?;
        let schemas = vec![FoundSchema { id: id_of(self.name()), name: None, schema, left_out }];
        Ok(Found { engine: self.engine, url: self.url, schemas, outward_keys: Vec::new(), others: Vec::new() })
    }

    async fn look_into_server(self, names: &[String]) -> anyhow::Result<Found> {
        let progress = Progress::start("looking for schemas");
        let Survey { schemas: known, mut outward_keys } = crud::survey(&self.url).await.map_err(told)?;
        if let Some(name) = names.iter().find(|name| !known.iter().any(|known| known.name == **name)) {
            let hint = query::nearest(name, known.iter().map(|known| known.name.as_str()));
            let hint = hint.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            bail!("the database has no schema {name}{hint}; of tables, {}", counts(&known));
        }
        let mut chosen: Vec<&str> = Vec::new();
        for name in names.iter().map(String::as_str) {
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
        if chosen.is_empty() {
            chosen.push(DEFAULT_SCHEMA);
        }
        let is_other = |known: &SchemaSize| known.tables > 0 && !chosen.contains(&known.name.as_str());
        let others: Vec<SchemaSize> = known.into_iter().filter(is_other).collect();
        let mut schemas = Vec::new();
        for name in &chosen {
            progress.next(format!("reading the tables of schema {name}"));
            let Introspected { schema, left_out } = introspect(&self.url, name).await?;
            let (id, name) = match names.is_empty() {
                true => (id_of(self.name()), None),
                false => (id_of(name), Some((*name).to_owned())),
            };
            schemas.push(FoundSchema { id, name, schema, left_out });
        }
        let has_none = |found: &FoundSchema| found.schema.tables().is_empty() && found.left_out.is_empty();
        let is_empty = names.is_empty() && schemas.iter().all(has_none);
        if let Some(first) = others.first().filter(|_| is_empty) {
            bail!(
                "{DEFAULT_SCHEMA} has no tables; {}: `perigee init … --schema {}`, once for each schema to serve",
                counts(&others),
                first.name
            );
        }
        outward_keys.retain(|key| chosen.contains(&key.schema.as_str()));
        Ok(Found { engine: self.engine, url: self.url, schemas, outward_keys, others })
    }

    /// The name of the file without its ending, or of the database: never a part that may hold a password.
    fn name(&self) -> &str {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        match self.engine {
            Engine::Sqlite => Path::new(last).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default(),
            Engine::Postgres | Engine::Mysql if last.contains('@') => "",
            Engine::Postgres | Engine::Mysql => last,
        }
    }
}

async fn introspect(url: &str, schema: &str) -> anyhow::Result<Introspected> {
    crud::introspect(url, schema, Path::new(".")).await.map_err(told)
}

/// The error with what the driver says: here the reader is the operator.
fn told(error: crud::Error) -> anyhow::Error {
    match error.cause() {
        Some(cause) => anyhow!("{error}: {cause}"),
        None => error.into(),
    }
}

/// `sales has 1, hr has 2`.
pub fn counts(schemas: &[SchemaSize]) -> String {
    let count = |schema: &SchemaSize| format!("{} has {}", schema.name, schema.tables);
    schemas.iter().map(count).collect::<Vec<_>>().join(", ")
}

fn id_of(name: &str) -> String {
    match identifier(name) {
        id if id.is_empty() => "main".to_owned(),
        id => id,
    }
}

/// The URL with the whole path of the file, which exists: in resources a relative path means the data folder.
fn sqlite(url: &str) -> Result<String, String> {
    let rest = url.trim_start_matches("sqlite:");
    let path = rest.strip_prefix("//").unwrap_or(rest).split('?').next().unwrap_or_default();
    let full = std::fs::canonicalize(path).map_err(|error| format!("the file {path} cannot be opened: {error}"))?;
    Ok(format!("sqlite:{}", full.display()))
}

/// `text` with only what an id may have; other characters become `-`.
pub fn identifier(text: &str) -> String {
    let kept: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    kept.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(url: &str) -> Source {
        Source::parse(url).unwrap()
    }

    #[test]
    fn a_database_is_called_by_its_own_name() {
        assert_eq!(postgres("postgres://ann:secret@db.example/shop?sslmode=require").name(), "shop");
        assert_eq!(postgres("postgresql://localhost/shop").name(), "shop");
        assert_eq!(Source::parse("mysql://ann:secret@db.example/shop?ssl-mode=required").unwrap().name(), "shop");
    }

    #[test]
    fn a_schema_is_an_option_and_no_parameter() {
        let error = Source::parse("postgres://db/shop?sslmode=require&schema=sales").unwrap_err();
        assert_eq!(error, "expected --schema sales, found schema=sales in the url");
    }

    #[test]
    fn no_password_becomes_a_name() {
        assert_eq!(postgres("postgres://ann:secret@db.example").name(), "");
    }

    #[test]
    fn an_sqlite_file_must_exist_and_is_told_by_its_whole_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("music.v1.db");
        Source::parse(&format!("sqlite:{}", file.display())).unwrap_err();
        std::fs::write(&file, "").unwrap();

        let source = Source::parse(&format!("sqlite://{}", file.display())).unwrap();

        assert_eq!(source.url, format!("sqlite:{}", file.display()));
        assert_eq!(identifier(source.name()), "music-v1");
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in ["oracle://localhost/shop", "music.db", ""] {
            Source::parse(url).unwrap_err();
        }
    }
}
