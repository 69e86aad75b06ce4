//! What each engine makes of columns, whether or not a database is there.

use query::Equality;

use super::*;

fn column(native: &str, r#type: Type, class: EqualityClass) -> Column {
    let equality = Equality { class, ..Equality::default() };
    Column { nullable: true, equality, ..Column::new("c", r#type, native) }
}

fn text(native: &str) -> Column {
    column(native, Type::Text, EqualityClass::Database)
}

fn other(native: &str) -> Column {
    column(native, Type::Other, EqualityClass::Database)
}

fn postgres() -> Dialect {
    Dialect::postgres("public", Vec::new())
}

#[test]
fn postgres_compares_columns_for_which_it_has_an_operator() {
    use EqualityClass::{Database, Date, Double, Integer, Number, Timestamp};
    let int = column("integer", Type::Int32, Integer);
    let big = column("bigint", Type::Int64, Integer);
    let oid = column("oid", Type::Int64, Integer);
    let numeric = column("numeric(10,2)", Type::Decimal, Number);
    let double = column("double precision", Type::Float, Double);
    let date = column("date", Type::Date, Date);
    let timestamp = column("timestamp without time zone", Type::Timestamp, Timestamp);
    let [inet, cidr] = ["inet", "cidr"].map(|native| column(native, Type::Address, Database));
    for (one, two, is_comparable) in [
        (&int, &big, true),
        (&int, &numeric, true),
        (&int, &double, true),
        (&date, &timestamp, true),
        (&int, &date, false),
        (&int, &text("text"), false),
        (&text("text"), &text("citext"), true),
        (&text("character varying(9)"), &text("character(3)"), true),
        (&inet, &cidr, true),
        (&inet, &other("money"), false),
        (&inet, &text("text"), false),
        (&other("money"), &other("point"), false),
        (&other("money"), &other("money"), true),
        (&other("bit(3)"), &other("bit(4)"), true),
        (&other("time(3) with time zone"), &other("time with time zone"), true),
        (&oid, &oid, true),
        (&oid, &big, false),
        (&int, &column("json", Type::Json, Integer), false),
    ] {
        for (one, two) in [(one, two), (two, one)] {
            assert_eq!(postgres().has_equality(one, two), is_comparable, "{} {}", one.native, two.native);
        }
    }
    assert!(Dialect::Sqlite.has_equality(&int, &text("text")));
}

#[test]
fn keys_that_a_comparison_converts_are_not_kept_apart() {
    use EqualityClass::{Bytes, Double, Integer, Number, Single, Text, Timestamp, ZonedTimestamp};
    let of = |r#type, class| column("x", r#type, class);
    let int = of(Type::Int32, Integer);
    let big = of(Type::Int64, Integer);
    let [single, double] = [Single, Double].map(|class| of(Type::Float, class));
    let decimal = of(Type::Decimal, Number);
    let [plain, zoned] = [Timestamp, ZonedTimestamp].map(|class| of(Type::Timestamp, class));
    for (key, other, keeps) in [
        (&int, &single, true),
        (&int, &double, true),
        (&big, &single, false),
        (&big, &double, false),
        (&big, &int, true),
        (&decimal, &double, false),
        (&plain, &zoned, false),
        (&zoned, &plain, true),
        (&text("text"), &text("character(3)"), true),
        (&text("text"), &text("bpchar"), true),
        (&text("character varying(9)"), &text("character(3)"), false),
        (&text("character varying(9)"), &text("bpchar"), false),
        (&text("character varying(9)"), &text("character varying(8)"), true),
        (&text("character(3)"), &text("character(4)"), true),
        (&text("bpchar"), &text("character(4)"), true),
        (&int, &text("character(4)"), true),
    ] {
        assert_eq!(postgres().keeps_apart(key, other), keeps, "{} {}", key.native, other.native);
    }
    let sqlite = of(Type::Text, Text);
    let bytes = of(Type::Bytes, Bytes);
    for (key, other, keeps) in [
        (&sqlite, &decimal, false),
        (&bytes, &decimal, false),
        (&bytes, &sqlite, false),
        (&sqlite, &text("text"), true),
        (&sqlite, &other("any"), false),
        (&decimal, &sqlite, true),
        (&sqlite, &sqlite, true),
    ] {
        assert_eq!(Dialect::Sqlite.keeps_apart(key, other), keeps, "{:?} {:?}", key.equality, other.equality);
    }
}

#[test]
fn a_text_that_refers_to_a_padded_one_is_compared_as_one() {
    for (own, referenced, cast) in [
        ("text", "character(3)", "::bpchar"),
        ("text", "bpchar", "::bpchar"),
        ("text", "text", ""),
        ("character varying(3)", "character(3)", ""),
        ("character(3)", "bpchar", ""),
    ] {
        assert_eq!(postgres().key_cast(&text(own), &text(referenced)), cast, "{own} {referenced}");
        assert_eq!(Dialect::Sqlite.key_cast(&text(own), &text(referenced)), "");
    }
}

#[test]
fn results_of_types_that_the_driver_does_not_know_are_texts() {
    let list = |item| column("list", Type::List(item), EqualityClass::Database);
    for (column, cast) in [
        (other("point"), "::text"),
        (text("public.citext"), "::text"),
        (text("text"), ""),
        (list(&Type::Other), "::text[]"),
        (list(&Type::Text), ""),
    ] {
        assert_eq!(postgres().result_cast(&column), cast, "{}", column.native);
        assert_eq!(Dialect::Sqlite.result_cast(&column), "");
    }
}

#[test]
fn values_are_compared_as_each_engine_can() {
    assert_eq!((Dialect::Sqlite.is_same(), postgres().is_same()), (" IS ", " IS NOT DISTINCT FROM "));
    for (r#type, cast) in [(Type::Json, "::text"), (Type::Other, "::text"), (Type::Int32, "")] {
        assert_eq!((postgres().equality_cast(r#type), Dialect::Sqlite.equality_cast(r#type)), (cast, ""));
    }
    for r#type in [Type::Uuid, Type::Bytes, Type::Any, Type::Timestamp] {
        assert!(!Dialect::Sqlite.is_exact(r#type) && postgres().is_exact(r#type), "{type:?}", type = r#type);
    }
    assert!(Dialect::Sqlite.is_exact(Type::Int32) && Dialect::Sqlite.is_exact(Type::Text));
}

#[test]
fn keys_are_joined_here_where_their_equality_is_that_of_the_database() {
    use EqualityClass::{Database, Integer, Text};
    let (int, plain) = (column("integer", Type::Int32, Integer), column("text", Type::Text, Text));
    let mut folded = plain.clone();
    folded.equality.collation = Some("NOCASE".into());
    let database = column("text", Type::Text, Database);
    for (one, two, sqlite, postgres_joins) in [
        (&int, &int, true, true),
        (&int, &plain, false, false),
        (&folded, &folded, false, true),
        (&folded, &plain, false, false),
        (&database, &database, false, false),
    ] {
        assert_eq!(Dialect::Sqlite.joins_exactly(one, two), sqlite, "{:?}", one.equality);
        assert_eq!(postgres().joins_exactly(one, two), postgres_joins, "{:?}", one.equality);
    }
}

#[test]
fn sqlite_counts_no_writes_to_views_and_stores_no_nan() {
    let mut table = Table::new("t", Vec::new());
    assert!(Dialect::Sqlite.counts_writes(&table) && postgres().counts_writes(&table));
    table.kind = TableKind::View;
    assert!(!Dialect::Sqlite.counts_writes(&table) && postgres().counts_writes(&table));
    assert!(!Dialect::Sqlite.returns_rows_as_deleted() && postgres().returns_rows_as_deleted());
    assert!(Dialect::Sqlite.index_query().is_none() && postgres().index_query().is_some());

    let float = column("double precision", Type::Float, EqualityClass::Double);
    let stored = |dialect: Dialect, number| dialect.check_stored(&float, &Typed::Float(number)).is_ok();
    assert!(!stored(Dialect::Sqlite, f64::NAN) && stored(postgres(), f64::NAN));
    assert!(stored(Dialect::Sqlite, 0.5) && stored(Dialect::Sqlite, f64::INFINITY));
}

/// An array has one type, and of other schemas no index is known.
#[test]
fn an_index_of_postgres_looks_up_values_of_its_type_in_a_table_of_its_schema() {
    let indexed = [("t".to_owned(), "c".to_owned())].into();
    let dialect = Dialect::Postgres { schema: "public".to_owned(), neighbours: Vec::new(), indexed };
    let int = column("integer", Type::Int32, EqualityClass::Integer);
    let big = column("bigint", Type::Int64, EqualityClass::Integer);
    let own = Table::new("t", Vec::new());
    let far = Table { database: Some("archive".to_owned()), ..own.clone() };
    let other = Table::new("u", Vec::new());
    for (table, values, expected) in
        [(&own, &int, " = ANY(ARRAY("), (&own, &big, " IN ("), (&far, &int, " IN ("), (&other, &int, " IN (")]
    {
        assert_eq!(dialect.subselect(table, &int, values).0, expected, "{} {:?}", table.name, table.database);
    }
}

#[test]
fn tables_of_neighbours_are_named_by_their_schemas() {
    let neighbours = [("archive", "old"), ("music", "new")].map(|(database, schema)| Neighbour {
        database: database.to_owned(),
        schema: schema.to_owned(),
        is_linked: true,
    });
    let dialect = Dialect::postgres("public", neighbours.to_vec());
    for (database, schema) in [(None, "public"), (Some("archive"), "old"), (Some("music"), "new")] {
        let table = Table { database: database.map(str::to_owned), ..Table::new("t", Vec::new()) };
        assert_eq!(dialect.schema_of(&table), Some(schema));
    }
}

#[test]
fn numbers_that_mariadb_cannot_store_are_refused() {
    let double = column("double", Type::Float, EqualityClass::Double);
    for (number, is_stored) in [(1.5, true), (f64::NAN, false), (f64::INFINITY, false), (f64::NEG_INFINITY, false)] {
        let stored = Dialect::Mysql.check_stored(&double, &Typed::Float(number));
        assert_eq!(stored.is_ok(), is_stored, "{number}");
        assert!(postgres().check_stored(&double, &Typed::Float(number)).is_ok(), "{number}");
    }
}
