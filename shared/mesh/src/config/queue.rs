//! Where events wait until they are delivered.

use serde::Deserialize;

use super::Secret;

/// Most bytes of the name of a schema.
const SCHEMA_BYTES: usize = 63;
/// Most connections of a node.
const CONNECTIONS_MAX: u32 = 1000;

/// Where events wait until they are delivered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum QueueConfig {
    /// A file below the data folder, of one node.
    File {},
    /// A database that nodes share.
    Postgres(Box<PostgresQueue>),
}

/// A database of PostgreSQL that nodes share.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresQueue {
    /// Its URL, in which a password may stand.
    #[serde(default = "no_url")]
    pub url: Secret,
    /// The schema of its tables, which is made where it is not there.
    #[serde(default = "schema")]
    pub schema: String,
    /// Most connections of this node.
    #[serde(default = "connections")]
    pub connections: u32,
}

fn no_url() -> Secret {
    Secret(String::new())
}

fn schema() -> String {
    "perigee_events".to_owned()
}

fn connections() -> u32 {
    8
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self::File {}
    }
}

impl PostgresQueue {
    /// Checks what types alone do not say. An error is a field, and the reason.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: String| Err((field.to_owned(), message));
        let url = &self.url.0;
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len()) {
            return wrong("url", "must be set, such as postgres://user:password@host/database".to_owned());
        }
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = self.schema.starts_with(|first: char| first.is_ascii_lowercase())
            && self.schema.bytes().all(is_plain)
            && self.schema.len() <= SCHEMA_BYTES
            && !self.schema.starts_with("pg_");
        if !is_name {
            let expected =
                format!("up to {SCHEMA_BYTES} small letters, digits and _, beginning with a letter but not pg_");
            return wrong("schema", format!("invalid schema {:?}: expected {expected}", self.schema));
        }
        // One hears of new events, one follows tables, one delivers.
        if !(3..=CONNECTIONS_MAX).contains(&self.connections) {
            return wrong("connections", format!("must be from 3 to {CONNECTIONS_MAX}"));
        }
        Ok(())
    }
}
