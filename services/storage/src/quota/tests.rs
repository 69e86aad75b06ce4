//! Accounts over each backend: changes at once, while all is counted, with failures of all kinds.

mod faults;

use bytes::Bytes;
use mesh::telemetry::Metrics;
use proto::storage::Precondition;
use query::resources::{BucketLimits, ByteSize};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    object::{Publication, Published},
    record::Record,
    tests::{on_each, path, publication},
};

fn spec(bytes: Option<u64>, files: Option<u64>) -> Spec {
    let quota = Some(FileQuota { bytes: bytes.map(ByteSize), files });
    Spec { limits: BucketLimits { quota, ..BucketLimits::default() }, ..Spec::default() }
}

/// An account without quotas.
fn account() -> Arc<Account> {
    let metrics = Metrics::default();
    let meters = QuotaMeters { usage: metrics.file_usage("shop", "files"), refused: Counter::default() };
    Arc::new(Account::new(Arc::default(), Tasks::default(), meters))
}

/// One with so many bytes, counted.
async fn limited(backend: &Backend, bytes: u64) -> Arc<Account> {
    let account = account();
    account.limit(&spec(Some(bytes), None), None);
    account.count(backend).await.expect("it can be listed");
    account
}

async fn put(
    account: &Arc<Account>,
    backend: &Backend,
    (at, size): (&str, usize),
    precondition: Option<Precondition>,
) -> Result<Published, Error> {
    let mut upload = backend.begin(Some(&path(at)), "text/plain", "{\"k\":1}").await?;
    upload.write(Bytes::from(vec![7; size])).await?;
    let publication = Publication { precondition, ..publication(at) };
    let planned = Planned::Files(vec![(path(at), Some(size as u64))]);
    account.change(backend, (planned, Vec::new()), async move { upload.publish(publication).await }).await
}

async fn delete(account: &Arc<Account>, backend: &Backend, at: &str) -> Result<(), Error> {
    let (own, of) = (backend.clone(), path(at));
    let planned = Planned::Files(vec![(path(at), None)]);
    account.change(backend, (planned, Vec::new()), async move { own.delete_file(&of, None).await }).await
}

async fn rename(account: &Arc<Account>, backend: &Backend, from: &str, to: &str) -> Result<(), Error> {
    let (own, from, to) = (backend.clone(), path(from), publication(to));
    let planned = Planned::Move { from: from.clone(), to: to.path.clone() };
    let change = async move { own.rename(&from, &to).await.unwrap_or(Err(Error::NotFound)).map(drop) };
    account.change(backend, (planned, Vec::new()), change).await
}

fn failing() -> Option<Precondition> {
    Some(Precondition { etags: vec!["another".to_owned()], ..Precondition::default() })
}

/// Bytes and files that are there.
async fn there(backend: &Backend) -> (u64, u64) {
    let mut usage = (0, 0);
    let mut next = Some(PageRequest::everything());
    while let Some(request) = next {
        let page = listed(backend, &FilePath::default(), request).await.expect("it can be listed");
        files(&page).for_each(|(_, size)| usage = (usage.0 + size, usage.1 + 1));
        next = page.following();
    }
    usage
}

fn known(account: &Account) -> (u64, u64) {
    let usage = account.state().usage(account.id).expect("it was counted");
    (usage.bytes, usage.files)
}

/// Changes of all kinds at once, by several callers, while all is counted again and again.
async fn changed_at_random(account: &Arc<Account>, backend: &Backend, seed: u64, steps: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..steps {
        let name = |random: &mut StdRng| format!("/{}/{}", random.random_range(0..3), random.random_range(0..6));
        let (at, other) = (name(&mut random), name(&mut random));
        let size = random.random_range(0..400);
        // Each of these may be refused, or find nothing.
        let _ = match random.random_range(0..10) {
            0..4 => put(account, backend, (&at, size), None).await.map(drop),
            4 => put(account, backend, (&at, size), failing()).await.map(drop),
            5 => delete(account, backend, &at).await,
            6 | 7 if at != other => rename(account, backend, &at, &other).await,
            8 => account
                .delete_folder(backend, &path(at.rsplit_once('/').expect("two names").0), Vec::new())
                .await
                .map(drop),
            _ => account.count(backend).await,
        };
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_once_never_have_more_than_the_quota() {
    let seeds = if std::env::var_os("PROVE").is_some() { 500 } else { 8 };
    on_each(|backend| async move {
        for seed in 0..seeds {
            let account = limited(&backend, 2000).await;
            let callers = (0..6).map(|caller| changed_at_random(&account, &backend, seed * 10 + caller, 25));
            let is_done = AtomicBool::new(false);
            let watching = async {
                while !is_done.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                    // What is listed while it changes may be there twice; by the account it never is.
                    let (bytes, _) = known(&account);
                    assert!(bytes <= 2000, "seed {seed}: {bytes}");
                }
            };
            let changing = async {
                futures::future::join_all(callers).await;
                is_done.store(true, Ordering::Relaxed);
            };
            tokio::join!(changing, watching);
            let found = there(&backend).await;
            assert_eq!(known(&account), found, "seed {seed}");
            assert!(found.0 <= 2000, "seed {seed}");
            account.count(&backend).await.expect("it can be listed");
            assert_eq!(known(&account), found, "seed {seed}");
            let rest = usize::try_from(2000 - found.0).expect("it is small");
            assert!(matches!(put(&account, &backend, ("/rest", rest + 1), None).await, Err(Error::Quota { .. })));
            put(&account, &backend, ("/rest", rest), None).await.expect("as much as is left has room");
            for folder in ["/0", "/1", "/2"] {
                account.delete_folder(&backend, &path(folder), Vec::new()).await.expect("it can be deleted");
            }
            delete(&account, &backend, "/rest").await.expect("it is there");
            assert_eq!(known(&account), (0, 0), "seed {seed}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_for_what_others_fail_to_write() {
    on_each(|backend| async move {
        let account = limited(&backend, 1000).await;
        for round in 0..5 {
            let writes = (0..40).map(|index| {
                let (account, backend) = (&account, &backend);
                async move {
                    let at = format!("/{round}/{index}");
                    let fails = index % 4 != 0;
                    put(account, backend, (&at, 100), fails.then(failing).flatten()).await
                }
            });
            let written = futures::future::join_all(writes).await;
            assert_eq!(written.iter().filter(|written| written.is_ok()).count(), 10, "all that can be written are");
            assert_eq!(known(&account), (1000, 10));
            account.delete_folder(&backend, &path(&format!("/{round}")), Vec::new()).await.expect("it is there");
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_goes_on_without_its_caller_and_is_settled() {
    on_each(|backend| async move {
        let account = limited(&backend, 1000).await;
        let (begin, begun) = oneshot::channel::<()>();
        let is_made = Arc::new(AtomicBool::new(false));
        let mut upload = backend.begin(Some(&path("/a")), "text/plain", "").await.expect("it begins");
        upload.write(Bytes::from(vec![7; 600])).await.expect("it goes on");
        let planned = Planned::Files(vec![(path("/a"), Some(600))]);
        let making = is_made.clone();
        let change = async move {
            making.store(true, Ordering::Relaxed);
            let _ = begun.await;
            upload.publish(publication("/a")).await
        };
        let mut changing = Box::pin(account.change(&backend, (planned, Vec::new()), change));
        while !is_made.load(Ordering::Relaxed) {
            assert!(futures::poll!(changing.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        // One that waits for it, and whose caller leaves, is not made.
        let mut waiting = Box::pin(put(&account, &backend, ("/a", 1), None));
        for _ in 0..50 {
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(waiting);
        drop(changing);
        begin.send(()).expect("the change goes on");
        while known(&account).0 == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((known(&account), there(&backend).await), ((600, 1), (600, 1)));
        // One that panics reserves nothing for ever.
        let planned = Planned::Files(vec![(path("/b"), Some(400))]);
        let panics = account.change(&backend, (planned, Vec::new()), async { panic!("on purpose") });
        let panicked: Result<(), Error> = panics.await;
        assert!(panicked.is_err());
        account.count(&backend).await.expect("it can be listed");
        put(&account, &backend, ("/c", 400), None).await.expect("there is room");
    })
    .await;
}

#[tokio::test]
async fn a_slow_change_keeps_no_other_waiting() {
    on_each(|backend| async move {
        let account = limited(&backend, 1000).await;
        let (end, ended) = oneshot::channel::<()>();
        let slow = account.change(&backend, (Planned::Files(vec![(path("/a/slow"), Some(1))]), Vec::new()), async {
            let _ = ended.await;
            Ok(())
        });
        let mut slow = Box::pin(slow);
        assert!(futures::poll!(slow.as_mut()).is_pending());
        while !account.is_busy("a/slow") {
            tokio::task::yield_now().await;
        }
        // A count of its folder waits for it, and nobody waits for the count.
        let mut counting = Box::pin(account.count(&backend));
        for _ in 0..100 {
            assert!(futures::poll!(counting.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        put(&account, &backend, ("/a/b", 10), None).await.expect("there is room");
        account.delete_folder(&backend, &path("/c"), Vec::new()).await.expect("it may be gone");
        end.send(()).expect("it waits");
        slow.await.expect("it ends");
        counting.await.expect("it can be listed");
        assert_eq!(known(&account), (10, 1));
    })
    .await;
}

#[tokio::test]
async fn what_was_there_and_what_is_unfinished_counts_once_there_is_a_quota() {
    on_each(|backend| async move {
        let account = account();
        put(&account, &backend, ("/a", 100), None).await.expect("there is no quota");
        let record = Record { path: "up".to_owned(), size: 300, ..Record::default() };
        backend.begin_upload("unfinished", &record).await.expect("it begins");
        account.limit(&spec(Some(1000), Some(3)), None);
        let waits = put(&account, &backend, ("/b", 601), None);
        let mut waits = Box::pin(waits);
        tokio::select! {
            biased;
            _ = waits.as_mut() => panic!("it was not counted"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
        // What is only deleted waits for nothing.
        delete(&account, &backend, "/a").await.expect("it is there");
        put_unlimited(&backend, "/a", 100).await;
        account.count(&backend).await.expect("it can be listed");
        assert!(matches!(waits.await, Err(Error::Quota { what: "bytes", .. })));
        put(&account, &backend, ("/b", 600), None).await.expect("there is room");
        assert!(matches!(put(&account, &backend, ("/c", 0), None).await, Err(Error::Quota { what: "files", .. })));
        assert_eq!(account.meters.refused.get(), 2);
        assert_eq!(account.size_limit(&path("/x")), Some(1000));
    })
    .await;
}

/// As another program, or another node.
async fn put_unlimited(backend: &Backend, at: &str, size: usize) {
    let mut upload = backend.begin(Some(&path(at)), "text/plain", "").await.expect("it begins");
    upload.write(Bytes::from(vec![7; size])).await.expect("it goes on");
    upload.publish(publication(at)).await.expect("it ends");
}

#[tokio::test]
async fn what_other_nodes_write_is_found_by_the_next_count() {
    on_each(|backend| async move {
        let account = limited(&backend, 1000).await;
        put_unlimited(&backend, "/other", 900).await;
        // Until then the nodes together may go over a quota.
        put(&account, &backend, ("/own", 200), None).await.expect("it is not known yet");
        account.count(&backend).await.expect("it can be listed");
        assert_eq!(known(&account), (1100, 2));
        assert!(matches!(put(&account, &backend, ("/more", 1), None).await, Err(Error::Quota { .. })));
        put(&account, &backend, ("/own", 100), None).await.expect("what shrinks is never refused");
        put(&account, &backend, ("/other", 0), None).await.expect("what shrinks is never refused");
    })
    .await;
}
