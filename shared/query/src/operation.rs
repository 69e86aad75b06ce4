//! Reads and mutations.

use std::sync::{Arc, LazyLock};

use crate::{Filter, Typed};

/// An operation on a table, as rules know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Insert rows.
    Create,
    /// Read rows, or learn anything about them.
    Read,
    /// Change rows.
    Update,
    /// Delete rows.
    Delete,
}

impl Operation {
    /// `create`, `read`, `update`, `delete`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Read => "read",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

/// A tree of rows out of one database, starting at one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The database's id in the project.
    pub database: Arc<str>,
    /// The table's name in the database.
    pub table: Arc<str>,
    /// What is read.
    pub node: Node,
}

/// A node of the tree: a read of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// JSON form of the node.
    pub shape: Shape,
    /// Members of each row, in the order in which they are written.
    pub fields: Arc<[Field]>,
    /// Condition on the rows; [`Filter::TRUE`] for all.
    pub filter: Filter,
    /// Order of the rows; the primary key makes it total.
    pub sort: Vec<Sort>,
    /// Rows left out at the beginning (of each parent, in a relation).
    pub skip: u64,
    /// At most this many rows (for each parent, in a relation); `None` means the database's limit at the root, and none
    /// in a relation.
    pub limit: Option<u64>,
}

/// JSON form of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// An array of rows.
    Many,
    /// The first row, or null.
    One,
    /// The number of rows, as a number; the node has no fields, sort, skip or limit.
    Count,
    /// An array of one row of aggregates.
    Aggregate,
}

/// A member of a row in the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The member's name in the answer.
    pub key: String,
    /// Source of the value.
    pub kind: FieldKind,
}

/// Kind of a selected field: where the value of the member comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    /// A column, by its name in the database.
    Column(String),
    /// All columns, each under its own name, as the table has them when it is read; the field has no key.
    Columns,
    /// A text that is the same for each row, such as a type name.
    Constant(String),
    /// The rows that a relation leads to.
    Relation {
        /// The relation's name in the schema.
        name: String,
        /// What is read of them.
        node: Node,
    },
    /// The number of rows, in a node of shape [`Shape::Aggregate`].
    Count,
}

/// One key of an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sort {
    /// The column's name.
    pub column: String,
    /// Greatest first.
    pub descending: bool,
}

/// Mutations of one database in their order: all of them or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The database's id in the project.
    pub database: String,
    /// In the order in which they happen.
    pub mutations: Vec<Mutation>,
}

/// A change to one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The table's name in the database.
    pub table: String,
    /// Kind of the mutation, with its arguments.
    pub kind: MutationKind,
    /// What to answer of the rows written, as they are stored after the change (before it, for a delete).
    pub returning: Option<Node>,
}

/// Kind of a mutation.
#[derive(Debug, Clone, PartialEq)]
pub enum MutationKind {
    /// `INSERT` of new rows; columns that a document does not name get their default.
    Insert {
        /// One per row; none inserts nothing.
        docs: Arc<[Document]>,
    },
    /// `UPDATE` of the rows that pass.
    Update {
        /// Which rows.
        filter: Filter,
        /// At most one per column. None changes nothing.
        changes: Vec<Change>,
        /// At most one row.
        one: bool,
    },
    /// `DELETE` of the rows that pass.
    Delete {
        /// Which rows.
        filter: Filter,
        /// At most one row.
        one: bool,
    },
}

/// A row to insert: names of columns and what they get. No name appears twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document(pub Vec<(String, Typed)>);

/// A change to one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The column becomes the value.
    Set {
        /// The column's name.
        column: String,
        /// What it becomes.
        value: Typed,
    },
    /// The value is added to the column.
    Inc {
        /// The column's name.
        column: String,
        /// A number.
        by: Typed,
    },
}

impl Node {
    /// A node of `shape` without any condition.
    pub fn new(shape: Shape, fields: impl Into<Arc<[Field]>>) -> Self {
        Self { shape, fields: fields.into(), filter: Filter::TRUE, sort: Vec::new(), skip: 0, limit: None }
    }
}

/// The selection of all columns.
static ALL_COLUMNS: LazyLock<Arc<[Field]>> = LazyLock::new(|| Arc::from([Field::columns()]));

impl Field {
    /// The selection of all columns, as the table has them when it is read.
    pub fn all_columns() -> Arc<[Field]> {
        ALL_COLUMNS.clone()
    }

    /// All columns, beside other fields.
    pub fn columns() -> Self {
        Self { key: String::new(), kind: FieldKind::Columns }
    }

    /// The column under its own name.
    pub fn column(name: &str) -> Self {
        Self { key: name.to_owned(), kind: FieldKind::Column(name.to_owned()) }
    }
}

impl Document {
    /// The value of the column called `name`.
    pub fn get(&self, name: &str) -> Option<&Typed> {
        self.0.iter().find(|(column, _)| column == name).map(|(_, value)| value)
    }
}

impl Change {
    /// The column that changes.
    pub fn column(&self) -> &str {
        match self {
            Change::Set { column, .. } | Change::Inc { column, .. } => column,
        }
    }
}

impl MutationKind {
    /// The operation that a rule is asked for.
    pub fn operation(&self) -> Operation {
        match self {
            MutationKind::Insert { .. } => Operation::Create,
            MutationKind::Update { .. } => Operation::Update,
            MutationKind::Delete { .. } => Operation::Delete,
        }
    }
}
