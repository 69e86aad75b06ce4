//! Memory for rows that were read and wait to be told: bounded for all watches together.

use std::sync::Arc;

use mesh::{Code, Fault};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Bytes that are counted as one.
const UNIT_BYTES: usize = 1024;

/// Memory that is free for rows.
pub struct RowMemory {
    free: Arc<Semaphore>,
    units: usize,
}

/// Memory that rows take, given back when it is dropped.
#[derive(Debug)]
pub struct RowHold(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl RowMemory {
    /// Memory of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(units)), units }
    }

    /// Takes memory for rows of so many bytes. Errors: `TOO_LARGE` for more than there is at all, `TOO_MANY` for more than
    /// is free now.
    pub fn hold(&self, bytes: usize) -> Result<RowHold, Error> {
        let units = bytes.div_ceil(UNIT_BYTES);
        let wanted = u32::try_from(units).ok().filter(|_| units <= self.units);
        let Some(wanted) = wanted else {
            let limit = self.units * UNIT_BYTES;
            return Err(Fault::new(Code::TooLarge, format!("the rows are over the limit of {limit} bytes")).into());
        };
        let full = |_| Fault::new(Code::TooMany, "too many rows wait to be told; try again later");
        Ok(RowHold(self.free.clone().try_acquire_many_owned(wanted).map_err(full)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(held: Result<RowHold, Error>) -> Option<Code> {
        held.err().map(|error| Fault::from(error).code)
    }

    #[test]
    fn memory_is_held_until_it_is_dropped() {
        let memory = RowMemory::new(10 * UNIT_BYTES);
        let held = memory.hold(6 * UNIT_BYTES).unwrap();
        assert_eq!(code(memory.hold(5 * UNIT_BYTES)), Some(Code::TooMany));
        let rest = memory.hold(3 * UNIT_BYTES + 1).unwrap();
        assert_eq!(code(memory.hold(1)), Some(Code::TooMany));
        assert_eq!(code(memory.hold(0)), None);
        drop((held, rest));
        assert_eq!(code(memory.hold(10 * UNIT_BYTES)), None);
        assert_eq!(code(memory.hold(11 * UNIT_BYTES)), Some(Code::TooLarge));
        assert_eq!(code(memory.hold(usize::MAX)), Some(Code::TooLarge));
    }
}
