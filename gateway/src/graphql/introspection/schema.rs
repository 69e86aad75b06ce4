//! The published schema, described out of the catalogue: what execution accepts of the typed roots, as far as the
//! caller's rules reach.
//!
//! No type is kept: the members of one are listed when they are asked for. The types of a thousand tables would take
//! many megabytes.

mod definition;
mod inputs;
mod objects;
mod specification;

use std::{borrow::Cow, collections::HashSet};

use query::{Column, Comparisons};

use super::{
    reach::Reach,
    type_names::{Condition, Scalar, TypeNames},
};
use crate::graphql::names::{self, Names};

pub use self::{
    definition::{
        DirectiveDefinition, EnumValueDefinition, FieldDefinition, InputDefinition, Members, TableType, TypeKey,
        TypeKind, TypeRef, Wrapper,
    },
    specification::{directives, introspection_type},
};

/// The field of `Query` where the caller can read nothing: a type has at least one field. It is always null.
pub const NOTHING: &str = "_none";

/// The schema of what a caller reaches.
pub struct PublishedSchema<'a> {
    names: &'a Names,
    reach: &'a Reach,
    types: &'a TypeNames,
    /// Whether the caller can change anything.
    has_mutations: bool,
    /// Whether the caller can follow anything.
    has_subscriptions: bool,
}

impl<'a> PublishedSchema<'a> {
    /// The schema of what `reach` has of `names`, with types called as in `types`.
    pub fn new(names: &'a Names, reach: &'a Reach, types: &'a TypeNames) -> Self {
        let mut schema = Self { names, reach, types, has_mutations: false, has_subscriptions: false };
        schema.has_mutations = !schema.mutation().is_empty();
        schema.has_subscriptions = !schema.subscription().is_empty();
        schema
    }

    /// The type of mutations, where there are any.
    pub fn mutation_type(&self) -> Option<TypeKey> {
        self.has_mutations.then_some(TypeKey::Mutation)
    }

    /// The type of subscriptions, where there are any.
    pub fn subscription_type(&self) -> Option<TypeKey> {
        self.has_subscriptions.then_some(TypeKey::Subscription)
    }

    /// Types that fields, arguments and directives lead to, ordered by their names.
    pub fn reachable_types(&self) -> Vec<TypeKey> {
        let mut reached = HashSet::new();
        let own = [Some(TypeKey::Query), self.mutation_type(), self.subscription_type()];
        let roots = own.into_iter().chain([Some(introspection_type("__Schema"))]);
        let mut open: Vec<TypeKey> = roots.flatten().collect();
        let arguments = directives().flat_map(|directive| directive.arguments);
        open.extend(arguments.map(|argument| argument.r#type.named));
        while let Some(key) = open.pop() {
            if !reached.insert(key) {
                continue;
            }
            match self.members(key) {
                Members::Fields(fields) => {
                    for field in fields {
                        open.push(field.r#type.named);
                        open.extend(field.arguments.iter().map(|argument| argument.r#type.named));
                    }
                }
                Members::Inputs(inputs) => open.extend(inputs.iter().map(|input| input.r#type.named)),
                Members::Scalar | Members::Values(_) => {}
            }
        }
        let mut types: Vec<TypeKey> = reached.into_iter().collect();
        types.sort_unstable_by_key(|key| self.name(*key));
        types
    }

    /// The name of a type.
    pub fn name(&self, key: TypeKey) -> &'a str {
        match key {
            TypeKey::Query => "Query",
            TypeKey::Mutation => "Mutation",
            TypeKey::Subscription => "Subscription",
            TypeKey::Scalar(scalar) => &self.types.scalar(scalar).name,
            TypeKey::Condition(condition) => self.types.condition(condition),
            TypeKey::MutatedRows => &self.types.rows,
            TypeKey::ChangeType => &self.types.change,
            TypeKey::OfTable(table, r#type) => self.table_type_name(table, r#type),
            TypeKey::Introspection(index) => specification::name(index),
        }
    }

    fn table_type_name(&self, table: usize, r#type: TableType) -> &'a str {
        let (names, types) = (self.names.table(table), self.types.table(table));
        match r#type {
            TableType::Rows => &names.type_name,
            TableType::Aggregate => &names.aggregate_type,
            TableType::Payload => &names.mutation_type,
            TableType::Change => &names.change_type,
            TableType::ChangedRow => &names.row_type,
            TableType::Filter => &types.filter,
            TableType::UpdateFilter => &types.update_filter,
            TableType::DeleteFilter => &types.delete_filter,
            TableType::ManyFilter => &types.many_filter,
            TableType::Sort => &types.sort,
            TableType::Insert => &types.insert,
            TableType::Set => &types.set,
            TableType::Inc => &types.inc,
        }
    }

    /// What a type is, in words.
    pub fn description(&self, key: TypeKey) -> Option<Cow<'a, str>> {
        match key {
            TypeKey::Scalar(scalar) => Some(scalar.description().into()),
            TypeKey::OfTable(table, TableType::Rows) => {
                let database = self.names.database_id(table);
                Some(format!("Rows of {} in {database}", self.names.stored(table).name).into())
            }
            TypeKey::Introspection(index) => specification::description(index).map(Cow::from),
            TypeKey::Query
            | TypeKey::Mutation
            | TypeKey::Subscription
            | TypeKey::Condition(_)
            | TypeKey::MutatedRows
            | TypeKey::ChangeType
            | TypeKey::OfTable(..) => None,
        }
    }

    /// The kind of a type.
    pub fn kind(&self, key: TypeKey) -> TypeKind {
        match key {
            TypeKey::Query | TypeKey::Mutation | TypeKey::Subscription => TypeKind::Object,
            TypeKey::Scalar(_) => TypeKind::Scalar,
            TypeKey::Condition(_) => TypeKind::InputObject,
            TypeKey::MutatedRows | TypeKey::ChangeType => TypeKind::Enum,
            TypeKey::OfTable(_, r#type) => match r#type {
                TableType::Rows
                | TableType::Aggregate
                | TableType::Payload
                | TableType::Change
                | TableType::ChangedRow => TypeKind::Object,
                TableType::Sort => TypeKind::Enum,
                TableType::Filter
                | TableType::UpdateFilter
                | TableType::DeleteFilter
                | TableType::ManyFilter
                | TableType::Insert
                | TableType::Set
                | TableType::Inc => TypeKind::InputObject,
            },
            TypeKey::Introspection(index) => specification::kind(index),
        }
    }

    /// What a type consists of.
    pub fn members(&self, key: TypeKey) -> Members<'a> {
        match key {
            TypeKey::Query => Members::Fields(self.query()),
            TypeKey::Mutation => Members::Fields(self.mutation()),
            TypeKey::Subscription => Members::Fields(self.subscription()),
            TypeKey::Scalar(_) => Members::Scalar,
            TypeKey::Condition(condition) => Members::Inputs(self.condition(condition)),
            TypeKey::MutatedRows => Members::Values(["all", "one"].map(EnumValueDefinition::new).into()),
            TypeKey::ChangeType => Members::Values(objects::change_types()),
            TypeKey::OfTable(table, r#type) => self.table_members(table, r#type),
            TypeKey::Introspection(index) => specification::members(index),
        }
    }

    fn table_members(&self, table: usize, r#type: TableType) -> Members<'a> {
        let reach = self.reach.table(table);
        match r#type {
            TableType::Rows => Members::Fields(self.rows(table)),
            TableType::Aggregate => {
                Members::Fields(vec![FieldDefinition::new("count", TypeRef::of_scalar(Scalar::Int).required())])
            }
            TableType::Payload => Members::Fields(self.payload(table)),
            TableType::Change => Members::Fields(self.change(table)),
            TableType::ChangedRow => Members::Fields(self.changed_row(table)),
            TableType::Filter => Members::Inputs(self.filter(table, r#type, reach.read.as_ref())),
            TableType::UpdateFilter => Members::Inputs(self.filter(table, r#type, reach.update.as_ref())),
            TableType::DeleteFilter => Members::Inputs(self.filter(table, r#type, reach.delete.as_ref())),
            TableType::ManyFilter => Members::Inputs(self.many_filter(table)),
            TableType::Sort => Members::Values(self.sort_values(table).map(EnumValueDefinition::new).collect()),
            TableType::Insert => Members::Inputs(self.insert(table)),
            TableType::Set => Members::Inputs(self.changes(table, |_| true)),
            TableType::Inc => Members::Inputs(self.changes(table, |column| column.r#type.is_number())),
        }
    }

    /// `IntFilter`
    fn condition(&self, condition: Condition) -> Vec<InputDefinition<'a>> {
        let value = value(condition.scalar, condition.is_list);
        let values = value.required().list();
        let (orders, lists): (&[&str], &[&str]) = match condition.comparisons {
            Comparisons::All => (&["_eq", "_ne", "_gt", "_gte", "_lt", "_lte"], &["_in", "_nin"]),
            Comparisons::Equality => (&["_eq", "_ne"], &["_in", "_nin"]),
            Comparisons::None => (&[], &[]),
        };
        let mut inputs = Vec::with_capacity(10);
        inputs.extend(orders.iter().map(|operator| InputDefinition::new(operator, value)));
        inputs.extend(lists.iter().map(|operator| InputDefinition::new(operator, values)));
        inputs.push(InputDefinition::new("_isNull", TypeRef::of_scalar(Scalar::Boolean)));
        inputs.push(InputDefinition::new("_not", TypeRef::of(TypeKey::Condition(condition))));
        inputs
    }

    /// Relations of a table and counts of them, in their order, each with its name and the table that it leads to.
    fn relations(&self, table: usize) -> Vec<(&'a str, names::Field, usize)> {
        let fields = self.names.table(table).fields.iter();
        let mut relations: Vec<_> = fields
            .filter_map(|(name, field)| match field {
                names::Field::Column(_) => None,
                names::Field::Relation(index, to) => Some(((*index, false), (name.as_str(), *field, *to))),
                names::Field::Aggregate(index, to) => Some(((*index, true), (name.as_str(), *field, *to))),
            })
            .collect();
        relations.sort_unstable_by_key(|(place, _)| *place);
        relations.into_iter().map(|(_, relation)| relation).collect()
    }
}

/// The type of a column's values, which may be null.
fn type_of(column: &Column) -> TypeRef {
    value(Scalar::of(column.r#type), Condition::of(column).is_list)
}

/// As [`type_of`], without null where `is_required`.
fn type_where(column: &Column, is_required: bool) -> TypeRef {
    let r#type = type_of(column);
    if is_required { r#type.required() } else { r#type }
}

/// A scalar, or a list of it, among whose values may be nulls.
fn value(scalar: Scalar, is_list: bool) -> TypeRef {
    let r#type = TypeRef::of_scalar(scalar);
    if is_list { r#type.list() } else { r#type }
}

#[cfg(test)]
mod tests;
