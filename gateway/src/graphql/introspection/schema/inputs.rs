//! Inputs of the schema: conditions, orders, documents, changes.

use async_graphql::dynamic::{InputValue, TypeRef};
use query::Comparisons;

use super::{Condition, Members, Publisher};
use crate::graphql::{
    introspection::reach::AllowedColumns,
    names::{self, TableNames},
};

impl Publisher<'_> {
    /// Inputs of the table at an index; `written` says whether there are inserts, updates, deletes.
    pub(super) fn inputs(&mut self, table: usize, written: [bool; 3]) {
        let reach = self.reach.table(table);
        let types = self.types.table(table);
        let filter = types.filter.clone();
        if let Some(allowed) = &reach.read {
            let many = many_filter(&types.many_filter, &filter);
            let sort = types.sort.clone();
            self.register_input(many);
            self.filter(table, &filter, allowed);
            let values = self.sort_values(table);
            if !values.is_empty() {
                self.register_enum(&sort, values);
            }
        }
        let [inserts, updates, deletes] = written;
        if inserts {
            self.insert(table);
        }
        if updates {
            self.changes(table);
        }
        let types = self.types.table(table);
        let (update_filter, delete_filter) = (types.update_filter.clone(), types.delete_filter.clone());
        for (is_written, allowed, own) in
            [(updates, &reach.update, update_filter), (deletes, &reach.delete, delete_filter)]
        {
            let Some(allowed) = allowed.as_ref().filter(|_| is_written) else { continue };
            if self.filter_name(table, allowed, &own) == own {
                self.filter(table, &own, allowed);
            }
        }
    }

    /// The name of the conditions of an operation: those of reads where they are on the same columns, else `own`.
    pub(super) fn filter_name<'n>(&'n self, table: usize, allowed: &AllowedColumns, own: &'n str) -> &'n str {
        match &self.reach.table(table).read {
            Some(read) if read.filter == allowed.filter => &self.types.table(table).filter,
            Some(_) | None => own,
        }
    }

    /// `AlbumFilter`
    fn filter(&mut self, table: usize, name: &str, allowed: &AllowedColumns) {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let mut filter = Members::new(name);
        for (index, column) in stored.columns.iter().enumerate().filter(|(index, _)| allowed.filter[*index]) {
            let condition = self.types.condition(Condition::of(column));
            filter.members.push(InputValue::new(&names.columns[index], TypeRef::named(condition)));
        }
        for (name, field, to) in self.relations(table) {
            let names::Field::Relation(index, _) = field else { continue };
            if self.reach.table(to).read.is_none() {
                continue;
            }
            let far = self.types.table(to);
            let condition = if stored.relations[index].many { &far.many_filter } else { &far.filter };
            filter.members.push(InputValue::new(name, TypeRef::named(condition)));
        }
        for (operator, r#type) in [
            ("_and", TypeRef::named_nn_list(name)),
            ("_or", TypeRef::named_nn_list(name)),
            ("_not", TypeRef::named(name)),
        ] {
            // A column of this name is the column.
            if !names.fields.contains_key(operator) {
                filter.members.push(InputValue::new(operator, r#type));
            }
        }
        self.register_input(filter);
    }

    /// Values of `AlbumSort`. One that is the name of a column too means that column, so it is left out.
    pub(super) fn sort_values(&self, table: usize) -> Vec<String> {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let Some(allowed) = &self.reach.table(table).read else { return Vec::new() };
        let columns = stored.columns.iter().enumerate();
        let sorted =
            columns.filter(|(index, column)| allowed.filter[*index] && column.comparisons() == Comparisons::All);
        let values = sorted.flat_map(|(index, _)| ["asc", "desc"].map(|way| format!("{}_{way}", names.columns[index])));
        let is_column = |value: &String| {
            matches!(names.fields.get(value), Some(names::Field::Column(_)))
                || stored.columns.iter().any(|column| column.name == *value)
        };
        values.filter(|value| !is_column(value)).collect()
    }

    /// Columns that an insert may have; `None` where the caller can never insert: one that has to be given may not be.
    pub(super) fn insert_fields(&self, table: usize) -> Option<Vec<usize>> {
        let allowed = self.reach.table(table).create.as_ref()?;
        let mut fields = Vec::new();
        let stored = self.names.stored(table);
        for (index, column) in stored.columns.iter().enumerate() {
            if column.generated {
                continue;
            }
            match (allowed.write[index], stored.requires(column)) {
                (true, _) => fields.push(index),
                (false, true) => return None,
                (false, false) => {}
            }
        }
        (!fields.is_empty()).then_some(fields)
    }

    /// `AlbumInsert`
    fn insert(&mut self, table: usize) {
        let Some(fields) = self.insert_fields(table) else { return };
        let mut insert = Members::new(&self.types.table(table).insert);
        for index in fields {
            let stored = self.names.stored(table);
            let column = &stored.columns[index];
            let r#type = self.type_where(column, stored.requires(column));
            insert.members.push(InputValue::new(&self.names.table(table).columns[index], r#type));
        }
        self.register_input(insert);
    }

    /// Columns that an update may change; `None` where the caller can never update.
    pub(super) fn set_fields(&self, table: usize) -> Option<Vec<usize>> {
        let allowed = self.reach.table(table).update.as_ref()?;
        let columns = self.names.stored(table).columns.iter().enumerate();
        let fields = columns.filter(|(index, column)| allowed.write[*index] && !column.generated);
        let fields: Vec<usize> = fields.map(|(index, _)| index).collect();
        (!fields.is_empty()).then_some(fields)
    }

    /// `AlbumSet` and `AlbumInc`
    fn changes(&mut self, table: usize) {
        let Some(fields) = self.set_fields(table) else { return };
        let types = self.types.table(table);
        let (mut set, mut inc) = (Members::new(&types.set), Members::new(&types.inc));
        let names: &TableNames = self.names.table(table);
        for index in fields {
            let column = &self.names.stored(table).columns[index];
            let member = || InputValue::new(&names.columns[index], self.type_of(column));
            set.members.push(member());
            if column.r#type.is_number() {
                inc.members.push(member());
            }
        }
        self.register_input(set);
        if !inc.members.is_empty() {
            self.register_input(inc);
        }
    }
}

/// `AlbumManyFilter`
fn many_filter(name: &str, filter: &str) -> Members<InputValue> {
    let mut many = Members::new(name);
    many.members =
        ["_some", "_none", "_every"].map(|quantifier| InputValue::new(quantifier, TypeRef::named(filter))).into();
    many
}
