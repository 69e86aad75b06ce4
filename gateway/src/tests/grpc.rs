//! gRPC and grpc-web.

use std::collections::{BTreeMap, HashMap};

use axum::body::Body;
use http::{Request, Version};
use mesh::{Code, Fault};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use proto::api::v1 as api;
use proto::api::v1::{batch_item::Write, data_client::DataClient};
use query::Limits;
use tonic::Status;

use super::stage::Stage;
use crate::Config;

fn object(members: &[(&str, Kind)]) -> Option<Struct> {
    let member = |(name, kind): &(&str, Kind)| ((*name).to_owned(), Value { kind: Some(kind.clone()) });
    Some(Struct { fields: members.iter().map(member).collect::<BTreeMap<_, _>>() })
}

fn read() -> api::ReadRequest {
    api::ReadRequest {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: "album".to_owned(),
        ..Default::default()
    }
}

fn code(status: &Status) -> (tonic::Code, &'static str) {
    (status.code(), Fault::from(status.clone()).code.as_str())
}

async fn rows(stage: &Stage, request: api::ReadRequest) -> Result<String, Status> {
    let response = DataClient::new(stage.service.front()).read(request).await?.into_inner();
    Ok(String::from_utf8(response.rows.to_vec()).expect("rows are UTF-8"))
}

#[tokio::test]
async fn rows_are_the_bytes_of_the_database() {
    let stage = Stage::new().await;
    assert_eq!(rows(&stage, read()).await.unwrap(), r#"[{"album_id":1},{"album_id":2}]"#);
}

#[tokio::test]
async fn relations_are_read_in_the_order_of_their_names_after_the_columns() {
    let stage = Stage::new().await;
    let track = api::Related {
        limit: Some(5),
        r#where: object(&[("name", Kind::StringValue("x".to_owned()))]),
        ..Default::default()
    };
    let select =
        api::Select { columns: vec!["title".to_owned()], relations: HashMap::from([("track".to_owned(), track)]) };
    rows(&stage, api::ReadRequest { select: Some(select), ..read() }).await.unwrap();
    let sent = stage.sent_read();
    let node = sent.reads[0].node.clone();
    let keys: Vec<_> = node.fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys, ["title", "track"]);
    assert_eq!(sent.grants.len(), 2);
}

#[tokio::test]
async fn an_empty_select_means_all_columns_and_one_of_relations_only_these() {
    let stage = Stage::new().await;
    let relations = HashMap::from([("track".to_owned(), api::Related::default())]);
    for (select, expected) in
        [(api::Select::default(), (true, "")), (api::Select { columns: Vec::new(), relations }, (false, "track"))]
    {
        rows(&stage, api::ReadRequest { select: Some(select), ..read() }).await.unwrap();
        let sent = stage.sent_read();
        let node = sent.reads[0].node.clone();
        let [field] = &node.fields[..] else { panic!("{node:?}") };
        assert_eq!((field.kind == query::FieldKind::Columns, field.key.as_str()), expected);
    }
}

/// A selection of columns, and of relations with their selections.
fn select(columns: &[&str], relations: &[(&str, api::Select)]) -> api::Select {
    let related = |(name, select): &(&str, api::Select)| {
        ((*name).to_owned(), api::Related { select: Some(select.clone()), ..Default::default() })
    };
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    api::Select { columns, relations: relations.iter().map(related).collect() }
}

#[tokio::test]
async fn nothing_is_told_of_a_table_of_others_beyond_a_relation() {
    let stage = Stage::new().await;
    let secret = |select, r#where, sort: &[&str]| {
        let sort = sort.iter().map(|key| (*key).to_owned()).collect();
        let related = api::Related { select: Some(select), r#where, sort, ..Default::default() };
        let relations = HashMap::from([("secret".to_owned(), related)]);
        api::ReadRequest {
            table: "track".to_owned(),
            select: Some(api::Select { columns: Vec::new(), relations }),
            ..read()
        }
    };
    for (told, request) in [
        ("a column", secret(select(&["titel"], &[]), None, &[])),
        ("a relation", secret(select(&[], &[("nope", select(&[], &[]))]), None, &[])),
        ("a value", secret(select(&["title"], &[]), object(&[("title", Kind::NumberValue(5.0))]), &[])),
        ("an order", secret(select(&["title"], &[]), None, &["nope"])),
    ] {
        let error = rows(&stage, request).await.unwrap_err();
        assert_eq!(code(&error), (tonic::Code::Unauthenticated, "UNAUTHENTICATED"), "{told}");
    }
}

#[tokio::test]
async fn every_part_of_a_read_counts() {
    let name = || select(&["name"], &[]);
    let twice = select(&["title"], &[("track", select(&[], &[("album", select(&["title"], &[]))]))]);
    let beside = select(&[], &[("album", select(&["title"], &[])), ("secret", select(&["title"], &[]))]);
    let all = Limits::default();
    for (table, select, nodes, statements, depth) in [
        ("album", select(&[], &[]), 2, 1, 0),
        ("album", select(&["title"], &[]), 1, 1, 0),
        ("album", select(&["title"], &[("track", name())]), 3, 2, 2),
        ("album", twice, 4, 3, 3),
        ("track", beside, 4, 3, 2),
    ] {
        let fewer = [
            (Limits { nodes, statements, depth, ..all }, false),
            (Limits { nodes: nodes - 1, ..all }, true),
            (Limits { statements: statements - 1, ..all }, true),
            (Limits { depth: usize::saturating_sub(depth, 1), ..all }, depth > 0),
        ];
        for (limits, is_over) in fewer {
            let stage = Stage::with(Config { limits, ..Config::default() }).await;
            let request = api::ReadRequest { table: table.to_owned(), select: Some(select.clone()), ..read() };
            let told = rows(&stage, request).await.err().map(|status| code(&status).1);
            assert_eq!(told == Some("TOO_COMPLEX"), is_over, "{select:?} {limits:?} {told:?}");
        }
    }
    for (nodes, is_over) in [(1, false), (0, true)] {
        let stage = Stage::with(Config { limits: Limits { nodes, ..all }, ..Config::default() }).await;
        let [project, database, table] = ["shop", "music", "album"].map(str::to_owned);
        let count = api::AggregateRequest { project, database, table, ..Default::default() };
        let told = DataClient::new(stage.service.front()).aggregate(count).await;
        assert_eq!(told.is_err_and(|status| code(&status).1 == "TOO_COMPLEX"), is_over);
    }
}

#[tokio::test]
async fn errors_carry_their_code() {
    let stage = Stage::new().await;
    let told = rows(&stage, api::ReadRequest { project: "nope".to_owned(), ..read() }).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::NotFound, "UNKNOWN_PROJECT"));
    let told = rows(&stage, api::ReadRequest { table: String::new(), ..read() }).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::InvalidArgument, "REQUIRED"));
    let told = rows(&stage, api::ReadRequest { table: "secret".to_owned(), ..read() }).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::Unauthenticated, "UNAUTHENTICATED"));
    let find = object(&[("titel", Kind::NumberValue(1.0))]);
    let told = rows(&stage, api::ReadRequest { r#where: find, ..read() }).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::InvalidArgument, "UNKNOWN_COLUMN"));
    let find = object(&[("album_id", Kind::NumberValue(f64::NAN))]);
    let told = rows(&stage, api::ReadRequest { r#where: find, ..read() }).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::InvalidArgument, "BAD_REQUEST"));
    assert!(told.metadata().contains_key("x-request-id"));
}

#[tokio::test]
async fn a_veiled_denial_is_the_same_as_a_plain_one() {
    let stage = Stage::new().await;
    let secret = || api::ReadRequest { table: "secret".to_owned(), ..read() };
    let plain = rows(&stage, secret()).await.unwrap_err();
    let find = object(&[("nope", Kind::BoolValue(true))]);
    let veiled = rows(&stage, api::ReadRequest { r#where: find, ..secret() }).await.unwrap_err();
    assert_eq!((plain.code(), plain.message(), plain.details()), (veiled.code(), veiled.message(), veiled.details()));
}

#[tokio::test]
async fn only_counts_can_be_asked_for_as_numbers() {
    let stage = Stage::new().await;
    let mut client = DataClient::new(stage.service.front());
    let ask = |function: &str| api::AggregateRequest {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: "album".to_owned(),
        aggregates: vec![api::Aggregation { function: function.to_owned(), column: String::new() }],
        ..Default::default()
    };
    let told = client.aggregate(ask("count")).await.unwrap().into_inner();
    assert_eq!(&told.rows[..], br#"[{"count":2}]"#);
    let told = client.aggregate(ask("sum")).await.unwrap_err();
    assert_eq!(told.message(), "function \"sum\" is not known, expected count");
    let told = client.aggregate(api::AggregateRequest { group: vec!["title".to_owned()], ..ask("count") }).await;
    assert_eq!(code(&told.unwrap_err()), (tonic::Code::InvalidArgument, "BAD_REQUEST"));
}

#[tokio::test]
async fn writes_answer_how_many_rows_and_those_asked_for() {
    let stage = Stage::new().await;
    let mut client = DataClient::new(stage.service.front());
    let doc = object(&[("album_id", Kind::NumberValue(1.0)), ("title", Kind::StringValue("x".to_owned()))]);
    let create = api::CreateRequest {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: "album".to_owned(),
        docs: doc.into_iter().collect(),
        returning: None,
    };
    let told = client.create(create.clone()).await.unwrap().into_inner();
    assert_eq!((told.affected, &told.rows[..]), (1, &b""[..]));
    let told = client.create(api::CreateRequest { returning: Some(api::Select::default()), ..create }).await;
    assert_eq!(&told.unwrap().into_inner().rows[..], br#"[{"album_id":1}]"#);
}

#[tokio::test]
async fn a_batch_is_one_write_of_one_database() {
    let stage = Stage::new().await;
    let mut client = DataClient::new(stage.service.front());
    let delete = |database: &str| api::BatchItem {
        write: Some(Write::Delete(api::DeleteRequest {
            database: database.to_owned(),
            table: "album".to_owned(),
            r#where: object(&[("album_id", Kind::NumberValue(1.0))]),
            ..Default::default()
        })),
    };
    let batch = |items| api::BatchRequest { project: "shop".to_owned(), database: "music".to_owned(), items };
    let told = client.batch(batch(vec![delete(""), delete("music")])).await.unwrap().into_inner();
    assert_eq!(told.results.len(), 2);
    assert_eq!(stage.world.writes.lock().unwrap().len(), 1);
    let told = client.batch(batch(vec![delete("other")])).await.unwrap_err();
    assert_eq!(told.message(), "database of items[0] is other, expected that of the batch, music");
    let told = client.batch(batch(vec![api::BatchItem { write: None }])).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::InvalidArgument, "REQUIRED"));
}

/// The status of a raw call: code and message.
async fn raw(stage: &Stage, path: &str, message: &[u8]) -> (String, Code) {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).expect("the test's message is small").to_be_bytes());
    body.extend_from_slice(message);
    let request = Request::post(path).version(Version::HTTP_2).header("content-type", "application/grpc");
    let told = stage.send(request.body(Body::from(body)).expect("the test's request is legal")).await;
    let status = told.parts.extensions.get::<Status>().expect("a refusal is a status").clone();
    (told.header("grpc-status").to_owned(), Fault::from(status).code)
}

#[tokio::test]
async fn bytes_that_are_no_message_are_invalid() {
    let stage = Stage::new().await;
    let told = raw(&stage, "/perigee.api.v1.Data/Read", &[0xff, 0xff, 0xff]).await;
    assert_eq!(told, ("3".to_owned(), Code::BadRequest));
}

/// The code of a read with these pieces as its body; `None` where it succeeds.
async fn read_in_pieces(stage: &Stage, pieces: &[&[u8]], encoding: Option<&str>) -> Option<Code> {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::convert::Infallible>(piece.to_vec())).collect();
    let mut request = Request::post("/perigee.api.v1.Data/Read").version(Version::HTTP_2);
    request = request.header("content-type", "application/grpc");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let body = Body::from_stream(futures::stream::iter(pieces));
    let told = stage.send(request.body(body).expect("the test's request is legal")).await;
    told.parts.extensions.get::<Status>().map(|status| Fault::from(status.clone()).code)
}

#[tokio::test]
async fn a_message_may_come_in_pieces_and_must_be_whole() {
    let stage = Stage::new().await;
    let message = read().encode_to_vec();
    let length = u32::try_from(message.len()).expect("the test's message is small");
    let whole = [&[0][..], &length.to_be_bytes(), &message].concat();
    let compressed = [&[1], &whole[1..]].concat();
    for (pieces, expected) in [
        (&[&whole[..]][..], None),
        (&[&whole[..3], &whole[3..9], &whole[9..]], None),
        (&[&whole[..9]], Some(Code::BadRequest)),
        (&[&whole, b"x"], Some(Code::BadRequest)),
        (&[&compressed], Some(Code::BadRequest)),
        (&[], Some(Code::BadRequest)),
    ] {
        assert_eq!(read_in_pieces(&stage, pieces, None).await, expected, "{pieces:?}");
    }
    assert_eq!(read_in_pieces(&stage, &[&whole], Some("identity")).await, None);
    assert_eq!(read_in_pieces(&stage, &[&whole], Some("gzip")).await, Some(Code::Method));
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let stage = Stage::new().await;
    for path in ["/perigee.api.v1.Data/Nope", "/perigee.crud.v1.Crud/Read", "/nope"] {
        assert_eq!(raw(&stage, path, b"").await, ("12".to_owned(), Code::Method), "{path}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_too_large() {
    let stage = Stage::with(Config { body_bytes: 2000, ..Config::default() }).await;
    let long = |len| api::ReadRequest { sort: vec!["x".repeat(len)], ..read() };
    let told = rows(&stage, long(1500)).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::ResourceExhausted, "TOO_LARGE"));
    let told = rows(&stage, api::ReadRequest { project: "bare".to_owned(), ..long(2500) }).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::ResourceExhausted, "TOO_LARGE"));
}

#[tokio::test]
async fn the_clients_deadline_holds() {
    let stage = Stage::new().await;
    *stage.world.gate.lock().unwrap() = Some(Default::default());
    let mut request = tonic::Request::new(read());
    request.set_timeout(std::time::Duration::from_millis(50));
    let told = DataClient::new(stage.service.front()).read(request).await.unwrap_err();
    assert_eq!(code(&told), (tonic::Code::DeadlineExceeded, "DEADLINE"));
}

#[tokio::test]
async fn browsers_get_grpc_web_with_the_origins_of_the_project() {
    let stage = Stage::new().await;
    let message = read().encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).expect("the test's message is small").to_be_bytes());
    body.extend_from_slice(&message);
    let request = Request::post("/perigee.api.v1.Data/Read")
        .header("content-type", "application/grpc-web+proto")
        .header("origin", "http://a.test");
    let told = stage.send(request.body(Body::from(body)).expect("the test's request is legal")).await;
    assert_eq!(told.status(), 200);
    assert!(told.header("content-type").starts_with("application/grpc-web"));
    assert_eq!(told.header("access-control-allow-origin"), "http://a.test");
    let length = u32::from_be_bytes(told.body[1..5].try_into().expect("a frame has a length")) as usize;
    let rows = api::ReadResponse::decode(&told.body[5..5 + length]).expect("the frame is a message").rows;
    assert_eq!(&rows[..], br#"[{"album_id":1},{"album_id":2}]"#);
    let trailers = String::from_utf8_lossy(&told.body[5 + length..]);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn health_and_reflection_are_on() {
    let stage = Stage::new().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(stage.service.front());
    for service in ["", "perigee.api.v1.Data", "perigee.api.v1.Files", "perigee.api.v1.Functions"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(stage.service.front());
    let mut told = reflection.server_reflection_info(futures::stream::iter([list])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(listed)) = told.message().await.unwrap().unwrap().message_response
    else {
        panic!("a list was asked for")
    };
    let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let public = ["perigee.api.v1.Data", "perigee.api.v1.Files", "perigee.api.v1.Functions"];
    assert_eq!(names, [&["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"][..], &public].concat());
}
