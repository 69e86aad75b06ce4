//! Rates: how many requests a caller may make to a bucket, by a token bucket for each of them.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use foldhash::HashMap;
use mesh::{Code, Fault, telemetry::Counter};
use query::resources::FileRate;

use super::ProjectFiles;
use crate::{edge::Credential, error::RETRY_AFTER, live::CallerId};

/// Callers of a bucket that are known at once, those who say who they are and those who do not. Others share one counter
/// until there is room: nobody is forgotten because others come.
const CALLERS_MAX: usize = 16_384;
/// How often callers are forgotten whose tokens are all there.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The requests of callers to buckets. Clones are the same.
#[derive(Clone)]
pub(crate) struct FileRates {
    /// By project and id of the bucket.
    buckets: Arc<Mutex<HashMap<(String, String), BucketRates>>>,
    shed: Counter,
}

/// The requests to a bucket. Who has no token cannot take the place of those who have one.
#[derive(Default)]
struct BucketRates {
    /// The rate in force.
    rate: Option<FileRate>,
    identified: RateTable,
    others: RateTable,
}

/// When all tokens of a caller are there again.
#[derive(Default)]
struct RateTable {
    known: HashMap<CallerId, Instant>,
    /// Of all those together who have no room.
    joint: Option<Instant>,
    swept: Option<Instant>,
}

/// Who is counted.
#[derive(Clone, Copy)]
struct RatedCaller {
    id: CallerId,
    /// Whether they have a token or a key.
    is_identified: bool,
}

impl RateTable {
    /// When all tokens of the caller are there again: to be put off by each that is taken.
    fn level(&mut self, caller: CallerId, now: Instant) -> &mut Instant {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.known.retain(|_, full| *full > now);
        }
        match self.known.len() < CALLERS_MAX || self.known.contains_key(&caller) {
            true => self.known.entry(caller).or_insert(now),
            false => self.joint.get_or_insert(now),
        }
    }
}

impl FileRates {
    /// No requests were made so far; those that are refused are counted by `shed`.
    pub(crate) fn new(shed: Counter) -> Self {
        Self { buckets: Arc::default(), shed }
    }

    /// Takes a token of `caller` for a bucket, named by its project and its id. Errors: `TOO_MANY` where there is none.
    fn take(&self, caller: RatedCaller, of: (&str, &str), rate: &FileRate, now: Instant) -> Result<(), Fault> {
        let per_second = rate.per_second.clamp(FileRate::PER_SECOND_MIN, FileRate::MAX);
        let interval = 1.0 / per_second;
        let burst = rate.burst.map_or_else(|| per_second.max(1.0), f64::from);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = buckets.entry((of.0.to_owned(), of.1.to_owned())).or_default();
        if tables.rate != Some(*rate) {
            // What was taken at another rate is of no matter.
            *tables = BucketRates { rate: Some(*rate), ..BucketRates::default() };
        }
        let table = if caller.is_identified { &mut tables.identified } else { &mut tables.others };
        let full = table.level(caller.id, now);
        let later = (*full).max(now).duration_since(now).as_secs_f64() + interval;
        let wait = later - burst * interval;
        // Of a rounding no request is refused.
        if wait > interval / 1000.0 {
            self.shed.inc();
            let seconds = wait.ceil().max(1.0);
            let message = format!("too many requests to bucket {}, try again in {seconds} s", of.1);
            return Err(Fault::new(Code::TooMany, message).with(RETRY_AFTER, format!("{seconds}")));
        }
        *full = now + Duration::from_secs_f64(later);
        Ok(())
    }
}

impl ProjectFiles {
    /// Counts the request for its caller in the buckets with these ids, each once. The caller was let in by their rules.
    pub(super) async fn count_request(&self, ids: &[String]) -> Result<(), Fault> {
        for id in ids {
            let bucket = self.project.buckets.iter().find(|bucket| bucket.id == *id);
            let Some(rate) = bucket.and_then(|bucket| bucket.spec.limits.rate.as_ref()) else { continue };
            {
                let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
                if counted.contains(id) {
                    continue;
                }
                counted.push(id.clone());
            }
            let caller = self.rated_caller().await;
            self.service.file_rates().take(caller, (&self.project.id, id), rate, Instant::now())?;
        }
        Ok(())
    }

    async fn rated_caller(&self) -> RatedCaller {
        let (project, peer): (_, Option<IpAddr>) = (&self.project.id, self.peer);
        // Whoever has a signed address: a token beside it was not looked at.
        let unidentified = RatedCaller { id: CallerId::of(project, "", peer), is_identified: false };
        match &self.credential {
            Credential::Token if !self.caller.token.is_empty() => {
                // Where a rule does not look at it, a forged token would count for whom it names.
                match self.service.edge().reach(&self.caller, &self.project).await {
                    Ok(_) => RatedCaller { id: CallerId::of(project, &self.caller.token, peer), is_identified: true },
                    Err(_) => unidentified,
                }
            }
            Credential::Token | Credential::Signature(_) => unidentified,
            Credential::AccessKey(id) => RatedCaller { id: CallerId::of_access_key(project, id), is_identified: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FILES: (&str, &str) = ("shop", "files");

    fn rates() -> FileRates {
        FileRates::new(Counter::default())
    }

    fn named(name: &str) -> RatedCaller {
        RatedCaller { id: CallerId::of_access_key("shop", name), is_identified: true }
    }

    fn stranger(index: usize) -> RatedCaller {
        let address = Ipv4Addr::from(u32::try_from(index).expect("it is small"));
        RatedCaller { id: CallerId::of("shop", "", Some(address.into())), is_identified: false }
    }

    #[test]
    fn a_caller_has_a_burst_and_then_a_rate() {
        let (rates, begin) = (rates(), Instant::now());
        let rate = FileRate { per_second: 2.0, burst: Some(3) };
        let take = |name: &str, ms: u64| {
            let taken = rates.take(named(name), FILES, &rate, begin + Duration::from_millis(ms));
            taken.map_err(|fault| fault.detail(RETRY_AFTER).unwrap_or_default().to_owned())
        };
        for _ in 0..3 {
            assert_eq!(take("a", 0), Ok(()));
        }
        assert_eq!((take("a", 0), take("b", 0)), (Err("1".to_owned()), Ok(())), "each has their own");
        assert_eq!(
            (take("a", 499), take("a", 500), take("a", 501)),
            (Err("1".to_owned()), Ok(()), Err("1".to_owned()))
        );
        // A pause gives no more than the burst.
        for _ in 0..3 {
            assert_eq!(take("a", 60_000), Ok(()));
        }
        assert!(take("a", 60_000).is_err());
        assert_eq!(rates.shed.get(), 4);
    }

    #[test]
    fn a_slow_rate_tells_how_long_to_wait() {
        let (rates, begin) = (rates(), Instant::now());
        let rate = FileRate { per_second: 0.1, burst: None };
        assert!(rates.take(named("a"), FILES, &rate, begin).is_ok());
        let fault = rates.take(named("a"), FILES, &rate, begin + Duration::from_secs(3)).expect_err("it is too soon");
        assert_eq!((fault.code, fault.detail(RETRY_AFTER)), (Code::TooMany, Some("7")));
        for other in [("shop", "other"), ("lab", "files")] {
            assert!(rates.take(named("a"), other, &rate, begin).is_ok(), "each bucket has its own");
        }
        // Another rate begins anew.
        let faster = FileRate { per_second: 20.0, burst: Some(2) };
        assert!(rates.take(named("a"), FILES, &faster, begin).is_ok());
        // The slowest and the fastest that documents may have, and those that they may not.
        for per_second in [FileRate::PER_SECOND_MIN, FileRate::MAX, f64::MIN_POSITIVE, f64::MAX] {
            let rate = FileRate { per_second, burst: Some(u32::MAX) };
            assert!(rates.take(named(&per_second.to_string()), FILES, &rate, begin).is_ok());
        }
    }

    #[test]
    fn nobody_is_forgotten_because_others_come() {
        let (rates, begin) = (rates(), Instant::now());
        let rate = FileRate { per_second: 0.01, burst: Some(1) };
        let take = |caller, seconds| rates.take(caller, FILES, &rate, begin + Duration::from_secs(seconds)).is_ok();
        assert!(take(stranger(0), 0) && take(named("ann"), 0));
        let taken = (1..3 * CALLERS_MAX).filter(|index| take(stranger(*index), 1)).count();
        assert_eq!(taken, CALLERS_MAX, "those without room have one token together");
        assert!(!take(stranger(0), 2) && !take(named("ann"), 2), "their tokens are not there yet");
        assert!(take(named("bob"), 2), "strangers take no room from others");
        let known = rates.buckets.lock().expect("no thread panics")[&("shop".to_owned(), "files".to_owned())]
            .others
            .known
            .len();
        assert_eq!(known, CALLERS_MAX);
        // Once their tokens are there, they make room.
        assert!(take(stranger(9 * CALLERS_MAX), 102) && take(stranger(0), 102));
        assert!(!take(stranger(0), 103));
    }
}
