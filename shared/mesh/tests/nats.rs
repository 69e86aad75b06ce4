//! What nodes share over NATS: journals, leases, notices and events, on a real server.

#![allow(clippy::unwrap_used, clippy::large_futures, reason = "a test")]

use std::{sync::atomic::AtomicU32, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use mesh::{
    Component, ComponentState, Health, Tasks,
    bus::{
        Bus, Event, Message, Nats,
        journal::{AppendError, Followed, Journal, JournalReader, Record, RecordKind},
    },
    config::{BusConfig, Node},
    telemetry::Metrics,
};

/// The URL of the server; `None`, and a word about it, where there is none and none is demanded.
fn url() -> Option<String> {
    let url = std::env::var("TEST_NATS_URL").ok();
    if url.is_none() {
        assert!(std::env::var_os("CI").is_none(), "TEST_NATS_URL names no server");
        eprintln!("skipped: TEST_NATS_URL names no server");
    }
    url
}

/// A secret that no other mesh has.
fn secret() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}-{:?}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed), std::time::SystemTime::now())
}

async fn node(secret: &str) -> Option<Nats> {
    let config = Node::parse("test", &format!("bus: {{ kind: nats, url: '{}', changes_bytes: 1048576 }}", url()?), []);
    let BusConfig::Nats(config) = config.unwrap().bus else { panic!("NATS") };
    let (health, metrics) = (Health::default(), Metrics::default());
    let nats = Nats::connect(&config, secret.as_bytes(), &health, &metrics, &Tasks::default()).await.unwrap();
    let mut connection = nats.connection();
    let connected = tokio::time::timeout(Duration::from_secs(30), connection.wait_for(|state| state.is_up)).await;
    connected.expect("the server answers").unwrap();
    assert_eq!(health.get(&Component::Bus), Some(ComponentState::Ready));
    Some(nats)
}

fn record(kind: RecordKind, position: u8, payload: impl Into<Bytes>) -> Record {
    let tables = vec!["a table".to_owned(), "b".to_owned()];
    Record { kind, position: vec![position].into(), tables, payload: payload.into() }
}

fn found(position: u8) -> Record {
    record(RecordKind::Found, position, vec![position])
}

async fn next(reader: &mut JournalReader) -> Followed {
    tokio::time::timeout(Duration::from_secs(30), reader.next()).await.expect("there is a record")
}

/// Positions of the next records, and whether each follows the one before.
async fn positions(reader: &mut JournalReader, count: usize) -> Vec<(u8, bool)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let Followed { position, is_next, .. } = next(reader).await;
        all.push((position[0], is_next));
    }
    all
}

/// The stream of a journal, as an operator reaches it.
async fn stream(secret: &str) -> async_nats::jetstream::stream::Stream {
    let client = async_nats::connect(url().unwrap()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    context.get_stream(stream_name(secret)).await.unwrap()
}

fn stream_name(secret: &str) -> String {
    let key = blake3::derive_key("perigee 2026-11 name of a mesh on its bus", secret.as_bytes());
    let mesh: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CHANGES_{mesh}_p_a-2eb-3e")
}

fn journal(nats: &Nats) -> Journal {
    nats.changes("p", "a.b>")
}

#[tokio::test]
async fn what_is_written_is_read_in_its_order_by_all_and_large_records_are_whole() {
    let secret = secret();
    let Some(one) = node(&secret).await else { return };
    let two = node(&secret).await.unwrap();
    let (written, mut reader) = (journal(&one), journal(&two).follow());
    let end = written.end().await.unwrap();
    assert!(end.is_unknown());
    let mut appender = written.append_after(&end);
    let large: Vec<u8> = (0..700_000_u32).map(|at| at as u8).collect();
    let records =
        [found(1), record(RecordKind::Found, 2, large.clone()), record(RecordKind::State, 2, "state"), found(3)];
    assert_eq!(appender.append(&records).await, Ok(6));

    assert_eq!(positions(&mut reader, 1).await, [(1, false)]);
    let whole = next(&mut reader).await;
    assert_eq!((whole.position, whole.payload, whole.is_next), (vec![2].into(), Some(large.into()), true));
    assert_eq!(positions(&mut reader, 2).await, [(2, true), (3, true)]);
    let end = written.end().await.unwrap();
    assert_eq!((end.position, end.state), (Some(vec![3].into()), Some("state".into())));
    let stream = stream(&secret).await;
    let config = &stream.cached_info().config;
    assert_eq!((config.max_bytes, config.max_age), (1 << 20, Duration::from_secs(600)));
    let first = stream.get_raw_message(1).await.unwrap();
    assert!(first.subject.ends_with(".p.a-2eb-3e"), "{}", first.subject);
    assert_eq!(first.headers.get("Perigee-Tables").unwrap().as_str(), "a-20table,b");
    // Another mesh on the server sees nothing of it.
    let other = node(&self::secret()).await.unwrap();
    assert!(journal(&other).end().await.unwrap().is_unknown());
}

#[tokio::test]
async fn only_one_of_two_writers_goes_on_and_what_both_write_is_there_once() {
    let secret = secret();
    let Some(nats) = node(&secret).await else { return };
    let written = journal(&nats);
    let end = written.end().await.unwrap();
    let (mut one, mut other) = (written.append_after(&end), written.append_after(&end));
    assert_eq!(one.append(&[found(1), found(2)]).await, Ok(2));
    // As if the answer had been lost.
    assert_eq!(other.append(&[found(1), found(2)]).await, Ok(2));
    assert_eq!(one.append(&[found(3)]).await, Ok(1));
    // Of what comes after a record that is refused, nothing is written.
    assert_eq!(other.append(&[found(4), found(5), found(6)]).await, Err(AppendError::Moved));
    let end = written.end().await.unwrap();
    let mut next = written.append_after(&end);
    assert_eq!(next.append(&[record(RecordKind::State, 3, "")]).await, Ok(1));
    assert_eq!(one.append(&[found(4)]).await, Err(AppendError::Moved));
    assert_eq!(next.append(&[found(7)]).await, Ok(1));
    let mut reader = written.follow();
    let all = positions(&mut reader, 5).await;
    assert_eq!(all, [(1, false), (2, true), (3, true), (3, true), (7, true)]);
}

#[tokio::test]
async fn a_reader_knows_whether_it_missed_anything() {
    let secret = secret();
    let Some(nats) = node(&secret).await else { return };
    let written = journal(&nats);
    let mut appender = written.append_after(&written.end().await.unwrap());
    let (mut keen, mut slow) = (written.follow(), written.follow());
    appender.append(&[found(1)]).await.unwrap();
    assert_eq!(positions(&mut keen, 1).await, [(1, false)]);
    assert_eq!(positions(&mut slow, 1).await, [(1, false)]);
    drop(slow);
    // What all have taken is removed.
    stream(&secret).await.purge().await.unwrap();
    appender.append(&[found(2), found(3)]).await.unwrap();
    assert_eq!(positions(&mut keen, 2).await, [(2, true), (3, true)]);
    // The stream is gone, with all that it had: the writer finds that out, and begins anew.
    let client = async_nats::connect(url().unwrap()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream(stream_name(&secret)).await.unwrap();
    assert_eq!(appender.append(&[found(4)]).await, Err(AppendError::Moved));
    let end = written.end().await.unwrap();
    assert!(end.is_unknown());
    let mut anew = written.append_after(&end);
    anew.append(&[found(5), found(6)]).await.unwrap();
    assert_eq!(positions(&mut keen, 2).await, [(5, false), (6, true)]);
}

#[tokio::test]
async fn limits_that_a_stranger_moved_are_set_again() {
    let secret = secret();
    let Some(nats) = node(&secret).await else { return };
    journal(&nats).end().await.unwrap();
    let client = async_nats::connect(url().unwrap()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let config = stream(&secret).await.cached_info().config.clone();
    let moved = async_nats::jetstream::stream::Config { max_bytes: -1, max_age: Duration::ZERO, ..config };
    context.update_stream(&moved).await.unwrap();
    journal(&nats).end().await.unwrap();
    let config = stream(&secret).await.cached_info().config.clone();
    assert_eq!((config.max_bytes, config.max_age), (1 << 20, Duration::from_secs(600)));
}

#[tokio::test]
async fn a_lease_has_one_holder_and_is_taken_over() {
    let secret = secret();
    let Some(one) = node(&secret).await else { return };
    let two = node(&secret).await.unwrap();
    let (one, two) = (one.election("p", "d"), two.election("p", "d"));
    let mut lease = one.win().await;
    {
        let winning = two.win();
        tokio::pin!(winning);
        // It is renewed for longer than it holds without.
        tokio::select! {
            _ = &mut winning => panic!("two holders"),
            () = lease.keep() => panic!("it is lost"),
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        lease.release().await;
        let won = tokio::time::timeout(Duration::from_secs(20), winning).await;
        lease = won.expect("it was given back");
    }
    // Without a renewal it runs out, and the holder finds that out.
    let mut other = tokio::time::timeout(Duration::from_secs(20), one.win()).await.expect("it ran out");
    tokio::time::timeout(Duration::from_secs(20), lease.keep()).await.expect("it is known to be lost");
    assert!(tokio::time::timeout(Duration::from_secs(2), other.keep()).await.is_err());
}

#[tokio::test]
async fn notices_are_known_to_who_comes_later_until_they_are_taken_back() {
    let secret = secret();
    let Some(one) = node(&secret).await else { return };
    let two = node(&secret).await.unwrap();
    let (name, other) = (one.node().to_owned(), two.node().to_owned());
    let (first, second) = (one.election("p", "d"), two.election("p", "d"));
    first.notice("a".into()).await.unwrap();
    let mut notices = first.notices().await.unwrap();
    notices.changed().await.unwrap();
    assert_eq!(notices.values().collect::<Vec<_>>(), [(&*name, &"a".into())]);
    second.notice("b".into()).await.unwrap();
    two.election("p", "other").notice("c".into()).await.unwrap();
    notices.changed().await.unwrap();
    first.withdraw().await.unwrap();
    notices.changed().await.unwrap();
    assert_eq!(notices.values().collect::<Vec<_>>(), [(&*other, &"b".into())]);
}

#[tokio::test]
async fn events_reach_other_nodes_and_this_one_once() {
    let secret = secret();
    let Some(one) = node(&secret).await else { return };
    let (one, two) = (Bus::Nats(one), Bus::Nats(node(&secret).await.unwrap()));
    let (mut here, mut there) = (one.subscribe("schema"), two.subscribe("schema"));
    // A subscription of the server may be there a moment later.
    let message = Event::Message(Message { subject: "schema.changed".to_owned(), payload: "p/d".into() });
    let heard = loop {
        one.publish("other", "x");
        one.publish("schema.changed", "p/d");
        assert_eq!(here.next().await, Some(message.clone()));
        match tokio::time::timeout(Duration::from_millis(200), there.next()).await {
            Ok(Some(Event::Lagged(0))) | Err(_) => {}
            Ok(heard) => break heard,
        }
    };
    assert_eq!(heard, Some(message));
}
