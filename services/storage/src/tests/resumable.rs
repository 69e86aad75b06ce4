//! Conformance of backends: resumable uploads.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    backend::Appending,
    record::{self, OF_PATH_MAX, Record},
};

fn record(size: u64) -> Record {
    Record { path: "up/a".to_owned(), size, label: "as it was sent".to_owned(), ..Record::default() }
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// The upload, once the stream before has ended.
async fn resumed(backend: &Backend, is_checked: bool) -> Result<Appending, Error> {
    loop {
        match backend.resume_upload("upload", is_checked).await {
            Err(Error::Busy) => tokio::time::sleep(Duration::from_millis(1)).await,
            resumed => return resumed,
        }
    }
}

/// The upload with all that has come, to be published.
async fn complete(backend: &Backend) -> Appending {
    let append = resumed(backend, false).await.expect("it is there");
    append.keep().await.expect("it can be kept")
}

async fn published(append: Appending, at: &str) -> Result<Published, Error> {
    let publication = publication(at);
    append.joined(&publication).await?.publish(publication).await
}

async fn offset(backend: &Backend) -> u64 {
    backend.find_upload("upload").await.expect("it is there").offset
}

async fn write(append: &mut Appending, bytes: &[u8]) {
    for piece in bytes.chunks(200_000) {
        append.write(Bytes::copy_from_slice(piece)).await.expect("it can be written");
    }
}

/// 20 MB: some pieces of an object store.
#[tokio::test]
async fn an_upload_is_published_as_a_whole() {
    on_each(|backend| async move {
        let content = content(20_000_000);
        backend.begin_upload("upload", &record(20_000_000)).await.expect("it begins");
        for (from, to) in [(0, 3), (3, 9_000_000), (9_000_000, 9_000_001), (9_000_001, 20_000_000)] {
            let mut append = resumed(&backend, from == 3).await.expect("it is there");
            assert_eq!(append.offset(), from as u64);
            assert!(matches!(backend.resume_upload("upload", false).await, Err(Error::Busy)));
            write(&mut append, &content[from..to]).await;
            drop(append.keep().await.expect("it can be kept"));
            assert_eq!(offset(&backend).await, to as u64);
        }
        assert_eq!(places(&backend, "/", true).await, [""; 0], "nobody sees a part of it");
        let found = backend.find_upload("upload").await.expect("it is there");
        assert_eq!((found.record, found.is_published), (record(20_000_000), false));

        let (append, beginning) = complete(&backend).await.beginning().await.expect("bytes");
        assert_eq!(beginning, &content[..4096]);
        let published = published(append, "/up/a").await.expect("it can be published");
        assert_eq!((published.created, published.file.size), (true, 20_000_000));
        assert!(read(&backend, "/up/a", Parts::Whole).await.expect("it is there") == content);
        let found = backend.find_upload("upload").await.expect("it is remembered");
        assert_eq!((found.offset, found.is_published), (20_000_000, true));
        assert!(matches!(resumed(&backend, false).await.map(drop), Err(Error::NoUpload)));
        backend.drop_upload("upload").await.expect("it can be forgotten");
        assert!(matches!(backend.find_upload("upload").await, Err(Error::NoUpload)));
        assert_eq!(places(&backend, "/", true).await, ["up/", "up/a"]);
    })
    .await;
}

/// Streams of random lengths, each of which ends in its own way.
#[tokio::test]
async fn what_was_kept_stays_and_what_was_not_verified_goes() {
    let rounds = if std::env::var_os("PROVE").is_some() { 400 } else { 8 };
    on_each(|backend| async move {
        for seed in 0..rounds {
            let mut random = StdRng::seed_from_u64(seed);
            let content = content(random.random_range(0..30_000_000));
            backend.begin_upload("upload", &record(content.len() as u64)).await.expect("it begins");
            loop {
                let is_checked = random.random_bool(0.5);
                let mut append = resumed(&backend, is_checked).await.expect("it is there");
                let from = usize::try_from(append.offset()).expect("it is small");
                let to = random.random_range(from..=content.len().min(from + 12_000_000));
                write(&mut append, &content[from..to]).await;
                match random.random_range(0..3) {
                    0 => drop(append.keep().await.expect("it can be kept")),
                    1 if is_checked => append.discard().await.expect("it can be discarded"),
                    // As where its caller leaves, or the node is killed.
                    _ if is_checked => drop(append),
                    _ => {
                        drop(append);
                        drop(resumed(&backend, false).await.expect("it is there"));
                        assert_eq!(offset(&backend).await, to as u64, "seed {seed}");
                        continue;
                    }
                }
                let now = offset(&backend).await;
                assert!(now == from as u64 || now == to as u64, "seed {seed}: {from} to {to} is {now}");
                if now == content.len() as u64 {
                    break;
                }
            }
            let append = complete(&backend).await;
            published(append, "/up/a").await.expect("it can be published");
            assert!(read(&backend, "/up/a", Parts::Whole).await.expect("it is there") == content, "seed {seed}");
            backend.drop_upload("upload").await.expect("it can be forgotten");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_cannot_be_published_stays() {
    on_each(|backend| async move {
        put(&backend, "/up/a/b", b"x").await.expect("it can be written");
        backend.begin_upload("upload", &record(3)).await.expect("it begins");
        let mut append = resumed(&backend, false).await.expect("it is there");
        write(&mut append, b"abc").await;
        let append = append.keep().await.expect("it can be kept");
        assert!(matches!(published(append, "/up/a").await, Err(Error::Conflict(_))));
        let append = complete(&backend).await;
        assert_eq!(append.offset(), 3);
        published(append, "/up/c").await.expect("it can be published");
        assert_eq!(read(&backend, "/up/c", Parts::Whole).await.expect("it is there"), b"abc");
    })
    .await;
}

#[tokio::test]
async fn uploads_that_wait_for_a_day_are_void() {
    let folder = tempfile::tempdir().expect("a folder of the test");
    let backend = local(folder.path());
    backend.begin_upload("upload", &record(3)).await.expect("it begins");
    backend.sweep(0).await.expect("it can be swept");
    assert_eq!(offset(&backend).await, 0, "it is younger");
    let of = |name: &str| folder.path().join(".perigee/resumable").join(name);
    let before = std::time::SystemTime::now() - Duration::from_secs(24 * 3600 + 1);
    for name in ["upload", "upload.json"] {
        let file = std::fs::File::options().write(true).open(of(name)).expect("it is there");
        file.set_modified(before).expect("its time can be set");
    }
    assert!(matches!(backend.find_upload("upload").await, Err(Error::NoUpload)));
    backend.sweep(3_600_000).await.expect("it can be swept");
    assert!(!of("upload").exists() && !of("upload.json").exists());

    // A request without bytes has gone on with this one, and what came before it counts.
    backend.begin_upload("upload", &record(3)).await.expect("it begins");
    let mut append = resumed(&backend, false).await.expect("it is there");
    write(&mut append, b"ab").await;
    drop(append.keep().await.expect("it can be kept"));
    let file = std::fs::File::options().write(true).open(of("upload")).expect("it is there");
    file.set_modified(before).expect("its time can be set");
    backend.sweep(3_600_000).await.expect("it can be swept");
    let found = backend.find_upload("upload").await.expect("it is there");
    assert_eq!((found.offset, found.is_published), (2, false));
}

#[tokio::test]
async fn a_path_has_a_bounded_number_of_unfinished_uploads() {
    on_each(|backend| async move {
        let one = path("/up/a");
        let mut names = Vec::new();
        for _ in 0..OF_PATH_MAX {
            let name = record::name(&one, "");
            backend.begin_upload(&name, &record(0)).await.expect("it begins");
            names.push(name);
        }
        let begin = async || backend.begin_upload(&record::name(&one, ""), &record(0)).await;
        assert!(matches!(begin().await, Err(Error::TooManyUploads)));
        backend.begin_upload(&record::name(&path("/up/b"), ""), &record(0)).await.expect("it is of another path");

        backend.drop_upload(&names[0]).await.expect("it can be forgotten");
        begin().await.expect("there is room");
        let append = backend.resume_upload(&names[1], false).await.expect("it is there");
        published(append, "/up/a").await.expect("it can be published");
        begin().await.expect("there is room");
        assert!(matches!(begin().await, Err(Error::TooManyUploads)));
    })
    .await;
}

/// Two nodes over one object store: neither knows the streams of the other.
#[tokio::test]
async fn pieces_of_two_nodes_are_not_joined() {
    let store = Arc::new(InMemory::new());
    let [one, other] = [0, 1].map(|_| Backend::Remote(Remote::with(store.clone(), "", Tasks::default())));
    let content = content(9_000_000);
    one.begin_upload("upload", &record(9_000_000)).await.expect("it begins");
    let mut stale = resumed(&one, false).await.expect("it is there");
    write(&mut stale, &content[..1000]).await;
    let mut append = resumed(&other, false).await.expect("it is there");
    write(&mut append, &content).await;
    let append = append.keep().await.expect("it can be kept");
    drop(stale.keep().await.expect("it can be kept"));
    assert!(matches!(published(append, "/up/a").await, Err(Error::TakenOver)));
    assert_eq!(places(&other, "/", true).await, [""; 0]);

    let mut append = resumed(&other, false).await.expect("it is there");
    let from = usize::try_from(append.offset()).expect("it is small");
    assert_eq!(from, 1000);
    write(&mut append, &content[from..]).await;
    let append = append.keep().await.expect("it can be kept");
    published(append, "/up/a").await.expect("it can be published");
    assert!(read(&other, "/up/a", Parts::Whole).await.expect("it is there") == content);
}
