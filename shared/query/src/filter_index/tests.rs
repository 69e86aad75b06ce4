use proptest::prelude::*;

use super::*;
use crate::{Comparison, Row, Schema, Typed, comparable, fixtures::table};

/// A table with a column of each kind that memory decides on, and some that it does not.
fn wide() -> Table {
    let columns = "i:int64? f:float? s:text? b:bool? raw:bytes? day:date? clock:time? at:timestamp? key:uuid? d:decimal? \
                   any:any?";
    Schema::new(vec![table("t", columns, &[], &[])]).table("t").unwrap().clone()
}

const TEXTS: [&str; 13] = [
    "",
    "a",
    "A",
    "ab",
    "b",
    "é",
    "e\u{301}",
    "z",
    "😀",
    "0123456789abcdef",
    "0123456789abcdefg",
    "0123456789abcdeg",
    "1",
];

/// Values that clients give and rows have, a few for each column so that conditions meet them.
fn scalar(column: &'static str) -> BoxedStrategy<Value> {
    let texts = |texts: &'static [&'static str]| {
        prop::sample::select(texts).prop_map(|text| Value::Text(text.to_owned())).boxed()
    };
    let integer = prop_oneof![
        -2i64..4,
        prop::sample::select(&[i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1, 9_223_372_036_854_775_000][..]),
    ];
    let float = prop::sample::select(
        &["-1", "0", "-0.0", "0.5", "1", "1.5", "1e300", "0.1", "9007199254740993", "9223372036854775000", "1e18"][..],
    );
    let integer = integer.prop_map(Value::Int);
    let float = prop_oneof![
        8 => float.prop_map(|text| Value::number(text).unwrap()),
        1 => prop::sample::select(&["NaN", "Infinity", "-Infinity"][..]).prop_map(|text| Value::Text(text.to_owned())),
    ];
    match column {
        "i" => integer.boxed(),
        "f" | "d" => float.boxed(),
        "s" => texts(&TEXTS),
        "b" => any::<bool>().prop_map(Value::Bool).boxed(),
        "raw" => texts(&["", "AA==", "AAA=", "AAEC", "/w=="]),
        "day" => texts(&["1969-12-31", "1970-01-01", "2009-01-31", "2024-02-29"]),
        "clock" => texts(&["00:00:00", "13:14:15.5", "23:59:59.999999"]),
        "at" => texts(&["1969-12-31T23:59:59Z", "2009-01-31T13:14:15Z", "2009-01-31T13:14:15.000001Z"]),
        "key" => texts(&[
            "0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d",
            "0190C2C4-7A3E-7CC1-9A3B-5D0A4F0E6B1D",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ]),
        _ => prop_oneof![integer, float, texts(&TEXTS)].boxed(),
    }
}

const COLUMNS: [&str; 11] = ["i", "f", "s", "b", "raw", "day", "clock", "at", "key", "d", "any"];

/// A column and some values of it.
fn operands(count: std::ops::Range<usize>) -> impl Strategy<Value = (String, Vec<Typed>)> {
    prop::sample::select(&COLUMNS[..]).prop_flat_map(move |name| {
        prop::collection::vec(scalar(name), count.clone()).prop_map(move |values| {
            let table = wide();
            let column = table.column(name).unwrap();
            (name.to_owned(), values.iter().filter_map(|value| comparable(column, value).ok()).collect())
        })
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
    let comparison = prop::sample::select(vec![Eq, Ne, Gt, Gte, Lt, Lte]);
    let compare = (operands(1..2), comparison).prop_map(|((column, mut values), comparison)| match values.pop() {
        Some(value) => Filter::Compare { column, comparison, value },
        None => Filter::IsNull { column },
    });
    let within = operands(0..5).prop_map(|(column, values)| Filter::In { column, values });
    let is_null = prop::sample::select(&COLUMNS[..]).prop_map(|name| Filter::IsNull { column: name.to_owned() });
    prop_oneof![6 => compare, 2 => within, 1 => is_null].prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
            2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
            1 => inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

/// A value of a row: also none, and one that is not of its column, as a database may hold it.
fn cell(column: &'static str) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        2 => Just(Some(Value::Null)),
        12 => scalar(column).prop_map(Some),
        1 => scalar("any").prop_map(Some),
        1 => Just(None),
    ]
}

/// Images of a row, not always in the order of the table.
fn row() -> impl Strategy<Value = Object> {
    let cells: Vec<_> = COLUMNS.iter().map(|name| cell(name)).collect();
    (cells, any::<bool>()).prop_map(|(cells, is_reversed)| {
        let named = COLUMNS.iter().zip(cells).filter_map(|(name, cell)| Some(((*name).to_owned(), cell?)));
        let mut members: Vec<_> = named.collect();
        if is_reversed {
            members.reverse();
        }
        Object(members)
    })
}

/// What each filter says of each row by itself.
fn naive<'f>(filters: impl Iterator<Item = (&'f usize, &'f Filter)>, rows: &[&Object]) -> Vec<usize> {
    let table = wide();
    let passes = |filter: &Filter| {
        rows.iter().any(|columns| filter.matches(&Row { table: &table, columns, related: &[] }) == Some(true))
    };
    filters.filter(|(_, filter)| passes(filter)).map(|(key, _)| *key).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(tests_of_a_property()))]

    #[test]
    fn those_that_a_row_passes_are_found_once(
        filters in prop::collection::vec(filter(), 1..40),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        changes in prop::collection::vec((row(), prop::option::of(row())), 1..8),
    ) {
        let table = wide();
        let mut index = FilterIndex::new(&table);
        let mut handles: Vec<_> = filters.iter().enumerate().map(|(key, one)| Some(index.insert(one, key))).collect();
        let mut there: std::collections::BTreeMap<usize, &Filter> = filters.iter().enumerate().collect();
        for which in removed {
            let key = which.index(filters.len());
            if let Some(handle) = handles[key].take() {
                prop_assert_eq!(index.remove(handle), Some(key));
                there.remove(&key);
            } else {
                handles[key] = Some(index.insert(&filters[key], key));
                there.insert(key, &filters[key]);
            }
        }
        prop_assert_eq!(index.len(), there.len());
        for (before, after) in &changes {
            let rows: Vec<&Object> = [Some(before), after.as_ref()].into_iter().flatten().collect();
            let mut candidates = Vec::new();
            index.candidates(&rows, |key| candidates.push(*key));
            candidates.sort_unstable();
            prop_assert!(candidates.windows(2).all(|pair| pair[0] < pair[1]), "once each");
            let decided = naive(candidates.iter().map(|key| (key, there[key])), &rows);
            prop_assert_eq!(decided, naive(there.iter().map(|(key, filter)| (key, *filter)), &rows), "{:?}", rows);
        }
        for handle in handles.into_iter().flatten() {
            index.remove(handle);
        }
        prop_assert!(index.is_empty() && index.unselective.is_empty());
        prop_assert!(index.columns.iter().all(|column| column.points.is_empty() && column.ranges.is_empty()));
    }
}

/// Cases of the property: many where a proof is asked for.
fn tests_of_a_property() -> u32 {
    if std::env::var_os("PROVE").is_some() { 100_000 } else { 300 }
}

fn equals(column: &str, value: i64) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison: Comparison::Eq, value: Typed::Int(value) }
}

fn compares(column: &str, comparison: Comparison, value: f64) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value: Typed::Float(value) }
}

fn candidates(index: &mut FilterIndex<u32>, row: &[(&str, Value)]) -> Vec<u32> {
    let row = Object(row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
    let mut found = Vec::new();
    index.candidates(&[&row], |key| found.push(*key));
    found.sort_unstable();
    found
}

fn float(text: &str) -> Value {
    Value::number(text).unwrap()
}

#[test]
fn a_conjunction_is_found_by_its_most_selective_part() {
    let mut index = FilterIndex::new(&wide());
    let within = |low: f64, high: f64| vec![compares("f", Comparison::Gte, low), compares("f", Comparison::Lt, high)];
    index.insert(&Filter::And([within(1.0, 2.0), vec![equals("i", 7)]].concat()), 1);
    index.insert(&Filter::And(within(1.0, 2.0)), 2);
    index.insert(&Filter::And([within(1.0, 2.0), vec![Filter::IsNull { column: "s".to_owned() }]].concat()), 3);
    index.insert(&Filter::And([within(3.0, 2.0), vec![Filter::TRUE]].concat()), 4);
    assert_eq!(candidates(&mut index, &[("i", Value::Int(7)), ("f", float("9.5"))]), [1]);
    assert_eq!(candidates(&mut index, &[("i", Value::Int(8)), ("f", float("1.5"))]), [2, 3]);
    assert_eq!(candidates(&mut index, &[("f", float("2.5"))]), [0u32; 0], "also no range that nothing is in");
}

#[test]
fn an_equality_that_many_conditions_have_is_not_what_they_are_found_by() {
    let mut index = FilterIndex::new(&wide());
    for key in 0..1000 {
        let price = f64::from(key);
        let range = [compares("f", Comparison::Gte, price), compares("f", Comparison::Lt, price + 0.5)];
        index.insert(&Filter::And([vec![equals("i", 3)], range.to_vec()].concat()), key);
    }
    let found = candidates(&mut index, &[("i", Value::Int(3)), ("f", float("700.25"))]);
    assert!(found.contains(&700) && found.len() < 10, "{found:?}");
}

#[test]
fn what_has_no_place_is_found_by_each_row() {
    let mut index = FilterIndex::new(&wide());
    let not_equal = |column: &str| Filter::Not(Box::new(equals(column, 1)));
    let related = Filter::Related {
        relation: "r".to_owned(),
        long_name: None,
        quantifier: crate::Quantifier::Some,
        filter: Box::new(Filter::TRUE),
    };
    for (key, filter) in [
        Filter::TRUE,
        not_equal("i"),
        Filter::Or(vec![equals("i", 1), not_equal("i")]),
        related,
        equals("gone", 1),
        Filter::Or((0..1000).map(|value| equals("i", value)).collect()),
    ]
    .iter()
    .enumerate()
    {
        let handle = index.insert(filter, 7);
        assert_eq!(candidates(&mut index, &[("i", Value::Int(5000))]), [7], "{key}");
        index.remove(handle);
    }
    index.insert(&Filter::FALSE, 8);
    index.insert(&Filter::In { column: "i".to_owned(), values: Vec::new() }, 9);
    assert_eq!(candidates(&mut index, &[("i", Value::Int(1))]), [0u32; 0]);
}

#[test]
fn a_long_list_is_found_by_its_range() {
    let mut index = FilterIndex::new(&wide());
    index.insert(&Filter::In { column: "i".to_owned(), values: (0..1000).map(|n| Typed::Int(3 * n)).collect() }, 1);
    assert_eq!(candidates(&mut index, &[("i", Value::Int(3))]), [1]);
    assert_eq!(candidates(&mut index, &[("i", Value::Int(2998))]), [0u32; 0]);
}
