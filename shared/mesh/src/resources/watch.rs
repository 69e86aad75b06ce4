//! Watching a folder. It is looked at four times a second instead of waiting for the system's events: those do not
//! come from network and container mounts, and a look at a few dozen files costs less than a tenth of a millisecond.

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
use crate::{Board, State, Tasks};

const PART: &str = "resources";
const LOOK: Duration = Duration::from_millis(250);
/// A file that changed less than this ago is left alone for now: it may be half written.
const SETTLING: Duration = Duration::from_millis(100);
/// Looks after which a file that never settles is read all the same.
const PATIENCE: u32 = 2;
/// A file that was emptied less than this ago is left alone in any case: editors empty a file and then write it, and on
/// a busy disk it may take long to come to that.
const EMPTY: Duration = Duration::from_millis(600);

/// Loads a folder and goes on watching it. A change that is valid is in force within a second; one that is not changes
/// nothing and is told in the log and on the board, as part `resources`.
pub fn watch(
    folder: &Path,
    kinds: &'static [Kind],
    tasks: &Tasks,
    board: &Board,
) -> Result<Current, Vec<ResourceFault>> {
    let mut watcher = Watcher::new(folder.to_owned(), kinds);
    let snapshot = watcher.read()?;
    board.set(PART, State::Ready);
    let (sender, current) = watch::channel(Arc::new(snapshot));
    let (stop, board) = (tasks.stop().clone(), board.clone());
    tasks.spawn("resources", async move {
        let mut pause = LOOK;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let looked = tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let news = watcher.look();
                (watcher, news, began.elapsed())
            });
            // It fails only when the runtime ends.
            let Ok((back, news, took)) = looked.await else { return };
            watcher = back;
            // A huge folder must not keep a core busy.
            pause = LOOK.max(took * 20);
            if let Some(news) = news {
                announce(news, &sender, &board);
            }
        }
    });
    Ok(current)
}

fn announce(news: Result<Snapshot, Vec<ResourceFault>>, sender: &watch::Sender<Arc<Snapshot>>, board: &Board) {
    match news {
        Ok(snapshot) => {
            let changed = sender.send_if_modified(|current| {
                let is_new = **current != snapshot;
                if is_new {
                    *current = Arc::new(snapshot);
                }
                is_new
            });
            board.set(PART, State::Ready);
            tracing::info!(changed, documents = sender.borrow().documents.len(), "resources are in force");
        }
        Err(faults) => {
            for fault in &faults {
                tracing::error!(%fault, "resources are refused; those before stay in force");
            }
            let all: Vec<String> = faults.iter().map(ResourceFault::to_string).collect();
            board.set(PART, State::Failing(all.join("; ")));
        }
    }
}

struct Watcher {
    folder: PathBuf,
    kinds: &'static [Kind],
    /// Files outside the documents that the last reading depended on.
    others: Vec<PathBuf>,
    seen: Stamp,
    waited: u32,
    told: Vec<ResourceFault>,
}

impl Watcher {
    fn new(folder: PathBuf, kinds: &'static [Kind]) -> Self {
        Self { folder, kinds, others: Vec::new(), seen: Stamp::default(), waited: 0, told: Vec::new() }
    }

    /// What a change made of the folder; `None` if nothing changed, or not yet, or is as wrong as it was.
    fn look(&mut self) -> Option<Result<Snapshot, Vec<ResourceFault>>> {
        let stamp = Stamp::of(&self.folder, &self.others);
        if stamp == self.seen {
            return None;
        }
        if stamp.has_emptied_within(EMPTY) {
            return None;
        }
        if self.waited < PATIENCE && stamp.is_younger_than(SETTLING) {
            self.waited += 1;
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
            Err(faults) if faults == self.told => None,
            Err(faults) => {
                self.told.clone_from(&faults);
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
        self.waited = 0;
        if result.is_ok() {
            self.told.clear();
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

    async fn board_says(board: &Board, wanted: impl Fn(&State) -> bool) -> State {
        loop {
            let state = board.parts()[PART].clone();
            if wanted(&state) {
                return state;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_in_force_within_a_second_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, project("a")).unwrap();
        let (tasks, board) = (Tasks::default(), Board::default());
        let mut current = watch(folder.path(), &[REFUSING], &tasks, &board).unwrap();
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
            board_says(&board, |state| *state == State::Failing(why.to_owned())).await;
            assert_eq!(id(&current), "b");
        }

        fs::write(&file, project("b")).unwrap();
        board_says(&board, |state| *state == State::Ready).await;
        assert!(!current.has_changed().unwrap(), "what is in force did not change");
        tasks.finish().await;
    }

    #[test]
    fn a_broken_folder_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "kind: nothing\n").unwrap();
        let mut watcher = Watcher::new(folder.path().to_owned(), &[PROJECT]);
        let mut looked = || {
            watcher.waited = PATIENCE;
            watcher.look()
        };
        assert!(looked().is_some_and(|news| news.is_err()));
        assert!(looked().is_none());
        fs::write(folder.path().join("b.yaml"), project("b")).unwrap();
        assert!(looked().is_none(), "as wrong as before");
        fs::write(&file, project("a")).unwrap();
        assert!(looked().is_some_and(|news| news.is_ok()));
        fs::write(&file, "kind: nothing\n").unwrap();
        assert!(looked().is_some_and(|news| news.is_err()));
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
        assert!(watcher.look().is_some(), "a clock that is ahead says nothing about age");
        file.set_modified(SystemTime::now()).unwrap();
        assert!(watcher.look().is_none() || watcher.seen == Stamp::of(folder.path(), &watcher.others));
        file.set_modified(SystemTime::now() - SETTLING).unwrap();
        watcher.look();
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
        watcher.waited = PATIENCE;
        assert!(watcher.look().is_none());
        file.set_modified(SystemTime::now() - EMPTY).unwrap();
        assert!(watcher.look().is_some_and(|news| news.unwrap().documents.is_empty()));
    }

    #[tokio::test]
    async fn a_broken_folder_is_not_watched_at_all() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "kind: nothing").unwrap();
        assert!(watch(folder.path(), &[PROJECT], &Tasks::default(), &Board::default()).is_err());
    }
}
