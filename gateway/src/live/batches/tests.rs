use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use tokio::sync::oneshot;

use super::*;

type TestBatches = Batches<usize, usize>;

fn key(name: &str) -> ShapeKey {
    blake3::hash(name.as_bytes())
}

/// Asks for the double of a number; what batches are read is noted in `sizes`.
async fn doubled(member: &BatchMember<usize, usize>, number: usize, sizes: &Arc<Mutex<Vec<usize>>>) -> Option<usize> {
    let (due, sizes) = (member.due(), sizes.clone());
    // As long as it takes to be authorised.
    tokio::task::yield_now().await;
    let read = move |items: Vec<usize>| async move {
        locked(&sizes).push(items.len());
        Some(items.into_iter().map(|item| item * 2).collect())
    };
    member.answer(due, number, read).await
}

#[tokio::test(start_paused = true)]
async fn those_that_are_due_at_once_are_one_batch_of_a_hundred_at_most() {
    let batches = TestBatches::default();
    for (count, expected) in [(1, vec![1]), (7, vec![7]), (100, vec![100]), (250, vec![100, 100, 50])] {
        let members: Vec<_> = (0..count).map(|_| batches.join(key("a"))).collect();
        let sizes = Arc::default();
        let asked = members.iter().enumerate().map(|(number, member)| doubled(member, number, &sizes));
        let answers = join_all(asked).await;
        assert_eq!(answers, (0..count).map(|number| Some(number * 2)).collect::<Vec<_>>());
        let mut sizes = locked(&sizes).clone();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        assert_eq!(sizes, expected);
    }
    assert!(locked(&batches.shapes).is_empty(), "nothing is kept of those that left");
}

#[tokio::test(start_paused = true)]
async fn those_of_other_shapes_are_read_by_themselves() {
    let batches = TestBatches::default();
    let members: Vec<_> = (0..6).map(|index| batches.join(key(if index < 4 { "a" } else { "b" }))).collect();
    let sizes = Arc::default();
    join_all(members.iter().map(|member| doubled(member, 1, &sizes))).await;
    let mut sizes = locked(&sizes).clone();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 4]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_due_and_does_not_come_is_waited_for_a_while_only() {
    let batches = TestBatches::default();
    let (one, other) = (batches.join(key("a")), batches.join(key("a")));
    let (sizes, begun) = (Arc::default(), Instant::now());
    assert_eq!(doubled(&one, 1, &sizes).await, Some(2));
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody is due");
    let due = other.due();
    assert_eq!(doubled(&one, 1, &sizes).await, Some(2));
    assert_eq!(begun.elapsed(), GATHER_TIMEOUT);
    let (answer, ()) = tokio::join!(doubled(&one, 1, &sizes), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(due);
    });
    assert_eq!((answer, begun.elapsed()), (Some(2), GATHER_TIMEOUT + Duration::from_millis(5)), "it left");
}

#[tokio::test(start_paused = true)]
async fn as_many_as_in_the_last_batch_are_waited_for_a_little() {
    let batches = TestBatches::default();
    let members: Vec<_> = (0..3).map(|_| batches.join(key("a"))).collect();
    let sizes = Arc::default();
    join_all(members.iter().map(|member| doubled(member, 1, &sizes))).await;
    let late = async |member, wait| {
        tokio::time::sleep(wait).await;
        doubled(member, 1, &sizes).await
    };
    let millisecond = Duration::from_millis(1);
    let all = [(&members[0], Duration::ZERO), (&members[1], millisecond), (&members[2], millisecond)];
    join_all(all.map(|(member, wait)| late(member, wait))).await;
    let begun = Instant::now();
    doubled(&members[0], 1, &sizes).await;
    assert!(begun.elapsed() >= LINGER && begun.elapsed() < LINGER * 2, "{:?}", begun.elapsed());
    let begun = Instant::now();
    doubled(&members[0], 1, &sizes).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "the last batch was of one");
    assert_eq!(*locked(&sizes), [3, 3, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_is_forgotten_after_a_few_that_are_small() {
    let batches = TestBatches::default();
    let members: Vec<_> = (0..20).map(|_| batches.join(key("a"))).collect();
    let sizes = Arc::default();
    join_all(members.iter().map(|member| doubled(member, 1, &sizes))).await;
    for waits in [true, true, false, false] {
        let begun = Instant::now();
        doubled(&members[0], 1, &sizes).await;
        assert_eq!(begun.elapsed() >= LINGER, waits);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_while_others_are_read_is_the_next_batch() {
    let batches = TestBatches::default();
    let members: Vec<_> = (0..12).map(|_| batches.join(key("a"))).collect();
    let others: Vec<_> = (0..3).map(|_| batches.join(key("b"))).collect();
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let late = async |members: &[BatchMember<usize, usize>], index: usize, millis| {
        // Each is due when those before it have begun to be read.
        tokio::time::sleep(Duration::from_millis(index as u64)).await;
        let (due, sizes) = (members[index].due(), sizes.clone());
        let read = move |items: Vec<usize>| async move {
            locked(&sizes).push(items.len());
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Some(items)
        };
        members[index].answer(due, index, read).await
    };
    let answers = join_all((0..12).map(|index| late(&members, index, 15))).await;
    assert_eq!(answers, (0..12).map(Some).collect::<Vec<_>>());
    assert_eq!(*locked(&sizes), [1, 1, 10]);
    let begun = Instant::now();
    join_all((0..3).map(|index| late(&others, index, 500))).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(502) + GATHER_TIMEOUT, "slow ones are not waited for");
}

async fn never(_: Vec<usize>) -> Option<Vec<usize>> {
    panic!("it joins the batch of another")
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_on_without_those_that_leave() {
    let batches = TestBatches::default();
    let members: Vec<_> = (0..3).map(|_| batches.join(key("a"))).collect();
    let (sent, items) = oneshot::channel();
    let (ask, asked) = oneshot::channel();
    let first = members[0].answer(members[0].due(), 10, move |items| async move {
        sent.send(items.clone()).unwrap();
        asked.await.unwrap();
        Some(items)
    });
    let mut first = Box::pin(first);
    let last_due = members[2].due();
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(members[1].answer(members[1].due(), 11, never));
    let mut third = Box::pin(members[2].answer(last_due, 12, never));
    assert!(second.as_mut().now_or_never().is_none());
    drop(second);
    for _ in 0..2 {
        assert!(third.as_mut().now_or_never().is_none());
    }
    // It is read by now.
    drop(first);
    let answered = async {
        assert_eq!(items.await.unwrap(), [10, 12], "who has left before is not read");
        ask.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(third, answered);
    assert_eq!(answer, Some(12), "it goes on without who began it");
}

#[tokio::test(start_paused = true)]
async fn after_a_batch_that_fails_the_next_are_smaller() {
    let batches = TestBatches::default();
    let members: Vec<_> = (0..80).map(|_| batches.join(key("a"))).collect();
    let largest = Arc::new(AtomicUsize::new(0));
    let mut seen = Vec::new();
    for round in 0..3 {
        largest.store(0, Ordering::Relaxed);
        let asked = members.iter().map(|member| {
            let (due, largest) = (member.due(), largest.clone());
            member.answer(due, 1, move |items: Vec<usize>| async move {
                largest.fetch_max(items.len(), Ordering::Relaxed);
                (round > 0).then_some(items)
            })
        });
        let answered = join_all(asked).await.into_iter().flatten().count();
        seen.push((largest.load(Ordering::Relaxed), answered));
    }
    assert_eq!(seen, [(80, 0), (40, 80), (42, 80)]);
}
