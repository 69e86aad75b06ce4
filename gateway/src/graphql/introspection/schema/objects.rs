//! Objects of the schema: roots, rows, counts, results of mutations.

use async_graphql::dynamic::{InputValue, TypeRef};
use query::{Comparisons, Operation};

use super::{FieldParts, Members, NOTHING, Publisher};
use crate::graphql::names::{self, RootField, RootKind};

impl Publisher<'_> {
    /// `Query`
    pub(super) fn query(&self) -> Members<FieldParts> {
        let mut query = Members::new("Query");
        let roots = self.names.roots().into_iter();
        query.members = roots.filter_map(|(name, root)| self.query_field(name, root)).collect();
        if query.members.is_empty() {
            let mut nothing = FieldParts::new(NOTHING, TypeRef::named(TypeRef::BOOLEAN));
            nothing.description = Some("Always null: the rules let this caller read nothing.".to_owned());
            query.members.push(nothing);
        }
        query
    }

    fn query_field(&self, name: &str, root: RootField) -> Option<FieldParts> {
        let table = root.table;
        let types = self.names.table(table);
        let reach = self.reach.table(table);
        let allowed = reach.read.as_ref()?;
        match root.kind {
            RootKind::Rows if reach.has_rows() => {
                let mut field = FieldParts::new(name, TypeRef::named_nn_list_nn(&types.type_name));
                field.arguments = self.row_arguments(table);
                Some(field)
            }
            RootKind::ByKey if reach.has_rows() => {
                let mut field = FieldParts::new(name, TypeRef::named(&types.type_name));
                let stored = self.names.stored(table);
                for key in &stored.primary_key {
                    let index = stored.columns.iter().position(|column| column.name == *key)?;
                    let column = &stored.columns[index];
                    if !allowed.filter[index] || column.comparisons() == Comparisons::None {
                        return None;
                    }
                    field.arguments.push(InputValue::new(&types.columns[index], self.type_where(column, true)));
                }
                Some(field)
            }
            RootKind::Rows | RootKind::ByKey => None,
            RootKind::Aggregate => {
                let mut field = FieldParts::new(name, TypeRef::named_nn_list_nn(&types.aggregate_type));
                field.arguments = vec![self.where_argument(table)];
                Some(field)
            }
        }
    }

    /// `where`, `sort`, `skip`, `limit`
    fn row_arguments(&self, table: usize) -> Vec<InputValue> {
        let mut arguments = vec![self.where_argument(table)];
        if !self.sort_values(table).is_empty() {
            arguments.push(InputValue::new("sort", TypeRef::named_nn_list(&self.types.table(table).sort)));
        }
        arguments.extend(["skip", "limit"].map(|name| InputValue::new(name, TypeRef::named(TypeRef::INT))));
        arguments
    }

    fn where_argument(&self, table: usize) -> InputValue {
        InputValue::new("where", TypeRef::named(&self.types.table(table).filter))
    }

    /// `Mutation`; `None` where there is nothing in it.
    pub(super) fn mutation(&self) -> Option<Members<FieldParts>> {
        let mut mutation = Members::new("Mutation");
        let tables = self.names.roots().into_iter().filter(|(_, root)| root.kind == RootKind::Rows);
        for (name, RootField { table, .. }) in tables {
            let operations =
                [("insert", Operation::Create), ("update", Operation::Update), ("delete", Operation::Delete)];
            for (verb, operation) in operations {
                let Some(arguments) = self.mutation_arguments(table, operation) else { continue };
                let r#type = TypeRef::named(&self.names.table(table).mutation_type);
                mutation.members.push(FieldParts { arguments, ..FieldParts::new(format!("{verb}_{name}"), r#type) });
            }
        }
        (!mutation.members.is_empty()).then_some(mutation)
    }

    /// Arguments of a mutation; `None` where the caller can never do it.
    fn mutation_arguments(&self, table: usize, operation: Operation) -> Option<Vec<InputValue>> {
        let (reach, types) = (self.reach.table(table), self.types.table(table));
        let rows = InputValue::new("op", TypeRef::named(&self.types.rows));
        let condition = |filter: &str| InputValue::new("where", TypeRef::named_nn(filter));
        match operation {
            Operation::Read => None,
            Operation::Create => {
                self.insert_fields(table)?;
                let docs = TypeRef::NonNull(Box::new(TypeRef::named_nn_list(&types.insert)));
                Some(vec![InputValue::new("docs", docs)])
            }
            Operation::Update => {
                let set = self.set_fields(table)?;
                let filter = self.filter_name(table, reach.update.as_ref()?, &types.update_filter);
                let mut arguments = vec![condition(filter), rows, InputValue::new("set", TypeRef::named(&types.set))];
                if set.iter().any(|column| self.names.stored(table).columns[*column].r#type.is_number()) {
                    arguments.push(InputValue::new("inc", TypeRef::named(&types.inc)));
                }
                Some(arguments)
            }
            Operation::Delete => {
                let filter = self.filter_name(table, reach.delete.as_ref()?, &types.delete_filter);
                Some(vec![condition(filter), rows])
            }
        }
    }

    /// All types of the table at an index.
    pub(super) fn table(&mut self, table: usize) {
        let reach = self.reach.table(table);
        if reach.read.is_some() {
            if reach.has_rows() {
                self.rows(table);
            }
            let mut aggregate = Members::new(&self.names.table(table).aggregate_type);
            aggregate.members.push(FieldParts::new("count", TypeRef::named_nn(TypeRef::INT)));
            self.register_object(aggregate);
        }
        let written = [Operation::Create, Operation::Update, Operation::Delete]
            .map(|operation| self.mutation_arguments(table, operation).is_some());
        if written.contains(&true) {
            self.payload(table);
        }
        self.inputs(table, written);
    }

    /// `Album`
    fn rows(&mut self, table: usize) {
        let (names, stored) = (self.names.table(table), self.names.stored(table));
        let mut object = Members::new(&names.type_name);
        object.description = Some(format!("Rows of {} in {}", stored.name, self.names.database_id(table)));
        let allowed = self.reach.table(table).read.as_ref();
        for (index, column) in stored.columns.iter().enumerate() {
            if !allowed.is_some_and(|allowed| allowed.read[index]) {
                continue;
            }
            let r#type = self.type_where(column, !column.nullable);
            let description = (!column.native.is_empty()).then(|| column.native.clone());
            object.members.push(FieldParts { description, ..FieldParts::new(&names.columns[index], r#type) });
        }
        for (name, field, to) in self.relations(table) {
            object.members.extend(self.relation_field(table, name, field, to));
        }
        self.register_object(object);
    }

    fn relation_field(&self, table: usize, name: &str, field: names::Field, to: usize) -> Option<FieldParts> {
        let (far, reach) = (self.names.table(to), self.reach.table(to));
        reach.read.as_ref()?;
        match field {
            names::Field::Column(_) => None,
            names::Field::Relation(index, _) if self.names.stored(table).relations[index].many => {
                let mut field = FieldParts::new(name, TypeRef::named_nn_list_nn(&far.type_name));
                field.arguments = self.row_arguments(to);
                reach.has_rows().then_some(field)
            }
            // The row may be hidden even where the foreign key is not null.
            names::Field::Relation(..) => {
                reach.has_rows().then(|| FieldParts::new(name, TypeRef::named(&far.type_name)))
            }
            names::Field::Aggregate(..) => {
                let mut field = FieldParts::new(name, TypeRef::named_nn_list_nn(&far.aggregate_type));
                field.arguments = vec![self.where_argument(to)];
                Some(field)
            }
        }
    }

    /// `AlbumMutation`
    fn payload(&mut self, table: usize) {
        let names = self.names.table(table);
        let mut payload = Members::new(&names.mutation_type);
        payload.members = vec![
            FieldParts::new("status", TypeRef::named_nn(TypeRef::INT)),
            FieldParts::new("error", TypeRef::named(TypeRef::STRING)),
            FieldParts::new("affected", TypeRef::named_nn(TypeRef::INT)),
        ];
        // What is returned is read.
        if self.reach.table(table).has_rows() {
            payload.members.push(FieldParts::new("returning", TypeRef::named_nn_list_nn(&names.type_name)));
        }
        self.register_object(payload);
    }
}
