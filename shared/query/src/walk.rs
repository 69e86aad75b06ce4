//! Which tables an operation touches, in the order in which grants are asked for and consumed.

use crate::{Error, Filter, Mutation, Object, Operation, Read, Schema};

/// One table touched at one place of an operation, with what its rule may look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Touch<'a> {
    /// The table's name.
    pub table: &'a str,
    /// What is done to it.
    pub operation: Operation,
    /// The client's condition on this table at this place; `None` where it gave none.
    pub find: Option<&'a Filter>,
    /// Documents of a create.
    pub docs: &'a [Object],
    /// Changes of an update.
    pub changes: &'a [crate::Change],
    /// What the client calls it: `all`, `one`, `count`.
    pub op: &'static str,
    /// The client's limit.
    pub limit: Option<u64>,
    /// The client's skip.
    pub skip: u64,
}

/// Tables a read touches: each node, then the tables of its filter in the order of its relations, then the nodes of its
/// relations.
pub fn read_touches<'a>(_schema: &'a Schema, _read: &'a Read) -> Result<Vec<Touch<'a>>, Error> {
    todo!()
}

/// Tables a mutation touches: its own with its own operation, then the tables of its filter to read, then those of its
/// returning as for a read (its own table first).
pub fn mutation_touches<'a>(_schema: &'a Schema, _mutation: &'a Mutation) -> Result<Vec<Touch<'a>>, Error> {
    todo!()
}
