//! Names that try to leave their bucket.

use std::{net::SocketAddr, os::unix::fs::symlink};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tests::mesh::Shape;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Kind, OPEN, Stage};

scenarios!(no_name_leaves_its_bucket, no_cursor_leaves_its_folder, links_are_not_followed);

/// Sends a request on a connection of its own; the answer as it came.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request).await?;
    let mut answer = Vec::new();
    // A server may close while the rest is still on its way.
    let _ = socket.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// More than 2,000 paths: traversal in every spelling, control characters, forms of Unicode, long and reserved names.
fn paths() -> Vec<Vec<u8>> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let dots = [
        "..",
        ".",
        "...",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "..%00",
        "%00..",
        "..;",
        "..%20",
        "%20..",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "%uff0e%uff0e",
        "%EF%BC%8E%EF%BC%8E",
        "%E2%80%A4%E2%80%A4",
        "..%5c",
        "..%5C..",
        "..%2f",
        "%2f..",
        "%2F",
        "%5c",
        "%5C",
        "..%255c",
        "%252f",
        "%c0%af",
        "..%c0%af..",
        "%e2%88%95",
        "%EF%BC%8F",
    ];
    segments.extend(dots.iter().map(|text| text.as_bytes().to_vec()));
    // Every byte, encoded, alone and inside of a name.
    for byte in 0..=255_u8 {
        segments.push(format!("%{byte:02x}").into_bytes());
        segments.push(format!("a%{byte:02X}b").into_bytes());
    }
    for bad in ["%", "%2", "%zz", "%-1", "%+f", "a%", "%%", "%25", "%2525"] {
        segments.push(bad.as_bytes().to_vec());
    }
    for text in [
        "e%CC%81",
        "%C3%A9",
        "%E1%84%80%E1%85%A1",
        "%F0%9F%98%80",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%EF%BB%BFa",
        "%E2%80%AEa",
        "%E2%84%AA",
        "%CD%BE",
    ] {
        segments.push(text.as_bytes().to_vec());
    }
    for name in [
        ".perigee",
        ".Perigee",
        ".perigee%2fuploads",
        ".perigee-x",
        "%2eperigee",
        ".%70erigee",
        ".perigee%00",
        "CON",
        "NUL",
        "con.txt",
        "a:b",
        "a*b",
        "a%3fb",
        "~",
        "~root",
        "-rf",
        "$HOME",
        "`id`",
        "|id",
        "a'b",
        "a%22b",
        ".git",
        ".htaccess",
        "a#1",
        "a%231",
    ] {
        segments.push(name.as_bytes().to_vec());
    }
    for length in [254, 255, 256, 1023, 1024, 1025, 4096] {
        segments.push(vec![b'x'; length]);
        segments.push("%C3%A9".repeat(length / 2).into_bytes());
    }
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for segment in &segments {
        for (before, after) in [("", ""), ("a/", ""), ("", "/etc/passwd"), ("a/b/", "/c")] {
            paths.push([before.as_bytes(), segment, after.as_bytes()].concat());
        }
    }
    for depth in 1..=24 {
        for up in ["../", "%2e%2e/", "..%2f", "..%5c", "....//", "..\\", "x/../../", "/../"] {
            paths.push(format!("{}etc/passwd", up.repeat(depth)).into_bytes());
        }
    }
    paths.extend([4096, 8192].map(|length| vec![b'/'; length]));
    paths.push("a/".repeat(600).into_bytes());
    paths
}

/// The status of each path by a method, over one connection after the other.
async fn statuses(
    address: SocketAddr,
    method: &str,
    query: &str,
    paths: &[Vec<u8>],
) -> anyhow::Result<Vec<(usize, u16)>> {
    let mut told = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let head = [
            format!("{method} /v1/api/shop/files/").as_bytes(),
            path,
            format!("{query} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx").as_bytes(),
        ]
        .concat();
        let answer = exchange(address, &head).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        told.push((index, status.with_context(|| format!("{}: {answer}", String::from_utf8_lossy(path)))?));
    }
    Ok(told)
}

async fn no_name_leaves_its_bucket(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let outside = stage.folder.path().join("secret");
    std::fs::write(&outside, "secret")?;
    let before = names_of(stage.folder.path())?;
    let (address, paths) = (stage.mesh.client.address(), paths());
    ensure!(paths.len() > 2000, "{}", paths.len());
    let own = names_of(&stage.local().join(".perigee"))?;
    for (method, query) in [("PUT", ""), ("GET", ""), ("GET", "?op=list"), ("DELETE", "")] {
        let told = statuses(address, method, query, &paths).await?;
        for (index, status) in told {
            let path = String::from_utf8_lossy(&paths[index]);
            ensure!((200..500).contains(&status), "{method} {path}: {status}");
            let is_traversal = ["..", "%2e%2e", "%2E%2e", ".%2e", "%2e."];
            if path.split('/').any(|segment| is_traversal.contains(&segment))
                || path.contains("%2f")
                || path.contains("%5c")
            {
                assert_eq!(status, 400, "{method} {path}");
            }
        }
    }
    assert_eq!(names_of(stage.folder.path())?, before, "nothing appeared beside the bucket");
    assert_eq!(names_of(&stage.local().join(".perigee"))?, own, "nor among its own files");
    assert_eq!(std::fs::read_to_string(outside)?, "secret");
    Ok(())
}

async fn no_cursor_leaves_its_folder(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    std::fs::write(stage.folder.path().join("secret"), "secret")?;
    ensure!(stage.put("/dir/own", "own").await?.status == 201);
    for place in ["../", "../a", "../../", "..//", "/", ".perigee/", ".perigee/uploads/", "dir/../../", "a"] {
        let cursor = URL_SAFE_NO_PAD.encode(place);
        for folder in ["/", "/dir"] {
            for recursive in ["true", "false"] {
                let path = format!("{folder}?op=list&recursive={recursive}&cursor={cursor}");
                let answer = stage.get(&path).await?;
                assert_eq!(answer.status, 400, "{place} {path}: {answer:?}");
            }
        }
    }
    Ok(())
}

fn names_of(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

async fn links_are_not_followed(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, OPEN).await?;
    let outside = stage.folder.path().join("outside");
    std::fs::create_dir_all(outside.join("deep"))?;
    std::fs::write(outside.join("secret"), "secret")?;
    let bucket = stage.local();
    ensure!(stage.put("/dir/own", "own").await?.status == 201);
    symlink(outside.join("secret"), bucket.join("file"))?;
    symlink(&outside, bucket.join("folder"))?;
    symlink(&outside, bucket.join("dir/inner"))?;
    symlink("../outside/secret", bucket.join("dir/relative"))?;
    symlink(bucket.join("dir/own"), bucket.join("dir/inside"))?;
    for path in ["/file", "/folder/secret", "/dir/inner/secret", "/dir/relative", "/dir/inside", "/folder"] {
        let answer = stage.get(path).await?;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert_eq!(stage.delete(path).await?.status, 404, "{path}");
    }
    for path in ["/folder?op=list", "/dir/inner?op=list", "/folder/deep?op=list"] {
        assert_eq!(stage.get(path).await?.status, 404, "{path}");
    }
    for path in ["/folder/new", "/dir/inner/new", "/folder/deep/new"] {
        assert_eq!(stage.put(path, "x").await?.status, 409, "{path}");
    }
    assert_eq!(stage.names("/dir?op=list").await?, ["own"]);
    // A file that is written takes the place of a link; what the link led to stays.
    assert_eq!(stage.put("/file", "x").await?.status, 201);
    assert_eq!(std::fs::read_to_string(outside.join("secret"))?, "secret");
    // So does what links in a deleted folder lead to.
    assert_eq!(stage.delete("/dir?fileType=dir").await?.status, 200);
    assert_eq!(names_of(&outside)?, ["deep", "secret"]);
    ensure!(!bucket.join("dir").exists());
    Ok(())
}
