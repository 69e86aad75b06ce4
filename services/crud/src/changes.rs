//! Change notifications: listeners of a table learn that transactions which changed it were committed, whoever ran them.
//!
//! One task per database reads what its capture tells, while there are listeners. A table is captured from its first
//! listener on, until nobody has listened for [`LINGER`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{Stream, stream};
use mesh::Tasks;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Error,
    store::{
        Store,
        sqlite::{
            Sqlite,
            changes::{Changed, Versions},
        },
    },
};

/// How long a table that nobody listens to stays captured: making triggers anew changes the schema.
const LINGER: Duration = Duration::from_secs(600);
/// How often tables that nobody listens to are looked for.
const LINGER_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Least time between two reads of the changes: what is committed meanwhile is told together.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(2);

/// Change notifications of one database. Dropped, it ends its listeners.
#[derive(Debug)]
pub struct ChangeHub {
    shared: Arc<HubShared>,
    tasks: Tasks,
    stop: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct HubShared {
    store: Sqlite,
    tables: Mutex<ListenedTables>,
    /// Another table is listened to.
    wake: Notify,
}

#[derive(Debug, Default)]
struct ListenedTables {
    /// By name; its receivers are its listeners.
    progress: BTreeMap<String, watch::Sender<CaptureProgress>>,
    is_followed: bool,
}

/// How far the capture of a table is.
#[derive(Debug, Clone)]
enum CaptureProgress {
    /// Not begun.
    Pending,
    /// Changes are told: each is a new version of this.
    Captured,
    /// It failed, or changes may have been missed.
    Failed(Error),
}

impl ChangeHub {
    /// The notifications of `store`; `None` where its engine has none.
    pub fn new(store: &Store, tasks: &Tasks) -> Option<Self> {
        let store = match store {
            Store::Sqlite(store) => store,
            Store::Postgres(_) => return None,
        };
        let stop = tasks.stop().child_token();
        let shared = HubShared { store: store.clone(), tables: Mutex::default(), wake: Notify::new() };
        let _end = stop.clone().drop_guard();
        Some(Self { shared: Arc::new(shared), tasks: tasks.clone(), stop, _end })
    }

    /// Changes of a table: an item once they are captured, and one for all that were committed since the item before.
    ///
    /// A read that begins after an item sees all that it tells of. An error is the last item.
    pub fn listen(&self, table: &str) -> impl Stream<Item = Result<(), Error>> + Send + use<> {
        let mut tables = self.shared.tables();
        let progress = tables.progress.entry(table.to_owned());
        let progress = progress.or_insert_with(|| watch::Sender::new(CaptureProgress::Pending));
        let mut listener = progress.subscribe();
        listener.mark_changed();
        if !std::mem::replace(&mut tables.is_followed, true) {
            let (shared, stop) = (self.shared.clone(), self.stop.clone());
            self.tasks.spawn("changes", async move {
                if stop.run_until_cancelled(shared.follow()).await.is_none() {
                    shared.fail(&Error::Unavailable("the database is closed".to_owned()));
                }
            });
        }
        drop(tables);
        self.shared.wake.notify_one();
        stream::unfold(Some(listener), |listener| async {
            let mut listener = listener?;
            loop {
                if listener.changed().await.is_err() {
                    return Some((Err(Error::Unavailable("the database is closed".to_owned())), None));
                }
                let progress = listener.borrow_and_update().clone();
                match progress {
                    CaptureProgress::Pending => {}
                    CaptureProgress::Captured => return Some((Ok(()), Some(listener))),
                    CaptureProgress::Failed(error) => return Some((Err(error), None)),
                }
            }
        })
    }
}

impl HubShared {
    /// Tells listeners of changes until nothing is captured any more.
    async fn follow(&self) {
        let mut versions = Versions::default();
        let mut unlistened: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            self.capture(|progress| matches!(progress, CaptureProgress::Pending)).await;
            match self.store.changes_since(&mut versions).await {
                Ok(Changed::Tables(changed)) => changed.iter().for_each(|table| self.tell(table)),
                Ok(Changed::Any) => self.capture(|_| true).await,
                Err(error) => self.fail(&error),
            }
            self.release(&mut unlistened).await;
            if self.is_done() {
                return;
            }
            tokio::time::sleep(READ_INTERVAL_MIN).await;
            tokio::select! {
                () = self.store.commit_after(&versions), if self.has_listeners() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LINGER_CHECK_INTERVAL) => {}
            }
        }
    }

    /// Captures the tables whose progress `is_wanted`, and tells their listeners.
    async fn capture(&self, is_wanted: impl Fn(&CaptureProgress) -> bool) {
        for table in self.captured(is_wanted) {
            match self.store.capture(&table).await {
                Ok(()) => self.tell(&table),
                Err(error) => {
                    if let Some(progress) = self.tables().progress.remove(&table) {
                        progress.send_replace(CaptureProgress::Failed(error));
                    }
                }
            }
        }
    }

    /// The tables whose progress `is_wanted`.
    fn captured(&self, is_wanted: impl Fn(&CaptureProgress) -> bool) -> Vec<String> {
        let tables = self.tables();
        let wanted = tables.progress.iter().filter(|(_, progress)| is_wanted(&progress.borrow()));
        wanted.map(|(table, _)| table.clone()).collect()
    }

    fn tell(&self, table: &str) {
        if let Some(progress) = self.tables().progress.get(table) {
            progress.send_replace(CaptureProgress::Captured);
        }
    }

    /// Ends all listeners.
    fn fail(&self, error: &Error) {
        for progress in std::mem::take(&mut self.tables().progress).into_values() {
            progress.send_replace(CaptureProgress::Failed(error.clone()));
        }
    }

    /// Ends the capture of tables that nobody has listened to for long; `unlistened` says since when they were seen so.
    async fn release(&self, unlistened: &mut BTreeMap<String, Instant>) {
        let now = Instant::now();
        let mut released = Vec::new();
        self.tables().progress.retain(|table, progress| {
            if progress.receiver_count() > 0 {
                unlistened.remove(table);
                return true;
            }
            let since = *unlistened.entry(table.clone()).or_insert(now);
            let stays = now.duration_since(since) < LINGER;
            if !stays {
                unlistened.remove(table);
                released.push(table.clone());
            }
            stays
        });
        if !released.is_empty()
            && let Err(error) = self.store.release(released).await
        {
            tracing::warn!(%error, cause = error.cause(), "triggers that nobody needs stay in the database");
        }
    }

    /// Whether nothing is captured any more; whoever listens next starts a task then.
    fn is_done(&self) -> bool {
        let mut tables = self.tables();
        tables.is_followed = !tables.progress.is_empty();
        !tables.is_followed
    }

    fn has_listeners(&self) -> bool {
        self.tables().progress.values().any(|progress| progress.receiver_count() > 0)
    }

    fn tables(&self) -> MutexGuard<'_, ListenedTables> {
        self.tables.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, pin::Pin};

    use futures::{FutureExt, StreamExt};
    use rusqlite::Connection;

    use super::*;

    type Listener = Pin<Box<dyn Stream<Item = Result<(), Error>> + Send>>;

    fn file(folder: &Path) -> (ChangeHub, Connection) {
        let path = folder.join("file.db");
        let other = Connection::open(&path).unwrap();
        let schema = "PRAGMA journal_mode = WAL; CREATE TABLE album (id INT); CREATE TABLE track (id INT);";
        other.execute_batch(schema).unwrap();
        let tasks = Tasks::default();
        let store = Store::Sqlite(Sqlite::existing(&path, &tasks).unwrap());
        (ChangeHub::new(&store, &tasks).unwrap(), other)
    }

    async fn listening(hub: &ChangeHub, table: &str) -> Listener {
        let mut listener: Listener = Box::pin(hub.listen(table));
        assert_eq!(listener.next().await, Some(Ok(())));
        settled(&mut listener).await;
        listener
    }

    /// Takes what is told of the capture itself, which is a change of the schema.
    async fn settled(listener: &mut Listener) {
        while tokio::time::timeout(Duration::from_millis(200), listener.next()).await.is_ok() {}
    }

    #[tokio::test]
    async fn listeners_of_a_table_are_told_of_its_changes_only() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let mut album = listening(&hub, "album").await;
        let mut again = listening(&hub, "album").await;
        let mut track = listening(&hub, "track").await;
        settled(&mut album).await;
        settled(&mut again).await;

        other.execute_batch("INSERT INTO album VALUES (1)").unwrap();

        assert_eq!(album.next().await, Some(Ok(())));
        assert_eq!(again.next().await, Some(Ok(())));
        other.execute_batch("INSERT INTO track VALUES (1)").unwrap();
        assert_eq!(track.next().await, Some(Ok(())));
        assert!(track.next().now_or_never().is_none(), "it was told once");
        assert!(album.next().now_or_never().is_none(), "it was told once");
    }

    #[tokio::test]
    async fn a_table_that_is_dropped_ends_its_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let mut album = listening(&hub, "album").await;

        other.execute_batch("DROP TABLE album").unwrap();

        let error = album.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "changes of album cannot be followed: expected a table, found nothing of that name");
        assert_eq!(album.next().await, None);
    }

    #[tokio::test]
    async fn a_table_that_is_made_anew_is_captured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let mut album = listening(&hub, "album").await;

        other.execute_batch("BEGIN; DROP TABLE album; CREATE TABLE album (id INT); COMMIT").unwrap();
        assert_eq!(album.next().await, Some(Ok(())));
        settled(&mut album).await;
        other.execute_batch("INSERT INTO album VALUES (1)").unwrap();
        assert_eq!(album.next().await, Some(Ok(())));
    }

    #[tokio::test]
    async fn a_database_that_is_closed_ends_its_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, _) = file(folder.path());
        let mut album = listening(&hub, "album").await;

        drop(hub);

        let error = album.next().await.unwrap().unwrap_err();
        assert_eq!(error, Error::Unavailable("the database is closed".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn triggers_are_removed_some_time_after_the_last_listener() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let triggers = || -> i64 {
            other.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'", [], |row| row.get(0)).unwrap()
        };
        let album = listening(&hub, "album").await;
        let track = listening(&hub, "track").await;
        assert_eq!(triggers(), 6);

        drop(album);
        tokio::time::sleep(LINGER / 2).await;
        assert_eq!(triggers(), 6);
        tokio::time::sleep(LINGER).await;
        assert_eq!(triggers(), 3);
        drop(track);
        tokio::time::sleep(2 * LINGER).await;
        assert_eq!(triggers(), 0);
        let _track = listening(&hub, "track").await;
        assert_eq!(triggers(), 3);
    }
}
