//! Lists of folders of an object store: its objects and the marks of folders, read side by side in the order of places.

use futures::{StreamExt, stream::BoxStream};
use object_store::{Attributes, ObjectMeta, path::Path};
use query::file::FilePath;

use super::{MARK, OWN, Remote, file, marks};
use crate::{
    Error,
    list::{LOOKED_AT_MAX, Page, PageRequest, is_place},
    object::Entry,
};

/// Objects below a folder that are passed over one by one, before the store is asked for what comes after it.
const PASSED_OVER_MAX: usize = 500;
/// Comes after every text that a place can have.
const LAST: char = '\u{10ffff}';

/// Where an entry stands: its path in the listed folder, with a slash at its end if it is a folder.
type Place = String;

/// The page that `request` asks for.
pub async fn page(remote: &Remote, folder: &FilePath, request: &PageRequest) -> Result<Page, Error> {
    let mut objects = Scan::of(remote, Source::Objects, folder, request)?;
    let mut folders = Scan::of(remote, Source::Marks, folder, request)?;
    let (mut object, mut mark) = (objects.next().await?, folders.next().await?);
    let mut entries: Vec<Entry> = Vec::new();
    let (mut looked_at, mut last) = (0, String::new());
    loop {
        let is_mark_first = match (&object, &mark) {
            (None, None) => return Ok(Page { entries, last: String::new() }),
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((object, _)), Some((mark, _))) => mark < object,
        };
        let (place, found) = match is_mark_first {
            true => std::mem::replace(&mut mark, folders.next().await?),
            false => std::mem::replace(&mut object, objects.next().await?),
        }
        .unwrap_or_default();
        // What others named as no path of ours may be cannot be asked for.
        if place <= request.after || place == last || !is_place(folder, &place) {
            continue;
        }
        if request.ends_before(&place) {
            return Ok(Page { entries, last: String::new() });
        }
        if entries.len() == request.limit || looked_at >= LOOKED_AT_MAX {
            return Ok(Page { entries, last });
        }
        looked_at += 1 + std::mem::take(&mut objects.passed_over);
        if request.wants(&place) {
            let path = match folder.as_str() {
                "" => place.clone(),
                above => format!("{above}/{place}"),
            };
            entries.push(match found {
                Some(meta) => Entry::File(file(&path, &meta, &Attributes::new())),
                None => Entry::folder(path.trim_end_matches('/')),
            });
        }
        last = place;
    }
}

/// What is scanned.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Objects,
    Marks,
}

/// The entries below a folder that one kind of objects tells, in order.
struct Scan<'a> {
    remote: &'a Remote,
    source: Source,
    /// What locations begin with, a slash included; empty where it is the root of a store.
    prefix: String,
    is_root: bool,
    recursive: bool,
    stream: BoxStream<'static, object_store::Result<ObjectMeta>>,
    /// The folder whose other objects are passed over.
    passed: Option<Place>,
    passed_now: usize,
    passed_over: usize,
    /// Entries that come next, the last first.
    ready: Vec<(Place, Option<ObjectMeta>)>,
    /// The place before.
    before: Place,
}

impl<'a> Scan<'a> {
    fn of(remote: &'a Remote, source: Source, folder: &FilePath, request: &PageRequest) -> Result<Self, Error> {
        let key = match source {
            Source::Objects => folder.as_str().to_owned(),
            Source::Marks => marks(folder.as_str()),
        };
        let location = remote.location(&key)?;
        let prefix = match location.as_ref() {
            "" => String::new(),
            location => format!("{location}/"),
        };
        let mut scan = Self {
            remote,
            source,
            prefix,
            is_root: folder.is_root(),
            recursive: request.recursive,
            stream: futures::stream::empty().boxed(),
            passed: None,
            passed_now: 0,
            passed_over: 0,
            ready: Vec::new(),
            before: request.after.clone(),
        };
        let after = match source {
            Source::Objects => request.after.clone(),
            Source::Marks => request.after.split_inclusive('/').map(|segment| format!("d{segment}")).collect(),
        };
        match after.strip_suffix('/') {
            Some(folder) if !request.recursive => scan.restart(&format!("{folder}/{LAST}"))?,
            Some(folder) => scan.restart(folder)?,
            None => scan.restart(&after)?,
        }
        Ok(scan)
    }

    /// Goes on after a key below the prefix.
    fn restart(&mut self, after: &str) -> Result<(), Error> {
        let listed = Path::parse(&self.prefix).map_err(|error| Error::Malformed(error.to_string()))?;
        let listed = (!self.prefix.is_empty()).then_some(listed);
        self.stream = match after {
            "" => self.remote.store.list(listed.as_ref()),
            after => {
                let offset = Path::parse(format!("{}{after}", self.prefix));
                let offset = offset.map_err(|error| Error::Malformed(error.to_string()))?;
                self.remote.store.list_with_offset(listed.as_ref(), &offset)
            }
        };
        Ok(())
    }

    /// The next entry.
    async fn next(&mut self) -> Result<Option<(Place, Option<ObjectMeta>)>, Error> {
        loop {
            if let Some(ready) = self.ready.pop() {
                return Ok(Some(ready));
            }
            let Some(object) = self.stream.next().await.transpose()? else { return Ok(None) };
            let Some(key) = object.location.as_ref().strip_prefix(&self.prefix).map(str::to_owned) else { continue };
            if key.is_empty() || self.is_passed(&key)? {
                continue;
            }
            match self.source {
                Source::Objects => self.object(&key, object)?,
                Source::Marks => self.mark(&key),
            }
        }
    }

    /// Whether the key is below a folder that was told already.
    fn is_passed(&mut self, key: &str) -> Result<bool, Error> {
        let Some(folder) = self.passed.clone() else { return Ok(false) };
        if !key.starts_with(&folder) {
            (self.passed, self.passed_now) = (None, 0);
            return Ok(false);
        }
        self.passed_now += 1;
        self.passed_over += 1;
        if self.passed_now == PASSED_OVER_MAX {
            self.restart(&format!("{folder}{LAST}"))?;
            (self.passed, self.passed_now) = (None, 0);
        }
        Ok(true)
    }

    fn object(&mut self, key: &str, object: ObjectMeta) -> Result<(), Error> {
        if self.is_root && key.split('/').next() == Some(OWN) {
            return self.restart(&format!("{OWN}/{LAST}"));
        }
        match key.split_once('/') {
            Some((first, _)) if !self.recursive => {
                let place = format!("{first}/");
                self.passed = Some(place.clone());
                self.ready.push((place, None));
            }
            Some(_) | None => {
                // Folders that it is in, as far as they were not told with the object before.
                let above = key.match_indices('/').map(|(at, _)| &key[..=at]);
                let new =
                    above.filter(|folder| !self.before.starts_with(*folder)).map(|folder| (folder.to_owned(), None));
                let mut ready: Vec<_> = new.collect();
                ready.push((key.to_owned(), Some(object)));
                ready.reverse();
                self.ready = ready;
                key.clone_into(&mut self.before);
            }
        }
        Ok(())
    }

    /// The folder that a mark is of.
    fn mark(&mut self, key: &str) {
        let mut segments: Vec<&str> = key.split('/').collect();
        if segments.pop() != Some(MARK) && self.recursive {
            return;
        }
        let Some(names) = segments.iter().map(|segment| segment.strip_prefix('d')).collect::<Option<Vec<&str>>>()
        else {
            return;
        };
        match names.as_slice() {
            // The mark of the listed folder itself.
            [] => {}
            [first, ..] if !self.recursive => {
                self.passed = Some(format!("d{first}/"));
                self.ready.push((format!("{first}/"), None));
            }
            names => {
                // A folder is told with those that it is in.
                let places = (1..=names.len()).map(|count| format!("{}/", names[..count].join("/")));
                let mut ready: Vec<_> = places
                    .filter(|place| !self.before.starts_with(place.as_str()))
                    .map(|place| (place, None))
                    .collect();
                if let Some((last, _)) = ready.last() {
                    self.before.clone_from(last);
                }
                ready.reverse();
                self.ready = ready;
            }
        }
    }
}
