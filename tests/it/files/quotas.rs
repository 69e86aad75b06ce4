//! Quotas and rates: every way in is counted, at once too, and nobody gets more.

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use serde_json::json;
use tests::mesh::{Setup, Shape};
use tonic::Status;

use super::{Answer, Kind, OPEN, Stage, grpc, send, until};

scenarios!(
    a_quota_holds_for_every_way_in,
    writes_at_once_fill_a_quota_exactly,
    folders_and_projects_have_quotas,
    a_quota_counts_what_is_there_already,
    callers_have_rates,
);

fn bytes(count: usize) -> Bytes {
    vec![b'x'; count].into()
}

fn with_quota(quota: &str) -> String {
    format!("limits: {{ quota: {{ {quota} }} }}\n  {OPEN}")
}

/// Why a stream of gRPC was refused.
fn refused(result: anyhow::Result<()>) -> anyhow::Result<String> {
    let error = result.err().context("it is refused")?;
    let status = error.downcast_ref::<Status>().with_context(|| format!("{error:?}"))?;
    Ok(format!("{:?} {}", status.code(), status.message()))
}

impl Stage {
    async fn keep_bytes(&self, path: &str, count: usize) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path, &[], bytes(count)).await
    }

    /// Begins a resumable upload.
    async fn begin_upload(&self, path: &str, count: usize) -> anyhow::Result<Answer> {
        let (length, metadata) = (count.to_string(), format!("path {}", STANDARD.encode(path)));
        let headers =
            [("tus-resumable", "1.0.0"), ("upload-length", length.as_str()), ("upload-metadata", metadata.as_str())];
        self.send(Method::POST, "/v1/api/shop/uploads", &headers, "").await
    }

    /// Sends all bytes of a resumable upload.
    async fn end_upload(&self, location: &str, count: usize) -> anyhow::Result<Answer> {
        let headers =
            [("tus-resumable", "1.0.0"), ("upload-offset", "0"), ("content-type", "application/offset+octet-stream")];
        self.send(Method::PATCH, location, &headers, bytes(count)).await
    }

    /// Posts a form with a file, as earlier clients do.
    async fn post_form(&self, folder: &str, name: &str, count: usize) -> anyhow::Result<Answer> {
        let field = |name: &str, value: &str| {
            format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let mut form = field("fileType", "file") + &field("path", folder) + &field("makeAll", "true");
        form.push_str(&format!(
            "--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{}\r\n--limit--\r\n",
            "x".repeat(count)
        ));
        self.send(Method::POST, "", &[("content-type", "multipart/form-data; boundary=limit")], form).await
    }

    /// Bytes and files that the bucket has.
    async fn usage(&self) -> anyhow::Result<(u64, usize)> {
        let listed = self.get("/?op=list&recursive=true&mode=file").await?.json()?;
        let files = listed["result"].as_array().context("a result")?;
        Ok((files.iter().filter_map(|file| file["size"].as_u64()).sum(), files.len()))
    }
}

async fn a_quota_holds_for_every_way_in(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, &with_quota("bytes: 1000, files: 4")).await?;
        assert_eq!(stage.keep_bytes("/d/a", 600).await?.status, 201, "{kind:?}");
        let full = |answer: &Answer| (answer.status, answer.code().unwrap_or_default());
        let expected = (507, "FULL".to_owned());
        let put = stage.keep_bytes("/b", 401).await?;
        assert_eq!(full(&put), expected, "{kind:?}");
        ensure!(
            put.json()?["error"].as_str().is_some_and(|text| text.contains("over the limit of 1000 bytes")),
            "{put:?}"
        );
        assert_eq!(full(&stage.post_form("/", "b", 401).await?), expected, "{kind:?}");
        assert_eq!(full(&stage.begin_upload("/b", 401).await?), expected, "{kind:?}");
        assert_eq!(full(&stage.post("/d/a?op=copy", &json!({ "to": "/b" })).await?), expected, "{kind:?}");
        let streamed = grpc::upload(&stage.mesh.client, "/b", std::iter::once(vec![0; 401])).await;
        ensure!(refused(streamed)?.starts_with("ResourceExhausted the bucket has no room"), "{kind:?}");
        // What could never be there.
        for answer in [stage.keep_bytes("/b", 1001).await?, stage.begin_upload("/b", 1001).await?] {
            assert_eq!(full(&answer), (413, "TOO_LARGE".to_owned()), "{kind:?}");
        }
        assert_eq!(stage.usage().await?, (600, 1), "{kind:?}");
        // An unfinished upload holds its room until it is published or ended.
        let begun = stage.begin_upload("/late", 300).await?;
        assert_eq!(full(&stage.keep_bytes("/c", 101).await?), expected, "{kind:?}");
        assert_eq!(stage.end_upload(begun.header("location"), 300).await?.status, 204, "{kind:?}");
        assert_eq!(stage.delete("/late").await?.status, 200, "{kind:?}");
        let begun = stage.begin_upload("/late", 400).await?;
        assert_eq!(full(&stage.keep_bytes("/c", 1).await?), expected, "{kind:?}");
        let ended = stage.send(Method::DELETE, begun.header("location"), &[("tus-resumable", "1.0.0")], "").await?;
        assert_eq!(ended.status, 204, "{kind:?}: {ended:?}");
        assert_eq!(stage.keep_bytes("/c", 300).await?.status, 201, "{kind:?}");
        // What takes the place of something counts for the difference, and what is deleted no longer.
        assert_eq!(stage.keep_bytes("/c", 400).await?.status, 200, "{kind:?}");
        assert_eq!(full(&stage.keep_bytes("/c", 401).await?), expected, "{kind:?}");
        assert_eq!(stage.keep_bytes("/c", 100).await?.status, 200, "{kind:?}");
        let moved = stage.post("/c?op=move", &json!({ "to": "/d/c" })).await?;
        assert_eq!(moved.status, 201, "{kind:?}: {moved:?}");
        assert_eq!(stage.post("/d/c?op=copy", &json!({ "to": "/d/e" })).await?.status, 201, "{kind:?}");
        assert_eq!(stage.usage().await?, (800, 3), "{kind:?}");
        assert_eq!(stage.keep_bytes("/empty", 0).await?.status, 201, "{kind:?}");
        let fifth = stage.keep_bytes("/fifth", 0).await?;
        assert_eq!(full(&fifth), expected, "{kind:?}: {fifth:?}");
        ensure!(fifth.json()?["error"].as_str().is_some_and(|text| text.contains("4 files")), "{fifth:?}");
        assert_eq!(stage.delete("/empty").await?.status, 200, "{kind:?}");
        assert_eq!(stage.delete("/d?fileType=dir").await?.status, 200, "{kind:?}");
        assert_eq!(stage.usage().await?, (0, 0), "{kind:?}");
        assert_eq!(stage.keep_bytes("/whole", 1000).await?.status, 201, "{kind:?}");
        assert_eq!(full(&stage.keep_bytes("/more", 1).await?), expected, "{kind:?}");
        // A change that does not come about counts nothing.
        let failed = stage.send(Method::PUT, "/whole", &[("if-none-match", "*")], bytes(10)).await?;
        assert_eq!(failed.status, 412, "{kind:?}");
        assert_eq!(full(&stage.keep_bytes("/more", 1).await?), expected, "{kind:?}");
    }
    Ok(())
}

async fn writes_at_once_fill_a_quota_exactly(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory] {
        let stage = Stage::with(shape, kind, &with_quota("bytes: 2000, files: 1000")).await?;
        for round in 0..3 {
            let mut written = Vec::new();
            let writes = (0..50).map(|index| {
                let (stage, path) = (&stage, format!("/{}/{index}", index % 7));
                async move { stage.keep_bytes(&path, 100).await }
            });
            for answer in futures::future::try_join_all(writes).await? {
                ensure!(matches!(answer.status, 200 | 201 | 507), "{answer:?}");
                written.push(answer.status != 507);
            }
            assert_eq!(written.iter().filter(|written| **written).count(), 20, "{kind:?} {round}");
            assert_eq!(stage.usage().await?, (2000, 20), "{kind:?} {round}");
            // Changes of all kinds at once, of the same files.
            let changes = (0..60).map(|index| {
                let (stage, path) = (&stage, format!("/{}/{}", index % 7, index % 50));
                async move {
                    match index % 3 {
                        0 => stage.delete(&path).await,
                        1 => stage.keep_bytes(&path, index).await,
                        _ => stage.post(&format!("{path}?op=move"), &json!({ "to": format!("/moved/{index}") })).await,
                    }
                }
            });
            futures::future::try_join_all(changes).await?;
            let (used, _) = stage.usage().await?;
            ensure!(used <= 2000, "{kind:?} {round}: {used}");
            // As much as is left can be written, and no byte more.
            let left = usize::try_from(2000 - used)?;
            assert_eq!(stage.keep_bytes("/left", left + 1).await?.status, 507, "{kind:?} {round}");
            assert_eq!(stage.keep_bytes("/left", left).await?.status, 201, "{kind:?} {round}");
            assert_eq!(stage.keep_bytes("/more", 1).await?.status, 507, "{kind:?} {round}");
            for entry in stage.names("/?op=list").await? {
                let kind = if entry.ends_with('/') { "?fileType=dir" } else { "" };
                let path = format!("/{}{kind}", entry.trim_end_matches('/'));
                assert_eq!(stage.delete(&path).await?.status, 200, "{path}");
            }
        }
    }
    Ok(())
}

async fn folders_and_projects_have_quotas(shape: Shape) -> anyhow::Result<()> {
    let open = "create: { rule: allow }, read: { rule: allow }, delete: { rule: allow }";
    let spec = format!(
        "rules: [{{ prefix: /, {open} }}, {{ prefix: \"/users/:user\", quota: {{ bytes: 500, files: 2 }}, {open} }}]"
    );
    let second = format!(
        "---\nkind: bucket\nmeta: {{ project: shop, id: second }}\nspec: {{ backend: {{ kind: memory }}, rules: [{{ prefix: /, {open} }}] }}\n"
    );
    let setup = Setup { limits: "fileQuota: { bytes: 1200, files: 5 }", resources: second, ..Setup::default() };
    let stage = Stage::set_up(shape, Kind::Local, &spec, setup).await?;
    assert_eq!(stage.keep_bytes("/users/1/a", 300).await?.status, 201);
    let full = stage.keep_bytes("/users/1/b", 201).await?;
    assert_eq!(full.status, 507, "{full:?}");
    ensure!(full.json()?["error"].as_str().is_some_and(|text| text.contains("the folder /users/1 has no room")));
    assert_eq!(stage.keep_bytes("/users/1/b", 200).await?.status, 201);
    assert_eq!(stage.keep_bytes("/users/1/c", 0).await?.status, 507, "it has two files");
    assert_eq!(stage.keep_bytes("/users/2/a", 500).await?.status, 201, "each has their own");
    let moved = stage.post("/users/1/b?op=move", &json!({ "to": "/users/2/b" })).await?;
    assert_eq!(moved.status, 507, "{moved:?}");
    // Of the project are 1000 bytes taken, and three files.
    let full = stage.keep_bytes("/second/a", 201).await?;
    ensure!(full.status == 507 && full.json()?["error"].as_str().is_some_and(|text| text.contains("the project")));
    assert_eq!(stage.keep_bytes("/second/a", 200).await?.status, 201);
    assert_eq!(stage.keep_bytes("/b", 0).await?.status, 201);
    assert_eq!(stage.keep_bytes("/c", 0).await?.status, 507, "there are five files");
    assert_eq!(stage.delete("/second/a").await?.status, 200);
    assert_eq!(stage.keep_bytes("/c", 200).await?.status, 201);
    Ok(())
}

async fn a_quota_counts_what_is_there_already(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with_more(shape, Kind::Local, OPEN, "").await?;
    for index in 0..30 {
        let path = format!("/{}/{index}", index % 4);
        assert_eq!(stage.keep_bytes(&path, 10).await?.status, 201);
    }
    let local = stage.local();
    let edited = |quota: &str| {
        let backend = Kind::Local.backend(stage.folder.path(), &stage._s3);
        format!(
            "kind: bucket\nmeta: {{ project: shop, id: files }}\nspec:\n  default: true\n  backend: {backend}\n  {}\n",
            with_quota(quota)
        )
    };
    stage.mesh.edit(&edited("bytes: 310"))?;
    until(async || Ok(stage.keep_bytes("/no", 11).await?.status == 507 || stage.delete("/no").await?.status > 200))
        .await?;
    assert_eq!(stage.keep_bytes("/yes", 10).await?.status, 201);
    assert_eq!(stage.keep_bytes("/more", 1).await?.status, 507);
    // Another quota holds at once, with what is there.
    stage.mesh.edit(&edited("bytes: 320"))?;
    until(async || Ok(stage.keep_bytes("/more", 10).await?.status == 201)).await?;
    assert_eq!(stage.keep_bytes("/again", 1).await?.status, 507);
    ensure!(std::fs::read_dir(local)?.count() > 4);
    Ok(())
}

async fn callers_have_rates(shape: Shape) -> anyhow::Result<()> {
    let spec = "limits: { rate: { perSecond: 0.02, burst: 4 } }\n  rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow }, delete: { rule: deny } }]";
    let stage = Stage::with(shape, Kind::Memory, spec).await?;
    assert_eq!(stage.keep_bytes("/a", 1).await?.status, 201);
    for _ in 0..5 {
        assert_eq!(stage.delete("/a").await?.status, 403, "what is denied does not count");
    }
    for _ in 0..3 {
        assert_eq!(stage.get("/a").await?.status, 200);
    }
    let refused_to = stage.get("/a").await?;
    assert_eq!((refused_to.status, refused_to.code()?.as_str()), (429, "TOO_MANY"));
    let wait: u32 = refused_to.header("retry-after").parse()?;
    ensure!((40..=50).contains(&wait), "{wait}");
    for answer in [stage.keep_bytes("/b", 1).await?, stage.begin_upload("/b", 1).await?, stage.get("/?op=list").await?]
    {
        assert_eq!(answer.status, 429, "{answer:?}");
    }
    let streamed = grpc::upload(&stage.mesh.client, "/b", std::iter::once(vec![0])).await;
    ensure!(refused(streamed)?.starts_with("ResourceExhausted too many requests"));
    // A token that was forged does not make another caller.
    let forged = stage.mesh.client.with_token("e30.eyJpZCI6MX0.c2ln");
    let answer = send(&forged, Method::GET, "/a", &[], "").await?;
    ensure!(matches!(answer.status, 401 | 429), "{answer:?}");
    // Another one has their own.
    let other = stage.mesh.customer(1);
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(send(&other, Method::GET, "/a", &[], "").await?.status, expected);
    }
    let told = stage.mesh.metrics().await?;
    ensure!(
        told.lines().any(|line| line.starts_with(r#"perigee_shed_total{limit="file_rate"}"#) && !line.ends_with(" 0"))
    );
    Ok(())
}
