//! What the buckets of a project have, and how much they may have.
//!
//! What is there is settled. A change of files reserves what they grow by before it is made, and only where that fits;
//! what it frees is free once it was made. So changes at once never have more together than each of them may have.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt};
use query::{file::FilePath, resources::FileQuota};
use tokio::sync::Notify;

use super::{
    locks::Touched,
    tally::{FolderQuota, Tally, Usage},
};
use crate::{Error, record};

/// Most unfinished uploads of one creator in a bucket with quotas; all of those without a token are one.
const UPLOADS_OF_CREATOR_MAX: usize = 10_000;
/// How long other buckets of a project wait for one that is counted for the first time.
const COUNT_WAIT_MAX: Duration = Duration::from_secs(30);
/// Most unfinished uploads of a bucket with quotas.
pub(super) const UPLOADS_MAX: usize = 100_000;

/// The ledger of a project.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<LedgerState>,
    /// Tells that a bucket was counted, or that a change was made or has failed.
    pub(super) changed: Notify,
}

/// The state of a ledger.
#[derive(Default)]
pub struct LedgerState {
    /// Quota of the project.
    quota: Option<FileQuota>,
    accounts: BTreeMap<u64, Holdings>,
    next: u64,
}

/// How much a bucket may have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QuotaLimits {
    /// All of it.
    pub bucket: FileQuota,
    /// Folders, each of those that a prefix matches.
    pub folders: Vec<FolderQuota>,
}

/// A file that is changed: its bytes before and after; `None`: there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct FileChange {
    /// Its path.
    pub path: FilePath,
    /// Its bytes before.
    pub before: Option<u64>,
    /// Its bytes after.
    pub after: Option<u64>,
}

/// What a change has reserved.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reserved {
    room: Tally,
    /// The unfinished uploads that it publishes, whose room it has.
    uploads: Vec<(String, Unfinished)>,
}

/// An unfinished upload.
#[derive(Debug, Clone, PartialEq)]
struct Unfinished {
    path: String,
    bytes: u64,
    /// Nobody finds it in the bucket yet.
    is_beginning: bool,
}

/// Why a change has no room.
#[derive(Debug)]
pub struct Refusal {
    /// What is told of it.
    pub error: Error,
    /// Whether it had room if other changes that are being made now failed.
    pub may_fit: bool,
}

/// Whether what a bucket has is known.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    /// Not yet.
    Never,
    /// It could not be listed; others do not wait for it.
    Failed,
    Counted,
}

/// A bucket as it is now.
struct Holdings {
    /// `None`: there is no quota, and nothing is counted.
    limits: Option<QuotaLimits>,
    known: Known,
    /// Patterns of folders whose quota is newer than the last count.
    uncounted: HashSet<Arc<str>>,
    /// What is there.
    settled: Tally,
    /// What changes reserve that are being made.
    in_flight: Tally,
    /// Unfinished uploads, by name.
    uploads: HashMap<String, Unfinished>,
    /// All of these.
    of_uploads: Tally,
    /// Those whose files are being published, and whether they have ended meanwhile.
    publishing: HashMap<String, bool>,
    /// When it was first limited.
    limited_since: Option<Instant>,
    count: Option<Count>,
    counts: u64,
}

/// A count that goes on.
struct Count {
    id: u64,
    /// What comes after it was not listed yet; `None`: all was.
    place: Option<String>,
    /// The place before the last page.
    start: String,
    /// What was changed while the last page was listed: as far as it is on that page, it has to be looked at by itself.
    pending: Touched,
    found: Tally,
    /// Uploads that began, grew or ended meanwhile.
    touched: HashSet<String>,
}

/// Uploads that were found: name, path and bytes.
pub type FoundUploads = Vec<(String, String, u64)>;

impl Count {
    /// Whether a file counts already, as it was before the change that is made now.
    fn has_seen(&self, path: &str) -> bool {
        let is_listed = self.place.as_deref().is_none_or(|place| path <= place);
        is_listed && (path <= self.start.as_str() || !self.pending.has(path))
    }
}

/// A file in all folders that have quotas.
fn tally<'f>(folders: &[FolderQuota], files: impl Iterator<Item = (&'f str, u64)>) -> Tally {
    let mut tally = Tally::default();
    files.for_each(|(path, bytes)| tally.add_file(folders, path, bytes));
    tally
}

impl Holdings {
    fn folders(&self) -> &[FolderQuota] {
        self.limits.as_ref().map_or(&[], |limits| &limits.folders)
    }

    /// What unfinished uploads take; those that are not known take nothing.
    fn taken_by(&self, names: &[impl AsRef<str>]) -> Tally {
        let uploads = names.iter().filter_map(|name| self.uploads.get(name.as_ref()));
        tally(self.folders(), uploads.map(|upload| (upload.path.as_str(), upload.bytes)))
    }

    fn forget_upload(&mut self, name: &str) -> Option<Unfinished> {
        let taken = self.taken_by(&[name]);
        self.of_uploads.subtract(&taken);
        if let Some(count) = &mut self.count {
            count.touched.insert(name.to_owned());
        }
        self.uploads.remove(name)
    }

    fn note_upload(&mut self, name: &str, upload: Unfinished) {
        self.forget_upload(name);
        self.uploads.insert(name.to_owned(), upload);
        let taken = self.taken_by(&[name]);
        self.of_uploads.add(&taken);
    }

    /// Refuses a further upload where there are too many, or its creator has too many.
    fn check_uploads(&self, name: &str) -> Result<(), Refusal> {
        let creator = record::creator_of(name);
        let is_full = self.uploads.len() >= UPLOADS_MAX;
        let mut of_creator = self.uploads.keys().filter(|other| record::creator_of(other) == creator);
        match is_full || of_creator.nth(UPLOADS_OF_CREATOR_MAX - 1).is_some() {
            true => Err(Refusal { error: Error::ManyUnfinished, may_fit: false }),
            false => Ok(()),
        }
    }

    /// Sets other limits. Folders that had a quota before stay counted.
    fn limit(&mut self, limits: Option<QuotaLimits>) {
        if self.limits == limits {
            return;
        }
        self.limited_since = limits.as_ref().map(|_| self.limited_since.unwrap_or_else(Instant::now));
        let before: HashSet<Arc<str>> = self.folders().iter().map(|folder| folder.pattern.clone()).collect();
        self.limits = limits;
        let after: HashSet<Arc<str>> = self.folders().iter().map(|folder| folder.pattern.clone()).collect();
        if self.limits.is_none() {
            (self.known, self.settled) = (Known::Never, Tally::default());
            self.uploads.clear();
        }
        if before != after || self.limits.is_none() {
            // What was found so far is not of these folders.
            self.count = None;
        }
        self.uncounted.extend(after.difference(&before).cloned());
        self.uncounted.retain(|pattern| after.contains(pattern));
        self.settled.folders.retain(|(pattern, _), _| after.contains(pattern));
        self.measure_uploads();
    }

    fn measure_uploads(&mut self) {
        let uploads = self.uploads.values().map(|upload| (upload.path.as_str(), upload.bytes));
        self.of_uploads = tally(self.folders(), uploads);
    }

    /// Whether others of its project wait until it is counted: not for ever.
    fn is_waited_for(&self) -> bool {
        let is_new = self.limited_since.is_some_and(|since| since.elapsed() < COUNT_WAIT_MAX);
        self.limits.is_some() && self.known == Known::Never && is_new
    }

    /// Whether what the quotas of these paths are about is known.
    fn is_known(&self, paths: &[&str]) -> bool {
        let Some(limits) = &self.limits else { return true };
        let mut uncounted = limits.folders.iter().filter(|folder| self.uncounted.contains(&folder.pattern));
        self.known == Known::Counted && !uncounted.any(|folder| paths.iter().any(|path| folder.folder(path).is_some()))
    }

    /// Everything that counts, with or without what changes reserve that are being made.
    fn used(&self, of: impl Fn(&Tally) -> Usage, in_flight: bool) -> Usage {
        let used = of(&self.settled).plus(of(&self.of_uploads));
        if in_flight { used.plus(of(&self.in_flight)) } else { used }
    }
}

/// Refuses what grows over a quota of `whose`.
fn check(quota: &FileQuota, used: Usage, growth: Usage, whose: impl Fn() -> String) -> Result<(), Error> {
    let after = used.plus(growth);
    for (what, limit, after, growth) in [
        ("bytes", quota.bytes.map(|size| size.0), after.bytes, growth.bytes),
        ("files", quota.files, after.files, growth.files),
    ] {
        if let Some(limit) = limit.filter(|limit| after > *limit && growth > 0) {
            return Err(Error::Quota { what, limit, whose: whose() });
        }
    }
    Ok(())
}

impl Ledger {
    pub(super) fn state(&self) -> MutexGuard<'_, LedgerState> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the quota of the project.
    pub fn limit_project(&self, quota: Option<FileQuota>) {
        self.state().quota = quota;
        self.changed.notify_waiters();
    }
}

impl LedgerState {
    pub(super) fn add(&mut self) -> u64 {
        self.next += 1;
        let holdings = Holdings {
            limits: None,
            known: Known::Never,
            uncounted: HashSet::new(),
            settled: Tally::default(),
            in_flight: Tally::default(),
            uploads: HashMap::new(),
            of_uploads: Tally::default(),
            publishing: HashMap::new(),
            limited_since: None,
            count: None,
            counts: 0,
        };
        self.accounts.insert(self.next, holdings);
        self.next
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.accounts.remove(&id);
    }

    pub(super) fn limit(&mut self, id: u64, limits: Option<QuotaLimits>) {
        if let Some(holdings) = self.accounts.get_mut(&id) {
            holdings.limit(limits);
        }
    }

    pub(super) fn has_limits(&self, id: u64) -> bool {
        self.accounts.get(&id).is_some_and(|holdings| holdings.limits.is_some())
    }

    /// Whether all of a bucket with quotas was counted.
    pub(super) fn is_counted(&self, id: u64) -> bool {
        self.accounts.get(&id).is_none_or(|holdings| {
            holdings.limits.is_none() || holdings.known == Known::Counted && holdings.uncounted.is_empty()
        })
    }

    /// Whether it is known what the quotas of these paths are about. A bucket that could not be counted keeps no other
    /// one of its project waiting.
    pub(super) fn is_ready(&self, id: u64, paths: &[&str]) -> bool {
        let own = self.accounts.get(&id).is_none_or(|holdings| holdings.is_known(paths));
        let mut others = self.accounts.values();
        own && (self.quota.is_none() || !others.any(Holdings::is_waited_for))
    }

    /// The most bytes that a file may have.
    pub(super) fn size_limit(&self, id: u64, path: &str) -> Option<u64> {
        let limits = self.accounts.get(&id)?.limits.as_ref()?;
        let folders = limits.folders.iter().filter(|folder| folder.folder(path).is_some());
        let quotas = folders.map(|folder| folder.quota).chain([limits.bucket]).chain(self.quota);
        quotas.filter_map(|quota| quota.bytes).map(|size| size.0).min()
    }

    /// What changes of files grow by, beyond what the unfinished uploads take that are published by them.
    fn growth(&self, id: u64, files: &[FileChange], uploads: &[String]) -> Tally {
        let Some(holdings) = self.accounts.get(&id) else { return Tally::default() };
        let before = files.iter().filter_map(|file| Some((file.path.as_str(), file.before?)));
        let after = files.iter().filter_map(|file| Some((file.path.as_str(), file.after?)));
        let grown = tally(holdings.folders(), after).beyond(&tally(holdings.folders(), before));
        grown.beyond(&holdings.taken_by(uploads))
    }

    /// Refuses what has no room.
    fn check(&self, id: u64, growth: &Tally, in_flight: bool) -> Result<(), Error> {
        let holdings = self.accounts.get(&id);
        let Some((holdings, limits)) = holdings.and_then(|own| Some((own, own.limits.as_ref()?))) else {
            return Ok(());
        };
        check(&limits.bucket, holdings.used(|tally| tally.all, in_flight), growth.all, || "the bucket".to_owned())?;
        for (key, growth) in &growth.folders {
            let Some(folder) = limits.folders.iter().find(|folder| folder.pattern == key.0) else { continue };
            let used = holdings.used(|tally| tally.of(key), in_flight);
            check(&folder.quota, used, *growth, || format!("the folder /{}", key.1))?;
        }
        let Some(quota) = &self.quota else { return Ok(()) };
        let used = self.accounts.values().map(|other| other.used(|tally| tally.all, in_flight));
        check(quota, used.fold(Usage::default(), Usage::plus), growth.all, || "the project".to_owned())
    }

    fn refused(&self, id: u64, growth: &Tally) -> Result<(), Refusal> {
        self.check(id, growth, true).map_err(|error| {
            let may_fit = self.check(id, growth, false).is_ok();
            Refusal { error, may_fit }
        })
    }

    /// Refuses changes that have no room beside what is there.
    pub(super) fn check_room(&self, id: u64, files: &[FileChange], uploads: &[String]) -> Result<(), Error> {
        self.check(id, &self.growth(id, files, uploads), false)
    }

    /// Reserves what changes grow by.
    pub(super) fn reserve(&mut self, id: u64, files: &[FileChange], uploads: &[String]) -> Result<Reserved, Refusal> {
        let growth = self.growth(id, files, uploads);
        self.refused(id, &growth)?;
        let Some(holdings) = self.accounts.get_mut(&id) else { return Ok(Reserved::default()) };
        let mut reserved = Reserved { room: growth, uploads: Vec::new() };
        // Their room is the change's from now on: no other one has it too.
        reserved.room.add(&holdings.taken_by(uploads));
        for name in uploads {
            if let Some(upload) = holdings.forget_upload(name) {
                holdings.publishing.insert(name.clone(), false);
                reserved.uploads.push((name.clone(), upload));
            }
        }
        holdings.in_flight.add(&reserved.room);
        Ok(reserved)
    }

    /// Gives back what was reserved, and settles what is there now. Unfinished uploads whose files were not published go on.
    pub(super) fn settle(&mut self, id: u64, reserved: &Reserved, files: &[FileChange], is_published: bool) {
        let Some(holdings) = self.accounts.get_mut(&id) else { return };
        holdings.in_flight.subtract(&reserved.room);
        for (name, upload) in &reserved.uploads {
            let has_ended = holdings.publishing.remove(name).unwrap_or_default();
            if !is_published && !has_ended && holdings.limits.is_some() {
                holdings.note_upload(name, upload.clone());
            }
        }
        let Holdings { limits: Some(limits), settled, count, .. } = holdings else { return };
        let changed = |before: bool, seen: Option<&Count>| {
            let files = files.iter().filter(|file| seen.is_none_or(|count| count.has_seen(file.path.as_str())));
            let bytes = |file: &FileChange| if before { file.before } else { file.after };
            tally(&limits.folders, files.filter_map(|file| Some((file.path.as_str(), bytes(file)?))))
        };
        settled.add(&changed(false, None));
        settled.subtract(&changed(true, None));
        if let Some(count) = count {
            let (after, before) = (changed(false, Some(&*count)), changed(true, Some(&*count)));
            count.found.add(&after);
            count.found.subtract(&before);
        }
    }

    /// Sums up files: all of them, and those that who counts has seen.
    pub(super) fn sum<'f>(
        &self,
        id: u64,
        files: impl Iterator<Item = (&'f str, u64)>,
        (all, seen): (&mut Tally, &mut Tally),
    ) {
        let Some(holdings) = self.accounts.get(&id) else { return };
        for (path, bytes) in files {
            all.add_file(holdings.folders(), path, bytes);
            if holdings.count.as_ref().is_some_and(|count| count.has_seen(path)) {
                seen.add_file(holdings.folders(), path, bytes);
            }
        }
    }

    /// The number of the count that goes on.
    pub(super) fn current_count(&self, id: u64) -> Option<u64> {
        self.accounts.get(&id)?.count.as_ref().map(|count| count.id)
    }

    /// Settles what is in a folder: what [`LedgerState::sum`] told before, and what is left. Of a count that began since then
    /// nothing in the folder was seen.
    pub(super) fn settle_folder(
        &mut self,
        (id, count): (u64, Option<u64>),
        (all, seen): (&Tally, &Tally),
        left: (&Tally, &Tally),
    ) {
        let Some(holdings) = self.accounts.get_mut(&id) else { return };
        holdings.settled.add(left.0);
        holdings.settled.subtract(all);
        if let Some(own) = holdings.count.as_mut().filter(|own| Some(own.id) == count) {
            own.found.add(left.1);
            own.found.subtract(seen);
        }
    }

    /// Sets what an unfinished upload takes, which may begin with it. What it grows by must have room. `None`: it has ended.
    pub(super) fn hold_upload(&mut self, id: u64, name: &str, path: &str, bytes: Option<u64>) -> Result<(), Refusal> {
        let Some(bytes) = bytes else { return Err(Refusal { error: Error::NoUpload, may_fit: false }) };
        let Some(holdings) = self.accounts.get(&id).filter(|holdings| holdings.limits.is_some()) else {
            return Ok(());
        };
        if holdings.publishing.contains_key(name) {
            return Ok(());
        }
        let known = holdings.uploads.get(name);
        if known.is_none() {
            holdings.check_uploads(name)?;
        }
        let is_beginning = known.is_some_and(|upload| upload.is_beginning);
        let growth = tally(holdings.folders(), [(path, bytes)].into_iter()).beyond(&holdings.taken_by(&[name]));
        self.refused(id, &growth)?;
        if let Some(holdings) = self.accounts.get_mut(&id) {
            holdings.note_upload(name, Unfinished { path: path.to_owned(), bytes, is_beginning });
        }
        Ok(())
    }

    /// An unfinished upload that is held begins, or has begun: until then nobody finds it in the bucket.
    pub(super) fn begin_upload(&mut self, id: u64, name: &str, is_beginning: bool) {
        let Some(holdings) = self.accounts.get_mut(&id) else { return };
        if let Some(upload) = holdings.uploads.get(name).cloned() {
            holdings.note_upload(name, Unfinished { is_beginning, ..upload });
        }
    }

    /// An unfinished upload has ended, or has no more than so many bytes.
    pub(super) fn shrink_upload(&mut self, id: u64, name: &str, bytes: Option<u64>) {
        let Some(holdings) = self.accounts.get_mut(&id) else { return };
        let Some(bytes) = bytes else {
            match holdings.publishing.get_mut(name) {
                Some(has_ended) => *has_ended = true,
                None => drop(holdings.forget_upload(name)),
            }
            return;
        };
        if let Some(upload) = holdings.uploads.get(name).cloned() {
            holdings.note_upload(name, Unfinished { bytes: bytes.min(upload.bytes), ..upload });
        }
    }

    /// Begins a count; its number.
    pub(super) fn begin_count(&mut self, id: u64) -> Option<u64> {
        let holdings = self.accounts.get_mut(&id).filter(|holdings| holdings.limits.is_some())?;
        holdings.counts += 1;
        holdings.count = Some(Count {
            id: holdings.counts,
            place: Some(String::new()),
            start: String::new(),
            pending: Touched::default(),
            found: Tally::default(),
            touched: HashSet::new(),
        });
        Some(holdings.counts)
    }

    fn count(&mut self, id: u64, count: u64) -> Option<(&QuotaLimits, &mut Count)> {
        let Holdings { limits: Some(limits), count: known, .. } = self.accounts.get_mut(&id)? else { return None };
        let known = known.as_mut().filter(|known| known.id == count)?;
        Some((&*limits, known))
    }

    /// Counts the files of a page that ends at a place, without those that were changed while it was listed; these, as far
    /// as they can be on the page. `None`: the count has been given up.
    ///
    /// `touched` ends to watch, so that every change is either one of these or comes after the page.
    pub(super) fn count_page<'f>(
        &mut self,
        (id, count): (u64, u64),
        files: impl Iterator<Item = (&'f str, u64)>,
        last: Option<&str>,
        touched: impl FnOnce() -> Touched,
    ) -> Option<Touched> {
        let (limits, count) = self.count(id, count)?;
        let mut touched = touched();
        count.start = count.place.take()?;
        touched
            .files
            .retain(|path| path.as_str() > count.start.as_str() && last.is_none_or(|last| path.as_str() <= last));
        for (path, bytes) in files.filter(|(path, _)| !touched.has(path)) {
            count.found.add_file(&limits.folders, path, bytes);
        }
        count.place = last.map(str::to_owned);
        count.pending = touched.clone();
        Some(touched)
    }

    /// Counts what is pending, as it was found by who has locked it: the files `of` a page.
    pub(super) fn count_pending<'f>(
        &mut self,
        (id, count): (u64, u64),
        files: impl Iterator<Item = (&'f str, u64)>,
        done: &Touched,
    ) {
        let Some((limits, count)) = self.count(id, count) else { return };
        files.for_each(|(path, bytes)| count.found.add_file(&limits.folders, path, bytes));
        count.pending.files.retain(|path| !done.has(path));
        count.pending.folders.retain(|folder| !done.has(folder));
    }

    /// Ends a count: what was found is what there is. Uploads that nothing has become of meanwhile are those that were found.
    pub(super) fn end_count(&mut self, (id, count): (u64, u64), uploads: FoundUploads) -> bool {
        if self.count(id, count).is_none() {
            return false;
        }
        let Some(holdings) = self.accounts.get_mut(&id) else { return false };
        let Some(Count { found, touched, .. }) = holdings.count.take() else { return false };
        (holdings.settled, holdings.known) = (found, Known::Counted);
        holdings.uncounted.clear();
        holdings.uploads.retain(|name, upload| touched.contains(name) || upload.is_beginning);
        for (name, path, bytes) in uploads {
            let is_known = touched.contains(&name) || holdings.publishing.contains_key(&name);
            if !is_known && holdings.uploads.len() < UPLOADS_MAX {
                holdings.uploads.insert(name, Unfinished { path, bytes, is_beginning: false });
            }
        }
        holdings.measure_uploads();
        true
    }

    /// Gives up a count: the bucket cannot be listed.
    pub(super) fn fail_count(&mut self, id: u64) {
        let Some(holdings) = self.accounts.get_mut(&id) else { return };
        holdings.count = None;
        if holdings.known == Known::Never {
            holdings.known = Known::Failed;
        }
    }

    /// What a bucket has, without what is being changed.
    pub(super) fn usage(&self, id: u64) -> Option<Usage> {
        let holdings = self.accounts.get(&id).filter(|holdings| holdings.known == Known::Counted)?;
        Some(holdings.used(|tally| tally.all, false))
    }
}

#[cfg(test)]
mod tests;
