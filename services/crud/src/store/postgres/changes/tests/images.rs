//! What is removed of the log of images.

use std::sync::Arc;

use proto::crud::ResyncReason;
use query::resources::Numbers;

use super::{super::images::ImageReader, *};
use crate::store::log::ImageWriter;

#[tokio::test]
async fn images_are_removed_in_batches_and_who_missed_them_learns_it() {
    let Some(server) = Server::with("images", "CREATE TABLE note (id int PRIMARY KEY, v text)").await else { return };
    let store = server.store();
    let schema = store.introspect(&[]).await.unwrap().schema;
    let writer = Arc::new(ImageWriter::of(schema.table("note").unwrap(), |_| ""));
    let (mut reader, mut late) = (ImageReader::default(), ImageReader::default());
    for reader in [&mut reader, &mut late] {
        store.capture_images(reader, "note", writer.clone()).await.unwrap();
    }
    server.execute("INSERT INTO note SELECT i, 'a' FROM generate_series(1, 15000) i").await;
    let mut told = 0;
    loop {
        let look = store.changed_images(&mut reader, Numbers::Exact).await.unwrap();
        assert_eq!(look.losses, []);
        told += look.parts.iter().map(|part| part.changes.len()).sum::<usize>();
        if !look.has_more {
            break;
        }
    }
    assert_eq!(told, 15_000);
    let limit = ServerSnapshot::from(reader.position().unwrap().seen);
    server.execute("UPDATE note SET v = 'b' WHERE id = 1").await;
    // Another process has its turn.
    let other = server.other().await;
    other.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8099000146718220901)").await.unwrap();
    assert_eq!(store.prune_image_batch(&limit, 0).await.unwrap(), None);
    other.batch_execute("COMMIT").await.unwrap();
    // What is before is not looked through.
    assert_eq!(store.prune_image_batch(&limit, limit.end).await.unwrap(), Some(0));
    assert_eq!(store.prune_image_batch(&limit, 0).await.unwrap(), Some(10_000));
    assert_eq!(store.prune_image_batch(&limit, 0).await.unwrap(), Some(5_000));
    let look = store.changed_images(&mut reader, Numbers::Exact).await.unwrap();
    assert_eq!((look.losses.len(), look.parts.len()), (0, 1), "{look:?}");
    let look = store.changed_images(&mut late, Numbers::Exact).await.unwrap();
    assert_eq!(look.losses[0].reason, ResyncReason::LogLost);
    assert_eq!(server.count("SELECT count(*) FROM perigee_changes.images").await, 1);
}
