//! Resource limits of one request: bytes of its answer, memory of its rows, and a share of what this node has for
//! large answers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use mesh::fault::answer_too_large;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use crate::Error;

/// Bytes of an answer where the caller names no limit.
const ANSWER_BYTES: u64 = 64 << 20;
/// Rows, and JSON, that may take this much are small: they need no share.
pub const SMALL_BYTES: usize = 1 << 20;
/// Memory of the rows of an answer, in bytes for each byte it may have.
const ROWS_PER_ANSWER: usize = 2;
/// Rows that may be collected whatever the limit of the answer: in memory, a short row takes many times its JSON.
const ROWS_MIN: usize = 16 << 20;
/// Memory of all large answers on a small machine: two of them at the default limit, with their rows.
const LARGE_MIN_MIB: usize = 384;
/// Memory of all large answers per core of a larger machine.
const LARGE_PER_CORE_MIB: usize = 96;
/// Threads that write answers at a time, for each core.
const WRITERS_PER_CORE: usize = 2;

/// Byte limit of the answers of a client's request.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimit {
    /// The limit.
    pub bytes: u64,
    /// Bytes used by the answers of other databases.
    pub used: u64,
}

/// Admission control for large answers: the memory that they may take together on this node, in MiB.
///
/// Who waits is served in order, and holds less than [`SMALL_BYTES`] of rows meanwhile.
#[derive(Debug, Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    total: u32,
    /// Threads that write answers at a time. More would only take processors from short reads, and memory.
    writers: Arc<Semaphore>,
}

/// Remaining budget of one request.
#[derive(Debug)]
pub struct Budget<'m> {
    limit: u64,
    answer: usize,
    rows: usize,
    memory: Option<&'m Memory>,
    /// Held until the request is answered, once it is seen to be large.
    share: OnceCell<SemaphorePermit<'m>>,
}

/// Memory left for rows that are collected on one thread.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes.
    pub bytes: usize,
    /// The limit that an error names.
    pub limit: u64,
}

/// Memory left for rows of several statements that are collected at the same time.
#[derive(Debug)]
pub struct SharedRoom<'b, 'm> {
    budget: &'b Budget<'m>,
    left: AtomicUsize,
    /// Whether `left` is a first small part, which grows to the whole budget once it has its share of memory.
    is_small: AtomicBool,
}

/// The error of an answer that would have more than `limit` bytes.
pub fn too_large(limit: u64) -> Error {
    Error::TooLarge(answer_too_large(limit))
}

impl AnswerLimit {
    /// The limit of a request, where 0 means the default.
    pub fn new(bytes: u64, used: u64) -> Self {
        Self { bytes: if bytes == 0 { ANSWER_BYTES } else { bytes }, used }
    }
}

impl Default for Memory {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let total = (cores * LARGE_PER_CORE_MIB).max(LARGE_MIN_MIB);
        Self {
            free: Arc::new(Semaphore::new(total)),
            total: u32::try_from(total).unwrap_or(u32::MAX),
            writers: Arc::new(Semaphore::new(cores * WRITERS_PER_CORE)),
        }
    }
}

impl Memory {
    /// The share of an answer that may have `limit` bytes, with its rows.
    async fn share(&self, limit: u64) -> Option<SemaphorePermit<'_>> {
        let mib = (limit >> 20).saturating_mul(1 + ROWS_PER_ANSWER as u64).max(1);
        self.free.acquire_many(u32::try_from(mib).unwrap_or(u32::MAX).min(self.total)).await.ok()
    }
}

impl<'m> Budget<'m> {
    /// The budget of a read.
    pub fn read(limit: AnswerLimit, memory: &'m Memory) -> Self {
        Self { memory: Some(memory), ..Self::write(limit) }
    }

    /// The budget of a write. Writes wait for no share: a holder of database locks must not wait for others that may want
    /// them.
    pub fn write(AnswerLimit { bytes, used }: AnswerLimit) -> Self {
        let bytes_limit = usize::try_from(bytes).unwrap_or(usize::MAX);
        let answer = usize::try_from(bytes.saturating_sub(used)).unwrap_or(usize::MAX);
        let rows = bytes_limit.saturating_mul(ROWS_PER_ANSWER).max(ROWS_MIN);
        Self { limit: bytes, answer, rows, memory: None, share: OnceCell::new() }
    }

    /// A budget without limit, for answers that are known to be small.
    pub fn unlimited() -> Self {
        Self { limit: u64::MAX, answer: usize::MAX, rows: usize::MAX, memory: None, share: OnceCell::new() }
    }

    /// Bytes that the JSON written next may have, before [`Budget::grow`] allows more.
    pub fn answer_room(&self) -> usize {
        if self.is_small() { self.answer.min(SMALL_BYTES) } else { self.answer }
    }

    /// Memory that the rows collected next may take, likewise.
    pub fn row_room(&self) -> Room {
        let bytes = if self.is_small() { self.rows.min(SMALL_BYTES) } else { self.rows };
        Room { bytes, limit: self.limit }
    }

    /// [`Budget::row_room`] for several statements at the same time.
    pub fn shared_room(&self) -> SharedRoom<'_, 'm> {
        SharedRoom {
            budget: self,
            left: AtomicUsize::new(self.row_room().bytes),
            is_small: AtomicBool::new(self.is_small()),
        }
    }

    /// Whether a share was waited for, so that much memory may be taken at once.
    pub fn has_share(&self) -> bool {
        self.share.initialized()
    }

    /// Subtracts JSON that was written.
    pub fn answered(&mut self, bytes: usize) {
        self.answer = self.answer.saturating_sub(bytes);
    }

    /// Subtracts rows that were collected and are kept.
    pub fn collected(&mut self, bytes: usize) {
        self.rows = self.rows.saturating_sub(bytes);
    }

    /// Waits for a share of this node's memory, for what is not small.
    ///
    /// Errors: where that would allow no more, that the answer is too large.
    pub async fn grow(&self) -> Result<(), Error> {
        match self.memory.filter(|_| self.is_small()) {
            Some(memory) => {
                let share = async { memory.share(self.limit).await.ok_or_else(|| self.too_large()) };
                self.share.get_or_try_init(|| share).await.map(drop)
            }
            None => Err(self.too_large()),
        }
    }

    /// Whether [`Budget::grow`] would allow more JSON than [`Budget::answer_room`] does.
    pub fn may_answer_more(&self) -> bool {
        self.answer_room() < self.answer
    }

    /// Waits for a turn to write on a blocking thread. Whoever has one waits for nobody.
    pub async fn turn(&self) -> Option<SemaphorePermit<'m>> {
        self.memory?.writers.acquire().await.ok()
    }

    /// The error of an answer over the limit.
    pub fn too_large(&self) -> Error {
        too_large(self.limit)
    }

    fn is_small(&self) -> bool {
        self.memory.is_some() && !self.has_share()
    }
}

impl SharedRoom<'_, '_> {
    /// Takes room for a row, if it is there. The statements are polled by one task: nobody else takes meanwhile.
    pub fn has_taken(&self, bytes: usize) -> bool {
        let left = self.left.load(Relaxed).checked_sub(bytes);
        left.inspect(|left| self.left.store(*left, Relaxed)).is_some()
    }

    /// Takes room for a row, waiting for a share where that makes more.
    pub async fn wait_and_take(&self, bytes: usize) -> Result<(), Error> {
        while !self.has_taken(bytes) {
            if !self.is_small.load(Relaxed) {
                return Err(self.budget.too_large());
            }
            if !self.budget.has_share() {
                self.budget.grow().await?;
            }
            if self.is_small.swap(false, Relaxed) {
                let more = self.budget.rows.saturating_sub(SMALL_BYTES);
                self.left.fetch_add(more, Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(mib: usize) -> Memory {
        Memory { free: Arc::new(Semaphore::new(mib)), total: mib as u32, ..Memory::default() }
    }

    fn limit(bytes: u64) -> AnswerLimit {
        AnswerLimit::new(bytes, 0)
    }

    #[tokio::test]
    async fn large_answers_wait_for_each_other_and_small_ones_do_not() {
        let memory = memory(300);
        let [first, second, third] = [(); 3].map(|()| Budget::read(limit(40 << 20), &memory));
        first.grow().await.unwrap();
        second.grow().await.unwrap();
        let mut waiting = Box::pin(third.grow());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(third.answer_room(), SMALL_BYTES);

        drop(first);

        waiting.await.unwrap();
        assert_eq!(third.answer_room(), 40 << 20);
        assert_eq!(third.grow().await, Err(too_large(40 << 20)));
    }

    #[tokio::test]
    async fn rooms_are_small_before_the_share_and_whole_with_it() {
        const MIB: usize = 1 << 20;
        let memory = memory(500);
        for (bytes, answer, rows) in [
            (1000, [1000, 1000], [MIB, 16 * MIB]),
            (40 << 20, [MIB, 40 * MIB], [MIB, 80 * MIB]),
            (0, [MIB, 64 * MIB], [MIB, 128 * MIB]),
        ] {
            let mut budget = Budget::read(limit(bytes), &memory);
            let named = if bytes == 0 { 64 << 20 } else { bytes };
            for (answer, rows) in answer.into_iter().zip(rows) {
                let room = budget.row_room();
                assert_eq!((budget.answer_room(), room.bytes, room.limit), (answer, rows, named));
                assert_eq!(budget.may_answer_more(), answer == MIB);
                assert_eq!(budget.has_share(), rows != MIB);
                if !budget.has_share() {
                    budget.grow().await.unwrap();
                }
            }
            budget.answered(10);
            budget.collected(100);
            assert_eq!((budget.answer_room(), budget.row_room().bytes), (answer[1] - 10, rows[1] - 100));
        }
    }

    /// Three bytes for each byte of the answer, in whole MiB.
    #[tokio::test]
    async fn a_share_is_for_the_answer_and_its_rows() {
        for (bytes, mib) in [(1, 1), (1 << 20, 3), (40 << 20, 120), ((41 << 20) - 1, 120)] {
            let memory = memory(300);
            let budget = Budget::read(limit(bytes), &memory);
            budget.grow().await.unwrap();
            assert_eq!(memory.free.available_permits(), 300 - mib, "{bytes}");
            drop(budget);
            assert_eq!(memory.free.available_permits(), 300);
        }
    }

    #[tokio::test]
    async fn reads_take_turns_to_write_and_writes_do_not() {
        let memory = Memory { writers: Arc::new(Semaphore::new(1)), ..memory(300) };
        let [first, second] = [(); 2].map(|()| Budget::read(limit(1), &memory));
        let turn = first.turn().await;
        assert!(turn.is_some());
        let mut waiting = Box::pin(second.turn());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(Budget::write(limit(1)).turn().await.is_none());
        drop(turn);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn an_answer_that_may_have_more_than_the_memory_takes_all_of_it() {
        let memory = memory(100);
        let budget = Budget::read(limit(1 << 30), &memory);
        budget.grow().await.unwrap();
        assert_eq!(memory.free.available_permits(), 0);
    }

    #[tokio::test]
    async fn rows_at_the_same_time_share_their_room() {
        let memory = memory(300);
        let budget = Budget::read(limit(20 << 20), &memory);
        let room = budget.shared_room();
        room.wait_and_take(SMALL_BYTES).await.unwrap();
        assert!(!budget.has_share());
        room.wait_and_take(30 << 20).await.unwrap();
        assert!(budget.has_share());
        assert_eq!(room.wait_and_take(10 << 20).await, Err(too_large(20 << 20)));
        room.wait_and_take(9 << 20).await.unwrap();
    }

    #[tokio::test]
    async fn a_write_waits_for_no_share_and_names_the_whole_limit() {
        let budget = Budget::write(AnswerLimit::new(1000, 400));
        assert_eq!(budget.answer_room(), 600);
        assert_eq!(budget.grow().await, Err(too_large(1000)));
    }
}
