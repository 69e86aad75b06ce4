//! Schemas of one database that are databases of a project: what each caller is shown of the others, and what moves there
//! while they are read.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tests::{
    client::{Client, Outcome, PROTOCOLS, Protocol},
    engine::Engine,
    mesh::{OPEN_LAB, Setup, Shape, TestMesh},
    node_tool,
    operation::Operation,
    socket::Socket,
    token,
};

use super::{
    links::{becomes, fields_of, left_out},
    openapi::{check, validated},
};

scenarios!(
    tools_take_the_schema_that_each_caller_reaches,
    relations_of_another_schema_are_executed_as_published,
    what_moves_in_another_schema_is_followed,
    a_database_takes_its_relations_along,
    what_the_role_may_not_use_is_told,
    a_live_query_follows_the_tables_of_another_schema,
);

/// Resources that let everybody do everything with the tables of `crm`.
const OPEN_CRM: &str = "\
---
kind: table
meta: { project: shop, database: crm, id: default }
spec:
  rules: { create: { rule: allow }, read: { rule: allow }, update: { rule: allow }, delete: { rule: allow } }
";

/// Bills whose clients are in schema `crm`, which has reminders of bills.
const TABLES: &str = "CREATE SCHEMA crm;
    CREATE TABLE crm.client (id int PRIMARY KEY, name text, phone text);
    CREATE TABLE bill (id int PRIMARY KEY, client_id int REFERENCES crm.client);
    CREATE TABLE crm.reminder (id int PRIMARY KEY, bill_id int CONSTRAINT of_bill REFERENCES bill);
    INSERT INTO crm.client VALUES (1, 'Ann', '030'); INSERT INTO bill VALUES (7, 1);
    INSERT INTO crm.reminder VALUES (9, 7);";

fn open(resources: String) -> Setup {
    let schemas = vec!["crm".to_owned()];
    Setup { resources, lab: Some(TABLES.to_owned()), schemas, introspection: true, ..Setup::default() }
}

/// The cases' database, with its rules.
async fn cases(shape: Shape) -> anyhow::Result<TestMesh> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/postgres/schemas");
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let lab = format!("{}\n{}", read("schema.sql")?, read("rows.sql")?);
    let schemas = vec!["crm".to_owned(), "hr".to_owned()];
    TestMesh::with(shape, Engine::Postgres, &Setup { lab: Some(lab), schemas, ..open(read("resources")?) }).await
}

fn admin(mesh: &TestMesh) -> Client {
    mesh.client.with_token(&token::sign(json!({"id": "u9", "role": "admin"})))
}

async fn document(client: &Client) -> anyhow::Result<Value> {
    let (status, document) = client.get(&client.openapi_path()).await?;
    ensure!(status == 200, "{document}");
    Ok(document)
}

/// Who may never read a table of another schema is not shown the relation that leads there.
async fn tools_take_the_schema_that_each_caller_reaches(shape: Shape) -> anyhow::Result<()> {
    let mesh = cases(shape).await?;
    let (anybody, admin, admin_token) = (&mesh.client, admin(&mesh), token::sign(json!({"id": "u9", "role": "admin"})));

    let own = ["id", "client_id", "vault_id", "amount"];
    let shown = fields_of(anybody, "Bill").await?;
    assert_eq!(shown, [&own[..], &["note", "note_aggregate", "copy"]].concat());
    let shown = fields_of(&admin, "Bill").await?;
    let related = ["note", "note_aggregate", "client", "reminder", "reminder_aggregate", "copy"];
    assert_eq!(shown, [&own[..], &related].concat());
    assert!(!fields_of(anybody, "Reminder").await?.contains(&"owner".to_owned()), "nobody may read it");
    let url = mesh.client.graphql_url();
    for token in ["", &admin_token] {
        let text = node_tool::script("schema.js", &[&url, token]).await?;
        let types: Value = serde_json::from_str(&text)?;
        for name in ["Bill", "LabNote", "CrmNote"] {
            assert!(types["types"].as_array().context("types")?.contains(&name.into()), "{name}: {types}");
        }
    }

    for (client, token, is_told) in [(anybody, "", false), (&admin, &*admin_token, true)] {
        let paths = validated(client, token, None).await?;
        assert!(paths.contains(&"/crud/lab/bill/read".to_owned()), "{paths:?}");
        let path = "/crud/crm/reminder/read".to_owned();
        assert_eq!(paths.contains(&path), is_told, "{paths:?}");
        let document = document(client).await?;
        let row = &document["components"]["schemas"]["lab.bill.Row"];
        let relations = row["properties"].as_object().with_context(|| format!("properties: {document}"))?;
        let names = ["note", "copy", "client", "reminder", "vault"].map(|name| relations.contains_key(name));
        assert_eq!(names, [true, true, is_told, is_told, false], "{row}");
    }
    mesh.stop().await;
    Ok(())
}

async fn relations_of_another_schema_are_executed_as_published(shape: Shape) -> anyhow::Result<()> {
    let mesh = TestMesh::with(shape, Engine::Postgres, &open(format!("{OPEN_LAB}{OPEN_CRM}"))).await?;

    let text = node_tool::script("queries.js", &[&mesh.client.graphql_url(), "9", "200"]).await?;
    let done: Value = serde_json::from_str(&text)?;
    assert!(done["answered"].as_u64().is_some_and(|answered| answered >= 100), "{done}");

    let document = document(&mesh.client).await?;
    for (path, related) in [("/crud/lab/bill/read", "client"), ("/crud/crm/client/read", "bill")] {
        let body = json!({"op": "all", "options": {"select": {"id": 1, (related): {}}}});
        let (status, answer) = mesh.client.post(&path[1..], &body).await?;
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(answer["result"].is_array(), "{answer}");
        check(&document, path, &answer).with_context(|| format!("{path}: {answer}"))?;
    }
    mesh.stop().await;
    Ok(())
}

fn read(table: &str, select: Value) -> anyhow::Result<Operation> {
    Ok(serde_json::from_value(json!({"read": {"table": table, "select": select}}))?)
}

/// What comes of a read: its rows, or the code of the error.
async fn told(client: &Client, protocol: Protocol, database: &str, read: &Operation) -> anyhow::Result<Value> {
    match client.run(protocol, database, read).await? {
        Outcome::Read(rows) => Ok(rows),
        Outcome::Failed(refusal) => {
            let is_known = ["UNKNOWN_RELATION", "UNKNOWN_COLUMN", "UNKNOWN_TABLE", "DENIED"].contains(&&*refusal.code);
            ensure!(is_known, "{protocol:?} {refusal:?}");
            Ok(refusal.code.into())
        }
        Outcome::Written(written) => bail!("wanted rows, found {written:?}"),
    }
}

/// Waits until a read comes to `wanted` by every protocol. Until then it gives rows or says what is not known.
async fn comes_to(mesh: &TestMesh, database: &str, read: &Operation, wanted: Value) -> anyhow::Result<()> {
    for protocol in PROTOCOLS {
        becomes(wanted.clone(), async || told(&mesh.client, protocol, database, read).await)
            .await
            .with_context(|| format!("{protocol:?} {read:?}"))?;
    }
    Ok(())
}

async fn what_moves_in_another_schema_is_followed(shape: Shape) -> anyhow::Result<()> {
    let mesh = TestMesh::with(shape, Engine::Postgres, &open(format!("{OPEN_LAB}{OPEN_CRM}"))).await?;
    let database = mesh.lab.as_ref().context("the mesh has a lab")?;
    let names = read("bill", json!({"id": 1, "client": {"select": ["name"]}}))?;
    let all = read("bill", json!({"id": 1, "client": {}}))?;
    let reminders = read("bill", json!({"id": 1, "reminder": {"select": ["id"]}}))?;
    let back = read("client", json!({"id": 1, "bill": {"select": ["id"]}}))?;
    let own = read("bill", json!({"id": 1, "client_id": 1}))?;
    let [known, unknown, gone] = [json!([{"id": 7, "client": {"name": "Ann"}}]), json!("UNKNOWN_RELATION"), json!([])];
    for protocol in PROTOCOLS {
        assert_eq!(told(&mesh.client, protocol, "lab", &names).await?, known, "{protocol:?}");
    }

    // What was planned before is planned anew, at once.
    database.run("ALTER TABLE crm.client DROP COLUMN phone").await?;
    for protocol in PROTOCOLS.into_iter().filter(|protocol| *protocol != Protocol::Graphql) {
        let rows = json!([{"id": 7, "client": {"id": 1, "name": "Ann"}}]);
        assert_eq!(told(&mesh.client, protocol, "lab", &all).await?, rows, "{protocol:?}");
    }
    database.run("ALTER TABLE crm.client RENAME COLUMN name TO title").await?;
    for protocol in PROTOCOLS {
        assert_eq!(told(&mesh.client, protocol, "lab", &names).await?, "UNKNOWN_COLUMN", "{protocol:?}");
    }
    database.run("ALTER TABLE crm.client RENAME COLUMN title TO name").await?;
    comes_to(&mesh, "lab", &names, known.clone()).await?;

    database.run("ALTER TABLE crm.reminder DROP CONSTRAINT of_bill").await?;
    comes_to(&mesh, "lab", &reminders, unknown.clone()).await?;
    database.run("ALTER TABLE crm.reminder ADD CONSTRAINT of_bill FOREIGN KEY (bill_id) REFERENCES bill").await?;
    comes_to(&mesh, "lab", &reminders, json!([{"id": 7, "reminder": [{"id": 9}]}])).await?;

    database.run("DROP TABLE crm.client CASCADE").await?;
    for protocol in PROTOCOLS {
        assert_eq!(told(&mesh.client, protocol, "lab", &names).await?, unknown, "{protocol:?}");
        let rows = json!([{"id": 7, "client_id": 1}]);
        assert_eq!(told(&mesh.client, protocol, "lab", &own).await?, rows, "{protocol:?}");
    }
    database.run("DROP SCHEMA crm CASCADE").await?;
    comes_to(&mesh, "lab", &reminders, unknown).await?;
    let again = "DELETE FROM bill; CREATE SCHEMA crm; CREATE TABLE crm.client (id int PRIMARY KEY, name text);
        ALTER TABLE bill ADD FOREIGN KEY (client_id) REFERENCES crm.client;";
    database.run(again).await?;
    comes_to(&mesh, "lab", &names, gone.clone()).await?;
    comes_to(&mesh, "crm", &back, gone).await?;
    mesh.stop().await;
    Ok(())
}

async fn a_database_takes_its_relations_along(shape: Shape) -> anyhow::Result<()> {
    let setup = Setup { schemas: Vec::new(), ..open(OPEN_LAB.to_owned()) };
    let mesh = TestMesh::with(shape, Engine::Postgres, &setup).await?;
    let url = &mesh.lab.as_ref().context("the mesh has a lab")?.url;
    let database =
        format!("---\nkind: database\nmeta: {{ project: shop, id: crm }}\nspec: {{ url: \"{url}\", schema: crm }}\n");
    let names = read("bill", json!({"id": 1, "client": {"select": ["name"]}}))?;
    let back = read("client", json!({"id": 1, "bill": {"select": ["id"]}}))?;
    for protocol in PROTOCOLS {
        assert_eq!(told(&mesh.client, protocol, "lab", &names).await?, "UNKNOWN_RELATION", "{protocol:?}");
    }

    mesh.edit(&format!("{OPEN_LAB}{OPEN_CRM}{database}"))?;

    comes_to(&mesh, "lab", &names, json!([{"id": 7, "client": {"name": "Ann"}}])).await?;
    comes_to(&mesh, "crm", &back, json!([{"id": 1, "bill": [{"id": 7}]}])).await?;

    // Without a rule for them, its tables are closed.
    mesh.edit(&format!("{OPEN_LAB}{database}"))?;

    for protocol in PROTOCOLS {
        becomes("UNAUTHENTICATED".to_owned(), async || match mesh.client.run(protocol, "lab", &names).await? {
            Outcome::Failed(refusal) => Ok(refusal.code),
            other => Ok(format!("{other:?}")),
        })
        .await?;
    }

    mesh.edit(OPEN_LAB)?;

    for protocol in PROTOCOLS {
        becomes("UNKNOWN_RELATION".to_owned(), async || match mesh.client.run(protocol, "lab", &names).await? {
            Outcome::Failed(refusal) => Ok(refusal.code),
            other => Ok(format!("{other:?}")),
        })
        .await?;
    }
    mesh.stop().await;
    Ok(())
}

async fn what_the_role_may_not_use_is_told(shape: Shape) -> anyhow::Result<()> {
    let role = "DO $$ BEGIN CREATE ROLE schemas_app LOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
        GRANT ALL ON ALL TABLES IN SCHEMA public, crm TO schemas_app;";
    let setup = open(format!("{OPEN_LAB}{OPEN_CRM}"));
    let setup = Setup { lab: Some(format!("{TABLES}{role}")), role: Some("schemas_app".to_owned()), ..setup };
    let mesh = TestMesh::with(shape, Engine::Postgres, &setup).await?;
    let database = mesh.lab.as_ref().context("the mesh has a lab")?;
    let names = read("bill", json!({"id": 1, "client": {"select": ["name"]}}))?;
    let own = read("bill", json!({"id": 1}))?;
    let why = "no relation: the server's role may not use crm.client, or it is left out";
    let unknown = json!("UNKNOWN_RELATION");
    // The gateway alone tells nothing of databases.
    let is_told = async |what: Value| match shape {
        Shape::OneProcess => becomes(what, async || left_out(&mesh).await).await,
        Shape::Split | Shape::Processes => Ok(()),
    };

    for protocol in PROTOCOLS {
        assert_eq!(told(&mesh.client, protocol, "lab", &names).await?, unknown, "{protocol:?}");
        assert_eq!(told(&mesh.client, protocol, "lab", &own).await?, json!([{"id": 7}]), "{protocol:?}");
    }
    is_told(json!({ "bill.client_id": why })).await?;

    database.run("GRANT USAGE ON SCHEMA crm TO schemas_app").await?;
    comes_to(&mesh, "lab", &names, json!([{"id": 7, "client": {"name": "Ann"}}])).await?;
    is_told(Value::Null).await?;

    database.run("REVOKE USAGE ON SCHEMA crm FROM schemas_app").await?;
    comes_to(&mesh, "lab", &names, unknown).await?;
    is_told(json!({ "bill.client_id": why })).await?;
    mesh.stop().await;
    Ok(())
}

async fn a_live_query_follows_the_tables_of_another_schema(shape: Shape) -> anyhow::Result<()> {
    let mesh = TestMesh::with(shape, Engine::Postgres, &open(format!("{OPEN_LAB}{OPEN_CRM}"))).await?;
    let database = mesh.lab.as_ref().context("the mesh has a lab")?;
    let mut socket = Socket::open(mesh.client.address(), "").await?;
    socket.subscribe("1", "subscription { bill { id client { name } } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "bill": [{ "id": 7, "client": { "name": "Ann" } }] }));
    let mut other = Socket::open(mesh.client.address(), "").await?;
    other.subscribe("2", "subscription { client { bill { id } } }").await?;
    assert_eq!(other.answer("2").await?, json!({ "client": [{ "bill": [{ "id": 7 }] }] }));

    database.run("UPDATE crm.client SET name = 'Bea'").await?;
    assert_eq!(socket.answer("1").await?, json!({ "bill": [{ "id": 7, "client": { "name": "Bea" } }] }));
    database.run("INSERT INTO bill VALUES (6, NULL); UPDATE bill SET client_id = 1").await?;
    let bills = json!({ "bill": [{ "id": 6, "client": { "name": "Bea" } }, { "id": 7, "client": { "name": "Bea" } }] });
    assert_eq!(sorted(socket.answer("1").await?, "/bill"), bills);
    let clients = json!({ "client": [{ "bill": [{ "id": 6 }, { "id": 7 }] }] });
    assert_eq!(sorted(other.answer("2").await?, "/client/0/bill"), clients);

    // A rule may look there, where its caller may read nothing.
    mesh.edit(
        "---\nkind: table\nmeta: { project: shop, database: lab, id: bill }\nspec:\n  rules:\n    \
         read: { rule: match, type: string, eval: \"==\", f1: args.find.client.phone, f2: args.auth.id }\n",
    )?;
    let token = token::sign(json!({ "id": "031" }));
    let client = mesh.client.with_token(&token);
    let hidden = json!({ "data": { "bill": [] } });
    becomes(hidden, async || Ok(client.graphql("{ bill { id } }", json!({})).await?.1)).await?;
    let mut socket = Socket::open(mesh.client.address(), &token).await?;
    socket.subscribe("1", "subscription { bill(where: { id: { _eq: 7 } }) { id } }").await?;
    assert_eq!(socket.answer("1").await?, json!({ "bill": [] }));
    database.run("UPDATE crm.client SET phone = '031'").await?;
    assert_eq!(socket.answer("1").await?, json!({ "bill": [{ "id": 7 }] }));
    mesh.stop().await;
    Ok(())
}

/// `answer` with the rows at `path` by their ids.
fn sorted(mut answer: Value, path: &str) -> Value {
    if let Some(rows) = answer.pointer_mut(path).and_then(Value::as_array_mut) {
        rows.sort_by_key(|row| row["id"].as_i64());
    }
    answer
}
