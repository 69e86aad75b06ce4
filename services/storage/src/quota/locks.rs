//! Which files and folders are being changed: changes of one path wait for each other, and for deletions above it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The files and folders of a bucket that are being changed. Clones are the same.
#[derive(Clone, Default)]
pub struct PathLocks {
    inner: Arc<LocksInner>,
}

#[derive(Default)]
struct LocksInner {
    state: Mutex<LocksState>,
    released: Notify,
}

#[derive(Default)]
struct LocksState {
    held: Touched,
    /// What is held since somebody began to watch, and what was.
    watched: Option<Touched>,
}

/// Files and folders. A folder stands for all that is in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Touched {
    /// Files.
    pub files: HashSet<String>,
    /// Folders.
    pub folders: Vec<String>,
}

/// Files, or a folder, that are locked until it is dropped.
pub struct PathLock {
    locks: PathLocks,
    held: Touched,
}

/// Whether a path is below a folder, or is it.
pub fn is_in(folder: &str, path: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Touched {
    /// Whether a path is one of them, or in one of them.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains(path) || self.folders.iter().any(|folder| is_in(folder, path))
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        for path in &self.held.files {
            state.held.files.remove(path);
        }
        state.held.folders.retain(|folder| !self.held.folders.contains(folder));
        drop(state);
        self.locks.inner.released.notify_waiters();
    }
}

impl PathLocks {
    fn state(&self) -> MutexGuard<'_, LocksState> {
        // No code panics while it holds this lock.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else changes these files or deletes a folder above one of them; all are locked in one step.
    pub async fn files(&self, paths: &[&str]) -> PathLock {
        self.until(|state| {
            let held = Touched { files: paths.iter().map(|path| (*path).to_owned()).collect(), folders: Vec::new() };
            paths.iter().all(|path| !state.held.has(path)).then_some(held)
        })
        .await
    }

    /// Waits until nobody else changes what is in a folder.
    pub async fn folder(&self, path: &str) -> PathLock {
        // Whoever comes after it waits, so that it need not wait for ever.
        let lock = self
            .until(|state| {
                let held = Touched { files: HashSet::new(), folders: vec![path.to_owned()] };
                let mut others = state.held.folders.iter();
                (!others.any(|other| is_in(other, path) || is_in(path, other))).then_some(held)
            })
            .await;
        self.wait(|state| (!state.held.files.iter().any(|file| is_in(path, file))).then_some(())).await;
        lock
    }

    /// Locks what `free` tells once it tells something.
    async fn until(&self, free: impl Fn(&LocksState) -> Option<Touched>) -> PathLock {
        let locked = |state: &mut LocksState| {
            let held = free(state)?;
            for touched in [Some(&mut state.held), state.watched.as_mut()].into_iter().flatten() {
                touched.files.extend(held.files.iter().cloned());
                touched.folders.extend(held.folders.iter().cloned());
            }
            Some(PathLock { locks: self.clone(), held })
        };
        self.wait(locked).await
    }

    async fn wait<T>(&self, mut ready: impl FnMut(&mut LocksState) -> Option<T>) -> T {
        loop {
            let mut released = std::pin::pin!(self.inner.released.notified());
            released.as_mut().enable();
            let found = ready(&mut self.state());
            if let Some(found) = found {
                return found;
            }
            released.await;
        }
    }

    /// Whether a path is locked.
    #[cfg(test)]
    pub fn has(&self, path: &str) -> bool {
        self.state().held.has(path)
    }

    /// Begins to watch: what is being changed now, and from now on.
    pub fn watch(&self) {
        let mut state = self.state();
        state.watched = Some(state.held.clone());
    }

    /// Ends to watch; what was changed since the beginning.
    pub fn watched(&self) -> Touched {
        let mut touched = self.state().watched.take().unwrap_or_default();
        touched.folders.sort_unstable();
        touched.folders.dedup();
        touched
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn changes_wait_for_those_of_the_same_paths_alone() {
        let locks = PathLocks::default();
        let first = locks.files(&["a/b", "c"]).await;
        assert!(locks.files(&["a/b"]).now_or_never().is_none() && locks.files(&["x", "c"]).now_or_never().is_none());
        let other = locks.files(&["a/c"]).now_or_never().expect("nobody has it");
        assert!(locks.files(&["x"]).now_or_never().is_some(), "one that had to wait holds nothing");
        let mut waiting = Box::pin(locks.files(&["a/b"]));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        waiting.await;
        drop(other);
        assert_eq!(locks.state().held, Touched::default());
    }

    #[tokio::test]
    async fn a_folder_waits_for_what_is_in_it_and_others_for_it() {
        let locks = PathLocks::default();
        let inside = locks.files(&["a/b/c"]).await;
        let beside = locks.folder("a/bc").now_or_never().expect("another folder");
        let mut folder = Box::pin(locks.folder("a/b"));
        assert!(folder.as_mut().now_or_never().is_none());
        assert!(locks.files(&["a/b/d"]).now_or_never().is_none(), "who comes later waits");
        assert!(locks.folder("a").now_or_never().is_none() && locks.folder("a/b/x").now_or_never().is_none());
        assert!(locks.files(&["a/x"]).now_or_never().is_some());
        drop(inside);
        let folder = folder.await;
        assert!(locks.files(&["a/b"]).now_or_never().is_none(), "a file in its place");
        drop((folder, beside));
        assert!(locks.folder("a").now_or_never().is_some());
        // One that gives up leaves nothing.
        let inside = locks.files(&["a/b/c"]).await;
        assert!(locks.folder("a").now_or_never().is_none());
        drop(inside);
        assert_eq!(locks.state().held, Touched::default());
    }

    #[tokio::test]
    async fn whoever_watches_learns_what_was_changed_meanwhile() {
        let locks = PathLocks::default();
        let before = locks.files(&["a"]).await;
        drop(locks.files(&["gone"]).await);
        locks.watch();
        drop(before);
        drop(locks.folder("d").await);
        let touched = locks.watched();
        assert!(touched.has("a") && touched.has("d/e") && touched.has("d"));
        assert!(!touched.has("gone") && !touched.has("de"));
        assert_eq!(locks.watched(), Touched::default());
    }
}
