use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value as Bound;

use crate::fixtures::{chinook, object, rest, table, value};
use crate::{
    Comparison, Error, Filter, Matching, Object, Quantifier, Related, Row, RuleFilter, Schema, Typed, Value, typed,
};

fn schema() -> Schema {
    Schema::new(vec![table("t", "i:int64? f:float? s:text? b:bool?", &[], &[])])
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Int,
    Float,
    Text,
    Bool,
}

const COLUMNS: [(&str, Kind); 4] = [("i", Kind::Int), ("f", Kind::Float), ("s", Kind::Text), ("b", Kind::Bool)];

/// Values of a column, few enough that conditions meet them.
fn scalar(kind: Kind) -> BoxedStrategy<Value> {
    let number = |text: &&str| Value::number(text).unwrap();
    match kind {
        Kind::Int => prop_oneof![(-2i64..3), Just(i64::MAX), Just(i64::MIN)].prop_map(Value::Int).boxed(),
        Kind::Float => prop::sample::select(&["-1", "0", "0.5", "1", "1.5", "1e300", "0.1", "9007199254740993"][..])
            .prop_map(move |text| number(&text))
            .boxed(),
        Kind::Text => prop::sample::select(&["", "a", "A", "ab", "b", "é", "z", "😀", "%", "1"][..])
            .prop_map(|text| Value::Text(text.to_owned()))
            .boxed(),
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
    }
}

fn operand(column: &str, value: &Value) -> Typed {
    typed(schema().table("t").unwrap().column(column).unwrap(), value).unwrap()
}

fn filter() -> impl Strategy<Value = Filter> {
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
    let column = || prop::sample::select(&COLUMNS[..]);
    let comparison = prop::sample::select(vec![Eq, Ne, Gt, Gte, Lt, Lte]);
    let compare = (column(), comparison).prop_flat_map(|((column, kind), comparison)| {
        scalar(kind).prop_map(move |value| Filter::Compare {
            column: column.to_owned(),
            comparison,
            value: operand(column, &value),
        })
    });
    let within = column().prop_flat_map(|(column, kind)| {
        prop::collection::vec(scalar(kind), 0..4)
            .prop_map(move |values| values.iter().map(|value| operand(column, value)).collect())
            .prop_map(move |values| Filter::In { column: column.to_owned(), values })
    });
    let is_null = column().prop_map(|(column, _)| Filter::IsNull { column: column.to_owned() });
    prop_oneof![4 => compare, 2 => within, 1 => is_null].prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

fn row() -> impl Strategy<Value = Object> {
    let cell = |kind| prop_oneof![1 => Just(Value::Null), 3 => scalar(kind)];
    (cell(Kind::Int), cell(Kind::Float), cell(Kind::Text), cell(Kind::Bool)).prop_map(|(i, f, s, b)| {
        Object([("i", i), ("f", f), ("s", s), ("b", b)].map(|(name, value)| (name.to_owned(), value)).to_vec())
    })
}

fn bound(value: &Typed) -> Bound {
    match value.clone() {
        Typed::Null => Bound::Null,
        Typed::Bool(flag) => Bound::Integer(i64::from(flag)),
        Typed::Int(number) => Bound::Integer(number),
        Typed::Float(number) => Bound::Real(number),
        Typed::Text(text) => Bound::Text(text),
        other => panic!("{other:?}"),
    }
}

/// A plain translation, independent of how the database service writes SQL.
fn sql(filter: &Filter, args: &mut Vec<Bound>) -> String {
    let mut joined = |filters: &[Filter], word: &str, none: &str| {
        let parts: Vec<String> = filters.iter().map(|filter| sql(filter, args)).collect();
        if parts.is_empty() { none.to_owned() } else { format!("({})", parts.join(word)) }
    };
    match filter {
        Filter::And(filters) => joined(filters, " AND ", "(1 = 1)"),
        Filter::Or(filters) => joined(filters, " OR ", "(1 = 0)"),
        Filter::Not(filter) => format!("(NOT {})", sql(filter, args)),
        Filter::Compare { column, comparison, value } => {
            args.push(bound(value));
            let sign = match comparison {
                Comparison::Eq => "=",
                Comparison::Ne => "<>",
                Comparison::Gt => ">",
                Comparison::Gte => ">=",
                Comparison::Lt => "<",
                Comparison::Lte => "<=",
            };
            format!("({column} {sign} ?)")
        }
        Filter::In { column, values } => {
            args.extend(values.iter().map(bound));
            format!("({column} IN ({}))", vec!["?"; values.len()].join(", "))
        }
        Filter::IsNull { column } => format!("({column} IS NULL)"),
        Filter::Related { .. } => panic!("one table only"),
    }
}

/// What SQLite says of `row`: true, false or unknown.
fn decided(connection: &Connection, filter: &Filter, row: &Object) -> Option<bool> {
    let mut args = Vec::new();
    let condition = sql(filter, &mut args);
    let mut all: Vec<Bound> = row.0.iter().map(|(column, value)| bound(&operand(column, value))).collect();
    connection.execute("DELETE FROM t", []).unwrap();
    connection
        .prepare_cached("INSERT INTO t (i, f, s, b) VALUES (?, ?, ?, ?)")
        .unwrap()
        .execute(rusqlite::params_from_iter(all.drain(..)))
        .unwrap();
    connection
        .query_row(&format!("SELECT {condition} FROM t"), rusqlite::params_from_iter(args), |row| row.get(0))
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_row_passes_where_it_passes_in_a_database(filter in filter(), rows in prop::collection::vec(row(), 1..6)) {
        let schema = schema();
        let table = schema.table("t").unwrap();
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (i INTEGER, f REAL, s TEXT, b BOOLEAN)").unwrap();
        for columns in &rows {
            let row = Row { table, columns, related: &[] };
            prop_assert_eq!(filter.matches(&row), decided(&connection, &filter, columns), "{:?}", columns);
        }
    }
}

fn parsed(schema: &Schema, table: &str, find: &str) -> Filter {
    rest(schema).filter(schema.table(table).unwrap(), &value(find), &mut crate::Budget::default()).unwrap()
}

#[test]
fn what_a_row_does_not_tell_is_unknown() {
    let schema = schema();
    let columns = object(r#"{"i": 1}"#);
    let row = Row { table: schema.table("t").unwrap(), columns: &columns, related: &[] };
    let matches = |find: &str| parsed(&schema, "t", find).matches(&row);
    assert_eq!(matches(r#"{"s": "x"}"#), None);
    assert_eq!(matches(r#"{"s": null}"#), None);
    assert_eq!(matches(r#"{"s": "x", "i": 2}"#), Some(false));
    assert_eq!(matches(r#"{"$or": [{"s": "x"}, {"i": 1}]}"#), Some(true));
    let unknown = Filter::IsNull { column: "gone".to_owned() };
    assert_eq!(unknown.matches(&row), None);
}

#[test]
fn spellings_of_one_value_are_equal() {
    let schema = Schema::new(vec![table("t", "d:decimal at:timestamp key:uuid n:int64", &[], &[])]);
    let columns = object(
        r#"{"d": "0.990", "at": "2009-01-01T00:00:00Z", "key": "0190C2C4-7A3E-7CC1-9A3B-5D0A4F0E6B1D", "n": "5"}"#,
    );
    let row = Row { table: schema.table("t").unwrap(), columns: &columns, related: &[] };
    for find in [
        r#"{"d": 0.99}"#,
        r#"{"d": {"$gt": 0.9, "$lt": "1e0"}}"#,
        r#"{"at": "2009-01-01"}"#,
        r#"{"at": {"$gte": "2008-12-31T23:00:00-01:00"}}"#,
        r#"{"key": "0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d"}"#,
        r#"{"n": 5.0}"#,
    ] {
        assert_eq!(parsed(&schema, "t", find).matches(&row), Some(true), "{find}");
    }
}

#[test]
fn related_rows_are_counted_once_they_are_known() {
    let schema = chinook();
    let track = schema.table("track").unwrap();
    let tracks = [object(r#"{"bytes": 1}"#), object(r#"{"bytes": 2}"#), object(r#"{"bytes": null}"#)];
    let rows: Vec<Row> = tracks.iter().map(|columns| Row { table: track, columns, related: &[] }).collect();
    let columns = object(r#"{"album_id": 1}"#);
    let matches = |rows: &[Row], find: &str| {
        let related = [Related { relation: "track", rows }];
        let row = Row { table: schema.table("album").unwrap(), columns: &columns, related: &related };
        parsed(&schema, "album", find).matches(&row)
    };
    assert_eq!(matches(&rows, r#"{"track": {"$some": {"bytes": 2}}}"#), Some(true));
    assert_eq!(matches(&rows, r#"{"track": {"$none": {"bytes": 3}}}"#), Some(true));
    assert_eq!(matches(&rows[..2], r#"{"track": {"$every": {"bytes": {"$gt": 0}}}}"#), Some(true));
    assert_eq!(matches(&rows, r#"{"track": {"$every": {"bytes": {"$gt": 0}}}}"#), Some(false));
    assert_eq!(matches(&[], r#"{"track": {"$every": {"bytes": 9}, "$none": {}}}"#), Some(true));
    assert_eq!(matches(&[], r#"{"track": {"$some": {}}}"#), Some(false));

    let alone = Row { table: schema.table("album").unwrap(), columns: &columns, related: &[] };
    let some = Filter::Related {
        relation: "track".to_owned(),
        long_name: None,
        quantifier: Quantifier::Some,
        filter: Box::new(Filter::TRUE),
    };
    assert_eq!(some.matches(&alone), None);
}

/// A table whose columns can be matched in memory as their names say.
fn matched() -> Schema {
    let mut table = table("t", "all:int64? equality:text? none:text? doc:json?", &[], &[]);
    for (column, matching) in table.columns.iter_mut().zip([Matching::All, Matching::Equality]) {
        column.abilities.matching = matching;
    }
    Schema::new(vec![table])
}

#[test]
fn a_condition_is_decidable_where_all_its_comparisons_are() {
    let schema = matched();
    let table = schema.table("t").unwrap();
    let undecidable = |find: &str| parsed(&schema, "t", find).undecidable(table).map(str::to_owned);
    for find in [
        "{}",
        r#"{ "all": { "$gt": 1, "$ne": 5 }, "equality": { "$in": ["a", "b"] } }"#,
        r#"{ "$or": [{ "equality": "a" }, { "equality": { "$ne": "b" } }, { "$not": { "all": { "$lte": 3 } } }] }"#,
        r#"{ "none": null, "equality": { "$isNull": false } }"#,
    ] {
        assert_eq!(undecidable(find), None, "{find}");
    }
    for (find, column) in [
        (r#"{ "equality": { "$gt": "a" } }"#, "equality"),
        (r#"{ "all": 1, "none": "a" }"#, "none"),
        (r#"{ "none": { "$in": ["a"] } }"#, "none"),
        (r#"{ "$or": [{ "all": 1 }, { "$not": { "none": { "$lt": "a" } } }] }"#, "none"),
        (r#"{ "doc": null }"#, "doc"),
    ] {
        assert_eq!(undecidable(find).as_deref(), Some(column), "{find}");
    }
    let chinook = chinook();
    let related = parsed(&chinook, "album", r#"{ "artist": { "name": "a" } }"#);
    assert_eq!(related.undecidable(chinook.table("album").unwrap()), Some("artist"));
}

#[test]
fn values_of_rules_get_the_form_of_their_columns() {
    let schema = matched();
    let table = schema.table("t").unwrap();
    let compare = |column: &str, value: Value| RuleFilter::Compare {
        column: column.to_owned(),
        comparison: Comparison::Eq,
        value,
    };
    let rule = RuleFilter::And(vec![
        RuleFilter::Or(vec![compare("all", value("\"5\"")), RuleFilter::IsNull { column: "equality".to_owned() }]),
        RuleFilter::Not(Box::new(RuleFilter::In { column: "all".to_owned(), values: vec![Value::Int(1)] })),
    ]);
    let typed = rule.typed(table).unwrap();
    for (columns, passes) in [
        (r#"{ "all": 5, "equality": "a" }"#, true),
        (r#"{ "all": 1, "equality": null }"#, false),
        (r#"{ "all": 2, "equality": null }"#, true),
        (r#"{ "all": 2, "equality": "a" }"#, false),
    ] {
        let columns = object(columns);
        assert_eq!(typed.matches(&Row { table, columns: &columns, related: &[] }), Some(passes), "{columns:?}");
    }
    assert!(matches!(compare("all", value("\"x\"")).typed(table), Err(Error::WrongType { name, .. }) if name == "all"));
    assert!(matches!(compare("gone", Value::Int(1)).typed(table), Err(Error::UnknownColumn { .. })));
}

#[test]
fn what_a_database_holds_beside_the_declared_type_compares_as_it_does_there() {
    let schema = Schema::new(vec![table("t", "small:int16? s:text?", &[], &[])]);
    let table = schema.table("t").unwrap();
    let columns = Object(vec![
        ("small".to_owned(), Value::Number("70000.5".to_owned())),
        ("s".to_owned(), Value::Text("a\0b".to_owned())),
    ]);
    let row = Row { table, columns: &columns, related: &[] };
    for (find, passes) in [
        (r#"{ "small": { "$gt": 5 } }"#, true),
        (r#"{ "small": 5 }"#, false),
        (r#"{ "s": { "$ne": "a" } }"#, true),
        (r#"{ "s": { "$gt": "a" } }"#, true),
    ] {
        assert_eq!(parsed(&schema, "t", find).matches(&row), Some(passes), "{find}");
    }
    let columns = Object(vec![("small".to_owned(), Value::Int(70_000))]);
    let row = Row { table, columns: &columns, related: &[] };
    assert_eq!(parsed(&schema, "t", r#"{ "small": { "$gt": 5 } }"#).matches(&row), Some(true));
}
