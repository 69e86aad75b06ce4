//! What keeps a slot from being used, and the SQL that would change it.

use std::fmt;

/// A reason for which a database is not followed by a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotObstacle {
    /// The server is a standby.
    Standby,
    /// Its log does not have what is needed; its `wal_level`.
    WalLevel(String),
    /// The role may not replicate.
    Role(String),
    /// A slot or a publication of the name is not ours.
    Other(String),
    /// The role may make no publication.
    Create {
        /// The role.
        role: String,
        /// The database.
        database: String,
    },
    /// Nothing bounds the log that is kept for a slot.
    Unbounded,
    /// Commits would wait for it; `synchronous_standby_names`.
    Synchronous(String),
    /// Another process reads it.
    Active,
    /// The server was not shut down cleanly: it is read as another log.
    Recovered,
    /// All slots are in use, of so many.
    Slots(i64),
    /// All connections that replicate are in use, of so many.
    Senders(i64),
    /// Sessions share connections of the server, which cannot replicate.
    Pooled,
    /// A replication connection could not be made, or the slot not in time: why.
    Failed(String),
    /// A table has something that a slot does not tell.
    Table {
        /// The table.
        table: String,
        /// What it has.
        why: String,
    },
}

impl SlotObstacle {
    /// SQL that removes it; `None` where there is none.
    pub fn remedy(&self) -> Option<String> {
        let restart = "-- then restart the server";
        Some(match self {
            SlotObstacle::WalLevel(_) => format!("ALTER SYSTEM SET wal_level = 'logical'; {restart}"),
            SlotObstacle::Role(role) => format!("ALTER ROLE {role} REPLICATION;"),
            SlotObstacle::Create { role, database } => format!("GRANT CREATE ON DATABASE {database} TO {role};"),
            SlotObstacle::Unbounded => {
                "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();".to_owned()
            }
            SlotObstacle::Slots(count) => format!("ALTER SYSTEM SET max_replication_slots = {}; {restart}", count + 10),
            SlotObstacle::Senders(count) => format!("ALTER SYSTEM SET max_wal_senders = {}; {restart}", count + 10),
            SlotObstacle::Standby
            | SlotObstacle::Other(_)
            | SlotObstacle::Synchronous(_)
            | SlotObstacle::Active
            | SlotObstacle::Recovered
            | SlotObstacle::Pooled
            | SlotObstacle::Failed(_)
            | SlotObstacle::Table { .. } => return None,
        })
    }

    /// Whether it passes by itself: somebody else uses what is needed, or it was not done in time.
    pub fn is_transient(&self) -> bool {
        matches!(self, SlotObstacle::Active | SlotObstacle::Recovered | SlotObstacle::Failed(_))
    }
}

impl fmt::Display for SlotObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotObstacle::Standby => f.write_str("expected the primary server, found a standby"),
            SlotObstacle::WalLevel(level) => write!(f, "expected wal_level logical, found {level}"),
            SlotObstacle::Role(role) => write!(f, "role {role} needs the attribute REPLICATION"),
            SlotObstacle::Other(name) => write!(f, "a slot or publication {name} is there that is not ours"),
            SlotObstacle::Create { role, database } => {
                write!(f, "role {role} needs the right CREATE on database {database} for a publication")
            }
            SlotObstacle::Unbounded => f.write_str(
                "expected a limit, found max_slot_wal_keep_size -1; without one the server's log may fill its disk \
                 (changes.unboundedSlot: true allows that)",
            ),
            SlotObstacle::Synchronous(names) => {
                write!(f, "commits would wait for it: synchronous_standby_names is {names}")
            }
            SlotObstacle::Active => f.write_str("another process reads the slot"),
            SlotObstacle::Recovered => f.write_str("the server was not shut down cleanly"),
            SlotObstacle::Slots(count) => write!(f, "all of the max_replication_slots {count} are in use"),
            SlotObstacle::Senders(count) => write!(f, "all of the max_wal_senders {count} are in use"),
            SlotObstacle::Pooled => f.write_str("a pooler is between, which cannot replicate"),
            SlotObstacle::Failed(why) => f.write_str(why),
            SlotObstacle::Table { table, why } => write!(f, "{table}: {why}"),
        }
    }
}
