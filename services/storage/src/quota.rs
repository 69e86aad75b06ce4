//! Quotas: how many bytes and files a project, a bucket and each folder that a rule captures may have.
//!
//! What a bucket has is counted once, and then kept up to date. Changes go on while it is counted: what is changed while a
//! page of it is listed is looked at by itself, so that every file counts once.

mod ledger;
mod locks;
mod tally;

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use mesh::{
    Tasks,
    telemetry::{Counter, FileUsage},
};
use query::{
    file::FilePath,
    resources::{Bucket as Spec, FileQuota},
};
use tokio::{
    sync::{Mutex, oneshot},
    time::Instant,
};

pub use self::ledger::Ledger;
use self::{
    ledger::{FileChange, FoundUploads, LedgerState, QuotaLimits, Refusal, Reserved, UPLOADS_MAX},
    locks::{PathLock, PathLocks, Touched, is_in},
    tally::{FolderQuota, Tally, Usage},
};
use crate::{
    Error,
    backend::Backend,
    list::{Page, PageRequest},
    object::Entry,
};

/// How long a change waits until a bucket is counted, and until others that are being made leave room or do not.
const WAIT: Duration = Duration::from_secs(10);

/// How often a bucket is counted again.
const COUNT_INTERVAL: Duration = Duration::from_secs(600);
/// How many times as long as a count takes there is none, at least.
const COUNT_REST: u32 = 20;
/// Unfinished uploads that are looked at at once.
const LOOKS: usize = 16;

/// What the bucket of an opened backend has, and how much it may have.
pub struct Account {
    ledger: Arc<Ledger>,
    /// Its number in the ledger.
    id: u64,
    locks: PathLocks,
    /// Held by who counts.
    counting: Mutex<()>,
    /// Whether a task counts until it is counted.
    is_followed: Arc<AtomicBool>,
    /// Before it is not counted again.
    counted_again: std::sync::Mutex<Option<Instant>>,
    tasks: Tasks,
    meters: QuotaMeters,
}

/// What quotas tell of a bucket.
pub struct QuotaMeters {
    /// What it has.
    pub usage: FileUsage,
    /// Changes that have no room.
    pub refused: Counter,
}

/// The turn of a task that counts; the next one may begin when it is dropped.
pub struct CountingTurn(Arc<AtomicBool>);

impl Drop for CountingTurn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.state().remove(self.id);
        // Others of the project may have waited for it.
        self.ledger.changed.notify_waiters();
    }
}

/// The quotas of a bucket; `None` where it has none.
fn limits(spec: &Spec, of_project: Option<FileQuota>) -> Option<QuotaLimits> {
    let folders = spec.rules.iter().filter_map(|rule| Some(FolderQuota::new(&rule.prefix, rule.quota?)));
    let limits = QuotaLimits { bucket: spec.limits.quota.unwrap_or_default(), folders: folders.collect() };
    let has_any = of_project.is_some() || spec.limits.quota.is_some() || !limits.folders.is_empty();
    has_any.then_some(limits)
}

/// What a change does to files.
pub enum Planned {
    /// They get so many bytes, or are gone.
    Files(Vec<(FilePath, Option<u64>)>),
    /// The file is moved.
    Move {
        /// Where it is.
        from: FilePath,
        /// Where it will be.
        to: FilePath,
    },
}

impl Planned {
    fn paths(&self) -> Vec<&FilePath> {
        match self {
            Planned::Files(files) => files.iter().map(|(path, _)| path).collect(),
            Planned::Move { from, to } => vec![from, to],
        }
    }

    /// Whether it can only free room.
    fn only_deletes(&self) -> bool {
        matches!(self, Planned::Files(files) if files.iter().all(|(_, after)| after.is_none()))
    }

    /// With the bytes that the files have now. The paths are locked.
    async fn measured(&self, backend: &Backend) -> Result<Vec<FileChange>, Error> {
        let mut changes = Vec::new();
        for path in self.paths() {
            let before = size_of(backend, path).await?;
            changes.push(FileChange { path: path.clone(), before, after: None });
        }
        let after: Vec<Option<u64>> = match self {
            Planned::Files(files) => files.iter().map(|(_, after)| *after).collect(),
            Planned::Move { .. } => vec![None, changes[0].before],
        };
        for (change, after) in changes.iter_mut().zip(after) {
            change.after = after;
        }
        Ok(changes)
    }
}

/// Reserved room for a change that is being made. Dropped, what is reserved is settled.
struct Entered {
    account: Arc<Account>,
    reserved: Reserved,
    changes: Vec<FileChange>,
    /// Whether the change was made.
    is_done: bool,
    /// Whether it is known what the files have now.
    is_measured: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !self.is_measured {
            // Nobody knows what has become of it. Of a file that is too large the next count tells.
            self.changes.iter_mut().for_each(|change| change.after = change.before.max(change.after));
        }
        self.account.state().settle(self.account.id, &self.reserved, &self.changes, self.is_done);
        self.account.tell();
    }
}

/// A change that is made now: nobody else changes its files, and it has room.
struct BegunChange {
    _lock: PathLock,
    entered: Option<Entered>,
}

impl BegunChange {
    async fn made<T>(self, backend: &Backend, change: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let done = change.await;
        if let Some(mut entered) = self.entered {
            entered.is_done = done.is_ok();
            entered.measure(backend).await;
        }
        done
    }
}

impl Account {
    /// An account in the ledger of its project, without any quota.
    pub fn new(ledger: Arc<Ledger>, tasks: Tasks, meters: QuotaMeters) -> Self {
        let id = ledger.state().add();
        let (locks, is_followed) = (PathLocks::default(), Arc::default());
        let (counting, counted_again) = (Mutex::default(), std::sync::Mutex::default());
        Self { ledger, id, locks, counting, is_followed, counted_again, tasks, meters }
    }

    /// The ledger of its project.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Sets the quotas of the bucket. What they are newly about has to be counted.
    pub fn limit(&self, spec: &Spec, of_project: Option<FileQuota>) {
        self.state().limit(self.id, limits(spec, of_project));
        self.ledger.changed.notify_waiters();
    }

    /// The bucket is there no longer, or has another backend.
    pub fn end(&self) {
        self.state().limit(self.id, None);
        self.ledger.changed.notify_waiters();
    }

    /// The turn to count until it is counted; `None` where another task has it.
    pub fn begin_counting(self: &Arc<Self>) -> Option<CountingTurn> {
        let is_followed = self.is_followed.swap(true, Ordering::AcqRel);
        (!is_followed).then(|| CountingTurn(self.is_followed.clone()))
    }

    /// Whether it is time to count it again: other nodes and programs may have changed files.
    pub fn is_due(&self) -> bool {
        let at = *self.counted_again.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_limits() && self.is_counted() && at.is_none_or(|at| Instant::now() >= at)
    }

    /// Whether there is a quota.
    pub fn has_limits(&self) -> bool {
        self.state().has_limits(self.id)
    }

    /// Whether all of it was counted; so where there is no quota.
    pub fn is_counted(&self) -> bool {
        self.state().is_counted(self.id)
    }

    /// Tells what the bucket has now, and those that wait for it.
    fn tell(&self) {
        let usage = self.state().usage(self.id);
        if let Some(Usage { bytes, files }) = usage {
            self.meters.usage.set(bytes, files);
        }
        self.ledger.changed.notify_waiters();
    }

    /// Whether a file is being changed.
    #[cfg(test)]
    fn is_busy(&self, path: &str) -> bool {
        self.locks.has(path)
    }

    fn state(&self) -> MutexGuard<'_, LedgerState> {
        self.ledger.state()
    }

    /// Counts what is in the bucket, page by page, while changes go on.
    pub async fn count(&self, backend: &Backend) -> Result<(), Error> {
        let _counting = self.counting.lock().await;
        let begin = Instant::now();
        let counted = Box::pin(self.counted_pages(backend)).await;
        if counted.is_err() {
            self.state().fail_count(self.id);
        }
        // Nobody watches any longer, wherever it has ended.
        self.locks.watched();
        let rest = COUNT_INTERVAL.max(begin.elapsed() * COUNT_REST);
        *self.counted_again.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + rest);
        self.tell();
        counted
    }

    async fn counted_pages(&self, backend: &Backend) -> Result<(), Error> {
        loop {
            let Some(count) = self.state().begin_count(self.id) else { return Ok(()) };
            let count = (self.id, count);
            if self.count_files(backend, count).await? {
                let uploads = unfinished(backend).await?;
                if self.state().end_count(count, uploads) {
                    return Ok(());
                }
            }
            // Quotas of other folders came into force meanwhile.
        }
    }

    /// Counts all files; whether the count was not given up.
    async fn count_files(&self, backend: &Backend, count: (u64, u64)) -> Result<bool, Error> {
        let (mut next, mut start) = (Some(PageRequest::everything()), String::new());
        while let Some(request) = next {
            self.locks.watch();
            let page = listed(backend, &FilePath::default(), request).await?;
            next = page.following();
            let last = next.is_some().then_some(page.last.as_str());
            let touched = self.state().count_page(count, files(&page), last, || self.locks.watched());
            let Some(touched) = touched else { return Ok(false) };
            Box::pin(self.count_touched(backend, count, (&start, last), touched)).await?;
            start.clone_from(&page.last);
        }
        Ok(true)
    }

    /// Counts what was changed while a page was listed, one after the other, as it is when nobody changes it.
    async fn count_touched(
        &self,
        backend: &Backend,
        count: (u64, u64),
        (start, last): (&str, Option<&str>),
        touched: Touched,
    ) -> Result<(), Error> {
        for folder in &touched.folders {
            let _lock = self.locks.folder(folder).await;
            let done = Touched { folders: vec![folder.clone()], ..Touched::default() };
            let is_above = |other: &String| other != folder && is_in(other, folder);
            let (path, mut next) = (FilePath::from_key(folder)?, Some(PageRequest::everything()));
            let mut found: Vec<(String, u64)> = Vec::new();
            while let Some(request) = next.filter(|_| !touched.folders.iter().any(is_above)) {
                let page = listed(backend, &path, request).await?;
                next = page.following();
                let on_page = files(&page).filter(|(path, _)| *path > start && last.is_none_or(|last| *path <= last));
                found.extend(on_page.map(|(path, bytes)| (path.to_owned(), bytes)));
            }
            let found = found.iter().map(|(path, bytes)| (path.as_str(), *bytes));
            self.state().count_pending(count, found, &done);
        }
        for file in &touched.files {
            if touched.folders.iter().any(|folder| is_in(folder, file)) {
                continue;
            }
            let _lock = self.locks.files(&[file.as_str()]).await;
            let found = size_of(backend, &FilePath::from_key(file)?).await?;
            let done = Touched { files: [file.clone()].into(), ..Touched::default() };
            let found = found.map(|bytes| (file.as_str(), bytes));
            self.state().count_pending(count, found.into_iter(), &done);
        }
        Ok(())
    }

    /// Waits until it is known what the quotas of these paths are about.
    async fn counted(&self, paths: &[&str]) -> Result<(), Error> {
        let counted = self.until(|| self.state().is_ready(self.id, paths).then_some(()));
        tokio::time::timeout(WAIT, counted).await.map_err(|_| Error::Uncounted)
    }

    async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.ledger.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = ready() {
                return found;
            }
            changed.await;
        }
    }

    /// Makes `attempt` until it has room, or has none even if all changes fail that are being made.
    async fn with_room<T>(&self, mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, Error> {
        let end = Instant::now() + WAIT;
        let attempted = self.until(|| match attempt() {
            Err(refusal) if refusal.may_fit && Instant::now() < end => None,
            attempted => Some(attempted),
        });
        let attempted = tokio::time::timeout_at(end, attempted).await;
        let attempted = attempted.unwrap_or_else(|_| attempt());
        attempted.map_err(|refusal| self.refusal(refusal.error))
    }

    fn refusal(&self, error: Error) -> Error {
        self.meters.refused.inc();
        error
    }

    /// Refuses a file of `size` bytes that has no room beside what is there, before any of it is taken in.
    pub async fn check_room(
        &self,
        backend: &Backend,
        (path, size): (&FilePath, u64),
        uploads: &[String],
    ) -> Result<(), Error> {
        if !self.has_limits() {
            return Ok(());
        }
        self.counted(&[path.as_str()]).await?;
        let changes = Planned::Files(vec![(path.clone(), Some(size))]).measured(backend).await?;
        let checked = self.state().check_room(self.id, &changes, uploads);
        checked.map_err(|error| self.refusal(error))
    }

    /// The most bytes that a file may have, by the quotas that are about it.
    pub fn size_limit(&self, path: &FilePath) -> Option<u64> {
        self.state().size_limit(self.id, path.as_str())
    }

    /// Holds room for an unfinished upload, which needs more from time to time: `bytes` tells how many it has.
    pub async fn hold_upload(&self, name: &str, path: &FilePath, bytes: impl Fn() -> Option<u64>) -> Result<(), Error> {
        if !self.has_limits() {
            return Ok(());
        }
        self.counted(&[path.as_str()]).await?;
        self.with_room(|| {
            // As many as there are when they are entered: several parts come at once.
            let mut state = self.state();
            state.hold_upload(self.id, name, path.as_str(), bytes())
        })
        .await
    }

    /// An unfinished upload that is held begins, or has begun.
    pub fn begin_upload(&self, name: &str, is_beginning: bool) {
        self.state().begin_upload(self.id, name, is_beginning);
    }

    /// An unfinished upload has no more than so many bytes, or has ended.
    pub fn shrink_upload(&self, name: &str, bytes: impl FnOnce() -> Option<u64>) {
        let mut state = self.state();
        state.shrink_upload(self.id, name, bytes());
        drop(state);
        self.tell();
    }

    /// Makes a change. `uploads` are the unfinished ones that it publishes. Once it begins it is made to its end, even where
    /// nobody waits for it; whoever leaves before changes nothing.
    ///
    /// Errors: what grows has no room; those of the change.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        backend: &Backend,
        (planned, uploads): (Planned, Vec<String>),
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let begun = Box::pin(self.begin_change(backend, &planned, &uploads)).await?;
        let (backend, change) = (backend.clone(), Box::pin(change));
        self.to_its_end(Box::pin(async move { begun.made(&backend, change).await })).await
    }

    /// Waits until nobody else changes the files and until there is room for them, which is reserved.
    async fn begin_change(
        self: &Arc<Self>,
        backend: &Backend,
        planned: &Planned,
        uploads: &[String],
    ) -> Result<BegunChange, Error> {
        let names: Vec<&str> = planned.paths().into_iter().map(FilePath::as_str).collect();
        loop {
            if !planned.only_deletes() {
                // Nothing is locked meanwhile: who counts may have to lock it.
                self.counted(&names).await?;
            }
            let lock = self.locks.files(&names).await;
            if !planned.only_deletes() && !self.state().is_ready(self.id, &names) {
                continue;
            }
            if !self.has_limits() {
                return Ok(BegunChange { _lock: lock, entered: None });
            }
            let changes = planned.measured(backend).await?;
            let reserved = self.with_room(|| self.state().reserve(self.id, &changes, uploads)).await?;
            let entered = Entered { account: self.clone(), reserved, changes, is_done: false, is_measured: false };
            return Ok(BegunChange { _lock: lock, entered: Some(entered) });
        }
    }

    /// Deletes a folder; whether there was one.
    pub async fn delete_folder(
        self: &Arc<Self>,
        backend: &Backend,
        path: &FilePath,
        judged: Vec<u8>,
    ) -> Result<bool, Error> {
        let (account, backend, path) = (self.clone(), backend.clone(), path.clone());
        let lock = self.locks.folder(path.as_str()).await;
        let deleted = async move {
            let _lock = lock;
            if !account.has_limits() {
                return backend.delete_folder(&path, &judged).await;
            }
            let count = account.state().current_count(account.id);
            let (all, seen) = account.sum(&backend, &path).await?;
            let deleted = backend.delete_folder(&path, &judged).await;
            let left = match &deleted {
                Ok(true) => Ok(Default::default()),
                // A part of it may be gone.
                Ok(false) | Err(_) => account.sum(&backend, &path).await,
            };
            if let Ok(left) = left {
                account.state().settle_folder((account.id, count), (&all, &seen), (&left.0, &left.1));
                account.tell();
            }
            deleted
        };
        self.to_its_end(Box::pin(deleted)).await
    }

    /// What is in a folder that is locked: all of it, and what who counts has seen.
    async fn sum(&self, backend: &Backend, folder: &FilePath) -> Result<(Tally, Tally), Error> {
        let (mut all, mut seen) = (Tally::default(), Tally::default());
        let mut next = Some(PageRequest::everything());
        while let Some(request) = next {
            let page = listed(backend, folder, request).await?;
            next = page.following();
            self.state().sum(self.id, files(&page), (&mut all, &mut seen));
        }
        Ok((all, seen))
    }

    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        self.tasks.spawn("storage: change of files", async move {
            // Whoever waited may have left.
            let _ = sender.send(work.await);
        });
        receiver.await.unwrap_or_else(|_| Err(Error::Backend("a change of a file ended early".to_owned())))
    }
}

impl Entered {
    /// Finds out what is there now, whatever has become of the change.
    async fn measure(&mut self, backend: &Backend) {
        for change in &mut self.changes {
            change.after = match size_of(backend, &change.path).await {
                Ok(found) => found,
                Err(_) if self.is_done => change.after,
                Err(_) => change.before.max(change.after),
            };
        }
        self.is_measured = true;
    }
}

/// Bytes of the file at `path`; `None` where there is none.
async fn size_of(backend: &Backend, path: &FilePath) -> Result<Option<u64>, Error> {
    match backend.size_of(path).await {
        Err(Error::NotFound | Error::NoFolder) => Ok(None),
        found => found,
    }
}

/// A page of a folder; an empty one where it is not there.
async fn listed(backend: &Backend, folder: &FilePath, request: PageRequest) -> Result<Page, Error> {
    match backend.list(folder, request).await {
        Err(Error::NotFound | Error::NoFolder) => Ok(Page::default()),
        page => page,
    }
}

fn files(page: &Page) -> impl Iterator<Item = (&str, u64)> {
    page.entries.iter().filter_map(|entry| match entry {
        Entry::File(file) => Some((file.path.as_str(), file.size)),
        Entry::Folder { .. } => None,
    })
}

/// The uploads of a bucket that are not published, and what they take.
async fn unfinished(backend: &Backend) -> Result<FoundUploads, Error> {
    let looked_at = stream::iter(backend.upload_names(|_| true).await?).map(|name| async move {
        let upload = match backend.find_upload(&name).await {
            // It has ended since, or is void.
            Err(Error::NoUpload) => return Ok(None),
            upload => upload?,
        };
        let bytes = match upload.record.in_parts {
            _ if upload.is_published => return Ok(None),
            true => backend.parts(&name).await?.iter().map(|part| part.size).sum(),
            false => upload.record.size,
        };
        Ok::<_, Error>(Some((name, upload.record.path, bytes)))
    });
    let found = looked_at.buffer_unordered(LOOKS).try_filter_map(|found| async { Ok(found) });
    Box::pin(found.take(UPLOADS_MAX)).try_collect().await
}

#[cfg(test)]
mod tests;
