//! Fault runs: files that are written, replaced, moved and deleted in every way, over a store that fails at any step.

mod failing;

use std::collections::{BTreeMap, HashSet};

use failing::Failing;
use futures::TryStreamExt;
use object_store::ObjectStore;

use super::*;
use crate::{read::Parts, remote::Remote};

/// What a file may be: the bytes of one write, or nothing.
type Contents = HashSet<Option<Vec<u8>>>;

/// What may be there: whatever was acknowledged last, and all that was tried since.
#[derive(Default)]
struct Expected(BTreeMap<String, Contents>);

impl Expected {
    fn of(&mut self, at: &str) -> &mut Contents {
        self.0.entry(at.to_owned()).or_insert_with(|| Contents::from([None]))
    }

    fn tried(&mut self, at: &str, content: Option<Vec<u8>>, is_done: bool) {
        let known = self.of(at);
        if is_done {
            known.clear();
        }
        known.insert(content);
    }
}

struct FaultRun {
    random: StdRng,
    store: Failing,
    backend: Backend,
    account: Arc<Account>,
    expected: Expected,
    uploads: Vec<String>,
}

impl FaultRun {
    async fn new(seed: u64) -> Self {
        let (random, store) = (StdRng::seed_from_u64(seed), Failing::new(seed ^ 0x5eed));
        let backend = Backend::Remote(Remote::with(Arc::new(store.clone()), "in", Tasks::default()));
        store.fail(false);
        let account = limited(&backend, 40_000_000).await;
        store.fail(true);
        Self { random, store, backend, account, expected: Expected::default(), uploads: Vec::new() }
    }

    fn path(&mut self) -> String {
        format!("/{}/{}", self.random.random_range(0..2), self.random.random_range(0..3))
    }

    /// Bytes that no other write has. Some are several parts of a multipart upload.
    fn content(&mut self) -> Vec<u8> {
        let size = if self.random.random_bool(0.1) { 5_300_000 } else { self.random.random_range(8..3000) };
        let mut content = vec![self.random.random(); size];
        content[..8].copy_from_slice(&self.random.random::<u64>().to_le_bytes());
        content
    }

    async fn put(&mut self) {
        let (at, content) = (self.path(), self.content());
        let written = async {
            let mut upload = self.backend.begin(Some(&path(&at)), "text/plain", "").await?;
            for piece in content.chunks(1 << 20) {
                upload.write(Bytes::copy_from_slice(piece)).await?;
            }
            let publication = Publication { meta: String::new(), ..publication(&at) };
            let planned = Planned::Files(vec![(path(&at), Some(content.len() as u64))]);
            self.account
                .change(&self.backend, (planned, Vec::new()), async move { upload.publish(publication).await })
                .await
        };
        let is_done = written.await.is_ok();
        self.expected.tried(&at, Some(content), is_done);
    }

    /// A resumable upload, whose streams are cut and come again.
    async fn upload(&mut self) {
        let (at, content) = (self.path(), self.content());
        let name = crate::record::name(&path(&at), "");
        let record = Record { path: at[1..].to_owned(), size: content.len() as u64, ..Record::default() };
        self.uploads.push(name.clone());
        let uploaded = async {
            self.account.hold_upload(&name, &path(&at), || Some(record.size)).await?;
            self.backend.begin_upload(&name, &record).await?;
            for _ in 0..6 {
                // What a stream before has left is kept by a task of its own.
                tokio::task::yield_now().await;
                let Ok(mut append) = self.backend.resume_upload(&name, false).await else { continue };
                let from = usize::try_from(append.offset()).expect("it is small");
                assert!(from <= content.len());
                let wrote = append.write(Bytes::copy_from_slice(&content[from..])).await;
                let Ok(append) = append.keep().await else { continue };
                if wrote.is_err() || append.offset() != record.size {
                    continue;
                }
                let publication = Publication { meta: String::new(), ..publication(&at) };
                let joined = append.joined(&publication).await?;
                let planned = Planned::Files(vec![(path(&at), Some(record.size))]);
                let publish = async move { joined.publish(publication).await };
                return self.account.change(&self.backend, (planned, vec![name.clone()]), publish).await.map(drop);
            }
            Err(Error::BrokenOff)
        };
        let is_done = uploaded.await.is_ok();
        self.expected.tried(&at, Some(content), is_done);
    }

    async fn delete(&mut self) {
        let at = self.path();
        let is_done = delete(&self.account, &self.backend, &at).await.is_ok();
        self.expected.tried(&at, None, is_done);
    }

    async fn delete_folder(&mut self) {
        let folder = format!("/{}", self.random.random_range(0..2));
        let is_done = self.account.delete_folder(&self.backend, &path(&folder), Vec::new()).await.is_ok();
        for file in 0..3 {
            self.expected.tried(&format!("{folder}/{file}"), None, is_done);
        }
    }

    /// Without failures, everything that is seen is whole, and nothing that was acknowledged is lost.
    async fn check(&mut self, seed: u64) {
        self.store.fail(false);
        for (at, contents) in &mut self.expected.0 {
            let found = match self.backend.read(&path(at)).await {
                Err(Error::NotFound) => None,
                read => {
                    let (_, reader) = read.expect("it can be read");
                    let pieces: Vec<Bytes> = reader.parts(Parts::Whole).try_collect().await.expect("it can be read");
                    Some(pieces.concat())
                }
            };
            assert!(contents.contains(&found), "seed {seed}: {at} has {:?} bytes", found.map(|found| found.len()));
            // A request whose answer was lost is not done later.
            *contents = Contents::from([found]);
        }
        let (there, known) = (there(&self.backend).await, known(&self.account));
        assert!(known.0 >= there.0 && known.1 >= there.1, "seed {seed}: {known:?} are known of {there:?}");
        self.store.fail(true);
    }

    /// Without failures, nothing is left but the files.
    async fn end(mut self, seed: u64) {
        self.check(seed).await;
        self.store.fail(false);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        for name in std::mem::take(&mut self.uploads) {
            self.backend.drop_upload(&name).await.expect("it can be removed");
        }
        self.backend.sweep(0).await.expect("it can be swept");
        self.account.count(&self.backend).await.expect("it can be listed");
        assert_eq!(known(&self.account), there(&self.backend).await, "seed {seed}");
        let left: Vec<_> = self.store.list(None).try_collect().await.expect("it can be listed");
        let left = left.iter().filter(|object| object.location.as_ref().contains(".perigee/"));
        assert_eq!(left.count(), 0, "seed {seed}: something is left");
    }
}

#[tokio::test]
async fn a_store_that_fails_loses_nothing_and_shows_no_part_of_a_file() {
    let seeds = if std::env::var_os("PROVE").is_some() { 3000 } else { 60 };
    for seed in 0..seeds {
        let mut run = FaultRun::new(seed).await;
        for step in 0..30 {
            match run.random.random_range(0..10) {
                0..4 => run.put().await,
                4..7 => run.upload().await,
                7 | 8 => run.delete().await,
                _ => run.delete_folder().await,
            }
            if step % 5 == 4 {
                run.check(seed).await;
            }
        }
        run.end(seed).await;
    }
}
