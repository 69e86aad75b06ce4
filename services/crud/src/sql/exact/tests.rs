//! Comparisons of MariaDB whose types no result shows: the server would convert what is not cast.

use query::{Equality, EqualityClass, Table, Type, Typed};

use super::{super::Dialect, *};

fn column(native: &str, r#type: Type, class: EqualityClass) -> Column {
    let equality = Equality { class, ..Equality::default() };
    Column { equality, ..Column::new("c", r#type, native) }
}

fn sql(append: impl FnOnce(&mut Sql<'_>)) -> String {
    let table = Table::new("t", Vec::new());
    let mut sql = Sql::writing(&Dialect::Mysql, &table);
    append(&mut sql);
    sql.finish(Vec::new()).text.to_string()
}

#[test]
fn a_decimal_is_compared_with_all_digits_that_it_has_room_for() {
    let decimal = |native| column(native, Type::Decimal, EqualityClass::Number);
    for (native, scale) in [
        ("decimal(10,2)", 30),
        ("decimal(65,0)", 0),
        ("decimal(65,10)", 10),
        ("decimal(60,15)", 20),
        ("decimal(38,30)", 30),
        ("bigint unsigned", 30),
    ] {
        assert_eq!(form(&decimal(native)), ExactForm::Plain(Some(Cast::Decimal(scale))), "{native}");
    }
}

#[test]
fn long_lists_are_of_the_type_of_the_column() {
    use EqualityClass::{Date, Double, Integer, Number, Single, Timestamp};
    for (native, r#type, class, declared) in [
        ("smallint", Type::Int16, Integer, "BIGINT"),
        ("int", Type::Int32, Integer, "BIGINT"),
        ("bigint", Type::Int64, Integer, "BIGINT"),
        ("decimal(65,10)", Type::Decimal, Number, "DECIMAL(65,10)"),
        ("float", Type::Float, Single, "FLOAT"),
        ("double", Type::Float, Double, "DOUBLE"),
        ("date", Type::Date, Date, "DATE"),
        ("time", Type::Time, EqualityClass::Database, "TIME(6)"),
        ("datetime", Type::Timestamp, Timestamp, "DATETIME(6)"),
        ("uuid", Type::Uuid, EqualityClass::Database, "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
    ] {
        let of = column(native, r#type, class);
        let text = |count: usize| sql(|sql| sql.any_exactly(Alias::Target, &of, vec![Typed::Null; count]));
        let (short, long) = (text(1024), text(1025));
        assert!(short.contains(" IN (") && !short.contains("JSON_TABLE"), "{native}: {short}");
        assert!(long.contains(&format!("COLUMNS (\"v\" {declared} PATH")), "{native}: {long}");
    }
}

#[test]
fn keys_are_of_the_type_of_their_column() {
    use EqualityClass::{Bytes, Database, Date, Double, Integer, Number, Timestamp};
    for (native, r#type, class, cast) in [
        ("bigint unsigned", Type::Decimal, Integer, "UNSIGNED"),
        ("decimal(65,10)", Type::Decimal, Number, "DECIMAL(65,10)"),
        ("tinyint(1)", Type::Bool, Integer, "SIGNED"),
        ("smallint", Type::Int16, Integer, "SIGNED"),
        ("int", Type::Int32, Integer, "SIGNED"),
        ("bigint", Type::Int64, Integer, "SIGNED"),
        ("double", Type::Float, Double, "DOUBLE"),
        ("varbinary(20)", Type::Bytes, Bytes, "BINARY"),
        ("date", Type::Date, Date, "DATE"),
        ("time(6)", Type::Time, Database, "TIME(6)"),
        ("datetime(6)", Type::Timestamp, Timestamp, "DATETIME(6)"),
        ("uuid", Type::Uuid, Database, "CHAR"),
    ] {
        let of = column(native, r#type, class);
        assert_eq!(sql(|sql| sql.key_value(&of, Typed::Null)), format!("CAST(? AS {cast})"), "{native}");
    }
}
