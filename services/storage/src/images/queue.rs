//! The queue of requests for images: none of its projects keeps the others out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Places of requests that wait or whose image is made, and workers that make them. Clones are the same.
#[derive(Clone)]
pub struct Queue {
    workers: Arc<Semaphore>,
    /// Places of all projects.
    all: usize,
    /// Places that one project has at most.
    share: usize,
    state: Arc<Mutex<QueueState>>,
}

#[derive(Default)]
struct QueueState {
    taken: usize,
    projects: HashMap<String, ProjectPlaces>,
}

/// The places of a project that are taken.
struct ProjectPlaces {
    taken: usize,
    /// Whoever of the project is the next to have a worker.
    next: Arc<Semaphore>,
}

/// A place of a request. Dropped, it is free.
pub struct Place {
    queue: Queue,
    project: String,
    next: Arc<Semaphore>,
}

impl Queue {
    /// A queue of `waiting` requests, and of as many more as there are workers.
    pub fn new(workers: usize, waiting: usize) -> Self {
        let all = workers.saturating_add(waiting);
        let workers = Arc::new(Semaphore::new(workers));
        Self { workers, all, share: (all / 2).max(1), state: Arc::default() }
    }

    /// A place for a request of `project`. Errors: all are taken, or all of its share.
    pub fn enter(&self, project: &str) -> Result<Place, Error> {
        let mut state = self.state();
        let taken = state.projects.get(project).map_or(0, |places| places.taken);
        if state.taken >= self.all || taken >= self.share {
            return Err(Error::TooManyImages);
        }
        state.taken += 1;
        let first = || ProjectPlaces { taken: 0, next: Arc::new(Semaphore::new(1)) };
        let places = state.projects.entry(project.to_owned()).or_insert_with(first);
        places.taken += 1;
        Ok(Place { queue: self.clone(), project: project.to_owned(), next: places.next.clone() })
    }

    /// A worker, once one is free. One request of each project waits for it: projects have their turns, however many
    /// requests they have.
    pub async fn worker(&self, place: &Place) -> Result<OwnedSemaphorePermit, Error> {
        let _next = place.next.acquire().await.map_err(|_| Error::TooManyImages)?;
        self.workers.clone().acquire_owned().await.map_err(|_| Error::TooManyImages)
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.taken -= 1;
        if let Some(places) = state.projects.get_mut(&self.project) {
            places.taken -= 1;
            if places.taken == 0 {
                state.projects.remove(&self.project);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures::poll;

    use super::*;

    #[test]
    fn a_project_has_half_of_the_places_at_most() {
        let queue = Queue::new(1, 4);
        let first: Vec<Place> = (0..2).map(|_| queue.enter("a").expect("a place")).collect();
        assert!(matches!(queue.enter("a"), Err(Error::TooManyImages)));
        let others: Vec<Place> = ["b", "b", "c"].map(|of| queue.enter(of).expect("a place")).into();
        assert!(matches!(queue.enter("d"), Err(Error::TooManyImages)));
        drop(others);
        assert!(queue.enter("d").is_ok() && queue.enter("a").is_err());
        drop(first);
        let state = queue.state();
        assert!(state.taken == 0 && state.projects.is_empty());
        drop(state);
        let small = Queue::new(1, 0);
        assert!(small.enter("a").is_ok(), "one place is for anybody");
    }

    #[tokio::test]
    async fn projects_have_their_turns() {
        let queue = Queue::new(1, 9);
        let places: Vec<Place> = ["a", "a", "a", "b"].map(|of| queue.enter(of).expect("a place")).into();
        let first = queue.worker(&places[0]).await.expect("a worker");
        let (mut second, mut third) = (pin!(queue.worker(&places[1])), pin!(queue.worker(&places[2])));
        let mut other = pin!(queue.worker(&places[3]));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending() && poll!(&mut other).is_pending());
        drop(first);
        let Poll::Ready(worker) = poll!(&mut second) else { panic!("it came first") };
        assert!(poll!(&mut third).is_pending());
        drop(worker);
        let Poll::Ready(worker) = poll!(&mut other) else { panic!("it is the turn of its project") };
        assert!(poll!(&mut third).is_pending());
        drop(worker);
        assert!(poll!(&mut third).is_ready());
    }
}
