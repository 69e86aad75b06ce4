//! What decides whether values of a column are equal, by its type and its collation.

use query::{Equality, EqualityClass, Matching, Type};
use tokio_postgres::types::Type as Native;

/// Columns of a schema with a collation that is not the database's: its name in SQL, and whether texts are equal by their
/// bytes.
pub const COLLATIONS: &str = "\
SELECT c.relname::text, a.attname::text,
    pg_catalog.concat(pg_catalog.quote_ident(s.nspname), '.', pg_catalog.quote_ident(k.collname)),
    k.collisdeterministic
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_collation k ON k.oid = a.attcollation
JOIN pg_catalog.pg_namespace s ON s.oid = k.collnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    AND k.collprovider <> 'd'";

/// The equality of a column of a type, which is called `native` with its length, in the database's collation.
pub fn of(oid: u32, native: &str) -> Equality {
    let class = match Native::from_oid(oid) {
        Some(Native::INT2 | Native::INT4 | Native::INT8 | Native::OID) => EqualityClass::Integer,
        Some(Native::NUMERIC) => EqualityClass::Number,
        Some(Native::FLOAT4) => EqualityClass::Single,
        Some(Native::FLOAT8) => EqualityClass::Double,
        Some(Native::BOOL) => EqualityClass::Bool,
        Some(Native::TEXT | Native::VARCHAR) => EqualityClass::Text,
        Some(Native::BPCHAR) => padded(native).map_or(EqualityClass::Database, EqualityClass::Padded),
        Some(Native::NAME) => EqualityClass::Name,
        Some(Native::BYTEA) => EqualityClass::Bytes,
        Some(Native::DATE) => EqualityClass::Date,
        Some(Native::TIME) => EqualityClass::Time,
        Some(Native::TIMESTAMP) => EqualityClass::Timestamp,
        Some(Native::TIMESTAMPTZ) => EqualityClass::ZonedTimestamp,
        Some(Native::UUID) => EqualityClass::Uuid,
        Some(_) | None => EqualityClass::Database,
    };
    Equality { class, collation: None }
}

/// The equality of such a column in another collation.
pub fn in_collation(equality: &Equality, collation: &str, is_deterministic: bool) -> Equality {
    let class = if is_deterministic { equality.class } else { EqualityClass::Database };
    Equality { class, collation: Some(collation.into()) }
}

/// Which comparisons of values of a type as they are read have the result that the server gives.
pub fn matching(r#type: Type, equality: &Equality) -> Matching {
    use EqualityClass::{Bool, Bytes, Date, Double, Integer, Number, Text, Time, Timestamp, Uuid, ZonedTimestamp};
    match (r#type, equality.class) {
        (Type::Bool, Bool)
        | (Type::Int16 | Type::Int32 | Type::Int64, Integer)
        | (Type::Float, Double)
        | (Type::Decimal, Number)
        | (Type::Bytes, Bytes)
        | (Type::Date, Date)
        | (Type::Time, Time)
        | (Type::Timestamp, Timestamp | ZonedTimestamp)
        | (Type::Uuid, Uuid) => Matching::All,
        (Type::Text, Text) if equality.collation.as_deref() == Some("pg_catalog.\"C\"") => Matching::All,
        // Equal texts have the same bytes. Their order is that of a language.
        (Type::Text, Text) => Matching::Equality,
        _ => Matching::None,
    }
}

/// The length of a `character(3)`; `None` without one, as in a domain.
fn padded(native: &str) -> Option<u32> {
    native.strip_prefix("character(")?.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_whose_values_are_equal_as_they_are_read_have_a_class() {
        let class = |native: &Native, name: &str| of(native.oid(), name).class;
        assert_eq!(class(&Native::INT2, "smallint"), class(&Native::INT8, "bigint"));
        assert_eq!(class(&Native::TEXT, "text"), class(&Native::VARCHAR, "character varying(3)"));
        assert_ne!(class(&Native::FLOAT4, "real"), class(&Native::FLOAT8, "double precision"));
        assert_ne!(class(&Native::BPCHAR, "character(3)"), class(&Native::BPCHAR, "character(4)"));
        for (native, name) in [(Native::BPCHAR, "bpchar"), (Native::JSONB, "jsonb"), (Native::INTERVAL, "interval")] {
            assert_eq!(class(&native, name), EqualityClass::Database, "{name}");
        }
        let other = in_collation(&of(Native::TEXT.oid(), "text"), "public.nocase", false);
        assert_eq!(matching(Type::Text, &other), Matching::None);
        assert_eq!((other.class, other.collation.as_deref()), (EqualityClass::Database, Some("public.nocase")));
    }
    #[test]
    fn values_match_in_memory_where_their_order_is_not_that_of_a_language() {
        let text = of(Native::TEXT.oid(), "text");
        assert_eq!(matching(Type::Text, &text), Matching::Equality);
        assert_eq!(matching(Type::Text, &in_collation(&text, "pg_catalog.\"C\"", true)), Matching::All);
        assert_eq!(matching(Type::Text, &in_collation(&text, "pg_catalog.\"de_DE\"", true)), Matching::Equality);
        assert_eq!(matching(Type::Float, &of(Native::FLOAT8.oid(), "double precision")), Matching::All);
        for (r#type, native, name) in [
            (Type::Float, Native::FLOAT4, "real"),
            (Type::Text, Native::BPCHAR, "character(3)"),
            (Type::Json, Native::JSONB, "jsonb"),
            (Type::Other, Native::INTERVAL, "interval"),
        ] {
            assert_eq!(matching(r#type, &of(native.oid(), name)), Matching::None, "{name}");
        }
    }
}
