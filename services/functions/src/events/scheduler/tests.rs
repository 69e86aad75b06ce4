//! Due times over nodes that are killed, with clocks that are set: each is one event, and none comes early.

use std::collections::BTreeMap;

use mesh::resources::Snapshot;
use query::resources::{Project, ProjectMeta};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::*;
use crate::events::{
    TRIGGER,
    queue::{
        operate::EventFilter,
        tests::{Place, on_both},
    },
};

const START: i64 = 1_767_225_600_000;
const MINUTE: i64 = 60_000;

/// Triggers by id, each on a schedule.
fn triggers(all: &[(&str, Value)]) -> Arc<Triggers> {
    let project = mesh::resources::Kind {
        name: "project",
        parse: mesh::resources::parse_typed::<ProjectMeta, Project>,
        check: |_| Vec::new(),
        schema: mesh::resources::schema_typed::<ProjectMeta, Project>,
    };
    let mut yaml = json!({"kind": "project", "meta": {"id": "shop"}}).to_string();
    for (id, on) in all {
        let spec = json!({"on": on, "to": {"url": "http://a/"}});
        let document = json!({"kind": "trigger", "meta": {"project": "shop", "id": id}, "spec": spec});
        yaml.push_str(&format!("\n---\n{document}"));
    }
    Arc::new(Triggers::of(&Snapshot::parse(&yaml, &[project, TRIGGER]).unwrap()))
}

/// The due times of the events of a trigger, in the order in which they were made.
async fn due_times(queue: &Queue, id: &str) -> Vec<String> {
    let filter = EventFilter { trigger: Some(id.to_owned()), ..EventFilter::default() };
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let page = queue.list(&filter, after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        all.extend(page.into_iter().map(|event| event.id));
    }
    all
}

fn ids(id: &str, due: impl IntoIterator<Item = i64>) -> Vec<String> {
    let trigger = TriggerKey { project: "shop".into(), id: id.into() };
    due.into_iter().map(|due_ms| event_id(&trigger, due_ms)).collect()
}

async fn each_time_is_due_once(place: Place) {
    let schedules = [
        ("minutes", json!({"schedule": "* * * * *"})),
        ("seconds", json!({"schedule": "*/20 * * * * *"})),
        ("once", json!({"at": "2026-01-01T00:10:30Z"})),
        ("past", json!({"at": "2025-01-01T00:00:00Z"})),
    ];
    let triggers = triggers(&schedules);
    let queue = place.open().await;
    let new_node = || Scheduler::new(queue.clone(), Registry::of(triggers.clone()));
    let mut nodes = [new_node(), new_node(), new_node()];
    let mut random = StdRng::seed_from_u64(7);
    // Milliseconds that have passed.
    let mut now = START;
    let mut once = None;
    while now < START + 30 * MINUTE {
        let node = random.random_range(0..nodes.len());
        if random.random_ratio(1, 20) {
            nodes[node] = new_node();
        }
        let fired = nodes[node].fire(now).await.unwrap();
        assert!(fired.next_ms.is_none_or(|next| next > now), "nothing that is due waits");
        if once.is_none() && !due_times(&queue, "once").await.is_empty() {
            once = Some(now);
        }
        now += random.random_range(0..2000);
    }
    for node in &mut nodes {
        node.fire(START + 30 * MINUTE).await.unwrap();
    }
    assert!(once.unwrap() >= START + 10 * MINUTE + 30_000, "it is not early");
    assert_eq!(due_times(&queue, "minutes").await, ids("minutes", (1..=30).map(|minute| START + minute * MINUTE)));
    assert_eq!(due_times(&queue, "seconds").await, ids("seconds", (1..=90).map(|third| START + third * 20_000)));
    assert_eq!(due_times(&queue, "once").await, ids("once", [START + 10 * MINUTE + 30_000]));
    assert!(due_times(&queue, "past").await.is_empty());
}

async fn steps_of_the_clock_make_no_time_due_twice_or_early(place: Place) {
    let queue = place.open().await;
    let triggers = triggers(&[("minutes", json!({"schedule": "* * * * *"}))]);
    let mut random = StdRng::seed_from_u64(11);
    let mut node = Scheduler::new(queue.clone(), Registry::of(triggers.clone()));
    node.fire(START).await.unwrap();
    let (mut now, mut seen) = (START, BTreeMap::new());
    for _ in 0..300 {
        // Sometimes it is set, by up to an hour.
        now += if random.random_ratio(1, 10) { random.random_range(-3_600_000..3_600_000) } else { 5000 };
        now = now.max(START);
        let mut other = Scheduler::new(queue.clone(), Registry::of(triggers.clone()));
        let events = node.fire(now).await.unwrap().events + other.fire(now).await.unwrap().events;
        assert!(events <= 1, "of what was missed one time is due");
        for id in due_times(&queue, "minutes").await {
            seen.entry(id).or_insert(now);
        }
    }
    let due: BTreeMap<String, i64> = (1..=40_000)
        .map(|minute| START + minute * MINUTE)
        .zip(ids("minutes", (1..=40_000).map(|minute| START + minute * MINUTE)))
        .map(|(due_ms, id)| (id, due_ms))
        .collect();
    assert!(seen.len() > 3, "{}", seen.len());
    for (id, at) in seen {
        let due_ms = due[&id];
        assert!(due_ms <= at && at - due_ms < MINUTE, "the latest is due: {due_ms} at {at}");
    }
}

async fn what_fell_due_meanwhile_is_due_once_and_an_edit_begins_anew(place: Place) {
    let queue = place.open().await;
    let hourly = triggers(&[("a", json!({"schedule": "0 * * * *"}))]);
    let mut node = Scheduler::new(queue.clone(), Registry::of(hourly.clone()));
    assert_eq!(node.fire(START).await.unwrap(), Fired { events: 0, next_ms: Some(START + 60 * MINUTE) });
    let later = START + 5 * 60 * MINUTE + 1;
    assert_eq!(node.fire(later).await.unwrap(), Fired { events: 1, next_ms: Some(START + 6 * 60 * MINUTE) });
    assert_eq!(due_times(&queue, "a").await, ids("a", [START + 5 * 60 * MINUTE]));

    let daily = triggers(&[("a", json!({"schedule": "0 0 * * *"}))]);
    let mut node = Scheduler::new(queue.clone(), Registry::of(daily));
    assert_eq!(node.fire(later).await.unwrap(), Fired { events: 0, next_ms: Some(START + 24 * 60 * MINUTE) });
    let trigger = TriggerKey { project: "shop".into(), id: "a".into() };
    queue.fail_trigger(&trigger, later).await.unwrap();
    assert!(queue.schedules().await.unwrap().is_empty(), "nothing stays of a trigger that is gone");
}

/// Nodes learn of an edit one after the other, and each goes on with the schedule that it has.
async fn nodes_with_other_schedules_of_a_trigger_leave_each_other_alone(place: Place) {
    let queue = place.open().await;
    let of = |schedule: &str| Registry::of(triggers(&[("a", json!({"schedule": schedule}))]));
    let mut hourly = Scheduler::new(queue.clone(), of("0 * * * *"));
    let mut halves = Scheduler::new(queue.clone(), of("30 * * * *"));
    if !queue.is_shared() {
        // A file is of one node, which forgets at once what it has not.
        hourly.fire(START).await.unwrap();
        halves.fire(START).await.unwrap();
        assert_eq!(queue.schedules().await.unwrap().len(), 1);
        return;
    }
    let mut events = 0;
    for minute in 0..=240 {
        events += hourly.fire(START + minute * MINUTE).await.unwrap().events;
        events += halves.fire(START + minute * MINUTE).await.unwrap().events;
    }
    assert_eq!((events, queue.schedules().await.unwrap().len()), (8, 2));
    let expected = (1..=8).map(|half| START + half * 30 * MINUTE);
    assert_eq!(due_times(&queue, "a").await, ids("a", expected));

    // Once no node has had one for a while, it is forgotten.
    let known = || async { queue.schedules().await.unwrap().into_iter().collect::<HashMap<_, _>>() };
    let now = Instant::now();
    hourly.keep(known().await, now).await.unwrap();
    halves.keep(known().await, now).await.unwrap();
    hourly.keep(known().await, now + KEPT_TIME / 2).await.unwrap();
    hourly.keep(known().await, now + KEPT_TIME).await.unwrap();
    assert_eq!(known().await.len(), 2, "the other node was seen to have it");
    hourly.keep(known().await, now + 2 * KEPT_TIME).await.unwrap();
    let left: Vec<String> = known().await.into_keys().map(|key| key.schedule).collect();
    assert_eq!(left, ["cron 0 * * * * UTC"]);
}

on_both!(
    each_time_is_due_once,
    steps_of_the_clock_make_no_time_due_twice_or_early,
    what_fell_due_meanwhile_is_due_once_and_an_edit_begins_anew,
    nodes_with_other_schedules_of_a_trigger_leave_each_other_alone,
);
