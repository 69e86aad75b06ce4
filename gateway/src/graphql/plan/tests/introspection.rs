//! Fields of introspection.

use super::*;

/// What a document asks for of the schema, as it is asked.
fn asked(text: &str, sent: &str) -> Vec<String> {
    let plan = planned(&fixture::shop(), text, sent).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
    let written = |field: &IntrospectionField| {
        let mut text = String::new();
        field.write(&mut text);
        text
    };
    plan.introspected.iter().map(written).collect()
}

#[test]
fn what_is_asked_has_neither_fragments_nor_variables_nor_an_alias() {
    let text = r#"query($n: String!, $old: Boolean = true, $no: Boolean!) {
            a: __type(name: $n) { ...T fields(includeDeprecated: true) { n: name @skip(if: $no) name } }
            album { title }
            ... on Query { __schema { queryType { ... { name @include(if: $no) kind } } } }
        }
        fragment T on __Type { kind fields(includeDeprecated: true) { args(includeDeprecated: $old) { name } } }"#;

    let asked = asked(text, r#"{"n": "a\"b", "no": false}"#);

    assert_eq!(
        asked,
        [
            r#"__type(Text("a\"b")){kind fields(Bool(true)){args(Bool(true)){name} n:name name}}"#,
            "__schema{queryType{kind}}",
        ]
    );
}

#[test]
fn aliases_of_roots_are_the_members_of_data() {
    let plan = plan(r#"{ a: __schema { types { name } } __typename b: __type(name: "Album") { name } }"#);

    let keys: Vec<&str> = plan.fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys, ["a", "__typename", "b"]);
    assert_eq!(plan.fields[2].source, FieldSource::Introspected(1));
}

#[test]
fn arguments_and_directives_are_checked() {
    assert_eq!(error("{ __schema(x: 1) { types { name } } }"), "argument x of __schema is not known");
    assert_eq!(error("{ __type(nme: \"x\") { name } }"), "argument nme of __type is not known; did you mean name?");
    assert_eq!(error("{ __type { name } }"), "argument name of __type is required");
    assert_eq!(error("{ __type(name: 1) { name } }"), "invalid name: expected string, found integer");
    let wrong = error("{ __schema { types { fields(includeDeprecated: 1) { name } } } }");
    assert_eq!(wrong, "invalid includeDeprecated: expected boolean, found integer");
    assert!(error("{ __schema @music { types { name } } }").starts_with("directive @music is not known on field"));
    assert!(error("{ __schema { types @live { name } } }").starts_with("directive @live is not known on field"));
}

#[test]
fn introspection_has_limits_of_its_own() {
    let deep = format!("{{ __schema {} name {} }}", "{ types { ofType ".repeat(15) + "{", "}".repeat(31));
    let wide = format!("{{ __schema {{ {} }} }}", (0..1000).map(|n| format!("a{n}: description ")).collect::<String>());
    let many = (0..501).map(|n| format!("a{n}: __schema {{ description }} ")).collect::<String>();

    assert_eq!(error(&deep), "depth of introspection of 25 is over the limit of 24");
    assert_eq!(error(&wide), "fields of introspection of 1001 is over the limit of 1000");
    assert_eq!(error(&format!("{{ {many} }}")), "fields of introspection of 1001 is over the limit of 1000");
}

#[test]
fn the_field_of_an_empty_query_is_null_unless_a_table_has_its_name() {
    assert_eq!(plan("{ _none }").fields[0].source, FieldSource::Null);
    assert_eq!(error("{ _none { x } }"), "field _none has no fields to select");
    assert!(error("{ _non }").starts_with("table _non is not in the database"));
    let named = planned(&fixture::with_tables(&["_none"]), "{ _none { id } }", "{}").unwrap();
    assert_eq!(named.fields[0].source, FieldSource::Read(0));
}
