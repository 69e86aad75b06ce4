//! Inputs of the schema: conditions, orders, documents, changes.

use query::{Column, Comparisons};

use super::{Condition, InputDefinition, PublishedSchema, TableType, TypeKey, TypeRef, type_of, type_where};
use crate::graphql::{introspection::reach::AllowedColumns, names};

impl<'a> PublishedSchema<'a> {
    /// The conditions of an operation: those of reads where they are on the same columns, else `own`.
    pub(super) fn filter_type(&self, table: usize, allowed: &AllowedColumns, own: TableType) -> TableType {
        if self.reach.table(table).filters_as_read(allowed) { TableType::Filter } else { own }
    }

    /// `AlbumFilter`; `itself` is the type of these conditions.
    pub(super) fn filter(
        &self,
        table: usize,
        itself: TableType,
        allowed: Option<&AllowedColumns>,
    ) -> Vec<InputDefinition<'a>> {
        let Some(allowed) = allowed else { return Vec::new() };
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let mut filter = Vec::new();
        for (index, column) in stored.columns.iter().enumerate().filter(|(index, _)| allowed.filter[*index]) {
            let condition = TypeRef::of(TypeKey::Condition(Condition::of(column)));
            filter.push(InputDefinition::new(&names.columns[index], condition));
        }
        for (name, field, to) in self.relations(table) {
            let names::Field::Relation(index, _) = field else { continue };
            if self.reach.table(to).read.is_none() {
                continue;
            }
            let condition = if stored.relations[index].many { TableType::ManyFilter } else { TableType::Filter };
            filter.push(InputDefinition::new(name, TypeRef::of_table(to, condition)));
        }
        let one = TypeRef::of_table(table, itself);
        let all = one.required().list();
        for (operator, r#type) in [("_and", all), ("_or", all), ("_not", one)] {
            // A column of this name is the column.
            if !names.fields.contains_key(operator) {
                filter.push(InputDefinition::new(operator, r#type));
            }
        }
        filter
    }

    /// `AlbumManyFilter`
    pub(super) fn many_filter(&self, table: usize) -> Vec<InputDefinition<'a>> {
        let condition = TypeRef::of_table(table, TableType::Filter);
        ["_some", "_none", "_every"].map(|quantifier| InputDefinition::new(quantifier, condition)).into()
    }

    /// Values of `AlbumSort`. One that is the name of a column too means that column, so it is left out.
    pub(super) fn sort_values(&self, table: usize) -> impl Iterator<Item = String> {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let allowed = self.reach.table(table).read.as_ref();
        let columns = stored.columns.iter().enumerate();
        let sorted = columns.filter(move |(index, column)| {
            allowed.is_some_and(|allowed| allowed.filter[*index]) && column.comparisons() == Comparisons::All
        });
        let values = sorted.flat_map(|(index, _)| ["asc", "desc"].map(|way| format!("{}_{way}", names.columns[index])));
        let is_column = |value: &String| {
            matches!(names.fields.get(value), Some(names::Field::Column(_)))
                || stored.columns.iter().any(|column| column.name == *value)
        };
        values.filter(move |value| !is_column(value))
    }

    /// Columns that an insert may have; `None` where the caller can never insert: one that has to be given may not be.
    pub(super) fn insert_columns(&self, table: usize) -> Option<Vec<usize>> {
        self.reach.table(table).insert_columns(self.names.stored(table))
    }

    /// `AlbumInsert`
    pub(super) fn insert(&self, table: usize) -> Vec<InputDefinition<'a>> {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let inputs = self.insert_columns(table).into_iter().flatten().map(|index| {
            let column = &stored.columns[index];
            InputDefinition::new(&names.columns[index], type_where(column, stored.requires(column)))
        });
        inputs.collect()
    }

    /// Columns that an update may change; `None` where the caller can never update.
    pub(super) fn set_columns(&self, table: usize) -> Option<Vec<usize>> {
        self.reach.table(table).update_columns(self.names.stored(table))
    }

    /// `AlbumSet`, or `AlbumInc`: changes of some of the columns that an update may change.
    pub(super) fn changes(&self, table: usize, can_change: fn(&Column) -> bool) -> Vec<InputDefinition<'a>> {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let columns = self.set_columns(table).into_iter().flatten();
        let changed = columns.filter(|index| can_change(&stored.columns[*index]));
        changed.map(|index| InputDefinition::new(&names.columns[index], type_of(&stored.columns[index]))).collect()
    }
}
