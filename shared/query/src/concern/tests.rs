use super::*;
use crate::{
    Abilities, Comparison, Object, Row, Shape, Value,
    fixtures::{chinook, rest, value},
    read_accesses,
};

/// The sample, whose integers and texts memory decides on; not its decimals.
fn schema() -> Schema {
    let mut tables = chinook().into_tables();
    for column in tables.iter_mut().flat_map(|table| &mut table.columns) {
        let matching = match column.r#type {
            Type::Int32 => Matching::All,
            Type::Text => Matching::Equality,
            _ => Matching::None,
        };
        column.abilities = Abilities { matching, ..column.abilities };
    }
    Schema::new(tables)
}

fn condition(schema: &Schema, table: &str, find: &str) -> Filter {
    rest(schema).filter(schema.table(table).unwrap(), &value(find), &mut crate::Budget::default()).unwrap()
}

fn node(schema: &Schema, table: &str, find: &str, fields: Vec<Field>) -> Node {
    Node { filter: condition(schema, table, find), ..Node::new(Shape::Many, fields) }
}

fn relation(name: &str, node: Node) -> Field {
    Field { key: name.to_owned(), kind: FieldKind::Relation { name: name.to_owned(), node } }
}

fn read(table: &str, node: Node) -> Read {
    Read { database: "music".into(), table: table.into(), node }
}

/// The concerns of a read under rules that ask for nothing.
fn concerns<'a>(schema: &'a Schema, read: &'a Read) -> Vec<Concern<'a>> {
    let granted: Vec<RuleFilter> = read_accesses(schema, read).unwrap().iter().map(|_| RuleFilter::TRUE).collect();
    let granted: Vec<&RuleFilter> = granted.iter().collect();
    let concerns = read_concerns(schema, read, &granted).unwrap();
    let accessed: Vec<&str> = read_accesses(schema, read).unwrap().iter().map(|access| access.table).collect();
    assert_eq!(concerns.iter().map(|concern| concern.table.name.as_str()).collect::<Vec<_>>(), accessed);
    concerns
}

/// Whether a row, of which some columns are told, is one that counts.
fn counts(concern: &Concern, row: &[(&str, Value)]) -> bool {
    let columns = Object(row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
    concern.filter.matches(&Row { table: concern.table, columns: &columns, related: &[] }) == Some(true)
}

fn int(number: i64) -> Value {
    Value::Int(number)
}

#[test]
fn rows_below_a_relation_have_the_values_of_those_above() {
    let schema = schema();
    let tracks = relation("track", node(&schema, "track", r#"{"genre_id": 1}"#, vec![Field::column("name")]));
    let albums = relation("album", node(&schema, "album", "{}", vec![tracks]));
    let read = read("artist", node(&schema, "artist", r#"{"artist_id": {"$in": [3, 4]}}"#, vec![albums]));
    let concerns = concerns(&schema, &read);
    let [artist, album, track] = &concerns[..] else { panic!("{concerns:?}") };
    assert!(counts(artist, &[("artist_id", int(3))]) && !counts(artist, &[("artist_id", int(5))]));
    assert!(counts(album, &[("artist_id", int(4))]) && !counts(album, &[("artist_id", int(5))]));
    // Which albums there are is not known.
    assert!(counts(track, &[("genre_id", int(1))]) && !counts(track, &[("genre_id", int(2))]));
}

#[test]
fn conditions_on_relations_count_by_what_they_ask_for_and_those_that_all_have_to_pass_by_all() {
    let schema = schema();
    let find = r#"{"genre_id": 1, "album": {"artist_id": 7}}"#;
    let some = read("track", node(&schema, "track", find, vec![Field::column("name")]));
    let concerns = self::concerns(&schema, &some);
    let [track, album] = &concerns[..] else { panic!("{concerns:?}") };
    assert!(counts(track, &[("genre_id", int(1))]) && !counts(track, &[("genre_id", int(2))]));
    assert!(counts(album, &[("artist_id", int(7))]) && !counts(album, &[("artist_id", int(8))]));

    let mut every = some.clone();
    let Filter::And(parts) = &mut every.node.filter else { panic!("{:?}", every.node.filter) };
    for part in parts {
        if let Filter::Related { quantifier, .. } = part {
            *quantifier = Quantifier::Every;
        }
    }
    assert!(counts(&self::concerns(&schema, &every)[1], &[("artist_id", int(8))]));
}

#[test]
fn what_memory_does_not_decide_on_narrows_nothing() {
    let schema = schema();
    let track = schema.table("track").unwrap();
    let genre = condition(&schema, "track", r#"{"genre_id": 1}"#);
    let price = condition(&schema, "track", r#"{"unit_price": 1}"#);
    let after = condition(&schema, "track", r#"{"name": {"$gt": "a"}}"#);
    let decided = |filter: Filter| filter.decidable(track).into_owned();
    let and = |filters: &[&Filter]| Filter::And(filters.iter().map(|filter| (*filter).clone()).collect());
    let or = |filters: &[&Filter]| Filter::Or(filters.iter().map(|filter| (*filter).clone()).collect());
    assert_eq!(decided(genre.clone()), genre);
    assert!(decided(price.clone()).is_open() && decided(after.clone()).is_open());
    assert_eq!(decided(and(&[&price, &genre])), and(&[&genre]));
    assert!(decided(or(&[&price, &genre])).is_open());
    assert_eq!(decided(or(&[&and(&[&price, &genre]), &genre])), or(&[&and(&[&genre]), &genre]));
    assert!(decided(Filter::Not(Box::new(and(&[&price, &genre])))).is_open());
}

#[test]
fn conditions_of_rules_narrow_where_they_fit_the_table() {
    let schema = schema();
    let read = read("album", node(&schema, "album", "{}", vec![Field::column("title")]));
    let is = |column: &str, value: Value| RuleFilter::Compare {
        column: column.to_owned(),
        comparison: Comparison::Eq,
        value,
    };
    let of = |granted: &RuleFilter| read_concerns(&schema, &read, &[granted]).unwrap().remove(0);
    assert!(!counts(&of(&is("artist_id", int(1))), &[("artist_id", int(2))]));
    for open in [is("gone", int(1)), is("artist_id", Value::Text("x".to_owned())), RuleFilter::TRUE] {
        assert!(counts(&of(&open), &[("artist_id", int(2))]), "{open:?}");
    }
}
