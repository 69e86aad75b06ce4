//! Polling of a resource folder.
//!
//! File system events are not used: network and container mounts send none, and polling a few dozen files costs less
//! than a tenth of a millisecond.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Current, Kind, ResourceFault, Snapshot,
    folder::{self, Stamp},
};
use crate::{Component, ComponentState, Health, Tasks};

const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Age of a change below which a file is not read yet: it may be half written.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Polls after which a file that keeps changing is read all the same.
const SETTLE_ROUNDS: u32 = 2;
/// Age of a change below which an empty file is not read in any case: editors truncate a file before they write it, and
/// on a busy disk the write may take long.
const EMPTY_SETTLE_TIME: Duration = Duration::from_millis(600);

/// Loads a folder and goes on watching it. A change that is valid is in force within a second; one that is not changes
/// nothing and is reported in the log and as the state of [`Component::Resources`].
pub fn watch(
    folder: &Path,
    kinds: &'static [Kind],
    tasks: &Tasks,
    health: &Health,
) -> Result<Current, Vec<ResourceFault>> {
    let mut watcher = Watcher::new(folder.to_owned(), kinds);
    let snapshot = watcher.read()?;
    health.set(Component::Resources, ComponentState::Ready);
    let (sender, current) = watch::channel(Arc::new(snapshot));
    let (stop, health) = (tasks.stop().clone(), health.clone());
    tasks.spawn("resources", async move {
        let mut pause = POLL_INTERVAL;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let polled = tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let news = watcher.poll();
                (watcher, news, began.elapsed())
            });
            // It fails only when the runtime ends.
            let Ok((back, news, took)) = polled.await else { return };
            watcher = back;
            // A huge folder must not keep a core busy.
            pause = POLL_INTERVAL.max(took * 20);
            if let Some(news) = news {
                announce(news, &sender, &health);
            }
        }
    });
    Ok(current)
}

fn announce(news: Result<Snapshot, Vec<ResourceFault>>, sender: &watch::Sender<Arc<Snapshot>>, health: &Health) {
    match news {
        Ok(snapshot) => {
            let changed = sender.send_if_modified(|current| {
                let is_new = **current != snapshot;
                if is_new {
                    *current = Arc::new(snapshot);
                }
                is_new
            });
            health.set(Component::Resources, ComponentState::Ready);
            tracing::info!(changed, documents = sender.borrow().documents.len(), "resources are in force");
        }
        Err(faults) => {
            for fault in &faults {
                tracing::error!(%fault, "resources are refused; those before stay in force");
            }
            let all: Vec<String> = faults.iter().map(ResourceFault::to_string).collect();
            health.set(Component::Resources, ComponentState::Failing(all.join("; ")));
        }
    }
}

struct Watcher {
    folder: PathBuf,
    kinds: &'static [Kind],
    /// Files outside the documents that the last reading depended on.
    others: Vec<PathBuf>,
    seen: Stamp,
    /// Polls since the change that is waited for.
    settle_rounds: u32,
    /// Faults of the last reading, which are not reported again.
    reported: Vec<ResourceFault>,
}

impl Watcher {
    fn new(folder: PathBuf, kinds: &'static [Kind]) -> Self {
        Self { folder, kinds, others: Vec::new(), seen: Stamp::default(), settle_rounds: 0, reported: Vec::new() }
    }

    /// The snapshot after a change; `None` if nothing changed, the change has not settled, or its faults are reported.
    fn poll(&mut self) -> Option<Result<Snapshot, Vec<ResourceFault>>> {
        let stamp = Stamp::of(&self.folder, &self.others);
        if stamp == self.seen {
            return None;
        }
        if stamp.has_emptied_within(EMPTY_SETTLE_TIME) {
            return None;
        }
        if self.settle_rounds < SETTLE_ROUNDS && stamp.is_younger_than(SETTLE_TIME) {
            self.settle_rounds += 1;
            return None;
        }
        let read = self.read();
        if Stamp::of(&self.folder, &self.others) != self.seen {
            // A file was written while it was read: what was read may be a part of it.
            self.seen = Stamp::default();
            return None;
        }
        match read {
            Ok(snapshot) => Some(Ok(snapshot)),
            Err(faults) if faults == self.reported => None,
            Err(faults) => {
                self.reported.clone_from(&faults);
                Some(Err(faults))
            }
        }
    }

    fn read(&mut self) -> Result<Snapshot, Vec<ResourceFault>> {
        // Taken before reading: what changes meanwhile is read again.
        let before = Stamp::of(&self.folder, &self.others);
        let (result, others) = folder::read(&self.folder, self.kinds);
        self.seen = if others == self.others { before } else { Stamp::of(&self.folder, &others) };
        self.others = others;
        self.settle_rounds = 0;
        if result.is_ok() {
            self.reported.clear();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::{super::tests::PROJECT, *};

    const REFUSING: Kind = Kind { check: refuse_bad, ..PROJECT };

    fn project(id: &str) -> String {
        format!("kind: project\nmeta: {{ id: {id} }}\n")
    }

    fn refuse_bad(snapshot: &Snapshot) -> Vec<ResourceFault> {
        let bad = snapshot.documents.iter().filter(|document| document.meta["id"] == "bad");
        bad.map(|document| document.fault("meta.id", "is bad")).collect()
    }

    async fn wait_for(health: &Health, expected: impl Fn(&ComponentState) -> bool) -> ComponentState {
        loop {
            let state = health.get(&Component::Resources).unwrap();
            if expected(&state) {
                return state;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_in_force_within_a_second_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, project("a")).unwrap();
        let (tasks, health) = (Tasks::default(), Health::default());
        let mut current = watch(folder.path(), &[REFUSING], &tasks, &health).unwrap();
        let id = |current: &Current| current.borrow().documents[0].meta["id"].clone();

        let edited = tokio::time::Instant::now();
        fs::write(&file, project("b")).unwrap();
        current.changed().await.unwrap();
        assert_eq!(id(&current), "b");
        assert!(edited.elapsed() < Duration::from_secs(1));

        let broken = project("c") + "spec: { limits: 1 }\n";
        for (text, why) in [
            (broken, "a.yaml:3:9: spec.limits: expected list, found integer"),
            (project("bad"), "a.yaml:2:9: meta.id: is bad"),
        ] {
            fs::write(&file, text).unwrap();
            wait_for(&health, |state| *state == ComponentState::Failing(why.to_owned())).await;
            assert_eq!(id(&current), "b");
        }

        fs::write(&file, project("b")).unwrap();
        wait_for(&health, |state| *state == ComponentState::Ready).await;
        assert!(!current.has_changed().unwrap(), "what is in force did not change");
        tasks.finish().await;
    }

    #[test]
    fn a_broken_folder_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "kind: nothing\n").unwrap();
        let mut watcher = Watcher::new(folder.path().to_owned(), &[PROJECT]);
        let mut polled = || {
            watcher.settle_rounds = SETTLE_ROUNDS;
            watcher.poll()
        };
        assert!(polled().is_some_and(|news| news.is_err()));
        assert!(polled().is_none());
        fs::write(folder.path().join("b.yaml"), project("b")).unwrap();
        assert!(polled().is_none(), "as wrong as before");
        fs::write(&file, project("a")).unwrap();
        assert!(polled().is_some_and(|news| news.is_ok()));
        fs::write(&file, "kind: nothing\n").unwrap();
        assert!(polled().is_some_and(|news| news.is_err()));
    }

    #[test]
    fn a_file_that_just_changed_is_left_alone_for_now() {
        let folder = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new(folder.path().to_owned(), &[PROJECT]);
        watcher.read().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, project("a")).unwrap();
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
        assert!(watcher.poll().is_some(), "a clock that is ahead says nothing about age");
        file.set_modified(SystemTime::now()).unwrap();
        assert!(watcher.poll().is_none() || watcher.seen == Stamp::of(folder.path(), &watcher.others));
        file.set_modified(SystemTime::now() - SETTLE_TIME).unwrap();
        watcher.poll();
        assert_eq!(watcher.seen, Stamp::of(folder.path(), &watcher.others));
    }

    #[test]
    fn an_emptied_file_is_taken_for_one_that_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, project("a")).unwrap();
        let mut watcher = Watcher::new(folder.path().to_owned(), &[PROJECT]);
        watcher.read().unwrap();
        let file = fs::File::create(&path).unwrap();
        watcher.settle_rounds = SETTLE_ROUNDS;
        assert!(watcher.poll().is_none());
        file.set_modified(SystemTime::now() - EMPTY_SETTLE_TIME).unwrap();
        assert!(watcher.poll().is_some_and(|news| news.unwrap().documents.is_empty()));
    }

    #[tokio::test]
    async fn a_broken_folder_is_not_watched_at_all() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "kind: nothing").unwrap();
        assert!(watch(folder.path(), &[PROJECT], &Tasks::default(), &Health::default()).is_err());
    }
}
