//! Live queries that share what they are answered or are read together, and changes that concern some of them only.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use query::{Columns, Comparison, Field, Filter, Node, Read, RuleFilter, Shape, Typed, Value};
use tokio::sync::watch;

use super::{
    live::{begin, next, read},
    stage::Stage,
};
use crate::live::LiveQuery;

fn token(token: &str) -> watch::Sender<Arc<str>> {
    watch::Sender::new(token.into())
}

fn owned(owner: &str) -> RuleFilter {
    RuleFilter::Compare { column: "title".to_owned(), comparison: Comparison::Eq, value: Value::Text(owner.to_owned()) }
}

/// How many reads were sent.
fn reads(stage: &Stage) -> usize {
    stage.world.reads.lock().unwrap().iter().map(|request| request.reads.len()).sum()
}

/// In how many requests.
fn requests(stage: &Stage) -> usize {
    stage.world.reads.lock().unwrap().len()
}

fn has_metric(stage: &Stage, line: &str) -> bool {
    stage.service.mesh().metrics().render().lines().any(|have| have == line)
}

#[tokio::test(start_paused = true)]
async fn those_that_ask_for_the_same_with_the_same_grants_are_answered_by_one_read() {
    let (stage, tokens) = (Stage::new().await, ["", "staff", "other"].map(token));
    let mut all = Vec::new();
    for token in &tokens {
        all.push(begin(&stage, token, read("album", "album_id")).await.expect("everybody may read albums"));
        all.push(begin(&stage, token, read("album", "album_id")).await.expect("everybody may read albums"));
    }
    let mut other = begin(&stage, &tokens[0], read("album", "title")).await.expect("everybody may read albums");
    let answers = join_all(all.iter_mut().map(next)).await;
    assert!(answers.iter().all(|answer| answer.as_deref() == Some(r#"[{"album_id":1},{"album_id":2}]"#)));
    next(&mut other).await;
    assert_eq!(reads(&stage), 2, "one for each of what is asked for");
    for answer in ["[3]", "[4]"] {
        *stage.world.json.lock().unwrap() = Some(answer);
        stage.world.changed.send_replace(());
        // One after the other: what was read for the first is new enough for the others.
        for live in &mut all {
            assert_eq!(next(live).await.as_deref(), Some(answer));
        }
    }
    assert_eq!(reads(&stage), 4);
    assert!(has_metric(&stage, "perigee_shared_live_reads_total 15"));
}

#[tokio::test(start_paused = true)]
async fn a_query_that_begins_is_answered_what_is_there_then() {
    let (stage, token) = (Stage::new().await, token(""));
    let mut early = Vec::new();
    for _ in 0..2 {
        early.push(begin(&stage, &token, read("album", "album_id")).await.expect("everybody may read albums"));
    }
    join_all(early.iter_mut().map(next)).await;
    // What changed has not been told yet.
    *stage.world.json.lock().unwrap() = Some("[7]");
    let mut late = begin(&stage, &token, read("album", "album_id")).await.expect("everybody may read albums");
    assert_eq!(next(&mut late).await.as_deref(), Some("[7]"));
}

/// What a query is answered where answers are the grants of their reads.
async fn shown(live: &mut LiveQuery) -> String {
    next(live).await.expect("it differs from the answer before")
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_an_answer_of_other_grants() {
    let stage = Stage::new().await;
    stage.world.shows_grants.store(true, Ordering::SeqCst);
    let deny = |name: &str| Columns { deny: vec![name.to_owned()], ..Columns::default() };
    let only = |name: &str| Columns { read: Some(vec![name.to_owned()]), ..Columns::default() };
    let rules = [
        ("ann", (owned("ann"), Columns::default())),
        ("bob", (owned("bob"), Columns::default())),
        ("masked", (owned("ann"), deny("total"))),
        ("some", (owned("ann"), only("album_id"))),
        ("none", (RuleFilter::FALSE, Columns::default())),
        ("all", (RuleFilter::TRUE, Columns::default())),
    ];
    stage.world.rules.lock().unwrap().extend(rules.clone());
    let tokens: Vec<_> = rules.iter().map(|(name, _)| token(name)).collect();
    let mut lives = Vec::new();
    for _ in 0..3 {
        for (token, (_, rule)) in tokens.iter().zip(&rules) {
            let live = begin(&stage, token, read("album", "album_id")).await.expect("everybody may read albums");
            lives.push((live, format!("{:?}", [(rule.0.clone(), Arc::new(rule.1.clone()))])));
        }
    }
    let answers = join_all(lives.iter_mut().map(|(live, own)| async { (shown(live).await, own.clone()) })).await;
    for (answer, own) in answers {
        assert_eq!(answer, own);
    }
    assert_eq!(reads(&stage), rules.len(), "and equal ones share theirs");

    // Ann is from now on who Bob was: her queries are answered as his are, and no more as hers were.
    let (_, (_, bob)) = (&rules[0], &rules[1]);
    stage.world.rules.lock().unwrap().insert("ann", bob.clone());
    stage.world.revised.send_replace(());
    let bobs = format!("{:?}", [(bob.0.clone(), Arc::new(bob.1.clone()))]);
    for (index, (live, _)) in lives.iter_mut().enumerate() {
        match index % rules.len() {
            0 => assert_eq!(shown(live).await, bobs),
            _ => assert_eq!(next(live).await, None, "the answer is the same"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_under_way_is_not_for_who_got_other_grants_meanwhile() {
    let stage = Stage::new().await;
    stage.world.shows_grants.store(true, Ordering::SeqCst);
    stage.world.rules.lock().unwrap().insert("ann", (owned("ann"), Columns::default()));
    let token = token("ann");
    let mut one = begin(&stage, &token, read("album", "album_id")).await.expect("everybody may read albums");
    let mut other = begin(&stage, &token, read("album", "album_id")).await.expect("everybody may read albums");
    let gate: Arc<tokio::sync::Notify> = Arc::default();
    *stage.world.gate.lock().unwrap() = Some(gate.clone());
    let mut reading = Box::pin(one.read());
    while reads(&stage) == 0 {
        assert!(reading.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    stage.world.rules.lock().unwrap().insert("ann", (owned("bob"), Columns::default()));
    *stage.world.gate.lock().unwrap() = None;
    let answers = other.read().await.expect("it goes on").expect("it is the first");
    let text = String::from_utf8(answers[0].json.to_vec()).unwrap();
    assert!(text.contains("bob") && !text.contains("ann"), "{text}");
    gate.notify_waiters();
    reading.await.expect("it goes on");
}

#[tokio::test(start_paused = true)]
async fn rules_that_change_while_a_caller_is_authorised_are_asked_again() {
    let stage = Stage::new().await;
    stage.world.shows_grants.store(true, Ordering::SeqCst);
    stage.world.rules.lock().unwrap().insert("ann", (owned("ann"), Columns::default()));
    let token = token("ann");
    let mut live = begin(&stage, &token, read("album", "album_id")).await.expect("everybody may read albums");
    *stage.world.revises.lock().unwrap() = Some(("ann", (owned("bob"), Columns::default())));
    assert!(shown(&mut live).await.contains("ann"));
    let told = tokio::time::timeout(Duration::from_secs(60), shown(&mut live)).await.expect("the rules are others");
    assert!(told.contains("bob") && !told.contains("ann"), "{told}");
}

fn album(id: i64) -> Vec<Read> {
    let filter = Filter::Compare { column: "album_id".to_owned(), comparison: Comparison::Eq, value: Typed::Int(id) };
    let node = Node { filter, ..Node::new(Shape::Many, vec![Field::column("title")]) };
    vec![Read { database: "music".into(), table: "album".into(), node }]
}

/// So many live queries of one album each, all of them answered, once the log is followed.
async fn albums(stage: &Stage, token: &watch::Sender<Arc<str>>, count: i64) -> Vec<LiveQuery> {
    stage.world.log.send_replace(Some(Vec::new()));
    let mut lives = Vec::new();
    for id in 0..count {
        let mut live = begin(stage, token, album(id)).await.expect("everybody may read albums");
        next(&mut live).await;
        lives.push(live);
    }
    while stage.world.logs.load(Ordering::SeqCst) == 0 || stage.world.changed.receiver_count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for live in &mut lives {
        // All may have changed when the log began.
        while tokio::time::timeout(Duration::from_secs(1), next(live)).await.is_ok() {}
    }
    lives
}

async fn changed(lives: &mut [LiveQuery]) -> Vec<usize> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut changed = Vec::new();
    for (index, live) in lives.iter_mut().enumerate() {
        if live.changed().now_or_never().is_some() {
            changed.push(index);
        }
    }
    changed
}

#[tokio::test(start_paused = true)]
async fn a_change_that_touches_nothing_of_a_query_costs_it_nothing() {
    let (stage, token) = (Stage::new().await, token(""));
    let mut lives = albums(&stage, &token, 12).await;
    let before = reads(&stage);
    stage.world.commit(r#"{"album_id":3,"title":"a"}"#, r#"{"album_id":5,"title":"a"}"#);
    assert_eq!(changed(&mut lives).await, [3, 5]);
    stage.world.commit("", r#"{"album_id":50,"title":"a"}"#);
    assert_eq!(changed(&mut lives).await, [3, 5], "they have not been asked again yet");
    assert_eq!(reads(&stage), before);
    for index in [3, 5] {
        assert_eq!(next(&mut lives[index]).await, None, "the answer is the same");
    }
    assert_eq!((changed(&mut lives).await, reads(&stage)), (Vec::new(), before + 2));
    assert!(has_metric(&stage, r#"perigee_live_changes_total{concerns="some"} 1"#));
    assert!(has_metric(&stage, r#"perigee_live_changes_total{concerns="none"} 1"#));

    // A row that the schema does not know may be of any.
    stage.world.commit("", r#"{"album_id":50,"title":"a","added":1}"#);
    assert_eq!(changed(&mut lives).await.len(), 12);
    for live in &mut lives {
        next(live).await;
    }
    // Few are told of each change again.
    lives.truncate(3);
    while stage.world.changed.receiver_count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for live in &mut lives {
        while tokio::time::timeout(Duration::from_secs(1), next(live)).await.is_ok() {}
    }
    stage.world.changed.send_replace(());
    assert_eq!(changed(&mut lives).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn those_that_differ_in_values_only_are_answered_by_one_request() {
    let (stage, token) = (Stage::new().await, token(""));
    let mut lives = albums(&stage, &token, 100).await;
    let mut other = begin(&stage, &token, read("album", "title")).await.expect("everybody may read albums");
    next(&mut other).await;
    for (answer, fails_together, expected) in [("[7]", false, 1), ("[8]", true, 101), ("[9]", false, 2)] {
        let before = (requests(&stage), reads(&stage));
        stage.world.fails_together.store(fails_together, Ordering::SeqCst);
        *stage.world.json.lock().unwrap() = Some(answer);
        // It may concern all of them.
        stage.world.commit("", r#"{"album_id":500,"title":"a","added":1}"#);
        let answers = join_all(lives.iter_mut().map(next)).await;
        assert!(answers.iter().all(|told| told.as_deref() == Some(answer)), "{answers:?}");
        // After one that failed they are half as many.
        assert_eq!(requests(&stage) - before.0, expected, "{answer}");
        assert_eq!(reads(&stage) - before.1, if fails_together { 200 } else { 100 });
        assert_eq!(next(&mut other).await.as_deref(), Some(answer), "one of another shape is read by itself");
    }
    assert!(has_metric(&stage, "perigee_batched_live_reads_total 200"));
}

#[tokio::test(start_paused = true)]
async fn each_of_those_that_are_read_together_has_the_answer_of_its_own_grants() {
    let (stage, names) = (Stage::new().await, ["ann", "bob", "cleo", "dan", "eve"]);
    stage.world.shows_grants.store(true, Ordering::SeqCst);
    for name in names {
        stage.world.rules.lock().unwrap().insert(name, (owned(name), Columns::default()));
    }
    let tokens = names.map(token);
    let mut lives = Vec::new();
    for token in &tokens {
        lives.push(begin(&stage, token, read("album", "album_id")).await.expect("everybody may read albums"));
    }
    for (live, name) in join_all(lives.iter_mut().map(shown)).await.iter().zip(names) {
        assert!(live.contains(name) && names.iter().all(|other| *other == name || !live.contains(other)), "{live}");
    }
    assert_eq!((requests(&stage), reads(&stage)), (1, names.len()));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_a_read_does_not_see_yet_is_read_again() {
    let (stage, token) = (Stage::new().await, token(""));
    let mut lives = albums(&stage, &token, 12).await;
    stage.world.invisible.store(1, Ordering::SeqCst);
    stage.world.commit("", r#"{"album_id":3,"title":"a"}"#);
    for _ in 0..3 {
        assert_eq!(next(&mut lives[3]).await, None);
    }
    // Who begins now has not been told of it.
    let mut late = begin(&stage, &token, album(3)).await.expect("everybody may read albums");
    next(&mut late).await;
    assert_eq!(next(&mut late).await, None, "it may not have seen what was told before");
    stage.world.invisible.store(0, Ordering::SeqCst);
    *stage.world.json.lock().unwrap() = Some("[7]");
    for live in [&mut lives[3], &mut late] {
        // At first what was read for the other, which did not see it either.
        let answer = match next(live).await {
            None => next(live).await,
            answer => answer,
        };
        assert_eq!(answer.as_deref(), Some("[7]"));
        assert!(tokio::time::timeout(Duration::from_secs(1), live.changed()).await.is_err());
    }
    assert_eq!(changed(&mut lives).await, [0usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn where_images_cannot_be_had_all_are_told() {
    let (stage, token) = (Stage::new().await, token(""));
    let mut lives = Vec::new();
    for id in 0..12 {
        lives.push(begin(&stage, &token, album(id)).await.expect("everybody may read albums"));
        next(&mut lives[id as usize]).await;
    }
    assert_eq!(changed(&mut lives).await, [0usize; 0]);
    stage.world.changed.send_replace(());
    assert_eq!(changed(&mut lives).await.len(), 12);
    assert_eq!(*stage.world.listened.lock().unwrap(), ["album"], "it is not tried again and again");
}
