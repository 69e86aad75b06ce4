//! Leases: who of several nodes does what one is to do; and notices, by which nodes tell it what they want.
//!
//! Both are keys of a bucket whose entries expire. A lease is renewed; one whose revision stays the same for [`LEASE_TIME`], by
//! the clock of the node that waits, is taken over, which the old holder finds out by the revision. So no clocks are
//! compared. A holder that cannot renew gives up before others take over.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{
    kv::{self, CreateErrorKind, Operation, Store, UpdateErrorKind},
    stream::StorageType,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::{Bus, Message, Nats, Subscription, subject::word};

/// How long a lease is held without being renewed.
pub const LEASE_TIME: Duration = Duration::from_secs(3);
/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_millis(700);
/// How often others look at it.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// How long without a renewal a holder takes it for lost.
const HOLD_TIME: Duration = Duration::from_secs(2);
/// How often a notice is repeated.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a notice counts without being repeated.
pub const NOTICE_TIME: Duration = Duration::from_secs(20);
/// How long the server keeps an entry that is not renewed.
const ENTRY_AGE: Duration = Duration::from_secs(60);
/// Most bytes of all entries.
const BUCKET_BYTES: i64 = 16 << 20;
/// Back-off after a failure.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// What is elected for and noticed about: one database of a project, or events of changes of rows.
#[derive(Debug, Clone)]
pub struct Election {
    nats: Nats,
    /// The words of the project and the database.
    name: String,
}

/// A lease that is held. Dropped without [`Lease::release`], it runs out.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    key: String,
    holder: Bytes,
    revision: u64,
    /// When the renewal began that succeeded last.
    renewed: Instant,
}

/// What nodes have told that they want, as far as they have lately.
pub struct Notices {
    watch: kv::Watch,
    prefix: String,
    by_node: BTreeMap<String, (Bytes, Instant)>,
}

impl Nats {
    /// The election of the node that reads the changes of a database.
    pub fn election(&self, project: &str, database: &str) -> Election {
        Election { nats: self.clone(), name: format!("{}.{}", word(project), word(database)) }
    }

    /// Notices of the nodes that make events of changes of rows.
    pub fn election_of_events(&self) -> Election {
        Election { nats: self.clone(), name: "events".to_owned() }
    }
}

impl Election {
    /// Hash of what it is, in sixteen hexadecimal digits: no other one of this mesh has it, nor any of another mesh.
    pub fn id(&self) -> String {
        let hash = blake3::derive_key(
            "perigee 2026-11 id of an election",
            format!("{}.{}", self.nats.mesh(), self.name).as_bytes(),
        );
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bucket; it is made where there is none.
    async fn store(&self) -> Result<Store, String> {
        let config = kv::Config {
            bucket: format!("perigee_{}", self.nats.mesh()),
            description: "Who reads the changes of which database, and for whom".to_owned(),
            history: 1,
            max_age: ENTRY_AGE,
            max_bytes: BUCKET_BYTES,
            storage: StorageType::Memory,
            num_replicas: 1,
            ..kv::Config::default()
        };
        let bucket = config.bucket.clone();
        let opened = match self.nats.context().get_key_value(&bucket).await {
            Ok(store) => Ok(store),
            Err(_) => {
                let made = Box::pin(self.nats.context().create_key_value(config)).await;
                made.map_err(|error| error.to_string())
            }
        };
        self.nats.noted(&bucket, opened)
    }

    /// Waits until this node is the one. Cancel safe.
    pub async fn win(&self) -> Lease {
        let key = format!("reader.{}", self.name);
        let holder = Bytes::copy_from_slice(self.nats.node().as_bytes());
        let (mut store, mut seen): (Option<Store>, Option<(u64, Instant)>) = (None, None);
        loop {
            match Box::pin(self.contend(&mut store, &key, &holder, &mut seen)).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => tokio::time::sleep(WATCH_INTERVAL).await,
                Err(error) => {
                    // The bucket may have to be made anew.
                    store = None;
                    tracing::debug!(error, "no reader of changes can be elected now");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn contend(
        &self,
        store: &mut Option<Store>,
        key: &str,
        holder: &Bytes,
        seen: &mut Option<(u64, Instant)>,
    ) -> Result<Option<Lease>, String> {
        if store.is_none() {
            *store = Some(Box::pin(self.store()).await?);
        }
        let Some(store) = store.clone() else { return Ok(None) };
        let renewed = Instant::now();
        let entry = Box::pin(store.entry(key)).await.map_err(|error| error.to_string())?;
        let won = match entry.filter(|entry| entry.operation == Operation::Put) {
            None => match Box::pin(store.create(key, holder.clone())).await {
                Ok(revision) => Some(revision),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => None,
                Err(error) => return Err(error.to_string()),
            },
            Some(entry) => match *seen {
                Some((revision, since)) if revision == entry.revision => {
                    if renewed.duration_since(since) < LEASE_TIME {
                        return Ok(None);
                    }
                    match Box::pin(store.update(key, holder.clone(), revision)).await {
                        Ok(revision) => Some(revision),
                        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => None,
                        Err(error) => return Err(error.to_string()),
                    }
                }
                _ => {
                    *seen = Some((entry.revision, Instant::now()));
                    None
                }
            },
        };
        let (key, holder) = (key.to_owned(), holder.clone());
        Ok(won.map(|revision| Lease { store, key, holder, revision, renewed }))
    }

    /// Tells the reader what this node wants, for [`NOTICE_TIME`].
    pub async fn notice(&self, value: Bytes) -> Result<(), String> {
        let store = Box::pin(self.store()).await?;
        let put = store.put(format!("notice.{}.{}", self.name, self.nats.node()), value).await;
        put.map(drop).map_err(|error| error.to_string())
    }

    /// Takes back what this node told.
    pub async fn withdraw(&self) -> Result<(), String> {
        let store = Box::pin(self.store()).await?;
        let deleted = store.delete(format!("notice.{}.{}", self.name, self.nats.node())).await;
        deleted.map_err(|error| error.to_string())
    }

    /// Tells the reader that something was committed here: it need not wait until it looks. This may be lost.
    pub fn committed(&self) {
        self.nats.publish(Message { subject: self.commits_subject(), payload: Bytes::new() });
    }

    /// What was committed by other nodes, as they tell it.
    pub fn commits(&self) -> Subscription {
        Bus::Nats(self.nats.clone()).subscribe(self.commits_subject())
    }

    fn commits_subject(&self) -> String {
        format!("committed.{}", self.name)
    }

    /// What all nodes tell that they want: what they told before, too.
    pub async fn notices(&self) -> Result<Notices, String> {
        let prefix = format!("notice.{}.", self.name);
        let store = Box::pin(self.store()).await?;
        let watch = Box::pin(store.watch_with_history(format!("{prefix}*"))).await;
        Ok(Notices { watch: watch.map_err(|error| error.to_string())?, prefix, by_node: BTreeMap::new() })
    }
}

impl Lease {
    /// Keeps the lease until it is lost. Cancel safe.
    pub async fn keep(&mut self) {
        loop {
            tokio::time::sleep(RENEW_INTERVAL).await;
            while !self.renew().await {
                if self.renewed.elapsed() >= HOLD_TIME {
                    return;
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            if self.revision == 0 {
                return;
            }
        }
    }

    /// Renews it once; whether the server answered. The revision is 0 where another has taken over.
    async fn renew(&mut self) -> bool {
        let begun = Instant::now();
        let left = HOLD_TIME.saturating_sub(self.renewed.elapsed());
        let renewing = self.store.update(&self.key, self.holder.clone(), self.revision);
        match tokio::time::timeout(left, renewing).await {
            Ok(Ok(revision)) => {
                (self.revision, self.renewed) = (revision, begun);
                true
            }
            // Perhaps by a renewal of ours whose answer was lost: then it is won again.
            Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                self.revision = 0;
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Gives the lease back, for the next to take it at once.
    pub async fn release(self) {
        let deleted = self.store.delete_expect_revision(&self.key, Some(self.revision));
        if self.revision != 0
            && let Err(error) = deleted.await
        {
            tracing::debug!(%error, "a lease was not given back: it runs out");
        }
    }
}

impl Notices {
    /// Waits for the next notice, or for the end of one. Cancel safe. Errors: no more will come of this.
    pub async fn changed(&mut self) -> Result<(), String> {
        loop {
            let next = self.by_node.values().map(|(_, since)| *since + NOTICE_TIME).min();
            let expired = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                entry = self.watch.next() => return self.take(entry),
                () = expired => {
                    let before = self.by_node.len();
                    self.by_node.retain(|_, (_, since)| since.elapsed() < NOTICE_TIME);
                    if self.by_node.len() < before {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn take(&mut self, entry: Option<Result<kv::Entry, kv::WatcherError>>) -> Result<(), String> {
        let entry = entry.ok_or("the watch has ended")?.map_err(|error| error.to_string())?;
        let Some(node) = entry.key.strip_prefix(&self.prefix).map(str::to_owned) else { return Ok(()) };
        match entry.operation {
            Operation::Put => _ = self.by_node.insert(node, (entry.value, Instant::now())),
            Operation::Delete | Operation::Purge => _ = self.by_node.remove(&node),
        }
        Ok(())
    }

    /// What each node wants.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.by_node.iter().map(|(node, (value, _))| (node.as_str(), value))
    }
}
