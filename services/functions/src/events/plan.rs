//! Plan of a table: its triggers against its schema, by which changes of its rows become events.

use std::sync::Arc;

use mesh::{Call, Code, Fault, Mesh};
use proto::{
    Links,
    crud::{Change, DescribeRequest, Operation},
};
use query::{
    Budget, Filter, Guard, Limits, Parser, Row, Schema, Spelling, Table, Value,
    trigger::{Ordered, RowChanges, RowOperation, Trigger},
};

use super::{
    cloud_event::RowEvent,
    followup::BUDGET,
    queue::{FollowedTable, NewEvent, TakenPosition, TriggerKey},
    registry::Triggers,
    row::RowImage,
};
use crate::health::PartHealth;

/// Guard of conditions: documents of operators are small.
const CONDITION: Guard = Guard::new(64, 100_000);

/// The triggers of a table, for its schema at a moment.
pub struct TablePlan {
    table: FollowedTable,
    schema: Arc<Schema>,
    key: Vec<String>,
    triggers: Vec<PlannedTrigger>,
    /// What it was planned from.
    planned_from: Arc<Triggers>,
}

/// A trigger with its conditions.
struct PlannedTrigger {
    key: TriggerKey,
    spec: Arc<Trigger>,
    on: RowChanges,
    after: Filter,
    before: Filter,
}

/// Where a change stands in the log.
#[derive(Debug, Clone, Copy)]
pub struct ChangePlace {
    /// The transaction's id.
    pub transaction: u64,
    /// Changes of the table in the transaction before it.
    pub index: u64,
    /// When the transaction was committed, in microseconds since 1970.
    pub committed_us: i64,
}

impl TablePlan {
    /// The plan of a table by its schema, which is looked at. A trigger that does not fit it is told on `/ready` and left
    /// out.
    pub async fn of(
        mesh: &Mesh,
        table: &FollowedTable,
        triggers: Arc<Triggers>,
        health: &PartHealth,
    ) -> Result<Self, Fault> {
        let schema = schema(mesh, table).await?;
        let found = schema.table(&table.table)?;
        let mut planned = Vec::new();
        for (key, spec) in triggers.of_table(table) {
            let part = format!("trigger {}/{}", key.project, key.id);
            match PlannedTrigger::of(&schema, found, key, spec) {
                Ok(trigger) => {
                    health.set(&part, None);
                    planned.push(trigger);
                }
                Err(why) => {
                    if health.set(&part, Some(why.clone())) {
                        tracing::error!(part, why, "trigger is left out");
                    }
                }
            }
        }
        let key = key(found).to_vec();
        Ok(Self { table: table.clone(), schema, key, triggers: planned, planned_from: triggers })
    }

    /// Whether it is of these triggers.
    pub fn is_of(&self, triggers: &Arc<Triggers>) -> bool {
        Arc::ptr_eq(&self.planned_from, triggers)
    }

    /// Adds the events of a change; whether the schema has all columns of the row. Errors: it cannot be read.
    pub fn events(&self, change: &Change, place: ChangePlace, events: &mut Vec<NewEvent>) -> Result<bool, Fault> {
        let table = self.schema.table(&self.table.table)?;
        let (before, after) = (RowImage::read(&change.before)?, RowImage::read(&change.after)?);
        let images = || [&before, &after].into_iter().flatten();
        let fits = images().all(|image| image.names().all(|name| table.column(name).is_ok()));
        let operation = match change.operation() {
            Operation::Insert => RowOperation::Insert,
            Operation::Update => RowOperation::Update,
            Operation::Delete => RowOperation::Delete,
            Operation::Unspecified => return Ok(fits),
        };
        let values = [&before, &after].map(|image| image.as_ref().map(RowImage::values));
        let passes = |filter: &Filter, values: &Option<query::Object>| match values {
            _ if filter.is_true() => true,
            Some(columns) => filter.matches(&Row { table, columns, related: &[] }) == Some(true),
            None => false,
        };
        for trigger in &self.triggers {
            let on = &trigger.on;
            let is_wanted = on.has(operation)
                && (operation != RowOperation::Update || is_changed(&on.columns, before.as_ref(), after.as_ref()))
                && passes(&trigger.before, &values[0])
                && passes(&trigger.after, &values[1]);
            if is_wanted {
                events.push(self.event(trigger, operation, place, (before.as_ref(), after.as_ref())));
            }
        }
        Ok(fits)
    }

    fn event(
        &self,
        trigger: &PlannedTrigger,
        operation: RowOperation,
        place: ChangePlace,
        (before, after): (Option<&RowImage<'_>>, Option<&RowImage<'_>>),
    ) -> NewEvent {
        let id = event_id(&self.table, &trigger.key, place);
        let event = RowEvent {
            id: &id,
            r#type: operation.event_type(),
            table: &self.table,
            committed_us: place.committed_us,
            key: &self.key,
            after,
            before,
        };
        let order = match &trigger.spec.ordered {
            Ordered::No => None,
            Ordered::ByRow => Some(event.doc_id().unwrap_or_default()),
            ordered @ Ordered::ByPath(_) => {
                let (row, column) = (after.or(before), ordered.column().unwrap_or_default());
                Some(row.and_then(|row| row.column(column)).unwrap_or("null").to_owned())
            }
        };
        let order_key = order.map(|order| blake3::hash(order.as_bytes()).as_bytes()[..16].to_vec());
        let (r#type, body) = (operation.event_type(), event.message());
        NewEvent {
            trigger: trigger.key.clone(),
            r#type: r#type.into(),
            due_ms: None,
            body,
            order_key,
            id,
            budget: BUDGET,
            is_awaited: false,
        }
    }
}

impl PlannedTrigger {
    /// Errors: why it does not fit the table.
    fn of(schema: &Schema, table: &Table, trigger: TriggerKey, spec: Arc<Trigger>) -> Result<Self, String> {
        let Some(on) = spec.on.rows().cloned() else { return Err("on: expected changes of rows".to_owned()) };
        let filter = |name: &str, condition: &Option<serde_json::Value>| -> Result<Filter, String> {
            let Some(condition) = condition else { return Ok(Filter::TRUE) };
            let wrong = |error: query::Error| format!("on.{name}: {error}");
            let find: Value = proto::json::parse(condition.to_string().as_bytes(), CONDITION).map_err(wrong)?;
            let parser = Parser { schema, spelling: Spelling::Dollar };
            let filter = parser.filter(table, &find, &mut Budget::new(Limits::default())).map_err(wrong)?;
            match filter.undecidable(table) {
                Some(column) => {
                    Err(format!("on.{name}: {column} is not allowed: its values are compared by the database alone"))
                }
                None => Ok(filter),
            }
        };
        let (after, before) = (filter("where", &on.r#where)?, filter("before", &on.before)?);
        for column in on.columns.iter().map(String::as_str).chain(spec.ordered.column()) {
            table.column(column).map_err(|error| error.to_string())?;
        }
        if spec.ordered == Ordered::ByRow && key(table).is_empty() {
            return Err(format!("ordered: table {} has no key", table.name));
        }
        Ok(Self { key: trigger, spec, on, after, before })
    }
}

/// The columns by which a row is named: its identity, or else a primary key that SQLite lets be null. Empty where there is none.
fn key(table: &Table) -> &[String] {
    table.identity().unwrap_or(&table.primary_key)
}

/// Whether an update changed one of the columns; any where there are none.
fn is_changed(columns: &[String], before: Option<&RowImage<'_>>, after: Option<&RowImage<'_>>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    columns.is_empty() || columns.iter().any(|name| before.column(name) != after.column(name))
}

/// The id of the event of a change and a trigger: the same whenever the log is read.
fn event_id(table: &FollowedTable, trigger: &TriggerKey, place: ChangePlace) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&*table.project, &*table.database, &*table.table, &*trigger.id] {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    hasher.update(&place.transaction.to_be_bytes()).update(&place.index.to_be_bytes());
    hasher.update(&place.committed_us.to_be_bytes());
    let hash = hasher.finalize().to_hex();
    format!("evt_{}", &hash[..32])
}

/// The schema of the database of a table, as it is now.
async fn schema(mesh: &Mesh, table: &FollowedTable) -> Result<Arc<Schema>, Fault> {
    let request = DescribeRequest { project: (*table.project).to_owned(), refresh: true, ..DescribeRequest::default() };
    let described = Box::pin(mesh.crud().describe(&Call::begin(None, None, None), request)).await?;
    let found = described.databases.into_iter().find(|database| database.id == *table.database);
    let unavailable = |what: &str| Fault::new(Code::Unavailable, format!("database {} {what}", table.database));
    found.ok_or_else(|| unavailable("is not known"))?.schema.ok_or_else(|| unavailable("cannot be reached"))
}

/// Counts the changes of a table in a transaction that comes in parts.
pub fn index_of(position: &TakenPosition, transaction: u64) -> u64 {
    if position.transaction == transaction { position.changes } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use query::{Column, Matching, Type};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_the_same_id_whenever_it_is_made_and_no_other_has() {
        let of = |names: [&str; 4], transaction, index, committed_us| {
            let [project, database, table, id] = names.map(Arc::from);
            let table = FollowedTable { project: Arc::clone(&project), database, table };
            event_id(&table, &TriggerKey { project, id }, ChangePlace { transaction, index, committed_us })
        };
        let first = of(["p", "d", "t", "a"], 1, 2, 3);
        assert_eq!((first.clone(), first.len()), (of(["p", "d", "t", "a"], 1, 2, 3), 36));
        let others = [
            of(["p", "d", "t", "b"], 1, 2, 3),
            of(["pd", "", "t", "a"], 1, 2, 3),
            of(["p", "d", "ta", ""], 1, 2, 3),
            of(["p", "d", "t", "a"], 2, 2, 3),
            of(["p", "d", "t", "a"], 1, 3, 3),
            of(["p", "d", "t", "a"], 1, 2, 4),
            first,
        ];
        assert_eq!(HashSet::from(others).len(), 7);
    }

    #[test]
    fn a_row_with_a_column_that_is_gone_becomes_an_event_all_the_same() {
        let column = |name: &str| {
            let mut column = Column::new(name, Type::Int64, "bigint");
            column.abilities.matching = Matching::All;
            column
        };
        let note = Table { primary_key: vec!["id".into()], ..Table::new("note", vec![column("id"), column("n")]) };
        let schema = Arc::new(Schema::new(vec![note]));
        let spec = json!({"on": {"database": "d", "table": "note", "where": {"n": 1}}, "to": {"url": "http://a"}});
        let key = TriggerKey { project: "p".into(), id: "a".into() };
        let spec = Arc::new(serde_json::from_value(spec).unwrap());
        let trigger = PlannedTrigger::of(&schema, schema.table("note").unwrap(), key, spec).unwrap();
        let plan = TablePlan {
            table: FollowedTable { project: "p".into(), database: "d".into(), table: "note".into() },
            schema,
            key: vec!["id".into()],
            triggers: vec![trigger],
            planned_from: Arc::default(),
        };
        let place = ChangePlace { transaction: 1, index: 0, committed_us: 0 };
        for (row, fits, count) in [
            (r#"{"id":1,"n":1,"gone":2}"#, false, 1),
            (r#"{"id":1,"n":1}"#, true, 1),
            (r#"{"id":1,"n":2}"#, true, 0),
            (r#"{"id":1}"#, true, 0),
        ] {
            let after = row.as_bytes().to_vec().into();
            let change = Change { operation: Operation::Insert.into(), after, ..Change::default() };
            let mut events = Vec::new();
            assert_eq!(plan.events(&change, place, &mut events).unwrap(), fits, "{row}");
            assert_eq!(events.len(), count, "{row}");
        }
    }

    #[test]
    fn changes_are_counted_over_the_parts_of_a_transaction() {
        let position = TakenPosition { transaction: 7, changes: 3, ..TakenPosition::default() };
        assert_eq!((index_of(&position, 7), index_of(&position, 8)), (3, 0));
    }
}
