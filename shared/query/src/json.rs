//! From JSON-like values to the model: the grammar of REST, gRPC `Struct`s and GraphQL arguments.

mod condition;
mod name;
mod selection;
mod write;

use crate::{Budget, Change, Column, Document, Error, Filter, Node, Schema, Sort, Table, Value};

/// How operators are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `$gt`, as REST writes them.
    Dollar,
    /// `_gt`, as GraphQL writes them; `$gt` is accepted too, since variables bring it. Where a column has such a name,
    /// the column is meant. `__` in a key may stand for a dot.
    Underscore,
}

/// Parses conditions, selections and changes against a schema.
#[derive(Debug, Clone, Copy)]
pub struct Parser<'a> {
    /// The database's schema.
    pub schema: &'a Schema,
    /// How operators are spelled.
    pub spelling: Spelling,
}

/// `options` of a REST read, and the arguments of a relation: `select`, `sort`, `skip`, `limit`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// A list of names, an object of `name: 1`, or a tree; absent: all columns.
    pub select: Option<Value>,
    /// A list of `name`/`-name`, one such text, or an object of `name: 1 | -1`.
    pub sort: Option<Value>,
    /// Rows left out.
    pub skip: Option<Value>,
    /// At most this many rows.
    pub limit: Option<Value>,
}

impl Parser<'_> {
    /// A condition on rows of `table`. Relations go by name (to one: a condition; to many: `some`, `none`, `every`).
    /// `Null` and an absent condition are true.
    ///
    /// A condition without any requirement is [`Filter::TRUE`] itself, however it is written: `{}`, `{"$and": []}`,
    /// `{"a": {"$nin": []}}`.
    pub fn filter(&self, table: &Table, find: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        self.condition(table, find, budget)
    }

    /// The condition that `column` has `value`, as `{"column": value}` is.
    pub fn equals(column: &Column, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        condition::equals(column, value, budget)
    }

    /// The node that reads `table` as `select`, `sort`, `skip` and `limit` say, of shape many and without a filter.
    /// Relations in a select tree may have `select`, `find` (or `where`), `sort`, `skip` and `limit`.
    pub fn node(&self, table: &Table, options: &Options, budget: &mut Budget) -> Result<Node, Error> {
        self.selection(table, options, budget)
    }

    /// Sort keys.
    pub fn sort(&self, table: &Table, sort: &Value) -> Result<Vec<Sort>, Error> {
        self.order(table, sort)
    }

    /// Changes out of `{"$set": {…}, "$inc": {…}}`: two changes of one column, unknown operators and unknown or
    /// generated columns are errors. In [`Spelling::Underscore`] the operators may stand bare: `{set: {…}, inc: {…}}`.
    pub fn changes(&self, table: &Table, update: &Value, budget: &mut Budget) -> Result<Vec<Change>, Error> {
        self.changes_of(table, update, budget)
    }

    /// Documents of an insert: an object or a list of objects, whose members are columns that can be written and whose
    /// values fit them.
    pub fn docs(&self, table: &Table, docs: &Value, budget: &mut Budget) -> Result<Vec<Document>, Error> {
        self.docs_of(table, docs, budget)
    }
}

#[cfg(test)]
mod tests;
