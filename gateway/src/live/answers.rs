//! Shared answers: live queries that ask for the same with the same grants are answered by one read.
//!
//! Each is authorised by itself before. What tells queries apart is the project and its settings, the reads, and all terms of
//! the grants but their expiry: whoever joins would have read the same bytes.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::HashMap;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use proto::crud::Snapshot;

use super::may_pass;
use crate::edge::{ReadFault, ReadResult};

/// Bytes of answers that are kept for queries that ask a little later, of the whole node.
const KEPT_BYTES: usize = 16 << 20;

/// Hash of all that decides what a live query is answered.
pub type AnswerKey = blake3::Hash;

/// Answers that are shared, and reads that are under way.
#[derive(Debug, Default)]
pub struct SharedAnswers {
    places: Mutex<HashMap<AnswerKey, Place>>,
    kept_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Place {
    /// Live queries that ask for this.
    members: usize,
    /// The last read that was begun, as long as somebody waits for it.
    reading: Option<(Versions, WeakShared<Reading>)>,
    /// The last answer, where others may ask for it.
    last: Option<KeptAnswer>,
}

type Reading = BoxFuture<'static, Result<Arc<Answer>, ReadFault>>;

/// Numbers of the last events of the sources, in their order.
pub type Versions = Arc<[u64]>;

/// The answer to the reads of a live query.
#[derive(Debug)]
pub struct Answer {
    /// One for each read.
    pub results: Vec<ReadResult>,
    /// Hash of them.
    pub hash: blake3::Hash,
    /// What it saw of each database, where that was asked for.
    pub snapshots: Vec<(Arc<str>, Snapshot)>,
    /// The events that it has seen.
    pub versions: Versions,
}

#[derive(Debug)]
struct KeptAnswer {
    answer: Arc<Answer>,
    bytes: usize,
}

/// Place of a live query among those that ask for the same. Dropped, it leaves.
pub struct AnswerMember {
    answers: Arc<SharedAnswers>,
    /// What it asks for.
    pub key: AnswerKey,
}

/// What a live query wants of an answer.
pub struct Wanted {
    /// The events that it has to have seen.
    pub needed: Vec<u64>,
    /// The events that a read which begins now sees.
    pub now: Versions,
    /// Whether it has to say what it saw of the databases.
    pub snapshot: bool,
}

impl SharedAnswers {
    /// Joins those that ask for `key`.
    pub fn join(self: &Arc<Self>, key: AnswerKey) -> AnswerMember {
        self.places().entry(key).or_default().members += 1;
        AnswerMember { answers: self.clone(), key }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<AnswerKey, Place>> {
        self.places.lock().expect("no code panics while it holds this lock")
    }

    /// Keeps an answer for those who ask for it later, if there are any and there is room.
    fn keep(&self, key: &AnswerKey, answer: &Arc<Answer>) {
        let mut places = self.places();
        let Some(place) = places.get_mut(key) else { return };
        self.forget(place.last.take());
        let bytes = answer.results.iter().map(|result| result.json.len()).sum();
        let taken = |kept: usize| (kept + bytes <= KEPT_BYTES).then_some(kept + bytes);
        let has_room = || self.kept_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok();
        if place.members > 1 && has_room() {
            place.last = Some(KeptAnswer { answer: answer.clone(), bytes });
        }
    }

    fn forget(&self, kept: Option<KeptAnswer>) {
        if let Some(KeptAnswer { bytes, .. }) = kept {
            self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Answer {
    fn is_enough(&self, wanted: &Wanted) -> bool {
        has_seen(&self.versions, wanted) && !(wanted.snapshot && self.snapshots.is_empty())
    }
}

fn has_seen(versions: &Versions, Wanted { needed, .. }: &Wanted) -> bool {
    versions.len() == needed.len() && versions.iter().zip(needed).all(|(seen, needed)| seen >= needed)
}

impl AnswerMember {
    /// The answer, and whether another query has read it: what was read since all that is wanted happened, or is read
    /// now, or what `read` reads. A read goes on as long as somebody waits for it.
    ///
    /// What is `held` to read is dropped where another reads, which `read` goes without if that fails.
    pub async fn answer<H, R>(
        &self,
        wanted: &Wanted,
        held: H,
        read: impl FnOnce(Option<H>) -> R,
    ) -> (Result<Arc<Answer>, ReadFault>, bool)
    where
        R: Future<Output = Result<Answer, ReadFault>> + Send + 'static,
    {
        let (mut held, mut read) = (Some(held), Some(read));
        loop {
            let (reading, is_shared) = {
                let mut places = self.answers.places();
                let place = places.entry(self.key).or_default();
                if let Some(kept) = place.last.as_ref().filter(|kept| kept.answer.is_enough(wanted)) {
                    return (Ok(kept.answer.clone()), true);
                }
                let known = place.reading.as_ref().filter(|(versions, _)| has_seen(versions, wanted));
                match known.and_then(|(_, reading)| reading.upgrade()) {
                    // One that is done has left nothing to wait for: what failed is read again.
                    Some(reading) if reading.peek().is_none() => (reading, true),
                    _ => {
                        let read = read.take().expect("what it reads itself is its answer");
                        let reading = self.begin(read(held.take()));
                        place.reading = reading.downgrade().map(|weak| (wanted.now.clone(), weak));
                        (reading, false)
                    }
                }
            };
            drop(held.take());
            match reading.await {
                // It may be the other's own fault, such as a grant that has expired.
                Err(ReadFault::Refused(fault) | ReadFault::Failed(fault)) if is_shared && !may_pass(&fault) => {}
                answer => return (answer, is_shared),
            }
        }
    }

    fn begin(&self, read: impl Future<Output = Result<Answer, ReadFault>> + Send + 'static) -> Shared<Reading> {
        let (answers, key) = (self.answers.clone(), self.key);
        async move {
            let answer = Arc::new(read.await?);
            answers.keep(&key, &answer);
            Ok(answer)
        }
        .boxed()
        .shared()
    }
}

impl Drop for AnswerMember {
    fn drop(&mut self) {
        let mut places = self.answers.places();
        let Some(place) = places.get_mut(&self.key) else { return };
        place.members -= 1;
        if place.members <= 1 {
            self.answers.forget(place.last.take());
        }
        if place.members == 0 {
            places.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
