//! Shapes tell apart what is compiled in different ways.

use std::collections::HashSet;

use query::{
    Comparison, Field, Mutation, MutationKind, Operation, Quantifier, RuleFilter, Shape, Sort, Type, Typed, Value,
};

use super::*;
use crate::{
    cell::KeyForm,
    sql::{Dialect, Returned},
    store::FormedColumn,
    tree::{JsonMember, Level},
    write::{CompiledInsert, RowAnswer, row_size::RowSize},
};

fn compare<V>(column: &str, comparison: Comparison, value: V) -> Filter<V> {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

fn read(change: impl FnOnce(&mut Node)) -> Read {
    let mut node = Node::new(Shape::Many, vec![Field::column("a"), Field::column("b")]);
    node.filter = compare("a", Comparison::Eq, Typed::Int(1));
    change(&mut node);
    Read { database: "music".into(), table: "t".into(), node }
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
    RequestShape::of(0, reads, grants, limit).key
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
        Read { table: "u".into(), ..read(|_| {}) },
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
    keys.push(RequestShape::of(1, &reads[..1], &[], 10).key);
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

/// A shape counts its texts by a byte where they are short, and by nine where they are not.
#[test]
fn the_length_of_a_text_takes_a_byte_or_nine() {
    let bytes = |len: usize| {
        let read = read(|node| node.fields = vec![Field::column(&"x".repeat(len))].into());
        key(&[read], &[], 10).len()
    };
    // The text stands there twice: as the name of the field, and as that of its column.
    let others = bytes(1) - 2 * (1 + 1);
    for (len, count_bytes) in [(0, 1), (254, 1), (255, 9), (256, 9)] {
        assert_eq!(bytes(len) - others, 2 * (count_bytes + len), "{len}");
    }
}

#[test]
fn no_two_snapshots_have_a_number() {
    let reads = PreparedOperations::default();
    let clone = reads.clone();
    let numbers: HashSet<u64> = (0..3).flat_map(|_| [reads.next_snapshot(), clone.next_snapshot()]).collect();
    assert_eq!(numbers.len(), 6);
}

fn statement(args: Vec<(Bind, ArgSource)>) -> Statement {
    let (args, sources) = args.into_iter().unzip();
    Statement { text: "SELECT 1".into(), args, columns: [].into(), sources, plain: None }
}

fn compiled(statement: Statement) -> CompiledReads {
    CompiledReads { plans: Vec::new(), statements: vec![statement] }
}

#[test]
fn a_list_of_a_request_is_bound_to_that_of_the_next() {
    let column = Column::new("a", Type::Int64, "INTEGER");
    let listed = |values: &[i64]| {
        let values = values.iter().copied().map(Typed::Int).collect();
        [read(|node| node.filter = Filter::In { column: "a".to_owned(), values })]
    };
    let [first] = &listed(&[1]);
    let Filter::In { values, .. } = &first.node.filter else { unreachable!("it was just made") };
    let source = ArgSource::Request { address: values.as_ptr().addr(), column };
    let prepared = PreparedOperations::default();
    let shape = RequestShape::of(0, std::slice::from_ref(first), &[], 10);
    prepared.keep(shape, &compiled(statement(vec![(Bind::List(values.clone()), source)])));

    let next = listed(&[2, 3]);
    let bound = prepared.bind(&RequestShape::of(0, &next, &[], 10)).unwrap().expect("its shape is known");

    assert_eq!(bound.statements[0].args, [Bind::List(vec![Typed::Int(2), Typed::Int(3)])]);
}

#[test]
fn a_shape_over_the_limit_is_not_kept() {
    let named =
        |len: usize| read(|node| node.fields = vec![Field::column(&"x".repeat(len)), Field::column("b")].into());
    let base = key(&[named(1000)], &[], 10).len() - 2 * 1000;
    for (bytes, is_kept) in [(SHAPE_BYTES_MAX, true), (SHAPE_BYTES_MAX + 2, false)] {
        let named = [named((bytes - base) / 2)];
        let shape = || RequestShape::of(0, &named, &[], 10);
        assert!(shape().key.len().abs_diff(bytes) <= 1 && (shape().key.len() > SHAPE_BYTES_MAX) != is_kept);
        let prepared = PreparedOperations::default();
        prepared.keep(shape(), &compiled(statement(Vec::new())));
        assert_eq!(prepared.bind(&shape()).unwrap().is_some(), is_kept, "{bytes}");
    }
}

/// Its weight is near the memory that each of its parts takes, so that the limit of the cache means bytes.
#[test]
fn all_of_a_read_counts_for_its_weight() {
    const MANY: usize = 1000;
    let column = || FormedColumn { table: "t".into(), column: "a".into(), function: "perigee_timestamp" };
    let template = || StatementTemplate { text: "".into(), plain: None, columns: [].into(), args: Vec::new() };
    let level = |members: usize| Level {
        name: String::new(),
        shape: Shape::Many,
        is_asked: true,
        link: Vec::new(),
        key_form: KeyForm::Equal,
        members: (0..members).map(|_| JsonMember::Count { key: Vec::new() }).collect(),
        most: 0,
        cut: None,
        is_void: false,
    };
    let weight = |shape: usize, statements: Vec<StatementTemplate>, levels: Vec<Level>| {
        let read = PreparedRead { plans: vec![Plan { levels: levels.into() }], statements };
        usize::try_from(OperationWeighter.weight(&vec![0; shape].into(), &PreparedOperation::Reads(Arc::new(read))))
            .unwrap()
    };
    let one = |statement: StatementTemplate| weight(0, vec![statement], Vec::new());
    let text: Arc<str> = "x".repeat(MANY).into();
    let plain = |text: Arc<str>, columns: usize| {
        Some(PlainStatement { text, columns: (0..columns).map(|_| column()).collect() })
    };
    let output = Output { r#type: Type::Int64, scale: None };
    let args = (0..MANY).map(|_| PreparedArg::Constant(Bind::Value(Typed::Null))).collect();
    let nothing = weight(0, Vec::new(), Vec::new());
    let (empty, unformed) = (one(template()), one(StatementTemplate { plain: plain("".into(), 0), ..template() }));
    let leveled = weight(0, Vec::new(), vec![level(0)]);

    assert!((size_of::<PreparedRead>()..500).contains(&nothing), "{nothing}");
    for (part, found, bytes) in [
        // The names of its members stand in the plan too.
        ("shape", weight(MANY, Vec::new(), Vec::new()) - nothing, 2),
        (
            "statements",
            weight(0, (0..MANY).map(|_| template()).collect(), Vec::new()) - nothing,
            size_of_val(&template()),
        ),
        ("text", one(StatementTemplate { text: text.clone(), ..template() }) - empty, 1),
        ("plain text", one(StatementTemplate { plain: plain(text, 0), ..template() }) - unformed, 1),
        (
            "plain columns",
            one(StatementTemplate { plain: plain("".into(), MANY), ..template() }) - unformed,
            size_of_val(&column()),
        ),
        ("args", one(StatementTemplate { args, ..template() }) - empty, size_of::<PreparedArg>()),
        (
            "columns",
            one(StatementTemplate { columns: vec![output; MANY].into(), ..template() }) - empty,
            size_of::<Output>(),
        ),
        ("levels", weight(0, Vec::new(), (0..MANY).map(|_| level(0)).collect()) - nothing, size_of::<Level>()),
        ("members", weight(0, Vec::new(), vec![level(MANY)]) - leveled, size_of::<JsonMember>()),
    ] {
        assert!((MANY * bytes..=MANY * bytes * 4).contains(&found), "{part}: {found}, {bytes} bytes each");
    }
}

#[test]
fn all_of_an_insert_counts_for_its_weight() {
    const MANY: usize = 1000;
    let template = |args: usize| {
        let args = (0..args).map(|_| PreparedArg::Constant(Bind::Value(Typed::Null))).collect();
        StatementTemplate { text: "".into(), plain: None, columns: [].into(), args }
    };
    let members = |count: usize| (0..count).map(|_| JsonMember::Count { key: Vec::new() }).collect();
    let answer = |count: usize| {
        let level = Level {
            name: String::new(),
            shape: Shape::Many,
            is_asked: false,
            link: Vec::new(),
            key_form: KeyForm::Equal,
            members: members(count),
            most: 0,
            cut: None,
            is_void: false,
        };
        RowAnswer { plan: Plan { levels: [level].into() }, size: RowSize::of_sent(count), row_bytes: 0 }
    };
    let weight = |statement: StatementTemplate, answer: Option<RowAnswer>| {
        let insert = PreparedInsert { statement, returned: Returned::default(), answer };
        let prepared = PreparedOperation::Insert(Arc::new(insert));
        usize::try_from(OperationWeighter.weight(&Vec::new().into(), &prepared)).unwrap()
    };
    let (nothing, empty) = (weight(template(0), None), weight(template(0), Some(answer(0))));
    let member = size_of::<JsonMember>() + size_of::<usize>();

    assert!((size_of::<PreparedInsert>()..600).contains(&nothing), "{nothing}");
    assert!((size_of::<Level>()..600).contains(&(empty - nothing)), "{}", empty - nothing);
    for (part, found, bytes) in [
        ("args", weight(template(MANY), None) - nothing, size_of::<PreparedArg>()),
        ("members", weight(template(0), Some(answer(MANY))) - empty, member),
    ] {
        assert!((MANY * bytes..=MANY * bytes * 4).contains(&found), "{part}: {found}, {bytes} bytes each");
    }
}

fn document(columns: &[&str]) -> MutationKind {
    let member = |(at, name): (usize, &&str)| ((*name).to_owned(), Typed::Int(at as i64));
    let members = columns.iter().enumerate().map(member).collect();
    MutationKind::Insert { docs: [query::Document(members)].into() }
}

fn insert(change: impl FnOnce(&mut Mutation)) -> Mutation {
    let returning = Some(Node::new(Shape::Many, vec![Field::column("a")]));
    let mut insert = Mutation { table: "t".to_owned(), kind: document(&["a", "b"]), returning };
    change(&mut insert);
    insert
}

fn insert_key(insert: &Mutation, grants: &[Arc<GrantTerms>], limit: u64) -> Vec<u8> {
    SingleInsert::of(std::slice::from_ref(insert)).expect("it is one").shape(0, grants, limit).key
}

fn created(change: impl FnOnce(&mut GrantTerms)) -> Arc<GrantTerms> {
    let mut terms = GrantTerms::clone(&terms(|_| {}));
    (terms.operation, terms.filter) = (Operation::Create, RuleFilter::TRUE);
    change(&mut terms);
    Arc::new(terms)
}

#[test]
fn values_of_a_document_are_no_part_of_a_shape() {
    let one = insert(|_| {});
    let two = insert(|insert| {
        let members = vec![("a".to_owned(), Typed::Null), ("b".to_owned(), Typed::Text("x".to_owned()))];
        insert.kind = MutationKind::Insert { docs: [query::Document(members)].into() };
    });
    assert_eq!(insert_key(&one, &[], 10), insert_key(&two, &[], 10));
    let checked = |value| created(|terms| terms.check = compare("b", Comparison::Eq, value));
    let keys = [Value::Int(1), Value::Null].map(|value| insert_key(&one, &[checked(value)], 10));
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn everything_else_of_an_insert_is() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let columns = |columns: Columns| created(|terms| terms.columns = columns.into());
    let returning = |node: Node| insert(|insert| insert.returning = Some(node));
    let inserts = [
        insert(|_| {}),
        insert(|insert| insert.table = "u".to_owned()),
        insert(|insert| insert.kind = document(&["a"])),
        insert(|insert| insert.kind = document(&["b", "a"])),
        insert(|insert| insert.kind = document(&["ab"])),
        insert(|insert| insert.kind = document(&[])),
        insert(|insert| insert.returning = None),
        returning(Node::new(Shape::Many, vec![])),
        returning(Node::new(Shape::Many, vec![Field::column("b")])),
        returning(Node::new(Shape::One, vec![Field::column("a")])),
        returning(Node { skip: 1, ..Node::new(Shape::Many, vec![Field::column("a")]) }),
        returning(Node { limit: Some(1), ..Node::new(Shape::Many, vec![Field::column("a")]) }),
        returning(Node { filter: compare("a", Comparison::Eq, Typed::Int(1)), ..Node::new(Shape::Many, vec![]) }),
    ];
    let grants = [
        created(|_| {}),
        created(|terms| terms.database = "other".to_owned()),
        created(|terms| terms.table = "u".to_owned()),
        created(|terms| terms.operation = Operation::Update),
        created(|terms| terms.filter = compare("a", Comparison::Eq, Value::Int(1))),
        created(|terms| terms.check = compare("a", Comparison::Eq, Value::Int(1))),
        created(|terms| terms.check = compare("a", Comparison::Lt, Value::Int(1))),
        created(|terms| terms.check = RuleFilter::FALSE),
        columns(Columns { deny: names(&["a"]), ..Columns::default() }),
        columns(Columns { read: Some(names(&["a"])), ..Columns::default() }),
        columns(Columns { filter: Some(names(&["a"])), ..Columns::default() }),
        columns(Columns { write: Some(names(&["a"])), ..Columns::default() }),
        columns(Columns { write: Some(names(&[])), ..Columns::default() }),
    ];
    let mut keys = Vec::new();
    keys.extend(inserts.iter().map(|insert| insert_key(insert, &[], 10)));
    keys.extend(grants.iter().map(|grant| insert_key(&inserts[0], std::slice::from_ref(grant), 10)));
    keys.push(insert_key(&inserts[0], &grants[..2], 10));
    keys.push(insert_key(&inserts[0], &[grants[1].clone(), grants[0].clone()], 10));
    keys.push(insert_key(&inserts[0], &[], 11));
    keys.push(SingleInsert::of(&inserts[..1]).unwrap().shape(1, &[], 10).key);
    keys.push(key(&[], &[], 10));
    let distinct: HashSet<&Vec<u8>> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

/// An insert of one shape is none of another, and reads are no inserts.
#[test]
fn a_prepared_insert_is_found_by_its_shape_alone() {
    let column = Column::new("a", Type::Int64, "INTEGER");
    let first = insert(|insert| insert.kind = document(&["a"]));
    let one = SingleInsert::of(std::slice::from_ref(&first)).unwrap();
    let MutationKind::Insert { docs } = &first.kind else { unreachable!("it was just made") };
    let source = ArgSource::Request { address: std::ptr::from_ref(&docs[0].0[0].1).addr(), column };
    let statement = statement(vec![(Bind::Value(Typed::Int(0)), source)]);
    let prepared = PreparedOperations::default();
    let compiled = CompiledInsert { statement, returned: Returned::default(), answer: None };
    prepared.keep_insert(one.shape(0, &[], 10), &compiled);

    let bound = |insert: &Mutation, snapshot| {
        let shape = SingleInsert::of(std::slice::from_ref(insert)).unwrap().shape(snapshot, &[], 10);
        prepared.bind_insert(&shape, &Dialect::Sqlite).unwrap().map(|insert| insert.statement.args)
    };
    let seven = insert(|insert| {
        let member = ("a".to_owned(), Typed::Int(7));
        insert.kind = MutationKind::Insert { docs: [query::Document(vec![member])].into() };
    });
    assert_eq!(bound(&seven, 0), Some(vec![Bind::Value(Typed::Int(7))]));
    assert_eq!(bound(&seven, 1), None);
    assert_eq!(bound(&insert(|_| {}), 0), None);
    assert!(prepared.bind(&one.shape(0, &[], 10)).unwrap().is_none());
}

/// A value that was typed for an older schema is typed for the column that is there now, or refused.
#[test]
fn values_of_a_document_are_bound_as_their_column_stores_them() {
    let bind = |r#type, native: &str, value: &Typed, dialect: &Dialect| {
        let args = vec![PreparedArg::Request(0, Column::new("a", r#type, native))];
        let template = StatementTemplate { text: "".into(), plain: None, columns: [].into(), args };
        let values = [RequestValue::Stored(value)];
        let mut bound = template.bind(&values)?;
        template.check_stored(&values, &bound.args, dialect)?;
        Ok::<_, Error>(bound.args.remove(0))
    };
    let sqlite = &Dialect::Sqlite;
    let text = Typed::Text("5".to_owned());
    assert_eq!(bind(Type::Int32, "INTEGER", &text, sqlite), Ok(Bind::Value(Typed::Int(5))));
    assert!(bind(Type::Int32, "INTEGER", &Typed::Text("x".to_owned()), sqlite).is_err());
    assert_eq!(bind(Type::Int32, "INTEGER", &Typed::Null, sqlite), Ok(Bind::Value(Typed::Null)));
    assert!(bind(Type::Float, "REAL", &Typed::Float(f64::NAN), sqlite).is_err());
    assert!(bind(Type::Float, "float8", &Typed::Float(f64::NAN), &Dialect::postgres("public", Vec::new())).is_ok());
    let rounded = bind(Type::Decimal, "NUMERIC(10,2)", &Typed::Decimal("1.005".to_owned()), sqlite).unwrap();
    assert_ne!(rounded, Bind::Value(Typed::Decimal("1.005".to_owned())));
}
