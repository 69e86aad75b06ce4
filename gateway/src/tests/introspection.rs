//! Introspection: what is shown of a schema, to whom, and at what cost.

use std::sync::{Arc, atomic::Ordering};

use axum::body::Body;
use http::{Request, header};
use mesh::resources::Snapshot;
use serde_json::{Value, json};

use super::stage::{PROJECTS, Stage, Told, snapshot};
use crate::Config;

/// The query of graphql-js with all of its options.
const STANDARD: &str = include_str!("introspection/standard.graphql");

async fn stage() -> Stage {
    Stage::with(Config { introspection: true, ..Config::default() }).await
}

async fn ask(stage: &Stage, token: &str, query: &str) -> Told {
    let mut request = Request::post("/v1/api/bare/graphql").header(header::CONTENT_TYPE, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = Body::from(json!({ "query": query }).to_string());
    stage.send(request.body(body).unwrap()).await
}

/// Resources in which the project says whether it shows its schema.
pub fn shows(introspection: bool) -> Arc<Snapshot> {
    let bare = "meta: { id: bare }\nspec: {}";
    assert!(PROJECTS.contains(bare));
    snapshot(
        &PROJECTS.replace(bare, &bare.replace("{}", &format!("{{ graphql: {{ introspection: {introspection} }} }}"))),
    )
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn the_query_of_tools_is_answered_for_what_the_caller_reaches() {
    let stage = stage().await;

    let (anonymous, staff) = (ask(&stage, "", STANDARD).await, ask(&stage, "staff", STANDARD).await);

    let root = |told: &Told| {
        assert_eq!(told.status(), 200, "{}", told.text());
        let json = told.json();
        let schema = &json["data"]["__schema"];
        assert_eq!(schema["queryType"]["name"], "Query");
        assert_eq!(schema["mutationType"]["name"], "Mutation");
        assert_eq!(schema["subscriptionType"]["name"], "Subscription");
        let types = schema["types"].as_array().expect("types");
        let query = types.iter().find(|r#type| r#type["name"] == "Query").expect("the root");
        let live = types.iter().find(|r#type| r#type["name"] == "Subscription").expect("the live root");
        let (live, changes): (Vec<&str>, Vec<&str>) =
            names(&live["fields"]).into_iter().partition(|name| !name.ends_with("_changes"));
        assert_eq!(live, names(&query["fields"]));
        assert_eq!(changes.len(), live.len() / 3, "one a table: {changes:?}");
        names(&query["fields"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let open = ["album", "album_by_pk", "album_aggregate", "track", "track_by_pk", "track_aggregate"];
    assert_eq!(root(&anonymous), open);
    assert_eq!(root(&staff)[6..], ["invoice", "invoice_by_pk", "invoice_aggregate"]);
    assert!(!staff.text().contains("secret"), "nobody reaches it");
}

#[tokio::test]
async fn directives_are_shown_as_the_specification_defines_them() {
    let stage = stage().await;
    let directives =
        "{ __schema { directives { name isRepeatable locations args { name defaultValue type { kind } } } } }";

    let told = ask(&stage, "", directives).await;

    let shown = told.json()["data"]["__schema"]["directives"].take();
    let argument = |name: &str, default: Value, kind: &str| json!([{ "name": name, "defaultValue": default, "type": { "kind": kind } }]);
    let conditional = ["FIELD", "FRAGMENT_SPREAD", "INLINE_FRAGMENT"];
    let deprecated = ["FIELD_DEFINITION", "ARGUMENT_DEFINITION", "INPUT_FIELD_DEFINITION", "ENUM_VALUE"];
    let wanted = [
        ("deprecated", json!(deprecated), argument("reason", json!("\"No longer supported\""), "SCALAR")),
        ("include", json!(conditional), argument("if", Value::Null, "NON_NULL")),
        ("oneOf", json!(["INPUT_OBJECT"]), json!([])),
        ("skip", json!(conditional), argument("if", Value::Null, "NON_NULL")),
        ("specifiedBy", json!(["SCALAR"]), argument("url", Value::Null, "NON_NULL")),
    ];
    let wanted = wanted.map(
        |(name, locations, args)| json!({ "name": name, "isRepeatable": false, "locations": locations, "args": args }),
    );
    assert_eq!(shown, json!(wanted));
}

#[tokio::test]
async fn one_document_may_mix_introspection_and_reads() {
    let stage = stage().await;

    let told = ask(
        &stage,
        "",
        r#"{ a: __type(name: "AlbumAggregate") { name fields { name type { kind ofType { name } } } } album { album_id }
             no: __type(name: "Secret") { name } __typename }"#,
    )
    .await;

    assert_eq!(
        told.text(),
        concat!(
            r#"{"data":{"a":{"name":"AlbumAggregate","fields":[{"name":"count","type":{"kind":"NON_NULL","ofType":{"name":"Int"}}}]},"#,
            r#""album":[{"album_id":1},{"album_id":2}],"no":null,"__typename":"Query"}}"#
        )
    );
}

#[tokio::test]
async fn a_project_says_whether_it_shows_its_schema() {
    let stage = Stage::new().await;
    let (schema, r#type) = ("{ __schema { queryType { name } } }", "{ __type(name: \"Album\") { name } }");
    let refused = ask(&stage, "staff", schema).await;
    assert_eq!(refused.status(), 400);
    let error = &refused.json()["errors"][0];
    assert_eq!(error["message"], "introspection is not available in this project");
    assert_eq!((&error["path"], &error["locations"]), (&json!(["__schema"]), &json!([{ "line": 1, "column": 3 }])));
    assert_eq!(ask(&stage, "staff", r#type).await.text(), r#"{"data":{"__type":null}}"#);
    assert_eq!(stage.world.reaches.load(Ordering::SeqCst), 0);

    stage.resources.send_replace(shows(true));
    while ask(&stage, "", schema).await.status() != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&stage, "", r#type).await.text(), r#"{"data":{"__type":{"name":"Album"}}}"#);

    stage.resources.send_replace(shows(false));
    while ask(&stage, "", schema).await.status() != 400 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn faults_of_introspection_name_their_field() {
    let stage = stage().await;
    for (query, code, message) in [
        ("b: __schema { nope }", "BAD_REQUEST", "field nope is not in __Schema"),
        ("b: __schema { type { name } }", "BAD_REQUEST", "field type is not in __Schema; did you mean types?"),
        ("b: __schema { types }", "BAD_REQUEST", "field types needs a selection of its fields"),
        ("b: __type(name: \"X\") { interfaces { x } }", "BAD_REQUEST", "field x is not in __Type"),
        ("b: __type(name: \"X\") { name { x } }", "BAD_REQUEST", "field name has no fields to select"),
        ("b: __type { name }", "REQUIRED", "argument name of __type is required"),
    ] {
        let told = ask(&stage, "", &format!("{{ album {{ title }} {query} }}")).await;

        let json = told.json();
        let error = &json["errors"][0];
        assert_eq!((&error["extensions"]["code"], &error["path"][0]), (&json!(code), &json!("b")), "{json}");
        assert_eq!(error["message"], message, "{json}");
        assert!(json.get("data").is_none());
    }
    assert!(stage.world.reads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn aliases_end_at_the_limit_of_an_answer() {
    let stage = Stage::with(Config { introspection: true, answer_bytes: 100_000, ..Config::default() }).await;
    let types: String = (0..200).map(|index| format!("a{index}: types {{ fields {{ name }} }} ")).collect();

    let told = ask(&stage, "", &format!("{{ __schema {{ {types} }} }}")).await;

    assert_eq!(told.json()["errors"][0]["extensions"]["code"], "TOO_LARGE");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_and_names_it() {
    let config = Config { introspection: true, answer_bytes: 1000, ..Config::default() };
    let stage = Stage::with(config).await;

    let told = ask(&stage, "", STANDARD).await;

    assert_eq!(told.json()["errors"][0]["extensions"]["code"], "TOO_LARGE");
    assert!(told.text().contains("limit of 1000 bytes"), "{}", told.text());
}

#[tokio::test]
async fn a_schema_that_changed_is_shown_as_it_is() {
    let stage = stage().await;
    let columns = r#"{ __type(name: "Album") { fields { name } } }"#;
    let before = ask(&stage, "", columns).await;
    assert!(!before.text().contains("year"));

    stage.world.grown.lock().unwrap().push("year");
    stage.world.added.lock().unwrap().push("year");
    // A name that is not known makes the gateway look again.
    ask(&stage, "", "{ album { year } }").await;

    let after = ask(&stage, "", columns).await;
    assert!(after.text().contains("year"), "{}", after.text());
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn open(stage: &Stage, path: &str, headers: &[(header::HeaderName, &str)]) -> Told {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(name, *value));
    stage.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_browser_gets_a_page_and_its_files_from_this_server_alone() {
    let stage = stage().await;

    let page = open(&stage, "/v1/api/shop/graphql?query=%7Balbum%7D", &[(header::ACCEPT, BROWSER)]).await;

    assert_eq!((page.status().as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
    assert!(!page.text().contains("://"), "{}", page.text());
    let loaded = page.text().split(['"']).filter(|part| part.starts_with("graphql/"));
    let loaded: Vec<&str> = loaded.collect();
    assert_eq!(loaded.len(), 5, "{}", page.text());
    for file in loaded {
        let path = format!("/v1/api/shop/{file}");
        let plain = open(&stage, &path, &[]).await;
        assert_eq!((plain.status().as_u16(), plain.header("content-encoding")), (200, ""), "{file}");
        assert!(plain.header("content-type").starts_with(if file.contains(".css") {
            "text/css"
        } else {
            "text/javascript"
        }));
        assert!(plain.text().len() > 100);
        let packed = open(&stage, &path, &[(header::ACCEPT_ENCODING, "br, gzip;q=0.5")]).await;
        let expected = if file.contains("start.js") { "" } else { "gzip" };
        assert_eq!(packed.header("content-encoding"), expected, "{file}");
    }
    assert_eq!(open(&stage, "/v1/api/shop/graphql/other.js", &[]).await.status(), 404);
}

#[tokio::test]
async fn what_is_no_browser_gets_json() {
    let stage = stage().await;
    for accept in ["application/json", "*/*", "text/html;q=0, application/json"] {
        let told = open(&stage, "/v1/api/shop/graphql?query=%7B__typename%7D", &[(header::ACCEPT, accept)]).await;
        assert_eq!(told.text(), r#"{"data":{"__typename":"Query"}}"#, "{accept}");
    }
}

#[tokio::test]
async fn where_no_schema_is_shown_there_is_no_page() {
    let stage = Stage::new().await;

    let page = open(&stage, "/v1/api/shop/graphql", &[(header::ACCEPT, BROWSER)]).await;
    assert_eq!((page.status().as_u16(), page.header("content-type")), (400, "application/json; charset=utf-8"));
    for path in ["/v1/api/shop/graphql/graphiql.js", "/v1/api/nowhere/graphql/graphiql.js", "/"] {
        assert_eq!(open(&stage, path, &[(header::ACCEPT, BROWSER)]).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn the_first_page_leads_to_projects_that_show_their_schema() {
    let stage = stage().await;
    stage.resources.send_replace(shows(false));
    while ask(&stage, "", "{ __schema { queryType { name } } }").await.status() == 200 {
        tokio::task::yield_now().await;
    }

    let page = open(&stage, "/", &[(header::ACCEPT, BROWSER)]).await;

    assert_eq!(page.status(), 200);
    assert!(page.text().contains(r#"<a href="v1/api/shop/graphql">shop</a>"#), "{}", page.text());
    assert!(!page.text().contains("bare"), "{}", page.text());
}
