//! Objects of the schema: roots, rows, results of mutations.

use query::{Comparisons, Operation};

use super::{
    EnumValueDefinition, FieldDefinition, InputDefinition, NOTHING, PublishedSchema, Scalar, TableType, TypeKey,
    TypeRef, type_where,
};
use crate::graphql::names::{self, RootField, RootKind};

impl<'a> PublishedSchema<'a> {
    /// `Query`
    pub(super) fn query(&self) -> Vec<FieldDefinition<'a>> {
        let roots = self.names.roots().into_iter().filter(|(_, root)| root.kind != RootKind::Changes);
        let mut fields: Vec<_> = roots.filter_map(|(name, root)| self.query_field(name, root)).collect();
        if fields.is_empty() {
            let mut nothing = FieldDefinition::new(NOTHING, TypeRef::of_scalar(Scalar::Boolean));
            nothing.description = Some("Always null: the rules let this caller read nothing.");
            fields.push(nothing);
        }
        fields
    }

    /// `Subscription`: the fields of `Query` whose tables tell of their changes, and those that tell each; empty where there
    /// is nothing in it.
    pub(super) fn subscription(&self) -> Vec<FieldDefinition<'a>> {
        let roots = self.names.roots().into_iter().filter(|(_, root)| self.names.is_live(root.table));
        roots.filter_map(|(name, root)| self.query_field(name, root)).collect()
    }

    fn query_field(&self, name: &'a str, root: RootField) -> Option<FieldDefinition<'a>> {
        let table = root.table;
        let names = self.names.table(table);
        let reach = self.reach.table(table);
        let allowed = reach.read.as_ref()?;
        match root.kind {
            RootKind::Rows if reach.has_rows() => Some(self.rows_field(name, table)),
            RootKind::ByKey if reach.has_rows() => {
                let mut field = FieldDefinition::new(name, TypeRef::of_table(table, TableType::Rows));
                let stored = self.names.stored(table);
                for key in &stored.primary_key {
                    let index = stored.columns.iter().position(|column| column.name == *key)?;
                    let column = &stored.columns[index];
                    if !allowed.filter[index] || column.comparisons() == Comparisons::None {
                        return None;
                    }
                    field.arguments.push(InputDefinition::new(&names.columns[index], type_where(column, true)));
                }
                Some(field)
            }
            RootKind::Changes if reach.has_rows() => Some(self.changes_field(name, table)),
            RootKind::Rows | RootKind::ByKey | RootKind::Changes => None,
            RootKind::Aggregate => Some(self.aggregate_field(name, table)),
        }
    }

    /// Rows of a table, with `where`, `sort`, `skip` and `limit`.
    fn rows_field(&self, name: &'a str, table: usize) -> FieldDefinition<'a> {
        let rows = TypeRef::of_table(table, TableType::Rows);
        let mut field = FieldDefinition::new(name, rows.required().list().required());
        field.arguments.push(where_argument(table));
        if self.sort_values(table).next().is_some() {
            let orders = TypeRef::of_table(table, TableType::Sort).required().list();
            field.arguments.push(InputDefinition::new("sort", orders));
        }
        let number = TypeRef::of_scalar(Scalar::Int);
        field.arguments.extend(["skip", "limit"].map(|name| InputDefinition::new(name, number)));
        field
    }

    /// Changes of the rows of a table, one by one.
    fn changes_field(&self, name: &'a str, table: usize) -> FieldDefinition<'a> {
        let changes = TypeRef::of_table(table, TableType::Change).required();
        let mut initial = InputDefinition::new("initial", TypeRef::of_scalar(Scalar::Boolean));
        initial.description = Some("Whether the rows that there are at the beginning are told.");
        initial.default = Some("true".to_owned());
        let mut after = InputDefinition::new("after", TypeRef::of_scalar(Scalar::String));
        after.description = Some("The position of the last message that was taken, to go on after it.");
        FieldDefinition {
            description: Some("One message for each change of a row."),
            arguments: vec![where_argument(table), initial, after],
            ..FieldDefinition::new(name, changes)
        }
    }

    /// `AlbumChange`
    pub(super) fn change(&self, table: usize) -> Vec<FieldDefinition<'a>> {
        let (row, text) = (TypeRef::of_table(table, TableType::ChangedRow), TypeRef::of_scalar(Scalar::String));
        [
            ("type", TypeRef::of(TypeKey::ChangeType).required(), "What it tells."),
            ("row", row, "The row; of a DELETE its key."),
            ("before", row, "The row as it was, where it was visible before an UPDATE or a DELETE."),
            ("reason", text, "Why changes may be missing, of a RESYNC."),
            ("position", text.required(), "Where a later subscription goes on after this message."),
        ]
        .map(|(name, r#type, description)| FieldDefinition {
            description: Some(description),
            ..FieldDefinition::new(name, r#type)
        })
        .into()
    }

    /// `AlbumRow`: the columns of `Album`, each of which may be null.
    pub(super) fn changed_row(&self, table: usize) -> Vec<FieldDefinition<'a>> {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let allowed = self.reach.table(table).read.as_ref();
        let columns = stored.columns.iter().enumerate();
        let readable = columns.filter(|(index, _)| allowed.is_some_and(|allowed| allowed.read[*index]));
        readable.map(|(index, column)| FieldDefinition::new(&names.columns[index], type_where(column, false))).collect()
    }

    /// Rows of a table, counted.
    fn aggregate_field(&self, name: &'a str, table: usize) -> FieldDefinition<'a> {
        let counts = TypeRef::of_table(table, TableType::Aggregate);
        let mut field = FieldDefinition::new(name, counts.required().list().required());
        field.arguments.push(where_argument(table));
        field
    }

    /// `Mutation`; empty where there is nothing in it.
    pub(super) fn mutation(&self) -> Vec<FieldDefinition<'a>> {
        let tables = self.names.roots().into_iter().filter(|(_, root)| root.kind == RootKind::Rows);
        let mut fields = Vec::new();
        for (name, RootField { table, .. }) in tables {
            let operations =
                [("insert", Operation::Create), ("update", Operation::Update), ("delete", Operation::Delete)];
            for (verb, operation) in operations {
                let Some(arguments) = self.mutation_arguments(table, operation) else { continue };
                let r#type = TypeRef::of_table(table, TableType::Payload);
                fields.push(FieldDefinition { arguments, ..FieldDefinition::new(format!("{verb}_{name}"), r#type) });
            }
        }
        fields
    }

    /// Arguments of a mutation; `None` where the caller can never do it.
    fn mutation_arguments(&self, table: usize, operation: Operation) -> Option<Vec<InputDefinition<'a>>> {
        let reach = self.reach.table(table);
        let rows = InputDefinition::new("op", TypeRef::of(TypeKey::MutatedRows));
        let condition = |filter: TableType| InputDefinition::new("where", TypeRef::of_table(table, filter).required());
        match operation {
            Operation::Read => None,
            Operation::Create => {
                self.insert_columns(table)?;
                let docs = TypeRef::of_table(table, TableType::Insert).required().list().required();
                Some(vec![InputDefinition::new("docs", docs)])
            }
            Operation::Update => {
                let set = self.set_columns(table)?;
                let filter = self.filter_type(table, reach.update.as_ref()?, TableType::UpdateFilter);
                let changes = |name, r#type| InputDefinition::new(name, TypeRef::of_table(table, r#type));
                let mut arguments = vec![condition(filter), rows, changes("set", TableType::Set)];
                if set.iter().any(|column| self.names.stored(table).columns[*column].r#type.is_number()) {
                    arguments.push(changes("inc", TableType::Inc));
                }
                Some(arguments)
            }
            Operation::Delete => {
                let filter = self.filter_type(table, reach.delete.as_ref()?, TableType::DeleteFilter);
                Some(vec![condition(filter), rows])
            }
        }
    }

    /// `Album`
    pub(super) fn rows(&self, table: usize) -> Vec<FieldDefinition<'a>> {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let allowed = self.reach.table(table).read.as_ref();
        let mut fields = Vec::new();
        for (index, column) in stored.columns.iter().enumerate() {
            if !allowed.is_some_and(|allowed| allowed.read[index]) {
                continue;
            }
            let r#type = type_where(column, !column.nullable);
            let description = (!column.native.is_empty()).then_some(column.native.as_str());
            fields.push(FieldDefinition { description, ..FieldDefinition::new(&names.columns[index], r#type) });
        }
        for (name, field, to) in self.relations(table) {
            fields.extend(self.relation_field(table, name, field, to));
        }
        fields
    }

    fn relation_field(
        &self,
        table: usize,
        name: &'a str,
        field: names::Field,
        to: usize,
    ) -> Option<FieldDefinition<'a>> {
        let reach = self.reach.table(to);
        reach.read.as_ref()?;
        match field {
            names::Field::Column(_) => None,
            names::Field::Relation(index, _) if self.names.stored(table).relations[index].many => {
                reach.has_rows().then(|| self.rows_field(name, to))
            }
            // The row may be hidden even where the foreign key is not null.
            names::Field::Relation(..) => {
                reach.has_rows().then(|| FieldDefinition::new(name, TypeRef::of_table(to, TableType::Rows)))
            }
            names::Field::Aggregate(..) => Some(self.aggregate_field(name, to)),
        }
    }

    /// `AlbumMutation`
    pub(super) fn payload(&self, table: usize) -> Vec<FieldDefinition<'a>> {
        let number = TypeRef::of_scalar(Scalar::Int).required();
        let mut fields = vec![
            FieldDefinition::new("status", number),
            FieldDefinition::new("error", TypeRef::of_scalar(Scalar::String)),
            FieldDefinition::new("affected", number),
        ];
        // What is returned is read.
        if self.reach.table(table).has_rows() {
            let rows = TypeRef::of_table(table, TableType::Rows).required().list().required();
            fields.push(FieldDefinition::new("returning", rows));
        }
        fields
    }
}

/// Values of `ChangeType`.
pub(super) fn change_types<'a>() -> Vec<EnumValueDefinition<'a>> {
    [
        ("INITIAL", "A row that there is at the beginning."),
        ("READY", "All rows that there are have been told."),
        ("INSERT", "A new row."),
        ("UPDATE", "A row that changed, or one that is visible now."),
        ("DELETE", "A row that is gone, or visible no longer."),
        ("RESYNC", "Changes may be missing: all rows follow as INITIAL, then READY."),
    ]
    .map(|(name, description)| EnumValueDefinition { description: Some(description), ..EnumValueDefinition::new(name) })
    .into()
}

fn where_argument<'a>(table: usize) -> InputDefinition<'a> {
    InputDefinition::new("where", TypeRef::of_table(table, TableType::Filter))
}
