//! Resumable uploads: what TUS 1.0 says of them, and clients of others through killed processes.

use std::path::Path;

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tests::{client::Client, mesh::Shape, node_tool, python_tool, token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Answer, Kind, OPEN, Stage,
    large::{Pair, block},
    send,
};

scenarios!(
    resumable_uploads_go_on,
    what_does_not_have_its_checksum_does_not_count,
    bad_requests_of_resumable_uploads,
    rules_and_limits_hold_for_resumable_uploads,
    what_changes_holds_for_uploads_that_have_begun,
    unfinished_uploads_are_bounded,
    only_the_creator_goes_on,
    uploads_that_end_leave_nothing,
    a_later_request_takes_an_upload_over,
    files_are_put_together_of_uploads,
);

const UPLOADS: &str = "/v1/api/shop/uploads";
const BYTES: (&str, &str) = ("content-type", "application/offset+octet-stream");
const VERSION: (&str, &str) = ("tus-resumable", "1.0.0");

fn metadata(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value)));
    pairs.collect::<Vec<_>>().join(",")
}

async fn create(client: &Client, path: &str, length: u64) -> anyhow::Result<Answer> {
    let (length, metadata) = (length.to_string(), metadata(&[("path", path), ("filetype", "text/x-own")]));
    let headers = [VERSION, ("upload-length", &length), ("upload-metadata", &metadata)];
    send(client, Method::POST, UPLOADS, &headers, "").await
}

/// The address of a new upload.
pub async fn begun(client: &Client, path: &str, length: u64) -> anyhow::Result<String> {
    let answer = create(client, path, length).await?;
    ensure!(answer.status == 201, "{answer:?}");
    Ok(answer.header("location").to_owned())
}

async fn patch(client: &Client, upload: &str, offset: u64, body: &'static str) -> anyhow::Result<Answer> {
    let offset = offset.to_string();
    send(client, Method::PATCH, upload, &[VERSION, BYTES, ("upload-offset", &offset)], body).await
}

async fn head(client: &Client, upload: &str) -> anyhow::Result<Answer> {
    send(client, Method::HEAD, upload, &[VERSION], "").await
}

async fn offset(client: &Client, upload: &str) -> anyhow::Result<String> {
    let answer = head(client, upload).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.header("upload-offset").to_owned())
}

async fn resumable_uploads_go_on(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let client = &stage.mesh.client;
        let made = create(client, "/d/a.txt", 10).await?;
        assert_eq!((made.status, made.header("tus-resumable")), (201, "1.0.0"), "{kind:?} {made:?}");
        ensure!(made.header("upload-expires").ends_with(" GMT"), "{made:?}");
        let upload = made.header("location").to_owned();
        ensure!(upload.starts_with("/v1/api/shop/uploads/"), "{upload}");
        let told = head(client, &upload).await?;
        let seen = ["upload-offset", "upload-length", "cache-control"].map(|name| told.header(name).to_owned());
        assert_eq!(seen, ["0", "10", "no-store"], "{kind:?}");
        assert_eq!(told.header("upload-metadata"), metadata(&[("path", "/d/a.txt"), ("filetype", "text/x-own")]));

        let first = patch(client, &upload, 0, "0123").await?;
        assert_eq!((first.status, first.header("upload-offset")), (204, "4"), "{kind:?} {first:?}");
        assert_eq!(stage.get("/d/a.txt").await?.status, 404, "nobody sees a part of it");
        for wrong in [0, 3, 5] {
            let refused = patch(client, &upload, wrong, "x").await?;
            assert_eq!((refused.status, refused.code()?.as_str()), (409, "CONFLICT"), "{kind:?} {wrong}");
        }
        assert_eq!(patch(client, &upload, 4, "").await?.header("upload-offset"), "4");
        assert_eq!(patch(client, &upload, 4, "4").await?.status, 204);
        assert_eq!(offset(client, &upload).await?, "5");
        let refused = patch(client, &upload, 5, "567890").await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (413, "TOO_LARGE"), "{kind:?}");
        // Some can send no other method.
        let override_ = [VERSION, BYTES, ("upload-offset", "5"), ("x-http-method-override", "PATCH")];
        let last = send(client, Method::POST, &upload, &override_, "56789").await?;
        assert_eq!((last.status, last.header("upload-offset")), (204, "10"), "{kind:?} {last:?}");
        let read = stage.get("/d/a.txt").await?;
        assert_eq!((&read.body[..], read.header("content-type")), (&b"0123456789"[..], "text/x-own"), "{kind:?}");
        // Who did not see the answer asks again.
        assert_eq!(offset(client, &upload).await?, "10");
        assert_eq!(patch(client, &upload, 10, "").await?.header("upload-offset"), "10");
        assert_eq!(patch(client, &upload, 4, "x").await?.status, 409);

        let meta = metadata(&[("path", "/b.txt"), ("meta", r#"{"k":1}"#)]);
        let with_bytes = [VERSION, BYTES, ("upload-length", "6"), ("upload-metadata", &meta)];
        let made = send(client, Method::POST, UPLOADS, &with_bytes, "abc").await?;
        assert_eq!((made.status, made.header("upload-offset")), (201, "3"), "{kind:?} {made:?}");
        assert_eq!(patch(client, made.header("location"), 3, "def").await?.status, 204);
        let read = stage.get("/b.txt").await?;
        assert_eq!((&read.body[..], read.header("x-meta")), (&b"abcdef"[..], r#"{"k":1}"#));
        assert_eq!(create(client, "/empty", 0).await?.status, 201);
        assert_eq!(stage.get("/empty").await?.header("content-length"), "0");
        assert_eq!(stage.names("?op=list").await?, ["b.txt", "d/", "empty"], "{kind:?}");
    }
    Ok(())
}

async fn what_does_not_have_its_checksum_does_not_count(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let client = &stage.mesh.client;
        let upload = begun(client, "/a", 6).await?;
        let checked = async |offset: &str, checksum: &str, body: &'static str| {
            let headers = [VERSION, BYTES, ("upload-offset", offset), ("upload-checksum", checksum)];
            send(client, Method::PATCH, &upload, &headers, body).await
        };
        let abc = "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
        assert_eq!(checked("0", abc, "abd").await?.status, 460, "{kind:?}");
        assert_eq!(offset(client, &upload).await?, "0", "{kind:?}");
        let sound = checked("0", abc, "abc").await?;
        assert_eq!((sound.status, sound.header("upload-offset")), (204, "3"), "{kind:?} {sound:?}");
        assert_eq!(checked("3", abc, "abd").await?.status, 460);
        assert_eq!(offset(client, &upload).await?, "3", "{kind:?}");
        let sha256 = "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        for malformed in ["md5 x", "sha1", "sha1 x", "sha256 qZk+NkcGgWq6PiVxeFDCbJzQ2J0="] {
            assert_eq!(checked("3", malformed, "abc").await?.status, 400, "{malformed}");
        }
        assert_eq!(checked("3", sha256, "abc").await?.header("upload-offset"), "6");
        assert_eq!(stage.get("/a").await?.body, "abcabc");
    }
    Ok(())
}

async fn bad_requests_of_resumable_uploads(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let client = &stage.mesh.client;
    let options = send(client, Method::OPTIONS, UPLOADS, &[], "").await?;
    assert_eq!((options.status, options.header("tus-version")), (204, "1.0.0"));
    let extensions = "creation,creation-with-upload,termination,checksum,expiration,concatenation";
    assert_eq!(options.header("tus-extension"), extensions);
    assert_eq!(options.header("tus-checksum-algorithm"), "sha1,sha256");
    let path = metadata(&[("path", "/a")]);
    let (length, of) = (("upload-length", "3"), ("upload-metadata", path.as_str()));
    let root = metadata(&[("path", "/")]);
    let wrong_meta = metadata(&[("path", "/a"), ("meta", "[]")]);
    let wrong_type = metadata(&[("path", "/a"), ("filetype", "text")]);
    for (headers, status, code) in [
        (&[length, of][..], 412, "PRECONDITION"),
        (&[("tus-resumable", "0.2.2"), length, of], 412, "PRECONDITION"),
        (&[VERSION, of], 400, "BAD_REQUEST"),
        (&[VERSION, ("upload-length", "-1"), of], 400, "BAD_REQUEST"),
        (&[VERSION, ("upload-length", "99999999999999999999"), of], 400, "BAD_REQUEST"),
        (&[VERSION, length], 400, "REQUIRED"),
        (&[VERSION, length, ("upload-metadata", "path %")], 400, "BAD_REQUEST"),
        (&[VERSION, length, ("upload-metadata", "path Li4veA==")], 400, "BAD_REQUEST"),
        (&[VERSION, length, ("upload-metadata", &root)], 400, "BAD_REQUEST"),
        (&[VERSION, length, ("upload-metadata", &wrong_meta)], 400, "BAD_REQUEST"),
        (&[VERSION, length, ("upload-metadata", &wrong_type)], 400, "BAD_REQUEST"),
        (&[VERSION, length, of, ("upload-defer-length", "1")], 400, "BAD_REQUEST"),
        (&[VERSION, length, of, ("upload-concat", "whole")], 400, "BAD_REQUEST"),
        (&[VERSION, length, of, ("content-type", "text/plain")], 415, "UNSUPPORTED_TYPE"),
    ] {
        let refused = send(client, Method::POST, UPLOADS, headers, "").await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (status, code), "{headers:?} {refused:?}");
        assert_eq!(refused.header("tus-resumable"), "1.0.0");
    }
    let upload = begun(client, "/a", 3).await?;
    for (method, path, headers, status) in [
        (Method::PATCH, upload.as_str(), &[VERSION, ("upload-offset", "0")][..], 415),
        (Method::PATCH, &upload, &[VERSION, BYTES], 400),
        (Method::PATCH, &upload, &[VERSION, BYTES, ("upload-offset", "x")], 400),
        (Method::GET, &upload, &[VERSION], 405),
        (Method::PUT, &upload, &[VERSION], 405),
        (Method::PATCH, UPLOADS, &[VERSION, BYTES, ("upload-offset", "0")], 405),
        (Method::HEAD, "/v1/api/shop/uploads/AAAA", &[VERSION], 404),
        (Method::HEAD, "/v1/api/shop/uploads/..%2fx", &[VERSION], 404),
        (Method::HEAD, &format!("{upload}/x"), &[VERSION], 404),
        (Method::DELETE, &upload[..upload.len() - 1], &[VERSION], 404),
        (Method::HEAD, "/v1/api/nope/uploads/AAAA", &[VERSION], 404),
    ] {
        let refused = send(client, method.clone(), path, headers, "").await?;
        assert_eq!(refused.status, status, "{method} {path} {headers:?}");
    }
    Ok(())
}

async fn rules_and_limits_hold_for_resumable_uploads(shape: Shape) -> anyhow::Result<()> {
    let small = "{ rule: match, type: number, eval: \"<=\", f1: args.size, f2: 4 }";
    let spec = format!(
        "limits: {{ size: 100, types: [\"text/*\"] }}\n  rules:\n  - {{ prefix: /open, create: {{ rule: allow }}, read: {{ rule: allow }} }}\n  \
         - {{ prefix: /known, create: {{ rule: authenticated }} }}\n  - {{ prefix: /small, create: {{ rule: and, anonymous: true, clauses: [{small}] }} }}"
    );
    for kind in [Kind::Local, Kind::Memory] {
        let stage = Stage::with(shape, kind, &spec).await?;
        let client = &stage.mesh.client.with_token(&token::sign(json!({ "id": 1 })));
        assert_eq!(create(&stage.mesh.client, "/known/a", 4).await?.status, 401);
        assert_eq!(create(client, "/known/a", 4).await?.status, 201);
        assert_eq!(create(client, "/none/a", 4).await?.status, 403);
        assert_eq!(create(client, "/small/a", 5).await?.status, 403);
        assert_eq!(create(client, "/small/a", 4).await?.status, 201);
        assert_eq!(create(client, "/open/a", 101).await?.status, 413);
        let image = metadata(&[("path", "/open/a"), ("filetype", "image/png")]);
        let headers = [VERSION, ("upload-length", "4"), ("upload-metadata", &image)];
        assert_eq!(send(client, Method::POST, UPLOADS, &headers, "").await?.status, 415);
        // What the content tells is known at the end.
        let upload = begun(client, "/open/a", 8).await?;
        assert_eq!(patch(client, &upload, 0, "%PDF").await?.status, 204);
        let refused = patch(client, &upload, 4, "-1.7").await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (415, "UNSUPPORTED_TYPE"), "{kind:?}");
        assert_eq!(head(client, &upload).await?.status, 415, "a client that is told of all bytes takes it for done");
        assert_eq!(stage.get("/open/a").await?.status, 404);
    }
    Ok(())
}

async fn what_changes_holds_for_uploads_that_have_begun(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let client = &stage.mesh.client;
    let upload = begun(client, "/a", 6).await?;
    assert_eq!(patch(client, &upload, 0, "abc").await?.status, 204);
    for (spec, status) in [
        (format!("limits: {{ size: 5 }}\n  {OPEN}"), 413),
        ("rules: [{ prefix: /, create: { rule: deny } }]".to_owned(), 403),
    ] {
        let local = stage.local();
        stage.mesh.edit(&format!(
            "kind: bucket\nmeta: {{ project: shop, id: files }}\nspec:\n  default: true\n  \
             backend: {{ kind: local, path: \"{}\" }}\n  {spec}\n",
            local.display()
        ))?;
        while create(client, "/b", 6).await?.status != status {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for (offset, body) in [(3, "d"), (3, "def")] {
            assert_eq!(patch(client, &upload, offset, body).await?.status, status, "{spec} {body}");
        }
        ensure!(!stage.local().join("a").exists(), "{spec}");
    }
    Ok(())
}

async fn unfinished_uploads_are_bounded(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::S3] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let client = &stage.mesh.client;
        let first = begun(client, "/a", 1).await?;
        for _ in 1..64 {
            begun(client, "/a", 1).await?;
        }
        let refused = create(client, "/a", 1).await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (429, "TOO_MANY"), "{kind:?}");
        begun(client, "/b", 1).await?;
        assert_eq!(patch(client, &first, 0, "x").await?.status, 204);
        begun(client, "/a", 1).await?;
    }
    // No number of bytes is too large to be compared.
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let huge = begun(&stage.mesh.client, "/huge", u64::MAX).await?;
    let mut sending = TcpStream::connect(stage.mesh.client.address()).await?;
    let request = format!(
        "PATCH {huge} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntus-resumable: 1.0.0\r\nupload-offset: {}\r\n\
         content-type: application/offset+octet-stream\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        u64::MAX
    );
    sending.write_all(request.as_bytes()).await?;
    let mut told = String::new();
    sending.read_to_string(&mut told).await?;
    ensure!(told.starts_with("HTTP/1.1 409 "), "{told}");
    Ok(())
}

async fn only_the_creator_goes_on(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let client = |claims: Value| stage.mesh.client.with_token(&token::sign(claims));
    let ann = client(json!({ "id": "ann" }));
    let upload = begun(&ann, "/a", 6).await?;
    assert_eq!(patch(&ann, &upload, 0, "abc").await?.status, 204);
    let forged = format!("{}x", token::sign(json!({ "id": "ann" })));
    for (other, status) in [
        (client(json!({ "id": "bob" })), 403),
        (stage.mesh.client.clone(), 403),
        (stage.mesh.client.with_token(&forged), 401),
    ] {
        assert_eq!(head(&other, &upload).await?.status, status);
        assert_eq!(patch(&other, &upload, 3, "xyz").await?.status, status);
        assert_eq!(send(&other, Method::DELETE, &upload, &[VERSION], "").await?.status, status);
    }
    // A token that was renewed is of the same caller.
    let renewed = client(json!({ "id": "ann", "iat": 5, "jti": "new" }));
    assert_eq!(patch(&renewed, &upload, 3, "def").await?.status, 204);
    assert_eq!(stage.get("/a").await?.body, "abcdef");
    Ok(())
}

async fn uploads_that_end_leave_nothing(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let client = &stage.mesh.client;
        let upload = begun(client, "/a", 6).await?;
        assert_eq!(patch(client, &upload, 0, "abc").await?.status, 204);
        assert_eq!(send(client, Method::DELETE, &upload, &[VERSION], "").await?.status, 204, "{kind:?}");
        for gone in [head(client, &upload).await?, patch(client, &upload, 3, "def").await?] {
            assert_eq!(gone.status, 404, "{kind:?}");
        }
        if kind == Kind::Local {
            assert_eq!(std::fs::read_dir(stage.local().join(".perigee/resumable"))?.count(), 0);
        }
        let done = begun(client, "/b", 1).await?;
        assert_eq!(patch(client, &done, 0, "b").await?.status, 204);
        assert_eq!(send(client, Method::DELETE, &done, &[VERSION], "").await?.status, 204, "{kind:?}");
        assert_eq!(stage.get("/b").await?.body, "b", "a file that is there stays");
    }
    Ok(())
}

/// A request whose client has left without a word, as networks do it.
async fn a_later_request_takes_an_upload_over(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let client = &stage.mesh.client;
        let upload = begun(client, "/a", 1_000_000).await?;
        let mut stale = TcpStream::connect(client.address()).await?;
        let head = format!(
            "PATCH {upload} HTTP/1.1\r\nhost: x\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
             content-type: application/offset+octet-stream\r\ncontent-length: 1000000\r\n\r\n"
        );
        stale.write_all(head.as_bytes()).await?;
        let content: Vec<u8> = (0..1_000_000_u32).map(|index| (index / 251) as u8).collect();
        stale.write_all(&content[..600_000]).await?;
        // In an object store it counts once the request ends, or a piece is full.
        let came = match kind {
            Kind::Local => until_came(client, &upload).await?,
            Kind::Memory | Kind::S3 => 0,
        };
        let rest = Bytes::copy_from_slice(&content[came..]);
        let offset = came.to_string();
        let headers = [VERSION, BYTES, ("upload-offset", offset.as_str())];
        let mut last = send(client, Method::PATCH, &upload, &headers, rest).await?;
        if last.status == 409 {
            // What the other brought was kept before it ended.
            let came: usize = self::offset(client, &upload).await?.parse()?;
            ensure!(came > 0, "{kind:?}");
            let (rest, offset) = (Bytes::copy_from_slice(&content[came..]), came.to_string());
            let headers = [VERSION, BYTES, ("upload-offset", offset.as_str())];
            last = send(client, Method::PATCH, &upload, &headers, rest).await?;
        }
        assert_eq!((last.status, last.header("upload-offset")), (204, "1000000"), "{kind:?} {last:?}");
        ensure!(stage.get("/a").await?.body == content, "{kind:?}");
        let mut told = String::new();
        stale.read_to_string(&mut told).await?;
        ensure!(told.starts_with("HTTP/1.1 409 "), "{kind:?} {told}");
    }
    Ok(())
}

/// Waits until bytes of an upload have come; how many.
async fn until_came(client: &Client, upload: &str) -> anyhow::Result<usize> {
    loop {
        let came: usize = offset(client, upload).await?.parse()?;
        if came > 0 {
            return Ok(came);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Megabytes of the file that clients of others upload.
const BLOCKS: u64 = 64;

/// Bytes that have come of the only upload.
fn arrived(bucket: &Path) -> u64 {
    let entries = std::fs::read_dir(bucket.join(".perigee/resumable")).into_iter().flatten().flatten();
    let data = entries.filter(|entry| entry.path().extension().is_none());
    data.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).max().unwrap_or(0)
}

async fn until_arrived(bucket: &Path, bytes: u64) -> anyhow::Result<()> {
    let wait = async {
        while arrived(bucket) < bytes {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.context("bytes arrive")
}

/// Kills storage, then the gateway, while `client` uploads; the file is whole, and was uploaded once.
async fn through_killed_processes(
    path: &str,
    client: impl AsyncFnOnce(String, String) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut pair = Pair::start().await?;
    let (bucket, file) = (pair.bucket(), pair.folder.path().join("file"));
    let content: Vec<u8> = (0..BLOCKS).flat_map(block).collect();
    std::fs::write(&file, &content)?;
    let endpoint = format!("http://{}{UPLOADS}", pair.client.address());
    let killing = async {
        until_arrived(&bucket, 8 << 20).await?;
        pair.storage.kill()?;
        pair.storage.restart()?;
        let came = arrived(&bucket);
        ensure!(came < content.len() as u64, "it was too late");
        until_arrived(&bucket, came + (8 << 20)).await?;
        pair.gateway.kill()?;
        pair.gateway.restart()?;
        ensure!(arrived(&bucket) < content.len() as u64, "it was too late");
        anyhow::Ok(())
    };
    let (killed, uploaded) = tokio::join!(killing, client(endpoint, file.display().to_string()));
    killed?;
    let printed = uploaded?;
    ensure!(std::fs::read(bucket.join(path))? == content, "the file is another");
    let records = std::fs::read_dir(bucket.join(".perigee/resumable"))?.count();
    assert_eq!(records, 1, "the client began again: {printed}");
    ensure!(printed.contains(UPLOADS), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_goes_on_after_kills() -> anyhow::Result<()> {
    through_killed_processes("js.bin", async |endpoint, file| {
        let metadata = json!({ "path": "/js.bin", "filetype": "application/octet-stream" }).to_string();
        node_tool::script("tus_upload.js", &[&endpoint, &file, "1000000", &metadata]).await
    })
    .await
}

/// A part of a file, begun by what `concat` says.
async fn concat(client: &Client, concat: &str, path: &str, more: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let metadata = metadata(&[("path", path), ("filetype", "text/x-own")]);
    let headers = [&[VERSION, ("upload-concat", concat), ("upload-metadata", &metadata)], more].concat();
    send(client, Method::POST, UPLOADS, &headers, "").await
}

async fn files_are_put_together_of_uploads(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, &format!("limits: {{ quota: {{ bytes: 10 }} }}\n  {OPEN}")).await?;
        let client = &stage.mesh.client;
        let described = send(client, Method::OPTIONS, UPLOADS, &[], "").await?;
        ensure!(described.header("tus-extension").ends_with(",concatenation"), "{described:?}");
        let mut parts = Vec::new();
        for length in ["3", "5"] {
            let part = concat(client, "partial", "/d/whole", &[("upload-length", length)]).await?;
            assert_eq!(part.status, 201, "{kind:?} {part:?}");
            parts.push(part.header("location").to_owned());
        }
        let of_both = format!("final;{} http://localhost{}", parts[0], parts[1]);
        assert_eq!(patch(client, &parts[0], 0, "abc").await?.header("upload-offset"), "3");
        assert_eq!(concat(client, &of_both, "/d/whole", &[]).await?.status, 409, "one is not complete");
        assert_eq!(patch(client, &parts[1], 0, "defgh").await?.header("upload-offset"), "5");
        let told = head(client, &parts[1]).await?;
        assert_eq!((told.header("upload-concat"), told.header("upload-offset")), ("partial", "5"), "{kind:?}");
        assert_eq!(stage.get("/d/whole").await?.status, 404, "a part is no file");
        // They hold the room that the whole takes: more would be over the quota.
        assert_eq!(stage.send(Method::PUT, "/more", &[], "123").await?.status, 507, "{kind:?}");
        let whole = concat(client, &of_both, "/d/whole", &[]).await?;
        assert_eq!(whole.status, 201, "{kind:?} {whole:?}");
        let read = stage.get("/d/whole").await?;
        assert_eq!((&read.body[..], read.header("content-type")), (&b"abcdefgh"[..], "text/x-own"), "{kind:?}");
        let location = whole.header("location").to_owned();
        let told = head(client, &location).await?;
        assert_eq!((told.header("upload-length"), told.header("upload-offset")), ("8", "8"), "{kind:?}");
        assert_eq!(told.header("upload-concat"), format!("final;{} {}", parts[0], parts[1]));
        assert_eq!(patch(client, &location, 8, "").await?.status, 403, "it takes no bytes");
        // Who did not see the answer asks again; for another file they are gone.
        assert_eq!(concat(client, &of_both, "/d/whole", &[]).await?.header("location"), location, "{kind:?}");
        assert_eq!(concat(client, &of_both, "/d/other", &[]).await?.status, 409, "{kind:?}");
        assert_eq!(stage.send(Method::PUT, "/more", &[], "12").await?.status, 201, "{kind:?}");
        assert_eq!(send(client, Method::DELETE, &location, &[VERSION], "").await?.status, 204);
        assert_eq!(stage.names("?op=list&recursive=true").await?, ["d/", "d/whole", "more"], "{kind:?}");
        assert_eq!(stage.delete("/more").await?.status, 200);
        let alone = begun(client, "/alone", 1).await?;
        for (wrong, more) in [
            (format!("final;{alone}"), &[][..]),
            (format!("final;{}", parts[0]), &[("upload-length", "3")]),
            ("final;/v1/api/shop/files/a".to_owned(), &[]),
            ("whole".to_owned(), &[("upload-length", "1")]),
        ] {
            let refused = concat(client, &wrong, "/d/whole", more).await?;
            assert_eq!((refused.status, refused.code()?.as_str()), (400, "BAD_REQUEST"), "{kind:?} {wrong}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_uploads_in_parallel() -> anyhow::Result<()> {
    let content: Vec<u8> = (0..12_000_000_u32).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect();
    for kind in [Kind::Local, Kind::S3] {
        let stage = Stage::with(Shape::Split, kind, OPEN).await?;
        let file = stage.folder.path().join("film.bin");
        std::fs::write(&file, &content)?;
        let endpoint = format!("http://{}{UPLOADS}", stage.mesh.client.address());
        let metadata = json!({ "path": "/film.bin", "filetype": "video/x-own" }).to_string();
        let file = file.display().to_string();
        let told = node_tool::script("tus_upload.js", &[&endpoint, &file, "1000000", &metadata, "", "3"]).await?;
        ensure!(told.contains("\"done\""), "{told}");
        let read = stage.get("/film.bin").await?;
        ensure!(read.body == content && read.header("content-type") == "video/x-own", "{kind:?}: {}", read.body.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tuspy_goes_on_after_kills() -> anyhow::Result<()> {
    for checksum in ["none", "sha1"] {
        through_killed_processes("py.bin", async |endpoint, file| {
            let metadata = json!({ "path": "/py.bin" }).to_string();
            python_tool::script("tus_upload.py", &[&endpoint, &file, "1000000", &metadata, checksum, ""]).await
        })
        .await?;
    }
    Ok(())
}

/// Two gateways, each with a storage of its own, over one folder.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_goes_on_with_an_upload() -> anyhow::Result<()> {
    let mut one = Pair::start().await?;
    let other = one.beside().await?;
    let upload = begun(&one.client, "/a", 9).await?;
    assert_eq!(patch(&one.client, &upload, 0, "abc").await?.status, 204);
    assert_eq!(offset(&other.client, &upload).await?, "3");
    assert_eq!(patch(&other.client, &upload, 3, "def").await?.status, 204);
    assert_eq!(patch(&one.client, &upload, 3, "xyz").await?.status, 409);
    one.gateway.kill()?;
    one.storage.kill()?;
    assert_eq!(patch(&other.client, &upload, 6, "ghi").await?.status, 204);
    assert_eq!(send(&other.client, Method::GET, "/a", &[], "").await?.body, "abcdefghi");
    Ok(())
}
