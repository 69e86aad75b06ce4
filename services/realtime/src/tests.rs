//! What a watch promises, over neighbours that are told what happens.

mod stage;

use std::time::{Duration, SystemTime};

use mesh::Code;
use proto::crud::ResyncReason;
use query::{Columns, Comparison, Field, Filter, RuleFilter, Typed, Value};
use serde_json::{Value as Json, json};

use self::stage::{Message, Rule, Stage, filtered, owned, request};

fn note(id: i64, owner: &str, text: &str) -> Json {
    json!({ "id": id, "owner": owner, "text": text })
}

fn gone(id: i64) -> Json {
    json!({ "id": id, "owner": null, "text": null })
}

fn of(owner: &str) -> Filter {
    let value = Typed::Text(owner.to_owned());
    Filter::Compare { column: "owner".to_owned(), comparison: Comparison::Eq, value }
}

/// A condition that the database alone decides.
fn after(text: &str) -> Filter {
    let value = Typed::Text(text.to_owned());
    Filter::Compare { column: "text".to_owned(), comparison: Comparison::Gt, value }
}

const READY: Message = ("ready", Json::Null, Json::Null);

#[tokio::test]
async fn a_watch_tells_the_rows_that_there_are_and_every_later_change() {
    let stage = Stage::new();
    stage.world.insert(note(1, "ann", "a"));
    let mut watch = stage.watch(request("")).await.unwrap();
    assert_eq!(watch.take(2).await, [("initial", note(1, "ann", "a"), Json::Null), READY]);
    stage.world.insert(note(2, "bob", "b"));
    stage.world.commit(&[(Some(note(1, "ann", "a")), Some(note(1, "ann", "c"))), (Some(note(2, "bob", "b")), None)]);
    let expected = [
        ("insert", note(2, "bob", "b"), Json::Null),
        ("update", note(1, "ann", "c"), note(1, "ann", "a")),
        ("delete", gone(2), note(2, "bob", "b")),
    ];
    assert_eq!(watch.take(3).await, expected);
}

#[tokio::test]
async fn both_images_decide_what_a_change_is() {
    let stage = Stage::new();
    let mut watch = stage.watch(filtered("", of("ann"))).await.unwrap();
    assert_eq!(watch.next().await, Ok(READY));
    let (hers, his) = (|text: &str| note(1, "ann", text), note(1, "bob", "x"));
    stage.world.insert(his.clone());
    // Entering, changing twice in one transaction, leaving.
    stage.world.commit(&[(Some(his.clone()), Some(hers("a")))]);
    stage.world.commit(&[(Some(hers("a")), Some(hers("b"))), (Some(hers("b")), Some(hers("c")))]);
    stage.world.commit(&[(Some(hers("c")), Some(his.clone()))]);
    // Outside of the filter.
    stage.world.commit(&[(Some(his), None)]);
    stage.world.insert(hers("d"));
    stage.world.commit(&[(Some(hers("d")), None)]);
    let expected = [
        ("update", hers("a"), Json::Null),
        ("update", hers("b"), hers("a")),
        ("update", hers("c"), hers("b")),
        ("delete", gone(1), hers("c")),
        ("insert", hers("d"), Json::Null),
        ("delete", gone(1), hers("d")),
    ];
    assert_eq!(watch.take(6).await, expected);
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert_side_by_side() {
    let stage = Stage::new();
    let mut all = stage.watch(request("")).await.unwrap();
    let mut hers = stage.watch(filtered("", of("ann"))).await.unwrap();
    let (one, two, three) = (note(1, "ann", "a"), note(2, "ann", "a"), note(3, "bob", "a"));
    stage.world.commit(&[(Some(one.clone()), Some(two.clone())), (Some(two.clone()), Some(three.clone()))]);
    stage.world.commit(&[(Some(three.clone()), Some(one.clone()))]);
    let expected = [
        READY,
        ("delete", gone(1), one.clone()),
        ("insert", two.clone(), Json::Null),
        ("delete", gone(2), two.clone()),
        ("insert", three.clone(), Json::Null),
        ("delete", gone(3), three),
        ("insert", one.clone(), Json::Null),
    ];
    assert_eq!(all.take(7).await, expected);
    let expected = [
        READY,
        ("delete", gone(1), one.clone()),
        ("insert", two.clone(), Json::Null),
        ("delete", gone(2), two),
        ("insert", one, Json::Null),
    ];
    assert_eq!(hers.take(5).await, expected);
}

#[tokio::test]
async fn a_transaction_that_the_log_told_before_reads_saw_it_is_told_after_the_rows() {
    let stage = Stage::new();
    let mut first = stage.watch(request("")).await.unwrap();
    assert_eq!(first.next().await, Ok(READY));
    stage.world.tell(&[(None, Some(note(1, "ann", "a")))]);
    assert_eq!(first.kinds(1).await, ["insert"]);
    // The first watch has read it of the ring, in which the second looks back.
    let mut second = stage.watch(request("")).await.unwrap();
    stage.world.show();
    assert_eq!(second.take(2).await, [READY, ("insert", note(1, "ann", "a"), Json::Null)]);
    let mut third = stage.watch(request("")).await.unwrap();
    stage.world.insert(note(2, "ann", "b"));
    assert_eq!(third.kinds(3).await, ["initial", "ready", "insert"]);
}

#[tokio::test]
async fn what_leaves_memory_while_the_rows_are_taken_was_before_them() {
    let stage = Stage::new();
    let mut reader = stage.watch(request("")).await.unwrap();
    assert_eq!(reader.next().await, Ok(READY));
    let large = "x".repeat(1 << 20);
    for id in 0..10 {
        stage.world.insert(note(id, "bob", &large));
        assert_eq!(reader.kinds(1).await, ["insert"]);
    }
    let mut watch = stage.watch(filtered("", of("ann"))).await.unwrap();
    // The ring was full, so that the oldest of it goes.
    stage.world.insert(note(10, "bob", &large));
    stage.world.insert(note(11, "ann", "a"));
    assert_eq!(reader.kinds(2).await, ["insert", "insert"]);
    assert_eq!(watch.take(2).await, [READY, ("insert", note(11, "ann", "a"), Json::Null)]);
}

#[tokio::test]
async fn what_is_told_of_rows_is_what_was_asked_for_and_may_be_read() {
    let stage = Stage::new();
    let columns = Columns { deny: vec!["owner".to_owned()], ..Columns::default() };
    stage.world.rule("hidden", Rule { columns, ..Rule::default() });
    let mut all = stage.watch(request("hidden")).await.unwrap();
    let mut asked = request("");
    asked.read.node.fields = [Field::column("text")].into();
    asked.before = vec![Field::column("owner")];
    let mut some = stage.watch(asked).await.unwrap();
    stage.world.commit(&[(Some(note(1, "bob", "a")), Some(note(1, "ann", "b")))]);
    stage.world.commit(&[(Some(note(1, "ann", "b")), None)]);
    let row = |id: i64, text: &str| json!({ "id": id, "text": text });
    let expected =
        [READY, ("update", row(1, "b"), row(1, "a")), ("delete", json!({ "id": 1, "text": null }), row(1, "b"))];
    assert_eq!(all.take(3).await, expected);
    let expected = [
        READY,
        ("update", json!({ "text": "b" }), json!({ "owner": "bob" })),
        ("delete", json!({ "text": null }), json!({ "owner": "ann" })),
    ];
    assert_eq!(some.take(3).await, expected);
    let mut denied = request("hidden");
    denied.read.node.fields = [Field::column("owner")].into();
    assert_eq!(stage.watch(denied).await.err().map(|fault| fault.code), Some(Code::Denied));
}

#[tokio::test]
async fn rows_that_are_not_asked_for_are_not_told() {
    let stage = Stage::new();
    stage.world.insert(note(1, "ann", "a"));
    for filter in [Filter::TRUE, after("")] {
        let asked = stage::filtered("", filter);
        let mut watch = stage.watch(proto::realtime::WatchRequest { skip_initial: true, ..asked }).await.unwrap();
        assert_eq!(watch.next().await, Ok(READY));
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_any_position_without_a_loss_or_a_repetition() {
    let stage = Stage::new();
    stage.world.insert(note(1, "ann", "a"));
    let mut watch = stage.watch(request("")).await.unwrap();
    let (_, _initial) = watch.positioned().await.unwrap();
    let (_, ready) = watch.positioned().await.unwrap();
    let (one, two, three) = (note(1, "ann", "a"), note(2, "ann", "b"), note(3, "bob", "c"));
    stage.world.commit(&[(None, Some(two.clone())), (Some(one), Some(three.clone())), (Some(two), None)]);
    stage.world.commit(&[(Some(three), None)]);
    let mut told = vec![("ready", ready)];
    let mut rest = Vec::new();
    for _ in 0..5 {
        let (message, position) = watch.positioned().await.unwrap();
        told.push((message.0, position));
        rest.push(message);
    }
    let mut positions: Vec<&String> = told.iter().map(|(_, position)| position).collect();
    positions.dedup();
    assert_eq!(positions.len(), told.len());
    // Of the ring, and of a log of its own once nobody reads the ring.
    for round in 0..2 {
        for (taken, (_, position)) in told.iter().enumerate() {
            let asked = proto::realtime::WatchRequest { after: position.clone(), ..request("") };
            let mut resumed = stage.watch(asked).await.unwrap();
            assert_eq!(resumed.next().await, Ok(READY));
            assert_eq!(resumed.take(rest.len() - taken).await, rest[taken..], "round {round}, after {taken}");
        }
        if round == 0 {
            watch = stage.watch(request("")).await.unwrap();
            let _ = watch.next().await;
            drop(std::mem::replace(&mut watch, stage.watch(filtered("", of("nobody"))).await.unwrap()));
        }
    }
}

#[tokio::test]
async fn what_the_rows_had_is_not_told_to_a_watch_that_goes_on_before_it_in_the_log() {
    let stage = Stage::new();
    let overtaking = note(2, "ann", "b");
    stage.world.overtake(overtaking.clone());
    let mut watch = stage.watch(request("")).await.unwrap();
    assert_eq!(watch.take(2).await, [("initial", overtaking.clone(), Json::Null), READY]);
    stage.world.commit(&[(None, Some(note(1, "ann", "a"))), (None, Some(note(3, "ann", "c")))]);
    stage.world.insert(overtaking);
    stage.world.insert(note(4, "ann", "d"));
    let mut positions = Vec::new();
    for id in [1, 3, 4] {
        let (message, position) = watch.positioned().await.unwrap();
        assert_eq!(message.1["id"], id);
        positions.push(position);
    }
    // Also after it has gone on already.
    for rest in [&[3, 4][..], &[4]] {
        let mut after = positions.remove(0);
        for id in rest {
            let asked = proto::realtime::WatchRequest { after, ..request("") };
            let mut resumed = stage.watch(asked).await.unwrap();
            assert_eq!(resumed.next().await, Ok(READY));
            let (message, position) = resumed.positioned().await.unwrap();
            assert_eq!(message.1["id"], *id);
            after = position;
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_within_a_transaction_that_has_parts() {
    let stage = Stage::new();
    let mut watch = stage.watch(request("")).await.unwrap();
    let (_, ready) = watch.positioned().await.unwrap();
    let insert = |id: i64| (None, Some(note(id, "ann", "a")));
    let moved = |from: i64, to: i64| (Some(note(from, "ann", "a")), Some(note(to, "ann", "a")));
    stage.world.commit_parts(&[&[insert(1), moved(1, 2)], &[insert(3), moved(3, 4)], &[insert(5)]]);
    let (mut positions, mut rest) = (vec![ready], Vec::new());
    for _ in 0..7 {
        let (message, position) = watch.positioned().await.unwrap();
        positions.push(position);
        rest.push(message);
    }
    let mut held = vec![watch];
    let mut resumed_positions = Vec::new();
    for round in 0..2 {
        for (taken, position) in positions.iter().enumerate() {
            let asked = proto::realtime::WatchRequest { after: position.clone(), ..request("") };
            let mut resumed = stage.watch(asked).await.unwrap();
            assert_eq!(resumed.next().await, Ok(READY));
            for (number, expected) in rest.iter().enumerate().skip(taken) {
                let (message, position) = resumed.positioned().await.unwrap();
                assert_eq!(message, *expected, "round {round}, after {taken}");
                resumed_positions.push((number + 1, position));
            }
        }
        if round == 0 {
            // Each has a log of its own then, since the feed that others read begins now.
            held.clear();
            while stage.world.followers() > 0 {
                tokio::task::yield_now().await;
            }
            held.push(stage.watch(filtered("", of("nobody"))).await.unwrap());
        }
    }
    // Those of a log of its own are good for the feed that others read, and the other way round.
    let mut others = Vec::new();
    for position in &positions[..2] {
        let asked = proto::realtime::WatchRequest { after: position.clone(), ..request("") };
        others.push(stage.watch(asked).await.unwrap());
        for (taken, position) in &resumed_positions {
            let asked = proto::realtime::WatchRequest { after: position.clone(), ..request("") };
            let mut resumed = stage.watch(asked).await.unwrap();
            assert_eq!(resumed.next().await, Ok(READY));
            assert_eq!(resumed.take(rest.len() - taken).await, rest[*taken..], "after {taken}");
        }
    }
}

#[tokio::test]
async fn a_watch_that_has_caught_up_reads_the_log_with_the_others() {
    let stage = Stage::new();
    let mut watch = stage.watch(request("")).await.unwrap();
    let (_, ready) = watch.positioned().await.unwrap();
    drop(watch);
    while stage.world.followers() > 0 {
        tokio::task::yield_now().await;
    }
    stage.world.insert(note(1, "ann", "a"));
    let mut reader = stage.watch(request("")).await.unwrap();
    assert_eq!(reader.kinds(2).await, ["initial", "ready"]);
    let mut resumed = Vec::new();
    for _ in 0..3 {
        let asked = proto::realtime::WatchRequest { after: ready.clone(), ..request("") };
        resumed.push(stage.watch(asked).await.unwrap());
    }
    assert_eq!(stage.world.followers(), 4);
    for watch in &mut resumed {
        assert_eq!(watch.take(2).await, [READY, ("insert", note(1, "ann", "a"), Json::Null)]);
    }
    while stage.world.followers() > 1 {
        tokio::task::yield_now().await;
    }
    stage.world.insert(note(2, "ann", "b"));
    for watch in resumed.iter_mut().chain([&mut reader]) {
        assert_eq!(watch.next().await, Ok(("insert", note(2, "ann", "b"), Json::Null)));
    }
}

#[tokio::test]
async fn a_change_of_hidden_columns_alone_is_not_told() {
    let stage = Stage::new();
    let hide = |column: &str| {
        let columns = Columns { deny: vec![column.to_owned()], ..Columns::default() };
        Rule { columns, filter: Some(owned("ann")), ..Rule::default() }
    };
    stage.world.rule("text", hide("text"));
    stage.world.rule("id", hide("id"));
    let mut all = stage.watch(request("")).await.unwrap();
    let mut textless = stage.watch(request("text")).await.unwrap();
    let mut keyless = stage.watch(request("id")).await.unwrap();
    let steps =
        [note(1, "ann", "a"), note(1, "ann", "b"), note(2, "ann", "b"), note(2, "bob", "c"), note(2, "ann", "c")];
    stage.world.insert(steps[0].clone());
    for pair in steps.windows(2) {
        stage.world.commit(&[(Some(pair[0].clone()), Some(pair[1].clone()))]);
    }
    let expected = ["ready", "insert", "update", "delete", "insert", "update", "update"];
    assert_eq!(all.kinds(7).await, expected);
    // The key is told, and the text is not.
    assert_eq!(textless.kinds(6).await, ["ready", "insert", "delete", "insert", "delete", "update"]);
    // The other way round.
    assert_eq!(keyless.kinds(5).await, ["ready", "insert", "update", "delete", "update"]);
}

#[tokio::test]
async fn a_position_that_cannot_be_gone_on_from_begins_anew() {
    let stage = Stage::new();
    stage.world.insert(note(1, "ann", "a"));
    stage.world.rule("ann", Rule { filter: Some(owned("ann")), ..Rule::default() });
    let mut watch = stage.watch(request("")).await.unwrap();
    let (_, initial) = watch.positioned().await.unwrap();
    let (_, ready) = watch.positioned().await.unwrap();
    let anew = [("resync", "position".into(), Json::Null), ("initial", note(1, "ann", "a"), Json::Null), READY];
    let tampered = ready.replace(&ready[ready.len() - 4..], "AAAA");
    let cases = [
        (request(""), initial),
        (request(""), tampered),
        (request(""), "x".to_owned()),
        // Of another query, and of other rights.
        (filtered("", of("ann")), ready.clone()),
        (request("ann"), ready.clone()),
        (filtered("", after("")), ready.clone()),
    ];
    for (asked, position) in cases {
        let asked = proto::realtime::WatchRequest { after: position.clone(), skip_initial: true, ..asked };
        let mut resumed = stage.watch(asked).await.unwrap();
        assert_eq!(resumed.take(3).await, anew, "{position}");
    }
    // The log does not have what follows any more.
    drop(watch);
    stage.world.insert(note(2, "bob", "b"));
    stage.world.prune();
    tokio::task::yield_now().await;
    let asked = proto::realtime::WatchRequest { after: ready, ..filtered("", Filter::TRUE) };
    let mut resumed = stage.watch(asked).await.unwrap();
    assert_eq!(
        resumed.next().await,
        Ok(("resync", "log_lost".into(), Json::Null)),
        "it is not told to be READY before"
    );
    assert_eq!(resumed.kinds(3).await, ["initial", "initial", "ready"]);
    stage.world.insert(note(3, "ann", "c"));
    assert_eq!(resumed.kinds(1).await, ["insert"]);
}

#[tokio::test]
async fn a_gap_of_the_log_is_told_with_its_reason() {
    let stage = Stage::new();
    stage.world.insert(note(1, "ann", "a"));
    let mut watch = stage.watch(request("")).await.unwrap();
    assert_eq!(watch.kinds(2).await, ["initial", "ready"]);
    for (reason, name) in [
        (ResyncReason::Overflow, "overflow"),
        (ResyncReason::LogLost, "log_lost"),
        (ResyncReason::Truncate, "truncate"),
        (ResyncReason::Restored, "restored"),
    ] {
        stage.world.resync(reason);
        let resync = ("resync", name.into(), Json::Null);
        assert_eq!(watch.take(3).await, [resync, ("initial", note(1, "ann", "a"), Json::Null), READY]);
        // A watch that begins after it has read all.
        let mut other = stage.watch(request("")).await.unwrap();
        stage.world.commit(&[(Some(note(1, "ann", "a")), Some(note(1, "ann", "a")))]);
        assert_eq!(other.kinds(3).await, ["initial", "ready", "update"]);
        assert_eq!(watch.kinds(1).await, ["update"]);
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_so_and_exact_afterwards() {
    let stage = Stage::new();
    let (mut slow, mut quick) = (stage.watch(request("")).await.unwrap(), stage.watch(request("")).await.unwrap());
    assert_eq!((slow.next().await, quick.next().await), (Ok(READY), Ok(READY)));
    let large = "x".repeat(1 << 20);
    for id in 0..20 {
        stage.world.insert(note(id, "ann", &large));
        assert_eq!(quick.kinds(1).await, ["insert"]);
    }
    assert_eq!(slow.next().await, Ok(("resync", "overflow".into(), Json::Null)));
    assert_eq!(slow.kinds(21).await, [vec!["initial"; 20], vec!["ready"]].concat());
    stage.world.insert(note(20, "bob", "z"));
    assert_eq!(slow.next().await, Ok(("insert", note(20, "bob", "z"), Json::Null)));
    assert_eq!(quick.next().await, Ok(("insert", note(20, "bob", "z"), Json::Null)));
}

#[tokio::test]
async fn a_caller_sees_the_rows_of_their_grant_alone() {
    let stage = Stage::new();
    stage.world.rule("ann", Rule { filter: Some(owned("ann")), ..Rule::default() });
    stage.world.commit(&[(None, Some(note(1, "ann", "a"))), (None, Some(note(2, "bob", "b")))]);
    let mut watch = stage.watch(request("ann")).await.unwrap();
    assert_eq!(watch.take(2).await, [("initial", note(1, "ann", "a"), Json::Null), READY]);
    stage.world.commit(&[(Some(note(2, "bob", "b")), None), (None, Some(note(3, "bob", "b")))]);
    stage.world.commit(&[(Some(note(3, "bob", "b")), Some(note(3, "ann", "b")))]);
    assert_eq!(watch.next().await, Ok(("update", note(3, "ann", "b"), Json::Null)));
}

#[tokio::test]
async fn rights_that_change_begin_the_watch_anew_and_others_do_not() {
    let stage = Stage::new();
    let rule = |owner: &str| Rule { filter: Some(owned(owner)), ..Rule::default() };
    stage.world.rule("ann", rule("ann"));
    stage.world.commit(&[(None, Some(note(1, "ann", "a"))), (None, Some(note(2, "bob", "b")))]);
    let mut watch = stage.watch(request("ann")).await.unwrap();
    assert_eq!(watch.kinds(2).await, ["initial", "ready"]);
    stage.world.revise();
    stage.world.insert(note(3, "ann", "c"));
    assert_eq!(watch.next().await, Ok(("insert", note(3, "ann", "c"), Json::Null)));

    stage.world.rule("ann", rule("bob"));
    let resync = ("resync", "rules".into(), Json::Null);
    assert_eq!(watch.take(3).await, [resync, ("initial", note(2, "bob", "b"), Json::Null), READY]);
    stage.world.commit(&[(Some(note(1, "ann", "a")), None), (Some(note(2, "bob", "b")), None)]);
    assert_eq!(watch.next().await, Ok(("delete", gone(2), note(2, "bob", "b"))));

    stage.world.rule("ann", Rule { denied: Some(Code::Denied), ..Rule::default() });
    assert_eq!(watch.next().await, Err(Code::Denied));
    assert_eq!(stage.watch(request("ann")).await.err().map(|fault| fault.code), Some(Code::Denied));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_ends_its_watch() {
    let stage = Stage::new();
    let expires = Some(SystemTime::now() + Duration::from_secs(5));
    stage.world.rule("ann", Rule { expires, ..Rule::default() });
    let mut watch = stage.watch(request("ann")).await.unwrap();
    assert_eq!(watch.next().await, Ok(READY));
    // Valid for the rule engine for a while more than by the clock here.
    stage.world.rule("ann", Rule { expires, denied: Some(Code::Unauthenticated), ..Rule::default() });
    let code = watch.next().await.err();
    assert!(matches!(code, Some(Code::Unauthenticated | Code::TokenExpired)), "{code:?}");

    stage.world.rule("bob", Rule { expires: Some(SystemTime::now()), ..Rule::default() });
    let mut watch = stage.watch(request("bob")).await.unwrap();
    assert_eq!(watch.next().await, Ok(READY));
    stage.world.rule("bob", Rule { expires, denied: Some(Code::Unauthenticated), ..Rule::default() });
    assert_eq!(watch.next().await, Err(Code::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_void_as_it_comes_is_asked_for_again_after_a_while() {
    let stage = Stage::new();
    let mut watch = stage.watch(request("")).await.unwrap();
    assert_eq!(watch.next().await, Ok(READY));
    stage.world.rule("", Rule { is_void: true, ..Rule::default() });
    stage.world.insert(note(1, "ann", "a"));
    let began = tokio::time::Instant::now();
    let (told, ()) = tokio::join!(watch.positioned(), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.world.rule("", Rule::default());
    });
    assert_eq!(told.map(|(message, _)| message), Ok(("insert", note(1, "ann", "a"), Json::Null)));
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn rows_that_the_database_decides_on_are_read_again_and_told_by_their_differences() {
    let stage = Stage::new();
    stage.world.rule("ann", Rule { filter: Some(owned("ann")), ..Rule::default() });
    stage.world.commit(&[(None, Some(note(1, "ann", "m"))), (None, Some(note(2, "ann", "a")))]);
    let mut watch = stage.watch(filtered("ann", after("f"))).await.unwrap();
    assert_eq!(watch.take(2).await, [("initial", note(1, "ann", "m"), Json::Null), READY]);
    stage.world.commit(&[(Some(note(2, "ann", "a")), Some(note(2, "ann", "x")))]);
    assert_eq!(watch.next().await, Ok(("update", note(2, "ann", "x"), Json::Null)));
    stage.world.commit(&[(Some(note(1, "ann", "m")), Some(note(1, "ann", "n")))]);
    assert_eq!(watch.next().await, Ok(("update", note(1, "ann", "n"), note(1, "ann", "m"))));
    stage.world.commit(&[(Some(note(1, "ann", "n")), Some(note(1, "bob", "n")))]);
    assert_eq!(watch.next().await, Ok(("delete", gone(1), note(1, "ann", "n"))));
    stage.world.insert(note(3, "bob", "z"));
    stage.world.insert(note(4, "ann", "z"));
    assert_eq!(watch.next().await, Ok(("insert", note(4, "ann", "z"), Json::Null)));

    // The log tells it before reads see it.
    stage.world.tell(&[(None, Some(note(5, "ann", "y")))]);
    let mut other = stage.watch(filtered("ann", after("f"))).await.unwrap();
    assert_eq!(other.kinds(3).await, ["initial", "initial", "ready"]);
    stage.world.show();
    assert_eq!(other.next().await.map(|(_, row, _)| row), Ok(note(5, "ann", "y")));
    assert_eq!(watch.next().await, Ok(("insert", note(5, "ann", "y"), Json::Null)));

    let columns = Columns { deny: vec!["id".to_owned()], ..Columns::default() };
    stage.world.rule("keyless", Rule { columns, ..Rule::default() });
    let refused = stage.watch(filtered("keyless", after("f"))).await.err().unwrap();
    assert_eq!(refused.code, Code::BadRequest);
    assert!(refused.message.contains("text"), "{}", refused.message);
    // What the rules compare is not disclosed.
    let columns = Columns { deny: vec!["id".to_owned(), "text".to_owned()], ..Columns::default() };
    let value = Value::Text("f".to_owned());
    let filter = RuleFilter::Compare { column: "text".to_owned(), comparison: Comparison::Gt, value };
    stage.world.rule("blind", Rule { columns, filter: Some(filter), ..Rule::default() });
    let refused = stage.watch(request("blind")).await.err().unwrap();
    assert_eq!(refused.code, Code::BadRequest);
    assert!(refused.message.contains("of the rules") && !refused.message.contains("text"), "{}", refused.message);
}

#[tokio::test]
async fn a_table_that_has_other_columns_is_watched_anew() {
    let stage = Stage::new();
    let mut watch = stage.watch(request("")).await.unwrap();
    assert_eq!(watch.next().await, Ok(READY));
    stage.world.alter(&["id", "owner", "text", "more"]);
    let wide = json!({ "id": 1, "owner": "ann", "text": "a", "more": "b" });
    stage.world.insert(wide.clone());
    let resync = ("resync", "position".into(), Json::Null);
    assert_eq!(watch.take(3).await, [resync, ("initial", wide, Json::Null), READY]);
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let stage = Stage::new();
    let refused = |change: fn(&mut query::Read)| {
        let mut asked = request("");
        change(&mut asked.read);
        async { stage.watch(asked).await.err().map(|fault| fault.code) }
    };
    assert_eq!(refused(|read| read.database = "none".into()).await, Some(Code::UnknownDatabase));
    assert_eq!(refused(|read| read.table = "none".into()).await, Some(Code::UnknownTable));
    assert_eq!(refused(|read| read.node.skip = 1).await, Some(Code::BadRequest));
    assert_eq!(stage.watch(request("unknown")).await.err().map(|fault| fault.code), Some(Code::Denied));
}

#[tokio::test]
async fn rows_that_wait_to_be_told_have_a_bound_for_all_watches_together() {
    let stage = Stage::new();
    stage.world.insert(note(1, "ann", &"x".repeat(stage::WAITING_BYTES / 2)));
    let mut first = stage.watch(request("")).await.unwrap();
    let refused = stage.watch(request("")).await.err().map(|fault| fault.code);
    assert_eq!(refused, Some(Code::TooMany));
    assert_eq!(first.kinds(2).await, ["initial", "ready"]);
    let mut second = stage.watch(request("")).await.unwrap();
    assert_eq!(second.kinds(2).await, ["initial", "ready"]);
    stage.world.insert(note(2, "ann", &"x".repeat(stage::WAITING_BYTES)));
    let refused = stage.watch(request("")).await.err().map(|fault| fault.code);
    assert_eq!(refused, Some(Code::TooLarge));
}
