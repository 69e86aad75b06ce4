//! What keeps a table from being followed, and the SQL that would change it.

use std::fmt;

/// A reason for which changes of a table cannot be followed. Names are as they stand in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The server is a standby, where nothing can be made.
    Standby,
    /// There is no table of that name.
    NoTable,
    /// It, or one below it, is none whose changes triggers see: what it is.
    Kind {
        /// Its name.
        table: String,
        /// What it is.
        kind: String,
        /// Whether it is below the one that is to be followed.
        is_below: bool,
    },
    /// Another role owns it, or one below it.
    Owner {
        /// Its name.
        table: String,
        /// Who owns it.
        owner: String,
        /// Who should.
        role: String,
    },
    /// The role may make no schema.
    NoSchema {
        /// The role.
        role: String,
        /// The database.
        database: String,
    },
    /// An application has a schema of that name.
    OtherSchema,
    /// Our schema, or a part of it, is of another role.
    OtherRole {
        /// The role that should own it.
        role: String,
        /// It, with its owner.
        object: String,
        /// Whether a server made it.
        is_marked: bool,
    },
}

impl Obstacle {
    /// SQL that removes it; `None` where there is none that keeps what an application has.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Obstacle::Standby | Obstacle::NoTable | Obstacle::OtherSchema => None,
            Obstacle::Kind { table, kind, .. } => {
                (kind == "an unlogged table").then(|| format!("ALTER TABLE {table} SET LOGGED;"))
            }
            Obstacle::Owner { table, role, .. } => Some(format!("ALTER TABLE {table} OWNER TO {role};")),
            Obstacle::NoSchema { role, .. } => Some(format!("CREATE SCHEMA perigee_changes AUTHORIZATION {role};")),
            Obstacle::OtherRole { is_marked: true, .. } => {
                Some("DROP SCHEMA perigee_changes CASCADE; -- once no server of its owner runs".to_owned())
            }
            Obstacle::OtherRole { role, is_marked: false, .. } => {
                Some(format!("ALTER SCHEMA perigee_changes OWNER TO {role};"))
            }
        }
    }

    /// Whether it is one of a kind of table, and not of a right that is missing.
    pub fn is_of_kind(&self) -> bool {
        matches!(self, Obstacle::NoTable | Obstacle::Kind { .. })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Standby => {
                formatter.write_str("expected the primary server, found a standby, which takes no writes")
            }
            Obstacle::NoTable => formatter.write_str("expected a table, found nothing of that name"),
            Obstacle::Kind { kind, is_below: false, .. } => write!(formatter, "expected a table, found {kind}"),
            Obstacle::Kind { table, kind, is_below: true } => {
                write!(formatter, "expected a table, found {kind}, {table}, below it")
            }
            Obstacle::Owner { table, owner, role } => {
                write!(formatter, "role {role} must own {table} to make triggers, its owner is {owner}")
            }
            Obstacle::NoSchema { role, database } => write!(
                formatter,
                "role {role} needs the right CREATE on database {database}, or a schema perigee_changes of its own"
            ),
            Obstacle::OtherSchema => formatter.write_str("the database has another schema perigee_changes"),
            Obstacle::OtherRole { role, object, .. } => write!(formatter, "role {role} must own {object}"),
        }
    }
}
