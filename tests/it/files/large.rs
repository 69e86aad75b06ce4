//! Large files, and uploads that are broken off: processes of their own, which are measured and killed.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use http::Method;
use tests::{
    client::Client,
    mesh::ready,
    process::{Process, free_address},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{send, until};

/// Memory that a process may grow by for a file that is larger by far.
const GROWTH_BYTES: u64 = 24 << 20;

/// A gateway and storage as processes over a bucket, which is empty.
pub struct Pair {
    pub folder: Arc<tempfile::TempDir>,
    pub gateway: Process,
    pub storage: Process,
    pub client: Client,
}

impl Pair {
    pub async fn start() -> anyhow::Result<Self> {
        Self::over(Arc::new(tempfile::tempdir()?), "").await
    }

    /// Another one over the same data.
    pub async fn beside(&self) -> anyhow::Result<Self> {
        Self::over(self.folder.clone(), "2").await
    }

    /// In `folder`; `name` tells its files from those of others.
    async fn over(folder: Arc<tempfile::TempDir>, name: &str) -> anyhow::Result<Self> {
        let resources = folder.path().join("resources");
        std::fs::create_dir_all(&resources)?;
        let bucket = "kind: project\nmeta: { id: shop }\n---\nkind: bucket\nmeta: { project: shop, id: files }\nspec:\n  rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow }, delete: { rule: allow } }]\n";
        std::fs::write(resources.join("shop.yaml"), bucket)?;
        let (http, inner, storage) = (free_address()?, free_address()?, free_address()?);
        let config = |mesh: SocketAddr, peers: &str| {
            format!(
                "listen: {{ http: \"{http}\", mesh: \"{mesh}\" }}\n{peers}resources: {{ kind: folder, path: \"{}\" }}\ndata: \"{}\"\n",
                resources.display(),
                folder.path().join("data").display()
            )
        };
        let peers = format!("peers: {{ storage: [\"http://{storage}\"] }}\n");
        let services = ["gateway", "auth-rules", "crud", "realtime"];
        let gateway = Process::serve(folder.path(), &format!("gateway{name}"), &services, &config(inner, &peers))?;
        let storage = Process::serve(folder.path(), &format!("storage{name}"), &["storage"], &config(storage, ""))?;
        let client = Client::new(http, "shop");
        ready(&client).await?;
        Ok(Self { folder, gateway, storage, client })
    }

    pub fn bucket(&self) -> std::path::PathBuf {
        self.folder.path().join("data/objects/shop/files")
    }

    /// The most memory that each had so far.
    fn peak_memory(&self) -> anyhow::Result<[u64; 2]> {
        Ok([self.gateway.peak_memory()?, self.storage.peak_memory()?])
    }
}

/// Bytes of the file: 10 GB where `PROVE` is set.
fn size() -> u64 {
    match std::env::var_os("PROVE") {
        Some(_) => 10_000_000_000,
        None => 256_000_000,
    }
}

/// Ways that a large file goes up and down.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Http,
    /// A resumable upload in one request.
    Tus,
    Grpc,
}

impl Way {
    async fn up(self, client: &Client, path: &str, size: u64) -> anyhow::Result<()> {
        match self {
            Way::Http => upload(client.address(), ("PUT", &format!("/v1/api/shop/files{path}"), ""), size).await,
            Way::Tus => {
                let address = super::tus::begun(client, path, size).await?;
                let headers =
                    "tus-resumable: 1.0.0\r\nupload-offset: 0\r\ncontent-type: application/offset+octet-stream\r\n";
                upload(client.address(), ("PATCH", &address, headers), size).await
            }
            Way::Grpc => super::grpc::upload(client, path, (0..size.div_ceil(1 << 20)).map(sized(size))).await,
        }
    }

    /// The size of a file that was uploaded, which is compared with what was sent.
    async fn down(self, client: &Client, path: &str) -> anyhow::Result<u64> {
        match self {
            Way::Http | Way::Tus => download(client.address(), path).await,
            Way::Grpc => {
                let (mut size, mut whole) = (0, Vec::new());
                super::grpc::download(client, path, |data| {
                    size += data.len() as u64;
                    whole.extend_from_slice(&data);
                    while whole.len() >= 1 << 20 {
                        let rest = whole.split_off(1 << 20);
                        ensure!(whole == block((size - rest.len() as u64) / (1 << 20) - 1), "a block is another");
                        whole = rest;
                    }
                    Ok(())
                })
                .await?;
                Ok(size)
            }
        }
    }
}

/// Blocks of a file of `size` bytes, of which the last may be shorter.
fn sized(size: u64) -> impl Fn(u64) -> Vec<u8> {
    move |index| {
        let mut block = block(index);
        block.truncate(usize::try_from(size - (index << 20)).unwrap_or(usize::MAX));
        block
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_and_down_in_bounded_memory() -> anyhow::Result<()> {
    for way in [Way::Http, Way::Tus, Way::Grpc] {
        let pair = Pair::start().await?;
        // What a node has for files of any size, such as threads with their heaps and buffers of connections: for the first.
        for path in ["/first", "/second"] {
            way.up(&pair.client, path, 64_000_000).await?;
            assert_eq!(way.down(&pair.client, path).await?, 64_000_000);
        }
        let (before, size) = (pair.peak_memory()?, size());
        let began = Instant::now();
        way.up(&pair.client, "/large", size).await?;
        let up = began.elapsed();
        assert_eq!(std::fs::metadata(pair.bucket().join("large"))?.len(), size);
        let began = Instant::now();
        assert_eq!(way.down(&pair.client, "/large").await?, size);
        let down = began.elapsed();
        for (process, before) in [&pair.gateway, &pair.storage].into_iter().zip(before) {
            let peak = process.peak_memory()?;
            eprintln!("{way:?}: {size} bytes: up {up:?}, down {down:?}, memory {before} to at most {peak}");
            ensure!(peak < before + GROWTH_BYTES, "{way:?}: memory grew from {before} to {peak}");
        }
    }
    Ok(())
}

/// Zeroes with a count in front of each block.
pub fn block(index: u64) -> Vec<u8> {
    let mut block = vec![0; 1 << 20];
    block[..8].copy_from_slice(&index.to_le_bytes());
    block
}

/// Sends a request with a body of `size` bytes.
async fn upload(address: SocketAddr, (method, path, headers): (&str, &str, &str), size: u64) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {size}\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let (mut left, mut index) = (size, 0);
    while left > 0 {
        let block = block(index);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        socket.write_all(&block[..length]).await?;
        (left, index) = (left - length as u64, index + 1);
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    Ok(())
}

/// Reads a file that was uploaded, and compares it; its size.
async fn download(address: SocketAddr, path: &str) -> anyhow::Result<u64> {
    let mut socket = TcpStream::connect(address).await?;
    let head = format!("GET /v1/api/shop/files{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    let (mut size, mut index, mut buffer) = (0, 0, vec![0; 1 << 20]);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match socket.read(&mut buffer[filled..]).await? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(size);
        }
        ensure!(buffer[..filled] == block(index)[..filled], "block {index} is another");
        (size, index) = (size + filled as u64, index + 1);
    }
}

/// Kills storage, then the gateway, in the middle of uploads.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_leaves_nothing_that_is_seen() -> anyhow::Result<()> {
    let mut pair = Pair::start().await?;
    ensure!(send(&pair.client, Method::PUT, "/old", &[], "old").await?.status == 201);
    for round in 0..2 {
        for path in ["/old", "/new"] {
            let mut socket = TcpStream::connect(pair.client.address()).await?;
            let head = format!("PUT /v1/api/shop/files{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n");
            socket.write_all(head.as_bytes()).await?;
            for index in 0..8 {
                socket.write_all(&block(index)).await?;
            }
            until_there(&pair.bucket().join(".perigee/uploads"), true).await?;
            match round {
                0 => {
                    pair.storage.kill()?;
                    pair.storage.restart()?;
                }
                _ => {
                    pair.gateway.kill()?;
                    pair.gateway.restart()?;
                    // Storage learns that its caller is gone.
                    until_there(&pair.bucket().join(".perigee/uploads"), false).await?;
                }
            }
            drop(socket);
            ready(&pair.client).await?;
            let names = std::fs::read_dir(pair.bucket())?.collect::<Result<Vec<_>, _>>()?;
            let names: Vec<_> =
                names.iter().map(std::fs::DirEntry::file_name).filter(|name| name != ".perigee").collect();
            assert_eq!(names, ["old"], "round {round}, {path}");
            // A gateway is ready before it has reached storage again.
            until(async || Ok(send(&pair.client, Method::GET, "/old", &[], "").await?.status != 503)).await?;
            let old = send(&pair.client, Method::GET, "/old", &[], "").await?;
            assert_eq!((old.status, &old.body[..]), (200, &b"old"[..]));
            assert_eq!(send(&pair.client, Method::GET, "/new", &[], "").await?.status, 404);
            clear(&pair.bucket().join(".perigee/uploads"))?;
        }
    }
    Ok(())
}

/// What a killed process leaves is swept later: the next round begins without.
fn clear(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Waits until a file is in `folder`, or none.
pub async fn until_there(folder: &Path, is_there: bool) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let count = std::fs::read_dir(folder).context("a folder of uploads")?.count();
        if (count > 0) == is_there {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{count} files in {}", folder.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
