//! Table accesses of an operation, in the order in which grants are asked for and consumed.

use std::sync::Arc;

use crate::{
    Change, Document, Error, Field, FieldKind, Filter, Mutation, MutationKind, Node, Operation, Read, Schema, Shape,
    Table,
};

/// Access to one table at one place of an operation, with the parts of the request that its rule may read.
#[derive(Debug, Clone, PartialEq)]
pub struct TableAccess<'a> {
    /// The id of the table's database where that is a neighbour; `None`: that of the operation.
    pub database: Option<&'a str>,
    /// The table's name.
    pub table: &'a str,
    /// The operation on it.
    pub operation: Operation,
    /// The client's condition on this table at this place; `None` where it gave none.
    pub find: Option<&'a Filter>,
    /// Documents of a create.
    pub docs: Option<&'a Arc<[Document]>>,
    /// Changes of an update.
    pub changes: &'a [Change],
    /// The `op` of the client: `all`, `one`, `count`.
    pub op: &'static str,
    /// The client's limit.
    pub limit: Option<u64>,
    /// The client's skip.
    pub skip: u64,
}

/// Nesting of messages that the wire carries: prost decodes a hundred levels, and a request wraps an operation in a
/// few. No request within its limits reaches it (`Limits::NESTING`).
const MAX_NESTING: usize = 90;

/// Tables a read accesses: each node, then the tables of its filter in the order of its relations, then the nodes of its
/// relations. A condition on a relation counts as a read of all rows that its inner condition finds.
///
/// Errors: `UNKNOWN_TABLE`, `UNKNOWN_RELATION`; `TOO_COMPLEX` where the tree is nested deeper than the wire carries.
pub fn read_accesses<'a>(schema: &'a Schema, read: &'a Read) -> Result<Vec<TableAccess<'a>>, Error> {
    let mut accesses = Vec::new();
    visit_read_accesses(schema, read, |access| accesses.push(access))?;
    Ok(accesses)
}

/// As [`read_accesses`], one after the other; on an error, some of them may have been visited.
pub fn visit_read_accesses<'a>(
    schema: &'a Schema,
    read: &'a Read,
    visit: impl FnMut(TableAccess<'a>),
) -> Result<(), Error> {
    Walk { schema, visit }.node(schema.table(&read.table)?, &read.node, 0)
}

/// Tables a mutation accesses: its own with its own operation, then the tables of its filter to read, then those of its
/// returning as for a read (its own table first).
///
/// Errors: as for [`read_accesses`].
pub fn mutation_accesses<'a>(schema: &'a Schema, mutation: &'a Mutation) -> Result<Vec<TableAccess<'a>>, Error> {
    let mut accesses = Vec::new();
    visit_mutation_accesses(schema, mutation, |access| accesses.push(access))?;
    Ok(accesses)
}

/// As [`mutation_accesses`], one after the other; on an error, some of them may have been visited.
pub fn visit_mutation_accesses<'a>(
    schema: &'a Schema,
    mutation: &'a Mutation,
    visit: impl FnMut(TableAccess<'a>),
) -> Result<(), Error> {
    let mut walk = Walk { schema, visit };
    let table = schema.table(&mutation.table)?;
    walk.mutation(table, &mutation.kind)?;
    match &mutation.returning {
        Some(node) => walk.node(table, node, 0),
        None => Ok(()),
    }
}

/// The walk of one operation. `level` counts the messages around the one that a visit is about.
struct Walk<'a, V> {
    schema: &'a Schema,
    visit: V,
}

impl<'a, V: FnMut(TableAccess<'a>)> Walk<'a, V> {
    fn node(&mut self, table: &'a Table, node: &'a Node, level: usize) -> Result<(), Error> {
        check_level(level)?;
        let op = match node.shape {
            Shape::Many => "all",
            Shape::One => "one",
            Shape::Count | Shape::Aggregate => "count",
        };
        let find = unless_true(&node.filter);
        (self.visit)(TableAccess { find, op, limit: node.limit, skip: node.skip, ..access(table, Operation::Read) });
        self.filter(table, &node.filter, level + 1)?;
        for Field { kind, .. } in node.fields.iter() {
            match kind {
                FieldKind::Relation { name, node } => self.node(self.far(table, name)?, node, level + 3)?,
                FieldKind::Column(_) | FieldKind::Columns | FieldKind::Constant(_) | FieldKind::Count => {}
            }
        }
        Ok(())
    }

    fn filter(&mut self, table: &'a Table, filter: &'a Filter, level: usize) -> Result<(), Error> {
        check_level(level)?;
        match filter {
            Filter::And(filters) | Filter::Or(filters) => {
                filters.iter().try_for_each(|filter| self.filter(table, filter, level + 2))
            }
            Filter::Not(filter) => self.filter(table, filter, level + 1),
            Filter::Related { relation, filter, .. } => {
                let far = self.far(table, relation)?;
                (self.visit)(TableAccess { find: unless_true(filter), ..access(far, Operation::Read) });
                self.filter(far, filter, level + 2)
            }
            Filter::Compare { .. } | Filter::In { .. } | Filter::IsNull { .. } => Ok(()),
        }
    }

    fn mutation(&mut self, table: &'a Table, kind: &'a MutationKind) -> Result<(), Error> {
        let own = access(table, kind.operation());
        match kind {
            MutationKind::Insert { docs } => {
                (self.visit)(TableAccess { docs: Some(docs), op: op_name(docs.len() == 1), ..own });
                Ok(())
            }
            MutationKind::Update { filter, changes, one } => {
                (self.visit)(TableAccess { find: unless_true(filter), changes, op: op_name(*one), ..own });
                self.filter(table, filter, 2)
            }
            MutationKind::Delete { filter, one } => {
                (self.visit)(TableAccess { find: unless_true(filter), op: op_name(*one), ..own });
                self.filter(table, filter, 2)
            }
        }
    }

    /// The table that the relation called `name` leads to.
    fn far(&self, table: &Table, name: &str) -> Result<&'a Table, Error> {
        self.schema.target(table.relation(name)?)
    }
}

fn access(table: &Table, operation: Operation) -> TableAccess<'_> {
    TableAccess {
        database: table.database.as_deref(),
        table: &table.name,
        operation,
        find: None,
        docs: None,
        changes: &[],
        op: "all",
        limit: None,
        skip: 0,
    }
}

fn unless_true(filter: &Filter) -> Option<&Filter> {
    (!filter.is_true()).then_some(filter)
}

fn op_name(one: bool) -> &'static str {
    if one { "one" } else { "all" }
}

fn check_level(level: usize) -> Result<(), Error> {
    if level > MAX_NESTING {
        return Err(Error::TooComplex { what: "depth", seen: level, limit: MAX_NESTING });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
