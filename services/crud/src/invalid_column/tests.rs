//! A value that a database does not take is told by the column that it is for.

use mesh::Tasks;

use super::*;
use crate::store::sqlite::Sqlite;

fn number(name: &str) -> Column {
    Column::new(name, Type::Int32, "integer")
}

fn text(value: &str) -> Bind {
    Bind::Value(Typed::Text(value.to_owned()))
}

/// What callers read of a value that is for one of `uses`, of which the database says `said`.
fn told(kind: InvalidKind, value: Option<Bind>, said: &str, uses: &Uses<'_>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::Sqlite(Sqlite::open(&folder.path().join("test.db"), &[], &Tasks::default()).unwrap());
    let invalid = InvalidValue { kind, value, column: None, said: said.into(), cause: String::new() };
    invalid.named(&store, uses).to_string()
}

/// The columns that a condition with the value `x` may mean, of which the database says `said`.
fn meant(kind: InvalidKind, said: &str, columns: &[Column]) -> Vec<String> {
    let compared = columns.iter().map(|column| (column, text("x"))).collect();
    let uses = Uses { compared, ..Uses::default() };
    let invalid = InvalidValue { kind, value: Some(text("x")), column: None, said: said.into(), cause: String::new() };
    invalid.columns(&uses).into_iter().map(|column| column.name.clone()).collect()
}

#[test]
fn of_several_columns_those_are_meant_whose_type_the_database_names() {
    use InvalidKind::{Incomparable, Malformed};
    let columns = [
        Column::new("price", Type::Decimal, "numeric(10,2)"),
        Column::new("ident", Type::Uuid, "uuid"),
        Column::new("sizes", Type::List(&Type::Int32), "integer[]"),
    ];
    for (kind, said, expected) in [
        (Malformed, "invalid input syntax for type uuid: \"x\"", &["ident"][..]),
        (Malformed, "invalid input syntax for type numeric: \"x\"", &["price"]),
        (Malformed, "invalid input syntax for type integer: \"x\"", &["sizes"]),
        // In a language that calls it otherwise.
        (Malformed, "ungültige Eingabe", &["price", "ident", "sizes"]),
        (Incomparable, "operator does not exist: uuid > uuid", &["ident"]),
        (Incomparable, "operator does not exist: point > point", &[]),
    ] {
        assert_eq!(meant(kind, said, &columns), expected, "{said}");
    }
    // What cannot be compared is of a type that is named, also where one column is compared alone.
    assert_eq!(meant(Incomparable, "operator does not exist: point > point", &columns[..1]), [""; 0]);
    assert_eq!(meant(Malformed, "ungültige Eingabe", &columns[..1]), ["price"]);
}

#[test]
fn at_most_three_columns_are_named() {
    let columns = ["a", "b", "c", "d"].map(number);
    let uses = |count: usize| Uses {
        compared: columns[..count].iter().map(|column| (column, text("x"))).collect(),
        ..Uses::default()
    };
    let told = |count: usize| told(InvalidKind::OutOfRange, Some(text("x")), "", &uses(count));
    let range = "expected integer from -2147483648 to 2147483647";
    for (count, names) in [(1, "a"), (2, "a or b"), (3, "a or b or c")] {
        let text = told(count);
        assert_eq!(text, format!("{names} is out of range: {range}"));
    }
    assert_eq!(told(4), "a number is out of range of its column");
}

#[test]
fn texts_say_what_the_column_expects() {
    let told = |column: &Column| {
        let uses = Uses { compared: vec![(column, text("x"))], ..Uses::default() };
        told(InvalidKind::Malformed, Some(text("x")), "", &uses)
    };
    for (column, expected) in [
        (Column::new("a", Type::Date, "date"), "date such as 2009-01-31"),
        (Column::new("a", Type::Int16, "smallint"), "integer from -32768 to 32767"),
        // Types that this server does not know have the database's name.
        (Column::new("a", Type::Other, "point"), "point"),
        (Column::new("a", Type::Decimal, "numeric(10,2)"), "numeric(10,2)"),
        (Column::new("a", Type::Address, "inet"), "inet"),
        (Column::new("a", Type::List(&Type::Int32), "integer[]"), "integer[]"),
    ] {
        let text = told(&column);
        assert!(text.contains(&format!("expected {expected}, found string in another form")), "{text}");
    }
}

#[test]
fn a_text_is_too_long_for_the_columns_that_have_less_characters() {
    let other = |value: &str| Bind::Value(Typed::Other(value.to_owned()));
    for (column, value, expected) in [
        (Column::new("a", Type::Text, "character varying(3)"), text("äöüß"), Some("string of at most 3 characters")),
        (Column::new("a", Type::Text, "character varying(3)"), text("äöü"), None),
        (Column::new("a", Type::Text, "character varying(3)"), text("äöü  "), None),
        (Column::new("a", Type::Text, "character(12)"), text("1234567890123"), Some("string of at most 12 characters")),
        (Column::new("a", Type::Text, "text"), text("abcd"), None),
        // Types with a length of their own.
        (Column::new("a", Type::Other, "bit(3)"), other("1010"), Some("bit(3)")),
        (Column::new("a", Type::Other, "point"), other("(1,2)"), None),
        (Column::new("a", Type::Text, "citext(3)"), text("abcd"), None),
        (Column::new("a", Type::Int32, "integer"), Bind::Value(Typed::Int(7)), None),
    ] {
        let uses = Uses { stored: vec![(&column, value)], ..Uses::default() };
        let told = told(InvalidKind::TooLong, None, "", &uses);
        match expected {
            Some(expected) => assert_eq!(told, format!("a is out of range: expected {expected}"), "{column:?}"),
            None => assert_eq!(told, "a string is too long for its column", "{column:?}"),
        }
    }
}
