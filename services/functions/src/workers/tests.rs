use std::{
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use proto::functions::{WorkResponse, work_response::Message};
use tokio::sync::mpsc;

use super::*;

fn function(concurrency: u32, queue: u32) -> Function {
    Function { concurrency: Some(concurrency), queue: Some(queue), ..Function::default() }
}

fn invocation(function: &str) -> Invocation {
    Invocation {
        function: function.to_owned(),
        params: Bytes::from_static(b"1"),
        claims: "{}".to_owned(),
        deadline: Instant::now() + Duration::from_secs(5),
    }
}

fn worker(workers: &Workers, functions: &[&str], capacity: u32) -> (Arc<Instance>, mpsc::Receiver<WorkResponse>) {
    let functions = functions.iter().map(|name| (*name).to_owned()).collect();
    let (project, service) = ("shop".to_owned(), "mail".to_owned());
    let (instance, queue) = Instance::new(workers.number(), Registration { project, service, functions, capacity });
    let instance = Arc::new(instance);
    workers.add(&instance).unwrap();
    (instance, queue)
}

fn answer(status: u32) -> WorkerResult {
    Ok(CallResponse { status, body: Bytes::from_static(b"1") })
}

/// The id of the call that `queue` has next, with its function.
fn called(queue: &mut mpsc::Receiver<WorkResponse>) -> (String, String) {
    match queue.try_recv().unwrap().message.unwrap() {
        Message::Call(call) => (call.id, call.function),
        other => panic!("{other:?}"),
    }
}

fn status(result: Option<WorkerResult>) -> Result<u32, String> {
    result.expect("it has ended").map(|answer| answer.status).map_err(|error| error.to_string())
}

#[tokio::test]
async fn calls_that_wait_are_served_in_order_and_left_out_when_their_caller_leaves() {
    let workers = Workers::new(Gauge::default());
    let (instance, mut queue) = worker(&workers, &[], 1);
    let (one, limiter) = (function(5, 3), Limiter::of(&function(5, 3)));
    let call = |name: &str| workers.call(("shop", "mail"), (&one, &limiter), invocation(name));
    let (mut first, mut second, mut third) = (pin!(call("a")), pin!(call("b")), pin!(call("c")));
    let mut leaves = Box::pin(call("d"));
    for waits in [first.as_mut().now_or_never(), second.as_mut().now_or_never(), leaves.as_mut().now_or_never()] {
        assert!(waits.is_none());
    }
    let waiting = || workers.pool("shop", "mail").unwrap().state().waiting.len();
    assert_eq!(waiting(), 2);
    drop(leaves);
    assert_eq!(waiting(), 1, "one that left takes no memory, however long the worker is busy");
    assert!(third.as_mut().now_or_never().is_none());
    for (name, running) in [("a", &mut first), ("b", &mut second), ("c", &mut third)] {
        // It is sent when its caller is asked next.
        let _pending = running.as_mut().now_or_never();
        let (id, found) = called(&mut queue);
        assert_eq!(found, name);
        assert!(queue.try_recv().is_err(), "one at once");
        instance.answered(&id, answer(200));
        assert_eq!(status(running.as_mut().now_or_never()), Ok(200));
    }
    assert_eq!(waiting(), 0);
}

#[tokio::test]
async fn a_call_whose_limit_is_reached_holds_up_no_other_function() {
    let workers = Workers::new(Gauge::default());
    let (instance, mut queue) = worker(&workers, &[], 2);
    let (one, limiter) = (function(1, 1), Limiter::of(&function(1, 1)));
    let (other, other_limiter) = (function(1, 1), Limiter::of(&function(1, 1)));
    let call = |name: &str| workers.call(("shop", "mail"), (&one, &limiter), invocation(name));
    let (mut first, mut waits) = (pin!(call("a")), pin!(call("a")));
    assert!(first.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
    let refused = status(call("a").now_or_never()).unwrap_err();
    assert_eq!(refused, "too many calls of the function: 1 are running and 1 wait");
    let mut beside = pin!(workers.call(("shop", "mail"), (&other, &other_limiter), invocation("b")));
    assert!(beside.as_mut().now_or_never().is_none());
    let (a, b) = (called(&mut queue), called(&mut queue));
    assert_eq!((a.1.as_str(), b.1.as_str()), ("a", "b"));
    instance.answered(&b.0, answer(200));
    assert_eq!(status(beside.as_mut().now_or_never()), Ok(200));
    assert!(waits.as_mut().now_or_never().is_none(), "its function still runs");
    instance.answered(&a.0, answer(201));
    assert_eq!(status(first.as_mut().now_or_never()), Ok(201));
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(called(&mut queue).1, "a");
}

#[tokio::test]
async fn who_waits_for_workers_that_all_go_is_told_at_once() {
    let workers = Workers::new(Gauge::default());
    let (one, mut queue) = worker(&workers, &["a"], 1);
    let (two, _other_queue) = worker(&workers, &["b"], 1);
    let (limits, limiter) = (function(5, 5), Limiter::of(&function(5, 5)));
    let call = |name: &str| workers.call(("shop", "mail"), (&limits, &limiter), invocation(name));
    let (mut running, mut waiting) = (pin!(call("a")), pin!(call("a")));
    assert!(running.as_mut().now_or_never().is_none() && waiting.as_mut().now_or_never().is_none());
    let none = Err("No service available: service mail has no worker".to_owned());
    // It drains: what it runs may end, and nobody waits for it.
    workers.drain(&one);
    assert_eq!(status(waiting.as_mut().now_or_never()), none);
    assert_eq!(status(call("a").now_or_never()), none);
    assert!(running.as_mut().now_or_never().is_none());
    let (id, _) = called(&mut queue);
    two.answered(&id, answer(200));
    assert!(running.as_mut().now_or_never().is_none(), "it is not the call of the other");
    workers.remove(&one);
    assert_eq!(status(running.as_mut().now_or_never()), Err("service disconnected".to_owned()));
    workers.remove(&two);
    assert_eq!(status(call("b").now_or_never()), none);
    assert!(workers.pools().is_empty());
}

#[tokio::test]
async fn a_worker_that_takes_no_messages_is_given_up() {
    let workers = Workers::new(Gauge::default());
    let (_instance, _queue) = worker(&workers, &[], 1);
    let (limits, limiter) = (function(5, 5), Limiter::of(&function(5, 5)));
    let call = || workers.call(("shop", "mail"), (&limits, &limiter), invocation("a"));
    // Each is told by two messages: the call, and that nobody waits for it.
    for _ in 0..3 {
        let mut left = Box::pin(call());
        assert!(left.as_mut().now_or_never().is_none());
    }
    assert_eq!(status(call().now_or_never()), Err("service disconnected".to_owned()));
    assert_eq!(status(call().now_or_never()), Err("No service available: service mail has no worker".to_owned()));
}

#[tokio::test]
async fn a_worker_that_answers_nothing_is_asked_last() {
    let workers = Workers::new(Gauge::default());
    // Its messages find room, though it reads none.
    let (silent, _queue) = worker(&workers, &[], 100);
    let now = Instant::now();
    let pass = |id: &str, is_late: bool| {
        let (answer, _) = tokio::sync::oneshot::channel();
        silent.invoke(id.to_owned(), invocation("a"), answer).unwrap();
        silent.give_up(id, is_late, now);
    };
    let is_avoided = |now| silent.load("a", 5, now).unwrap().0;
    (0..10).for_each(|_| pass("left", false));
    assert!(!is_avoided(now), "who leaves early says nothing of it");
    (0..4).for_each(|_| pass("late", true));
    let (answered, _) = tokio::sync::oneshot::channel();
    silent.invoke("1".to_owned(), invocation("a"), answered).unwrap();
    silent.answered("1", answer(200));
    (0..4).for_each(|_| pass("late", true));
    assert!(!is_avoided(now), "it has answered meanwhile");
    pass("late", true);
    assert!(is_avoided(now) && !is_avoided(now + Duration::from_secs(1)));
    pass("late", true);
    assert!(is_avoided(now + Duration::from_secs(1)), "twice the time");

    // Another one is called, though it has more to do; alone it is called still.
    let (one, limiter) = (function(5, 0), Limiter::of(&function(5, 0)));
    let call = || workers.call(("shop", "mail"), (&one, &limiter), invocation("a"));
    let (other, mut queue) = worker(&workers, &[], 10);
    assert!(other.begin("a", 5));
    let mut running = pin!(call());
    assert!(running.as_mut().now_or_never().is_none());
    let (id, _) = called(&mut queue);
    other.answered(&id, answer(200));
    assert_eq!(status(running.as_mut().now_or_never()), Ok(200));
    workers.remove(&other);
    let mut alone = pin!(call());
    assert!(alone.as_mut().now_or_never().is_none());
    silent.break_off();
    assert_eq!(status(alone.as_mut().now_or_never()), Err("service disconnected".to_owned()));
}
