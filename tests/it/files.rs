//! Files over HTTP, on every backend that a test can have, in both shapes of the mesh.

mod compressed;
mod documented;
mod grpc;
mod hostile;
mod images;
mod large;
mod quotas;
mod s3;
mod tus;

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    object_store::S3,
    token,
};

scenarios!(
    golden_cases_on_a_local_folder,
    golden_cases_in_memory,
    golden_cases_on_s3,
    the_most_specific_rule_decides,
    rules_see_the_file,
    limits_of_a_bucket_hold,
    conditions_and_ranges,
    forms_of_earlier_clients,
    pages_of_folders,
    copies_moves_and_deletions_of_many,
    signed_addresses,
    pages_of_browsers_may_read_what_cors_allows,
    a_damaged_file_is_not_handed_out,
);

/// Backends of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Memory,
    S3,
}

impl Kind {
    /// The backend of a bucket, with its files in `folder` or `s3`.
    fn backend(self, folder: &Path, s3: &S3) -> String {
        match self {
            Kind::Local => format!("{{ kind: local, path: \"{}\" }}", folder.join("local").display()),
            Kind::Memory => "{ kind: memory }".to_owned(),
            Kind::S3 => s3.backend("a/prefix"),
        }
    }
}

/// A mesh with buckets.
struct Stage {
    mesh: TestMesh,
    folder: tempfile::TempDir,
    _s3: S3,
}

const OPEN: &str = "rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow }, delete: { rule: allow } }]";

impl Stage {
    /// A mesh whose bucket `files` has this backend and `spec` besides.
    async fn with(shape: Shape, kind: Kind, spec: &str) -> anyhow::Result<Self> {
        Self::with_more(shape, kind, spec, "").await
    }

    async fn with_more(shape: Shape, kind: Kind, spec: &str, more: &str) -> anyhow::Result<Self> {
        Self::set_up(shape, kind, spec, Setup { resources: more.to_owned(), ..Setup::default() }).await
    }

    /// Likewise; the resources of `setup` come besides.
    async fn set_up(shape: Shape, kind: Kind, spec: &str, setup: Setup) -> anyhow::Result<Self> {
        let more = &setup.resources;
        let folder = tempfile::tempdir()?;
        let s3 = S3::start(&folder.path().join("s3")).await?;
        let backend = kind.backend(folder.path(), &s3);
        let resources = format!(
            "kind: bucket\nmeta: {{ project: shop, id: files }}\nspec:\n  default: true\n  backend: {backend}\n  {spec}\n{more}"
        );
        let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..setup.clone() }).await?;
        Ok(Self { mesh, folder, _s3: s3 })
    }

    fn local(&self) -> PathBuf {
        self.folder.path().join("local")
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        send(&self.mesh.client, method, path, headers, body).await
    }

    async fn put(&self, path: &str, body: &'static str) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path, &[], body).await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], "").await
    }

    async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Names and types of a list.
    async fn names(&self, path: &str) -> anyhow::Result<Vec<String>> {
        let answer = self.get(path).await?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        let entries = answer.json()?["result"].as_array().cloned().context("a result")?;
        let name = |entry: &Value| match entry["type"].as_str() {
            Some("dir") => format!("{}/", entry["name"].as_str().unwrap_or_default()),
            _ => entry["name"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(entries.iter().map(name).collect())
    }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }

    fn code(&self) -> anyhow::Result<String> {
        Ok(self.json()?["code"].as_str().with_context(|| format!("{self:?}"))?.to_owned())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Answer> {
    let path = if path.starts_with("/v1/") { path.to_owned() } else { format!("/v1/api/shop/files{path}") };
    let response: Response<Bytes> = client.send(method, &path, headers, body).await?;
    let (head, body) = response.into_parts();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

async fn golden_cases_on_a_local_folder(shape: Shape) -> anyhow::Result<()> {
    golden(shape, Kind::Local).await
}

async fn golden_cases_in_memory(shape: Shape) -> anyhow::Result<()> {
    golden(shape, Kind::Memory).await
}

async fn golden_cases_on_s3(shape: Shape) -> anyhow::Result<()> {
    golden(shape, Kind::S3).await
}

/// Cases 30 to 73 and 98 to 105 of the reference on files, as far as they are about this version.
async fn golden(shape: Shape, kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::with(shape, kind, OPEN).await?;
    written_and_read(&stage).await?;
    listed(&stage, kind).await?;
    deleted(&stage, kind).await?;
    one_name_is_a_file_or_a_folder(&stage).await?;
    parallel_writes(&stage).await
}

async fn written_and_read(stage: &Stage) -> anyhow::Result<()> {
    let headers = [("content-type", "image/png"), ("x-meta", r#"{"k":"\u00e9"}"#)];
    let made = stage.send(Method::PUT, "/img/b.png", &headers, "abcdef").await?;
    ensure!(made.status == 201, "{made:?}");
    let told = made.json()?;
    assert_eq!(
        (&told["path"], &told["size"], &told["contentType"]),
        (&json!("/img/b.png"), &json!(6), &json!("image/png"))
    );
    assert_eq!(made.header("etag"), format!("\"{}\"", told["etag"].as_str().context("an etag")?));

    let read = stage.get("/img/b.png").await?;
    assert_eq!((read.status, &read.body[..]), (200, &b"abcdef"[..]));
    for (name, value) in [
        ("content-length", "6"),
        ("content-type", "image/png"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("x-meta", r#"{"k":"\u00e9"}"#),
        ("etag", made.header("etag")),
        ("content-disposition", ""),
    ] {
        assert_eq!(read.header(name), value, "{name}");
    }
    ensure!(!read.header("last-modified").is_empty(), "{read:?}");
    let head = stage.send(Method::HEAD, "/img/b.png", &[], "").await?;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "6", 0));
    assert_eq!(head.header("etag"), read.header("etag"));

    let again = stage.put("/img/b.png", "other").await?;
    assert_eq!(again.status, 200);
    assert_ne!(again.header("etag"), made.header("etag"));
    assert_eq!(stage.get("//img/b.png").await?.body, "other");
    assert_eq!(stage.get("/img/zz").await?.status, 404);
    let folder = stage.get("/img").await?;
    assert_eq!((folder.status, folder.code()?.as_str()), (400, "BAD_REQUEST"));
    let page = stage.send(Method::PUT, "/evil.html", &[], "<script>").await?;
    assert_eq!(page.status, 201);
    let page = stage.get("/evil.html").await?;
    assert_eq!(page.header("content-disposition"), "attachment; filename=\"evil.html\"");
    assert_eq!(page.header("content-security-policy"), "sandbox");
    let saved = stage.get("/img/b.png?download=x.png").await?;
    assert_eq!(saved.header("content-disposition"), "attachment; filename=\"x.png\"");
    let nested = stage.put("/a/files/b", "x").await?;
    assert_eq!(nested.json()?["path"], "/a/files/b");
    let empty = stage.put("/empty", "").await?;
    assert_eq!((empty.status, empty.json()?["size"].clone()), (201, json!(0)));
    assert_eq!(stage.get("/empty").await?.body, "");
    assert_eq!(stage.send(Method::PATCH, "/empty", &[], "").await?.status, 405);
    Ok(())
}

async fn listed(stage: &Stage, kind: Kind) -> anyhow::Result<()> {
    for path in ["/list/a.txt", "/list/d/x", "/list/d/y/z", "/list/e.txt"] {
        ensure!(stage.put(path, "text").await?.status == 201, "{path}");
    }
    assert_eq!(stage.names("/list?op=list&mode=all").await?, ["a.txt", "d/", "e.txt"]);
    assert_eq!(stage.names("//list/?op=list").await?, ["a.txt", "d/", "e.txt"]);
    assert_eq!(stage.names("/list?op=list&mode=file").await?, ["a.txt", "e.txt"]);
    assert_eq!(stage.names("/list?op=list&mode=dir").await?, ["d/"]);
    assert_eq!(stage.names("/list?op=list&search=A.T").await?, ["a.txt"]);
    assert_eq!(stage.get("/list?op=list&mode=some").await?.status, 400);
    assert_eq!(stage.get("/nothing?op=list").await?.status, 404);
    let all = ["a.txt", "d/", "d/x", "d/y/", "d/y/z", "e.txt"];
    assert_eq!(stage.names("/list?op=list&recursive=true").await?, all);
    ensure!(stage.names("?op=list").await?.contains(&"list/".to_owned()));
    ensure!(stage.names("/?op=list&recursive=true").await?.iter().all(|name| !name.starts_with(".perigee")));
    let entry = stage.get("/list/a.txt?op=info").await?.json()?["result"].clone();
    assert_eq!((&entry["name"], &entry["type"], &entry["size"]), (&json!("a.txt"), &json!("file"), &json!(4)));
    assert_eq!(entry["contentType"], "text/plain");
    ensure!(entry["lastModified"].as_str().is_some_and(|moment| moment.ends_with('Z')), "{entry}");
    assert_eq!(stage.get("/list/d?op=info").await?.json()?["result"]["type"], "dir");
    let exists = stage.get("/list/a.txt?op=exist").await?;
    assert_eq!((exists.status, exists.json()?), (200, json!({})));
    let absent = stage.get("/list/b.txt?op=exist").await?;
    assert_eq!((absent.status, absent.json()?["error"].clone()), (404, json!("provided file / dir path not found")));
    let made = stage.send(Method::POST, "?path=/list&fileType=dir&name=made&makeAll=true", &[], "").await?;
    assert_eq!((made.status, made.json()?), (200, json!({})));
    assert_eq!(stage.names("/list/made?op=list").await?, Vec::<String>::new());
    assert_eq!(stage.names("/list?op=list&mode=dir").await?, ["d/", "made/"], "{kind:?}");
    Ok(())
}

async fn deleted(stage: &Stage, kind: Kind) -> anyhow::Result<()> {
    for path in ["/del/a", "/del/d/x", "/del2/z", "/del.png"] {
        ensure!(stage.put(path, "text").await?.status == 201, "{path}");
    }
    let deleted = stage.delete("/del/a").await?;
    assert_eq!((deleted.status, deleted.json()?), (200, json!({})));
    assert_eq!(stage.delete("/del/a").await?.status, 404);
    let folder = stage.delete("/del/d").await?;
    assert_eq!((folder.status, folder.json()?["error"].clone()), (400, json!("cannot delete the folder")), "{kind:?}");
    assert_eq!(stage.delete("/del?fileType=other").await?.status, 400);
    assert_eq!(stage.delete("/del?fileType=folder").await?.status, 200);
    assert_eq!(stage.delete("/del?fileType=dir").await?.status, 200, "there is none any more");
    assert_eq!(stage.get("/del/d/x").await?.status, 404);
    assert_eq!((stage.get("/del2/z").await?.status, stage.get("/del.png").await?.status), (200, 200));
    for root in ["", "/", "//"] {
        let refused = stage.delete(&format!("{root}?fileType=dir")).await?;
        assert_eq!((refused.status, refused.json()?["error"].clone()), (400, json!("refusing to delete the root")));
    }
    Ok(())
}

async fn one_name_is_a_file_or_a_folder(stage: &Stage) -> anyhow::Result<()> {
    ensure!(stage.put("/one/file", "x").await?.status == 201);
    for (path, what) in [("/one", "a folder"), ("/one/file/below", "a file is above")] {
        let refused = stage.put(path, "x").await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (409, "CONFLICT"), "{what}");
    }
    let made = stage.send(Method::POST, "?path=/one/file&fileType=dir&name=x", &[], "").await?;
    assert_eq!((made.status, made.code()?.as_str()), (409, "CONFLICT"));
    assert_eq!(stage.put("/one/folder/", "x").await?.status, 400);
    Ok(())
}

/// Case 73: of two uploads of one path, one complete version wins.
async fn parallel_writes(stage: &Stage) -> anyhow::Result<()> {
    const SIZE: usize = 600_000;
    let write = |letter: u8| stage.send(Method::PUT, "/parallel", &[], vec![letter; SIZE]);
    let written = futures::future::try_join_all((b'a'..=b'f').map(write)).await?;
    ensure!(written.iter().all(|answer| [200, 201].contains(&answer.status)), "{written:?}");
    let read = stage.get("/parallel").await?.body;
    assert_eq!(read.len(), SIZE);
    ensure!(read.iter().all(|letter| *letter == read[0]), "the versions are mixed");
    Ok(())
}

/// Cases 74 to 88 of the reference on rules.
async fn the_most_specific_rule_decides(shape: Shape) -> anyhow::Result<()> {
    let spec = "rules:\n  - { prefix: /, read: { rule: deny }, create: { rule: authenticated } }\n  \
                - { prefix: /img, read: { rule: allow }, create: { rule: allow } }\n  \
                - { prefix: /:any, read: { rule: deny } }\n  \
                - { prefix: /u/:id, create: { rule: allow }, read: { rule: match, type: string, eval: \"==\", f1: args.auth.id, f2: args.params.id } }";
    let stage = Stage::with(shape, Kind::Memory, spec).await?;
    for path in ["/img/a", "/u/7/x"] {
        ensure!(stage.put(path, "x").await?.status == 201, "{path}");
    }
    assert_eq!(stage.get("/img/a").await?.status, 200);
    for path in ["/doc/a", "/imgs/a"] {
        let refused = stage.get(path).await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (403, "DENIED"), "no token helps: {path}");
        assert_eq!(refused.json()?["error"], "You are not authorized to make this request");
    }
    let by = |id: &str| stage.mesh.client.with_token(&token::sign(json!({ "id": id })));
    assert_eq!(send(&by("7"), Method::GET, "/u/7/x", &[], "").await?.status, 200);
    assert_eq!(send(&by("8"), Method::GET, "/u/7/x", &[], "").await?.status, 403);
    let anonymous = stage.get("/u/7/x").await?;
    assert_eq!((anonymous.status, anonymous.code()?.as_str()), (401, "UNAUTHENTICATED"), "a token could help");
    // The most specific prefix has no rule for it: no other is asked.
    for path in ["/img/a", "/a"] {
        assert_eq!(stage.delete(path).await?.status, 403, "{path}");
    }
    assert_eq!(stage.put("/top", "x").await?.status, 403, "/:any has no rule for create");
    // The list of a folder is a read of it, and of what is in it.
    assert_eq!(stage.names("/img?op=list").await?, ["a"]);
    assert_eq!(stage.get("/u?op=list").await?.status, 403);
    Ok(())
}

async fn rules_see_the_file(shape: Shape) -> anyhow::Result<()> {
    let matching = |kind: &str, f1: &str, eval: &str, f2: &str| {
        format!("{{ rule: match, type: {kind}, eval: \"{eval}\", f1: {f1}, f2: {f2}, error: no }}")
    };
    let clauses = [
        matching("string", "args.path", "==", "/up/a.png"),
        matching("string", "args.name", "==", "a.png"),
        matching("number", "args.size", "<=", "4"),
        matching("string", "args.contentType", "==", "image/png"),
        matching("string", "args.meta.kind", "==", "avatar"),
    ];
    let spec = format!(
        "rules: [{{ prefix: /, read: {{ rule: allow }}, create: {{ rule: and, anonymous: true, clauses: [{}] }} }}]",
        clauses.join(", ")
    );
    let stage = Stage::with(shape, Kind::Local, &spec).await?;
    let client = stage.mesh.client.with_token(&token::sign(json!({ "id": 1 })));
    let put = async |path: &str, kind: &str, meta: &str, body: &'static str| {
        let headers = [("content-type", kind), ("x-meta", meta)];
        anyhow::Ok(send(&client, Method::PUT, path, &headers, body).await?.status)
    };
    let avatar = r#"{"kind":"avatar"}"#;
    assert_eq!(put("/up/a.png", "image/png", avatar, "1234").await?, 201);
    assert_eq!(put("/up/b.png", "image/png", avatar, "1234").await?, 403);
    assert_eq!(put("/up/a.png", "image/gif", avatar, "1234").await?, 403);
    assert_eq!(put("/up/a.png", "image/png", avatar, "12345").await?, 403);
    assert_eq!(put("/up/a.png", "image/png", r#"{"kind":"other"}"#, "1234").await?, 403);
    assert_eq!(put("/up/a.png", "image/png", "[]", "1234").await?, 400);
    assert_eq!(put("/up/a.png", "no type", avatar, "1234").await?, 400);

    // What is not declared is what the name tells, and what nobody can know yet is not signed for.
    let undeclared = send(&client, Method::PUT, "/up/a.png", &[("x-meta", avatar)], "1234").await?;
    assert_eq!(undeclared.status, 200);
    let sign = json!({ "method": "PUT", "expires": 60 }).to_string();
    let signed =
        send(&client, Method::POST, "/up/a.png?op=sign", &[("content-type", "application/json")], sign).await?;
    assert_eq!((signed.status, signed.code()?.as_str()), (403, "DENIED"), "{signed:?}");

    // A size that is not announced is judged before anybody sees the file.
    for (body, expected) in [("7\r\n1234567\r\n0\r\n\r\n", 403), ("4\r\nabcd\r\n0\r\n\r\n", 200)] {
        let head = format!(
            "PUT /v1/api/shop/files/up/a.png HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: image/png\r\n\
             x-meta: {avatar}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{body}",
            token::sign(json!({ "id": 1 }))
        );
        let told = hostile::exchange(client.address(), head.as_bytes()).await?;
        ensure!(told.starts_with(&format!("HTTP/1.1 {expected} ")), "{told}");
    }
    assert_eq!(stage.get("/up/a.png").await?.body, "abcd");
    let uploads = std::fs::read_dir(stage.local().join(".perigee/uploads"))?.count();
    assert_eq!(uploads, 0, "nothing is left of what was refused");
    Ok(())
}

async fn limits_of_a_bucket_hold(shape: Shape) -> anyhow::Result<()> {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    let spec = format!(
        "limits: {{ size: 1kB, types: [\"image/*\"] }}\n  cacheControl: public, max-age=60\n  inline: true\n  {OPEN}"
    );
    for kind in [Kind::Local, Kind::Memory] {
        let stage = Stage::with(shape, kind, &spec).await?;
        let put = async |path: &str, content_type: &str, body: Vec<u8>| {
            stage.send(Method::PUT, path, &[("content-type", content_type)], body).await
        };
        assert_eq!(put("/a.png", "image/png", PNG.to_vec()).await?.status, 201);
        for (content_type, body) in
            [("text/plain", PNG.to_vec()), ("image/png", b"%PDF-1.7".to_vec()), ("image/png", b"nothing".to_vec())]
        {
            let refused = put("/b.png", content_type, body).await?;
            assert_eq!((refused.status, refused.code()?.as_str()), (415, "UNSUPPORTED_TYPE"));
        }
        let refused = put("/b.png", "image/png", [PNG, &[0; 1000]].concat()).await?;
        assert_eq!((refused.status, refused.code()?.as_str()), (413, "TOO_LARGE"));
        assert_eq!(stage.get("/b.png").await?.status, 404, "nothing of it is stored");
        for content_type in ["image/png, text/html", "image/png;, text/html"] {
            assert_eq!(put("/b.png", content_type, PNG.to_vec()).await?.status, 400, "browsers see the last of them");
        }
        let drawing = put("/c.svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()).await?;
        assert_eq!(drawing.status, 201, "{drawing:?}");
        let drawing = stage.get("/c.svg").await?;
        assert_eq!(
            (drawing.header("content-disposition"), drawing.header("cache-control")),
            ("", "public, max-age=60")
        );
    }
    Ok(())
}

async fn conditions_and_ranges(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, OPEN).await?;
        let made = stage.put("/a.txt", "0123456789").await?;
        let (etag, get) = (made.header("etag").to_owned(), Method::GET);
        let modified = stage.get("/a.txt").await?.header("last-modified").to_owned();
        for (range, status, content_range, body) in [
            ("bytes=0-3", 206, "bytes 0-3/10", "0123"),
            ("bytes=-3", 206, "bytes 7-9/10", "789"),
            ("bytes=8-99", 206, "bytes 8-9/10", "89"),
            ("bytes=x", 200, "", "0123456789"),
            ("lines=0-3", 200, "", "0123456789"),
        ] {
            let answer = stage.send(get.clone(), "/a.txt", &[("range", range)], "").await?;
            assert_eq!(
                (answer.status, answer.header("content-range"), &answer.body[..]),
                (status, content_range, body.as_bytes()),
                "{range}"
            );
            assert_eq!(answer.header("content-length"), body.len().to_string());
        }
        let beyond = stage.send(get.clone(), "/a.txt", &[("range", "bytes=999999-")], "").await?;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
        assert_eq!(beyond.code()?, "RANGE");
        let several = stage.send(get.clone(), "/a.txt", &[("range", "bytes=0-0, 5-6, 99-")], "").await?;
        assert_eq!(several.status, 206);
        let boundary =
            several.header("content-type").strip_prefix("multipart/byteranges; boundary=").context("a boundary")?;
        let text = std::str::from_utf8(&several.body)?;
        let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
        assert_eq!(parts.len(), 4, "{text}");
        ensure!(
            parts[1].ends_with("bytes 0-0/10\r\n\r\n0\r\n") && parts[2].ends_with("bytes 5-6/10\r\n\r\n56\r\n"),
            "{text}"
        );
        assert_eq!(several.header("content-length"), text.len().to_string());

        for (headers, status) in [
            (&[("if-none-match", etag.as_str())][..], 304),
            (&[("if-none-match", "\"other\"")], 200),
            (&[("if-modified-since", modified.as_str())], 304),
            (&[("if-match", etag.as_str())], 200),
            (&[("if-match", "\"other\"")], 412),
            (&[("range", "bytes=0-1"), ("if-range", etag.as_str())], 206),
            (&[("range", "bytes=0-1"), ("if-range", "\"other\"")], 200),
            (&[("range", "bytes=0-1"), ("if-range", modified.as_str())], 206),
        ] {
            let answer = stage.send(get.clone(), "/a.txt", headers, "").await?;
            assert_eq!(answer.status, status, "{kind:?} {headers:?}");
        }
        let unchanged = stage.send(get.clone(), "/a.txt", &[("if-none-match", &etag)], "").await?;
        assert_eq!((unchanged.header("etag"), unchanged.body.len()), (etag.as_str(), 0));

        let put = async |headers: &[(&str, &str)]| {
            anyhow::Ok(stage.send(Method::PUT, "/a.txt", headers, "new").await?.status)
        };
        assert_eq!(put(&[("if-none-match", "*")]).await?, 412, "{kind:?}");
        assert_eq!(put(&[("if-match", "\"other\"")]).await?, 412);
        assert_eq!(put(&[("if-match", &etag)]).await?, 200);
        assert_eq!(put(&[("if-match", &etag)]).await?, 412, "it is another version now");
        assert_eq!(stage.send(Method::PUT, "/new", &[("if-match", "*")], "x").await?.status, 412);
        assert_eq!(stage.send(Method::PUT, "/new", &[("if-none-match", "*")], "x").await?.status, 201);
        assert_eq!(stage.send(Method::DELETE, "/a.txt", &[("if-match", &etag)], "").await?.status, 412);
    }
    Ok(())
}

/// A form as clients write it.
fn form(parts: &[(&str, Option<&str>, &str)]) -> String {
    let part = |(name, file, value): &(&str, Option<&str>, &str)| {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: text/plain")).unwrap_or_default();
        format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
    };
    format!("{}--limit--\r\n", parts.iter().map(part).collect::<String>())
}

/// Cases 1 to 29 of the reference on files, and 101 to 117 of the one on the wire.
async fn forms_of_earlier_clients(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let spec = "rules:\n  - { prefix: /, create: { rule: allow }, read: { rule: allow }, delete: { rule: allow } }\n  \
                    - { prefix: /priv, create: { rule: deny } }";
        let stage = Stage::with(shape, kind, spec).await?;
        let post = async |query: &str, parts: &[(&str, Option<&str>, &str)]| {
            let headers = [("content-type", "multipart/form-data; boundary=limit")];
            stage.send(Method::POST, query, &headers, form(parts)).await
        };
        let (file, up) = (("file", Some("a.txt"), "hi"), ("fileType", None, "file"));
        let path = |path: &'static str| ("path", None, path);
        let all = ("makeAll", None, "true");
        let made = post("", &[path("/docs/d"), up, all, file]).await?;
        assert_eq!((made.status, made.json()?), (200, json!({})), "{kind:?}");
        assert_eq!(stage.get("/docs/d/a.txt").await?.body, "hi");
        let made = post("", &[file, path("/docs/d"), up, all, ("fileName", None, "b.txt")]).await?;
        assert_eq!(made.status, 200, "the file first: {made:?}");
        assert_eq!(stage.get("/docs/d/b.txt").await?.body, "hi");
        assert_eq!(post("?path=/q&fileType=file&makeAll=T", &[file]).await?.status, 200, "fields in the address");
        assert_eq!(stage.names("/docs/d?op=list&mode=all").await?, ["a.txt", "b.txt"]);

        for parts in [
            &[path("/docs"), ("fileType", None, "folder"), ("name", None, "e"), all][..],
            &[path("/docs"), ("name", None, "x")],
        ] {
            for _ in 0..2 {
                let made = post("", parts).await?;
                assert_eq!((made.status, made.json()?), (200, json!({})));
            }
        }
        let encoded = [("content-type", "application/x-www-form-urlencoded")];
        let made = stage.send(Method::POST, "", &encoded, "path=%2Fdocs&fileType=dir&name=g&makeAll=true").await?;
        assert_eq!(made.status, 200, "{made:?}");
        assert_eq!(stage.names("/docs?op=list&mode=dir").await?, ["d/", "e/", "g/", "x/"]);

        let missing = post("", &[path("/docs/no"), up, ("makeAll", None, "false"), file]).await?;
        if kind == Kind::Local {
            assert_eq!(
                (missing.status, missing.json()?["error"].clone()),
                (409, json!("Local: Provided path is not a directory"))
            );
        }
        for (parts, status, text) in [
            (&[path("/docs"), up][..], 400, "Incorrect value for file"),
            (&[path("/docs"), up, ("makeAll", None, "yes"), file], 400, "Incorrect value for makeAll"),
            (&[path("/docs"), ("fileType", None, "other"), file], 400, "invalid fileType"),
            (&[path("/docs"), up, all, file, ("fileName", None, "../../x")], 400, "invalid file name"),
            (&[path("/docs/../x"), up, all, file], 400, "not allowed"),
            (&[path("//docs"), up, all, file], 400, "must not be empty"),
            (&[path("img"), up, all, file], 403, "no rule is about"),
            (&[path("/priv"), up, all, file], 403, "You are not authorized to make this request"),
            (&[file, up, all], 400, "path is missing"),
            (&[path("/docs"), up, file, file], 400, "two files"),
        ] {
            let refused = post("", parts).await?;
            let error = refused.json()?["error"].as_str().unwrap_or_default().to_owned();
            ensure!(refused.status == status && error.contains(text), "{kind:?} {parts:?}: {refused:?}");
        }
        assert_eq!(post("", &[path("/a..b"), up, all, file]).await?.status, 200);
        let broken = stage
            .send(Method::POST, "", &[("content-type", "multipart/form-data; boundary=limit")], "--limit\r\nx")
            .await?;
        assert_eq!(broken.status, 400, "{broken:?}");
        assert_eq!(stage.send(Method::POST, "/docs", &[], "").await?.status, 405);
        assert_eq!(stage.send(Method::POST, "/docs?op=cpy", &[], "").await?.status, 400);
    }
    Ok(())
}

async fn pages_of_folders(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory] {
        let spec = "rules:\n  - { prefix: /, create: { rule: allow }, read: { rule: allow } }\n  - { prefix: /many/s, create: { rule: allow } }";
        let stage = Stage::with(shape, kind, spec).await?;
        let mut expected: Vec<String> = (0..23).map(|number| format!("f{number:02}")).collect();
        expected.extend((0..5).map(|number| format!("d{number}/")));
        expected.extend(["s/".to_owned(), "a b".to_owned(), "é".to_owned()]);
        for name in &expected {
            let path = match name.strip_suffix('/') {
                Some(folder) => format!("/many/{folder}/x"),
                None => format!("/many/{}", name.replace(' ', "%20").replace('é', "%C3%A9")),
            };
            let made = stage.put(&path, "x").await?;
            ensure!(made.status == 201, "{made:?}");
        }
        expected.sort();
        for limit in [1, 7, 31, 1000] {
            let (mut names, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let page = stage.get(&format!("/many?op=list&limit={limit}&cursor={cursor}")).await?.json()?;
                let entries = page["result"].as_array().context("a result")?;
                ensure!(entries.len() <= limit, "{page}");
                names.extend(entries.iter().map(|entry| {
                    let slash = if entry["type"] == "dir" { "/" } else { "" };
                    format!("{}{slash}", entry["name"].as_str().unwrap_or_default())
                }));
                pages += 1;
                match page["cursor"].as_str() {
                    Some(next) => cursor = next.to_owned(),
                    None => break,
                }
            }
            assert_eq!(names, expected, "{kind:?}, {limit} at a time");
            assert_eq!(pages, expected.len().div_ceil(limit), "{kind:?}, {limit} at a time");
        }
        // What may not be listed is left out of recursive lists.
        let all = stage.names("/?op=list&recursive=true").await?;
        ensure!(
            all.contains(&"many/d0/x".to_owned()) && !all.iter().any(|name| name.starts_with("many/s/")),
            "{all:?}"
        );
        // Nor does anything tell that a hidden entry has such a name.
        let (mut cursor, mut pages) = (String::new(), Vec::new());
        loop {
            let path = format!("/?op=list&recursive=true&limit=1&search=hidden&cursor={cursor}");
            let page = stage.get(&path).await?.json()?;
            assert_eq!(page["result"], json!([]), "{page}");
            let Some(next) = page["cursor"].as_str() else { break };
            ensure!(!URL_SAFE_NO_PAD.decode(next)?.windows(4).any(|bytes| bytes == b"many"), "{page}");
            next.clone_into(&mut cursor);
            pages.push(page);
        }
        ensure!(pages.len() > 30, "as many as without a search: {}", pages.len());
        for (parameter, status) in
            [("limit=0", 400), ("limit=1001", 400), ("limit=x", 400), ("cursor=%21", 400), ("recursive=x", 400)]
        {
            assert_eq!(stage.get(&format!("/many?op=list&{parameter}")).await?.status, status, "{parameter}");
        }
    }
    Ok(())
}

async fn copies_moves_and_deletions_of_many(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let bucket = |id: &str, limits: &str| {
            format!(
                "---\nkind: bucket\nmeta: {{ project: shop, id: {id} }}\nspec:\n  backend: {{ kind: memory }}\n  limits: {{ {limits} }}\n  \
                 rules: [{{ prefix: /, create: {{ rule: allow }}, read: {{ rule: allow }} }}]\n"
            )
        };
        let more = bucket("other", "") + &bucket("drawings", "types: [\"image/*\"]");
        let spec = format!(
            "{}\n    - {{ prefix: /kept, create: {{ rule: allow }}, read: {{ rule: allow }} }}",
            OPEN.replace("rules: [", "rules:\n    - ").trim_end_matches(']')
        );
        let stage = Stage::with_more(shape, kind, &spec, &more).await?;
        let fake = stage.send(Method::PUT, "/fake.png", &[("content-type", "image/png")], "no drawing").await?;
        let copied = stage.post("/fake.png?op=copy", &json!({ "to": "/drawings/a.png" })).await?;
        assert_eq!((fake.status, copied.status), (201, 415), "its content is no drawing's: {copied:?}");
        assert_eq!(stage.get("/drawings/a.png").await?.status, 404);
        assert_eq!(stage.delete("/fake.png").await?.status, 200);
        let headers = [("content-type", "text/x-own"), ("x-meta", r#"{"k":1}"#)];
        ensure!(stage.send(Method::PUT, "/a", &headers, "text").await?.status == 201);
        let copied = stage.post("/a?op=copy", &json!({ "to": "/b/c" })).await?;
        assert_eq!((copied.status, copied.json()?["path"].clone()), (201, json!("/b/c")), "{kind:?}");
        let read = stage.get("/b/c").await?;
        assert_eq!(
            (&read.body[..], read.header("content-type"), read.header("x-meta")),
            (&b"text"[..], "text/x-own", r#"{"k":1}"#)
        );
        assert_eq!(stage.post("/a?op=copy", &json!({ "to": "/b/c" })).await?.status, 200, "it is replaced");
        let moved = stage.post("/a?op=move", &json!({ "to": "/other/m" })).await?;
        assert_eq!(moved.status, 201, "to another bucket: {moved:?}");
        assert_eq!((stage.get("/a").await?.status, stage.get("/other/m").await?.body), (404, Bytes::from("text")));
        let moved = stage.post("/b/c?op=move", &json!({ "to": "/e/f" })).await?;
        assert_eq!((moved.status, stage.get("/b/c").await?.status), (201, 404));
        assert_eq!(stage.get("/e/f").await?.header("x-meta"), r#"{"k":1}"#);
        for (path, body, status) in [
            ("/none?op=copy", json!({ "to": "/x" }), 404),
            ("/e/f?op=copy", json!({ "to": "/e" }), 409),
            ("/e?op=copy", json!({ "to": "/x" }), 400),
            ("/e/f?op=copy", json!({ "to": "x" }), 400),
            ("/e/f?op=copy", json!({ "to": "/" }), 400),
            ("/e/f?op=copy", json!({ "to": "/x", "too": 1 }), 400),
            ("/e/f?op=copy", json!({ "to": "/e/f" }), 409),
            ("/other/m?op=move", json!({ "to": "/x" }), 403),
        ] {
            let refused = stage.post(path, &body).await?;
            assert_eq!(refused.status, status, "{kind:?} {path} {body}: {refused:?}");
        }
        ensure!(stage.put("/kept/x", "x").await?.status == 201);
        let told = stage.post("?op=delete", &json!({ "paths": ["/e/f", "/none", "/kept/x", "/../x", "/"] })).await?;
        let result = told.json()?["result"].as_array().cloned().context("a result")?;
        let codes: Vec<_> = result.iter().map(|one| (one["deleted"].as_bool(), one["code"].as_str())).collect();
        let refused = |code| (Some(false), Some(code));
        let expected = [
            (Some(true), None),
            refused("NOT_FOUND"),
            refused("DENIED"),
            refused("BAD_REQUEST"),
            refused("BAD_REQUEST"),
        ];
        assert_eq!(codes, expected, "{told:?}");
        let many: Vec<String> = (0..1001).map(|number| format!("/{number}")).collect();
        assert_eq!(stage.post("?op=delete", &json!({ "paths": many })).await?.status, 400);

        // A folder is deleted as a whole or not at all.
        ensure!(stage.put("/free/x", "x").await?.status == 201);
        assert_eq!(stage.delete("/kept?fileType=dir").await?.status, 403);
        assert_eq!(stage.delete("/free?fileType=dir").await?.status, 200);
        assert_eq!((stage.get("/kept/x").await?.status, stage.get("/free/x").await?.status), (200, 404));
    }
    Ok(())
}

async fn signed_addresses(shape: Shape) -> anyhow::Result<()> {
    let spec = "rules: [{ prefix: /, create: { rule: authenticated }, read: { rule: authenticated }, delete: { rule: allow } }]";
    let stage = Stage::with(shape, Kind::Local, spec).await?;
    let user = stage.mesh.client.with_token(&token::sign(json!({ "id": 1 })));
    let sign = async |client: &Client, path: &str, body: Value| {
        let headers = [("content-type", "application/json")];
        send(client, Method::POST, &format!("{path}?op=sign"), &headers, body.to_string()).await
    };
    let to_put = sign(&user, "/a%20b", json!({ "method": "PUT", "expires": 60 })).await?.json()?;
    let to_put = to_put["url"].as_str().context("a url")?.to_owned();
    assert_eq!(stage.put(&to_put, "signed").await?.status, 201);
    assert_eq!(stage.get(&to_put).await?.status, 403, "it is for PUT");
    let signed = sign(&user, "/a%20b", json!({ "method": "GET", "expires": 60 })).await?.json()?;
    let to_get = signed["url"].as_str().context("a url")?.to_owned();
    ensure!(signed["expires"].as_str().is_some_and(|moment| moment.ends_with('Z')), "{signed}");
    assert_eq!(stage.get(&to_get).await?.body, "signed");
    assert_eq!(stage.send(Method::HEAD, &to_get, &[], "").await?.status, 200);
    assert_eq!(stage.send(Method::GET, &to_get, &[("range", "bytes=0-1")], "").await?.body, "si");
    let (path, query) = to_get.split_once('?').context("a query")?;
    let expires = query.split('&').next().and_then(|one| one.strip_prefix("expires=")).context("a time")?;
    let later = expires.parse::<i64>()? + 1;
    for address in [
        to_get.replace("a%20b", "c"),
        format!("{path}?{}", query.replace(expires, &later.to_string())),
        format!("{path}?expires={expires}&signature=x"),
        format!("{path}?expires={expires}&signature="),
    ] {
        assert_eq!(stage.get(&address).await?.status, 403, "{address}");
    }
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(stage.send(method, &to_get, &[], "x").await?.status, 403);
    }
    assert_eq!(stage.get(&format!("{path}?signature=x")).await?.status, 400);
    assert_eq!(sign(&stage.mesh.client, "/a", json!({ "method": "GET", "expires": 60 })).await?.status, 401);
    for body in [
        json!({ "method": "GET", "expires": 0 }),
        json!({ "method": "GET", "expires": 604_801 }),
        json!({ "method": "DELETE", "expires": 60 }),
        json!({ "method": "GET" }),
    ] {
        assert_eq!(sign(&user, "/a", body.clone()).await?.status, 400, "{body}");
    }
    let short = sign(&user, "/a%20b", json!({ "method": "GET", "expires": 1 })).await?.json()?;
    let short = short["url"].as_str().context("a url")?.to_owned();
    until(async || Ok(stage.get(&short).await?.status == 403)).await
}

/// Waits until `is_met`.
async fn until<F: Future<Output = anyhow::Result<bool>>>(is_met: impl Fn() -> F) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_met().await? {
        ensure!(tokio::time::Instant::now() < end, "it does not come about");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn pages_of_browsers_may_read_what_cors_allows(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Memory, OPEN).await?;
    let origin = ("origin", "https://page.test");
    let refused = stage.send(Method::GET, "/a", &[origin], "").await?;
    assert_eq!(refused.header("access-control-expose-headers"), "");
    let more = format!(
        "kind: bucket\nmeta: {{ project: web, id: files }}\nspec:\n  backend: {{ kind: memory }}\n  {OPEN}\n---\nkind: project\nmeta: {{ id: web }}\nspec: {{ cors: {{ origins: [\"https://page.test\"] }} }}\n"
    );
    stage.mesh.edit(&more)?;
    let path = "/v1/api/web/files/a";
    until(async || Ok(stage.send(Method::PUT, path, &[], "x").await?.status < 300)).await?;
    let read = stage.send(Method::GET, path, &[origin], "").await?;
    let exposed = read.header("access-control-expose-headers");
    ensure!(
        ["ETag", "Content-Range", "Content-Disposition", "Location"].iter().all(|name| exposed.contains(name)),
        "{exposed}"
    );
    let asked = [
        origin,
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type, if-match, x-meta"),
    ];
    let preflight = stage.send(Method::OPTIONS, path, &asked, "").await?;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (200, "PUT"));
    let asked = [
        origin,
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "content-type, tus-resumable, upload-offset, upload-checksum"),
    ];
    let preflight = stage.send(Method::OPTIONS, "/v1/api/web/uploads/x", &asked, "").await?;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (200, "PATCH"));
    ensure!(
        ["Upload-Offset", "Tus-Resumable", "Upload-Expires"].iter().all(|name| exposed.contains(name)),
        "{exposed}"
    );
    let options = stage.send(Method::OPTIONS, path, &[], "").await?;
    assert_eq!((options.status, options.header("allow")), (200, "GET, HEAD, PUT, POST, DELETE, OPTIONS"));
    // The bucket of the other project is gone with its document.
    assert_eq!(stage.get("/a").await?.code()?, "UNKNOWN_BUCKET");
    assert_eq!(stage.get("/v1/api/nobody/files/a").await?.code()?, "UNKNOWN_PROJECT");
    Ok(())
}

async fn a_damaged_file_is_not_handed_out(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    ensure!(stage.put("/a", "sound").await?.status == 201);
    let file = stage.local().join("a");
    let modified = std::fs::metadata(&file)?.modified()?;
    // As a disk does it: without a trace.
    std::fs::write(&file, "wrong")?;
    std::fs::File::options().write(true).open(&file)?.set_modified(modified)?;
    let read = stage.get("/a").await;
    ensure!(read.is_err() || read.is_ok_and(|answer| answer.body != "wrong"), "a damaged file is told to be sound");
    // What another program wrote is a file as others are.
    std::fs::write(&file, "rewritten")?;
    assert_eq!(stage.get("/a").await?.body, "rewritten");
    Ok(())
}
