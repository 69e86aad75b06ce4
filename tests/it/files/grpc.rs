//! Files over gRPC and grpc-web: the same rules, limits and codes as over HTTP.

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::Method;
use proto::api::v1::{self as api, get_response, put_request};
use serde_json::json;
use tests::{
    client::Client,
    mesh::{Shape, TestMesh},
    token,
};
use tonic::Status;
use tonic_types::StatusExt;

use super::{Kind, OPEN, Stage};

scenarios!(
    files_go_up_and_down_over_grpc,
    grpc_lists_copies_moves_deletes_and_signs,
    rules_and_limits_hold_over_grpc,
    a_stream_that_breaks_off_writes_nothing,
    grpc_web_writes_and_reads_files,
);

fn header(path: &str) -> api::PutHeader {
    api::PutHeader { project: "shop".to_owned(), path: path.to_owned(), ..api::PutHeader::default() }
}

fn message(part: put_request::Part) -> api::PutRequest {
    api::PutRequest { part: Some(part) }
}

fn data(bytes: impl Into<Bytes>) -> api::PutRequest {
    message(put_request::Part::Data(bytes.into()))
}

/// The code of an error, as clients see it.
fn code(status: &Status) -> String {
    let reason = status.get_details_error_info().map(|info| info.reason);
    format!("{:?} {}", status.code(), reason.unwrap_or_default())
}

async fn put(
    client: &Client,
    header: api::PutHeader,
    pieces: &[&str],
) -> anyhow::Result<Result<api::FileInfo, Status>> {
    let pieces: Vec<_> = pieces.iter().map(|piece| data(piece.as_bytes().to_vec())).collect();
    let messages = [message(put_request::Part::Header(header))].into_iter().chain(pieces);
    let answered = client.files().put(client.bearing(stream::iter(messages))?).await;
    Ok(answered.map(tonic::Response::into_inner))
}

async fn get(client: &Client, request: api::GetRequest) -> anyhow::Result<Result<(api::FileInfo, Vec<u8>), Status>> {
    let request = api::GetRequest { project: "shop".to_owned(), ..request };
    let mut messages = match client.files().get(client.bearing(request)?).await {
        Ok(messages) => messages.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    let first = messages.message().await?.and_then(|message| message.part);
    let Some(get_response::Part::Info(info)) = first else { anyhow::bail!("no info but {first:?}") };
    let mut bytes = Vec::new();
    while let Some(message) = messages.message().await? {
        let Some(get_response::Part::Data(data)) = message.part else { anyhow::bail!("no data but {message:?}") };
        bytes.extend_from_slice(&data);
    }
    Ok(Ok((info, bytes)))
}

/// Writes blocks as a file.
pub async fn upload(
    client: &Client,
    path: &str,
    blocks: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> anyhow::Result<()> {
    let messages = [message(put_request::Part::Header(header(path)))].into_iter().chain(blocks.map(data));
    client.files().put(client.bearing(stream::iter(messages))?).await?;
    Ok(())
}

/// Hands the bytes of a file to `take`, as they come.
pub async fn download(
    client: &Client,
    path: &str,
    mut take: impl FnMut(Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let request = api::GetRequest { project: "shop".to_owned(), ..of(path) };
    let mut messages = client.files().get(client.bearing(request)?).await?.into_inner();
    while let Some(message) = messages.message().await? {
        if let Some(get_response::Part::Data(data)) = message.part {
            take(data)?;
        }
    }
    Ok(())
}

fn of(path: &str) -> api::GetRequest {
    api::GetRequest { path: path.to_owned(), ..api::GetRequest::default() }
}

async fn files_go_up_and_down_over_grpc(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let client = &stage.mesh.client;
        let meta = r#"{"k":"é"}"#.to_owned();
        let sent = api::PutHeader { content_type: "text/x-own".to_owned(), meta: meta.clone(), ..header("/d/a.txt") };
        let info = put(client, sent.clone(), &["01234", "", "56789"]).await??;
        assert_eq!((info.path.as_str(), info.size, info.created), ("/d/a.txt", 10, true), "{kind:?}");
        assert_eq!((info.content_type.as_str(), &info.meta), ("text/x-own", &meta));
        let again = put(client, api::PutHeader { size: Some(10), ..sent.clone() }, &["0123456789"]).await??;
        assert!(!again.created, "{again:?}");

        // What one way in writes, the others read.
        let read = stage.get("/d/a.txt").await?;
        assert_eq!((&read.body[..], read.header("etag")), (&b"0123456789"[..], &*format!("\"{}\"", again.etag)));
        let (told, bytes) = get(client, of("/d/a.txt")).await??;
        assert_eq!((&told.etag, &told.meta, &bytes[..]), (&again.etag, &meta, &b"0123456789"[..]));
        for (first, last, expected) in
            [(Some(2), Some(4), "234"), (Some(8), None, "89"), (None, Some(3), "789"), (Some(9), Some(99), "9")]
        {
            let (told, bytes) = get(client, api::GetRequest { first, last, ..of("/d/a.txt") }).await??;
            assert_eq!((told.size, &bytes[..]), (10, expected.as_bytes()), "{first:?} {last:?}");
        }
        for (request, expected) in [
            (api::GetRequest { first: Some(10), ..of("/d/a.txt") }, "OutOfRange RANGE"),
            (api::GetRequest { first: Some(3), last: Some(2), ..of("/d/a.txt") }, "InvalidArgument BAD_REQUEST"),
            (
                api::GetRequest { if_match: vec!["other".to_owned()], ..of("/d/a.txt") },
                "FailedPrecondition PRECONDITION",
            ),
            (of("/d/b.txt"), "NotFound NOT_FOUND"),
            (of("/d"), "InvalidArgument BAD_REQUEST"),
            (of(""), "InvalidArgument REQUIRED"),
            (of("/../x"), "InvalidArgument BAD_REQUEST"),
        ] {
            let refused = get(client, request.clone()).await?.expect_err("it is refused");
            assert_eq!(code(&refused), expected, "{request:?}");
        }
        let same = api::GetRequest { if_match: vec![again.etag.clone()], ..of("/d/a.txt") };
        assert_eq!(get(client, same).await??.1, b"0123456789");

        for (condition, expected) in [
            (api::PutHeader { if_none_match: "*".to_owned(), ..sent.clone() }, "FailedPrecondition PRECONDITION"),
            (api::PutHeader { if_match: vec!["x".to_owned()], ..sent.clone() }, "FailedPrecondition PRECONDITION"),
            (api::PutHeader { if_none_match: "x".to_owned(), ..sent.clone() }, "InvalidArgument BAD_REQUEST"),
            (api::PutHeader { meta: "[]".to_owned(), ..sent.clone() }, "InvalidArgument BAD_REQUEST"),
            (api::PutHeader { content_type: "none".to_owned(), ..sent.clone() }, "InvalidArgument BAD_REQUEST"),
            (api::PutHeader { size: Some(3), ..sent.clone() }, "InvalidArgument BAD_REQUEST"),
            (api::PutHeader { size: Some(30), ..sent.clone() }, "InvalidArgument BAD_REQUEST"),
            (header("/d/"), "InvalidArgument BAD_REQUEST"),
            (header("/d"), "AlreadyExists CONFLICT"),
            (header(""), "InvalidArgument REQUIRED"),
            (api::PutHeader { project: "nope".to_owned(), ..header("/a") }, "NotFound UNKNOWN_PROJECT"),
        ] {
            let refused = put(client, condition.clone(), &["newer"]).await?.expect_err("it is refused");
            assert_eq!(code(&refused), expected, "{kind:?} {condition:?}");
        }
        assert_eq!(stage.get("/d/a.txt").await?.body, "0123456789");
        let empty = put(client, header("/empty"), &[]).await??;
        assert_eq!((empty.size, get(client, of("/empty")).await??.1.len()), (0, 0));
    }
    Ok(())
}

async fn grpc_lists_copies_moves_deletes_and_signs(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let client = &stage.mesh.client;
    let (project, mut files) = ("shop".to_owned(), client.files());
    for path in ["/d/a.txt", "/d/e/b.txt", "/f.txt"] {
        put(client, header(path), &[path]).await??;
    }
    let list = api::ListRequest { project: project.clone(), path: "/d".to_owned(), ..api::ListRequest::default() };
    let page = async |request: api::ListRequest| {
        let told = client.files().list(request).await?.into_inner();
        anyhow::Ok((told.entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>(), told.cursor))
    };
    assert_eq!(page(list.clone()).await?, (vec!["/d/a.txt".to_owned(), "/d/e".to_owned()], String::new()));
    let recursive = api::ListRequest { recursive: true, mode: api::ListMode::Files.into(), ..list.clone() };
    assert_eq!(page(recursive).await?.0, ["/d/a.txt", "/d/e/b.txt"]);
    let (first, cursor) = page(api::ListRequest { limit: 1, ..list.clone() }).await?;
    assert_eq!((first.len(), cursor.is_empty()), (1, false));
    assert_eq!(page(api::ListRequest { cursor, ..list.clone() }).await?.0, ["/d/e"]);
    for wrong in [
        api::ListRequest { limit: 1001, ..list.clone() },
        api::ListRequest { mode: 7, ..list.clone() },
        api::ListRequest { cursor: "x".to_owned(), ..list.clone() },
    ] {
        let refused = files.list(wrong.clone()).await.expect_err("it is refused");
        assert_eq!(code(&refused), "InvalidArgument BAD_REQUEST", "{wrong:?}");
    }

    let (path, to) = ("/f.txt".to_owned(), "/d/f.txt".to_owned());
    let copy = api::CopyRequest { project: project.clone(), path, to, ..api::CopyRequest::default() };
    let copied = files.copy(copy.clone()).await?.into_inner();
    assert_eq!((copied.path.as_str(), copied.created), ("/d/f.txt", true));
    let refused = files.copy(api::CopyRequest { if_none_match: "*".to_owned(), ..copy.clone() }).await;
    assert_eq!(code(&refused.expect_err("it is there")), "FailedPrecondition PRECONDITION");
    let refused = files.copy(api::CopyRequest { to: "/d/".to_owned(), ..copy }).await;
    assert_eq!(code(&refused.expect_err("it is a folder")), "InvalidArgument BAD_REQUEST");
    let (path, to) = ("/d/f.txt".to_owned(), "/g.txt".to_owned());
    let moved =
        files.r#move(api::MoveRequest { project: project.clone(), path, to, ..api::MoveRequest::default() }).await?;
    assert_eq!(moved.into_inner().path, "/g.txt");
    assert_eq!(stage.get("/d/f.txt").await?.status, 404);

    let info = async |path: &str| {
        client.files().info(api::InfoRequest { project: "shop".to_owned(), path: path.to_owned() }).await
    };
    assert!(info("/d").await?.into_inner().is_folder);
    assert_eq!(info("/g.txt").await?.into_inner().size, 6);

    let delete = |path: &str| api::DeleteFileRequest {
        project: "shop".to_owned(),
        path: path.to_owned(),
        ..api::DeleteFileRequest::default()
    };
    for (request, expected) in [
        (delete("/d"), "InvalidArgument BAD_REQUEST"),
        (delete("/"), "InvalidArgument BAD_REQUEST"),
        (delete("/none"), "NotFound NOT_FOUND"),
        (
            api::DeleteFileRequest { if_match: vec!["x".to_owned()], ..delete("/g.txt") },
            "FailedPrecondition PRECONDITION",
        ),
        (
            api::DeleteFileRequest { folder: true, if_match: vec!["*".to_owned()], ..delete("/d") },
            "InvalidArgument BAD_REQUEST",
        ),
    ] {
        let refused = files.delete(request.clone()).await.expect_err("it is refused");
        assert_eq!(code(&refused), expected, "{request:?}");
    }
    files.delete(delete("/g.txt")).await?;
    files.delete(api::DeleteFileRequest { folder: true, ..delete("/d") }).await?;
    assert_eq!(stage.names("?op=list").await?, ["f.txt"]);

    let sign = api::SignRequest { project, path: "/f.txt".to_owned(), method: 1, expires: 60 };
    let signed = files.sign(sign.clone()).await?.into_inner();
    assert_eq!(stage.get(&signed.url).await?.body, "/f.txt");
    for (request, expected) in [
        (api::SignRequest { method: 0, ..sign.clone() }, "InvalidArgument REQUIRED"),
        (api::SignRequest { method: 9, ..sign.clone() }, "InvalidArgument BAD_REQUEST"),
        (api::SignRequest { expires: 0, ..sign.clone() }, "InvalidArgument BAD_REQUEST"),
    ] {
        assert_eq!(code(&files.sign(request).await.expect_err("it is refused")), expected);
    }
    Ok(())
}

async fn rules_and_limits_hold_over_grpc(shape: Shape) -> anyhow::Result<()> {
    let own = "{ rule: match, type: string, eval: \"==\", f1: args.params.user, f2: args.auth.id }";
    let small = "{ rule: match, type: number, eval: \"<=\", f1: args.size, f2: 4 }";
    let spec = format!(
        "limits: {{ size: 100 }}\n  rules:\n  - {{ prefix: \"/users/:user\", create: {own}, read: {own}, delete: {own} }}\n  \
         - {{ prefix: /small, create: {{ rule: and, anonymous: true, clauses: [{small}] }}, read: {{ rule: allow }} }}"
    );
    let stage = Stage::with(shape, Kind::Local, &spec).await?;
    let anybody = &stage.mesh.client;
    let ann = anybody.with_token(&token::sign(json!({ "id": "ann" })));
    let path = "/users/ann/a";
    assert_eq!(
        code(&put(anybody, header(path), &["x"]).await?.expect_err("no token")),
        "Unauthenticated UNAUTHENTICATED"
    );
    assert_eq!(code(&put(&ann, header("/users/bob/a"), &["x"]).await?.expect_err("a rule")), "PermissionDenied DENIED");
    put(&ann, header(path), &["x"]).await??;
    assert_eq!(code(&get(anybody, of(path)).await?.expect_err("no token")), "Unauthenticated UNAUTHENTICATED");
    assert_eq!(get(&ann, of(path)).await??.1, b"x");
    let long = "y".repeat(101);
    for size in [None, Some(101)] {
        let refused = put(&ann, api::PutHeader { size, ..header(path) }, &[&long]).await?.expect_err("it is too large");
        assert_eq!(code(&refused), "ResourceExhausted TOO_LARGE", "{size:?}");
    }
    assert_eq!(get(&ann, of(path)).await??.1, b"x");
    // A size that was not announced is judged before anybody sees the file.
    assert_eq!(
        code(&put(&ann, header("/small/a"), &["123", "45"]).await?.expect_err("a rule")),
        "PermissionDenied DENIED"
    );
    assert_eq!(stage.get("/small/a").await?.status, 404);
    put(&ann, header("/small/a"), &["12", "34"]).await??;
    // The limit of messages is that of bodies; more of them make a larger file.
    let huge = put(&ann, header(path), &[&"z".repeat(9 << 20)]).await?.expect_err("a message is too large");
    assert_eq!(code(&huge), "ResourceExhausted TOO_LARGE");
    Ok(())
}

async fn a_stream_that_breaks_off_writes_nothing(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let client = &stage.mesh.client;
    let begin = message(put_request::Part::Header(header("/a")));
    for messages in [
        vec![],
        vec![data("x")],
        vec![api::PutRequest { part: None }],
        vec![begin.clone(), data("x"), begin.clone()],
        vec![begin.clone(), api::PutRequest { part: None }],
    ] {
        let refused = client.files().put(stream::iter(messages.clone())).await.expect_err("it is refused");
        assert_eq!(code(&refused), "InvalidArgument BAD_REQUEST", "{messages:?}");
    }
    // A client that leaves in the middle.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let mut files = client.files();
    let putting = tokio::spawn(async move { files.put(messages).await });
    sender.send(begin).await?;
    for _ in 0..8 {
        sender.send(data(vec![7; 100_000])).await?;
    }
    let uploads = stage.local().join(".perigee/uploads");
    super::large::until_there(&uploads, true).await?;
    putting.abort();
    super::large::until_there(&uploads, false).await?;
    assert_eq!(stage.get("/a").await?.status, 404);
    Ok(())
}

fn frame(out: &mut BytesMut, message: &impl prost::Message) {
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).expect("the test's message is small"));
    out.put_slice(&message.encode_to_vec());
}

/// The messages of an answer of grpc-web, and its status.
fn unframed(mut body: &[u8]) -> anyhow::Result<(Vec<&[u8]>, String)> {
    let mut messages = Vec::new();
    loop {
        let (head, rest) = body.split_at_checked(5).context("a frame is whole")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (frame, rest) = rest.split_at_checked(length).context("a frame is whole")?;
        if head[0] & 0x80 != 0 {
            return Ok((messages, String::from_utf8(frame.to_vec())?));
        }
        messages.push(frame);
        body = rest;
    }
}

async fn grpc_web(mesh: &TestMesh, method: &str, body: Bytes) -> anyhow::Result<Bytes> {
    let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let path = format!("/perigee.api.v1.Files/{method}");
    Ok(mesh.client.send(Method::POST, &path, &headers, body).await?.into_body())
}

async fn grpc_web_writes_and_reads_files(shape: Shape) -> anyhow::Result<()> {
    use prost::Message as _;
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let mut body = BytesMut::new();
    frame(&mut body, &message(put_request::Part::Header(header("/a"))));
    frame(&mut body, &data("hello "));
    frame(&mut body, &data("world"));
    let told = grpc_web(&stage.mesh, "Put", body.freeze()).await?;
    let (messages, trailers) = unframed(&told)?;
    ensure!(trailers.contains("grpc-status:0"), "{trailers}");
    assert_eq!(api::FileInfo::decode(messages[0])?.size, 11);

    let mut body = BytesMut::new();
    frame(&mut body, &api::GetRequest { project: "shop".to_owned(), ..of("/a") });
    let told = grpc_web(&stage.mesh, "Get", body.freeze()).await?;
    let (messages, trailers) = unframed(&told)?;
    ensure!(trailers.contains("grpc-status:0"), "{trailers}");
    let mut bytes = Vec::new();
    for message in messages {
        if let Some(get_response::Part::Data(data)) = api::GetResponse::decode(message)?.part {
            bytes.extend_from_slice(&data);
        }
    }
    assert_eq!(bytes, b"hello world");
    Ok(())
}
