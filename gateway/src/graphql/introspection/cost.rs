//! Cost of introspection: an estimate of the values that it answers with, before it does.
//!
//! Lists inside lists of a schema multiply, and so do aliases: a short document can ask for gigabytes. What the queries of
//! tools ask for is allowed a few times over.

use super::schema::Sizes;
use crate::graphql::plan::IntrospectionField;

/// How often the query of GraphiQL may be asked for at once.
const TIMES: usize = 4;
/// Values that may be asked for of any schema.
const ALWAYS: usize = 50_000;
/// Directives, and their arguments.
const DIRECTIVES: usize = 10;
/// Most arguments of a field.
const ARGUMENTS: usize = 12;

/// What the fields of a selection belong to, and how many of it there are.
#[derive(Clone, Copy)]
enum Scope {
    Schema,
    /// Every type, so many times.
    AllTypes(usize),
    /// One of the roots, so many times.
    Root(usize),
    /// So many types, each at most as large as the largest.
    Types(usize),
    /// Every field of every type, so many times.
    AllFields(usize),
    /// So many fields, input fields, arguments, enum values or directives.
    Members(usize),
}

/// The most values that a schema may be asked for.
pub fn limit(sizes: Sizes) -> usize {
    // Of a type a dozen values, of a field its type at every level.
    let members = sizes.fields + sizes.arguments + sizes.input_fields;
    ALWAYS + TIMES * (sizes.types * 16 + sizes.enum_values * 4 + members * 40)
}

/// The values that a root field asks for.
pub fn of(field: &IntrospectionField, sizes: Sizes) -> usize {
    let scope = if field.name == "__schema" { Scope::Schema } else { Scope::Root(1) };
    selection(&field.fields, scope, sizes)
}

fn selection(fields: &[IntrospectionField], scope: Scope, sizes: Sizes) -> usize {
    let cost = |field: &IntrospectionField| {
        let inner = inside(&field.name, scope, sizes);
        let own = scope.count(sizes);
        own.saturating_add(inner.map_or(0, |scope| selection(&field.fields, scope, sizes)))
    };
    fields.iter().map(cost).fold(0, usize::saturating_add)
}

/// The scope of the fields inside the field `name`; `None` where there are none.
fn inside(name: &str, scope: Scope, sizes: Sizes) -> Option<Scope> {
    let count = scope.count(sizes);
    let members = |all: usize| match scope {
        Scope::AllTypes(times) => Scope::Members(times.saturating_mul(all)),
        Scope::Root(count) => Scope::Members(count.saturating_mul(sizes.largest_root.max(sizes.largest))),
        Scope::Schema | Scope::Types(_) | Scope::AllFields(_) | Scope::Members(_) => {
            Scope::Members(count.saturating_mul(sizes.largest))
        }
    };
    match (name, scope) {
        ("types", _) => Some(Scope::AllTypes(count)),
        ("queryType" | "mutationType" | "subscriptionType", _) => Some(Scope::Root(count)),
        ("directives", _) => Some(Scope::Members(count.saturating_mul(DIRECTIVES))),
        ("fields", Scope::AllTypes(times)) => Some(Scope::AllFields(times)),
        ("fields", _) => Some(members(sizes.fields)),
        ("inputFields", _) => Some(members(sizes.input_fields)),
        ("enumValues", _) => Some(members(sizes.enum_values)),
        ("args", Scope::AllFields(times)) => Some(Scope::Members(times.saturating_mul(sizes.arguments))),
        ("args", _) => Some(Scope::Members(count.saturating_mul(ARGUMENTS))),
        ("type" | "ofType", _) => Some(Scope::Types(count)),
        // No type is one of an interface or a union.
        _ => None,
    }
}

impl Scope {
    fn count(self, sizes: Sizes) -> usize {
        match self {
            Scope::Schema => 1,
            Scope::AllTypes(times) => times.saturating_mul(sizes.types),
            Scope::AllFields(times) => times.saturating_mul(sizes.fields),
            Scope::Root(count) | Scope::Types(count) | Scope::Members(count) => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        types: 8000,
        fields: 15_000,
        arguments: 20_000,
        input_fields: 40_000,
        enum_values: 20_000,
        largest: 30,
        largest_root: 3000,
    };

    fn field(name: &str, fields: Vec<IntrospectionField>) -> IntrospectionField {
        IntrospectionField { key: name.to_owned(), name: name.to_owned(), arguments: String::new(), fields }
    }

    /// `inner` under as many lists of types and their fields.
    fn nested(levels: usize, inner: IntrospectionField) -> IntrospectionField {
        (0..levels).fold(inner, |inner, _| field("fields", vec![field("type", vec![inner])]))
    }

    #[test]
    fn lists_in_lists_are_over_the_limit() {
        let of = |fields| of(&field("__schema", vec![field("types", fields)]), SIZES);

        assert!(of(vec![field("name", vec![])]) <= limit(SIZES));
        assert!(of(vec![nested(1, field("name", vec![]))]) <= limit(SIZES));
        assert!(of(vec![nested(3, field("name", vec![]))]) > limit(SIZES));
        assert!(of(vec![nested(40, field("name", vec![]))]) > limit(SIZES), "without an overflow");
    }

    #[test]
    fn aliases_add_up() {
        let names = |count: usize| field("fields", vec![field("name", vec![]); count]);

        assert!(of(&field("__schema", vec![field("types", vec![names(10)])]), SIZES) <= limit(SIZES));
        assert!(of(&field("__schema", vec![field("types", vec![names(900)])]), SIZES) > limit(SIZES));
    }

    #[test]
    fn a_type_may_be_asked_for_with_the_fields_of_its_fields() {
        let asked = field("__type", vec![nested(2, field("name", vec![]))]);

        assert!(of(&asked, SIZES) <= limit(SIZES));
    }
}
