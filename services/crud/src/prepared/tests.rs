//! Shapes tell apart what is compiled in different ways.

use std::collections::HashSet;

use query::{Comparison, Field, Operation, Quantifier, RuleFilter, Shape, Sort, Typed, Value};

use super::*;

fn compare<V>(column: &str, comparison: Comparison, value: V) -> Filter<V> {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

fn read(change: impl FnOnce(&mut Node)) -> Read {
    let mut node = Node::new(Shape::Many, vec![Field::column("a"), Field::column("b")]);
    node.filter = compare("a", Comparison::Eq, Typed::Int(1));
    change(&mut node);
    Read { database: "music".to_owned(), table: "t".to_owned(), node }
}

fn terms(change: impl FnOnce(&mut GrantTerms)) -> Arc<GrantTerms> {
    let mut terms = GrantTerms {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: "t".to_owned(),
        operation: Operation::Read,
        filter: compare("b", Comparison::Eq, Value::Int(1)),
        check: Filter::TRUE,
        columns: Columns::default().into(),
        allow_all: false,
        expires_ms: 0,
    };
    change(&mut terms);
    Arc::new(terms)
}

fn key(reads: &[Read], grants: &[Arc<GrantTerms>], limit: u64) -> Vec<u8> {
    ReadShape::of(0, reads, grants, limit).key
}

#[test]
fn values_are_no_part_of_a_shape() {
    let (one, two) = (read(|_| {}), read(|node| node.filter = compare("a", Comparison::Eq, Typed::Text("x".into()))));
    assert_eq!(key(&[one], &[], 10), key(&[two], &[], 10));
    let other = |value| terms(|terms| terms.filter = compare("b", Comparison::Eq, value));
    assert_eq!(key(&[], &[other(Value::Int(1))], 10), key(&[], &[other(Value::Bool(true))], 10));
    let list = |values: &[i64]| {
        let values = values.iter().copied().map(Typed::Int).collect();
        read(|node| node.filter = Filter::In { column: "a".to_owned(), values })
    };
    assert_eq!(key(&[list(&[1])], &[], 10), key(&[list(&[1, 2, 3])], &[], 10));
    assert_ne!(key(&[list(&[1])], &[], 10), key(&[list(&[])], &[], 10));
}

#[test]
fn everything_else_is() {
    let equal = |column: &str| compare(column, Comparison::Eq, Typed::Int(1));
    let related =
        |quantifier, filter| Filter::Related { relation: "r".to_owned(), long_name: None, quantifier, filter };
    let nested = |node: Node| Field { key: "r".to_owned(), kind: FieldKind::Relation { name: "r".to_owned(), node } };
    let named = |name: &str| Field { key: name.to_owned(), kind: FieldKind::Column("a".to_owned()) };
    let sorted = |columns: &[(&str, bool)]| {
        let keys =
            columns.iter().map(|(column, descending)| Sort { column: (*column).into(), descending: *descending });
        keys.collect::<Vec<_>>()
    };
    let reads = [
        read(|_| {}),
        Read { table: "u".to_owned(), ..read(|_| {}) },
        read(|node| node.shape = Shape::One),
        read(|node| node.skip = 1),
        read(|node| node.limit = Some(0)),
        read(|node| node.limit = Some(1)),
        read(|node| node.sort = sorted(&[("a", false)])),
        read(|node| node.sort = sorted(&[("a", true)])),
        read(|node| node.sort = sorted(&[("a", false), ("b", false)])),
        read(|node| node.fields = vec![Field::column("a")].into()),
        read(|node| node.fields = vec![Field::column("ab")].into()),
        read(|node| node.fields = vec![Field::column("b"), Field::column("a")].into()),
        read(|node| node.fields = vec![named("b")].into()),
        read(|node| node.fields = vec![Field { kind: FieldKind::Constant("a".to_owned()), ..named("a") }].into()),
        read(|node| node.fields = vec![Field { kind: FieldKind::Count, ..named("a") }].into()),
        read(|node| node.fields = vec![nested(Node::new(Shape::Many, vec![]))].into()),
        read(|node| node.fields = vec![nested(Node::new(Shape::One, vec![]))].into()),
        read(|node| node.fields = vec![nested(Node::new(Shape::Many, vec![Field::column("a")]))].into()),
        read(|node| node.filter = Filter::TRUE),
        read(|node| node.filter = Filter::FALSE),
        read(|node| node.filter = equal("b")),
        read(|node| node.filter = compare("a", Comparison::Ne, Typed::Int(1))),
        read(|node| node.filter = compare("a", Comparison::Lt, Typed::Int(1))),
        read(|node| node.filter = Filter::IsNull { column: "a".to_owned() }),
        read(|node| node.filter = Filter::In { column: "a".to_owned(), values: vec![Typed::Int(1)] }),
        read(|node| node.filter = Filter::Not(Box::new(equal("a")))),
        read(|node| node.filter = Filter::And(vec![equal("a")])),
        read(|node| node.filter = Filter::And(vec![equal("a"), equal("a")])),
        read(|node| node.filter = Filter::Or(vec![equal("a"), equal("a")])),
        read(|node| node.filter = related(Quantifier::Some, Box::new(equal("a")))),
        read(|node| node.filter = related(Quantifier::Every, Box::new(equal("a")))),
        read(|node| node.filter = related(Quantifier::None, Box::new(equal("a")))),
        read(|node| node.filter = related(Quantifier::None, Box::new(equal("b")))),
    ];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let columns = |columns: Columns| terms(|terms| terms.columns = columns.into());
    let grants = [
        terms(|_| {}),
        terms(|terms| terms.table = "u".to_owned()),
        terms(|terms| terms.operation = Operation::Update),
        terms(|terms| terms.filter = RuleFilter::TRUE),
        terms(|terms| terms.filter = compare("a", Comparison::Eq, Value::Int(1))),
        columns(Columns { deny: names(&["a"]), ..Columns::default() }),
        columns(Columns { deny: names(&["a", "b"]), ..Columns::default() }),
        columns(Columns { deny: names(&["ab"]), ..Columns::default() }),
        columns(Columns { read: Some(names(&[])), ..Columns::default() }),
        columns(Columns { read: Some(names(&["a"])), ..Columns::default() }),
        columns(Columns { filter: Some(names(&[])), ..Columns::default() }),
        columns(Columns { filter: Some(names(&["a"])), ..Columns::default() }),
    ];
    let mut keys = Vec::new();
    keys.extend(reads.iter().map(|read| key(std::slice::from_ref(read), &[], 10)));
    keys.extend(grants.iter().map(|grant| key(&[], std::slice::from_ref(grant), 10)));
    keys.push(key(&[], &[], 10));
    keys.push(key(&[], &[], 11));
    keys.push(key(&reads[..2], &[], 10));
    keys.push(key(&reads[..1], &grants[..1], 10));
    keys.push(ReadShape::of(1, &reads[..1], &[], 10).key);
    let distinct: HashSet<&Vec<u8>> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn long_texts_and_lists_are_told_apart_too() {
    let long = |len: usize| read(|node| node.fields = vec![Field::column(&"x".repeat(len))].into());
    let lens = [254, 255, 256, 511, 512];
    let distinct: HashSet<Vec<u8>> = lens.into_iter().map(|len| key(&[long(len)], &[], 10)).collect();
    assert_eq!(distinct.len(), lens.len());
}
