use query::{
    Change, Comparison, Field, Filter, Limits, Mutation, Node, Object, Quantifier, Read, Set, Shape, Sort, Value,
};
use query::{Error, What as Reads};

use super::*;
use crate::graphql::{fixture, refusal::Cause};

const LIMITS: Limits = Limits { depth: 16, nodes: 2000 };

fn planned(project: &std::sync::Arc<crate::catalogue::Project>, text: &str, sent: &str) -> Result<Plan> {
    let Ok(Value::Object(sent)) = Value::parse(sent.as_bytes(), Limits::default()) else {
        panic!("variables are JSON")
    };
    let document = Document::parse(text)?;
    let operation = document.operation(None)?;
    let names = Names::new(project.clone());
    let variables = Variables::new(&document, &operation.node, sent)?;
    Plan::new(&document, &operation.node, &names, &variables, LIMITS)
}

fn plan(text: &str) -> Plan {
    planned(&fixture::shop(), text, "{}").unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

fn refusal(text: &str) -> Refusal {
    *planned(&fixture::shop(), text, "{}").expect_err(text)
}

fn error(text: &str) -> String {
    message(refusal(text))
}

fn message(refusal: Refusal) -> String {
    match refusal.cause {
        Cause::Model(error) => error.to_string(),
        Cause::Fault(fault) => fault.message,
    }
}

/// The only read of a document.
fn read(text: &str) -> Read {
    only(plan(text).reads)
}

fn read_with(text: &str, sent: &str) -> Read {
    only(planned(&fixture::shop(), text, sent).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}")).reads)
}

fn only<T>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The only mutation of a document.
fn set(text: &str) -> Set {
    let (database, mutation) = only(plan(text).writes);
    assert_eq!(database, "music");
    mutation.set
}

fn keys(fields: &[Field]) -> Vec<&str> {
    fields.iter().map(|field| field.key.as_str()).collect()
}

fn column(key: &str, name: &str) -> Field {
    Field { key: key.to_owned(), what: Reads::Column(name.to_owned()) }
}

fn constant(key: &str, text: &str) -> Field {
    Field { key: key.to_owned(), what: Reads::Constant(text.to_owned()) }
}

fn relation(field: &Field) -> (&str, &Node) {
    match &field.what {
        Reads::Relation { name, node } => (name, node),
        other => panic!("a relation, not {other:?}"),
    }
}

fn compare(column: &str, comparison: Comparison, value: Value) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value }
}

fn equal(column: &str, value: Value) -> Filter {
    compare(column, Comparison::Eq, value)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn columns_are_read_under_their_response_keys() {
    let read = read("{ albums: album { album_id t: title __typename } }");

    assert_eq!((read.database.as_str(), read.table.as_str()), ("music", "album"));
    assert_eq!(
        read.node,
        Node::new(
            Shape::Many,
            vec![column("album_id", "album_id"), column("t", "title"), constant("__typename", "Album")]
        )
    );
}

#[test]
fn roots_keep_the_order_of_the_document() {
    let plan = plan("{ __typename b: album { title } a: artist { name } n: __typename }");

    let keys: Vec<&str> = plan.roots.iter().map(|root| root.key.as_str()).collect();
    assert_eq!(keys, ["__typename", "b", "a", "n"]);
    assert_eq!(plan.roots[1].what, What::Read(0));
    assert_eq!(plan.roots[2].what, What::Read(1));
    assert_eq!(plan.roots[3].what, What::Typename);
    assert_eq!(plan.root_of(1).map(|root| root.key.as_str()), Some("a"));
}

#[test]
fn relations_are_nodes_of_the_tree_and_take_arguments_where_they_lead_to_many() {
    let read = read(
        r#"{ album { artist { name } track(where: {milliseconds: {_gt: 1000}}, sort: ["-name"], skip: 1, limit: 2) { name } } }"#,
    );

    let (name, artist) = relation(&read.node.fields[0]);
    assert_eq!((name, artist.shape, keys(&artist.fields)), ("artist", Shape::One, vec!["name"]));
    let (name, track) = relation(&read.node.fields[1]);
    assert_eq!((name, track.shape, track.skip, track.limit), ("track", Shape::Many, 1, Some(2)));
    assert_eq!(track.filter, compare("milliseconds", Comparison::Gt, Value::Int(1000)));
    assert_eq!(track.sort, [Sort { column: "name".to_owned(), descending: true }]);
    assert_eq!(error("{ album { artist(limit: 1) { name } } }"), "argument limit of artist is not known");
}

#[test]
fn rows_are_counted_at_the_root_and_below() {
    let root = read("{ album_aggregate(where: {title: \"x\"}) { n: count __typename } }");
    let below = read("{ album { tracks: track_aggregate { count } } }");

    assert_eq!(root.node.shape, Shape::Aggregate);
    assert_eq!(root.node.filter, equal("title", text("x")));
    assert_eq!(
        root.node.fields,
        [Field { key: "n".to_owned(), what: Reads::Count }, constant("__typename", "AlbumAggregate")]
    );
    let (name, node) = relation(&below.node.fields[0]);
    assert_eq!((name, node.shape), ("track", Shape::Aggregate));
    assert_eq!(error("{ album_aggregate { cuont } }"), "field cuont is not in AlbumAggregate; did you mean count?");
}

#[test]
fn a_row_is_found_by_all_columns_of_its_key() {
    let one = read("{ album_by_pk(album_id: 1) { title } }");
    let two = read("{ playlist_track_by_pk(track_id: 2, playlist_id: 1) { track { name } } }");

    assert_eq!((one.node.shape, one.node.filter), (Shape::One, equal("album_id", Value::Int(1))));
    assert_eq!(
        two.node.filter,
        Filter::And(vec![equal("playlist_id", Value::Int(1)), equal("track_id", Value::Int(2))])
    );
    assert_eq!(
        error("{ playlist_track_by_pk(track_id: 2) { playlist_id } }"),
        "argument playlist_id of playlist_track_by_pk is required"
    );
    assert_eq!(error("{ album_by_pk(album_id: null) { title } }"), "argument album_id of album_by_pk is required");
    assert_eq!(error("{ album_by_pk(album_id: [1, 2]) { title } }"), "album_id wants a single value, got a list");
    assert!(error("{ album_by_pk(album_id: {_gt: 0}) { title } }").contains("wants a single value"));
}

#[test]
fn a_directive_names_the_database() {
    for text in ["{ album @music { title } }", "{ album @sqlite { title } }"] {
        assert_eq!(read(text).database, "music", "{text}");
    }
    assert_eq!(read(r#"{ artist @music(col: "album") { title } }"#).table, "album");
    assert_eq!(error("{ album @msic { title } }"), "database msic is not in the project; did you mean @music?");
    assert_eq!(error("{ album @music(cache: {ttl: 1}) { title } }"), "argument cache of @music is not known");
    assert_eq!(
        error("{ album @music @sqlite { title } }"),
        "directive @sqlite is one too many: a field has one database"
    );
}

#[test]
fn below_the_root_there_is_no_directive_of_a_database() {
    let refused = error(r#"{ artist { album(where: {artist_id: "artist.artist_id"}) @music { title } } }"#);

    assert_eq!(refused, "directive @music is not known on field album: a database is named at the root only");
}

#[test]
fn a_name_that_several_databases_have_needs_one() {
    let project = fixture::two_databases();
    let read = |text| planned(&project, text, "{}").map(|plan| only(plan.reads));

    assert_eq!(read("{ genre @archive { name } }").unwrap().database, "archive");
    assert_eq!(read("{ music_genre { name } }").unwrap().database, "music");
    let refusal = *read("{ genre { name } }").unwrap_err();
    assert_eq!(refusal.places.len(), 2);
    assert_eq!(message(refusal), "several databases have a table genre: say genre @music or music_genre");
}

#[test]
fn a_database_that_is_not_reached_is_unavailable() {
    for text in ["{ album { title } }", "{ album @music { title } }"] {
        let refusal = *planned(&fixture::unreached(), text, "{}").unwrap_err();

        assert!(refusal.may_be_stale());
        assert!(matches!(&refusal.cause, Cause::Fault(fault) if fault.code == mesh::Code::Unavailable), "{text}");
    }
}

#[test]
fn the_dialect_reads_whole_rows_one_row_and_counts() {
    assert_eq!(keys(&read("{ album @music }").node.fields), ["album_id", "title", "artist_id"]);
    assert_eq!(read("{ album(op: one) @music { title } }").node.shape, Shape::One);
    assert_eq!(read(r#"{ album(op: "one") { title } }"#).node.shape, Shape::One);
    let count = read(r#"{ album(op: count, where: {title: "x"}) @music { title } }"#);
    assert_eq!(count.node, Node { filter: equal("title", text("x")), ..Node::new(Shape::Count, Vec::new()) });
    assert_eq!(error("{ album(op: most) { title } }"), "op is all, one or count, not \"most\"");
    assert_eq!(error("{ album }"), "field album needs a selection of its fields");
}

#[test]
fn conditions_take_operators_and_plain_values() {
    let filter = |text: &str| read(&format!("{{ album(where: {text}) {{ title }} }}")).node.filter;

    assert_eq!(filter(r#"{title: "x"}"#), equal("title", text("x")));
    assert_eq!(filter("{title: null}"), Filter::IsNull { column: "title".to_owned() });
    assert_eq!(filter("null"), Filter::TRUE);
    assert_eq!(
        filter("{album_id: [1, 2]}"),
        Filter::In { column: "album_id".to_owned(), values: vec![Value::Int(1), Value::Int(2)] }
    );
    assert_eq!(
        filter(r#"{_or: [{album_id: {_lt: 3}}, {artist: {name: "AC/DC"}}]}"#),
        Filter::Or(vec![
            compare("album_id", Comparison::Lt, Value::Int(3)),
            Filter::Related {
                relation: "artist".to_owned(),
                quantifier: Quantifier::Some,
                filter: Box::new(equal("name", text("AC/DC"))),
            },
        ])
    );
    assert_eq!(filter(r#"{album__title: "x"}"#), equal("title", text("x")));
}

#[test]
fn texts_are_kept_as_they_are() {
    let read = read(r#"{ album(where: {title: "a__b"}) { title } }"#);

    assert_eq!(read.node.filter, equal("title", text("a__b")));
    assert_eq!(
        set(r#"mutation { insert_album(docs: [{title: "user__name@x.com", artist_id: 1}]) { status } }"#),
        Set::Insert {
            docs: vec![Object(vec![
                ("title".to_owned(), text("user__name@x.com")),
                ("artist_id".to_owned(), Value::Int(1))
            ])]
        }
    );
}

#[test]
fn operators_in_variables_may_be_spelled_both_ways() {
    let query = "query($w: AlbumFilter) { album(where: $w) { title } }";
    let underscore = read_with(query, r#"{"w": {"_or": [{"title": "x"}], "album_id": {"_gt": 1}}}"#);
    let dollar = read_with(query, r#"{"w": {"$or": [{"title": "x"}], "album_id": {"$gt": 1}}}"#);

    assert_eq!(underscore, dollar);
    assert_eq!(read_with(query, "{}").node.filter, Filter::TRUE);
}

#[test]
fn an_absent_variable_leaves_its_member_out() {
    let query = "query($t: String, $n: String) { album(where: {title: $t, album_id: {_gt: 1}}, limit: 1) { title } }";

    assert_eq!(read_with(query, "{}").node.filter, compare("album_id", Comparison::Gt, Value::Int(1)));
    assert_eq!(
        read_with(query, r#"{"t": null}"#).node.filter,
        Filter::And(vec![
            Filter::IsNull { column: "title".to_owned() },
            compare("album_id", Comparison::Gt, Value::Int(1))
        ])
    );
    assert_eq!(error("{ album(where: {title: $t}) { title } }"), "variable $t is not declared");
}

#[test]
fn numbers_keep_every_digit() {
    let read = read("{ track(where: {unit_price: 0.12345678901234567890}) { name } }");

    assert_eq!(read.node.filter, equal("unit_price", Value::Number("0.12345678901234567890".to_owned())));
    assert!(error("{ album(where: {album_id: 99999999999999999999}) { title } }").contains("out of range"));
}

#[test]
fn orders_have_many_spellings() {
    let sort = |text: &str| read(&format!("{{ album(sort: {text}) {{ title }} }}")).node.sort;
    let key = |column: &str, descending| Sort { column: column.to_owned(), descending };

    assert_eq!(sort(r#"["-title", "album_id"]"#), [key("title", true), key("album_id", false)]);
    assert_eq!(sort("[title_desc, album_id_asc]"), [key("title", true), key("album_id", false)]);
    assert_eq!(sort("title_desc"), [key("title", true)]);
    assert_eq!(sort("title"), [key("title", false)]);
    assert_eq!(sort("{title: -1, album_id: asc}"), [key("title", true), key("album_id", false)]);
    assert_eq!(
        error("{ album(sort: [titel_desc]) { title } }"),
        "column titel is not in table album; did you mean title?"
    );
    assert!(error("{ album(sort: 1) { title } }").starts_with("sort wants"));
}

#[test]
fn skip_and_limit_are_whole_numbers() {
    assert_eq!(read("{ album(limit: 0) { title } }").node.limit, Some(0));
    assert_eq!(error(r#"{ album(limit: "2") { title } }"#), "limit wants a whole number, got a text");
    assert_eq!(error("{ album(limit: 2.9) { title } }"), "limit wants a whole number, got a number that is not whole");
    assert_eq!(error("{ album(skip: -1) { title } }"), "skip wants no negative number");
    assert!(error("{ album(skip: 99999999999999999999) { title } }").contains("out of range"));
}

#[test]
fn wrong_conditions_are_refused_where_they_stand() {
    let refusal = refusal("{\n  album(where: 5) { title } }");

    assert_eq!(refusal.at.map(|at| (at.line, at.column)), Some((2, 16)));
    assert_eq!(refusal.path, ["album"]);
    assert_eq!(
        refusal.places,
        [Place { database: "music".to_owned(), table: "album".to_owned(), operation: Operation::Read }]
    );
    assert_eq!(message(refusal), "where wants an object of conditions, got a number");
}

#[test]
fn what_nobody_knows_is_refused_with_the_nearest() {
    assert_eq!(error("{ albun { title } }"), "table albun is not in the database; did you mean album?");
    assert_eq!(error("{ album { titel } }"), "column titel is not in table album; did you mean title?");
    assert_eq!(error("{ album { trakc { name } } }"), "relation trakc is not in table album; did you mean track?");
    assert_eq!(error("{ album(were: {}) { title } }"), "argument were of album is not known; did you mean where?");
    assert!(error("{ album(where: {title: {_qe: 1}}) { title } }").contains("_qe"));
    assert_eq!(refusal("{ a: artist { x: album { titel } } }").path, ["a", "x", "titel"]);
}

#[test]
fn an_unknown_table_may_be_of_any_database() {
    let refusal = *planned(&fixture::two_databases(), "{ nothing { a } }", "{}").unwrap_err();

    let databases: Vec<&str> = refusal.places.iter().map(|place| place.database.as_str()).collect();
    assert_eq!(databases, ["music", "archive"]);
    assert!(refusal.may_be_stale());
}

#[test]
fn selections_fit_what_they_select() {
    assert_eq!(error("{ album { title { x } } }"), "field title has no fields to select");
    assert_eq!(error("{ album { artist } }"), "field artist needs a selection of its fields");
    assert_eq!(error("{ album { title(x: 1) } }"), "argument x of title is not known");
    assert_eq!(error("{ audit { payload { x } } }"), "field payload has no fields to select");
    assert_eq!(read("{ audit { payload } }").node.fields, [column("payload", "payload")]);
    assert_eq!(error("{ __schema { types { name } } }"), "introspection is not available in this project");
    assert_eq!(plan("{ __type(name: \"x\") { name } }").roots[0].what, What::Null);
}

#[test]
fn fragments_are_expanded_wherever_they_are_spread() {
    let read = read(
        "query { album { ...A ... on Album { artist { ...B } } ... { artist_id } } }
         fragment A on album { title artist { artist_id } }
         fragment B on Artist { name }
         fragment C on Unused { x }",
    );

    assert_eq!(keys(&read.node.fields), ["title", "artist", "artist_id"]);
    assert_eq!(keys(&relation(&read.node.fields[1]).1.fields), ["artist_id", "name"]);
}

#[test]
fn fields_with_one_response_key_are_merged_or_refused() {
    let merged = read("{ album(limit: 1) { title } album(limit: 1) { album_id title } }");

    assert_eq!(keys(&merged.node.fields), ["title", "album_id"]);
    assert_eq!(
        error("{ a: album { title } a: artist { name } }"),
        "a stands for album already and artist is another field; give one of them an alias"
    );
    assert_eq!(
        error("{ album(limit: 1) { title } album(limit: 2) { title } }"),
        "album stands for album already and album has other arguments; give one of them an alias"
    );
    assert!(error("{ album { t: title t: album_id } }").starts_with("t stands for title"));
    assert!(error("{ album @music { title } album @sqlite { title } }").starts_with("album stands for album"));
}

#[test]
fn include_and_skip_leave_fields_out() {
    let query = "query($yes: Boolean!, $no: Boolean = false) {
        a: album @include(if: $yes) { title @skip(if: $yes) album_id @include(if: $yes) @skip(if: $no) }
        b: album @skip(if: true) { titel }
        ... @include(if: $no) { c: album { title } }
        ...F @skip(if: $yes)
      } fragment F on Query { d: album { title } }";

    let read = read_with(query, r#"{"yes": true}"#);

    assert_eq!(keys(&read.node.fields), ["album_id"]);
    assert_eq!(plan("{ album @music @include(if: false) { title } }").roots, []);
    assert_eq!(error("{ album @include { title } }"), "argument if of @include is required");
    assert_eq!(error("{ album @skip(if: 1) { title } }"), "argument if of @skip wants a boolean, got something else");
    assert_eq!(error("{ album @skip(unless: true) { title } }"), "argument unless of @skip is not known");
    assert_eq!(
        error("{ album { title @live } }"),
        "directive @live is not known on field title: a database is named at the root only"
    );
}

#[test]
fn documents_over_the_limits_are_refused() {
    let deep = format!("{{ {} {{ name }} {} }}", "artist { album { ".repeat(8) + "artist", "}".repeat(16));
    let wide =
        format!("{{ album {{ {} }} }}", (0..10_000).map(|index| format!("a{index}: title ")).collect::<String>());
    let same = format!("{{ album {{ {} }} }}", "title ".repeat(10_000));

    assert_eq!(error(&deep), "depth of 17 is over the limit of 16");
    assert_eq!(error(&wide), "nodes of 2001 is over the limit of 2000");
    assert_eq!(error(&same), "nodes of 2001 is over the limit of 2000");
}

#[test]
fn a_field_with_very_many_arguments_is_refused() {
    let arguments: String = (0..101).map(|index| format!("a{index}: 1 ")).collect();

    assert_eq!(error(&format!("{{ album({arguments}) {{ title }} }}")), "arguments of 101 is over the limit of 100");
}

#[test]
fn a_bomb_of_fragments_stops_at_the_limit() {
    let mut text = "{ artist { ...F0 } }".to_owned();
    for index in 0..14 {
        let next = index + 1;
        let (one, other) = if index % 2 == 0 { ("album", "album") } else { ("artist", "artist") };
        text.push_str(&format!(" fragment F{index} on X {{ a: {one} {{ ...F{next} }} b: {other} {{ ...F{next} }} }}"));
    }
    text.push_str(" fragment F14 on X { artist_id }");

    assert_eq!(error(&text), "nodes of 2001 is over the limit of 2000");
}

#[test]
fn a_long_chain_of_fragments_is_refused() {
    let mut text = "{ album { ...F0 } }".to_owned();
    for index in 0..1000 {
        text.push_str(&format!(" fragment F{index} on Album {{ ...F{} }}", index + 1));
    }
    text.push_str(" fragment F1000 on Album { title }");

    assert!(error(&text).starts_with("depth of fragments of 65"));
}

#[test]
fn rows_are_inserted() {
    let one = "mutation { insert_album(docs: {album_id: 9, title: \"z\"}) @music { status returning { i: title } st: status __typename } }";
    let plan = plan(one);

    let (_, Mutation { table, set, returning }) = &plan.writes[0];
    assert_eq!(table, "album");
    assert_eq!(
        *set,
        Set::Insert {
            docs: vec![Object(vec![("album_id".to_owned(), Value::Int(9)), ("title".to_owned(), text("z"))])]
        }
    );
    assert_eq!(returning.as_ref().map(|node| node.fields.clone()), Some(vec![column("i", "title")]));
    let What::Write(0, members) = &plan.roots[0].what else { panic!("a write") };
    let members: Vec<(&str, &Part)> = members.iter().map(|member| (member.key.as_str(), &member.what)).collect();
    assert_eq!(
        members,
        [
            ("status", &Part::Status),
            ("returning", &Part::Returning),
            ("st", &Part::Status),
            ("__typename", &Part::Typename("AlbumMutation".to_owned())),
        ]
    );
    assert_eq!(set_of_none("mutation { insert_album @music { status } }"), 0);
}

fn set_of_none(text: &str) -> usize {
    match set(text) {
        Set::Insert { docs } => docs.len(),
        other => panic!("an insert, not {other:?}"),
    }
}

#[test]
fn rows_are_updated() {
    assert_eq!(
        set(r#"mutation { update_track(where: {track_id: 1}, set: {name: "z"}, inc: {milliseconds: 1}) { status } }"#),
        Set::Update {
            filter: equal("track_id", Value::Int(1)),
            changes: vec![
                Change::Set { column: "name".to_owned(), value: text("z") },
                Change::Inc { column: "milliseconds".to_owned(), by: Value::Int(1) },
            ],
            one: false,
        }
    );
    assert_eq!(
        set("mutation { update_track(where: {track_id: 1}, op: one) { status } }"),
        Set::Update { filter: equal("track_id", Value::Int(1)), changes: Vec::new(), one: true }
    );
    assert_eq!(
        error("mutation { update_track(where: {track_id: 1}, remove: {name: 1}) { status } }"),
        "argument remove of update_track is not known"
    );
    assert_eq!(error("mutation { update_track(op: 5) { status } }"), "op wants all, one or count, got a number");
    assert_eq!(error("mutation { update_track(op: upsert) { status } }"), "op is all, one or count, not \"upsert\"");
    assert_eq!(error("mutation { update_track(set: 5) { status } }"), "set wants an object of columns, got a number");
}

#[test]
fn rows_are_deleted() {
    assert_eq!(
        set("mutation { delete_album(where: {album_id: 1}) { affected } }"),
        Set::Delete { filter: equal("album_id", Value::Int(1)), one: false }
    );
    assert_eq!(
        set("mutation { delete_album { affected } }"),
        Set::Delete { filter: Filter::TRUE, one: false },
        "whether that is allowed is not for the planner to say"
    );
}

#[test]
fn mutations_keep_their_order_and_may_be_of_several_databases() {
    let project = fixture::two_databases();
    let text = "mutation {
        insert_genre(docs: []) @archive { status }
        delete_album(where: {album_id: 1}) { status }
        second: insert_genre(docs: []) @archive
    }";

    let plan = planned(&project, text, "{}").unwrap();

    let writes: Vec<(&str, &str)> =
        plan.writes.iter().map(|(database, mutation)| (database.as_str(), mutation.table.as_str())).collect();
    assert_eq!(writes, [("archive", "genre"), ("music", "album"), ("archive", "genre")]);
    assert_eq!(plan.roots[2].what, What::Write(2, Vec::new()));
}

#[test]
fn wrong_mutations_are_refused() {
    assert!(error("mutation { foo_album { status } }").starts_with("field foo_album is not in Mutation"));
    assert!(error("mutation { album { status } }").starts_with("field album is not in Mutation"));
    assert!(error("mutation { insert_album_by_pk { status } }").starts_with("field insert_album_by_pk is not"));
    assert_eq!(
        error("mutation { insert_bestseller(docs: []) { status } }"),
        "bestseller is a view and cannot be written"
    );
    assert_eq!(error("mutation { insert_album(docs: []) }"), "field insert_album needs a selection of its fields");
    assert_eq!(
        error("mutation { insert_album(docs: []) { a: returning { title } b: returning { title } } }"),
        "returning can be selected under one key only"
    );
    assert_eq!(
        error("mutation { insert_album(docs: []) { stauts } }"),
        "field stauts is not in AlbumMutation; did you mean status?"
    );
    assert_eq!(
        refusal("mutation { delete_nothing { status } }").places,
        [Place { database: "music".to_owned(), table: "nothing".to_owned(), operation: Operation::Delete }]
    );
}

#[test]
fn subscriptions_are_refused() {
    assert_eq!(error("subscription { album { title } }"), "Invalid operation: subscription");
}

#[test]
fn renamed_columns_are_meant_by_their_graphql_names_everywhere() {
    let project = fixture::odd_names();
    let plan = |text: &str| planned(&project, text, "{}").unwrap_or_else(|refusal| panic!("{refusal:?}"));

    let rows = plan(
        r#"{ order_items(where: {unit_price_1: "a", _or: [{_2nd: "b"}]}, sort: [_2nd_desc]) { unit_price_1 unit_price _2nd } }"#,
    );
    let node = &rows.reads[0].node;
    assert_eq!(
        node.fields,
        [column("unit_price_1", "unit price"), column("unit_price", "unit_price"), column("_2nd", "2nd")]
    );
    assert_eq!(node.filter, Filter::And(vec![equal("unit price", text("a")), equal("2nd", text("b"))]));
    assert_eq!(node.sort, [Sort { column: "2nd".to_owned(), descending: true }]);
    assert_eq!(plan("{ order_items_by_pk(_2nd: \"x\") { _2nd } }").reads[0].node.filter, equal("2nd", text("x")));
    let inserted = plan(r#"mutation { insert_order_items(docs: {_2nd: "x"}) { status } }"#);
    assert_eq!(inserted.writes[0].1.set, Set::Insert { docs: vec![Object(vec![("2nd".to_owned(), text("x"))])] });
    assert_eq!(plan("{ order_items @odd }").reads[0].node.fields[0], column("unit_price_1", "unit price"));
}

#[test]
fn refusals_of_documents_have_their_codes() {
    let code = |text| match refusal(text).cause {
        Cause::Model(error) => error.reason(),
        Cause::Fault(fault) => fault.code.as_str(),
    };

    assert_eq!(code("{ album(limit: \"2\") { title } }"), "WRONG_TYPE");
    assert_eq!(code("{ album(foo: 2) { title } }"), "UNKNOWN_ARGUMENT");
    assert_eq!(code("{ album @nope { title } }"), "UNKNOWN_DATABASE");
    assert_eq!(code("{ nope { title } }"), "UNKNOWN_TABLE");
    assert_eq!(code("{ album { nope } }"), "UNKNOWN_COLUMN");
    assert_eq!(code("{ album { nope { x } } }"), "UNKNOWN_RELATION");
    assert_eq!(code("{ album(where: {title: {_nope: 1}}) { title } }"), "UNKNOWN_OPERATOR");
    assert_eq!(code("{ album_by_pk { title } }"), Error::Required(String::new()).reason());
}

mod any_input {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENTS: [&str; 6] = [
        r#"query A($x: [Int!] = [1], $w: AlbumFilter) { a: album(where: {title: {_eq: "x\u00e9"}}, sort: [title_desc], limit: 2) @music { title ...F @include(if: true) } }
           fragment F on Album { track(where: $w, skip: 1) { name genre { name } } track_aggregate { count } }"#,
        r#"mutation { insert_album(docs: [{album_id: 1, title: """block "q" """}]) { status error returning { title artist { name } } } }"#,
        r#"mutation { update_track(where: {track_id: {_in: [1, 2]}}, set: {name: null}, inc: {milliseconds: -1.5e3}) @music { affected } }"#,
        r#"{ playlist_track_by_pk(playlist_id: 1, track_id: 99999999999999999999) { __typename } album(op: count) }"#,
        r#"{ album_aggregate(where: {_or: [{artist: {name: "x"}}, {track: {_some: {name: "y"}}}]}) { count } } # end"#,
        r#"mutation { delete_album(where: {album__title: "x"}, op: one) { status } __typename }"#,
    ];

    const PIECES: [&str; 24] = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ":",
        "$x",
        "\"",
        "\"\"\"",
        "\\",
        "...",
        "@include(if: $x)",
        "@music",
        "#",
        ",",
        "-1e999",
        "null",
        "on",
        "fragment F on Album { ...F }",
        "\0",
        "\u{feff}",
        "é",
        "99999999999999999999",
    ];

    fn try_plan(project: &std::sync::Arc<crate::catalogue::Project>, text: &str, sent: &str) {
        // Whether it can be planned does not matter, only that nothing panics.
        let _ = planned(project, text, sent);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_is_planned_or_refused(text in "\\PC{0,80}") {
            try_plan(&fixture::shop(), &text, "{}");
        }

        #[test]
        fn any_tokens_are_planned_or_refused(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
            try_plan(&fixture::shop(), &format!("{{ album {{ title {} }}", pieces.join(" ")), "{}");
        }

        #[test]
        fn any_change_of_a_document_is_planned_or_refused(
            document in prop::sample::select(&DOCUMENTS[..]),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6, prop::sample::select(&PIECES[..])), 0..4),
        ) {
            let mut text: Vec<char> = document.chars().collect();
            for (at, removed, inserted) in cuts {
                let at = at.index(text.len() + 1);
                let end = (at + removed).min(text.len());
                text.splice(at..end, inserted.chars());
            }
            let text: String = text.into_iter().collect();
            try_plan(&fixture::shop(), &text, r#"{"x": true, "w": {"track_id": {"$gt": 1}}}"#);
        }
    }

    #[test]
    fn the_documents_that_are_changed_are_fine() {
        for text in DOCUMENTS.iter().filter(|text| !text.contains("99999999999999999999")) {
            planned(&fixture::shop(), text, r#"{"w": {}}"#).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
        }
    }
}
