use proptest::prelude::*;
use prost::Message;
use proto::auth::v1 as auth;
use proto::query::v1 as wire;

use crate::samples::{chinook, types};
use crate::value::tests::values;
use crate::{
    Change, Columns, Comparison, Error, Field, Filter, Grant, Mutation, Node, Object, Operation, Quantifier, Read,
    Schema, Set, Shape, Sort, Value, What,
};

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

fn comparison() -> impl Strategy<Value = Comparison> {
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
    prop::sample::select(vec![Eq, Ne, Gt, Gte, Lt, Lte])
}

fn quantifier() -> impl Strategy<Value = Quantifier> {
    prop::sample::select(vec![Quantifier::Some, Quantifier::None, Quantifier::Every])
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        Just(Filter::TRUE),
        Just(Filter::FALSE),
        (name(), comparison(), scalar()).prop_map(|(column, comparison, value)| Filter::Compare {
            column,
            comparison,
            value
        }),
        (name(), prop::collection::vec(scalar(), 0..4)).prop_map(|(column, values)| Filter::In { column, values }),
        name().prop_map(|column| Filter::IsNull { column }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
            inner.clone().prop_map(|filter| Filter::Not(Box::new(filter))),
            (name(), quantifier(), inner).prop_map(|(relation, quantifier, filter)| Filter::Related {
                relation,
                quantifier,
                filter: Box::new(filter),
            }),
        ]
    })
}

fn node() -> impl Strategy<Value = Node> {
    let shape = || prop::sample::select(vec![Shape::Many, Shape::One, Shape::Count, Shape::Aggregate]);
    let sorts = || {
        let sort = (name(), any::<bool>()).prop_map(|(column, descending)| Sort { column, descending });
        prop::collection::vec(sort, 0..3)
    };
    let plain = || prop_oneof![name().prop_map(What::Column), name().prop_map(What::Constant), Just(What::Count)];
    let fields = |what: BoxedStrategy<What>| {
        prop::collection::vec((name(), what).prop_map(|(key, what)| Field { key, what }), 0..4)
    };
    let node = move |what: BoxedStrategy<What>| {
        (shape(), fields(what), filter(), sorts(), any::<u64>(), any::<Option<u64>>())
            .prop_map(|(shape, fields, filter, sort, skip, limit)| Node { shape, fields, filter, sort, skip, limit })
    };
    node(plain().boxed()).prop_recursive(2, 8, 3, move |inner| {
        let relation = (name(), inner).prop_map(|(name, node)| What::Relation { name, node });
        node(prop_oneof![plain(), relation].boxed())
    })
}

fn object() -> impl Strategy<Value = Object> {
    prop::collection::btree_map(name(), values(), 0..4).prop_map(|members| Object(members.into_iter().collect()))
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let change = prop_oneof![
        (name(), values()).prop_map(|(column, value)| Change::Set { column, value }),
        (name(), scalar()).prop_map(|(column, by)| Change::Inc { column, by }),
    ];
    let set =
        prop_oneof![
            prop::collection::vec(object(), 0..3).prop_map(|docs| Set::Insert { docs }),
            (filter(), prop::collection::vec(change, 0..3), any::<bool>())
                .prop_map(|(filter, changes, one)| Set::Update { filter, changes, one }),
            (filter(), any::<bool>()).prop_map(|(filter, one)| Set::Delete { filter, one }),
        ];
    (name(), set, prop::option::of(node())).prop_map(|(table, set, returning)| Mutation { table, set, returning })
}

fn grant() -> impl Strategy<Value = Grant> {
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
        (filter(), filter(), columns, any::<bool>(), any::<i64>()),
    )
        .prop_map(|((project, database, table, operation), (filter, check, columns, allow_all, expires_ms))| {
            Grant { project, database, table, operation, filter, check, columns, allow_all, expires_ms }
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
    fn filters_cross(filter in filter()) {
        prop_assert_eq!(Filter::try_from(sent(wire::Filter::from(filter.clone()))), Ok(filter));
    }

    #[test]
    fn reads_cross(node in node(), table in name()) {
        let read = Read { database: "d".to_owned(), table, node };
        prop_assert_eq!(Read::try_from(sent(wire::Read::from(read.clone()))), Ok(read));
    }

    #[test]
    fn mutations_cross(mutation in mutation()) {
        prop_assert_eq!(Mutation::try_from(sent(wire::Mutation::from(mutation.clone()))), Ok(mutation));
    }

    #[test]
    fn grants_cross(grant in grant()) {
        prop_assert_eq!(Grant::try_from(sent(auth::Grant::from(grant.clone()))), Ok(grant));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = wire::Read::decode(bytes.as_slice()).map(Read::try_from);
        let _ = wire::Mutation::decode(bytes.as_slice()).map(Mutation::try_from);
        let _ = wire::Schema::decode(bytes.as_slice()).map(Schema::try_from);
        let _ = auth::Grant::decode(bytes.as_slice()).map(Grant::try_from);
    }
}

#[test]
fn schemas_cross_with_the_same_relations() {
    for schema in [chinook(), types()] {
        assert_eq!(Schema::try_from(sent(wire::Schema::from(&schema))), Ok(schema));
    }
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
    assert_eq!(missing(Filter::try_from(wire::Filter::default())), is_missing("filter.kind"));
    assert_eq!(missing(Read::try_from(wire::Read::default())), is_missing("read.node"));
    assert_eq!(missing(Node::try_from(wire::Node::default())), is_missing("node.shape"));
    assert_eq!(missing(Field::try_from(wire::Field::default())), is_missing("field.what"));
    assert_eq!(missing(Mutation::try_from(wire::Mutation::default())), is_missing("mutation.kind"));
    assert_eq!(missing(Change::try_from(wire::Change::default())), is_missing("change.operation"));
    assert_eq!(missing(Grant::try_from(auth::Grant::default())), is_missing("operation"));
    let compare = wire::Compare { operator: wire::Operator::Eq.into(), ..Default::default() };
    let filter = wire::Filter { kind: Some(wire::filter::Kind::Compare(compare)) };
    assert_eq!(missing(Filter::try_from(filter)), is_missing("compare.value"));
    let filter = wire::Filter { kind: Some(wire::filter::Kind::Related(Box::default())) };
    assert_eq!(missing(Filter::try_from(filter)), is_missing("related.filter"));
}

#[test]
fn a_grant_without_columns_is_refused_rather_than_read_as_all_columns() {
    let grant = auth::Grant { operation: wire::Operation::Read.into(), ..Default::default() };
    assert_eq!(missing(Grant::try_from(grant)), "grant.columns is missing");
}

#[test]
fn members_of_enums_from_the_future_are_refused() {
    assert_eq!(missing(Shape::try_from(99)), "node.shape 99 is not known");
    assert_eq!(missing(Operation::try_from(0)), "operation is missing");
}

#[test]
fn values_that_cannot_be_compared_are_refused() {
    let compare =
        wire::Compare { column: "a".to_owned(), operator: wire::Operator::Eq.into(), value: Some(Value::Null.into()) };
    let filter = wire::Filter { kind: Some(wire::filter::Kind::Compare(compare)) };
    assert_eq!(Filter::try_from(filter).unwrap_err().reason(), "WRONG_TYPE");
    let within = wire::In { column: "a".to_owned(), values: vec![Value::List(vec![]).into()] };
    let filter = wire::Filter { kind: Some(wire::filter::Kind::In(within)) };
    assert_eq!(Filter::try_from(filter).unwrap_err().reason(), "WRONG_TYPE");
}

#[test]
fn numbers_are_numbers() {
    let number = |text: &str| Value::try_from(wire::Value { kind: Some(wire::value::Kind::Number(text.to_owned())) });
    assert_eq!(number("0.10"), Ok(Value::Number("0.10".to_owned())));
    assert_eq!(number("5"), Ok(Value::Int(5)));
    assert_eq!(missing(number("1; drop table x")), "value.number is no number");
}

#[test]
fn a_member_that_appears_twice_is_refused() {
    let member = || wire::Member { name: "a".to_owned(), value: Some(Value::Null.into()) };
    let object = wire::Object { members: vec![member(), member()] };
    assert_eq!(missing(Object::try_from(object)), "member a appears twice");
}
