//! Documents as a whole: fragments, merged fields, directives, limits.

use super::*;

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
    assert_eq!(plan("{ album @music @include(if: false) { title } }").fields.len(), 0);
    assert_eq!(error("{ album @include { title } }"), "argument if of @include is required");
    assert_eq!(
        error("{ album @skip(if: 1) { title } }"),
        "invalid argument if of @skip: expected boolean, found another type"
    );
    assert_eq!(error("{ album @skip(unless: true) { title } }"), "argument unless of @skip is not known");
    assert_eq!(
        error("{ album { title @live } }"),
        "directive @live is not known on field title: a database is named at the root only"
    );
    for spread in ["... @live { title }", "...F @live"] {
        let text = format!("{{ album {{ {spread} }} }} fragment F on Album {{ title }}");
        assert_eq!(error(&text), "directive @live is not known on a fragment");
    }
}

#[test]
fn documents_over_the_limits_are_refused() {
    let deep = format!("{{ {} {{ name }} {} }}", "artist { album { ".repeat(8) + "artist", "}".repeat(16));
    let wide =
        format!("{{ album {{ {} }} }}", (0..10_000).map(|index| format!("a{index}: title ")).collect::<String>());
    let statements: String = (0..1001).map(|index| format!("a{index}: album {{ title }} ")).collect();

    assert_eq!(error(&deep), "depth of 17 is over the limit of 16");
    assert_eq!(error(&wide), "nodes of 2001 is over the limit of 2000");
    assert_eq!(error(&format!("{{ {statements} }}")), "statements of 1001 is over the limit of 1000");
}

#[test]
fn a_field_with_very_many_arguments_is_refused() {
    let arguments: String = (0..101).map(|index| format!("a{index}: 1 ")).collect();

    assert_eq!(error(&format!("{{ album({arguments}) {{ title }} }}")), "arguments of 101 is over the limit of 100");
    let (fewer, _) = arguments.split_once("a100").unwrap();
    assert_eq!(error(&format!("{{ album({fewer}) {{ title }} }}")), "argument a0 of album is not known");
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

    assert_eq!(error(&text), "statements of 1001 is over the limit of 1000");
}

#[test]
fn a_field_counts_once_however_often_it_is_written() {
    let mut text = format!("{{ album {{ {} ...F0 }} }}", "title ".repeat(10_000));
    for index in 0..20_000 {
        text.push_str(&format!(" fragment F{index} on Album {{ ...F{} }}", index + 1));
    }
    text.push_str(" fragment F20000 on Album { title }");

    assert_eq!(keys(&read(&text).node.fields), ["title"]);
}

#[test]
fn work_that_fragments_repeat_has_an_end() {
    let fields: String = (0..100).map(|index| format!("a{index}: artist {{ ...F }} ")).collect();
    let text = format!("{{ album {{ {fields} }} }} fragment F on Artist {{ {} }}", "name ".repeat(10_000));

    assert!(error(&text).starts_with("nodes of "), "{}", error(&text));
}

#[test]
fn a_subscription_reads_one_field() {
    let two = "subscription { album { title } again: album { title } }";
    assert_eq!(error(two), "invalid subscription: expected one root field, found 2");
    assert_eq!(error("subscription { __typename }"), "field __typename is not in Subscription");
    let by_key = "album_by_pk(album_id: 1) { title } }";
    let of_database = by_key.replace(" {", " @music {");
    assert_eq!(plan(&format!("subscription {{ {of_database}")).reads, plan(&format!("subscription {{ {by_key}")).reads);
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

#[test]
fn a_database_directive_makes_a_subscription_one_of_the_dialect() {
    let feed = |text: &str| match plan(text).changes.as_deref() {
        Some(RowChanges::Dialect(feed)) => feed.clone(),
        other => panic!("{text}: {other:?}"),
    };
    let of = feed(
        "subscription { a: album(where: {title: \"x\"}, skipInitial: true) @music { k: type payload { title } find } }",
    );
    assert_eq!((of.group.as_str(), of.db_type.as_str(), of.key_columns, of.skip_initial), ("album", "music", 1, true));
    let members = [("k", FeedMember::Type), ("payload", FeedMember::Payload), ("find", FeedMember::Find)];
    assert_eq!(of.members, members.map(|(key, member)| (key.to_owned(), member)));
    let node = read("subscription { album @music { payload { name: title } } }").node;
    assert_eq!(node.fields[..], [column("name", "title"), constant("__typename", "album")]);
    let node = read("subscription { album { payload } }").node;
    assert_eq!(node.fields[..], [Field::columns(), constant("__typename", "album")]);
    assert!(feed("subscription { album(options: {skipInitial: true}) @music { type } }").skip_initial);
    let unknown = "field title is not in subscribe_album";
    assert!(error("subscription { album @music { title } }").starts_with(unknown));
    assert!(plan("subscription { album { title } }").changes.is_none());
    assert!(plan("subscription { album_aggregate @music { count } }").changes.is_none());
}
