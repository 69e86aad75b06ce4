use futures::FutureExt;
use mesh::resources::Snapshot;
use proptest::prelude::*;
use proto::{
    auth::{Access, FileAccess, ReachableTable, RuleRelations, TableAccess, WireFileOperation},
    grant,
};
use query::{GrantTerms, Operation, RuleFilter, Typed, Value, file::FileOperation};
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    cases::{now, parsed, service, shop, snapshot, token},
    table::{OPERATIONS, TableResource},
};

fn access(database: &str, table: &str, operation: Operation) -> Access {
    Access::Table(TableAccess::new(database, table, operation))
}

fn table(database: &str, id: &str, rules: Json) -> Json {
    json!({"kind": "table", "meta": {"project": "shop", "database": database, "id": id}, "spec": {"rules": rules}})
}

fn database(id: &str) -> Json {
    json!({"kind": "database", "meta": {"project": "shop", "id": id}, "spec": {"url": "sqlite:x.db"}})
}

fn project(spec: Json) -> Json {
    json!({"kind": "project", "meta": {"id": "shop"}, "spec": spec})
}

fn keyed() -> Json {
    project(json!({"tokens": [{"kid": "main", "secret": "a secret that has thirty-two bytes"}]}))
}

fn ask(documents: &Snapshot, token: &str, accesses: Vec<Access>) -> Result<Vec<GrantTerms>, Error> {
    let request = AuthorizeRequest { project: "shop".into(), token: token.into(), accesses };
    let response = service(documents).authorize(request, now())?;
    let (_, verifier) = grant::pair(b"mesh");
    Ok(response.grants.into_iter().map(|grant| Arc::unwrap_or_clone(verifier.terms(grant).unwrap())).collect())
}

fn user() -> String {
    token(&json!({"id": "u1", "role": "user"}))
}

#[test]
fn a_missing_operation_falls_back_to_the_default_of_the_database() {
    let documents = snapshot(&[
        keyed(),
        database("d"),
        table("d", "t", json!({"create": {"rule": "deny"}})),
        table("d", "default", json!({"read": {"rule": "allow"}, "create": {"rule": "allow"}})),
    ]);
    assert!(ask(&documents, "", vec![access("d", "t", Operation::Read)]).is_ok());
    assert!(ask(&documents, "", vec![access("d", "zz", Operation::Read)]).is_ok());
    let denied = ask(&documents, &user(), vec![access("d", "t", Operation::Create)]);
    assert!(matches!(denied, Err(Error::Denied { .. })));
}

#[test]
fn an_access_whose_rule_looks_at_other_tables_has_its_relations() {
    let by_team = json!({"rule": "authenticated", "rowFilter": {"team.name": "args.auth.id"}});
    let documents = snapshot(&[
        keyed(),
        database("d"),
        table("d", "open", json!({"read": {"rule": "allow"}})),
        table("d", "t", json!({"read": by_team})),
    ]);
    let accesses = ["open", "t", "t"].map(|table| access("d", table, Operation::Read)).into();
    let request = AuthorizeRequest { project: "shop".into(), token: user().into(), accesses };
    let response = service(&documents).authorize(request, now()).unwrap();
    let looked_at = |access| RuleRelations { access, paths: [vec!["team".to_owned()]].into() };
    assert_eq!(response.relations, [looked_at(1), looked_at(2)]);
}

#[test]
fn names_are_not_joined() {
    let documents =
        snapshot(&[keyed(), database("d"), database("d-x"), table("d-x", "t", json!({"read": {"rule": "allow"}}))]);
    assert!(ask(&documents, "", vec![access("d-x", "t", Operation::Read)]).is_ok());
    let denied = ask(&documents, &user(), vec![access("d", "x-t", Operation::Read)]);
    assert!(matches!(denied, Err(Error::Denied { .. })));
}

#[test]
fn a_denied_table_and_one_that_does_not_exist_look_alike() {
    let documents = snapshot(&shop(json!({"rules": {"read": {"rule": "deny"}}})));
    let message = |token: &str, table: &str| {
        let error = ask(&documents, token, vec![access("music", table, Operation::Read)]).unwrap_err();
        (std::mem::discriminant(&error), error.to_string().replace(&format!("music.{table}"), "?"))
    };
    assert_eq!(message("", "t"), message("", "zz"));
    assert_eq!(message(&user(), "t"), message(&user(), "zz"));
    assert_eq!(message("garbage", "t"), message("garbage", "zz"));
    assert_eq!(message(&user(), "t").1, "read of ? is denied by the rules");
}

#[test]
fn an_unknown_project_is_reported() {
    let request = AuthorizeRequest { project: "other".into(), ..AuthorizeRequest::default() };
    let error = service(&snapshot(&shop(json!({})))).authorize(request, now()).unwrap_err();
    assert_eq!(mesh::Fault::from(error), mesh::Fault::new(mesh::Code::UnknownProject, "project other is not known"));
}

#[test]
fn the_first_denied_access_denies_the_request() {
    let documents = snapshot(&[
        keyed(),
        database("d"),
        table("d", "open", json!({"read": {"rule": "allow"}})),
        table("d", "closed", json!({"read": {"rule": "deny", "error": "closed for repairs"}})),
    ]);
    let accesses = || vec![access("d", "open", Operation::Read), access("d", "closed", Operation::Read)];
    let fault = mesh::Fault::from(ask(&documents, &user(), accesses()).unwrap_err());
    assert_eq!((fault.code, fault.message.as_str()), (mesh::Code::Denied, "closed for repairs"));
    assert_eq!(fault.detail("access"), Some("1"));
    let fault = mesh::Fault::from(ask(&documents, "", accesses()).unwrap_err());
    assert_eq!(fault.code, mesh::Code::Unauthenticated);
    assert_eq!(fault.message, "a token is needed, and none was sent");
}

#[test]
fn a_grant_is_signed_where_it_leaves_the_process_and_ends() {
    let service = service(&snapshot(&shop(json!({"rules": {"read": {"rule": "allow"}}}))));
    let request = AuthorizeRequest {
        project: "shop".into(),
        token: Arc::default(),
        accesses: vec![access("music", "t", Operation::Read)],
    };
    let granted = service.authorize(request, now()).unwrap().grants.remove(0);
    let far = grant::Grant::from(proto::wire::auth::v1::SignedGrant::from(granted));
    let grant = grant::pair(b"mesh").1.terms(far).unwrap();
    assert_eq!(grant.expires_ms, 1_748_779_200_250 + 60_000);
    assert!(!grant.allow_all);
}

#[test]
fn columns_of_an_operation_go_before_those_of_its_table() {
    let documents = snapshot(&shop(json!({
        "columns": {"read": ["id", "name"], "write": ["name"], "deny": ["pass"]},
        "rules": {
            "read": {"rule": "allow"},
            "update": {"rule": "authenticated", "allowAll": true, "columns": {"write": ["price"]}},
            "delete": {"rule": "allow", "columns": {"read": ["id"], "filter": ["id", "name"], "deny": ["name"]}},
        },
    })));
    let of = |operation| ask(&documents, &user(), vec![access("music", "t", operation)]).unwrap().remove(0);
    let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let read = of(Operation::Read);
    assert_eq!(read.columns.read, names(&["id", "name"]));
    assert_eq!(read.columns.filter, names(&["id", "name"]));
    let update = of(Operation::Update);
    assert_eq!(update.columns.write, names(&["price"]));
    assert_eq!(update.columns.read, names(&["id", "name"]));
    assert!(update.allow_all);
    let delete = of(Operation::Delete);
    assert_eq!(delete.columns.read, names(&["id"]));
    assert_eq!(delete.columns.filter, names(&["id", "name"]));
    assert_eq!(delete.columns.deny, ["pass", "name"]);
    assert_eq!(update.columns.deny, ["pass"]);
}

#[test]
fn the_mode_of_a_table_goes_before_the_projects() {
    let owner = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.find.uid", "f2": "args.auth.id"});
    let strict = project(json!({
        "tokens": [{"kid": "main", "secret": "a secret that has thirty-two bytes"}],
        "security": {"matchMode": "check"},
    }));
    let loose = json!({"kind": "table", "meta": {"project": "shop", "database": "d", "id": "loose"},
        "spec": {"mode": "filter", "rules": {"read": owner}}});
    let documents = snapshot(&[loose, strict, database("d"), table("d", "strict", json!({"read": owner}))]);
    assert!(ask(&documents, &user(), vec![access("d", "loose", Operation::Read)]).is_ok());
    assert!(ask(&documents, &user(), vec![access("d", "strict", Operation::Read)]).is_err());
}

fn reach(documents: &Snapshot, token: &str) -> Result<Vec<(String, Vec<Operation>)>, Error> {
    let request = ReachableRequest { project: "shop".to_owned(), token: token.to_owned() };
    let response = service(documents).reachable(&request, now())?;
    let operations = |table: &ReachableTable| table.operations.iter().map(|(operation, _)| *operation).collect();
    Ok(response.tables.iter().map(|table| (table.table.clone(), operations(table))).collect())
}

/// A table whose operations have one rule each; the caller may be able to pass some of them.
fn reached(rules: Json, token: &str) -> Vec<Operation> {
    let documents = snapshot(&[keyed(), database("d"), table("d", "t", rules)]);
    let tables = reach(&documents, token).unwrap();
    tables.into_iter().find(|(name, _)| name == "t").map(|(_, operations)| operations).unwrap()
}

const READ: Operation = Operation::Read;
const CREATE: Operation = Operation::Create;
const UPDATE: Operation = Operation::Update;
const DELETE: Operation = Operation::Delete;

#[test]
fn only_operations_that_the_caller_could_pass_are_reachable() {
    let rules = json!({
        "read": {"rule": "or", "clauses": [{"rule": "deny"}, {"rule": "authenticated"}]},
        "create": {"rule": "match", "type": "string", "eval": "==", "f1": "args.find.a", "f2": "x"},
        "update": {"rule": "match", "type": "string", "eval": "==", "f1": "a", "f2": "b"},
        "delete": {"rule": "not", "clause": {"rule": "allow"}},
    });
    assert_eq!(reached(rules.clone(), &user()), [READ]);
    assert_eq!(reached(rules, ""), []);
    let open = json!({"read": {"rule": "allow"}, "create": {"rule": "authenticated"}});
    assert_eq!(reached(open.clone(), ""), [READ]);
    assert_eq!(reached(open, &user()), [CREATE, READ]);
}

#[test]
fn comparisons_with_claims_are_decided_and_others_are_not() {
    let compare = |f1: &str, f2: &str| json!({"rule": "match", "type": "string", "eval": "==", "f1": f1, "f2": f2});
    let rules = |f1, f2| json!({"read": compare(f1, f2), "create": compare(f1, f2), "update": compare(f1, f2)});
    assert_eq!(reached(rules("args.auth.role", "user"), &user()), [CREATE, READ, UPDATE]);
    assert_eq!(reached(rules("args.auth.role", "admin"), &user()), []);
    assert_eq!(reached(rules("args.auth.org", "admin"), &user()), []);
    assert_eq!(reached(rules("args.find.owner", "args.auth.id"), &user()), [READ, UPDATE]);
    assert_eq!(reached(rules("args.find.owner", "args.auth.org"), &user()), []);
    assert_eq!(reached(rules("args.doc.owner", "args.auth.id"), &user()), [CREATE, READ, UPDATE]);
    assert_eq!(reached(rules("args.doc.owner", "args.auth.org"), &user()), []);
    assert_eq!(reached(rules("args.auth.id", "args.op"), &user()), [CREATE, READ, UPDATE]);
    let not = json!({"read": {"rule": "not", "clause": compare("args.auth.role", "admin")}});
    assert_eq!(reached(not.clone(), &user()), [READ]);
    assert_eq!(reached(not, &token(&json!({"role": "admin"}))), []);
    let listed = json!({"read": {"rule": "match", "type": "string", "eval": "in", "f1": "args.auth.role", "f2": ["user", "staff"]}});
    assert_eq!(reached(listed.clone(), &user()), [READ]);
    assert_eq!(reached(listed, &token(&json!({"role": "admin"}))), []);
}

#[test]
fn conditions_on_rows_need_the_values_that_they_take() {
    let rules = |claim: &str| {
        json!({
            "read": {"rule": "authenticated", "rowFilter": {"org": claim}},
            "create": {"rule": "authenticated", "withCheck": {"$or": [{"org": claim}, {"org": "public"}]}},
            "delete": {"rule": "allow", "rowFilter": {"org": claim}},
        })
    };
    assert_eq!(reached(rules("args.auth.id"), &user()), [CREATE, READ]);
    assert_eq!(reached(rules("args.auth.org"), &user()), []);
}

#[test]
fn comparisons_with_columns_are_reachable_where_some_row_may_pass() {
    let compare = |r#type: &str, eval: &str, f2: &str| json!({"rule": "match", "type": r#type, "eval": eval, "f1": "args.find.a", "f2": f2});
    let not = |rule: Json| json!({"rule": "not", "clause": rule});
    let caller = token(&json!({"id": "u1", "org": 7, "none": []}));
    for (rule, is_reached) in [
        (compare("string", "==", "args.auth.id"), true),
        (not(compare("string", "==", "args.auth.id")), true),
        // A claim of another type equals no text.
        (compare("string", "==", "args.auth.org"), false),
        // Whether the request has a limit is not known before it is made.
        (compare("number", "==", "args.opts.limit"), true),
        (compare("string", "in", "args.auth.none"), false),
        (compare("string", "notIn", "args.auth.none"), true),
        (not(compare("string", "notIn", "args.auth.none")), false),
    ] {
        let found = reached(json!({ "read": rule.clone() }), &caller);
        assert_eq!(found, if is_reached { vec![READ] } else { vec![] }, "{rule}");
    }
}

#[test]
fn what_depends_on_the_time_may_be_reached_at_another() {
    let before =
        |f1: &str| json!({"read": {"rule": "match", "type": "date", "eval": "<", "f1": f1, "f2": "2000-01-01"}});
    assert_eq!(reached(before("utils.now()"), &user()), [READ]);
    assert_eq!(reached(before("utils.addDuration(utils.now(), '1h')"), &user()), [READ]);
    assert_eq!(reached(before("2001-01-01"), &user()), []);
}

#[test]
fn callers_without_a_token_reach_what_admits_them() {
    let rule = |anonymous: bool| {
        let public = json!({"rule": "not", "clause": {"rule": "authenticated"}});
        json!({"read": {"rule": "or", "clauses": [public, {"rule": "authenticated"}], "anonymous": anonymous}})
    };
    assert_eq!(reached(rule(true), ""), [READ]);
    assert_eq!(reached(rule(false), ""), []);
    assert_eq!(reached(rule(false), &user()), [READ]);
}

#[test]
fn a_table_with_rules_of_its_own_is_told_from_the_default() {
    let documents = snapshot(&[
        keyed(),
        database("d"),
        table("d", "closed", json!({"read": {"rule": "deny"}, "delete": {"rule": "deny"}})),
        table("d", "half", json!({"read": {"rule": "deny"}})),
        table("d", "default", json!({"read": {"rule": "allow"}, "delete": {"rule": "allow"}})),
    ]);
    let told = |name: &str, operations: &[Operation]| (name.to_owned(), operations.to_vec());
    let wanted = [told("closed", &[]), told("default", &[READ, DELETE]), told("half", &[DELETE])];
    assert_eq!(reach(&documents, "").unwrap(), wanted);
}

#[test]
fn the_reach_of_an_invalid_token_is_not_told() {
    let documents = snapshot(&shop(json!({"rules": {"read": {"rule": "allow"}}})));
    assert!(matches!(reach(&documents, "garbage"), Err(Error::InvalidToken(_))));
}

#[test]
fn an_operation_is_told_with_its_columns() {
    let documents = snapshot(&[
        keyed(),
        database("d"),
        table("d", "t", json!({"read": {"rule": "allow", "columns": {"deny": ["pass"]}}})),
    ]);
    let request = ReachableRequest { project: "shop".to_owned(), ..Default::default() };
    let response = service(&documents).reachable(&request, now()).unwrap();
    let table = response.tables.iter().find(|table| table.table == "t").unwrap();
    assert_eq!(table.operations[0].1.deny, ["pass"]);
}

#[test]
fn errors_are_reported_with_their_paths() {
    let documents = [
        project(json!({"tokens": [
            {"kid": "a", "secret": "short", "primary": true},
            {"kid": "a", "secret": "a secret that has thirty-two bytes", "primary": true},
        ], "s3": {"keys": [
            {"id": "a b", "secret": "a secret that has thirty-one by"},
            {"id": "abc", "secret": "a secret of thirty-two bytes now"},
            {"id": "abc", "secret": "a secret that has thirty-two bytes"},
        ]}})),
        database("music"),
        table("music", "t", json!({"raed": {"rule": "allow"}})),
        table("music", "t", json!({"read": {"rule": "and", "clauses": [{"rule": "allow"}, {"rule": "nope"}]}})),
        table("musik", "u", json!({"aggr": {"rule": "allow"}})),
        json!({"kind": "table", "meta": {"project": "shpo", "database": "music", "id": "v"}, "spec": {"rules": []}}),
        json!({"kind": "table", "meta": {"project": "shop", "database": "music", "id": "w"},
            "spec": {"schema": "type w {}", "columns": {"deny": "pass", "raed": []}, "mode": "x"}}),
    ];
    let faults = parsed(&documents).unwrap_err();
    let faults: Vec<_> = faults.into_iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
    for expected in [
        "spec.tokens.0.secret: expected a secret of at least 32 bytes, found 5",
        "spec.tokens.1.kid: duplicate kid a",
        "spec.s3.keys.0.id: invalid id \"a b\": expected 3 to 128 letters, digits, _ and -",
        "spec.s3.keys.0.secret: expected a secret of at least 32 bytes, found 31",
        "spec.s3.keys.2.id: duplicate id abc",
        "spec.tokens.1.primary: only one key may be primary",
        "spec.rules.raed: unknown key raed, did you mean read?",
        "meta.id: duplicate document of table t of database music",
        "spec.rules.read.clauses.1.rule: unknown rule kind \"nope\", expected one of allow, authenticated, deny, match, and, or, not, func",
        "meta.database: unknown database musik, did you mean music?",
        "spec.rules.aggr: aggr is not supported by this version",
        "meta.project: unknown project shpo, did you mean shop?",
        "spec.rules: expected an object with a rule per operation",
        "spec.schema: schema is not supported by this version",
        "spec.columns.deny: expected a list of column names",
        "spec.columns.raed: unknown key raed, did you mean read?",
        "spec.mode: expected check, filter or auto",
    ] {
        assert!(faults.iter().any(|fault| fault == expected), "{expected} is not in {faults:#?}");
    }
    assert_eq!(faults.len(), 17, "{faults:#?}");
}

#[test]
fn a_secret_has_at_least_its_bytes() {
    let of = |secret: &str| parsed(&[project(json!({"tokens": [{"secret": secret}]}))]).is_ok();
    assert!(of(&"s".repeat(32)));
    assert!(!of(&"s".repeat(31)));
}

#[test]
fn faults_of_rules_say_what_is_expected() {
    let match_of = |r#type: &str| json!({"rule": "match", "type": r#type, "eval": "like", "f1": "a", "f2": "b"});
    for (rule, expected) in [
        (json!("allow"), ": expected a rule such as {rule: allow}, found string"),
        (json!([]), ": expected a rule such as {rule: allow}, found array"),
        (json!(null), ": expected a rule such as {rule: allow}, found null"),
        (json!({"rule": "deny", "error": 1}), ".error: expected string, found number"),
        (json!({"rule": "deny", "error": true}), ".error: expected string, found boolean"),
        (json!({"rule": "deny", "anonymous": {}}), ".anonymous: expected boolean, found object"),
        (json!({"rule": "webhook"}), ".rule: rule kind webhook is not supported by this version"),
        (match_of("string"), ".eval: invalid operator \"like\" for type string"),
        (match_of("number"), ".eval: invalid operator \"like\" for type number"),
        (match_of("bool"), ".eval: invalid operator \"like\" for type bool"),
        (match_of("date"), ".eval: invalid operator \"like\" for type date"),
    ] {
        let fault = parsed(&shop(json!({"rules": {"read": rule}}))).unwrap_err().remove(0);
        let text = format!("{}: {}", fault.path, fault.message);
        assert!(text.starts_with(&format!("spec.rules.read{expected}")), "{text}");
    }
}

#[test]
fn keys_of_another_kind_of_rule_are_warned_of_unless_empty() {
    let equal = json!({"rule": "match", "type": "string", "eval": "==", "f1": "a", "f2": "b"});
    let warnings = |rule: &Json| {
        let documents = snapshot(&shop(json!({"rules": {"read": rule}})));
        let texts = |table: &TableResource| {
            table.warnings.iter().map(|found| format!("{}: {}", found.path, found.message)).collect::<Vec<_>>()
        };
        documents.of::<TableResource>().flat_map(|(table, _)| texts(table)).collect::<Vec<_>>()
    };
    for rule in [
        equal.clone(),
        json!({"rule": "and", "clauses": [equal]}),
        json!({"rule": "or", "clauses": [equal]}),
        json!({"rule": "not", "clause": equal}),
        json!({"rule": "func", "service": "mail", "func": "may"}),
    ] {
        assert_eq!(warnings(&rule), [""; 0], "{rule}");
    }
    for empty in [json!(null), json!(false), json!(""), json!([]), json!({})] {
        assert_eq!(warnings(&json!({"rule": "deny", "value": empty})), [""; 0], "{empty}");
    }
    for value in [json!(true), json!(0), json!("x"), json!([null]), json!({"a": null})] {
        let found = warnings(&json!({"rule": "deny", "value": value}));
        assert_eq!(found, ["spec.rules.read.value: value has no effect in a rule of kind deny"], "{value}");
    }
    let literal = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.find.owner", "f2": "auth.id"});
    let told = "spec.rules.read.f2: \"auth.id\" is compared as a string; write args.auth.id for its value";
    assert_eq!(warnings(&literal), [told]);
}

#[test]
fn faults_of_links_are_told() {
    let of = |id: &str, links: Json| json!({"kind": "table", "meta": {"project": "shop", "database": "music", "id": id}, "spec": {"links": links}});
    let documents = [
        keyed(),
        database("music"),
        of("a", json!([])),
        of(
            "b",
            json!({
                "one": {"tabel": "t", "on": {"a": "b"}},
                "two": {"table": "t"},
                "three": {"table": "t", "on": ["a"]},
                "four": {"table": "t", "on": {"a": 1}},
                "five": {"table": "t", "on": {"a": "b"}, "many": "yes"},
                "six": null,
            }),
        ),
        of("c", json!({"": {"table": "t", "on": {"a": "b"}}, "none": {"table": "t", "on": {}}})),
        of("default", json!({"right": {"table": "t", "on": {"a": "b"}}})),
        of("d", json!({"right": {"table": "t", "on": {"a": "b", "c": "d"}, "many": true}})),
        of("e", Json::Null),
    ];
    let faults = parsed(&documents).unwrap_err();
    let faults: Vec<_> = faults.into_iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
    assert_eq!(
        faults,
        [
            "spec.links: expected mapping, found list",
            "spec.links.one.tabel: key tabel is not known; did you mean table? known: table, database, on, many",
            "spec.links.two: the key on is missing",
            "spec.links.three.on: expected mapping, found list",
            "spec.links.four.on.a: expected string, found integer",
            "spec.links.five.many: expected boolean, found string",
            "spec.links.six: expected mapping, found null",
            "spec.links: invalid name of a relation: must not be empty",
            "spec.links.none.on: expected at least one pair of columns",
            "spec.links: not allowed in the document default, which stands for many tables: must be in the document of one table",
        ]
    );
}

#[test]
fn a_table_without_a_spec_has_no_policies() {
    let table = json!({"kind": "table", "meta": {"project": "shop", "database": "d", "id": "t"}});
    let documents = snapshot(&[keyed(), database("d"), table]);
    let denied = ask(&documents, &user(), vec![access("d", "t", Operation::Read)]);
    assert!(matches!(denied, Err(Error::Denied { .. })));
}

#[test]
fn a_rule_may_not_be_endlessly_deep_or_large() {
    let mut deep = json!({"rule": "allow"});
    for _ in 0..40 {
        deep = json!({"rule": "not", "clause": deep});
    }
    let large: Vec<_> = (0..2000).map(|_| json!({"rule": "allow"})).collect();
    let documents = shop(json!({"rules": {"read": deep, "create": {"rule": "or", "clauses": large}}}));
    let messages: Vec<_> = parsed(&documents).unwrap_err().into_iter().map(|fault| fault.message).collect();
    assert_eq!(messages, ["the rule has more than 1024 parts", "the rule nests deeper than 32 levels"]);
    let of_parts = |parts: usize| {
        let clauses = vec![json!({"rule": "allow"}); parts - 1];
        parsed(&shop(json!({"rules": {"read": {"rule": "or", "clauses": clauses}}})))
    };
    let allowed = ask(&of_parts(1024).unwrap(), &user(), vec![access("music", "t", Operation::Read)]);
    assert!(allowed.is_ok(), "{allowed:?}");
    assert!(of_parts(1025).is_err());
}

#[test]
fn keys_that_did_not_change_keep_their_cache() {
    let before = PolicySet::new(&snapshot(&shop(json!({}))), None, &PolicySet::default());
    let allowed = snapshot(&shop(json!({"rules": {"read": {"rule": "allow"}}})));
    let after = PolicySet::new(&allowed, None, &before);
    assert!(Arc::ptr_eq(&before.project("shop").unwrap().keys, &after.project("shop").unwrap().keys));
    let other = PolicySet::new(&snapshot(&[project(json!({}))]), None, &before);
    assert!(!Arc::ptr_eq(&before.project("shop").unwrap().keys, &other.project("shop").unwrap().keys));
}

#[tokio::test]
async fn a_project_that_comes_without_a_key_gets_one_in_development() {
    let keys = tempfile::tempdir().unwrap();
    let (sender, current) = watch::channel(Arc::new(snapshot(&[])));
    sender.send(Arc::new(snapshot(&[project(json!({}))]))).unwrap();
    drop(sender);
    let development = Development { keys: keys.path().to_owned(), token_options: String::new() };
    let policies = Arc::new(ArcSwap::from_pointee(PolicySet::default()));
    let config = Config { development: Some(development) };
    follow(policies.clone(), watch::Sender::new(()), config, current).await;
    assert_eq!(policies.load().project("shop").unwrap().keys.specs().len(), 1);
}

#[tokio::test]
async fn a_call_from_another_process_is_answered_as_one_from_this() {
    let [project, database, table] = shop(json!({"rules": {"read": {"rule": "authenticated"}}}));
    let spec = json!({"rules": [{"prefix": "/", "read": {"rule": "authenticated"}}]});
    let files = json!({"kind": "bucket", "meta": {"project": "shop", "id": "files"}, "spec": spec});
    let authenticated = json!({"rule": "authenticated"});
    let spec = json!({"worker": {"register": authenticated}, "default": {"rule": authenticated}});
    let mail = json!({"kind": "service", "meta": {"project": "shop", "id": "mail"}, "spec": spec});
    let served = service(&snapshot(&[project, database, table, files, mail]));
    let (project, service) = ("shop".to_owned(), "mail".to_owned());
    let read = FileAccess {
        bucket: "files".to_owned(),
        operation: WireFileOperation::Read.into(),
        path: Some("a".to_owned()),
        no_size: true,
        ..FileAccess::default()
    };
    for (token, is_granted) in [(user(), true), (String::new(), false)] {
        let accesses = vec![access("music", "t", Operation::Read)];
        let request = AuthorizeRequest { project: "shop".into(), token: token.as_str().into(), accesses };
        let rows = AuthRules::authorize(&served, Request::new(request)).await;
        assert_eq!(rows.map(|rows| rows.into_inner().grants.len()).unwrap_or_default(), usize::from(is_granted));

        let request = ReachableRequest { project: project.clone(), token: token.clone() };
        let reachable = AuthRules::reachable(&served, Request::new(request)).await.unwrap().into_inner();
        let operations: usize = reachable.tables.iter().map(|table| table.operations.len()).sum();
        assert_eq!(operations, usize::from(is_granted));

        let (project, token, service) = (project.clone(), token.clone(), service.clone());
        let request = AuthorizeFilesRequest {
            project: project.clone(),
            token: token.clone(),
            accesses: vec![read.clone()],
            ..AuthorizeFilesRequest::default()
        };
        let granted = AuthRules::authorize_files(&served, Request::new(request)).await;
        assert_eq!(granted.is_ok_and(|granted| granted.into_inner().verdicts.len() == 1), is_granted);

        let (access, seconds) = (Some(read.clone()), 60);
        let request = SignFileRequest { project: project.clone(), token: token.clone(), access, seconds };
        let signed = AuthRules::sign_file(&served, Request::new(request)).await;
        assert_eq!(signed.is_ok_and(|signed| signed.into_inner().signature.is_some()), is_granted);

        let request = AuthorizeCallRequest {
            project: project.clone(),
            token: token.clone(),
            service: service.clone(),
            function: "send".to_owned(),
            params: "{}".into(),
            of_operator: false,
            is_list: false,
        };
        let called = AuthRules::authorize_call(&served, Request::new(request)).await;
        assert_eq!(called.is_ok_and(|called| called.into_inner().grant.is_some()), is_granted);

        let request = AuthorizeWorkerRequest { project, token, service };
        let registered = AuthRules::authorize_worker(&served, Request::new(request)).await;
        assert_eq!(registered.is_ok_and(|registered| registered.into_inner().grant.is_some()), is_granted);
    }
}

#[tokio::test]
async fn a_change_of_the_resources_is_followed() {
    let shop = |rule: &str| Arc::new(snapshot(&shop(json!({"rules": {"read": {"rule": rule}}}))));
    let (sender, current) = tokio::sync::watch::channel(shop("deny"));
    let policies = Arc::new(ArcSwap::from_pointee(PolicySet::new(&current.borrow(), None, &PolicySet::default())));
    let service = Service::of(policies.clone(), grant::pair(b"mesh").0);
    let allowed = || {
        let accesses = vec![access("music", "t", Operation::Read)];
        let request = AuthorizeRequest { project: "shop".into(), token: Arc::default(), accesses };
        service.authorize(request, now()).is_ok()
    };
    let mut revisions = service.revisions(Request::new(RevisionsRequest {})).await.unwrap().into_inner();
    assert!(revisions.next().await.is_some());
    assert!(revisions.next().now_or_never().is_none());
    assert!(!allowed());
    sender.send(shop("allow")).unwrap();
    drop(sender);
    follow(policies, service.revisions.clone(), Config::default(), current).await;
    assert!(allowed());
    assert!(revisions.next().now_or_never().is_some(), "it is told once it is in force");
    service.draining.cancel();
    assert!(revisions.next().await.is_none());
}

#[test]
fn the_end_of_a_token_is_told_where_it_was_looked_at() {
    let rules = |rule: &str| shop(json!({"rules": {"read": {"rule": rule}}}));
    let begin = now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let expires = |rule: &str, claims: Json| {
        let accesses = vec![access("music", "t", Operation::Read)];
        let request = AuthorizeRequest { project: "shop".into(), token: token(&claims).into(), accesses };
        service(&snapshot(&rules(rule))).authorize(request, now()).unwrap().token_expires_ms
    };
    // A token is valid during its last second.
    assert_eq!(expires("authenticated", json!({"id": "u1", "exp": begin + 60})), Some((begin + 61) * 1000));
    assert_eq!(expires("authenticated", json!({"id": "u1"})), None);
    assert_eq!(expires("allow", json!({"id": "u1", "exp": begin + 60})), None);
}

#[test]
fn a_project_without_keys_gets_one_in_development_only() {
    let documents = snapshot(&[
        project(json!({})),
        database("music"),
        table("music", "t", json!({"read": {"rule": "authenticated"}})),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let spec = query::resources::Project::default();
    let expires = std::time::Duration::from_secs(60);
    let token = crate::sign(&spec, "shop", &serde_json::Map::new(), expires, Some(dir.path())).unwrap();
    let allowed = |dev_keys| {
        let policies = PolicySet::new(&documents, dev_keys, &PolicySet::default());
        let service = Service::of(Arc::new(ArcSwap::from_pointee(policies)), grant::pair(b"mesh").0);
        let accesses = vec![access("music", "t", Operation::Read)];
        let request = AuthorizeRequest { project: "shop".into(), token: token.as_str().into(), accesses };
        service.authorize(request, std::time::SystemTime::now()).is_ok()
    };
    assert!(allowed(Some(dir.path())));
    assert!(!allowed(None));
}

/// Arbitrary JSON with the words of rules in it.
fn rule_json() -> impl Strategy<Value = Json> {
    let text = prop_oneof![
        "(args|utils)\\.[a-zA-Z.()\\[\\]',]{0,20}",
        Just("args.auth.id".to_owned()),
        Just("args.find.uid".to_owned()),
        Just("args.doc.uid".to_owned()),
        Just("utils.length(args.auth.id)".to_owned()),
        Just("allow".to_owned()),
        Just("==".to_owned()),
        Just("string".to_owned()),
        ".{0,10}",
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        text.prop_map(Json::from),
        (
            "(==|!=|in|notIn|<|matches|isNull)",
            "(string|number|bool|date)",
            "(args.auth.id|args.find.uid|args.doc.a|x)",
            "(args.auth.id|args.find.uid|args.doc.a|x)"
        )
            .prop_map(
                |(eval, r#type, f1, f2)| json!({"rule": "match", "eval": eval, "type": r#type, "f1": f1, "f2": f2})
            ),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            ("(and|or)", prop::collection::vec(inner.clone(), 0..4))
                .prop_map(|(kind, clauses)| json!({"rule": kind, "clauses": clauses})),
            inner.clone().prop_map(|clause| json!({"rule": "not", "clause": clause})),
            prop::collection::hash_map("(rule|type|eval|f1|f2|clauses|clause|error|mode|columns)", inner, 0..6)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// Whether the filter has the text anywhere else than as a whole value.
fn leaks(filter: &RuleFilter, text: &str) -> bool {
    let in_value =
        |value: &Value| !matches!(value, Value::Text(own) if own == text) && format!("{value:?}").contains(text);
    match filter {
        RuleFilter::And(all) | RuleFilter::Or(all) => all.iter().any(|one| leaks(one, text)),
        RuleFilter::Not(inner) => leaks(inner, text),
        RuleFilter::Compare { column, value, .. } => column.contains(text) || in_value(value),
        RuleFilter::In { column, values } => column.contains(text) || values.iter().any(in_value),
        RuleFilter::IsNull { column } => column.contains(text),
        RuleFilter::Related { relation, filter, .. } => relation.contains(text) || leaks(filter, text),
    }
}

proptest! {
    #[test]
    fn any_rule_is_refused_or_decides_without_panic(rule in rule_json(), operation in 0..4_usize, id in any::<Option<i64>>()) {
        let operation = OPERATIONS[operation];
        let Ok(documents) = parsed(&shop(json!({"rules": {operation.name(): rule}}))) else { return Ok(()) };
        let claims = id.map_or_else(|| json!({"id": "marker' --"}), |id| json!({"id": id}));
        let find = query::Filter::Compare {
            column: "uid".to_owned(),
            comparison: query::Comparison::Eq,
            value: Typed::Text("marker' --".to_owned()),
        };
        let doc = query::Document(vec![("a".to_owned(), Typed::Text("marker' --".to_owned()))]);
        let access = Access::Table(TableAccess {
            find: Some(find),
            docs: vec![doc].into(),
            ..TableAccess::new("music", "t", operation)
        });
        match ask(&documents, &token(&claims), vec![access]) {
            Ok(grants) => prop_assert!(!leaks(&grants[0].filter, "marker") && !leaks(&grants[0].check, "marker")),
            Err(Error::Denied { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The terms of a read of the table of the shop; its signer signs for the mesh of the tests.
fn read_at(service: &Service, token: &str, now: SystemTime) -> Result<Arc<GrantTerms>, Error> {
    let accesses = vec![access("music", "t", Operation::Read)];
    let request = AuthorizeRequest { project: "shop".into(), token: token.into(), accesses };
    let grant = service.authorize(request, now)?.grants.remove(0);
    Ok(grant::pair(b"mesh").1.terms(grant).unwrap())
}

fn for_users(more: Json) -> Json {
    let mut policy = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "user"});
    policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"rules": {"read": policy}})
}

#[test]
fn a_grant_on_claims_is_given_again_for_some_seconds() {
    let service = service(&snapshot(&shop(for_users(json!({"rowFilter": {"owner": "args.auth.id"}})))));
    let (one, other) = (user(), token(&json!({"id": "u2", "role": "user"})));
    let after = |milliseconds| now() + std::time::Duration::from_millis(milliseconds);

    let first = read_at(&service, &one, now()).unwrap();

    assert!(Arc::ptr_eq(&first, &read_at(&service, &one, after(4_999)).unwrap()));
    assert_ne!(first.filter, read_at(&service, &other, after(1)).unwrap().filter, "it is the grant of one caller");
    let later = read_at(&service, &one, after(5_000)).unwrap();
    assert_eq!(later.expires_ms, first.expires_ms + 5_000);
    let stranger = token(&json!({"id": "u1", "role": "guest"}));
    assert!(matches!(read_at(&service, &stranger, now()), Err(Error::Denied { .. })));
}

#[test]
fn a_kept_grant_ends_with_the_token() {
    let service = service(&snapshot(&shop(for_users(json!({})))));
    let token = token(&json!({"role": "user", "exp": 1_748_779_201}));
    let after = |seconds| now() + std::time::Duration::from_secs(seconds);
    assert!(read_at(&service, &token, now()).is_ok());
    assert!(read_at(&service, &token, after(1)).is_ok());

    assert!(matches!(read_at(&service, &token, after(2)), Err(Error::Unauthenticated { .. })));
}

#[test]
fn a_kept_grant_ends_with_its_rule() {
    let before = PolicySet::new(&snapshot(&shop(for_users(json!({})))), None, &PolicySet::default());
    let policies = Arc::new(ArcSwap::from_pointee(before));
    let service = Service::of(policies.clone(), grant::pair(b"mesh").0);
    let hidden = json!({"columns": {"deny": ["secret"]}});
    assert!(read_at(&service, &user(), now()).unwrap().columns.deny.is_empty());

    policies.store(Arc::new(PolicySet::new(&snapshot(&shop(for_users(hidden))), None, &policies.load())));
    assert_eq!(read_at(&service, &user(), now()).unwrap().columns.deny, ["secret"]);
    policies.store(Arc::new(PolicySet::new(
        &snapshot(&shop(json!({"rules": {"read": {"rule": "deny"}}}))),
        None,
        &policies.load(),
    )));
    assert!(matches!(read_at(&service, &user(), now()), Err(Error::Denied { .. })));
}

#[test]
fn a_grant_on_the_request_is_made_for_each() {
    let rule = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.op", "f2": "one"});
    let service = service(&snapshot(&shop(json!({"rules": {"read": rule}}))));
    let request = |op| {
        let table = TableAccess { op, ..TableAccess::new("music", "t", Operation::Read) };
        let accesses = vec![Access::Table(table)];
        service.authorize(AuthorizeRequest { project: "shop".into(), token: user().into(), accesses }, now())
    };
    assert!(request("one").is_ok());
    assert!(matches!(request("all"), Err(Error::Denied { .. })));
}

#[test]
fn rules_of_files_see_the_claims_of_an_access_key() {
    let own = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.user", "f2": "args.auth.id"});
    let documents = snapshot(&[
        project(json!({"s3": {"keys": [
            {"id": "ann-key", "secret": "a secret that has thirty-two bytes", "claims": {"id": "ann"}},
        ]}})),
        json!({"kind": "bucket", "meta": {"project": "shop", "id": "files"}, "spec": {"rules": [{"prefix": "/:user", "read": own}]}}),
    ]);
    let allowed = |key: &str, path: &str| {
        let access = FileAccess {
            bucket: "files".to_owned(),
            operation: WireFileOperation::from(FileOperation::Read).into(),
            path: Some(path.to_owned()),
            no_size: true,
            ..FileAccess::default()
        };
        let request = AuthorizeFilesRequest {
            project: "shop".to_owned(),
            accesses: vec![access],
            access_key: key.to_owned(),
            ..AuthorizeFilesRequest::default()
        };
        service(&documents).authorize_files(request, now()).map(|response| response.verdicts.len())
    };
    assert!(matches!(allowed("ann-key", "ann/x"), Ok(1)));
    assert!(matches!(allowed("ann-key", "bob/x"), Err(Error::Denied { .. })));
    for unknown in ["bob-key", ""] {
        assert!(matches!(allowed(unknown, "ann/x"), Err(Error::Unauthenticated { .. })), "{unknown}");
    }
}
