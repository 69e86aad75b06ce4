//! What a schema is described by: types, their fields, arguments and values.

use std::borrow::Cow;

use crate::graphql::introspection::type_names::{Condition, Scalar};

/// A type of the published schema, from which its name and its members are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TypeKey {
    /// `Query`
    Query,
    /// `Mutation`
    Mutation,
    /// `Subscription`
    Subscription,
    /// A scalar.
    Scalar(Scalar),
    /// Conditions on columns.
    Condition(Condition),
    /// How many rows a mutation writes.
    MutatedRows,
    /// What a change of a row is.
    ChangeType,
    /// A type of the table at an index.
    OfTable(usize, TableType),
    /// A type of introspection itself, at an index of the specification.
    Introspection(usize),
}

/// Types that a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableType {
    /// `Album`
    Rows,
    /// `AlbumAggregate`
    Aggregate,
    /// `AlbumMutation`
    Payload,
    /// `AlbumChange`
    Change,
    /// `AlbumRow`
    ChangedRow,
    /// `AlbumFilter`
    Filter,
    /// `AlbumUpdateFilter`
    UpdateFilter,
    /// `AlbumDeleteFilter`
    DeleteFilter,
    /// `AlbumManyFilter`
    ManyFilter,
    /// `AlbumSort`
    Sort,
    /// `AlbumInsert`
    Insert,
    /// `AlbumSet`
    Set,
    /// `AlbumInc`
    Inc,
}

/// The kind of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKind {
    Scalar,
    Object,
    Enum,
    InputObject,
}

/// What a type consists of.
#[derive(Debug)]
pub enum Members<'a> {
    /// Values without parts.
    Scalar,
    /// An object's fields.
    Fields(Vec<FieldDefinition<'a>>),
    /// An input object's fields.
    Inputs(Vec<InputDefinition<'a>>),
    /// An enum's values.
    Values(Vec<EnumValueDefinition<'a>>),
}

/// A field of an object.
#[derive(Debug)]
pub struct FieldDefinition<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// What it is.
    pub description: Option<&'a str>,
    /// The type of its values.
    pub r#type: TypeRef,
    /// Its arguments.
    pub arguments: Vec<InputDefinition<'a>>,
}

/// An argument, or a field of an input object.
#[derive(Debug)]
pub struct InputDefinition<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub description: Option<&'a str>,
    /// The type of its values.
    pub r#type: TypeRef,
    /// Its value where none is given, as GraphQL writes it.
    pub default: Option<String>,
}

/// A value of an enum.
#[derive(Debug)]
pub struct EnumValueDefinition<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// What it means.
    pub description: Option<&'a str>,
}

/// A directive, which may stand once in a place: none of the specification's is repeatable.
#[derive(Debug)]
pub struct DirectiveDefinition<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it does.
    pub description: Option<&'a str>,
    /// Where it may stand.
    pub locations: Vec<&'static str>,
    /// Its arguments.
    pub arguments: Vec<InputDefinition<'a>>,
}

/// A type as fields refer to it: `[Album!]!`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRef {
    /// The type within.
    pub named: TypeKey,
    /// What stands around it: two bits each, the outermost in the lowest.
    wrappers: u16,
}

/// What stands around a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// `Album!`
    NonNull = 1,
    /// `[Album]`
    List = 2,
}

impl<'a> FieldDefinition<'a> {
    /// A field without arguments.
    pub fn new(name: impl Into<Cow<'a, str>>, r#type: TypeRef) -> Self {
        Self { name: name.into(), description: None, r#type, arguments: Vec::new() }
    }
}

impl<'a> InputDefinition<'a> {
    /// An input without a default.
    pub fn new(name: &'a str, r#type: TypeRef) -> Self {
        Self { name, description: None, r#type, default: None }
    }
}

impl<'a> EnumValueDefinition<'a> {
    /// A value that its name explains.
    pub fn new(name: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), description: None }
    }
}

impl TypeKind {
    /// What introspection calls it.
    pub fn name(self) -> &'static str {
        match self {
            TypeKind::Scalar => "SCALAR",
            TypeKind::Object => "OBJECT",
            TypeKind::Enum => "ENUM",
            TypeKind::InputObject => "INPUT_OBJECT",
        }
    }
}

impl TypeRef {
    /// `Album`
    pub fn of(named: TypeKey) -> Self {
        Self { named, wrappers: 0 }
    }

    /// A type of the table at an index.
    pub fn of_table(table: usize, r#type: TableType) -> Self {
        Self::of(TypeKey::OfTable(table, r#type))
    }

    /// A scalar.
    pub fn of_scalar(scalar: Scalar) -> Self {
        Self::of(TypeKey::Scalar(scalar))
    }

    /// `Album!`
    pub fn required(self) -> Self {
        self.within(Wrapper::NonNull)
    }

    /// `[Album]`
    pub fn list(self) -> Self {
        self.within(Wrapper::List)
    }

    /// The outermost wrapper and what is in it.
    pub fn unwrapped(self) -> Option<(Wrapper, Self)> {
        let wrapper = match self.wrappers & 3 {
            0 => return None,
            1 => Wrapper::NonNull,
            _ => Wrapper::List,
        };
        Some((wrapper, Self { wrappers: self.wrappers >> 2, ..self }))
    }

    /// There are at most four of a column's: `[[String]!]!`.
    fn within(self, wrapper: Wrapper) -> Self {
        debug_assert!(self.wrappers.leading_zeros() >= 2, "no room for another");
        Self { wrappers: self.wrappers << 2 | wrapper as u16, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_unwrapped_from_the_outermost_in() {
        let text = TypeRef::of_scalar(Scalar::String);

        let mut lists = text.list().required().list();
        let mut around = Vec::new();
        while let Some((wrapper, inner)) = lists.unwrapped() {
            around.push(wrapper);
            lists = inner;
        }

        assert_eq!((around, lists), (vec![Wrapper::List, Wrapper::NonNull, Wrapper::List], text));
    }
}
