//! Plan of a watch: what is read of which table, and by which columns its rows are told apart.

use std::sync::Arc;

use proto::realtime::WatchRequest;
use query::{Field, FieldKind, GrantTerms, Node, Read, Schema, Shape, Table, TableKind};

use crate::Error;

/// Rows that a read of all rows may have: it is bounded by the bytes of its answer.
const ROWS_MAX: u64 = u32::MAX as u64;

/// A watch, checked against the schema of its database.
pub struct Plan {
    /// What the caller asked for.
    pub request: WatchRequest,
    /// The schema it was planned for.
    pub schema: Arc<Schema>,
    /// Columns of the key.
    pub key: Vec<String>,
}

/// What is told of a row, for a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Of the row: columns and constants.
    pub fields: Vec<Field>,
    /// Of the row as it was: columns and constants.
    pub before: Vec<Field>,
    /// Columns of the key that the caller may read.
    pub key: Vec<Field>,
}

impl Plan {
    /// The plan of a request.
    ///
    /// Errors: `BAD_REQUEST` for what cannot be watched, with the reason.
    pub fn of(request: WatchRequest, schema: Arc<Schema>) -> Result<Self, Error> {
        check_node(&request.read.node)?;
        check_fields(request.read.node.fields.iter().chain(&request.before))?;
        let key = key(schema.table(&request.read.table)?)?;
        Ok(Self { request, schema, key })
    }

    /// The table.
    pub fn table(&self) -> Result<&Table, Error> {
        Ok(self.schema.table(&self.request.read.table)?)
    }

    /// What a caller with a grant of these terms is told.
    pub fn told(&self, terms: &GrantTerms) -> Result<Told, Error> {
        let table = self.table()?;
        let may_read = |name: &str| {
            terms.columns.allow(&terms.columns.read, name) && table.column(name).is_ok_and(|column| column.readable)
        };
        let columns = |fields: &[Field]| -> Vec<Field> {
            let mut told = Vec::with_capacity(fields.len());
            for field in fields {
                match field.kind {
                    FieldKind::Columns => {
                        let names = table.columns.iter().map(|column| column.name.as_str());
                        told.extend(names.filter(|name| may_read(name)).map(Field::column));
                    }
                    _ => told.push(field.clone()),
                }
            }
            told
        };
        let fields = columns(&self.request.read.node.fields);
        let before = match self.request.before.as_slice() {
            [] => fields.clone(),
            before => columns(before),
        };
        let key = self.key.iter().filter(|name| may_read(name)).map(|name| Field::column(name)).collect();
        Ok(Told { fields, before, key })
    }

    /// The read of all columns that are told, of the rows that there are.
    pub fn snapshot(&self, told: &Told) -> Read {
        let mut names: Vec<&str> = Vec::new();
        for field in told.fields.iter().chain(&told.before).chain(&told.key) {
            if let FieldKind::Column(name) = &field.kind
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        let fields: Vec<Field> = names.into_iter().map(Field::column).collect();
        let node = Node { fields: fields.into(), limit: Some(ROWS_MAX), ..self.request.read.node.clone() };
        Read { node, ..self.request.read.clone() }
    }
}

fn check_node(node: &Node) -> Result<(), Error> {
    let refused = |what: &str| Err(Error::Refused(format!("invalid watch: {what} is not allowed")));
    match node {
        Node { shape: Shape::One | Shape::Count | Shape::Aggregate, .. } => refused("a shape other than rows"),
        Node { sort, .. } if !sort.is_empty() => refused("sort"),
        Node { skip: 1.., .. } => refused("skip"),
        Node { limit: Some(_), .. } => refused("limit"),
        Node { .. } => Ok(()),
    }
}

fn check_fields<'f>(mut fields: impl Iterator<Item = &'f Field>) -> Result<(), Error> {
    let is_allowed = |field: &Field| match field.kind {
        FieldKind::Column(_) | FieldKind::Columns | FieldKind::Constant(_) => true,
        FieldKind::Relation { .. } | FieldKind::Count => false,
    };
    match fields.find(|field| !is_allowed(field)) {
        Some(field) => Err(Error::Refused(format!("invalid watch: {} is not a column", field.key))),
        None => Ok(()),
    }
}

/// The columns that tell a row from all others: the primary key, else the shortest unique key without nulls.
fn key(table: &Table) -> Result<Vec<String>, Error> {
    let refused = |why: &str| Err(Error::Refused(format!("changes of {} cannot be watched: {why}", table.name)));
    match table.kind {
        TableKind::View => return refused("it is a view"),
        TableKind::Virtual => return refused("it is a virtual table"),
        TableKind::Table => {}
    }
    if table.has_children {
        return refused("other tables inherit from it, for whose rows its key does not hold");
    }
    let is_certain = |columns: &[String]| {
        columns.iter().all(|name| table.column(name).is_ok_and(|column| column.readable && !column.nullable))
    };
    if !table.primary_key.is_empty() && table.row_id.is_empty() {
        return Ok(table.primary_key.clone());
    }
    let certain = table.unique_keys.iter().filter(|columns| is_certain(columns));
    match certain.min_by_key(|columns| columns.len()) {
        Some(columns) => Ok(columns.clone()),
        None => refused("it has no primary key, and no unique key whose columns are not null"),
    }
}

#[cfg(test)]
mod tests;
