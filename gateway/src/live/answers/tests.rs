use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use mesh::{Code, Fault};
use tokio::sync::oneshot;

use super::*;

fn key(name: &str) -> AnswerKey {
    blake3::hash(name.as_bytes())
}

fn wanted(needed: u64, now: u64) -> Wanted {
    Wanted { needed: vec![needed], now: [now].into(), snapshot: false }
}

fn answer(text: &'static str, version: u64) -> Answer {
    let json = Bytes::from_static(text.as_bytes());
    let results = vec![ReadResult { json, truncated: false, statements: 1 }];
    Answer { hash: blake3::hash(text.as_bytes()), results, snapshots: Vec::new(), versions: [version].into() }
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.results[0].json).unwrap()
}

/// What a member is answered, whose own read would answer `text`, and whether that is of another.
async fn asked(member: &AnswerMember, wanted: Wanted, text_of: &'static str) -> (String, bool) {
    let version = wanted.now[0];
    let (answer, is_shared) = member.answer(&wanted, (), |_| async move { Ok(answer(text_of, version)) }).await;
    (text(&answer.unwrap()).to_owned(), is_shared)
}

#[tokio::test]
async fn those_who_wait_at_once_are_answered_by_one_read() {
    let answers = Arc::new(SharedAnswers::default());
    let members: Vec<_> = (0..3).map(|_| answers.join(key("a"))).collect();
    let (told, tells) = oneshot::channel::<Answer>();
    let first = wanted(1, 5);
    let mut reading = Box::pin(members[0].answer(&first, (), |_| async move { Ok(tells.await.unwrap()) }));
    assert!(reading.as_mut().now_or_never().is_none());
    let second = wanted(5, 7);
    let mut waiting = Box::pin(members[1].answer(&second, (), |_| async { panic!("it joins") }));
    assert!(waiting.as_mut().now_or_never().is_none());
    // What happened after the read had begun is read again.
    assert_eq!(asked(&members[2], wanted(6, 8), "later").await, ("later".to_owned(), false));
    told.send(answer("first", 5)).unwrap();
    // Who began to read leaves: the read goes on.
    drop(reading);
    let (told, is_shared) = waiting.await;
    assert_eq!((text(&told.unwrap()), is_shared), ("first", true));
}

#[tokio::test]
async fn an_answer_is_kept_for_those_who_ask_a_little_later_and_as_long_as_it_is_new_enough() {
    let answers = Arc::new(SharedAnswers::default());
    let (one, other) = (answers.join(key("a")), answers.join(key("a")));
    assert_eq!(asked(&one, wanted(1, 5), "first").await, ("first".to_owned(), false));
    assert_eq!(asked(&other, wanted(5, 9), "unread").await, ("first".to_owned(), true));
    assert_eq!(asked(&other, wanted(6, 9), "second").await, ("second".to_owned(), false));
    let snapshot = Wanted { snapshot: true, ..wanted(6, 9) };
    assert_eq!(asked(&one, snapshot, "third").await, ("third".to_owned(), false), "it has to say what it saw");
    drop(other);
    assert_eq!(answers.kept_bytes.load(Ordering::Relaxed), 0, "nobody else asks for it");
    assert_eq!(asked(&one, wanted(1, 9), "fourth").await, ("fourth".to_owned(), false));
    drop(one);
    assert!(answers.places().is_empty());
}

#[tokio::test]
async fn nothing_is_shared_with_those_who_ask_for_something_else() {
    let answers = Arc::new(SharedAnswers::default());
    let members: Vec<_> = ["a", "a", "b", "b"].map(|name| answers.join(key(name))).into();
    assert_eq!(asked(&members[0], wanted(1, 5), "of a").await.0, "of a");
    assert_eq!(asked(&members[2], wanted(1, 5), "of b").await, ("of b".to_owned(), false));
    assert_eq!(asked(&members[1], wanted(1, 5), "unread").await.0, "of a");
    assert_eq!(asked(&members[3], wanted(1, 5), "unread").await.0, "of b");
}

#[tokio::test]
async fn what_failed_is_read_again_by_who_asks_next() {
    let answers = Arc::new(SharedAnswers::default());
    let (one, other) = (answers.join(key("a")), answers.join(key("a")));
    let fault = || Fault::new(Code::Unavailable, "gone").into();
    let first = wanted(1, 5);
    let failed = one.answer(&first, (), |_| async move { Err(fault()) }).await;
    assert!(failed.0.is_err());
    assert_eq!(asked(&other, wanted(1, 5), "read").await, ("read".to_owned(), false));
}

#[tokio::test]
async fn what_is_refused_to_one_is_read_again_for_the_others() {
    let answers = Arc::new(SharedAnswers::default());
    let members: Vec<_> = (0..3).map(|_| answers.join(key("a"))).collect();
    let (fails, failed) = oneshot::channel();
    let all = wanted(1, 5);
    let mut first = Box::pin(members[0].answer(&all, (), |_| async move { Err(failed.await.unwrap()) }));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(asked(&members[1], wanted(1, 6), "own"));
    let mut third = Box::pin(asked(&members[2], wanted(1, 7), "unread"));
    assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
    fails.send(ReadFault::Failed(Fault::new(Code::Denied, "the grant for a has expired"))).unwrap();
    assert!(first.await.0.is_err());
    assert_eq!(second.await, ("own".to_owned(), false));
    assert_eq!(third.await, ("own".to_owned(), true));
}

#[tokio::test]
async fn a_read_for_whom_nobody_waits_any_more_ends() {
    struct Ended(Arc<AtomicBool>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let answers = Arc::new(SharedAnswers::default());
    let (one, other) = (answers.join(key("a")), answers.join(key("a")));
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = Ended(has_ended.clone());
    let first = wanted(1, 5);
    let mut reading = Box::pin(one.answer(&first, (), |_| async move {
        let _ended = ended;
        std::future::pending().await
    }));
    assert!(reading.as_mut().now_or_never().is_none());
    drop(reading);
    assert!(has_ended.load(Ordering::SeqCst));
    assert_eq!(asked(&other, wanted(1, 5), "read").await, ("read".to_owned(), false));
}

#[tokio::test]
async fn answers_that_are_kept_have_a_bound() {
    let answers = Arc::new(SharedAnswers::default());
    let members: Vec<_> = (0..6)
        .flat_map(|name| [answers.join(key(&format!("{name}"))), answers.join(key(&format!("{name}")))])
        .collect();
    let large = || Answer {
        results: vec![ReadResult { json: vec![b'1'; KEPT_BYTES / 4].into(), truncated: false, statements: 1 }],
        ..answer("", 5)
    };
    for member in members.iter().step_by(2) {
        let first = wanted(1, 5);
        member.answer(&first, (), |_| async move { Ok(large()) }).await.0.unwrap();
    }
    assert_eq!(answers.kept_bytes.load(Ordering::Relaxed), KEPT_BYTES);
    drop(members);
    assert_eq!(answers.kept_bytes.load(Ordering::Relaxed), 0);
}
