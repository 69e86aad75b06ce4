//! What operators configure about projects, databases and tables: `meta` and `spec` of the resource kinds that more than
//! one crate reads.

mod bucket;

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

pub use self::bucket::{
    Bucket, BucketBackend, BucketLimits, BucketMeta, BucketResource, ByteSize, FileQuota, FileRate, FileRule, ImageKind,
};

/// A resource document, typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<M, S> {
    /// Identity of the document.
    pub meta: M,
    /// Content of the document.
    pub spec: S,
}

/// A `project` document.
pub type ProjectResource = Resource<ProjectMeta, Project>;

/// A `database` document.
pub type DatabaseResource = Resource<DatabaseMeta, Database>;

/// `meta` of a project.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProjectMeta {
    /// The project's id, as it stands in addresses.
    pub id: String,
}

/// `spec` of a project.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Project {
    /// For people.
    pub name: Option<String>,
    /// Keys that verify tokens; none: no token is ever valid.
    pub tokens: Vec<TokenKey>,
    /// Evaluation of rules.
    pub security: Security,
    /// Cross-origin resource sharing.
    pub cors: Cors,
    /// JSON form of numbers that a double cannot hold.
    pub numbers: Numbers,
    /// GraphQL of this project.
    pub graphql: Graphql,
    /// Limits of this project.
    pub limits: ProjectLimits,
    /// The S3 protocol of this project.
    pub s3: S3,
}

/// The S3 protocol of a project.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Access keys; none: no request is answered.
    pub keys: Vec<AccessKey>,
}

/// An access key of the S3 protocol, which signs requests.
#[derive(Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Names the key in requests: 3 to 128 letters, digits, `_` and `-`.
    pub id: String,
    /// The shared secret, as text of at least 32 bytes.
    pub secret: String,
    /// What rules see as `args.auth`, as if a token had it.
    #[serde(default)]
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl fmt::Debug for AccessKey {
    /// Without the secret, so that no log ever has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A key that verifies tokens.
#[derive(Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenKey {
    /// Names the key in a token's header.
    pub kid: Option<String>,
    /// The only algorithm the key is used with.
    #[serde(default)]
    pub alg: Algorithm,
    /// The shared secret, as text.
    pub secret: String,
    /// A token must be for one of these, where any are given.
    #[serde(default)]
    pub aud: Vec<String>,
    /// A token must be from one of these, where any are given.
    #[serde(default)]
    pub iss: Vec<String>,
    /// Signs the tokens made here.
    #[serde(default)]
    pub primary: bool,
}

impl fmt::Debug for TokenKey {
    /// Without the secret, so that no log ever has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

/// Signature algorithm of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "HS256")]
    Hs256,
}

/// Evaluation of rules.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Security {
    /// Effect of a `match` on `args.find`.
    pub match_mode: MatchMode,
}

/// Effect of a `match` on `args.find.<column>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MatchMode {
    /// The request must carry the plain value.
    Check,
    /// Rows are filtered by it.
    Filter,
    /// Reads are filtered, writes checked.
    #[default]
    Auto,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins, exact; `*` for any, without credentials.
    pub origins: Vec<String>,
}

/// JSON form of numbers that a double cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// As JSON numbers with every digit.
    #[default]
    Exact,
    /// Integers beyond 2^53 and decimals as strings.
    Strings,
}

/// GraphQL of a project. Its limits hold for every protocol: another spelling of those in [`ProjectLimits`], and the
/// lower one counts.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Graphql {
    /// Whether the schema is shown, as far as the caller's rules reach; absent: in development only.
    pub introspection: Option<bool>,
    /// Levels of a selection.
    pub depth: Option<usize>,
    /// Selected fields and parts of conditions.
    pub nodes: Option<usize>,
}

/// Limits of a project; absent ones are the node's, and one above the node's changes nothing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ProjectLimits {
    /// Bytes of a request's body.
    pub body_bytes: Option<usize>,
    /// Bytes of JSON of an answer.
    pub answer_bytes: Option<usize>,
    /// Seconds a request may take.
    pub time_seconds: Option<f64>,
    /// Levels of a selection.
    pub depth: Option<usize>,
    /// Levels of a condition.
    pub filter_depth: Option<usize>,
    /// Selected fields and parts of conditions.
    pub nodes: Option<usize>,
    /// Reads, mutations and selected relations.
    pub statements: Option<usize>,
    /// Items of one list.
    pub list_items: Option<usize>,
    /// Values to write and to look for.
    pub values: Option<usize>,
    /// Most bytes and files that all buckets have together.
    pub file_quota: Option<FileQuota>,
}

/// `meta` of a database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DatabaseMeta {
    /// The project's id.
    pub project: String,
    /// The database's id in it.
    pub id: String,
}

/// `spec` of a database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Database {
    /// Which engine; absent: the one that the scheme of `url` names. Read it by [`Database::engine`].
    #[serde(default)]
    pub r#type: Option<Engine>,
    /// Its URL: `sqlite:music.db`, `postgres://user@host/name`, `mysql://user@host/name`.
    pub url: String,
    /// PostgreSQL's schema.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// Rows a read answers where the client gives no limit.
    #[serde(default = "default_limit")]
    pub limit: u64,
    /// Connections.
    #[serde(default)]
    pub pool: Pool,
    /// SQL files run once, when an SQLite file is created; relative to the document.
    #[serde(default)]
    pub init: Vec<String>,
    /// How changes of rows are learnt.
    #[serde(default)]
    pub changes: Changes,
}

/// How changes of rows of a database are learnt, by which live queries are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Changes {
    /// From what.
    pub source: ChangesSource,
    /// Whether a slot of PostgreSQL is used although nothing bounds the log that the server keeps for it.
    pub unbounded_slot: bool,
}

/// From what changes of rows of a database are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChangesSource {
    /// From a slot where the server and the role allow it, else from triggers.
    #[default]
    Auto,
    /// From a logical replication slot of PostgreSQL.
    Slot,
    /// From triggers that log them.
    Triggers,
    /// From nothing: live queries are refused.
    Off,
}

impl ChangesSource {
    /// `auto`, `slot`, `triggers`, `off`.
    pub fn name(self) -> &'static str {
        match self {
            ChangesSource::Auto => "auto",
            ChangesSource::Slot => "slot",
            ChangesSource::Triggers => "triggers",
            ChangesSource::Off => "off",
        }
    }
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// A file.
    Sqlite,
    /// PostgreSQL 13 or later, and what speaks its protocol.
    Postgres,
    /// MariaDB 10.6 or later.
    Mysql,
}

impl Database {
    /// The engine: `type`, else what the scheme of `url` says; `None` where neither says any.
    pub fn engine(&self) -> Option<Engine> {
        self.r#type.or_else(|| Engine::of_url(&self.url))
    }
}

impl Engine {
    /// Every engine.
    pub const ALL: [Engine; 3] = [Engine::Sqlite, Engine::Postgres, Engine::Mysql];

    /// The engine called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// The engine that the scheme of `url` names: `sqlite:`, `postgres:`, `postgresql:`, `mysql:` or `mariadb:`.
    pub fn of_url(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Engine::Sqlite),
            "postgres" | "postgresql" => Some(Engine::Postgres),
            "mysql" | "mariadb" => Some(Engine::Mysql),
            _ => None,
        }
    }

    /// `sqlite`, `postgres`, `mysql`.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
            Engine::Mysql => "mysql",
        }
    }
}

/// Connections of one database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// At most this many.
    pub max: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { max: 16 }
    }
}

/// `meta` of a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TableMeta {
    /// The project's id.
    pub project: String,
    /// The database's id in it.
    pub database: String,
    /// The table's name; `default` for every table without its own.
    pub id: String,
}

/// A relation that a table's document declares: one of its `links`, by the name of the relation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TableLink {
    /// The table that it leads to.
    pub table: String,
    /// The id of that table's database, where both are schemas of the same PostgreSQL database; absent: the same
    /// database.
    #[serde(default)]
    pub database: Option<String>,
    /// Columns that are equal: of this table, and of the other.
    pub on: BTreeMap<String, String>,
    /// Whether it leads to any number of rows; absent: to one row where its columns of the other table hold a key of it.
    #[serde(default)]
    pub many: Option<bool>,
}

fn default_schema() -> String {
    "public".to_owned()
}

fn default_limit() -> u64 {
    1000
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn engines_are_named_as_in_documents_and_found_by_schemes() {
        for (url, name) in [
            ("sqlite:a.db", Some("sqlite")),
            ("postgres://a", Some("postgres")),
            ("postgresql://a", Some("postgres")),
            ("mysql://a", Some("mysql")),
            ("mariadb://a", Some("mysql")),
            ("oracle://a", None),
            ("sqlite", None),
        ] {
            assert_eq!(Engine::of_url(url).map(Engine::name), name, "{url}");
        }
        for engine in Engine::ALL {
            assert_eq!(Engine::named(engine.name()), Some(engine));
        }
    }

    #[test]
    fn backends_are_named_as_in_documents() {
        let bucket = json!({ "bucket": "b" });
        for (name, settings) in [("local", json!({})), ("memory", json!({})), ("s3", bucket.clone()), ("gcs", bucket)] {
            let mut document = settings;
            document["kind"] = json!(name);
            assert_eq!(from_value::<BucketBackend>(document).unwrap().kind(), name);
        }
    }
}
