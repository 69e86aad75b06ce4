//! Resolution of keys to columns, relations and operators.

use crate::error::truncated;
use crate::{Column, Error, Parser, Relation, Spelling, Table, Value, nearest};

/// The target of a key in a condition or selection of a table.
pub enum Name<'a> {
    Column(&'a Column),
    Relation(&'a Relation),
}

impl Parser<'_> {
    /// The operator that `key` spells, if it is one of `known`.
    ///
    /// A column that has the name of an operator in GraphQL's spelling is a column.
    pub(super) fn operator<'k>(&self, table: &Table, key: &str, known: &[&'k str]) -> Option<&'k str> {
        if self.spelling == Spelling::Underscore && column(table, key).is_some() {
            return None;
        }
        let bare = self.bare(key)?;
        known.iter().find(|known| **known == bare).copied()
    }

    /// `key` without the prefix of an operator.
    pub(super) fn bare<'k>(&self, key: &'k str) -> Option<&'k str> {
        match self.spelling {
            Spelling::Dollar => key.strip_prefix('$'),
            Spelling::Underscore => key.strip_prefix(['$', '_']),
        }
    }

    /// `operator` as clients spell it.
    pub(super) fn spelled(&self, operator: &str) -> String {
        match self.spelling {
            Spelling::Dollar => format!("${operator}"),
            Spelling::Underscore => format!("_{operator}"),
        }
    }

    /// The error of an unknown operator, with the nearest of `known`.
    pub(super) fn unknown_operator(&self, key: &str, known: &[&str]) -> Error {
        let key = truncated(key);
        let nearest = nearest(key.trim_start_matches(['$', '_']), known.iter().copied());
        let nearest = nearest.map(|operator| self.spelled(&operator));
        Error::UnknownOperator { operator: key, nearest }
    }

    /// What `key` names in `table`: a column, a relation, or `table.column`.
    pub(super) fn name<'t>(&self, table: &'t Table, key: &str) -> Result<Name<'t>, Error> {
        if let Some(column) = column(table, key) {
            return Ok(Name::Column(column));
        }
        if let Some(relation) = table.find_relation(key) {
            return Ok(Name::Relation(relation));
        }
        if let Some(column) = self.qualified(table, key) {
            return Ok(Name::Column(column));
        }
        let relations = table.relations.iter().map(|relation| relation.name.as_str());
        Err(unknown(table, key, columns(table).chain(relations)))
    }

    /// The column that `key` names in `table`, by its name or as `table.column`.
    pub(super) fn column<'t>(&self, table: &'t Table, key: &str) -> Result<&'t Column, Error> {
        self.known(table, key).ok_or_else(|| unknown(table, key, columns(table)))
    }

    /// The column as [`Parser::column`] finds it, without an error: the nearest name takes long to find.
    pub(super) fn known<'t>(&self, table: &'t Table, key: &str) -> Option<&'t Column> {
        column(table, key).or_else(|| self.qualified(table, key))
    }

    /// The column that `table.column` names; in GraphQL, whose names have no dots, `table__column`.
    fn qualified<'t>(&self, table: &'t Table, key: &str) -> Option<&'t Column> {
        let rest = key.strip_prefix(table.name.as_str())?;
        let name = match self.spelling {
            Spelling::Dollar => rest.strip_prefix('.')?,
            Spelling::Underscore => rest.strip_prefix('.').or_else(|| rest.strip_prefix("__"))?,
        };
        column(table, name)
    }
}

/// `value` is not of the type that `name` takes.
pub fn wrong_type(name: impl Into<String>, expected: impl Into<String>, value: &Value) -> Error {
    Error::WrongType { name: name.into(), expected: expected.into(), found: value.kind().to_owned() }
}

fn column<'t>(table: &'t Table, name: &str) -> Option<&'t Column> {
    table.columns.iter().find(|column| column.name == name)
}

fn columns(table: &Table) -> impl Iterator<Item = &str> {
    table.columns.iter().map(|column| column.name.as_str())
}

fn unknown<'t>(table: &'t Table, key: &str, known: impl Iterator<Item = &'t str>) -> Error {
    let key = truncated(key);
    let nearest = nearest(&key, known);
    Error::UnknownColumn { table: table.name.clone(), column: key, nearest }
}
