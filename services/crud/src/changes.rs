//! Change notifications: listeners of a table learn that transactions which changed it were committed, whoever ran them.
//!
//! One task per database reads what its capture tells, while there are listeners. A table is captured from its first
//! listener on, until nobody has listened for [`LINGER`] or the node stops. What a process left that was killed is
//! removed as late after the start.

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

use self::{
    source::ChangeSource,
    upkeep::{LINGER, LINGER_CHECK_INTERVAL, Upkeep},
};
use crate::{
    Error,
    store::{Changed, Store},
};

pub mod log;
mod source;
mod upkeep;

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
    store: Store,
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
    /// The notifications of `store`.
    pub fn new(store: &Store, tasks: &Tasks) -> Self {
        let stop = tasks.draining().child_token();
        let shared = HubShared { store: store.clone(), tables: Mutex::default(), wake: Notify::new() };
        let _end = stop.clone().drop_guard();
        let hub = Self { shared: Arc::new(shared), tasks: tasks.clone(), stop, _end };
        hub.shared.tables().is_followed = true;
        hub.follow(Upkeep::at_start());
        hub
    }

    /// Starts the task that tells listeners of changes. It ends its captures when the node begins to drain, and has no
    /// time for that where the node is dropped.
    fn follow(&self, mut upkeep: Upkeep) {
        let (shared, stop, dropped) = (self.shared.clone(), self.stop.clone(), self.tasks.stop().clone());
        let task = async move {
            let mut source = ChangeSource::new(&shared.store);
            let pruning = source.pruning();
            let following = Box::pin(async {
                tokio::select! {
                    () = shared.follow(&mut source, &mut upkeep) => {}
                    () = pruning => {}
                }
            });
            if stop.run_until_cancelled(following).await.is_none() {
                shared.fail(&Error::Unavailable("the database is closed".to_owned()));
                upkeep.end("triggers", source.release(&[])).await;
            }
        };
        self.tasks.spawn_until_drain("changes", async move {
            dropped.run_until_cancelled(Box::pin(task)).await;
        });
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
            self.follow(Upkeep::default());
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
    async fn follow(&self, source: &mut ChangeSource, upkeep: &mut Upkeep) {
        let mut unlistened = BTreeMap::new();
        loop {
            self.capture(source, upkeep, |progress| matches!(progress, CaptureProgress::Pending)).await;
            if !self.tables().progress.is_empty() {
                match source.changed().await {
                    Ok(Changed::Tables(changed)) => changed.iter().for_each(|table| self.tell(table)),
                    Ok(Changed::Any) => self.capture(source, upkeep, |_| true).await,
                    Err(error) => {
                        self.fail(&error);
                        upkeep.sweep_within(LINGER);
                    }
                }
            }
            self.release(source, upkeep, &mut unlistened).await;
            if upkeep.is_done() && self.is_done() {
                return;
            }
            tokio::time::sleep(READ_INTERVAL_MIN).await;
            tokio::select! {
                () = source.commit_after(), if self.has_listeners() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LINGER_CHECK_INTERVAL) => {}
            }
        }
    }

    /// Captures the tables whose progress `is_wanted`, and tells their listeners.
    async fn capture(
        &self,
        source: &mut ChangeSource,
        upkeep: &mut Upkeep,
        is_wanted: impl Fn(&CaptureProgress) -> bool + Send,
    ) {
        for table in self.captured(is_wanted) {
            upkeep.capturing();
            match source.capture(&table).await {
                Ok(()) => self.tell(&table),
                Err(error) => {
                    let Some(progress) = self.tables().progress.remove(&table) else { continue };
                    let is_refused = matches!(error, Error::Query(_));
                    match progress.send_replace(CaptureProgress::Failed(error)) {
                        // Triggers of a table that is there no longer are needed no longer.
                        CaptureProgress::Captured if is_refused => upkeep.sweep_within(Duration::ZERO),
                        // None were made. Another process may need those of other tables.
                        CaptureProgress::Pending if is_refused => {}
                        // Who listens tries again.
                        CaptureProgress::Pending | CaptureProgress::Captured | CaptureProgress::Failed(_) => {
                            upkeep.sweep_within(LINGER);
                        }
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

    /// Ends the capture of tables that nobody has listened to for long, and what else is due. `unlistened` has since when
    /// nobody has been seen to listen to a table.
    async fn release(
        &self,
        source: &mut ChangeSource,
        upkeep: &mut Upkeep,
        unlistened: &mut BTreeMap<String, Instant>,
    ) {
        let now = Instant::now();
        let mut has_lapsed = false;
        self.tables().progress.retain(|table, progress| {
            if progress.receiver_count() > 0 {
                unlistened.remove(table);
                return true;
            }
            let since = *unlistened.entry(table.clone()).or_insert(now);
            let stays = now.duration_since(since) < LINGER;
            if !stays {
                unlistened.remove(table);
                has_lapsed = true;
            }
            stays
        });
        if !has_lapsed && !upkeep.is_due(now) {
            return;
        }
        upkeep.release("triggers", source.release(&self.captured(|_| true))).await;
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
    use crate::store::sqlite::Sqlite;

    type Listener = Pin<Box<dyn Stream<Item = Result<(), Error>> + Send>>;

    fn file(folder: &Path) -> (ChangeHub, Connection) {
        let path = folder.join("file.db");
        let other = Connection::open(&path).unwrap();
        let schema = "PRAGMA journal_mode = WAL; CREATE TABLE album (id INT); CREATE TABLE track (id INT);";
        other.execute_batch(schema).unwrap();
        let tasks = Tasks::default();
        let store = Store::Sqlite(Sqlite::existing(&path, &tasks).unwrap());
        (ChangeHub::new(&store, &tasks), other)
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
    async fn a_table_whose_count_is_deleted_is_followed_still() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let mut album = listening(&hub, "album").await;

        other.execute_batch("DELETE FROM perigee_changes").unwrap();
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

    fn ours(other: &Connection) -> i64 {
        let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'perigee%'";
        other.query_row(ours, [], |row| row.get(0)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_left_is_removed_some_time_after_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        // As one that was killed.
        let Store::Sqlite(store) = &hub.shared.store else { panic!("it is a file") };
        store.capture("album").await.unwrap();
        store.capture("track").await.unwrap();
        assert_eq!(ours(&other), 7);

        let _track = listening(&hub, "track").await;
        tokio::time::sleep(2 * LINGER).await;
        assert_eq!(ours(&other), 4);
    }

    #[tokio::test]
    async fn a_table_that_is_refused_ends_no_capture_of_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        other.execute_batch("CREATE VIEW titles AS SELECT id FROM album").unwrap();
        let Store::Sqlite(store) = &hub.shared.store else { panic!("it is a file") };
        store.capture("track").await.unwrap();

        assert!(Box::pin(hub.listen("titles")).next().await.unwrap().is_err());
        let _album = listening(&hub, "album").await;
        assert_eq!(ours(&other), 7);
    }

    #[tokio::test]
    async fn a_table_of_that_name_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        other.execute_batch("CREATE TABLE perigee_changes (mine INT)").unwrap();

        let mut album = Box::pin(hub.listen("album"));
        let error = album.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(
            error,
            "changes of album cannot be followed: the database has another object called perigee_changes"
        );
        assert_eq!(album.next().await, None);
        drop(hub);
        assert_eq!(ours(&other), 1);
    }

    #[tokio::test]
    async fn a_table_that_is_renamed_keeps_no_trigger_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let mut album = listening(&hub, "album").await;

        other.execute_batch("ALTER TABLE album RENAME TO record").unwrap();

        let error = album.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "changes of album cannot be followed: expected a table, found nothing of that name");
        until(|| ours(&other) == 0).await;
        other.execute_batch("INSERT INTO record VALUES (1)").unwrap();
    }

    #[tokio::test]
    async fn a_node_that_stops_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, other) = file(folder.path());
        let _album = listening(&hub, "album").await;
        assert_eq!(ours(&other), 4);

        hub.tasks.finish().await;

        assert_eq!(ours(&other), 0);
    }

    async fn until(is_so: impl Fn() -> bool) {
        let reached = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
    }
}
