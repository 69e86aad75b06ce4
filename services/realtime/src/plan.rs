//! Plan of a watch: what is read of which table, and by which columns its rows are told apart.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    auth::RuleRelations,
    realtime::{Row, WatchRequest},
};
use query::{Field, FieldKind, GrantTerms, Node, Read, Schema, Shape, Table, TableKind, read_accesses};

use crate::{Error, image::Image, table_id::TableId};

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
    /// The columns that the caller may read, where others are hidden.
    pub readable: Option<Vec<String>>,
}

impl Told {
    /// What is told of a row, and of the row as it was before.
    pub fn row(&self, image: &Image, before: Option<&Image>, committed_ms: i64) -> Row {
        let before = before.map(|before| before.object(&self.before, |_| true)).unwrap_or_default();
        Row { row: image.object(&self.fields, |_| true), before, key: self.key(image), committed_ms }
    }

    /// What is told of a row that is gone, which was seen as `image`.
    pub fn gone(&self, image: &Image, committed_ms: i64) -> Row {
        let is_key = |name: &str| self.key.iter().any(|field| field.key == name);
        let before = image.object(&self.before, |_| true);
        Row { row: image.object(&self.fields, is_key), before, key: self.key(image), committed_ms }
    }

    /// Whether a row has another key, as far as the caller may read it.
    pub fn is_moved(&self, before: &Image, after: &Image) -> bool {
        self.key.iter().any(|field| before.column(&field.key) != after.column(&field.key))
    }

    /// Whether a change concerns columns that are hidden from the caller alone.
    pub fn is_hidden(&self, before: &Image, after: &Image) -> bool {
        let is_same = |name: &String| before.column(name) == after.column(name);
        self.readable.as_ref().is_some_and(|readable| readable.iter().all(is_same))
    }

    /// The columns of the key, as far as the caller may read them.
    pub fn key(&self, image: &Image) -> Bytes {
        image.object(&self.key, |_| true)
    }
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
        let readable: Vec<String> =
            table.columns.iter().map(|column| &column.name).filter(|name| may_read(name)).cloned().collect();
        let has_hidden = readable.len() < table.columns.iter().filter(|column| column.readable).count();
        Ok(Told { fields, before, key, readable: has_hidden.then_some(readable) })
    }

    /// The table, as feeds know it.
    pub fn table_id(&self) -> TableId {
        self.other(None, &self.request.read.table)
    }

    /// Other tables on which it depends which rows are told: those of relations in the condition, and those that rules look at
    /// by `relations`. Each with whether the caller named it.
    pub fn other_tables(&self, relations: &[RuleRelations]) -> Result<Vec<(TableId, bool)>, Error> {
        let mut others = Vec::new();
        for (index, access) in read_accesses(&self.schema, &self.request.read)?.into_iter().enumerate() {
            let table = (access.database, access.table);
            others.push((self.other(table.0, table.1), true));
            let paths = relations.iter().filter(|one| one.access == index).flat_map(|one| one.paths.iter());
            let looked_at = paths.flat_map(|path| self.schema.tables_along(table, path));
            others.extend(looked_at.map(|(database, name)| (self.other(database, name), false)));
        }
        let own = self.table_id();
        others.retain(|(table, _)| *table != own);
        // Those that the caller named come first of equal ones.
        others.sort_by(|one, other| (&one.0, !one.1).cmp(&(&other.0, !other.1)));
        others.dedup_by(|one, other| one.0 == other.0);
        Ok(others)
    }

    fn other(&self, database: Option<&str>, table: &str) -> TableId {
        let database = database.unwrap_or(&self.request.read.database);
        TableId { project: self.request.project.clone(), database: database.into(), table: table.into() }
    }

    /// Whether a row of the table has these columns.
    pub fn has_columns(&self, names: &[String]) -> bool {
        self.table().is_ok_and(|table| has_columns(table, names))
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

/// Whether rows of a table have these columns.
pub fn has_columns(table: &Table, names: &[String]) -> bool {
    let readable = || table.columns.iter().filter(|column| column.readable);
    readable().count() == names.len() && readable().all(|column| names.contains(&column.name))
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

/// The columns that tell a row from all others.
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
    match table.identity() {
        Some(columns) => Ok(columns.to_vec()),
        None => refused("it has no primary key, and no unique key whose columns are not null"),
    }
}

#[cfg(test)]
mod tests;
