use proptest::prelude::*;
use prost::Message;
use query::{
    Abilities, Change, Column, Columns, Comparison, Comparisons, Document, Error, Field, FieldKind, Filter, ForeignKey,
    GrantTerms, Matching, Mutation, MutationKind, Node, Object, Operation, Quantifier, Read, Schema, Shape, Sort,
    Table, TableKind, Type, Typed, Value, Writes, read_accesses,
};

use super::member;
use crate::wire::{auth::v1 as auth, crud::v1 as crud, query::v1 as wire};

/// A table of employees and whom they report to, with a column of each type, and a view; the same of a neighbour.
fn schema() -> Schema {
    let mut far = employee();
    let hr = || Some("hr".to_owned());
    (far.database, far.foreign_keys[0].foreign_database, far.links[0].database) = (hr(), hr(), hr());
    let tables = vec![employee(), names(), far, Table { database: hr(), is_left_out: true, ..names() }];
    Schema::with_neighbours("music".to_owned(), tables)
}

fn employee() -> Table {
    use Type::{
        Address, Any, Bool, Bytes, Date, Decimal, Float, Int16, Int32, Int64, Json, List, Other, Text, Time, Timestamp,
        Uuid,
    };
    let one = [Bool, Int16, Int32, Int64, Float, Decimal, Text, Bytes, Date, Time, Timestamp, Uuid, Json, Other, Any];
    let types = one.into_iter().chain([Address, List(&Int16), List(&Address)]);
    let of_each_type = types.enumerate().map(|(index, r#type)| column(&format!("c{index}"), r#type));
    Table {
        name: "employee".to_owned(),
        database: None,
        kind: TableKind::Table,
        columns: [column("employee_id", Int32), column("reports_to", Int32)].into_iter().chain(of_each_type).collect(),
        primary_key: vec!["employee_id".to_owned()],
        unique_keys: vec![vec!["c6".to_owned(), "c7".to_owned()]],
        foreign_keys: vec![ForeignKey {
            columns: vec!["reports_to".to_owned()],
            foreign_database: None,
            foreign_table: "employee".to_owned(),
            foreign_columns: vec!["employee_id".to_owned()],
        }],
        relations: Vec::new(),
        links: vec![query::Relation {
            name: "known_as".to_owned(),
            long_name: None,
            database: None,
            table: "names".to_owned(),
            many: true,
            refers: true,
            on: vec![("c6".to_owned(), "name".to_owned())],
        }],
        writes: Writes::ALL,
        row_triggers: Writes { insert: true, ..Writes::NONE },
        row_id: Vec::new(),
        has_children: true,
        is_left_out: false,
    }
}

/// A view of names.
fn names() -> Table {
    Table {
        name: "names".to_owned(),
        kind: TableKind::View,
        columns: vec![column("name", Type::Text)],
        primary_key: Vec::new(),
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        links: Vec::new(),
        writes: Writes { delete: true, ..Writes::NONE },
        row_triggers: Writes::NONE,
        row_id: vec!["tableoid".to_owned(), "ctid".to_owned()],
        has_children: false,
        ..employee()
    }
}

/// A column whose other members depend on its name and type.
fn column(name: &str, r#type: Type) -> Column {
    let comparisons = match r#type {
        Type::Other => Comparisons::None,
        Type::Address => Comparisons::Equality,
        _ => Comparisons::All,
    };
    let matching = match r#type {
        Type::Text => Matching::Equality,
        Type::Json => Matching::None,
        _ => Matching::All,
    };
    Column {
        name: name.to_owned(),
        r#type,
        nullable: name == "reports_to",
        has_default: r#type == Type::Int16,
        generated: r#type == Type::Other,
        native: format!("native {name}"),
        readable: r#type != Type::Json,
        equality: query::Equality::default(),
        abilities: Abilities { comparisons, wide_times: r#type == Type::Date, matching },
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), scalar()];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let members = prop::collection::btree_map("[^\0]{0,4}", inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::List),
            members.prop_map(|members| Value::Object(Object(members.into_iter().collect()))),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zé_]{0,6}"
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        "[1-9]\\.[0-9]{1,20}".prop_map(Value::Number),
        "[^\0]{0,6}".prop_map(Value::Text),
    ]
}

fn typed() -> impl Strategy<Value = Typed> {
    let item = prop_oneof![3 => single(), 1 => Just(Typed::Null)];
    prop_oneof![11 => single(), 1 => prop::collection::vec(item, 0..4).prop_map(Typed::List)]
}

fn single() -> impl Strategy<Value = Typed> {
    let text = || "[^\0]{0,6}";
    prop_oneof![
        any::<bool>().prop_map(Typed::Bool),
        any::<i64>().prop_map(Typed::Int),
        (-1e300..1e300).prop_map(Typed::Float),
        "(-?[1-9]\\.[0-9]{1,20})|NaN|-?Infinity".prop_map(Typed::Decimal),
        text().prop_map(Typed::Text),
        any::<Vec<u8>>().prop_map(Typed::Bytes),
        any::<i32>().prop_map(Typed::Date),
        any::<i64>().prop_map(Typed::Time),
        any::<i64>().prop_map(Typed::Timestamp),
        any::<[u8; 16]>().prop_map(Typed::Uuid),
        text().prop_map(Typed::Other),
    ]
}

/// What a column can be set to.
fn stored() -> impl Strategy<Value = Typed> {
    prop_oneof![4 => typed(), 1 => Just(Typed::Null), 1 => "[0-9]{1,6}".prop_map(Typed::Json)]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
    prop::sample::select(vec![Eq, Ne, Gt, Gte, Lt, Lte])
}

fn quantifier() -> impl Strategy<Value = Quantifier> {
    prop::sample::select(vec![Quantifier::Some, Quantifier::None, Quantifier::Every])
}

fn filter<V>(value: fn() -> BoxedStrategy<V>) -> impl Strategy<Value = Filter<V>>
where
    V: std::fmt::Debug + Clone + 'static,
{
    let leaf = prop_oneof![
        Just(Filter::TRUE),
        Just(Filter::FALSE),
        (name(), comparison(), value()).prop_map(|(column, comparison, value)| Filter::Compare {
            column,
            comparison,
            value
        }),
        (name(), prop::collection::vec(value(), 0..4)).prop_map(|(column, values)| Filter::In { column, values }),
        name().prop_map(|column| Filter::IsNull { column }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
            inner.clone().prop_map(|filter| Filter::Not(Box::new(filter))),
            (name(), quantifier(), inner).prop_map(|(relation, quantifier, filter)| Filter::Related {
                relation,
                long_name: None,
                quantifier,
                filter: Box::new(filter),
            }),
        ]
    })
}

fn planned() -> impl Strategy<Value = Filter> {
    filter(|| typed().boxed())
}

fn node() -> impl Strategy<Value = Node> {
    let shape = || prop::sample::select(vec![Shape::Many, Shape::One, Shape::Count, Shape::Aggregate]);
    let sorts = || {
        let sort = (name(), any::<bool>()).prop_map(|(column, descending)| Sort { column, descending });
        prop::collection::vec(sort, 0..3)
    };
    let plain = || {
        prop_oneof![
            name().prop_map(FieldKind::Column),
            name().prop_map(FieldKind::Constant),
            Just(FieldKind::Count),
            Just(FieldKind::Columns)
        ]
    };
    let fields = |kind: BoxedStrategy<FieldKind>| {
        prop::collection::vec((name(), kind).prop_map(|(key, kind)| Field { key, kind }), 0..4)
    };
    let node = move |kind: BoxedStrategy<FieldKind>| {
        (shape(), fields(kind), planned(), sorts(), any::<u64>(), any::<Option<u64>>()).prop_map(
            |(shape, fields, filter, sort, skip, limit)| Node {
                shape,
                fields: fields.into(),
                filter,
                sort,
                skip,
                limit,
            },
        )
    };
    node(plain().boxed()).prop_recursive(2, 8, 3, move |inner| {
        let relation = (name(), inner).prop_map(|(name, node)| FieldKind::Relation { name, node });
        node(prop_oneof![plain(), relation].boxed())
    })
}

fn document() -> impl Strategy<Value = Document> {
    prop::collection::btree_map(name(), stored(), 0..4).prop_map(|members| Document(members.into_iter().collect()))
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let change = prop_oneof![
        (name(), stored()).prop_map(|(column, value)| Change::Set { column, value }),
        (name(), typed()).prop_map(|(column, by)| Change::Inc { column, by }),
    ];
    let kind = prop_oneof![
        prop::collection::vec(document(), 0..3).prop_map(|docs| MutationKind::Insert { docs: docs.into() }),
        (planned(), prop::collection::vec(change, 0..3), any::<bool>())
            .prop_map(|(filter, changes, one)| MutationKind::Update { filter, changes, one }),
        (planned(), any::<bool>()).prop_map(|(filter, one)| MutationKind::Delete { filter, one }),
    ];
    (name(), kind, prop::option::of(node())).prop_map(|(table, kind, returning)| Mutation { table, kind, returning })
}

fn grant() -> impl Strategy<Value = GrantTerms> {
    let operations = vec![Operation::Create, Operation::Read, Operation::Update, Operation::Delete];
    let names = || prop::option::of(prop::collection::vec(name(), 0..3));
    let columns = (names(), names(), names(), names()).prop_map(|(read, filter, write, deny)| Columns {
        read,
        filter,
        write,
        deny: deny.unwrap_or_default(),
    });
    (
        (name(), name(), name(), prop::sample::select(operations)),
        (filter(|| scalar().boxed()), filter(|| scalar().boxed()), columns, any::<bool>(), any::<i64>()),
    )
        .prop_map(|((project, database, table, operation), (filter, check, columns, allow_all, expires_ms))| {
            let columns = columns.into();
            GrantTerms { project, database, table, operation, filter, check, columns, allow_all, expires_ms }
        })
}

/// Encodes and decodes as the network does.
fn sent<M: Message + Default>(message: M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

proptest! {
    #[test]
    fn values_cross(value in values()) {
        prop_assert_eq!(Value::try_from(sent(wire::Value::from(value.clone()))), Ok(value));
    }

    #[test]
    fn typed_values_cross(value in stored()) {
        prop_assert_eq!(Typed::try_from(sent(wire::Value::from(value.clone()))), Ok(value));
    }

    #[test]
    fn filters_cross(filter in planned()) {
        prop_assert_eq!(Filter::try_from(sent(wire::Filter::from(filter.clone()))), Ok(filter));
    }

    #[test]
    fn reads_cross(node in node(), table in name()) {
        let read = Read { database: "d".into(), table: table.into(), node };
        prop_assert_eq!(Read::try_from(sent(wire::Read::from(read.clone()))), Ok(read));
    }

    #[test]
    fn mutations_cross(mutation in mutation()) {
        prop_assert_eq!(Mutation::try_from(sent(wire::Mutation::from(mutation.clone()))), Ok(mutation));
    }

    #[test]
    fn grants_cross(grant in grant()) {
        prop_assert_eq!(GrantTerms::try_from(sent(auth::Grant::from(grant.clone()))), Ok(grant));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = wire::Read::decode(bytes.as_slice()).map(Read::try_from);
        let _ = wire::Mutation::decode(bytes.as_slice()).map(Mutation::try_from);
        let _ = wire::Schema::decode(bytes.as_slice()).map(Schema::try_from);
        let _ = auth::Grant::decode(bytes.as_slice()).map(GrantTerms::try_from);
    }
}

#[test]
fn schemas_cross_with_the_same_relations() {
    let schema = schema();
    assert_eq!(Schema::try_from(sent(wire::Schema::from(&schema))), Ok(schema));
}

fn missing<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Malformed(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_missing_is_named() {
    let is_missing = |part: &str| format!("{part} is missing");
    assert_eq!(missing(Value::try_from(wire::Value::default())), is_missing("value.kind"));
    assert_eq!(missing(Filter::<Value>::try_from(wire::Filter::default())), is_missing("filter.kind"));
    assert_eq!(missing(Read::try_from(wire::Read::default())), is_missing("read.node"));
    assert_eq!(missing(Node::try_from(wire::Node::default())), is_missing("node.shape"));
    assert_eq!(missing(Field::try_from(wire::Field::default())), is_missing("field.kind"));
    assert_eq!(missing(Mutation::try_from(wire::Mutation::default())), is_missing("mutation.kind"));
    assert_eq!(missing(Change::try_from(wire::Change::default())), is_missing("change.operation"));
    assert_eq!(missing(GrantTerms::try_from(auth::Grant::default())), is_missing("operation"));
    let compare = wire::Compare { operator: wire::Operator::Eq.into(), ..Default::default() };
    let filter = wire::Filter { kind: Some(wire::filter::Kind::Compare(compare)) };
    assert_eq!(missing(Filter::<Value>::try_from(filter)), is_missing("compare.value"));
    let filter = wire::Filter { kind: Some(wire::filter::Kind::Related(Box::default())) };
    assert_eq!(missing(Filter::<Value>::try_from(filter)), is_missing("related.filter"));
}

#[test]
fn a_grant_without_columns_is_refused_rather_than_read_as_all_columns() {
    let grant = auth::Grant { operation: wire::Operation::Read.into(), ..Default::default() };
    assert_eq!(missing(GrantTerms::try_from(grant)), "grant.columns is missing");
}

#[test]
fn members_of_enums_from_the_future_are_refused() {
    assert_eq!(missing(member::<wire::Shape, Shape>(99, "node.shape")), "node.shape 99 is not known");
    assert_eq!(missing(member::<wire::Operation, Operation>(0, "operation")), "operation is missing");
}

#[test]
fn values_that_cannot_be_compared_are_refused() {
    let compare =
        wire::Compare { column: "a".to_owned(), operator: wire::Operator::Eq.into(), value: Some(Value::Null.into()) };
    let filter = wire::Filter { kind: Some(wire::filter::Kind::Compare(compare)) };
    assert_eq!(Filter::<Value>::try_from(filter).unwrap_err().reason(), "WRONG_TYPE");
    let within = wire::In { column: "a".to_owned(), values: vec![Value::Object(Object(vec![])).into()] };
    let filter = wire::Filter { kind: Some(wire::filter::Kind::In(within)) };
    assert_eq!(Filter::<Value>::try_from(filter).unwrap_err().reason(), "WRONG_TYPE");
}

#[test]
fn numbers_are_numbers() {
    let number = |text: &str| Value::try_from(wire::Value { kind: Some(wire::value::Kind::Number(text.to_owned())) });
    assert_eq!(number("0.10"), Ok(Value::Number("0.10".to_owned())));
    assert_eq!(number("5"), Ok(Value::Int(5)));
    assert_eq!(missing(number("1; drop table x")), "invalid number in value.number");
}

#[test]
fn values_of_columns_have_their_form() {
    let typed = |kind| Typed::try_from(wire::Value { kind: Some(kind) });
    assert_eq!(missing(typed(wire::value::Kind::Uuid(vec![0; 15]))), "value.uuid must have 16 bytes");
    assert_eq!(missing(typed(wire::value::Kind::Decimal("1;".to_owned()))), "invalid decimal in value.decimal");
    assert_eq!(
        missing(typed(wire::value::Kind::Number("1.5".to_owned()))),
        "invalid value.kind: expected a value of a column"
    );
    assert_eq!(
        missing(Value::try_from(wire::Value::from(Typed::Float(1.5)))),
        "invalid value.kind: expected a value of a client"
    );
}

#[test]
fn a_member_that_appears_twice_is_refused() {
    let member = || wire::Member { name: "a".to_owned(), value: Some(Value::Null.into()) };
    let object = wire::Object { members: vec![member(), member()] };
    assert_eq!(missing(Object::try_from(object)), "member a appears twice");
}

/// A condition in which each level is built by `wrap` out of the one below.
fn nested(levels: usize, wrap: fn(Filter) -> Filter) -> Filter {
    let leaf = Filter::Compare { column: "employee_id".to_owned(), comparison: Comparison::Eq, value: Typed::Int(1) };
    (0..levels).fold(leaf, |filter, _| wrap(filter))
}

/// The deepest of `operations` that a walk lets pass still crosses the wire.
fn deepest_crosses<T>(
    operations: impl Fn(usize) -> T,
    walk: impl Fn(&T) -> Result<(), Error>,
    cross: impl Fn(T) -> bool,
) {
    let deepest = (0..200).take_while(|&levels| walk(&operations(levels)).is_ok()).last().unwrap();
    assert!(deepest > 20 && deepest < 100, "{deepest}");
    assert!(cross(operations(deepest)), "{deepest}");
    assert_eq!(walk(&operations(deepest + 1)).unwrap_err().reason(), "TOO_COMPLEX");
}

fn crosses<M: prost::Message + Default + PartialEq>(message: &M) -> bool {
    M::decode(message.encode_to_vec().as_slice()).is_ok_and(|decoded| decoded == *message)
}

#[test]
fn the_deepest_read_that_is_walked_crosses_the_wire() {
    let schema = schema();
    let wraps: [fn(Filter) -> Filter; 4] = [
        |filter| Filter::Not(Box::new(filter)),
        |filter| Filter::And(vec![filter]),
        |filter| Filter::Or(vec![Filter::TRUE, filter]),
        |filter| Filter::Related {
            relation: "employee_by_reports_to".to_owned(),
            long_name: None,
            quantifier: Quantifier::Every,
            filter: Box::new(filter),
        },
    ];
    for wrap in wraps {
        let operations = |levels| Read {
            database: "music".into(),
            table: "employee".into(),
            node: Node { filter: nested(levels, wrap), ..Node::new(Shape::Many, vec![Field::column("employee_id")]) },
        };
        let cross = |read: Read| crosses(&crud::ReadRequest { reads: vec![read.into()], ..Default::default() });
        deepest_crosses(operations, |read| read_accesses(&schema, read).map(|_| ()), cross);
    }
}

#[test]
fn the_deepest_tree_that_is_walked_crosses_the_wire() {
    let schema = schema();
    let operations = |levels| {
        let leaf = Node::new(Shape::Many, vec![Field::column("employee_id")]);
        let node = (0..levels).fold(leaf, |node, _| {
            let name = "employee_by_reports_to".to_owned();
            let field = Field { key: "up".to_owned(), kind: FieldKind::Relation { name, node } };
            Node::new(Shape::Many, vec![field])
        });
        Read { database: "music".into(), table: "employee".into(), node }
    };
    let cross = |read: Read| crosses(&crud::ReadRequest { reads: vec![read.into()], ..Default::default() });
    deepest_crosses(operations, |read| read_accesses(&schema, read).map(|_| ()), cross);
}
