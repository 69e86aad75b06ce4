//! Feeds: what is followed once, for all of this process who read it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::watch;

use crate::{Fault, Tasks};

/// The state of a feed. Each change of what it follows is a new version of it.
pub trait Feed: Send + Sync + 'static {
    /// The feed has ended.
    fn failed(&mut self, fault: Fault);
}

/// Feeds by what they follow, as long as somebody reads them.
#[derive(Debug)]
pub struct SharedFeeds<K, F> {
    tasks: Tasks,
    feeds: Arc<Mutex<FeedMap<K, F>>>,
}

type FeedMap<K, F> = BTreeMap<K, Arc<watch::Sender<F>>>;

impl<K, F> Clone for SharedFeeds<K, F> {
    fn clone(&self) -> Self {
        Self { tasks: self.tasks.clone(), feeds: self.feeds.clone() }
    }
}

impl<K: Clone + Ord + Send + Sync + 'static, F: Feed> SharedFeeds<K, F> {
    /// No feeds yet; those to come are run among `tasks`.
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks, feeds: Arc::default() }
    }

    /// Reads the feed of `key`, and whether this is its first reader. It begins then as `feed`, and `follow` tells it what
    /// happens until that ends for good, or nobody reads it any more.
    pub fn read<Follow>(
        &self,
        key: &K,
        feed: F,
        follow: impl FnOnce(Arc<watch::Sender<F>>) -> Follow,
    ) -> (watch::Receiver<F>, bool)
    where
        Follow: Future<Output = Fault> + Send + 'static,
    {
        let mut feeds = self.feeds();
        if let Some(known) = feeds.get(key) {
            return (known.subscribe(), false);
        }
        let feed = Arc::new(watch::Sender::new(feed));
        let reader = feed.subscribe();
        feeds.insert(key.clone(), feed.clone());
        drop(feeds);
        let (all, key, following) = (self.clone(), key.clone(), follow(feed.clone()));
        self.spawn(async move {
            tokio::select! {
                fault = following => {
                    all.remove(&key, |_| true);
                    feed.send_modify(|feed| feed.failed(fault));
                }
                () = all.unread(&key, &feed) => {}
            }
        });
        (reader, true)
    }

    /// Reads the feed of `key`, where somebody does already.
    pub fn read_shared(&self, key: &K) -> Option<watch::Receiver<F>> {
        self.feeds().get(key).map(|feed| feed.subscribe())
    }

    /// Reads a feed of its own, which nobody else reads.
    pub fn read_alone<Follow>(
        &self,
        feed: F,
        follow: impl FnOnce(Arc<watch::Sender<F>>) -> Follow,
    ) -> watch::Receiver<F>
    where
        Follow: Future<Output = Fault> + Send + 'static,
    {
        let feed = Arc::new(watch::Sender::new(feed));
        // It is there before the task looks for it.
        let (reader, following) = (feed.subscribe(), follow(feed.clone()));
        self.spawn(async move {
            tokio::select! {
                fault = following => feed.send_modify(|feed| feed.failed(fault)),
                () = feed.closed() => {}
            }
        });
        reader
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.tasks.stop().clone();
        self.tasks.spawn("feed", async move {
            stop.run_until_cancelled(Box::pin(task)).await;
        });
    }

    /// Ends when nobody reads the feed, which is removed then.
    async fn unread(&self, key: &K, feed: &watch::Sender<F>) {
        loop {
            feed.closed().await;
            // Under the lock nobody can begin to read.
            if self.remove(key, |feed| feed.receiver_count() == 0) {
                return;
            }
        }
    }

    /// Removes a feed if it `is_meant`; whether it was removed.
    fn remove(&self, key: &K, is_meant: impl FnOnce(&watch::Sender<F>) -> bool) -> bool {
        let mut feeds = self.feeds();
        let is_removed = feeds.get(key).is_some_and(|feed| is_meant(feed));
        if is_removed {
            feeds.remove(key);
        }
        is_removed
    }

    fn feeds(&self) -> MutexGuard<'_, FeedMap<K, F>> {
        self.feeds.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::Code;

    impl Feed for u32 {
        fn failed(&mut self, _: Fault) {
            *self = 0;
        }
    }

    #[tokio::test]
    async fn a_feed_is_shared_until_nobody_reads_it() {
        let feeds = SharedFeeds::new(Tasks::default());
        let follow = |feed: Arc<watch::Sender<u32>>| async move {
            feed.send_replace(2);
            pending().await
        };
        let (mut first, is_new) = feeds.read(&"a", 1, follow);
        assert!(is_new);
        let (second, is_new) = feeds.read(&"a", 7, follow);
        assert!(!is_new && feeds.read_shared(&"b").is_none());
        first.changed().await.unwrap();
        assert_eq!((*first.borrow(), *second.borrow()), (2, 2));

        drop((first, second));
        while feeds.read_shared(&"a").is_some() {
            tokio::task::yield_now().await;
        }
        assert!(feeds.read(&"a", 1, follow).1);
    }

    #[tokio::test]
    async fn a_feed_that_failed_is_begun_anew() {
        let feeds = SharedFeeds::new(Tasks::default());
        let follow = |_| async { Fault::new(Code::Unavailable, "gone") };
        let (mut reader, _) = feeds.read(&"a", 1, follow);
        let mut alone = feeds.read_alone(1, follow);
        reader.wait_for(|feed| *feed == 0).await.unwrap();
        alone.wait_for(|feed| *feed == 0).await.unwrap();
        assert!(feeds.read(&"a", 1, follow).1, "what failed is shared no longer");
    }
}
