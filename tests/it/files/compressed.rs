//! Texts that are compressed on the wire.

use std::io::Write;

use anyhow::ensure;
use http::Method;
use tests::mesh::Shape;

use super::{Kind, OPEN, Stage};

scenarios!(texts_are_compressed_for_who_accepts_it);

/// What `gzip` makes of compressed bytes.
fn plain(coded: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(coded)?;
    let output = std::process::Command::new("gzip").args(["-dc"]).stdin(file.reopen()?).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(output.stdout)
}

async fn texts_are_compressed_for_who_accepts_it(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let text = "a line of a text\n".repeat(50_000);
    let made = stage.send(Method::PUT, "/a.txt", &[], text.clone()).await?;
    let etag = made.header("etag").to_owned();
    let weak = format!("W/{etag}");
    let gzip = ("accept-encoding", "gzip, br");
    for method in [Method::GET, Method::HEAD] {
        let told = stage.send(method.clone(), "/a.txt", &[gzip], "").await?;
        let headers =
            ["content-encoding", "etag", "vary", "content-length", "accept-ranges"].map(|name| told.header(name));
        assert_eq!(headers, ["gzip", &weak, "Accept-Encoding", "", ""], "{method}");
        if method == Method::GET {
            ensure!(told.body.len() < text.len() / 20, "{}", told.body.len());
            ensure!(plain(&told.body)? == text.as_bytes());
        }
    }
    for (headers, status) in [
        (&[("accept-encoding", "br")][..], 200),
        (&[], 200),
        (&[("accept-encoding", "gzip;q=0")], 200),
        (&[gzip, ("range", "bytes=0-5")], 206),
        (&[gzip, ("range", "bytes=0-5"), ("if-range", &etag)], 206),
    ] {
        let told = stage.send(Method::GET, "/a.txt", headers, "").await?;
        assert_eq!(
            (told.status, told.header("content-encoding"), told.header("vary")),
            (status, "", "Accept-Encoding")
        );
        assert_eq!(told.header("etag"), etag, "{headers:?}");
        ensure!(text.as_bytes().starts_with(&told.body), "{headers:?}");
    }
    for known in [&weak, &etag] {
        let told = stage.send(Method::GET, "/a.txt", &[gzip, ("if-none-match", known)], "").await?;
        assert_eq!((told.status, told.header("etag"), told.body.len()), (304, &*weak, 0), "{known}");
    }
    // What would not become smaller.
    let bytes = [("content-type", "application/octet-stream")];
    stage.send(Method::PUT, "/b.bin", &bytes, text.clone()).await?;
    stage.put("/short.txt", "short").await?;
    for path in ["/b.bin", "/short.txt"] {
        let told = stage.send(Method::GET, path, &[gzip], "").await?;
        assert_eq!(["content-encoding", "vary"].map(|name| told.header(name)), ["", ""], "{path}");
    }
    Ok(())
}
