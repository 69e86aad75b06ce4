//! Conformance of backends: uploads in parts, and lists by prefix as those ask for them who think in keys.

use proto::storage::ListRequest;

use super::*;
use crate::{
    cursor::CursorKeys,
    record::{Record, StoredPart},
};

fn record() -> Record {
    Record { path: "up/a".to_owned(), in_parts: true, ..Record::default() }
}

async fn put_part(backend: &Backend, number: u32, content: &[u8]) -> Published {
    let path = backend.part_path("upload", number);
    let mut upload = backend.begin(Some(&path), "application/octet-stream", "").await.expect("it begins");
    upload.write(Bytes::copy_from_slice(content)).await.expect("it can be written");
    let publication = Publication { path, meta: String::new(), ..publication("/x") };
    let published = upload.publish(publication).await.expect("it can be published");
    backend.touch_upload("upload").await.expect("it is there");
    published
}

fn numbers(parts: &[StoredPart]) -> Vec<(u32, u64)> {
    parts.iter().map(|part| (part.number, part.size)).collect()
}

#[tokio::test]
async fn parts_come_in_any_order_and_nobody_else_sees_them() {
    on_each(|backend| async move {
        backend.begin_upload("upload", &record()).await.expect("it begins");
        assert!(backend.find_upload("upload").await.expect("it is there").record.in_parts);
        for (number, content) in [(10_000, "last"), (2, "old"), (1, "first"), (2, "second")] {
            put_part(&backend, number, content.as_bytes()).await;
        }
        let parts = backend.parts("upload").await.expect("they are there");
        assert_eq!(numbers(&parts), [(1, 5), (2, 6), (10_000, 4)]);
        for part in &parts {
            let (file, _) = backend.read(&backend.part_path("upload", part.number)).await.expect("it is there");
            assert_eq!((&file.etag, file.size), (&part.etag, part.size), "what was listed is what is read");
        }
        assert!(places(&backend, "/", true).await.is_empty());

        assert_eq!(backend.sweep(3_600_000).await.expect("it can be swept"), 0);
        assert_eq!(backend.parts("upload").await.expect("they are there").len(), 3, "it still waits");
        backend.close_upload("upload").await.expect("it can be closed");
        assert!(backend.parts("upload").await.expect("there are none").is_empty());
        assert!(backend.find_upload("upload").await.expect("it is known").is_published);
        backend.drop_upload("upload").await.expect("it can be dropped");
        assert!(matches!(backend.find_upload("upload").await, Err(Error::NoUpload)));
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_no_part() {
    on_each(|backend| async move {
        backend.begin_upload("upload", &record()).await.expect("it begins");
        put_part(&backend, 1, b"first").await;
        backend.drop_upload("upload").await.expect("it can be dropped");
        assert!(backend.parts("upload").await.expect("there are none").is_empty());
        // One that was on its way comes after: in a folder, the sweep removes it.
        put_part(&backend, 2, b"late").await;
        backend.sweep(0).await.expect("it can be swept");
        if matches!(backend, Backend::Local(_)) {
            assert!(backend.parts("upload").await.expect("there are none").is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_begins_after_a_path_and_has_a_prefix() {
    on_each(|backend| async move {
        for at in ["/d/a.x", "/d/a/1", "/d/a/2", "/d/ab", "/d/b/c", "/e"] {
            put(&backend, at, b"x").await.expect("it can be written");
        }
        let found = async |prefix: &str, after: &str, recursive: bool| {
            let keys = CursorKeys::new(b"secret");
            let terms = query::file::FileTerms {
                project: "shop".to_owned(),
                bucket: "files".to_owned(),
                operation: query::file::FileOperation::List,
                path: Some(path("/d")),
                size: None,
                is_provisional: false,
                expires_ms: 0,
            };
            let request = ListRequest {
                limit: 10,
                recursive,
                files: true,
                folders: !recursive,
                prefix: prefix.to_owned(),
                after: after.to_owned(),
                ..ListRequest::default()
            };
            let request = PageRequest::new(request, &path("/d"), &keys.of(&terms))?;
            let page = backend.list(&path("/d"), request).await?;
            assert_eq!(page.last, "", "there is no next page");
            let names = page.entries.into_iter().map(|entry| match entry {
                Entry::File(file) => file.path,
                Entry::Folder { path, .. } => format!("{path}/"),
            });
            Ok::<_, Error>(names.collect::<Vec<_>>().join(" "))
        };
        for (prefix, after, recursive, expected) in [
            ("", "", true, "d/a.x d/a/1 d/a/2 d/ab d/b/c"),
            ("a", "", true, "d/a.x d/a/1 d/a/2 d/ab"),
            ("a", "", false, "d/a.x d/a/ d/ab"),
            ("ab", "", false, "d/ab"),
            ("b", "", false, "d/b/"),
            ("c", "", true, ""),
            ("", "a/1", true, "d/a/2 d/ab d/b/c"),
            ("a", "a/1", true, "d/a/2 d/ab"),
            ("", "a/", false, "d/ab d/b/"),
            ("a", "b", true, ""),
        ] {
            let told = found(prefix, after, recursive).await.expect("it is sound");
            assert_eq!(told, expected, "{prefix:?} {after:?} {recursive}");
        }
        for (prefix, after) in [("a/", ""), ("", "../e"), ("", "a/../../e"), ("", "/e")] {
            assert!(matches!(found(prefix, after, true).await, Err(Error::Malformed(_))), "{prefix:?} {after:?}");
        }
    })
    .await;
}
