//! A byte budget for what uploads hold until it is a part that their store takes.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Bytes that all uploads of a bucket hold in a process.
const BUDGET_BYTES: usize = 256 << 20;
/// Bytes of a unit of it.
const UNIT_BYTES: usize = 1024;
/// How long an upload waits until others hold less.
const WAIT: Duration = Duration::from_secs(10);

/// The budget of a bucket. Clones are the same.
#[derive(Clone)]
pub struct HeldBudget(Arc<Semaphore>);

/// Bytes that an upload holds; given back when dropped.
#[derive(Default)]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Default for HeldBudget {
    fn default() -> Self {
        Self::of(BUDGET_BYTES)
    }
}

impl HeldBudget {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }
}

impl Held {
    /// Takes `bytes` more. Errors: `Overloaded` where others hold too many for too long.
    pub async fn add(&mut self, budget: &HeldBudget, bytes: usize) -> Result<(), Error> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| Error::Overloaded)?;
        let taken = tokio::time::timeout(WAIT, budget.0.clone().acquire_many_owned(units)).await;
        let taken = taken.ok().and_then(Result::ok).ok_or(Error::Overloaded)?;
        match &mut self.0 {
            Some(held) => held.merge(taken),
            None => self.0 = Some(taken),
        }
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let Some(held) = &mut self.0 else { return };
        drop(held.split(held.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_waits_for_others_and_not_for_ever() {
        let budget = HeldBudget::of(10 * UNIT_BYTES);
        let (mut one, mut other) = (Held::default(), Held::default());
        one.add(&budget, 4 * UNIT_BYTES).await.expect("there is room");
        one.add(&budget, 1).await.expect("there is room");
        assert!(matches!(other.add(&budget, 6 * UNIT_BYTES).await, Err(Error::Overloaded)));
        other.add(&budget, 5 * UNIT_BYTES).await.expect("there is room");
        let waiting = async { one.add(&budget, UNIT_BYTES).await.expect("the other ends") };
        let ending = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(other);
        };
        tokio::join!(waiting, ending);
        one.shrink_to(UNIT_BYTES + 1);
        assert_eq!(budget.0.available_permits(), 8);
        drop(one);
        assert_eq!(budget.0.available_permits(), 10);
    }
}
