//! A byte budget for what uploads hold until it is a part that their store takes.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::Error;

/// Bytes that all uploads of a bucket hold in a process.
const BUDGET_BYTES: usize = 256 << 20;
/// Bytes of a unit of it.
const UNIT_BYTES: usize = 1024;
/// How long an upload waits until others hold less.
const WAIT: Duration = Duration::from_secs(10);
/// How often an upload that waits has another one look at whether it is in the way.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long an upload may hold bytes of which the store took none, while others wait.
const STALE: Duration = Duration::from_secs(30);

/// The budget of a bucket. Clones are the same.
#[derive(Clone)]
pub struct HeldBudget {
    units: Arc<Semaphore>,
    /// Told one by one to those that wait for their clients.
    starving: Arc<Notify>,
}

/// Bytes that an upload holds; given back when dropped.
#[derive(Default)]
pub struct Held(Option<HeldUnits>);

struct HeldUnits {
    units: OwnedSemaphorePermit,
    /// When the store took some of them last, or the first of them came.
    since: Instant,
}

impl Default for HeldBudget {
    fn default() -> Self {
        Self::of(BUDGET_BYTES)
    }
}

impl HeldBudget {
    fn of(bytes: usize) -> Self {
        Self { units: Arc::new(Semaphore::new(bytes / UNIT_BYTES)), starving: Arc::default() }
    }
}

impl HeldBudget {
    /// Lets those that are in the way end, one after the other, for as long as an upload waits.
    async fn starve(&self) {
        let end = Instant::now() + WAIT;
        while Instant::now() < end {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.starving.notify_one();
        }
    }
}

impl Held {
    /// Takes `bytes` more. Errors: `Overloaded` where others hold too many for too long.
    pub async fn add(&mut self, budget: &HeldBudget, bytes: usize) -> Result<(), Error> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| Error::Overloaded)?;
        let acquiring = budget.units.clone().acquire_many_owned(units);
        let taken = tokio::select! {
            biased;
            taken = acquiring => taken.map_err(|_| Error::Overloaded)?,
            () = budget.starve() => return Err(Error::Overloaded),
        };
        match &mut self.0 {
            Some(held) => held.units.merge(taken),
            None => self.0 = Some(HeldUnits { units: taken, since: Instant::now() }),
        }
        Ok(())
    }

    /// Waits until others starve while these bytes are held for too long: a client that trickles is no reason to refuse others.
    pub async fn is_in_the_way(&self, budget: &HeldBudget) {
        loop {
            budget.starving.notified().await;
            if self.0.as_ref().is_some_and(|held| held.since.elapsed() >= STALE) {
                return;
            }
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let Some(held) = &mut self.0 else { return };
        drop(held.units.split(held.units.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES))));
        held.since = Instant::now();
        if held.units.num_permits() == 0 {
            self.0 = None;
        }
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
        assert_eq!(budget.units.available_permits(), 8);
        drop(one);
        assert_eq!(budget.units.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_bytes_for_too_long_makes_room_for_others() {
        let budget = HeldBudget::of(10 * UNIT_BYTES);
        let (mut slow, mut fast, mut other) = (Held::default(), Held::default(), Held::default());
        slow.add(&budget, 5 * UNIT_BYTES).await.expect("there is room");
        fast.add(&budget, 5 * UNIT_BYTES).await.expect("there is room");
        tokio::time::sleep(STALE).await;
        fast.shrink_to(4 * UNIT_BYTES);
        let ending = async {
            tokio::select! {
                () = slow.is_in_the_way(&budget) => drop(slow),
                () = fast.is_in_the_way(&budget) => panic!("the store has just taken bytes of it"),
            }
        };
        let waiting = other.add(&budget, 6 * UNIT_BYTES);
        let (added, ()) = tokio::join!(waiting, ending);
        added.expect("the slow one ends");
        assert!(tokio::time::timeout(2 * STALE, fast.is_in_the_way(&budget)).await.is_err(), "nobody waits");
    }
}
