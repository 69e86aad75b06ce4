//! Batches: live queries of one shape that are due at the same time are read by one request.
//!
//! A batch gathers those that are about to read, and is read by those who wait for it: it goes on as long as one of them does.
//! Where it has no answer, each reads alone, so that what is wrong with one is told to no other, and the next batches are
//! smaller.

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use foldhash::HashMap;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::{sync::Notify, time::Instant};

use super::shape::ShapeKey;

/// Items of a batch.
const ITEMS_MAX: usize = 100;
/// Batches of a shape that are read at once, unless they are full: what is due meanwhile is the next.
const READING_MAX: usize = 2;
/// Longest wait for those that are about to join, and for batches that are read.
const GATHER_TIMEOUT: Duration = Duration::from_millis(20);
/// Longest wait for as many as were in the batch before, which may not know yet that they are due.
const LINGER: Duration = Duration::from_millis(2);

/// Batches of items `I` with answers `O`, by their shape.
pub struct Batches<I, O> {
    shapes: Shapes<I, O>,
}

type Shapes<I, O> = Arc<Mutex<HashMap<ShapeKey, Arc<ShapeBatches<I, O>>>>>;

/// Place among those of one shape. Dropped, it is given up.
pub struct BatchMember<I, O> {
    /// The shape.
    pub key: ShapeKey,
    own: Arc<ShapeBatches<I, O>>,
    shapes: Shapes<I, O>,
}

/// Batches of one shape.
struct ShapeBatches<I, O> {
    state: Mutex<ShapeState<I, O>>,
    /// Told when somebody has joined, or does not come any more.
    news: Notify,
}

struct ShapeState<I, O> {
    members: usize,
    /// Members that are about to join.
    due: usize,
    /// The batch that gathers, as long as somebody waits for it.
    gathering: Option<Gathering<I, O>>,
    /// Batches that are read.
    reading: usize,
    /// Items of the last batch, or a part of those of one before that was much larger.
    last: usize,
    /// Items that the next one may have.
    most: usize,
}

/// A batch that gathers.
struct Gathering<I, O> {
    items: Items<I>,
    answers: WeakShared<Answers<O>>,
}

/// Items, each as long as who gave it waits.
type Items<I> = Arc<Mutex<Vec<Item<I>>>>;

struct Item<I> {
    item: Option<I>,
    waits: Weak<()>,
}

/// The answers to the items of a batch; none to those whose members have left, and none at all where it failed.
type Answers<O> = BoxFuture<'static, Arc<Vec<Option<O>>>>;

/// A batch that is read, until it is dropped.
struct Reading<'s, I, O> {
    of: &'s ShapeBatches<I, O>,
}

/// Notice that a member is about to join a batch. Dropped, it is not any more.
pub struct Due<I, O> {
    own: Arc<ShapeBatches<I, O>>,
}

impl<I, O> Default for Batches<I, O> {
    fn default() -> Self {
        Self { shapes: Arc::default() }
    }
}

impl<I, O> Default for ShapeBatches<I, O> {
    fn default() -> Self {
        let state = ShapeState { members: 0, due: 0, gathering: None, reading: 0, last: 0, most: ITEMS_MAX };
        Self { state: Mutex::new(state), news: Notify::new() }
    }
}

impl<I, O> Batches<I, O> {
    /// Joins those of a shape.
    pub fn join(&self, key: ShapeKey) -> BatchMember<I, O> {
        let mut shapes = locked(&self.shapes);
        let own = shapes.entry(key).or_default().clone();
        own.state().members += 1;
        drop(shapes);
        BatchMember { key, own, shapes: self.shapes.clone() }
    }
}

impl<I, O> ShapeBatches<I, O> {
    fn state(&self) -> MutexGuard<'_, ShapeState<I, O>> {
        locked(&self.state)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl<I, O> BatchMember<I, O> {
    /// Says that it is about to join a batch: one that gathers waits for it a while.
    pub fn due(&self) -> Due<I, O> {
        self.own.state().due += 1;
        Due { own: self.own.clone() }
    }

    /// Whether there is another of its shape.
    pub fn has_others(&self) -> bool {
        self.own.state().members > 1
    }
}

impl<I, O> BatchMember<I, O>
where
    I: Send + 'static,
    O: Clone + Send + Sync + 'static,
{
    /// The answer to `item` by a batch that begins to be read from now on: by `read`, unless another has begun one. `None` where
    /// the batch has none.
    pub async fn answer<R, F>(&self, due: Due<I, O>, item: I, read: R) -> Option<O>
    where
        R: FnOnce(Vec<I>) -> F + Send + 'static,
        F: Future<Output = Option<Vec<O>>> + Send + 'static,
    {
        let waits = Arc::new(());
        let item = Item { item: Some(item), waits: Arc::downgrade(&waits) };
        let (index, answers) = self.own.enter(item, read);
        drop(due);
        // Those that were woken by the same change join meanwhile. Within the batch, it would be over when the next one joins.
        tokio::task::yield_now().await;
        answers.await.get(index).cloned().flatten()
    }
}

impl<I, O> ShapeBatches<I, O>
where
    I: Send + 'static,
    O: Clone + Send + Sync + 'static,
{
    /// Adds an item to the batch that gathers, or to a new one; its index there.
    fn enter<R, F>(self: &Arc<Self>, item: Item<I>, read: R) -> (usize, Shared<Answers<O>>)
    where
        R: FnOnce(Vec<I>) -> F + Send + 'static,
        F: Future<Output = Option<Vec<O>>> + Send + 'static,
    {
        let mut state = self.state();
        let known = state.gathering.as_ref().and_then(|batch| Some((batch.items.clone(), batch.answers.upgrade()?)));
        let (items, answers) = known.unwrap_or_else(|| {
            let items = Items::default();
            let answers = self.clone().read(items.clone(), read).boxed().shared();
            state.gathering = answers.downgrade().map(|answers| Gathering { items: items.clone(), answers });
            (items, answers)
        });
        let mut entered = locked(&items);
        let index = entered.len();
        entered.push(item);
        if entered.len() >= state.most {
            state.gathering = None;
        }
        (index, answers)
    }

    /// Gathers items, and reads them.
    async fn read<R, F>(self: Arc<Self>, items: Items<I>, read: R) -> Arc<Vec<Option<O>>>
    where
        R: FnOnce(Vec<I>) -> F + Send + 'static,
        F: Future<Output = Option<Vec<O>>> + Send + 'static,
    {
        self.gather(&items).await;
        let items = self.close(&items);
        let (indexes, items): (Vec<usize>, Vec<I>) = items
            .into_iter()
            .enumerate()
            .filter_map(|(index, entered)| Some((index, entered.item.filter(|_| entered.waits.strong_count() > 0)?)))
            .unzip();
        let count = items.len();
        let reading = Reading::begin(&self);
        let read = read(items).await;
        drop(reading);
        let mut state = self.state();
        // One alone between two that are large does not make it forget.
        state.last = count.max(state.last / 4);
        state.most = match read {
            Some(_) => (state.most + 1).min(ITEMS_MAX),
            None => (count / 2).max(1),
        };
        drop(state);
        let mut answers = Vec::new();
        for (index, answer) in indexes.into_iter().zip(read.into_iter().flatten()) {
            answers.resize_with(index, || None);
            answers.push(Some(answer));
        }
        Arc::new(answers)
    }

    /// Takes the items of a batch, which nobody joins any more.
    fn close(&self, items: &Items<I>) -> Vec<Item<I>> {
        let mut state = self.state();
        if state.gathering.as_ref().is_some_and(|batch| Arc::ptr_eq(&batch.items, items)) {
            state.gathering = None;
        }
        mem::take(&mut *locked(items))
    }

    /// Waits until all have joined that are about to, as many as were in the batch before, and few others are read, for a while.
    async fn gather(&self, items: &Items<I>) {
        let begun = Instant::now();
        loop {
            let news = self.news.notified();
            let until = {
                let state = self.state();
                let count = locked(items).len();
                match count {
                    _ if count >= state.most => return,
                    _ if state.due > 0 || state.reading >= READING_MAX => begun + GATHER_TIMEOUT,
                    _ if count < state.last.min(state.members) => begun + LINGER,
                    _ => return,
                }
            };
            if tokio::time::timeout_at(until, news).await.is_err() {
                return;
            }
        }
    }
}

impl<'s, I, O> Reading<'s, I, O> {
    fn begin(of: &'s ShapeBatches<I, O>) -> Self {
        of.state().reading += 1;
        Self { of }
    }
}

impl<I, O> Drop for Reading<'_, I, O> {
    fn drop(&mut self) {
        self.of.state().reading -= 1;
        self.of.news.notify_waiters();
    }
}

impl<I, O> Drop for Due<I, O> {
    fn drop(&mut self) {
        self.own.state().due -= 1;
        self.own.news.notify_waiters();
    }
}

impl<I, O> Drop for BatchMember<I, O> {
    fn drop(&mut self) {
        let mut shapes = locked(&self.shapes);
        let mut state = self.own.state();
        state.members -= 1;
        if state.members == 0 {
            drop(state);
            shapes.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
