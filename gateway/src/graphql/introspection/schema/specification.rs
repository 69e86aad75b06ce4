//! Types and directives of the specification: those of introspection itself, which every schema has.

use std::sync::LazyLock;

use async_graphql_parser::{
    Positioned, parse_schema,
    types::{self as parsed, BaseType, DirectiveLocation, Type, TypeSystemDefinition},
};

use super::{
    DirectiveDefinition, EnumValueDefinition, FieldDefinition, InputDefinition, Members, Scalar, TypeKey, TypeKind,
    TypeRef,
};

/// What `specification.graphql` defines.
struct Specification {
    types: Vec<parsed::TypeDefinition>,
    directives: Vec<parsed::DirectiveDefinition>,
}

static SPECIFICATION: LazyLock<Specification> = LazyLock::new(|| {
    let document = parse_schema(include_str!("specification.graphql")).expect("the file is valid");
    let mut specification = Specification { types: Vec::new(), directives: Vec::new() };
    for definition in document.definitions {
        match definition {
            TypeSystemDefinition::Type(r#type) => specification.types.push(r#type.node),
            TypeSystemDefinition::Directive(directive) => specification.directives.push(directive.node),
            TypeSystemDefinition::Schema(_) => {}
        }
    }
    specification
});

/// The type of introspection that is called `name`.
///
/// # Panics
/// Where the specification has none.
pub fn introspection_type(name: &str) -> TypeKey {
    let index = SPECIFICATION.types.iter().position(|r#type| r#type.name.node == name);
    TypeKey::Introspection(index.expect("the specification has the type"))
}

/// The directives.
pub fn directives() -> impl Iterator<Item = DirectiveDefinition<'static>> {
    SPECIFICATION.directives.iter().map(|directive| DirectiveDefinition {
        name: &directive.name.node,
        description: text(directive.description.as_ref()),
        locations: directive.locations.iter().map(|location| location_name(location.node)).collect(),
        arguments: directive.arguments.iter().map(input).collect(),
    })
}

/// The name of the type at an index.
pub fn name(index: usize) -> &'static str {
    &SPECIFICATION.types[index].name.node
}

/// The description of the type at an index.
pub fn description(index: usize) -> Option<&'static str> {
    text(SPECIFICATION.types[index].description.as_ref())
}

/// The kind of the type at an index; there are no interfaces and unions.
pub fn kind(index: usize) -> TypeKind {
    match SPECIFICATION.types[index].kind {
        parsed::TypeKind::Object(_) => TypeKind::Object,
        parsed::TypeKind::Enum(_) => TypeKind::Enum,
        parsed::TypeKind::InputObject(_) => TypeKind::InputObject,
        parsed::TypeKind::Scalar | parsed::TypeKind::Interface(_) | parsed::TypeKind::Union(_) => TypeKind::Scalar,
    }
}

/// Members of the type at an index.
pub fn members(index: usize) -> Members<'static> {
    match &SPECIFICATION.types[index].kind {
        parsed::TypeKind::Object(object) => Members::Fields(object.fields.iter().map(field).collect()),
        parsed::TypeKind::Enum(r#enum) => Members::Values(r#enum.values.iter().map(value).collect()),
        parsed::TypeKind::InputObject(inputs) => Members::Inputs(inputs.fields.iter().map(input).collect()),
        parsed::TypeKind::Scalar | parsed::TypeKind::Interface(_) | parsed::TypeKind::Union(_) => Members::Scalar,
    }
}

fn field(field: &'static Positioned<parsed::FieldDefinition>) -> FieldDefinition<'static> {
    let field = &field.node;
    FieldDefinition {
        name: field.name.node.as_str().into(),
        description: text(field.description.as_ref()),
        r#type: type_ref(&field.ty.node),
        arguments: field.arguments.iter().map(input).collect(),
    }
}

fn input(input: &'static Positioned<parsed::InputValueDefinition>) -> InputDefinition<'static> {
    let input = &input.node;
    InputDefinition {
        name: &input.name.node,
        description: text(input.description.as_ref()),
        r#type: type_ref(&input.ty.node),
        default: input.default_value.as_ref().map(|value| value.node.to_string()),
    }
}

fn value(value: &'static Positioned<parsed::EnumValueDefinition>) -> EnumValueDefinition<'static> {
    let description = text(value.node.description.as_ref());
    EnumValueDefinition { name: value.node.value.node.as_str().into(), description }
}

fn text(description: Option<&'static Positioned<String>>) -> Option<&'static str> {
    description.map(|text| text.node.as_str())
}

fn type_ref(r#type: &Type) -> TypeRef {
    let nullable = match &r#type.base {
        BaseType::List(item) => type_ref(item).list(),
        BaseType::Named(name) => match Scalar::of_specification(name) {
            Some(scalar) => TypeRef::of_scalar(scalar),
            None => TypeRef::of(introspection_type(name)),
        },
    };
    if r#type.nullable { nullable } else { nullable.required() }
}

fn location_name(location: DirectiveLocation) -> &'static str {
    match location {
        DirectiveLocation::Query => "QUERY",
        DirectiveLocation::Mutation => "MUTATION",
        DirectiveLocation::Subscription => "SUBSCRIPTION",
        DirectiveLocation::Field => "FIELD",
        DirectiveLocation::FragmentDefinition => "FRAGMENT_DEFINITION",
        DirectiveLocation::FragmentSpread => "FRAGMENT_SPREAD",
        DirectiveLocation::InlineFragment => "INLINE_FRAGMENT",
        DirectiveLocation::Schema => "SCHEMA",
        DirectiveLocation::Scalar => "SCALAR",
        DirectiveLocation::Object => "OBJECT",
        DirectiveLocation::FieldDefinition => "FIELD_DEFINITION",
        DirectiveLocation::ArgumentDefinition => "ARGUMENT_DEFINITION",
        DirectiveLocation::Interface => "INTERFACE",
        DirectiveLocation::Union => "UNION",
        DirectiveLocation::Enum => "ENUM",
        DirectiveLocation::EnumValue => "ENUM_VALUE",
        DirectiveLocation::InputObject => "INPUT_OBJECT",
        DirectiveLocation::InputFieldDefinition => "INPUT_FIELD_DEFINITION",
        DirectiveLocation::VariableDefinition => "VARIABLE_DEFINITION",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_is_read_as_a_whole() {
        for index in 0..SPECIFICATION.types.len() {
            assert!(!matches!(members(index), Members::Scalar), "{}", name(index));
        }
        let names: Vec<&str> = directives().map(|directive| directive.name).collect();
        assert_eq!(names, ["deprecated", "include", "oneOf", "skip", "specifiedBy"]);
        let Members::Fields(fields) = members(0) else { panic!("{} is an object", name(0)) };
        let args = fields.iter().find(|field| field.name == "args").unwrap();
        assert_eq!(args.r#type, TypeRef::of(introspection_type("__InputValue")).required().list().required());
        assert_eq!(args.arguments[0].default.as_deref(), Some("false"));
    }
}
