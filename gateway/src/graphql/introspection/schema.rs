//! The published schema, built from the catalogue: what execution accepts of the typed roots, as far as the caller's
//! rules reach.

mod inputs;
mod objects;

use std::collections::HashSet;

use async_graphql::dynamic::{
    Enum, Field, FieldFuture, InputObject, InputValue, Object, Scalar as DynamicScalar, Schema, SchemaBuilder,
    Type as DynamicType, TypeRef,
};
use mesh::Fault;
use query::{Column, Comparisons};

use super::{
    reach::Reach,
    type_names::{Condition, Scalar, TypeNames},
};
use crate::graphql::names::{self, Names};

/// The field of `Query` where the caller can read nothing: a type has at least one field. It is always null.
pub const NOTHING: &str = "_none";

/// The schema of what `reach` has of `names`.
pub fn build(names: &Names, reach: &Reach) -> Result<Schema, Fault> {
    let types = TypeNames::new(names);
    let mut publisher = Publisher { names, reach, types, registered: Vec::new() };
    let mutation = publisher.mutation();
    let root = mutation.as_ref().map(|mutation| mutation.name.clone());
    publisher.register_object(publisher.query());
    mutation.into_iter().for_each(|mutation| publisher.register_object(mutation));
    publisher.scalars();
    for table in 0..names.tables_count() {
        publisher.table(table);
    }
    let builder = Schema::build("Query", root.as_deref(), None);
    let schema = publisher.registered.into_iter().fold(builder, SchemaBuilder::register).finish();
    schema.map_err(|error| Fault::internal("the schema could not be built", error))
}

/// Builds the types of a schema.
struct Publisher<'a> {
    names: &'a Names,
    reach: &'a Reach,
    types: TypeNames,
    registered: Vec<DynamicType>,
}

/// Fields of an object or of an input object before they are registered.
struct Members<T> {
    name: String,
    description: Option<String>,
    members: Vec<T>,
}

impl<T> Members<T> {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: None, members: Vec::new() }
    }
}

impl Publisher<'_> {
    fn register(&mut self, r#type: impl Into<DynamicType>) {
        self.registered.push(r#type.into());
    }

    fn register_object(&mut self, parts: Members<FieldParts>) {
        let mut object = Object::new(parts.name);
        if let Some(description) = parts.description {
            object = object.description(description);
        }
        self.register(parts.members.into_iter().map(Field::from).fold(object, Object::field));
    }

    fn register_input(&mut self, parts: Members<InputValue>) {
        self.register(parts.members.into_iter().fold(InputObject::new(parts.name), InputObject::field));
    }

    fn register_enum(&mut self, name: &str, values: Vec<String>) {
        self.register(Enum::new(name).items(values));
    }

    /// The scalars that the specification does not have, and the conditions on columns of every scalar.
    fn scalars(&mut self) {
        for scalar in Scalar::ALL {
            let named = self.types.scalar(scalar).clone();
            if let Some(description) = scalar.description() {
                self.register(DynamicScalar::new(&named.name).description(description));
            }
            self.condition(Condition::on(scalar));
        }
        let tables = (0..self.names.tables_count()).flat_map(|table| &self.names.stored(table).columns);
        let conditions: HashSet<Condition> = tables.map(Condition::of).collect();
        for condition in conditions {
            if condition != Condition::on(condition.scalar) {
                self.condition(condition);
            }
        }
        let rows = self.types.rows.clone();
        self.register_enum(&rows, ["all", "one"].map(str::to_owned).into());
    }

    /// `IntFilter`
    fn condition(&mut self, condition: Condition) {
        let name = self.types.condition(condition).to_owned();
        let value = self.value(condition.scalar, condition.is_list);
        let values = TypeRef::List(Box::new(TypeRef::NonNull(Box::new(value.clone()))));
        let (orders, lists): (&[&str], &[&str]) = match condition.comparisons {
            Comparisons::All => (&["_eq", "_ne", "_gt", "_gte", "_lt", "_lte"], &["_in", "_nin"]),
            Comparisons::Equality => (&["_eq", "_ne"], &["_in", "_nin"]),
            Comparisons::None => (&[], &[]),
        };
        let mut filter = Members::new(&name);
        filter.members.extend(orders.iter().map(|operator| InputValue::new(*operator, value.clone())));
        filter.members.extend(lists.iter().map(|operator| InputValue::new(*operator, values.clone())));
        filter.members.push(InputValue::new("_isNull", TypeRef::named(TypeRef::BOOLEAN)));
        filter.members.push(InputValue::new("_not", TypeRef::named(&name)));
        self.register_input(filter);
    }

    /// The type of a column's values, which may be null.
    fn type_of(&self, column: &Column) -> TypeRef {
        self.value(Scalar::of(column.r#type), Condition::of(column).is_list)
    }

    /// As [`Self::type_of`], without null where `is_required`.
    fn type_where(&self, column: &Column, is_required: bool) -> TypeRef {
        let r#type = self.type_of(column);
        if is_required { TypeRef::NonNull(Box::new(r#type)) } else { r#type }
    }

    /// A scalar, or a list of it, among whose values may be nulls.
    fn value(&self, scalar: Scalar, is_list: bool) -> TypeRef {
        let name = &self.types.scalar(scalar).name;
        if is_list { TypeRef::named_list(name) } else { TypeRef::named(name) }
    }

    /// Relations of a table and counts of them, in their order, each with its name and the table that it leads to.
    fn relations(&self, table: usize) -> Vec<(&str, names::Field, usize)> {
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

/// A field of an object.
struct FieldParts {
    name: String,
    r#type: TypeRef,
    description: Option<String>,
    arguments: Vec<InputValue>,
}

impl FieldParts {
    fn new(name: impl Into<String>, r#type: TypeRef) -> Self {
        Self { name: name.into(), r#type, description: None, arguments: Vec::new() }
    }
}

impl From<FieldParts> for Field {
    fn from(parts: FieldParts) -> Self {
        // Nothing but introspection is ever executed.
        let mut field = Field::new(parts.name, parts.r#type, |_| FieldFuture::Value(None));
        if let Some(description) = parts.description {
            field = field.description(description);
        }
        parts.arguments.into_iter().fold(field, Field::argument)
    }
}

#[cfg(test)]
mod tests;
