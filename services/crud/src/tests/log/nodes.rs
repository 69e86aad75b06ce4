//! Nodes that share a database and a bus: one of them reads the log, whichever it is, and all tell the same.

use std::time::Instant;

use query::resources::ChangesSource;

use super::*;

/// Two nodes of a mesh with one database, and one that has it alone; for each source of its log.
async fn nodes() -> Vec<[Db; 3]> {
    let mut all = Vec::new();
    for source in [ChangesSource::Triggers, ChangesSource::Slot] {
        all.extend(nodes_by(source).await);
    }
    all
}

/// As [`nodes`], with a log that is read from a source.
async fn nodes_by(source: ChangesSource) -> Option<[Db; 3]> {
    let alone = crate::tests::support::postgres(&crate::tests::postgres_url()?).await;
    let one = over_nats(&alone, source).await?;
    let two = same_schema(&one).await;
    Some([one, two, alone])
}

async fn insert(db: &Db, id: i64) {
    db.execute(&format!("INSERT INTO {}artist VALUES ({id}, 'x')", db.prefix())).await;
}

fn inserted(id: i64) -> [String; 1] {
    [format!(r#"artist + {{"artist_id":{id},"name":"x"}}"#)]
}

/// The bus, as an operator has it.
async fn admin() -> async_nats::jetstream::Context {
    let client = async_nats::connect(crate::tests::nats_url().unwrap()).await.unwrap();
    async_nats::jetstream::new(client)
}

/// The stream of the changes of a mesh: that which has this number of an artist in its last transaction.
async fn stream(context: &async_nats::jetstream::Context, id: i64) -> async_nats::jetstream::stream::Stream {
    let text = format!("\"artist_id\":{id},");
    let mut names = context.stream_names();
    while let Some(name) = names.next().await {
        let Ok(stream) = context.get_stream(name.unwrap()).await else { continue };
        let config = &stream.cached_info().config;
        let Some(subject) = config.subjects.first().filter(|subject| subject.starts_with("cdc.")) else { continue };
        let last = stream.get_last_raw_message_by_subject(subject).await;
        if last.is_ok_and(|last| String::from_utf8_lossy(&last.payload).contains(&text)) {
            return stream;
        }
    }
    panic!("no stream has artist {id}");
}

#[tokio::test]
async fn a_position_of_one_node_is_good_on_all() {
    for [one, two, alone] in nodes().await {
        let mut first = Follower::of(&one, &["artist"], Bytes::new()).await;
        let mut second = Follower::of(&two, &["artist"], Bytes::new()).await;
        for id in 100..110 {
            insert(&alone, id).await;
            assert_eq!(first.changes().await, inserted(id));
            assert_eq!(second.changes().await, inserted(id));
            assert_eq!(first.position, second.position, "one node reads for both");
            let mut other =
                Follower::of(if id % 2 == 0 { &two } else { &one }, &["artist"], first.position.clone()).await;
            insert(&alone, id + 100).await;
            for follower in [&mut other, &mut first, &mut second] {
                assert_eq!(follower.changes().await, inserted(id + 100));
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_takes_over_goes_on_where_the_one_before_was() {
    for [one, two, alone] in nodes().await {
        let mut first = Follower::of(&one, &["artist"], Bytes::new()).await;
        insert(&alone, 100).await;
        assert_eq!(first.changes().await, inserted(100));
        let mut second = Follower::of(&two, &["artist"], first.position.clone()).await;

        one.tasks.begin_drain();
        for id in 101..160 {
            insert(&alone, id).await;
        }
        for id in 101..160 {
            assert_eq!(second.changes().await, inserted(id));
        }
        // What the one before told is a position of the next, and a node that comes finds the same.
        let three = same_schema(&two).await;
        let mut third = Follower::of(&three, &["artist"], first.position.clone()).await;
        for id in 101..160 {
            assert_eq!(third.changes().await, inserted(id));
        }
        assert_eq!(third.position, second.position);
        assert!(second.is_idle() && third.is_idle());
    }
}

/// A follower of a table that may be refused a while longer: whoever reads the log may not know yet that it has changed.
async fn once_followed(db: &Db, table: &str) -> Follower {
    for _ in 0..100 {
        let mut follower = Follower::not_started(db, &[table], Bytes::new());
        match follower.next().await {
            Ok(Event::Started(_)) => return follower,
            Err(Error::Query(_) | Error::Refused { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other:?}"),
        }
    }
    panic!("{table} is refused for good");
}

#[tokio::test]
async fn a_table_that_cannot_be_followed_is_refused_on_each_node_and_tried_again() {
    for [one, two, alone] in nodes().await {
        let kept = Follower::of(&one, &["artist"], Bytes::new()).await;
        for db in [&two, &one] {
            let refused = Follower::not_started(db, &["titles"], Bytes::new()).next().await.unwrap_err();
            assert!(matches!(&refused, Error::Query(_)), "{refused:?}");
            assert!(refused.to_string().starts_with("changes of titles cannot be followed: "), "{refused}");
        }
        let s = alone.prefix();
        alone.execute(&format!("DROP VIEW {s}titles")).await;
        alone.execute(&format!("CREATE TABLE {s}titles (title TEXT PRIMARY KEY)")).await;
        for db in [&one, &two] {
            db.database.refresh().await.unwrap();
        }
        let mut log = once_followed(&two, "titles").await;
        alone.execute(&format!("INSERT INTO {s}titles VALUES ('a')")).await;
        assert_eq!(log.changes().await, [r#"titles + {"title":"a"}"#]);
        drop(kept);
    }
}

#[tokio::test]
async fn what_a_purge_takes_that_all_have_seen_is_missed_by_nobody() {
    for [one, two, alone] in nodes().await {
        let mut logs =
            [Follower::of(&one, &["artist"], Bytes::new()).await, Follower::of(&two, &["artist"], Bytes::new()).await];
        insert(&alone, 4711).await;
        for log in &mut logs {
            assert_eq!(log.changes().await, inserted(4711));
        }
        stream(&admin().await, 4711).await.purge().await.unwrap();
        insert(&alone, 101).await;
        for log in &mut logs {
            assert_eq!(log.changes().await, inserted(101));
            assert!(log.is_idle());
        }
    }
}

#[tokio::test]
async fn a_journal_that_is_lost_is_one_resync_and_all_that_follows_is_told() {
    for [one, two, alone] in nodes().await {
        let mut logs =
            [Follower::of(&one, &["artist"], Bytes::new()).await, Follower::of(&two, &["artist"], Bytes::new()).await];
        insert(&alone, 4712).await;
        for log in &mut logs {
            assert_eq!(log.changes().await, inserted(4712));
        }
        let context = admin().await;
        let name = stream(&context, 4712).await.cached_info().config.name.clone();
        context.delete_stream(name).await.unwrap();
        for log in &mut logs {
            let resync = log.resync().await;
            assert_eq!((resync.reason(), resync.tables), (ResyncReason::LogLost, vec![]));
        }
        for id in 101..110 {
            insert(&alone, id).await;
            for log in &mut logs {
                assert_eq!(log.changes().await, inserted(id));
            }
        }
        assert!(logs.iter_mut().all(Follower::is_idle));
        // A position of before is not known any more.
        let [first, _] = logs;
        let mut again = Follower::of(&two, &["artist"], first.position.clone()).await;
        insert(&alone, 200).await;
        assert_eq!(again.changes().await, inserted(200));
    }
}

#[tokio::test]
async fn a_record_that_is_not_understood_is_a_resync() {
    for [one, two, alone] in nodes().await {
        let mut logs =
            [Follower::of(&one, &["artist"], Bytes::new()).await, Follower::of(&two, &["artist"], Bytes::new()).await];
        insert(&alone, 4713).await;
        for log in &mut logs {
            assert_eq!(log.changes().await, inserted(4713));
        }
        let context = admin().await;
        let stream = stream(&context, 4713).await;
        let subject = stream.cached_info().config.subjects[0].clone();
        // As of a later version: it follows the last one, whoever else writes.
        loop {
            let info = stream.get_info().await.unwrap();
            let last = stream.get_raw_message(info.state.last_sequence).await.unwrap();
            let header = |name: &str| last.headers.get(name).unwrap().as_str().to_owned();
            let publish = async_nats::jetstream::message::PublishMessage::build()
                .payload(Bytes::from_static(&[0xff; 9]))
                .message_id("later")
                .header("Perigee-Before", header("Nats-Msg-Id"))
                .header("Perigee-Position", header("Perigee-Position"))
                .expected_last_sequence(last.sequence);
            if context.send_publish(subject.clone(), publish).await.unwrap().await.is_ok() {
                break;
            }
        }
        for log in &mut logs {
            assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
        }
        insert(&alone, 101).await;
        for log in &mut logs {
            assert_eq!(log.changes().await, inserted(101));
        }
    }
}

#[tokio::test]
async fn a_follower_that_is_too_slow_is_told_once_whichever_node_reads() {
    for [one, two, alone] in nodes().await {
        let (s, begun) = (alone.prefix(), Instant::now());
        alone.execute(&format!("ALTER TABLE {s}artist ALTER name TYPE TEXT")).await;
        let mut slow = Follower::of(&two, &["artist"], Bytes::new()).await;
        let mut keen = Follower::of(&one, &["artist"], Bytes::new()).await;
        // More than a ring has, and more than the journal keeps.
        for id in 100..180 {
            alone.execute(&format!("INSERT INTO {s}artist VALUES ({id}, repeat('x', 1000000))")).await;
            assert_eq!(keen.changes().await.len(), 1);
        }
        insert(&alone, 200).await;
        assert_eq!(keen.changes().await, inserted(200));
        assert_eq!(slow.resync().await.reason(), ResyncReason::Overflow, "{:?}", begun.elapsed());
        insert(&alone, 201).await;
        let mut told = slow.changes().await;
        // Its node may not have had the one before when it told of the overflow.
        if told == inserted(200) {
            told = slow.changes().await;
        }
        assert_eq!(told, inserted(201));
        assert!(slow.is_idle());
    }
}
