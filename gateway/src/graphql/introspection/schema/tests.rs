use std::{collections::BTreeMap, sync::Arc};

use proto::auth::{ReachableResponse, ReachableTable};
use query::{Columns, Operation};

use super::*;
use crate::{catalogue::Project, graphql::fixture};

const ALL: [Operation; 4] = [Operation::Create, Operation::Read, Operation::Update, Operation::Delete];

fn reach(tables: &[(&str, &[Operation], Columns)]) -> ReachableResponse {
    let table = |(name, operations, columns): &(&str, &[Operation], Columns)| ReachableTable {
        database: "music".to_owned(),
        table: (*name).to_owned(),
        operations: operations.iter().map(|operation| (*operation, Arc::new(columns.clone()))).collect(),
    };
    ReachableResponse { tables: tables.iter().map(table).collect() }
}

/// The schema as SDL: types that are reached, and conditions on all scalars.
fn sdl(project: Arc<Project>, reach: &ReachableResponse) -> String {
    let names = Names::new(project);
    let (reach, types) = (Reach::new(&names, reach), TypeNames::new(&names));
    let schema = PublishedSchema::new(&names, &reach, &types);
    let mut shown: BTreeMap<&str, TypeKey> = BTreeMap::new();
    let conditions = Scalar::ALL.map(|scalar| TypeKey::Condition(Condition::on(scalar)));
    for key in schema.reachable_types().into_iter().chain(conditions) {
        let known = shown.insert(schema.name(key), key);
        assert!(known.is_none_or(|known| known == key), "{} is one type", schema.name(key));
    }
    shown.into_values().map(|key| definition_text(&schema, key)).collect()
}

fn definition_text(schema: &PublishedSchema<'_>, key: TypeKey) -> String {
    let name = schema.name(key);
    let (keyword, lines): (&str, Vec<String>) = match schema.members(key) {
        Members::Scalar => return format!("scalar {name}\n"),
        Members::Fields(fields) => ("type", fields.iter().map(|field| field_text(schema, field)).collect()),
        Members::Inputs(inputs) => ("input", inputs.iter().map(|input| input_text(schema, input)).collect()),
        Members::Values(values) => ("enum", values.into_iter().map(|value| value.name.into_owned()).collect()),
    };
    format!("{keyword} {name} {{\n  {}\n}}\n", lines.join("\n  "))
}

fn field_text(schema: &PublishedSchema<'_>, field: &FieldDefinition<'_>) -> String {
    let arguments: Vec<String> = field.arguments.iter().map(|argument| input_text(schema, argument)).collect();
    let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
    format!("{}{arguments}: {}", field.name, type_text(schema, field.r#type))
}

fn input_text(schema: &PublishedSchema<'_>, input: &InputDefinition<'_>) -> String {
    format!("{}: {}", input.name, type_text(schema, input.r#type))
}

fn type_text(schema: &PublishedSchema<'_>, r#type: TypeRef) -> String {
    match r#type.unwrapped() {
        Some((Wrapper::NonNull, inner)) => format!("{}!", type_text(schema, inner)),
        Some((Wrapper::List, inner)) => format!("[{}]", type_text(schema, inner)),
        None => schema.name(r#type.named).to_owned(),
    }
}

/// The lines of one definition of an SDL, without descriptions.
fn definition(sdl: &str, begin: &str) -> Vec<String> {
    let lines = sdl.lines().map(str::trim).skip_while(|line| !line.starts_with(begin)).skip(1);
    let fields = lines.take_while(|line| *line != "}");
    let mut inside = false;
    let mut found = Vec::new();
    for line in fields {
        if line.starts_with("\"\"\"") {
            inside = !inside;
        } else if !inside {
            found.push(line.to_owned());
        }
    }
    found
}

#[test]
fn long_names_of_relations_are_not_published() {
    let tables = reach(&[("staff", &ALL, Columns::default()), ("task list", &ALL, Columns::default())]);

    let sdl = sdl(fixture::long_names(), &tables);

    let fields = definition(&sdl, "type Staff ");
    let begins = |name: &str| fields.iter().any(|field| field.starts_with(name));
    assert!(begins("boss_row: Staff") && begins("staff(") && begins("task_list_of_owner_aggregate("), "{fields:?}");
    assert!(!sdl.contains("_by_boss") && !sdl.contains("_by_owner") && !sdl.contains("_by_staff"), "{sdl}");
}

#[test]
fn a_schema_has_what_the_caller_reaches_and_nothing_else() {
    let tables = reach(&[
        ("album", &ALL, Columns::default()),
        ("track", &[Operation::Read], Columns { deny: vec!["unit_price".to_owned()], ..Columns::default() }),
        ("audit", &[Operation::Create], Columns::default()),
        ("bestseller", &ALL, Columns::default()),
    ]);

    let sdl = sdl(fixture::shop(), &tables);

    assert_eq!(
        definition(&sdl, "type Query"),
        [
            "album(where: AlbumFilter, sort: [AlbumSort!], skip: Int, limit: Int): [Album!]!",
            "album_by_pk(album_id: Int!): Album",
            "album_aggregate(where: AlbumFilter): [AlbumAggregate!]!",
            "track(where: TrackFilter, sort: [TrackSort!], skip: Int, limit: Int): [Track!]!",
            "track_by_pk(track_id: Int!): Track",
            "track_aggregate(where: TrackFilter): [TrackAggregate!]!",
            "bestseller(where: BestsellerFilter, sort: [BestsellerSort!], skip: Int, limit: Int): [Bestseller!]!",
            "bestseller_aggregate(where: BestsellerFilter): [BestsellerAggregate!]!",
        ]
    );
    assert_eq!(
        definition(&sdl, "type Mutation"),
        [
            "insert_album(docs: [AlbumInsert!]!): AlbumMutation",
            "update_album(where: AlbumFilter!, op: MutatedRows, set: AlbumSet, inc: AlbumInc): AlbumMutation",
            "delete_album(where: AlbumFilter!, op: MutatedRows): AlbumMutation",
            "insert_audit(docs: [AuditInsert!]!): AuditMutation",
        ]
    );
    assert_eq!(
        definition(&sdl, "type Album "),
        [
            "album_id: Int",
            "title: String",
            "artist_id: Int",
            "track(where: TrackFilter, sort: [TrackSort!], skip: Int, limit: Int): [Track!]!",
            "track_aggregate(where: TrackFilter): [TrackAggregate!]!",
        ],
        "no artist"
    );
    assert!(!sdl.contains("unit_price"));
    assert!(!sdl.contains("type Audit "), "nobody reads it");
    assert_eq!(definition(&sdl, "type AuditMutation"), ["status: Int!", "error: String", "affected: Int!"]);
    assert_eq!(definition(&sdl, "enum TrackSort").len(), 10);
    let many = definition(&sdl, "input AlbumFilter");
    assert!(many.contains(&"track: TrackManyFilter".to_owned()), "{many:?}");
    assert!(!many.iter().any(|field| field.starts_with("artist:")), "{many:?}");
    assert_eq!(definition(&sdl, "input JSONFilter"), ["_isNull: Boolean", "_not: JSONFilter"], "it has no order");
}

#[test]
fn who_reaches_nothing_gets_a_schema_too() {
    let sdl = sdl(fixture::shop(), &ReachableResponse::default());

    assert_eq!(definition(&sdl, "type Query"), ["_none: Boolean"]);
    assert!(!sdl.contains("type Mutation"));
}

#[test]
fn conditions_of_writes_are_on_the_columns_of_their_own_rule() {
    let mut tables = reach(&[("album", &[Operation::Read], Columns::default())]);
    let own = Columns { filter: Some(vec!["album_id".to_owned()]), ..Columns::default() };
    tables.tables[0].operations.push((Operation::Delete, Arc::new(own)));

    let sdl = sdl(fixture::shop(), &tables);

    assert_eq!(
        definition(&sdl, "type Mutation"),
        ["delete_album(where: AlbumDeleteFilter!, op: MutatedRows): AlbumMutation"]
    );
    let filter = definition(&sdl, "input AlbumDeleteFilter");
    assert_eq!(filter[0], "album_id: IntFilter");
    assert!(!filter.iter().any(|field| field.starts_with("title")), "{filter:?}");
    assert!(definition(&sdl, "input AlbumFilter").iter().any(|field| field.starts_with("title")));
}

#[test]
fn an_insert_that_can_never_succeed_is_not_published() {
    let mut project = Project::clone(&fixture::shop());
    let schema = project.databases[0].schema.as_ref().unwrap();
    let mut tables = schema.tables().to_vec();
    tables[1].columns[1].nullable = false;
    project.databases[0].schema = Some(Arc::new(query::Schema::new(tables)));
    let write = |columns: &[&str]| {
        let names = columns.iter().map(|name| (*name).to_owned()).collect();
        Columns { write: Some(names), ..Columns::default() }
    };

    let published = |columns: &[&str]| {
        let tables = reach(&[("album", &[Operation::Create], write(columns))]);
        definition(&sdl(Arc::new(project.clone()), &tables), "input AlbumInsert")
    };

    assert_eq!(published(&["album_id", "title"]), ["album_id: Int", "title: String!"]);
    assert!(published(&["album_id"]).is_empty(), "title is required");
}

#[test]
fn orders_that_are_names_of_columns_too_are_left_out() {
    let mut project = Project::clone(&fixture::with_tables(&["odd"]));
    let mut tables = project.databases[0].schema.as_ref().unwrap().tables().to_vec();
    let column = |name: &str| query::Column { name: name.to_owned(), ..tables[0].columns[0].clone() };
    tables[0].columns = vec![column("a"), column("a_asc"), column("_and"), column("__x")];
    tables[0].primary_key.clear();
    project.databases[0].schema = Some(Arc::new(query::Schema::new(tables)));
    project.databases[0].id = "music".into();

    let sdl = sdl(Arc::new(project), &reach(&[("default", &ALL, Columns::default())]));

    let orders = definition(&sdl, "enum OddSort");
    let wanted = ["a_desc", "a_asc_asc", "a_asc_desc", "_and_asc", "_and_desc", "_x_asc", "_x_desc"].map(str::to_owned);
    assert_eq!(orders, wanted);
    let filter = definition(&sdl, "input OddFilter");
    assert!(filter.contains(&"_and: StringFilter".to_owned()) && filter.contains(&"_x: StringFilter".to_owned()));
    assert_eq!(filter.iter().filter(|field| field.starts_with("_and")).count(), 1);
}

#[test]
fn columns_have_the_conditions_that_their_database_compares() {
    let mut project = Project::clone(&fixture::with_tables(&["odd"]));
    let mut tables = project.databases[0].schema.as_ref().unwrap().tables().to_vec();
    let column = |name: &str, r#type: query::Type, comparisons: Comparisons| query::Column {
        name: name.to_owned(),
        r#type,
        abilities: query::Abilities { comparisons, ..query::Abilities::default() },
        ..tables[0].columns[0].clone()
    };
    tables[0].columns = vec![
        column("tags", query::Type::List(&query::Type::Text), Comparisons::All),
        column("docs", query::Type::List(&query::Type::Json), Comparisons::All),
        column("tx", query::Type::Other, Comparisons::Equality),
        column("spot", query::Type::Other, Comparisons::None),
        column("address", query::Type::Address, Comparisons::All),
    ];
    tables[0].primary_key.clear();
    project.databases[0].schema = Some(Arc::new(query::Schema::new(tables)));
    project.databases[0].id = "music".into();

    let sdl = sdl(Arc::new(project), &reach(&[("default", &ALL, Columns::default())]));

    let lists = ["tags: [String]", "docs: [JSON]", "tx: Native", "spot: Native", "address: Native"];
    assert_eq!(definition(&sdl, "type Odd "), lists);
    assert_eq!(definition(&sdl, "input OddInsert"), lists);
    let filter = definition(&sdl, "input OddFilter");
    assert_eq!(
        filter[..5],
        [
            "tags: StringListFilter",
            "docs: JSONListFilter",
            "tx: NativeEqualityFilter",
            "spot: NativeNullFilter",
            "address: NativeFilter"
        ]
    );
    let of_lists = definition(&sdl, "input StringListFilter");
    assert!(of_lists.contains(&"_eq: [String]".to_owned()) && of_lists.contains(&"_in: [[String]!]".to_owned()));
    let of_equality = definition(&sdl, "input NativeEqualityFilter");
    assert_eq!(of_equality.len(), 6, "{of_equality:?}");
    assert!(!of_equality.iter().any(|operator| operator.starts_with("_lt")));
    for none in ["NativeNullFilter", "JSONListFilter"] {
        let of_none = definition(&sdl, &format!("input {none}"));
        assert_eq!(of_none, ["_isNull: Boolean".to_owned(), format!("_not: {none}")]);
    }
    assert_eq!(definition(&sdl, "enum OddSort"), ["tags_asc", "tags_desc", "address_asc", "address_desc"]);
}
