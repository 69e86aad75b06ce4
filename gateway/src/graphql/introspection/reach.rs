//! What a caller can ever do with each table of a project.

use std::collections::HashMap;

use proto::auth::{ReachableResponse, ReachableTable};
use query::{Column, Columns, Operation, Table};

use crate::graphql::names::Names;

/// The table whose rules hold for all that have none of their own.
const DEFAULT: &str = "default";

/// What a caller can ever do.
pub struct Reach {
    tables: Vec<TableReach>,
}

/// What a caller can ever do with a table; `None`: nothing.
#[derive(Debug, Default)]
pub struct TableReach {
    /// Reads.
    pub read: Option<AllowedColumns>,
    /// Inserts.
    pub create: Option<AllowedColumns>,
    /// Updates.
    pub update: Option<AllowedColumns>,
    /// Deletes.
    pub delete: Option<AllowedColumns>,
}

/// Which columns of a table an operation is allowed on, in the order of the table.
#[derive(Debug, PartialEq)]
pub struct AllowedColumns {
    /// They may be read.
    pub read: Vec<bool>,
    /// They may be in conditions and orders.
    pub filter: Vec<bool>,
    /// They may be written.
    pub write: Vec<bool>,
}

impl Reach {
    /// The reach of a caller over the tables of `names`.
    pub fn new(names: &Names, response: &ReachableResponse) -> Self {
        let by_name: HashMap<(&str, &str), &ReachableTable> =
            response.tables.iter().map(|table| ((table.database.as_str(), table.table.as_str()), table)).collect();
        let reach = |index: usize| {
            let (database, stored) = (names.database_id(index), names.stored(index));
            let own = by_name.get(&(database, stored.name.as_str()));
            match own.or_else(|| by_name.get(&(database, DEFAULT))) {
                Some(table) => TableReach::new(stored, table),
                None => TableReach::default(),
            }
        };
        Self { tables: (0..names.tables_count()).map(reach).collect() }
    }

    /// The reach over the table at an index.
    pub fn table(&self, table: usize) -> &TableReach {
        &self.tables[table]
    }
}

impl TableReach {
    fn new(stored: &Table, table: &ReachableTable) -> Self {
        let mut reach = Self::default();
        for (operation, columns) in &table.operations {
            let place = match operation {
                Operation::Read => &mut reach.read,
                Operation::Create => &mut reach.create,
                Operation::Update => &mut reach.update,
                Operation::Delete => &mut reach.delete,
            };
            if stored.check_operation(*operation).is_ok() {
                *place = Some(AllowedColumns::new(stored, columns));
            }
        }
        reach
    }

    /// Columns that an insert may have; `None` where the caller can never insert: one that has to be given may not be.
    pub fn insert_columns(&self, stored: &Table) -> Option<Vec<usize>> {
        let allowed = self.create.as_ref()?;
        let columns = || stored.columns.iter().enumerate().filter(|(_, column)| !column.generated);
        if columns().any(|(index, column)| !allowed.write[index] && stored.requires(column)) {
            return None;
        }
        let given: Vec<usize> = columns().map(|(index, _)| index).filter(|index| allowed.write[*index]).collect();
        (!given.is_empty()).then_some(given)
    }

    /// Columns that an update may change; `None` where the caller can never update.
    pub fn update_columns(&self, stored: &Table) -> Option<Vec<usize>> {
        let allowed = self.update.as_ref()?;
        let columns = stored.columns.iter().enumerate().filter(|(_, column)| !column.generated);
        let changed: Vec<usize> = columns.map(|(index, _)| index).filter(|index| allowed.write[*index]).collect();
        (!changed.is_empty()).then_some(changed)
    }

    /// Whether the conditions of an operation are those of reads: on the same columns.
    pub fn filters_as_read(&self, operation: &AllowedColumns) -> bool {
        self.read.as_ref().is_some_and(|read| read.filter == operation.filter)
    }

    /// Whether rows can be read: at least one of their columns.
    pub fn has_rows(&self) -> bool {
        self.read.as_ref().is_some_and(|allowed| allowed.read.contains(&true))
    }
}

impl AllowedColumns {
    fn new(stored: &Table, columns: &Columns) -> Self {
        let flags = |allowed: &Option<Vec<String>>, is_possible: fn(&Column) -> bool| {
            let is_allowed = |column: &Column| is_possible(column) && columns.allow(allowed, &column.name);
            stored.columns.iter().map(is_allowed).collect()
        };
        Self {
            read: flags(&columns.read, |column| column.readable),
            filter: flags(&columns.filter, |column| column.readable),
            write: flags(&columns.write, |_| true),
        }
    }
}
