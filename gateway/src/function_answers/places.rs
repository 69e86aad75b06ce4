//! Streams of one caller of a function: a share of the places that the function has, so that others find some too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use mesh::{Code, Fault};
use query::function::Function;

use crate::{catalogue::Project, edge::FunctionCall, live::CallerId};

/// Places of a function for each that one caller may have.
const SHARES: u32 = 4;

/// A caller, who is of one project, a service and a function.
type PlaceKey = (CallerId, String, String);

/// Counts of streams. Clones are the same.
#[derive(Clone, Default)]
pub struct StreamPlaces(Arc<Mutex<HashMap<PlaceKey, u32>>>);

/// A place, until it is dropped.
pub struct StreamPlace {
    places: StreamPlaces,
    key: PlaceKey,
}

impl StreamPlaces {
    /// A place for a stream of `caller`. Errors: `TOO_MANY`.
    pub fn enter(&self, caller: CallerId, project: &Project, call: &FunctionCall) -> Result<StreamPlace, Fault> {
        let FunctionCall { service, function, .. } = call;
        // Of one that is not known the rule says so.
        let most = project.function(service, function).map_or(1, Function::concurrency).div_ceil(SHARES);
        let key = (caller, service.clone(), function.clone());
        let mut counts = self.counts();
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            let text = format!("the streams of function {function} of the caller are at the limit of {most}");
            return Err(Fault::new(Code::TooMany, text));
        }
        *count += 1;
        drop(counts);
        Ok(StreamPlace { places: self.clone(), key })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<PlaceKey, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::graphql::fixture;

    #[test]
    fn a_caller_has_a_share_of_the_places() {
        let (places, project) = (StreamPlaces::default(), fixture::shop());
        let call = |function: &str| FunctionCall {
            service: "nobody".to_owned(),
            function: function.to_owned(),
            params: Bytes::new(),
            timeout: Some(Duration::ZERO),
        };
        let caller = |token: &str| CallerId::of("shop", token, None);
        let first = places.enter(caller("a"), &project, &call("f")).unwrap();
        assert_eq!(places.enter(caller("a"), &project, &call("f")).map(drop).unwrap_err().code, Code::TooMany);
        let others = [places.enter(caller("b"), &project, &call("f")), places.enter(caller("a"), &project, &call("g"))];
        assert!(others.iter().all(Result::is_ok));
        drop(first);
        assert!(places.enter(caller("a"), &project, &call("f")).is_ok());
        drop(others);
        assert!(places.counts().is_empty());
    }
}
