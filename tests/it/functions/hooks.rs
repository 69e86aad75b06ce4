//! Functions that are asked before rows are written: by every protocol, and what does not answer as it must refuses.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    client::{Outcome, PROTOCOLS, Protocol, Refusal},
    engine::Engine,
    mesh::{ENGINES, Setup, Shape, TestMesh},
    operation::Operation,
    token,
    user_server::UserServer,
};

scenarios!(
    a_function_accepts_refuses_and_changes_by_every_protocol,
    rules_judge_what_a_function_changed,
    what_does_not_answer_refuses,
    a_function_is_told_who_writes_what,
    tables_without_their_own_have_those_of_default,
);

const TABLES: &str =
    "CREATE TABLE note (id BIGINT PRIMARY KEY, body TEXT, n BIGINT); CREATE TABLE other (id BIGINT PRIMARY KEY);";

struct Stage {
    mesh: TestMesh,
    server: UserServer,
}

fn hook(function: &str) -> Value {
    json!({ "service": "checks", "function": function, "timeout": 2 })
}

/// Everybody may write, as far as the functions let them; `spec` is that of table `note`.
async fn stage(shape: Shape, engine: Engine, spec: Value) -> anyhow::Result<Stage> {
    let server = UserServer::start().await?;
    let url = server.url();
    let deny = json!({ "rule": { "rule": "deny" } });
    let fails = json!({ "path": "/status/500" });
    let service = json!({ "http": { "url": url }, "default": deny, "functions": { "fails": fails } });
    let open = json!({ "create": { "rule": "allow" }, "read": { "rule": "allow" }, "update": { "rule": "allow" }, "delete": { "rule": "allow" } });
    let document =
        |kind: &str, meta: Value, spec: &Value| json!({ "kind": kind, "meta": meta, "spec": spec }).to_string();
    let mut note = json!({ "rules": open });
    for (key, value) in spec.as_object().into_iter().flatten() {
        note[key] = value.clone();
    }
    let table = |id: &str| json!({ "project": "shop", "database": "lab", "id": id });
    let resources = [
        document("service", json!({ "project": "shop", "id": "checks" }), &service),
        document("table", table("note"), &note),
        document("table", table("other"), &json!({ "rules": open })),
    ];
    let setup = Setup { lab: Some(TABLES.to_owned()), resources: resources.join("\n---\n"), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    Ok(Stage { mesh, server })
}

fn operation(json: Value) -> anyhow::Result<Operation> {
    Ok(serde_json::from_value(json)?)
}

fn create(id: i64) -> anyhow::Result<Operation> {
    operation(json!({ "create": { "table": "note", "docs": [{ "id": id, "body": "mine", "n": 1 }] } }))
}

impl Stage {
    async fn run(&self, protocol: Protocol, of: Operation) -> anyhow::Result<Outcome> {
        self.mesh.client.run(protocol, "lab", &of).await
    }

    async fn rows(&self) -> anyhow::Result<Value> {
        let read = json!({ "op": "all", "find": {}, "options": { "sort": ["id"] } });
        Ok(self.mesh.client.post("crud/lab/note/read", &read).await?.1["result"].clone())
    }
}

fn refusal(outcome: Outcome) -> anyhow::Result<Refusal> {
    match outcome {
        Outcome::Failed(refusal) => Ok(refusal),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn a_function_accepts_refuses_and_changes_by_every_protocol(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let before = json!({ "create": hook("create"), "update": hook("update"), "delete": hook("delete") });
        let stage = stage(shape, engine, json!({ "before": before })).await?;
        for (id, protocol) in (1..).zip(PROTOCOLS) {
            let update = json!({ "update": { "table": "note", "find": { "id": id }, "update": { "$set": { "body": "new" }, "$inc": { "n": 1 } } } });
            let delete = json!({ "delete": { "table": "note", "find": { "id": id } } });
            for path in ["/create", "/update", "/delete"] {
                stage.server.says(path, r#"{"reject":"not today"}"#);
            }
            let refused = refusal(stage.run(protocol, create(id)?).await?)?;
            ensure!(refused.code == "FUNCTION" && refused.text == "not today", "{protocol:?}: {refused:?}");
            assert_eq!(stage.rows().await?, json!([]), "{engine:?} {protocol:?}");

            stage
                .server
                .says("/create", r#"{"doc":{"id":ID,"body":"theirs","n":7}}"#.replace("ID", &id.to_string()).as_str());
            stage.run(protocol, create(id)?).await?;
            assert_eq!(stage.rows().await?, json!([{ "id": id, "body": "theirs", "n": 7 }]), "{engine:?} {protocol:?}");

            let refused = refusal(stage.run(protocol, operation(update.clone())?).await?)?;
            ensure!(refused.text == "not today", "{refused:?}");
            stage.server.says("/update", r#"{"doc":{"body":"changed"}}"#);
            stage.run(protocol, operation(update.clone())?).await?;
            assert_eq!(
                stage.rows().await?,
                json!([{ "id": id, "body": "changed", "n": 8 }]),
                "{engine:?} {protocol:?}"
            );
            stage.server.says("/update", r#"{"accept":true}"#);
            stage.run(protocol, operation(update)?).await?;
            assert_eq!(stage.rows().await?, json!([{ "id": id, "body": "new", "n": 9 }]), "{engine:?} {protocol:?}");

            let refused = refusal(stage.run(protocol, operation(delete.clone())?).await?)?;
            ensure!(refused.text == "not today", "{refused:?}");
            // A list of writes is no way around it.
            let batch = json!({ "batch": [{ "create": { "table": "other", "docs": [{ "id": id }] } }, delete] });
            let refused = refusal(stage.run(protocol, operation(batch)?).await?)?;
            ensure!(refused.text == "not today", "{refused:?}");
            stage.server.says("/delete", r#"{"accept":true}"#);
            stage.run(protocol, operation(delete)?).await?;
            assert_eq!(stage.rows().await?, json!([]), "{engine:?} {protocol:?}");
        }
        let read = json!({ "op": "count", "find": {} });
        let (_, others) = stage.mesh.client.post("crud/lab/other/read", &read).await?;
        assert_eq!(others["result"], 0, "what was refused is not written in part");
        stage.mesh.stop().await;
    }
    Ok(())
}

async fn rules_judge_what_a_function_changed(shape: Shape) -> anyhow::Result<()> {
    let small =
        json!({ "rule": "match", "type": "number", "eval": "<", "f1": "args.doc.n", "f2": 10, "anonymous": true });
    let columns = json!({ "write": ["id", "n"] });
    let spec = json!({ "rules": { "create": small, "read": { "rule": "allow" } }, "columns": columns, "before": { "create": hook("create") } });
    let stage = stage(shape, Engine::Sqlite, spec).await?;
    let write = operation(json!({ "create": { "table": "note", "docs": [{ "id": 1, "n": 1 }] } }))?;
    for says in [r#"{"doc":{"id":1,"n":10}}"#, r#"{"doc":{"id":1,"n":1,"body":"x"}}"#] {
        stage.server.says("/create", says);
        for protocol in PROTOCOLS {
            let refused = refusal(stage.run(protocol, write.clone()).await?)?;
            ensure!(matches!(refused.code.as_str(), "DENIED" | "UNAUTHENTICATED"), "{says}: {refused:?}");
        }
    }
    assert_eq!(stage.rows().await?, json!([]));
    // What the rule denies already is not asked.
    stage.server.seen();
    let denied = operation(json!({ "create": { "table": "note", "docs": [{ "id": 1, "n": 11 }] } }))?;
    refusal(stage.run(Protocol::Rest, denied).await?)?;
    ensure!(stage.server.seen().is_empty(), "a stranger asks no function of what is denied");
    stage.server.says("/create", r#"{"doc":{"id":1,"n":9}}"#);
    stage.run(Protocol::Rest, write).await?;
    assert_eq!(stage.rows().await?, json!([{ "id": 1, "body": null, "n": 9 }]));
    stage.mesh.stop().await;
    Ok(())
}

/// Whether a text names neither the function nor what was wrong with its answer.
fn is_discreet(text: &str) -> bool {
    ["checks", "create", "hang", "redirect", "expected", "column"].iter().all(|name| !text.contains(name))
}

async fn what_does_not_answer_refuses(shape: Shape) -> anyhow::Result<()> {
    let stage =
        stage(shape, Engine::Sqlite, json!({ "before": { "create": hook("create"), "delete": hook("delete") } }))
            .await?;
    for (says, code) in [
        ("{}", "BAD_GATEWAY"),
        ("null", "BAD_GATEWAY"),
        ("true", "BAD_GATEWAY"),
        ("<html>", "BAD_GATEWAY"),
        (r#"{"accept":false}"#, "BAD_GATEWAY"),
        (r#"{"accept":1}"#, "BAD_GATEWAY"),
        (r#"{"accept":true,"reject":"no"}"#, "BAD_GATEWAY"),
        (r#"{"accept":true,"doc":{"id":1}}"#, "BAD_GATEWAY"),
        (r#"{"doc":[]}"#, "BAD_GATEWAY"),
        (r#"{"doc":{"nothing":1}}"#, "BAD_GATEWAY"),
        (r#"{"doc":{"id":"x"}}"#, "BAD_GATEWAY"),
        (r#"{"reject":7}"#, "BAD_GATEWAY"),
        (r#"{"reject":""}"#, "FUNCTION"),
    ] {
        stage.server.says("/create", says);
        let refused = refusal(stage.run(Protocol::Rest, create(1)?).await?)?;
        ensure!(refused.code == code && is_discreet(&refused.text), "{says}: {refused:?}");
    }
    for protocol in PROTOCOLS {
        stage.server.says("/create", "{}");
        refusal(stage.run(protocol, create(1)?).await?)?;
    }
    stage.server.says("/delete", r#"{"doc":{"id":1}}"#);
    let delete = operation(json!({ "delete": { "table": "note", "find": { "id": 1 } } }))?;
    ensure!(refusal(stage.run(Protocol::Rest, delete).await?)?.code == "BAD_GATEWAY", "a deletion has no doc");
    assert_eq!(stage.rows().await?, json!([]));
    stage.mesh.stop().await;

    // One that hangs, one that fails, one that redirects, and one that nobody has.
    for (function, code) in
        [("hang", "DEADLINE"), ("fails", "FUNCTION"), ("redirect", "BAD_GATEWAY"), ("early", "BAD_GATEWAY")]
    {
        let before = json!({ "create": { "service": "checks", "function": function, "timeout": 1 } });
        let stage = self::stage(shape, Engine::Sqlite, json!({ "before": before })).await?;
        let refused = refusal(stage.run(Protocol::Rest, create(1)?).await?)?;
        ensure!(refused.code == code && is_discreet(&refused.text), "{function}: {refused:?}");
        assert_eq!(stage.rows().await?, json!([]), "{function}");
        stage.mesh.stop().await;
    }
    let before = json!({ "create": { "service": "nobody", "function": "create" } });
    let stage = self::stage(shape, Engine::Sqlite, json!({ "before": before })).await?;
    let refused = refusal(stage.run(Protocol::Rest, create(1)?).await?)?;
    ensure!(refused.code == "UNAVAILABLE" && !refused.text.contains("nobody"), "{refused:?}");
    assert_eq!(stage.rows().await?, json!([]));
    stage.mesh.stop().await;
    Ok(())
}

async fn a_function_is_told_who_writes_what(shape: Shape) -> anyhow::Result<()> {
    let stage =
        stage(shape, Engine::Sqlite, json!({ "before": { "create": hook("create"), "update": hook("update") } }))
            .await?;
    stage.server.says("/create", r#"{"accept":true}"#);
    stage.server.says("/update", r#"{"accept":true}"#);
    let staff = stage.mesh.staff();
    let docs = json!([{ "id": 1, "n": 9_007_199_254_740_993_i64 }, { "id": 2, "body": "b" }]);
    let (status, body) = staff.post("crud/lab/note/create", &json!({ "op": "all", "doc": docs })).await?;
    ensure!(status == 200, "{status} {body}");
    let seen = stage.server.seen();
    assert_eq!(seen.len(), 2, "once for each row");
    let first = seen.iter().find(|seen| seen.body["doc"]["id"] == 1).context("it was asked")?;
    let told = json!({ "operation": "create", "db": "lab", "col": "note", "doc": { "id": 1, "n": 9_007_199_254_740_993_i64 } });
    assert_eq!(first.body, told);
    let claims = {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(&first.headers["x-perigee-claims"])?)?
    };
    assert_eq!(claims["role"], "staff");
    ensure!(!first.headers["authorization"].contains(&token::staff()), "nobody's own token goes on");
    let update = json!({ "op": "all", "find": { "id": { "$in": [1, 2] } }, "update": { "$set": { "body": "x" }, "$inc": { "n": 1 } } });
    let (status, body) = staff.post("crud/lab/note/update", &update).await?;
    ensure!(status == 200, "{status} {body}");
    let told = &stage.server.only()?.body;
    let expected = json!({ "operation": "update", "db": "lab", "col": "note", "find": { "id": { "$in": [1, 2] } }, "update": { "$set": { "body": "x" }, "$inc": { "n": 1 } } });
    assert_eq!(*told, expected);
    let many: Vec<Value> = (10..1011).map(|id| json!({ "id": id })).collect();
    let (status, body) = staff.post("crud/lab/note/create", &json!({ "op": "all", "doc": many })).await?;
    ensure!(status == 413 && body["code"] == "TOO_LARGE", "{status} {body}");
    stage.mesh.stop().await;
    Ok(())
}

async fn tables_without_their_own_have_those_of_default(shape: Shape) -> anyhow::Result<()> {
    let server = UserServer::start().await?;
    server.says("/all", r#"{"reject":"by default"}"#);
    server.says("/own", r#"{"reject":"by its own"}"#);
    let allow = json!({ "create": { "rule": "allow" }, "delete": { "rule": "allow" } });
    let table = |id: &str, spec: Value| {
        json!({ "kind": "table", "meta": { "project": "shop", "database": "lab", "id": id }, "spec": spec }).to_string()
    };
    let service = json!({ "kind": "service", "meta": { "project": "shop", "id": "checks" },
        "spec": { "http": { "url": server.url() }, "default": {} } });
    let resources = [
        service.to_string(),
        table("default", json!({ "rules": allow, "before": { "create": hook("all"), "delete": hook("all") } })),
        table("note", json!({ "rules": allow, "before": { "create": hook("own") } })),
    ];
    let setup = Setup { lab: Some(TABLES.to_owned()), resources: resources.join("\n---\n"), ..Setup::default() };
    let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
    for (path, body, told) in [
        ("crud/lab/other/create", json!({ "op": "one", "doc": { "id": 1 } }), "by default"),
        ("crud/lab/note/create", json!({ "op": "one", "doc": { "id": 1 } }), "by its own"),
        ("crud/lab/note/delete", json!({ "op": "all", "find": { "id": 1 } }), "by default"),
    ] {
        let (status, answer) = mesh.client.post(path, &body).await?;
        ensure!(status == 500 && answer["code"] == "FUNCTION" && answer["error"] == told, "{path}: {status} {answer}");
    }
    mesh.stop().await;
    Ok(())
}
