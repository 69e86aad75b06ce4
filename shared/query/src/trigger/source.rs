//! What a trigger makes events of: changes of rows, times, and custom events.

use std::fmt;

use serde::Deserialize;

use crate::event;

/// What a trigger makes events of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "SourceKeys")]
#[cfg_attr(feature = "json-schema", schemars(with = "SourceKeys"))]
pub enum TriggerSource {
    /// Changes of the rows of a table.
    Rows(RowChanges),
    /// Times.
    Schedule(Schedule),
    /// Custom events of a type, or dead letters of another trigger.
    Event(String),
}

impl TriggerSource {
    /// The changes of rows, where it is those.
    pub fn rows(&self) -> Option<&RowChanges> {
        match self {
            TriggerSource::Rows(changes) => Some(changes),
            TriggerSource::Schedule(_) | TriggerSource::Event(_) => None,
        }
    }
}

/// Times at which an event is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Again and again.
    Cron {
        /// Five fields, or six with seconds first.
        cron: String,
        /// A name of the IANA database; absent: UTC.
        time_zone: Option<String>,
    },
    /// Once.
    Once {
        /// A date and a time, with an offset or in the time zone.
        at: String,
        /// A name of the IANA database; absent: UTC.
        time_zone: Option<String>,
    },
}

impl fmt::Display for Schedule {
    /// Another text for each schedule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text, time_zone) = match self {
            Schedule::Cron { cron, time_zone } => ("cron", cron, time_zone),
            Schedule::Once { at, time_zone } => ("at", at, time_zone),
        };
        write!(f, "{kind} {text} {}", time_zone.as_deref().unwrap_or("UTC"))
    }
}

/// `on` of a trigger as it is written.
#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SourceKeys {
    /// The database's id.
    #[serde(default)]
    database: Option<String>,
    /// The table's name.
    #[serde(default)]
    table: Option<String>,
    /// Which changes; absent: all.
    #[serde(default)]
    operations: Option<Vec<RowOperation>>,
    /// What the row has to be after the change, as `find` of REST says it; a row that was deleted is none.
    #[serde(default)]
    r#where: Option<serde_json::Value>,
    /// What the row has to have been before the change; one that was inserted was none.
    #[serde(default)]
    before: Option<serde_json::Value>,
    /// Of updates only those that change one of these columns; none: all.
    #[serde(default)]
    columns: Vec<String>,
    /// A type of custom events; `dlq_ID`: the dead letters of trigger ID.
    #[serde(default)]
    event: Option<String>,
    /// Times as cron has them: five fields, or six with seconds first.
    #[serde(default)]
    schedule: Option<String>,
    /// One time, with an offset or in the time zone: 2026-12-24T18:00:00+01:00.
    #[serde(default)]
    at: Option<String>,
    /// The time zone of a schedule, such as Europe/Berlin; absent: UTC.
    #[serde(default)]
    time_zone: Option<String>,
}

impl TryFrom<SourceKeys> for TriggerSource {
    type Error = String;

    fn try_from(keys: SourceKeys) -> Result<Self, String> {
        let SourceKeys { database, table, operations, r#where, before, columns, event, schedule, at, time_zone } = keys;
        let of_rows = [
            ("operations", operations.is_some()),
            ("where", r#where.is_some()),
            ("before", before.is_some()),
            ("columns", !columns.is_empty()),
        ];
        let of_times = ("timeZone", time_zone.is_some());
        let (source, others, what) = match (database, table, event, schedule, at) {
            (Some(database), Some(table), None, None, None) => {
                let changes = RowChanges { database, table, operations, r#where, before, columns };
                (Self::Rows(changes), vec![of_times], "changes of rows")
            }
            (None, None, Some(name), None, None) => {
                event::check_name(&name)?;
                if event::is_built_in(&name) {
                    let expected = "expected database and table, or schedule, or at";
                    return Err(format!("event type {name} is built in: {expected}"));
                }
                (Self::Event(name), [of_rows.as_slice(), &[of_times]].concat(), "custom events")
            }
            (None, None, None, Some(cron), None) => {
                (Self::Schedule(Schedule::Cron { cron, time_zone }), of_rows.to_vec(), "a schedule")
            }
            (None, None, None, None, Some(at)) => {
                (Self::Schedule(Schedule::Once { at, time_zone }), of_rows.to_vec(), "a schedule")
            }
            _ => return Err("expected either database and table, or event, or schedule, or at".to_owned()),
        };
        match others.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(format!("{key} does not apply to {what}")),
            None => Ok(source),
        }
    }
}

/// Changes of the rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChanges {
    /// The database's id.
    pub database: String,
    /// The table's name.
    pub table: String,
    /// Which changes; absent: all.
    pub operations: Option<Vec<RowOperation>>,
    /// What the row has to be after the change, as `find` of REST says it; a row that was deleted is none.
    pub r#where: Option<serde_json::Value>,
    /// What the row has to have been before the change; one that was inserted was none.
    pub before: Option<serde_json::Value>,
    /// Of updates only those that change one of these columns; none: all.
    pub columns: Vec<String>,
}

impl RowChanges {
    /// Whether changes of this kind become events.
    pub fn has(&self, operation: RowOperation) -> bool {
        self.operations.as_ref().is_none_or(|operations| operations.contains(&operation))
    }

    /// What cannot be meant: the path in `spec`, and the text.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let RowChanges { operations, r#where, before, columns, .. } = self;
        let only = |operation| operations.as_deref() == Some(&[operation]);
        let mut faults = Vec::new();
        let mut say = |path, text: &str| faults.push((path, text.to_owned()));
        if operations.as_ref().is_some_and(Vec::is_empty) {
            say("on.operations", "expected at least one of insert, update and delete");
        }
        for (path, condition) in [("on.where", r#where), ("on.before", before)] {
            if condition.as_ref().is_some_and(|condition| !condition.is_object()) {
                say(path, "expected a condition, such as {status: paid}");
            }
        }
        if r#where.is_some() && only(RowOperation::Delete) {
            say("on.where", "not allowed with deletions alone, which leave no row; use before");
        }
        if before.is_some() && only(RowOperation::Insert) {
            say("on.before", "not allowed with insertions alone, before which there is no row; use where");
        }
        if !columns.is_empty() && !self.has(RowOperation::Update) {
            say("on.columns", "not allowed without updates");
        }
        faults
    }
}

/// A kind of change of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RowOperation {
    /// It was inserted.
    Insert,
    /// It was updated.
    Update,
    /// It was deleted.
    Delete,
}

impl RowOperation {
    /// The type of its events.
    pub fn event_type(self) -> &'static str {
        match self {
            RowOperation::Insert => "DB_INSERT",
            RowOperation::Update => "DB_UPDATE",
            RowOperation::Delete => "DB_DELETE",
        }
    }
}
