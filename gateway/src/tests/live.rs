//! Live queries over faked neighbours.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::FutureExt;
use mesh::{Call, Code, Fault};
use query::{Field, Node, Read, Shape};
use tokio::sync::watch;

use super::stage::{Stage, World};
use crate::{
    edge::{Caller, ReadFault},
    live::{CallerId, LiveQuery, Subscriber},
};

pub(super) fn read(table: &str, column: &str) -> Vec<Read> {
    let node = Node::new(Shape::Many, vec![Field::column(column)]);
    vec![Read { database: "music".into(), table: table.into(), node }]
}

pub(super) async fn begin(
    stage: &Stage,
    token: &watch::Sender<Arc<str>>,
    reads: Vec<Read>,
) -> Result<LiveQuery, Fault> {
    let caller = Caller { call: Call::begin(None, None, None), token: Arc::default() };
    let project = stage.service.edge().project(&caller, "shop".into()).await.expect("it is in the catalogue");
    let caller = CallerId::of("shop", &token.borrow(), None);
    let subscriber = Subscriber { caller, request_id: "r".into(), token: token.subscribe() };
    stage.service.live().begin(&project, Arc::new(reads), subscriber).await
}

/// A live query of albums that has been answered once.
async fn answered(stage: &Stage, token: &watch::Sender<Arc<str>>) -> LiveQuery {
    let mut live = begin(stage, token, read("album", "album_id")).await.expect("everybody may read albums");
    assert_eq!(next(&mut live).await.as_deref(), Some(r#"[{"album_id":1},{"album_id":2}]"#));
    live
}

/// What the next read brings.
pub(super) async fn next(live: &mut LiveQuery) -> Option<String> {
    live.changed().await;
    let answers = live.read().await.expect("it goes on")?;
    live.delivered();
    Some(String::from_utf8(answers[0].json.to_vec()).expect("JSON is UTF-8"))
}

async fn error(live: &mut LiveQuery) -> Code {
    loop {
        live.changed().await;
        match live.read().await {
            Ok(answers) => assert!(answers.is_none(), "it is not answered"),
            Err(ReadFault::Refused(fault) | ReadFault::Failed(fault)) => return fault.code,
        }
    }
}

fn show(stage: &Stage, json: &'static str) {
    *stage.world.json.lock().unwrap() = Some(json);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_until_something_happens() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    assert_eq!(*stage.world.listened.lock().unwrap(), ["album"]);
    let reads = stage.world.reads.lock().unwrap().len();

    let waited = tokio::time::timeout(Duration::from_secs(3600), live.changed()).await;

    assert!(waited.is_err(), "nothing has changed");
    assert_eq!(stage.world.reads.lock().unwrap().len(), reads);
    stage.world.changed.send_replace(());
    assert_eq!(next(&mut live).await, None, "the answer is the same");
    show(&stage, "[3]");
    stage.world.changed.send_replace(());
    assert_eq!(next(&mut live).await.as_deref(), Some("[3]"));
    let text = stage.service.mesh().metrics().render();
    for line in ["perigee_live_queries 1", r#"perigee_live_reads_total{answer="changed"} 2"#] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_rules_and_another_token_are_a_change() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    show(&stage, "[3]");
    stage.world.revised.send_replace(());
    assert_eq!(next(&mut live).await.as_deref(), Some("[3]"));
    show(&stage, "[4]");
    token.send_replace("staff".into());
    assert_eq!(next(&mut live).await.as_deref(), Some("[4]"));
    let authorised = stage.world.authorisations.lock().unwrap().last().expect("it was authorised").clone();
    assert_eq!(&*authorised.token, "staff");
}

#[tokio::test]
async fn other_rules_on_any_node_are_a_change() {
    let worlds = [(), ()].map(|()| Arc::new(World::default()));
    let stage = Stage::with_rules_of(&worlds).await;
    let token = watch::Sender::default();
    let mut live = answered(&stage, &token).await;
    for (world, answer) in worlds.iter().zip(["[3]", "[4]"]) {
        while world.revised.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        show(&stage, answer);
        world.revised.send_replace(());
        let told = async {
            loop {
                if let Some(told) = next(&mut live).await {
                    return told;
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("its change is told");
        assert_eq!(told, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_could_not_be_queued_is_asked_for_again() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    assert!(live.changed().now_or_never().is_none());
    show(&stage, "[3]");
    stage.world.changed.send_replace(());
    live.changed().await;
    assert!(live.read().await.expect("it goes on").is_some());
    live.dropped();
    live.changed().now_or_never().expect("it is asked for at once");
    assert!(live.read().await.expect("it goes on").is_some(), "the same answer was not sent");
    for _ in 0..5 {
        live.postponed(Fault::new(Code::Unavailable, "no room")).expect("it may pass");
        assert!(live.changed().now_or_never().is_none(), "a while later");
        live.changed().await;
        assert!(live.read().await.expect("it goes on").is_some());
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    let ended = live.postponed(Fault::new(Code::Unavailable, "no room")).expect_err("it lasts too long");
    assert_eq!(ended.code, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_before_one_that_was_dropped_is_not_sent_again() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    show(&stage, "[3]");
    stage.world.changed.send_replace(());
    live.changed().await;
    assert!(live.read().await.expect("it goes on").is_some());
    live.dropped();
    *stage.world.json.lock().unwrap() = None;
    assert_eq!(next(&mut live).await, None, "the client has it");
}

#[tokio::test(start_paused = true)]
async fn tables_that_rules_look_at_are_followed_as_long_as_they_do() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let listened = || stage.world.listened.lock().unwrap().clone();
    let paths = |names: &[&str]| vec![names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    *stage.world.relations.lock().unwrap() = paths(&["track"]);
    let mut live = answered(&stage, &token).await;
    assert_eq!(listened(), ["album", "track"]);

    *stage.world.relations.lock().unwrap() = paths(&["track", "secret"]);
    stage.world.revised.send_replace(());
    assert_eq!(next(&mut live).await, None, "the answer is the same");
    assert_eq!(listened(), ["album", "track", "secret"], "the rule looks at one more");
    stage.world.relations.lock().unwrap().clear();
    stage.world.revised.send_replace(());
    assert_eq!(next(&mut live).await, None, "the answer is the same");
    // The streams end a moment later.
    while stage.world.changed.receiver_count() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn names_of_tables_that_rules_look_at_are_not_told() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    *stage.world.relations.lock().unwrap() = vec![vec!["track".to_owned()]];
    // Whichever of both is asked for first.
    let fault = Fault::new(Code::BadRequest, "changes of track cannot be followed");
    stage.world.refused.lock().unwrap().push(("track", fault));
    let refused = begin(&stage, &token, read("album", "title")).await.map(|_| "live").unwrap_err();
    let told = "the changes of a table that the rules look at cannot be followed";
    assert_eq!(refused, Fault::new(Code::BadRequest, told));
}

#[tokio::test(start_paused = true)]
async fn other_settings_of_the_project_are_a_change() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    show(&stage, "[3]");
    stage.resources.send_replace(super::stage::snapshot(&super::stage::PROJECTS.replace("1000", "2000")));
    assert_eq!(next(&mut live).await.as_deref(), Some("[3]"));
    assert!(live.changed().now_or_never().is_none(), "it was asked once");
    let without = super::stage::PROJECTS.replace("id: shop", "id: other").replace("project: shop", "project: other");
    stage.resources.send_replace(super::stage::snapshot(&without));
    assert_eq!(error(&mut live).await, Code::UnknownProject);
}

#[tokio::test(start_paused = true)]
async fn changes_that_cannot_be_followed_for_long_end_it() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    let begin = tokio::time::Instant::now();
    let fault = || Fault::new(Code::Unavailable, "the database is gone");
    stage.world.refused.lock().unwrap().extend((0..1000).map(|_| ("album", fault())));
    stage.world.cut.notify_waiters();
    assert_eq!(error(&mut live).await, Code::Unavailable, "though nothing was read");
    let elapsed = begin.elapsed();
    assert!((Duration::from_secs(60)..Duration::from_secs(65)).contains(&elapsed), "{elapsed:?}");
    assert_eq!(stage.world.reads.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_project_have_its_time_limit() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    stage.resources.send_replace(super::stage::snapshot(
        &super::stage::PROJECTS.replace("limits: { bodyBytes: 1000 }", "limits: { timeSeconds: 0.5 }"),
    ));
    let edge = stage.service.edge();
    while edge.settings("shop").is_none_or(|project| project.spec.limits.time_seconds.is_none()) {
        tokio::task::yield_now().await;
    }
    *stage.world.gate.lock().unwrap() = Some(Arc::default());
    stage.world.changed.send_replace(());
    live.changed().await;
    let begin = tokio::time::Instant::now();
    let read = live.read().await.expect("it is retried");
    assert!(read.is_none());
    // The clock of the test is ahead of that of the deadline by what was slept.
    let elapsed = begin.elapsed();
    assert!(elapsed > Duration::ZERO && elapsed <= Duration::from_millis(500), "{elapsed:?}: the node allows 30 s");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_set_up_for_who_may_not_read() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());

    let refused = begin(&stage, &token, read("invoice", "total")).await.map(|_| "live").unwrap_err();

    assert_eq!(refused.code, Code::Unauthenticated);
    assert!(stage.world.listened.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_may_no_longer_read_is_told_so() {
    let stage = Stage::new().await;
    let token = watch::Sender::new(Arc::from("staff"));
    let mut live = begin(&stage, &token, read("invoice", "total")).await.expect("staff may read invoices");
    next(&mut live).await;
    token.send_replace("user".into());
    assert_eq!(error(&mut live).await, Code::Denied);
}

#[tokio::test]
async fn the_end_of_a_token_is_one_of_its_live_queries() {
    let stage = Stage::new().await;
    let token = watch::Sender::new(Arc::from("staff"));
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    *stage.world.token_expires_ms.lock().unwrap() = Some(now + 100);
    let mut live = begin(&stage, &token, read("invoice", "total")).await.expect("staff may read invoices");
    next(&mut live).await;
    stage.world.expire("staff");
    assert_eq!(error(&mut live).await, Code::TokenExpired);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_renewed_or_expires_while_a_read_waits_for_its_turn_is_seen() {
    let stage = Stage::new().await;
    for (is_renewed, code) in [(true, Code::Denied), (false, Code::TokenExpired)] {
        let token = watch::Sender::new(Arc::from("staff"));
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        *stage.world.token_expires_ms.lock().unwrap() = Some(now + 60_000);
        let mut live = begin(&stage, &token, read("invoice", "total")).await.expect("staff may read invoices");
        next(&mut live).await;
        let mut others = Vec::new();
        for limit in 0..8 {
            // They ask for nothing that another can answer, nor together.
            let mut asked = read("album", "title");
            asked[0].node.limit = Some(limit);
            others.push(begin(&stage, &token, asked).await.expect("everybody may read albums"));
        }
        *stage.world.gate.lock().unwrap() = Some(Arc::default());
        let mut turns: Vec<_> = others.iter_mut().map(|other| Box::pin(other.read())).collect();
        assert!(turns.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        let mut reading = Box::pin(live.read());
        assert!(reading.as_mut().now_or_never().is_none(), "it waits for its turn");
        match is_renewed {
            true => drop(token.send_replace("user".into())),
            false => {
                tokio::time::advance(Duration::from_secs(61)).await;
                stage.world.expire("staff");
            }
        }
        *stage.world.gate.lock().unwrap() = None;
        drop(turns);
        let Err(ReadFault::Refused(fault) | ReadFault::Failed(fault)) = reading.await else { panic!("it is over") };
        assert_eq!(fault.code, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_of_auth_rules_does_not_ask_all_the_time() {
    let stage = Stage::new().await;
    let token = watch::Sender::new(Arc::from("staff"));
    *stage.world.token_expires_ms.lock().unwrap() = Some(0);
    let mut live = begin(&stage, &token, read("invoice", "total")).await.expect("staff may read invoices");
    next(&mut live).await;
    let begin = tokio::time::Instant::now();
    for count in 1..=3 {
        assert_eq!(next(&mut live).await, None, "the answer is the same");
        assert_eq!(begin.elapsed().as_secs(), count);
    }
    stage.world.expire("staff");
    assert_eq!(error(&mut live).await, Code::TokenExpired);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_nobody_answers_is_tried_again_for_a_while() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    stage.world.is_gone.store(true, Ordering::SeqCst);
    stage.world.changed.send_replace(());
    for _ in 0..5 {
        assert_eq!(next(&mut live).await, None);
    }
    stage.world.is_gone.store(false, Ordering::SeqCst);
    show(&stage, "[3]");
    assert_eq!(next(&mut live).await.as_deref(), Some("[3]"), "the change is not lost");

    stage.world.is_gone.store(true, Ordering::SeqCst);
    stage.world.changed.send_replace(());
    assert_eq!(error(&mut live).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_the_stream_was_broken_is_read() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let mut live = answered(&stage, &token).await;
    show(&stage, "[3]");
    stage.world.cut.notify_waiters();
    assert_eq!(next(&mut live).await.as_deref(), Some("[3]"));
    assert_eq!(*stage.world.listened.lock().unwrap(), ["album", "album"]);
}

#[tokio::test(start_paused = true)]
async fn live_queries_of_a_table_share_its_stream() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    let (mut one, mut other) = (answered(&stage, &token).await, answered(&stage, &token).await);
    assert_eq!(*stage.world.listened.lock().unwrap(), ["album"]);
    show(&stage, "[3]");
    stage.world.changed.send_replace(());
    assert_eq!(next(&mut one).await.as_deref(), Some("[3]"));
    assert_eq!(next(&mut other).await.as_deref(), Some("[3]"));
    drop(one);
    assert!(other.changed().now_or_never().is_none());
    assert_eq!(stage.world.changed.receiver_count(), 1);
    drop(other);
    // The stream ends a moment later.
    while stage.world.changed.receiver_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_followed_is_refused_with_the_reason() {
    let (stage, token) = (Stage::new().await, watch::Sender::default());
    stage.world.faults.lock().unwrap().push(Fault::new(Code::BadRequest, "changes cannot be followed"));
    let refused = begin(&stage, &token, read("album", "title")).await.map(|_| "live").unwrap_err();
    assert_eq!(refused, Fault::new(Code::BadRequest, "changes cannot be followed"));
}
