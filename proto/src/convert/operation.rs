//! Reads, mutations and grants.

use query::{
    Change, Columns, Error, Field, FieldKind, GrantTerms, Mutation, MutationKind, Node, Operation, Read, Shape, Sort,
};
use wire::change::Operation as ChangeKind;
use wire::{field, mutation};

use super::{
    all, each,
    filter::{absent, present},
    member, members, required,
};
use crate::wire::{auth::v1 as auth, query::v1 as wire};

members!(Operation, wire::Operation, "operation", { Create, Read, Update, Delete });
members!(Shape, wire::Shape, "node.shape", { Many, One, Count, Aggregate });

impl From<Read> for wire::Read {
    fn from(read: Read) -> Self {
        Self { database: (*read.database).into(), table: (*read.table).into(), node: Some(read.node.into()) }
    }
}

impl TryFrom<wire::Read> for Read {
    type Error = Error;

    fn try_from(read: wire::Read) -> Result<Self, Error> {
        let node = required(read.node, "read.node")?.try_into()?;
        Ok(Self { database: read.database.into(), table: read.table.into(), node })
    }
}

impl From<Node> for wire::Node {
    fn from(node: Node) -> Self {
        Self {
            shape: wire::Shape::from(node.shape).into(),
            fields: node.fields.iter().cloned().map(wire::Field::from).collect(),
            filter: absent(node.filter),
            sort: each(node.sort),
            skip: node.skip,
            limit: node.limit,
        }
    }
}

impl TryFrom<wire::Node> for Node {
    type Error = Error;

    fn try_from(node: wire::Node) -> Result<Self, Error> {
        Ok(Self {
            shape: member::<wire::Shape, _>(node.shape, "node.shape")?,
            fields: all::<_, Field>(node.fields)?.into(),
            filter: present(node.filter)?,
            sort: each(node.sort),
            skip: node.skip,
            limit: node.limit,
        })
    }
}

impl From<Field> for wire::Field {
    fn from(field: Field) -> Self {
        let kind = match field.kind {
            FieldKind::Column(name) => field::Kind::Column(name),
            FieldKind::Columns => field::Kind::Columns(true),
            FieldKind::Constant(text) => field::Kind::Constant(text),
            FieldKind::Relation { name, node } => {
                field::Kind::Relation(wire::Relation { name, node: Some(node.into()) })
            }
            FieldKind::Count => field::Kind::Count(true),
        };
        Self { key: field.key, kind: Some(kind) }
    }
}

impl TryFrom<wire::Field> for Field {
    type Error = Error;

    fn try_from(field: wire::Field) -> Result<Self, Error> {
        let kind = match required(field.kind, "field.kind")? {
            field::Kind::Column(name) => FieldKind::Column(name),
            field::Kind::Columns(_) => FieldKind::Columns,
            field::Kind::Constant(text) => FieldKind::Constant(text),
            field::Kind::Relation(relation) => {
                FieldKind::Relation { name: relation.name, node: required(relation.node, "relation.node")?.try_into()? }
            }
            field::Kind::Count(_) => FieldKind::Count,
        };
        Ok(Self { key: field.key, kind })
    }
}

impl From<Sort> for wire::Sort {
    fn from(sort: Sort) -> Self {
        Self { column: sort.column, descending: sort.descending }
    }
}

impl From<wire::Sort> for Sort {
    fn from(sort: wire::Sort) -> Self {
        Self { column: sort.column, descending: sort.descending }
    }
}

impl From<Mutation> for wire::Mutation {
    fn from(mutation: Mutation) -> Self {
        let kind = match mutation.kind {
            MutationKind::Insert { docs } => {
                mutation::Kind::Insert(wire::Insert { docs: docs.iter().cloned().map(Into::into).collect() })
            }
            MutationKind::Update { filter, changes, one } => {
                mutation::Kind::Update(wire::Update { filter: absent(filter), changes: each(changes), one })
            }
            MutationKind::Delete { filter, one } => {
                mutation::Kind::Delete(wire::Delete { filter: absent(filter), one })
            }
        };
        Self { table: mutation.table, kind: Some(kind), returning: mutation.returning.map(Node::into) }
    }
}

impl TryFrom<wire::Mutation> for Mutation {
    type Error = Error;

    fn try_from(mutation: wire::Mutation) -> Result<Self, Error> {
        let kind = match required(mutation.kind, "mutation.kind")? {
            mutation::Kind::Insert(insert) => {
                MutationKind::Insert { docs: all::<_, query::Document>(insert.docs)?.into() }
            }
            mutation::Kind::Update(update) => {
                MutationKind::Update { filter: present(update.filter)?, changes: all(update.changes)?, one: update.one }
            }
            mutation::Kind::Delete(delete) => MutationKind::Delete { filter: present(delete.filter)?, one: delete.one },
        };
        let returning = mutation.returning.map(Node::try_from).transpose()?;
        Ok(Self { table: mutation.table, kind, returning })
    }
}

impl From<Change> for wire::Change {
    fn from(change: Change) -> Self {
        let (column, operation) = match change {
            Change::Set { column, value } => (column, ChangeKind::Set(value.into())),
            Change::Inc { column, by } => (column, ChangeKind::Inc(by.into())),
        };
        Self { column, operation: Some(operation) }
    }
}

impl TryFrom<wire::Change> for Change {
    type Error = Error;

    fn try_from(change: wire::Change) -> Result<Self, Error> {
        let column = change.column;
        Ok(match required(change.operation, "change.operation")? {
            ChangeKind::Set(value) => Change::Set { column, value: value.try_into()? },
            ChangeKind::Inc(by) => Change::Inc { column, by: by.try_into()? },
        })
    }
}

impl From<GrantTerms> for auth::Grant {
    fn from(grant: GrantTerms) -> Self {
        Self {
            project: grant.project,
            database: grant.database,
            table: grant.table,
            operation: wire::Operation::from(grant.operation).into(),
            filter: absent(grant.filter),
            check: absent(grant.check),
            columns: Some(Columns::clone(&grant.columns).into()),
            allow_all: grant.allow_all,
            expires_ms: grant.expires_ms,
        }
    }
}

impl TryFrom<auth::Grant> for GrantTerms {
    type Error = Error;

    fn try_from(grant: auth::Grant) -> Result<Self, Error> {
        Ok(Self {
            project: grant.project,
            database: grant.database,
            table: grant.table,
            operation: member::<wire::Operation, _>(grant.operation, "operation")?,
            filter: present(grant.filter)?,
            check: present(grant.check)?,
            columns: std::sync::Arc::new(required(grant.columns, "grant.columns")?.into()),
            allow_all: grant.allow_all,
            expires_ms: grant.expires_ms,
        })
    }
}

impl From<Columns> for auth::Columns {
    fn from(columns: Columns) -> Self {
        let set = |names: Option<Vec<String>>| names.map(|names| auth::ColumnSet { names });
        let deny = (!columns.deny.is_empty()).then_some(columns.deny);
        Self { read: set(columns.read), filter: set(columns.filter), write: set(columns.write), deny: set(deny) }
    }
}

impl From<auth::Columns> for Columns {
    fn from(columns: auth::Columns) -> Self {
        let names = |set: Option<auth::ColumnSet>| set.map(|set| set.names);
        Self {
            read: names(columns.read),
            filter: names(columns.filter),
            write: names(columns.write),
            deny: names(columns.deny).unwrap_or_default(),
        }
    }
}
