//! Configuration of crud: its own section, and the resources it owns.

use std::path::{Path, PathBuf};

use mesh::{
    Tasks,
    resources::{self, Document, Kind, ResourceFault, Snapshot},
};
use query::resources::{ChangesSource, Database, DatabaseMeta, DatabaseResource, Engine};

use crate::{
    Error,
    neighbour::Neighbour,
    sql::Dialect,
    store::{Store, mysql, postgres, sqlite},
};

/// The kind `database`.
pub const DATABASE: Kind = Kind {
    name: "database",
    parse: resources::parse_typed::<DatabaseMeta, Database>,
    check,
    schema: resources::schema_typed::<DatabaseMeta, Database>,
};

/// Configuration of this service on this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Base folder of relative SQLite files.
    pub data: PathBuf,
}

/// Faults of the databases of a folder.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    let projects: Vec<&str> = snapshot.of_kind("project").filter_map(|document| document.name("id")).collect();
    snapshot.of().flat_map(|(database, document)| faults(database, document, &projects)).collect()
}

fn faults(database: &DatabaseResource, document: &Document, projects: &[&str]) -> Vec<ResourceFault> {
    let DatabaseResource { meta, spec } = database;
    let mut faults = Vec::new();
    let mut say = |path: &str, message: String| faults.push(document.fault(path, message));
    if !projects.contains(&meta.project.as_str()) {
        let hint = query::nearest(&meta.project, projects.iter().copied());
        let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        say("meta.project", format!("project {} does not exist{hint}", meta.project));
    }
    match (spec.r#type, Engine::of_url(&spec.url)) {
        (None, None) => say("spec.type", "expected type, or a url of sqlite:, postgres: or mysql:".to_owned()),
        (Some(engine), scheme) if scheme != Some(engine) => {
            let name = engine.name();
            say("spec.url", format!("type is {name}, so expected a url of {name}:"));
        }
        (_, Some(Engine::Sqlite)) => {
            if let Err(wrong) = path(&spec.url, Path::new("")) {
                say("spec.url", wrong);
            }
        }
        (_, Some(Engine::Postgres)) => {
            if let Err(wrong) =
                postgres::Postgres::open(&meta.id, &spec.url, &spec.schema, spec.pool.max, &Tasks::default())
            {
                say("spec.url", wrong);
            }
        }
        (_, Some(Engine::Mysql)) => {
            if let Err(wrong) = mysql::Mysql::open(&meta.id, &spec.url, spec.pool.max, &Tasks::default()) {
                say("spec.url", wrong);
            }
        }
        (Some(_), None) => {}
    }
    if spec.limit == 0 {
        say("spec.limit", "expected at least 1".to_owned());
    }
    if spec.pool.max == 0 {
        say("spec.pool.max", "expected at least 1".to_owned());
    }
    let source = spec.changes.source;
    let expected = match (spec.engine(), source) {
        (Some(Engine::Sqlite), ChangesSource::Slot) => Some("expected auto, triggers or off for sqlite"),
        (Some(Engine::Mysql), ChangesSource::Slot | ChangesSource::Triggers) => Some("expected auto or off for mysql"),
        _ => None,
    };
    if let Some(expected) = expected {
        say("spec.changes.source", format!("{expected}, found {}", source.name()));
    }
    let may_be_slot = matches!(source, ChangesSource::Auto | ChangesSource::Slot);
    if spec.changes.unbounded_slot && (!may_be_slot || matches!(spec.engine(), Some(Engine::Sqlite | Engine::Mysql))) {
        let text = format!("expected postgres and source auto or slot, found source {}", source.name());
        say("spec.changes.unboundedSlot", text);
    }
    faults
}

/// The file that `sqlite:music.db` names; a relative one lies under `data`.
pub fn path(url: &str, data: &Path) -> Result<PathBuf, String> {
    let rest = url.strip_prefix("sqlite:").ok_or("expected a url of sqlite:")?;
    let file = rest.strip_prefix("//").unwrap_or(rest);
    if file.is_empty() || file.ends_with('/') {
        return Err("expected a file after sqlite:".to_owned());
    }
    if file.starts_with(':') {
        return Err("a database in memory is not shared between connections; expected a file after sqlite:".to_owned());
    }
    if file.contains(['?', '\0']) {
        return Err("expected a file without parameters after sqlite:".to_owned());
    }
    if Path::new(file).components().any(|part| part == std::path::Component::ParentDir) {
        return Err("expected a file in the data folder after sqlite:, or an absolute path; neither has ..".to_owned());
    }
    Ok(data.join(file))
}

/// Source of a database: its resource, and the base folders of relative paths.
pub struct DatabaseSource {
    /// The database's id.
    pub id: String,
    /// Spec of its resource.
    pub spec: Database,
    /// Base folder of relative paths of the resource.
    pub folder: PathBuf,
    /// Base folder of relative SQLite files.
    pub data: PathBuf,
    /// Other schemas of the same database.
    pub neighbours: Vec<Neighbour>,
}

/// Opens the store of `source`, with its dialect. An SQLite file is created if there is none.
///
/// Blocks.
pub fn open(source: &DatabaseSource, tasks: &Tasks) -> Result<(Store, Dialect), Error> {
    let DatabaseSource { id, spec, folder, data, neighbours } = source;
    match spec.engine() {
        Some(Engine::Sqlite) => {
            let file = path(&spec.url, data).map_err(Error::Unavailable)?;
            let init: Vec<PathBuf> = spec.init.iter().map(|file| folder.join(file)).collect();
            Ok((Store::Sqlite(sqlite::Sqlite::open(&file, &init, tasks)?), Dialect::Sqlite))
        }
        Some(Engine::Postgres) => {
            let store = postgres::Postgres::open(id, &spec.url, &spec.schema, spec.pool.max, tasks);
            let dialect = Dialect::postgres(&spec.schema, neighbours.clone());
            let store = store.map_err(Error::Unavailable)?.learning(spec.changes);
            Ok((Store::Postgres(store), dialect))
        }
        Some(Engine::Mysql) => {
            let store = mysql::Mysql::open(id, &spec.url, spec.pool.max, tasks);
            Ok((Store::Mysql(store.map_err(Error::Unavailable)?), Dialect::Mysql))
        }
        None => Err(Error::Unavailable("the url names no known engine".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(yaml: &str) -> Vec<String> {
        let faults = Snapshot::parse(yaml, &crate::tests::KINDS).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_database_has_no_faults() {
        let yaml = "kind: project\nmeta: {id: shop}\n---\nkind: database\nmeta: {project: shop, id: music}\n\
                    spec: {url: \"sqlite:music.db\", init: [a.sql]}\n";
        assert_eq!(messages(yaml), [""; 0]);
    }

    #[test]
    fn faults_name_their_place() {
        let database = |spec: &str| {
            format!(
                "kind: project\nmeta: {{id: shop}}\n---\nkind: database\nmeta: {{project: shap, id: music}}\nspec: {spec}\n"
            )
        };
        for (spec, expected) in [
            ("{url: \"oracle://x\"}", "spec.type"),
            ("{url: \"mysql://x\"}", "spec.url"),
            ("{type: mysql, url: \"postgres://x/y\"}", "spec.url"),
            ("{type: postgres, url: \"sqlite:x\"}", "spec.url"),
            ("{url: \"sqlite:\"}", "spec.url"),
            ("{url: \"sqlite::memory:\"}", "spec.url"),
            ("{url: \"sqlite:../../etc/x.db\"}", "spec.url"),
            ("{url: \"sqlite:x\", limit: 0}", "spec.limit"),
            ("{url: \"sqlite:x\", pool: {max: 0}}", "spec.pool.max"),
            ("{url: \"sqlite:x\", changes: {source: slot}}", "spec.changes.source: expected auto"),
            (
                "{url: \"mysql://db/x\", changes: {source: triggers}}",
                "spec.changes.source: expected auto or off for mysql, found triggers",
            ),
            (
                "{url: \"mysql://db/x\", changes: {unboundedSlot: true}}",
                "spec.changes.unboundedSlot: expected postgres",
            ),
            ("{url: \"sqlite:x\", changes: {unboundedSlot: true}}", "spec.changes.unboundedSlot: expected postgres"),
            (
                "{url: \"postgres://db/x\", changes: {source: triggers, unboundedSlot: true}}",
                "spec.changes.unboundedSlot: expected postgres and source auto or slot, found source triggers",
            ),
        ] {
            let messages = messages(&database(spec));
            assert_eq!(messages.len(), 2, "{messages:?}");
            assert!(messages[0].contains("project shap does not exist; did you mean shop?"), "{messages:?}");
            assert!(messages[1].contains(expected), "{messages:?}");
        }
    }

    #[test]
    fn sqlite_files_lie_under_the_data_folder_unless_they_are_absolute() {
        let data = Path::new("/data");
        assert_eq!(path("sqlite:music.db", data), Ok(PathBuf::from("/data/music.db")));
        assert_eq!(path("sqlite://music.db", data), Ok(PathBuf::from("/data/music.db")));
        assert_eq!(path("sqlite:///srv/music.db", data), Ok(PathBuf::from("/srv/music.db")));
    }
}
