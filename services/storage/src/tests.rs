//! Conformance of backends: each does the same with the same files, whatever keeps them.

mod parts;
mod resumable;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use mesh::Tasks;
use object_store::memory::InMemory;
use proto::storage::{EntriesDigest, Precondition};
use query::file::FilePath;

use crate::{
    Error,
    backend::Backend,
    list::PageRequest,
    local::Local,
    object::{Entry, Publication, Published},
    read::Parts,
    remote::Remote,
};

pub fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("the test names a sound path")
}

pub fn publication(at: &str) -> Publication {
    Publication {
        path: path(at),
        content_type: "text/plain".to_owned(),
        meta: "{\"k\":1}".to_owned(),
        precondition: None,
        needs_parent: false,
    }
}

async fn put(backend: &Backend, at: &str, content: &[u8]) -> Result<Published, Error> {
    let mut upload = backend.begin(Some(&path(at)), "text/plain", "{\"k\":1}").await?;
    for piece in content.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.publish(publication(at)).await
}

async fn read(backend: &Backend, at: &str, parts: Parts) -> Result<Vec<u8>, Error> {
    let (_, reader) = backend.read(&path(at)).await?;
    let pieces: Vec<Bytes> = reader.parts(parts).try_collect().await?;
    Ok(pieces.concat())
}

async fn places(backend: &Backend, folder: &str, recursive: bool) -> Vec<String> {
    let page = backend.list(&path(folder), PageRequest::all(1000, recursive)).await.expect("the folder is there");
    let place = |entry: Entry| match entry {
        Entry::File(file) => file.path,
        Entry::Folder { path, .. } => format!("{path}/"),
    };
    page.entries.into_iter().map(place).collect()
}

fn local(folder: &Path) -> Backend {
    Backend::Local(Local::open(folder).expect("a folder of the test"))
}

fn memory() -> Backend {
    Backend::Remote(Remote::with(Arc::new(InMemory::new()), "in/side", Tasks::default()))
}

/// Each backend, over an empty bucket.
pub async fn on_each<F: Future<Output = ()>>(run: impl Fn(Backend) -> F) {
    let folder = tempfile::tempdir().expect("a folder of the test");
    run(local(folder.path())).await;
    run(memory()).await;
}

#[tokio::test]
async fn a_file_is_kept_with_what_is_said_of_it() {
    on_each(|backend| async move {
        for size in [0, 1, 300_000, 12_000_000] {
            let content: Vec<u8> =
                (0..size).map(|index: u32| index.to_le_bytes()[1] ^ index.to_le_bytes()[0]).collect();
            let first = put(&backend, "/a/b", &content).await.expect("it can be written");
            let second = put(&backend, "/a/b", &content).await.expect("it can be written again");
            assert_eq!((first.file.size, second.created), (u64::from(size), false));
            assert_eq!(read(&backend, "/a/b", Parts::Whole).await.expect("it is there"), content);
            let Entry::File(file) = backend.info(&path("/a/b")).await.expect("it is there") else { panic!("a folder") };
            assert_eq!((file.content_type.as_str(), file.meta.as_str()), ("text/plain", "{\"k\":1}"));
            assert_eq!(file, second.file);
            assert!(!file.etag.is_empty() && file.modified_ms > 1_600_000_000_000, "{file:?}");
        }
        let parts = Parts::Some(vec![5..8, 0..2, 11_999_999..12_000_000]);
        let read = read(&backend, "/a/b", parts).await.expect("it is there");
        assert_eq!(read.len(), 6);
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder of the test");
    for backend in [local(folder.path()), memory()] {
        let mut upload = backend.begin(Some(&path("/a")), "text/plain", "").await.expect("it begins");
        for _ in 0..70 {
            upload.write(Bytes::from(vec![7; 100_000])).await.expect("it goes on");
        }
        drop(upload);
        assert!(matches!(backend.read(&path("/a")).await.map(drop), Err(Error::NotFound)));
        assert_eq!(places(&backend, "/", true).await, Vec::<String>::new());
    }
    let uploads = std::fs::read_dir(folder.path().join(".perigee/uploads")).expect("a folder of uploads");
    assert_eq!(uploads.count(), 0);
}

#[tokio::test]
async fn a_file_whose_path_comes_last_is_published_there() {
    on_each(|backend| async move {
        for size in [10, 7_000_000] {
            let mut upload = backend.begin(None, "text/plain", "{\"k\":1}").await.expect("it begins");
            upload.write(Bytes::from(vec![7; size])).await.expect("it goes on");
            upload.publish(publication("/x/late")).await.expect("it ends");
            assert_eq!(read(&backend, "/x/late", Parts::Whole).await.expect("it is there").len(), size);
        }
        assert_eq!(backend.sweep(0).await.expect("it can be swept"), 0);
        assert_eq!(places(&backend, "/", true).await, ["x/", "x/late"]);
    })
    .await;
}

#[tokio::test]
async fn preconditions_are_checked_as_the_file_is_published() {
    on_each(|backend| async move {
        let put = async |precondition: Precondition| {
            let mut upload = backend.begin(Some(&path("/a")), "text/plain", "").await?;
            upload.write(Bytes::from_static(b"x")).await?;
            let publication =
                Publication { precondition: Some(precondition), meta: String::new(), ..publication("/a") };
            upload.publish(publication).await
        };
        let absent = || Precondition { absent: true, ..Precondition::default() };
        let etag = |etag: &str| Precondition { etags: vec![etag.to_owned()], ..Precondition::default() };
        let present = || Precondition { present: true, ..Precondition::default() };
        assert!(matches!(put(present()).await, Err(Error::Precondition)));
        assert!(matches!(put(etag("x")).await, Err(Error::Precondition)));
        let first = put(absent()).await.expect("there is none");
        assert!(matches!(put(absent()).await, Err(Error::Precondition)));
        assert!(matches!(put(etag("x")).await, Err(Error::Precondition)));
        put(etag(&first.file.etag)).await.expect("it is that one");
        put(present()).await.expect("it is there");
        assert!(matches!(backend.delete_file(&path("/a"), Some(&etag("x"))).await, Err(Error::Precondition)));
    })
    .await;
}

#[tokio::test]
async fn of_many_that_create_one_file_one_does() {
    on_each(|backend| async move {
        let create = |index: u8| {
            let backend = backend.clone();
            async move {
                let mut upload = backend.begin(Some(&path("/one")), "text/plain", "").await?;
                upload.write(Bytes::from(vec![index; 10])).await?;
                let precondition = Some(Precondition { absent: true, ..Precondition::default() });
                upload.publish(Publication { precondition, meta: String::new(), ..publication("/one") }).await
            }
        };
        let made = futures::future::join_all((0..16).map(create)).await;
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn names_of_files_and_folders_do_not_meet() {
    on_each(|backend| async move {
        put(&backend, "/a/b", b"x").await.expect("it can be written");
        for at in ["/a", "/a/b/c"] {
            assert!(matches!(put(&backend, at, b"x").await, Err(Error::Conflict(_))), "{at}");
        }
        assert!(matches!(backend.make_folder(&path("/a/b"), false).await, Err(Error::Conflict(_))));
        assert!(matches!(backend.make_folder(&path("/a/b/c"), false).await, Err(Error::Conflict(_))));
        assert!(matches!(backend.read(&path("/a")).await.map(drop), Err(Error::IsFolder(_))));
        assert!(matches!(backend.delete_file(&path("/a"), None).await, Err(Error::IsFolder(_))));
        assert!(matches!(backend.read(&path("/")).await.map(drop), Err(Error::IsFolder(_))));
        backend.make_folder(&path("/e"), false).await.expect("it can be made");
        assert!(matches!(put(&backend, "/e", b"x").await, Err(Error::Conflict(_))));
        assert_eq!(backend.info(&path("/e")).await.map(|entry| matches!(entry, Entry::Folder { .. })).ok(), Some(true));
    })
    .await;
}

#[tokio::test]
async fn folders_are_listed_and_deleted_as_a_whole() {
    on_each(|backend| async move {
        for at in ["/a/b/c", "/a/b-d", "/a/b.e", "/ab", "/a/z/y/x"] {
            put(&backend, at, b"x").await.expect("it can be written");
        }
        backend.make_folder(&path("/a/empty/deep"), false).await.expect("it can be made");
        assert_eq!(places(&backend, "/", false).await, ["a/", "ab"]);
        assert_eq!(places(&backend, "/a", false).await, ["a/b-d", "a/b.e", "a/b/", "a/empty/", "a/z/"]);
        let all = ["a/b-d", "a/b.e", "a/b/", "a/b/c", "a/empty/", "a/empty/deep/", "a/z/", "a/z/y/", "a/z/y/x"];
        assert_eq!(places(&backend, "/a", true).await, all);
        assert!(matches!(backend.list(&path("/none"), PageRequest::all(1, false)).await, Err(Error::NoFolder)));
        assert!(backend.delete_folder(&path("/a"), &[]).await.expect("it can be deleted"));
        assert!(!backend.delete_folder(&path("/a"), &[]).await.expect("there is none"));
        assert_eq!(places(&backend, "/", true).await, ["ab"]);
    })
    .await;
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    on_each(|backend| async move {
        for folder in ["/f", "/f/m", "/f/m/n"] {
            for index in 0..7 {
                put(&backend, &format!("{folder}/{index}"), b"x").await.expect("it can be written");
            }
        }
        backend.make_folder(&path("/f/empty"), false).await.expect("it can be made");
        for recursive in [false, true] {
            let whole = places(&backend, "/f", recursive).await;
            for limit in 1..=25 {
                let (mut found, mut after) = (Vec::new(), String::new());
                loop {
                    let mut request = PageRequest::all(limit, recursive);
                    request.after = after;
                    let page = backend.list(&path("/f"), request).await.expect("the folder is there");
                    assert!(page.entries.len() <= limit);
                    found.extend(page.entries.into_iter().map(|entry| match entry {
                        Entry::File(file) => file.path,
                        Entry::Folder { path, .. } => format!("{path}/"),
                    }));
                    after = page.last;
                    if after.is_empty() {
                        break;
                    }
                }
                assert_eq!(found, whole, "{limit} at a time, recursive {recursive}");
            }
        }
    })
    .await;
}

/// More objects in a folder than are passed over one by one.
#[tokio::test]
async fn a_large_folder_is_one_entry_of_the_one_above() {
    let backend = memory();
    for index in 0..1200 {
        put(&backend, &format!("/a/big/{index}"), b"x").await.expect("it can be written");
    }
    put(&backend, "/a/c", b"x").await.expect("it can be written");
    assert_eq!(places(&backend, "/a", false).await, ["a/big/", "a/c"]);
}

#[tokio::test]
async fn a_file_that_is_moved_keeps_what_is_said_of_it() {
    let folder = tempfile::tempdir().expect("a folder of the test");
    let backend = local(folder.path());
    let first = put(&backend, "/a", b"text").await.expect("it can be written").file;
    let moved = backend.rename(&path("/a"), &publication("/b/c")).await.expect("it can be moved").expect("it is there");
    assert_eq!((moved.created, &moved.file.etag, &moved.file.meta), (true, &first.etag, &first.meta));
    assert!(matches!(backend.read(&path("/a")).await.map(drop), Err(Error::NotFound)));
}

#[tokio::test]
async fn a_folder_that_was_changed_since_it_was_judged_stays() {
    on_each(|backend| async move {
        for at in ["/d/a", "/d/e/b", "/f"] {
            put(&backend, at, b"x").await.expect("it can be written");
        }
        let page = backend.list(&path("/d"), PageRequest::everything()).await.expect("it is there");
        let mut digest = EntriesDigest::default();
        digest.add(&page.entries.into_iter().map(Into::into).collect::<Vec<_>>());
        let judged = digest.finish();
        put(&backend, "/d/e/new", b"x").await.expect("it can be written");
        assert!(matches!(backend.delete_folder(&path("/d"), &judged).await, Err(Error::Changed)));
        assert_eq!(places(&backend, "/", true).await, ["d/", "d/a", "d/e/", "d/e/b", "d/e/new", "f"]);
        backend.delete_file(&path("/d/e/new"), None).await.expect("it is there");
        assert!(backend.delete_folder(&path("/d"), &judged).await.expect("it is as it was"));
        assert_eq!(places(&backend, "/", true).await, ["f"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_left_of_uploads_is_swept_once_it_is_old() {
    let folder = tempfile::tempdir().expect("a folder of the test");
    let backend = local(folder.path());
    let own = folder.path().join(".perigee");
    std::fs::write(own.join("uploads/left"), "x").expect("a file of the test");
    std::fs::create_dir_all(own.join("deleted/left/deep")).expect("a folder of the test");
    std::fs::write(own.join("deleted/left/deep/x"), "x").expect("a file of the test");
    assert_eq!(backend.sweep(60_000).await.expect("it can be swept"), 0);
    assert_eq!(backend.sweep(0).await.expect("it can be swept"), 2);
    assert!(!own.join("uploads/left").exists() && !own.join("deleted/left").exists());
}

#[tokio::test]
async fn a_changed_file_of_the_disk_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder of the test");
    let backend = local(folder.path());
    put(&backend, "/a", b"sound").await.expect("it can be written");
    let file = folder.path().join("a");
    let modified = std::fs::metadata(&file).and_then(|data| data.modified()).expect("it is there");
    std::fs::write(&file, "wrong").expect("it can be written");
    let opened = std::fs::File::options().write(true).open(&file).expect("it can be opened");
    opened.set_modified(modified).expect("its time can be set");
    assert!(matches!(read(&backend, "/a", Parts::Whole).await, Err(Error::Damaged(_))));
    std::fs::write(&file, "of another program").expect("it can be written");
    assert_eq!(read(&backend, "/a", Parts::Whole).await.ok().as_deref(), Some(&b"of another program"[..]));
}
