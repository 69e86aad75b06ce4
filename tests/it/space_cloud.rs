//! The predecessor's gRPC service: its golden exchanges, its client of Python as it is, and what it refuses.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use prost::Message;
use proto::predecessor as api;
use serde_json::{Value, json};
use tests::{
    client::{Client, Protocol},
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    python_tool, token, tool, worker_program,
};
use tokio::{process::Command, sync::mpsc};
use tonic::{Code, Streaming};

scenarios!(
    rows_are_written_and_read,
    what_is_wrong_is_told_in_the_answer,
    limits_are_those_of_other_protocols,
    functions_are_called,
    files_are_written_and_read,
    live_queries_are_told,
    a_live_query_that_is_refused_is_told_so,
    streams_count_as_connections_and_end_with_their_node,
    a_worker_takes_calls,
    the_client_of_python_is_served,
    the_client_of_go_is_served,
);

const TODOS: &str = "CREATE TABLE todos (id VARCHAR(20) NOT NULL PRIMARY KEY, owner TEXT, n BIGINT);
    CREATE TABLE secret (id BIGINT NOT NULL PRIMARY KEY);";
const OPEN: &str =
    "{ create: { rule: allow }, read: { rule: allow }, update: { rule: allow }, delete: { rule: allow } }";

/// What clients know as the error of a request without a token.
const NO_TOKEN: &str = "token contains an invalid number of segments";

/// The path of a method.
fn path(method: &str) -> String {
    format!("/proto.SpaceCloud/{method}")
}

fn meta(table: &str) -> Option<api::Meta> {
    let (project, db_type, col) = ("shop".to_owned(), "lab".to_owned(), table.to_owned());
    Some(api::Meta { project, db_type, col, token: String::new() })
}

async fn lab(shape: Shape, engine: Engine, more: &str, node_limits: &'static str) -> anyhow::Result<TestMesh> {
    let document = |table: &str, rules: &str| {
        format!("---\nkind: table\nmeta: {{ project: shop, database: lab, id: {table} }}\nspec: {{ rules: {rules} }}\n")
    };
    let own = r#"{ read: { rule: match, type: string, eval: "==", f1: args.auth.role, f2: staff } }"#;
    let resources = document("todos", OPEN) + &document("secret", own) + more;
    let setup = Setup { lab: Some(TODOS.to_owned()), resources, node_limits, ..Setup::default() };
    TestMesh::with(shape, engine, &setup).await
}

/// Status, error and result of a unary call.
async fn ask<Q: Message + 'static>(client: &Client, method: &str, message: Q) -> anyhow::Result<(i32, String, Value)> {
    let answer: api::Response =
        client.unary_at(Protocol::Grpc, &path(method), message).await?.context(method.to_owned())?;
    let result = match &answer.result[..] {
        [] => Value::Null,
        json => serde_json::from_slice(json)?,
    };
    Ok((answer.status, answer.error, result))
}

fn create(document: &str, operation: &str) -> api::CreateRequest {
    let (document, operation) = (document.to_owned().into(), operation.to_owned());
    api::CreateRequest { document, operation, meta: meta("todos") }
}

fn read(find: &'static str, operation: &str) -> api::ReadRequest {
    let (find, operation) = (find.into(), operation.to_owned());
    api::ReadRequest { find, operation, options: Some(api::ReadOptions::default()), meta: meta("todos") }
}

/// Cases 160 to 168 of the reference.
async fn rows_are_written_and_read(shape: Shape) -> anyhow::Result<()> {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mesh = lab(shape, engine, "", "").await?;
        let client = &mesh.client;
        let done = (200, String::new(), Value::Null);
        let found = |rows: Value| (200, String::new(), rows);
        assert_eq!(ask(client, "Create", create(r#"{"id":"1","n":1}"#, "one")).await?, done);
        assert_eq!(ask(client, "Create", create(r#"[{"id":"2","n":2},{"id":"3","n":3}]"#, "all")).await?, done);
        let row = |id: &str, n: i64| json!({ "id": id, "owner": null, "n": n });
        let all = [row("1", 1), row("2", 2), row("3", 3)];
        for find in ["{}", "", "null"] {
            let (status, error, rows) = ask(client, "Read", read(find, "all")).await?;
            assert_eq!((status, &*error, rows.as_array().map(Vec::len)), (200, "", Some(3)), "{find:?}");
        }
        let without = api::ReadRequest { options: None, ..read(r#"{"n":{"$lt":2}}"#, "all") };
        assert_eq!(ask(client, "Read", without).await?, found(json!([all[0]])));
        let options = api::ReadOptions {
            select: [("id".to_owned(), 1)].into(),
            sort: [("n".to_owned(), -1)].into(),
            skip: 1,
            limit: 1,
            distinct: String::new(),
        };
        let page = api::ReadRequest { options: Some(options), ..read("{}", "all") };
        assert_eq!(ask(client, "Read", page).await?, found(json!([{ "id": "2" }])));
        assert_eq!(ask(client, "Read", read(r#"{"id":"3"}"#, "one")).await?, found(all[2].clone()));
        assert_eq!(ask(client, "Read", read("{}", "count")).await?, found(json!(3)));

        let update = api::UpdateRequest {
            find: r#"{"id":"1"}"#.into(),
            operation: "all".to_owned(),
            update: r#"{"$set":{"n":7}}"#.into(),
            meta: meta("todos"),
        };
        assert_eq!(ask(client, "Update", update).await?, done);
        let item = |r#type: &str, operation: &str| api::AllRequest {
            col: "todos".to_owned(),
            r#type: r#type.to_owned(),
            operation: operation.to_owned(),
            ..api::AllRequest::default()
        };
        let created = api::AllRequest { document: r#"{"id":"4","n":4}"#.into(), ..item("create", "one") };
        let deleted = api::AllRequest { find: r#"{"id":"2"}"#.into(), ..item("delete", "all") };
        let batch = api::BatchRequest { batchrequest: vec![created, deleted], meta: meta("") };
        assert_eq!(ask(client, "Batch", batch).await?, done);
        let sorted = api::ReadOptions { sort: [("id".to_owned(), 1)].into(), ..api::ReadOptions::default() };
        let rows = ask(client, "Read", api::ReadRequest { options: Some(sorted), ..read("{}", "all") }).await?;
        assert_eq!(rows, found(json!([row("1", 7), row("3", 3), row("4", 4)])));

        let all =
            api::DeleteRequest { find: r#"{"n":{"$gt":0}}"#.into(), operation: "all".to_owned(), meta: meta("todos") };
        assert_eq!(ask(client, "Delete", all).await?, done);
        assert_eq!(ask(client, "Read", read("{}", "count")).await?, found(json!(0)));
        mesh.stop().await;
    }
    Ok(())
}

async fn what_is_wrong_is_told_in_the_answer(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, "", "").await?;
    let client = &mesh.client;
    let of = |change: fn(&mut api::Meta)| {
        let mut request = read("{}", "all");
        change(request.meta.as_mut().expect("it has one"));
        request
    };
    let secret = || of(|meta| meta.col = "secret".to_owned());
    let no_meta = api::ReadRequest { meta: None, ..read("{}", "all") };
    for (request, status, error) in [
        (no_meta, 400, "meta is required"),
        (of(|meta| meta.project.clear()), 400, "meta.project is required"),
        (of(|meta| meta.db_type.clear()), 400, "meta.dbType is required"),
        (of(|meta| meta.col.clear()), 400, "meta.col is required"),
        (of(|meta| meta.col = "to\0dos".to_owned()), 400, "meta.col has a NUL character"),
        (of(|meta| meta.project = "none".to_owned()), 404, "none"),
        (secret(), 401, NO_TOKEN),
        (of(|meta| meta.token = "x".repeat(20_000)), 400, "token must be at most"),
        (read("{", "all"), 400, "invalid find: "),
        (read(r#"{},"op":"one""#, "all"), 400, "invalid find: "),
        (read("[]", "all"), 400, "invalid find: expected object"),
        (read(r#"{"n; DROP TABLE todos":1}"#, "all"), 400, ""),
        (read("{}", "many"), 400, "op many is not known"),
        (read("{}", ""), 400, "invalid parameter provided"),
        (read(r#"{"id":"none"}"#, "one"), 404, "no row of table todos passes"),
        (
            api::ReadRequest {
                options: Some(api::ReadOptions { limit: -1, ..api::ReadOptions::default() }),
                ..read("{}", "all")
            },
            400,
            "limit",
        ),
    ] {
        let (told, text, result) = ask(client, "Read", request.clone()).await?;
        assert!(told == status && text.contains(error) && result == Value::Null, "{request:?}: {told} {text}");
    }
    let known = |token: String| api::ReadRequest {
        meta: meta("secret").map(|meta| api::Meta { token, ..meta }),
        ..read("{}", "all")
    };
    // The token of the message counts, with its scheme or without.
    for token in [token::staff(), format!("Bearer {}", token::staff())] {
        assert_eq!(ask(client, "Read", known(token)).await?.0, 200);
    }
    let forged = token::sign_with(json!({ "role": "staff" }), "another secret, which is as long as it has to be", 60);
    assert_eq!(ask(client, "Read", known(forged)).await?.0, 401);
    assert_eq!(ask(client, "Read", known(token::sign(json!({ "role": "guest" })))).await?.0, 403);

    for (document, operation, error) in [
        ("{", "one", "invalid document: "),
        (r#"{"id":"1"}"#, "all", "invalid doc: expected array"),
        ("", "one", "doc is required"),
    ] {
        let (status, text, _) = ask(client, "Create", create(document, operation)).await?;
        assert!(status == 400 && text.contains(error), "{document}: {status} {text}");
    }
    let pipeline = api::AggregateRequest { pipeline: "[]".into(), operation: "all".to_owned(), meta: meta("todos") };
    let (status, text, _) = ask(client, "Aggregate", pipeline).await?;
    assert!(status == 400 && text.contains("pipelines"), "{text}");
    let item = api::AllRequest { r#type: "create".to_owned(), document: "{".into(), ..api::AllRequest::default() };
    let (status, text, _) =
        ask(client, "Batch", api::BatchRequest { batchrequest: vec![item], meta: meta("todos") }).await?;
    assert!(status == 400 && text.starts_with("invalid document of batchrequest[0]: "), "{text}");
    let unknown: Result<api::Response, _> = client.unary_at(Protocol::Grpc, &path("SignUp"), read("{}", "all")).await?;
    assert_eq!(unknown.expect_err("there are no users").code(), Code::Unimplemented);
    assert_eq!(ask(client, "Read", read("{}", "count")).await?.2, json!(0), "nothing was written");
    mesh.stop().await;
    Ok(())
}

async fn limits_are_those_of_other_protocols(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, "", "body_bytes: 100000").await?;
    let client = &mesh.client;
    let deep = format!("{}{}", r#"{"$or":["#.repeat(40), r#"{"n":1}"#.to_owned() + &"]}".repeat(40));
    let (status, text, _) = ask(client, "Read", api::ReadRequest { find: deep.into(), ..read("{}", "all") }).await?;
    assert!(status == 400 && !text.is_empty(), "{status} {text}");
    let large = format!(r#"{{"id":"1","owner":"{}"}}"#, "x".repeat(150_000));
    let (status, text, _) = ask(client, "Create", create(&large, "one")).await?;
    assert!(status == 413, "{status} {text}");
    let beyond: Result<api::Response, _> =
        client.unary_at(Protocol::Grpc, &path("Create"), create(&"x".repeat(1_000_000), "one")).await?;
    assert_eq!(beyond.expect_err("it is not read").code(), Code::ResourceExhausted);
    mesh.stop().await;
    Ok(())
}

/// The document of a service whose workers are staff.
fn mail() -> String {
    let register = json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff" });
    let spec = json!({ "worker": { "register": register }, "default": { "rule": { "rule": "allow" } } });
    format!("---\n{}\n", json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }))
}

fn call(params: &'static str, timeout: i64) -> api::FunctionsRequest {
    let (service, function) = ("mail".to_owned(), "sum".to_owned());
    let (token, project) = (String::new(), "shop".to_owned());
    api::FunctionsRequest { params: params.into(), timeout, service, function, token, project }
}

/// A stream both ways, whose client is the test.
struct Stream<Q, A> {
    messages: mpsc::Sender<Q>,
    told: Streaming<A>,
}

impl<Q: Message + 'static, A: Message + Default + 'static> Stream<Q, A> {
    async fn open(client: &Client, method: &str, first: Q) -> anyhow::Result<Self> {
        let (messages, queue) = mpsc::channel(10);
        messages.send(first).await?;
        let queue = futures::stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        let told = client.bidirectional(&path(method), queue).await?.context("it is served")?;
        Ok(Self { messages, told })
    }

    async fn send(&self, message: Q) -> anyhow::Result<()> {
        self.messages.send(message).await.context("the stream is open")
    }

    async fn next(&mut self) -> anyhow::Result<A> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.told.next()).await.context("a message")?;
        Ok(next.context("the stream goes on")??)
    }
}

type Worker = Stream<api::FunctionsPayload, api::FunctionsPayload>;

fn registration(token: String) -> api::FunctionsPayload {
    let (service, project) = ("mail".to_owned(), "shop".to_owned());
    let (r#type, id) = ("service-register".to_owned(), "w1".to_owned());
    api::FunctionsPayload { service, project, r#type, id, token, ..api::FunctionsPayload::default() }
}

fn answer(id: &str, params: &'static str, error: &str) -> api::FunctionsPayload {
    let (r#type, id, error) = ("service-request".to_owned(), id.to_owned(), error.to_owned());
    api::FunctionsPayload { r#type, id, params: params.into(), error, ..api::FunctionsPayload::default() }
}

async fn worker(mesh: &TestMesh) -> anyhow::Result<Worker> {
    let mut worker = Worker::open(&mesh.client, "Service", registration(token::staff())).await?;
    let told = worker.next().await?;
    ensure!(told.r#type == "service-register" && told.id == "w1" && told.params == r#"{"ack":true}"#, "{told:?}");
    Ok(worker)
}

/// Cases 169 and 170 of the reference.
async fn functions_are_called(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, &mail(), "").await?;
    let (status, text, _) = ask(&mesh.client, "Call", call("{}", 5)).await?;
    assert!(status == 503 && text.starts_with("No service available"), "{text}");
    let mut worker = worker(&mesh).await?;
    for (project, params, result) in [("shop", r#"{"a":1,"b":2}"#, json!({ "sum": 3 })), ("", "", json!({ "sum": 3 }))]
    {
        let request = api::FunctionsRequest { project: project.to_owned(), ..call(params, 5) };
        let answers = async {
            let told = worker.next().await?;
            let params = if params.is_empty() { "null" } else { params };
            ensure!(told.function == "sum" && told.auth == "{}" && told.params == params, "{told:?}");
            worker.send(answer(&told.id, r#"{"sum":3}"#, "")).await
        };
        let (answered, answers) = futures::join!(ask(&mesh.client, "Call", request), answers);
        answers?;
        assert_eq!(answered?, (200, String::new(), result));
    }
    let fails = async {
        let told = worker.next().await?;
        worker.send(answer(&told.id, "", "boom")).await
    };
    let (failed, fails) = futures::join!(ask(&mesh.client, "Call", call("1", 5)), fails);
    fails?;
    assert_eq!(failed?, (500, "boom".to_owned(), Value::Null));
    let (late, told) = futures::join!(ask(&mesh.client, "Call", call("1", 1)), worker.next());
    told?;
    assert_eq!(late?.0, 504);
    let empty = api::FunctionsRequest { function: String::new(), ..call("1", 1) };
    assert_eq!(ask(&mesh.client, "Call", empty).await?.1, "function is required");
    let (status, text, _) = ask(&mesh.client, "Call", call("{", 1)).await?;
    assert!(status == 400 && text.starts_with("invalid params: "), "{text}");
    mesh.stop().await;
    Ok(())
}

/// Case 179 of the reference, and who may not be a worker.
async fn a_worker_takes_calls(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, &mail(), "").await?;
    for token in [String::new(), token::sign(json!({ "role": "guest" }))] {
        let mut refused = Worker::open(&mesh.client, "Service", registration(token)).await?;
        let told = refused.next().await?;
        let params: Value = serde_json::from_slice(&told.params)?;
        assert!(params["ack"] == false && !told.error.is_empty(), "{told:?}");
    }
    let mut worker = worker(&mesh).await?;
    // What is of no call is ignored, and so is what the stream is not for.
    worker.send(answer("none", "1", "")).await?;
    worker.send(api::FunctionsPayload { r#type: "realtime-subscribe".to_owned(), ..answer("x", "1", "") }).await?;
    let broken = async {
        let told = worker.next().await?;
        worker.send(answer(&told.id, "{", "")).await
    };
    let (failed, broken) = futures::join!(ask(&mesh.client, "Call", call("1", 5)), broken);
    broken?;
    assert_eq!(failed?.1, "the answer of the worker is not JSON");
    let gone = async {
        worker.next().await?;
        drop(worker);
        anyhow::Ok(())
    };
    let (failed, gone) = futures::join!(ask(&mesh.client, "Call", call("1", 60)), gone);
    gone?;
    assert_eq!(failed?.0, 503, "a worker that is gone fails its calls at once");
    mesh.stop().await;
    Ok(())
}

const BUCKET: &str = "---\nkind: bucket\nmeta: { project: shop, id: files }\nspec:\n  rules:\n    - { prefix: /, create: { rule: allow }, read: { rule: allow }, delete: { rule: allow } }\n    - { prefix: /secret, create: { rule: deny }, read: { rule: deny }, delete: { rule: deny } }\n";

async fn upload(client: &Client, messages: Vec<api::UploadFileRequest>) -> anyhow::Result<api::Response> {
    let messages = client.bearing(futures::stream::iter(messages))?;
    Ok(client.space_cloud().upload_file(messages).await?.into_inner())
}

async fn download(client: &Client, path: &str) -> anyhow::Result<Vec<(i32, Vec<u8>)>> {
    let request = api::DownloadFileRequest { path: path.to_owned(), meta: meta("") };
    let told = client.space_cloud().download_file(client.bearing(request)?).await?.into_inner();
    told.map(|payload| payload.map(|payload| (payload.status, payload.payload.to_vec())).map_err(Into::into))
        .collect::<Vec<anyhow::Result<_>>>()
        .await
        .into_iter()
        .collect()
}

/// Cases 173 to 175 of the reference.
async fn files_are_written_and_read(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, BUCKET, "").await?;
    let client = &mesh.client;
    let first = |path: &str, name: &str| api::UploadFileRequest {
        path: path.to_owned(),
        name: name.to_owned(),
        payload: Default::default(),
        meta: meta(""),
    };
    let piece = |payload: &'static [u8]| api::UploadFileRequest {
        path: String::new(),
        name: String::new(),
        payload: payload.into(),
        meta: None,
    };
    let written = upload(client, vec![first("/docs", "a.txt"), piece(b"he"), piece(b"llo")]).await?;
    assert_eq!((written.status, &*written.error, written.result.len()), (200, "", 0));
    assert_eq!(download(client, "/docs/a.txt").await?, [(200, b"hello".to_vec())]);
    upload(client, vec![first("/docs", "empty")]).await?;
    assert_eq!(download(client, "/docs/empty").await?, []);
    let folder = |path: &str, name: &str| api::CreateFolderRequest {
        path: path.to_owned(),
        name: name.to_owned(),
        meta: meta(""),
    };
    assert_eq!(ask(client, "CreateFolder", folder("/docs/deep", "er")).await?.0, 200);
    let list = |path: &str| api::ListFilesRequest { path: path.to_owned(), meta: meta("") };
    let (_, _, mut listed) = ask(client, "ListFiles", list("/docs")).await?;
    listed.as_array_mut().context("a list")?.sort_by_key(|entry| entry["name"].to_string());
    let entry = |name: &str, r#type: &str| json!({ "name": name, "type": r#type });
    assert_eq!(listed, json!([entry("a.txt", "file"), entry("deep", "dir"), entry("empty", "file")]));
    let delete = |path: &str| api::DeleteFileRequest { path: path.to_owned(), meta: meta("") };
    for path in ["/docs/a.txt", "/docs/deep"] {
        assert_eq!(ask(client, "DeleteFile", delete(path)).await?, (200, String::new(), Value::Null), "{path}");
    }
    assert!(matches!(&download(client, "/docs/a.txt").await?[..], [(404, payload)] if payload.is_empty()));

    for path in ["/../x", "/docs/../../x", "/a\\b", "/docs/\u{1}", "/.perigee/x"] {
        assert!(matches!(&download(client, path).await?[..], [(400, _)]), "{path:?}");
        assert_eq!(ask(client, "DeleteFile", delete(path)).await?.0, 400, "{path:?}");
    }
    for (path, name, status) in [
        ("/docs", "../x", 400),
        ("/docs", "a/b", 400),
        ("/docs", "", 400),
        ("/secret", "x", 403),
        ("/", ".perigee", 400),
    ] {
        let told = upload(client, vec![first(path, name), piece(b"x")]).await?;
        assert_eq!(told.status, status, "{path} {name}: {}", told.error);
    }
    assert_eq!(upload(client, Vec::new()).await?.status, 400);
    assert_eq!(ask(client, "DeleteFile", delete("/secret/x")).await?.0, 403);
    mesh.stop().await;
    Ok(())
}

type LiveQueries = Stream<api::RealTimeRequest, api::RealTimeResponse>;

fn subscribe(id: &str, table: &str, options: &'static str) -> api::RealTimeRequest {
    api::RealTimeRequest {
        token: String::new(),
        db_type: "lab".to_owned(),
        project: "shop".to_owned(),
        group: table.to_owned(),
        r#type: "realtime-subscribe".to_owned(),
        id: id.to_owned(),
        r#where: "{}".into(),
        options: options.into(),
    }
}

/// Cases 176 to 178 of the reference.
async fn live_queries_are_told(shape: Shape) -> anyhow::Result<()> {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mesh = lab(shape, engine, "", "").await?;
        ask(&mesh.client, "Create", create(r#"{"id":"1","n":1}"#, "one")).await?;
        let mut live = LiveQueries::open(&mesh.client, "RealTime", subscribe("q1", "todos", "")).await?;
        let begun = live.next().await?;
        assert_eq!((&*begun.id, &*begun.group, begun.ack, &*begun.error), ("q1", "todos", true, ""));
        let [row] = &begun.feed_data[..] else { panic!("{begun:?}") };
        // A client that sends no options knows no other word.
        assert_eq!((&*row.r#type, &*row.doc_id, &*row.query_id, &*row.db_type), ("insert", "1", "q1", "lab"));
        assert_eq!(serde_json::from_slice::<Value>(&row.payload)?, json!({ "id": "1", "owner": null, "n": 1 }));
        live.send(subscribe("q2", "todos", "{}")).await?;
        let second = live.next().await?;
        assert_eq!((&*second.id, &*second.feed_data[0].r#type), ("q2", "initial"));
        live.send(subscribe("q3", "todos", r#"{"skipInitial":true}"#)).await?;
        assert_eq!(live.next().await?.feed_data, []);
        for id in ["q2", "q3"] {
            live.send(api::RealTimeRequest { r#type: "realtime-unsubscribe".to_owned(), ..subscribe(id, "todos", "") })
                .await?;
            let ended = live.next().await?;
            assert!(ended.id == id && ended.ack && ended.feed_data.is_empty(), "{ended:?}");
        }
        // What the stream is not for is ignored.
        live.send(api::RealTimeRequest { r#type: "service-register".to_owned(), ..subscribe("x", "todos", "") })
            .await?;
        ask(&mesh.client, "Create", create(r#"{"id":"5","n":5}"#, "one")).await?;
        let told = live.next().await?;
        let [row] = &told.feed_data[..] else { panic!("{told:?}") };
        assert_eq!((&*told.id, told.ack, &*row.r#type, &*row.doc_id), ("q1", true, "insert", "5"));
        let all = api::DeleteRequest { find: r#"{"id":"5"}"#.into(), operation: "all".to_owned(), meta: meta("todos") };
        ask(&mesh.client, "Delete", all).await?;
        let told = live.next().await?;
        assert_eq!((&*told.feed_data[0].r#type, &*told.feed_data[0].payload), ("delete", &b"null"[..]));
        mesh.stop().await;
    }
    Ok(())
}

async fn a_live_query_that_is_refused_is_told_so(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, "", "").await?;
    let with = |change: fn(&mut api::RealTimeRequest)| {
        let mut request = subscribe("q1", "todos", "{}");
        change(&mut request);
        request
    };
    // The first message of a stream.
    for (request, error) in [
        (with(|request| request.project.clear()), "project is required"),
        (with(|request| request.project = "none".to_owned()), "none"),
        (with(|request| request.token = "x".repeat(20_000)), "token must be at most"),
        (with(|request| request.group = "secret".to_owned()), NO_TOKEN),
        (with(|request| request.group = "none".to_owned()), NO_TOKEN),
        (with(|request| request.r#where = "{".into()), "invalid where: expected object"),
        (with(|request| request.r#where = r#"{},"token":"x""#.into()), "invalid where: expected object"),
        (with(|request| request.options = "[]".into()), "invalid options: expected object"),
        (with(|request| request.id = "x".repeat(300)), "at most 256 bytes"),
    ] {
        let mut live = LiveQueries::open(&mesh.client, "RealTime", request.clone()).await?;
        let told = live.next().await?;
        assert!(!told.ack && told.error.contains(error) && told.feed_data.is_empty(), "{request:?}: {told:?}");
    }
    // One of another project does not begin on a stream that has one.
    let mut live = LiveQueries::open(&mesh.client, "RealTime", subscribe("q1", "todos", "{}")).await?;
    assert!(live.next().await?.ack);
    live.send(with(|request| request.project = "other".to_owned())).await?;
    let told = live.next().await?;
    assert!(!told.ack && told.error == "the stream is of project shop", "{told:?}");
    mesh.stop().await;
    Ok(())
}

async fn streams_count_as_connections_and_end_with_their_node(shape: Shape) -> anyhow::Result<()> {
    let mesh = lab(shape, Engine::Sqlite, "", "sockets: 2").await?;
    let open = || LiveQueries::open(&mesh.client, "RealTime", subscribe("q1", "todos", "{}"));
    let (mut one, mut two) = (open().await?, open().await?);
    assert!(one.next().await?.ack && two.next().await?.ack);
    let refused = open().await?.next().await?;
    assert!(!refused.ack && refused.error.contains("limits.sockets: 2"), "{refused:?}");
    // A client that leaves makes room.
    drop(two);
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while !open().await?.next().await?.ack {
        ensure!(tokio::time::Instant::now() < until, "there is room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ((), end) = tokio::join!(mesh.stop(), one.told.next());
    let status = end.context("it is told why it ends")?.expect_err("it ends");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    Ok(())
}

/// A project that has one database, since old clients know databases by their kind alone, a service and files.
async fn forum(shape: Shape) -> anyhow::Result<TestMesh> {
    let keys = json!([{ "kid": "main", "alg": "HS256", "secret": token::SECRET, "primary": true }]);
    let secret = "---\nkind: table\nmeta: { project: forum, database: lab, id: secret }\nspec: { rules: { read: { rule: authenticated } } }\n";
    let resources = mail().replace("\"shop\"", "\"forum\"") + &BUCKET.replace("shop", "forum") + secret;
    let projects = vec![("forum".to_owned(), json!({ "tokens": keys }))];
    let setup = Setup { lab: Some(TODOS.to_owned()), resources, projects, ..Setup::default() };
    TestMesh::with(shape, Engine::Postgres, &setup).await
}

/// What a client prints, whose owner is called `owner`, of rows and live queries.
fn check_rows(got: &Value, owner: &str) {
    let rows = &got["rows"];
    for name in ["insert", "docs", "update", "batch", "delete"] {
        assert!(rows[name]["status"] == 200 && rows[name]["result"] == Value::Null, "{name}: {got}");
    }
    let row = |id: &str, n: i64| json!({ "id": id, "owner": owner, "n": n });
    assert_eq!(rows["sorted"]["result"], json!([{ "id": "c", "n": 3 }, { "id": "b", "n": 2 }]));
    assert_eq!(rows["one"]["result"], row("a", 7));
    assert_eq!(rows["left"]["result"], json!([row("a", 7), row("d", 4)]));
    let told = |r#type: &str, ids: &[&str]| json!({ "type": r#type, "ids": ids });
    let seen = json!([told("initial", &["a", "d"]), told("insert", &["a", "d", "e"]), told("delete", &["d", "e"])]);
    assert_eq!(got["seen"], seen);
    assert_eq!((&got["anonymous"]["status"], &got["anonymous"]["error"]), (&json!(401), &json!(NO_TOKEN)));
}

/// Cases 189 and 190 of the reference, and the client as a worker and as a caller.
async fn the_client_of_python_is_served(shape: Shape) -> anyhow::Result<()> {
    let mesh = forum(shape).await?;
    let token = token::sign(json!({ "id": "py", "role": "staff" }));
    let address = mesh.client.address().to_string();
    let got: Value = serde_json::from_str(&python_tool::space_api(&[&address, "forum", &token]).await?)?;
    check_rows(&got, "py");
    let rows = &got["rows"];
    assert_eq!((&rows["missing"]["status"], &rows["unknown"]["status"]), (&json!(404), &json!(404)));
    assert_eq!((&got["errors"], &got["refused"]), (&json!([]), &json!([NO_TOKEN])));
    assert_eq!(got["calls"]["send"]["result"], json!({ "sent": "x", "by": "py" }), "{got}");
    assert_eq!(got["calls"]["missing"]["error"], "Function not registered");
    mesh.stop().await;
    Ok(())
}

async fn the_client_of_go_is_served(shape: Shape) -> anyhow::Result<()> {
    let Some(go) = worker_program::go() else { return Ok(()) };
    let (mesh, folder) = (forum(shape).await?, tempfile::tempdir()?);
    let program = folder.path().join("space_api");
    let mut build = Command::new(go);
    build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/go/space_api"));
    tool::output(build, Duration::from_secs(300)).await?;
    let token = token::sign(json!({ "id": "go", "role": "staff" }));
    let mut run = Command::new(program);
    run.args([&mesh.client.address().to_string(), "forum", &token]);
    let got: Value = serde_json::from_str(&tool::output(run, Duration::from_secs(120)).await?)?;
    check_rows(&got, "go");
    // It does not say of which project the function is, and the node has two.
    assert_eq!((&got["call"]["status"], &got["call"]["error"]), (&json!(400), &json!("project is required")));
    let files = &got["files"];
    assert_eq!(
        (&files["upload"]["status"], &files["same"], &files["delete"]["status"]),
        (&json!(200), &json!(true), &json!(200))
    );
    assert_eq!(files["list"]["result"], json!([{ "name": "a.txt", "type": "file" }]));
    assert_eq!(files["folder"]["status"], 200, "{files}");
    mesh.stop().await;
    Ok(())
}
