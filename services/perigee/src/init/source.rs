//! The database that a folder is made for.

use std::path::Path;

use anyhow::bail;
use crud::LeftOut;
use query::{Schema, resources::Engine};

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
    /// Suggested id.
    pub id: String,
    /// Its schema.
    pub schema: Schema,
    /// What of the database is not in it.
    pub left_out: Vec<LeftOut>,
}

impl Source {
    /// `url` with an engine that we know.
    pub fn parse(url: &str) -> Result<Self, String> {
        let Some(engine) = Engine::of_url(url) else {
            return Err("expected sqlite:FILE or postgres://USER@HOST/NAME".to_owned());
        };
        let url = match engine {
            Engine::Sqlite => sqlite(url)?,
            Engine::Postgres => url.to_owned(),
        };
        Ok(Self { engine, url })
    }

    /// Opens it, reads its schema and closes it.
    pub async fn look(self) -> anyhow::Result<Found> {
        let found = match crud::introspect(&self.url, "public", Path::new(".")).await {
            Ok(found) => found,
            // Here the reader is the operator: what the driver says is theirs to know.
            Err(error) => match error.cause() {
                Some(cause) => bail!("{error}: {cause}"),
                None => return Err(error.into()),
            },
        };
        let id = match identifier(self.name()) {
            id if id.is_empty() => "main".to_owned(),
            id => id,
        };
        Ok(Found { engine: self.engine, id, url: self.url, schema: found.schema, left_out: found.left_out })
    }

    /// The name of the file without its ending, or of the database: never a part that may hold a password.
    fn name(&self) -> &str {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        match self.engine {
            Engine::Sqlite => Path::new(last).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default(),
            Engine::Postgres if last.contains('@') => "",
            Engine::Postgres => last,
        }
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
        for url in ["mysql://localhost/shop", "music.db", ""] {
            Source::parse(url).unwrap_err();
        }
    }
}
