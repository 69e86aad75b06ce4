use futures::FutureExt;

use super::*;
use crate::{
    blocking::StopOnDrop,
    budget::{AnswerLimit, Memory},
    store::sqlite,
};

/// `rows` times the same seven bytes.
fn tree(rows: usize) -> Tree {
    let level = Level {
        name: String::new(),
        shape: Shape::Many,
        is_asked: true,
        link: Vec::new(),
        key_form: KeyForm::Equal,
        members: vec![JsonMember::Constant { text: b"\"a\":1".to_vec() }],
        most: usize::MAX,
        cut: None,
        is_void: false,
    };
    let rows = Rows::Sqlite(sqlite::SqliteRows::affected(rows));
    Tree { plan: Plan { levels: vec![level].into() }, rows: vec![Some(rows)], numbers: Numbers::Exact }
}

#[test]
fn an_answer_has_at_most_its_bytes() {
    let tree = tree(100_000);
    let whole = tree.write(None, usize::MAX, None).unwrap().json.len();
    assert_eq!(whole, 100_000 * 8 + 1);
    for (most, is_whole) in [(whole, true), (whole - 1, false), (CHECK_BYTES, false), (1, false)] {
        assert_eq!(tree.write(None, most, None).is_ok(), is_whole, "{most}");
    }
    assert_eq!(tree.write(Some(&[]), 2, None).unwrap().json, "[]");
}

fn writer(tree: &Tree, most: usize, stop: Option<&Stop>, test: impl FnOnce(&mut Writer<'_>)) {
    test(&mut Writer { tree, indexes: &[], out: Vec::new(), before: None, most, stop, check_at: 0 });
}

#[test]
fn no_row_is_written_after_the_limit() {
    let tree = tree(0);
    let waiting = StopOnDrop::new();
    for most in [1, 1000, CHECK_BYTES + 1000, 3 * FLUSH_BYTES] {
        for stop in [None, Some(&waiting.stop())] {
            writer(&tree, most, stop, |writer| {
                let mut rows = 0;
                let written = writer.node(0, (0..1_000_000).inspect(|_| rows += 1));
                assert_eq!(written, Err(Halt::Full));
                assert!(rows * 8 <= most + 16, "{rows} rows of {most} bytes");
            });
        }
    }
}

/// A check costs more than a row: no more often, but at the end of the room.
#[test]
fn limits_are_checked_every_32_kib() {
    let tree = tree(0);
    for (most, rows, check_at) in [(1 << 20, 1000, 1 + (32 << 10)), (10_000, 1000, 10_000)] {
        writer(&tree, most, None, |writer| {
            writer.node(0, 0..rows).unwrap();
            assert_eq!(writer.check_at, check_at);
        });
    }
    for (len, is_checked) in [(1, false), (32 << 10, false), ((32 << 10) + 1, true)] {
        let long = "x".repeat(len);
        for value in [Cell::Text((&long).into()), Cell::Bytes(long.as_bytes()), Cell::Json(long.as_bytes())] {
            writer(&tree, 1 << 20, None, |writer| {
                writer.cell(&value).unwrap();
                assert_eq!(writer.check_at > 0, is_checked, "{len}");
            });
        }
    }
}

#[test]
fn no_long_value_is_written_much_beyond_the_limit() {
    let long = "\n".repeat(1 << 20);
    let values = [Cell::Text((&long).into()), Cell::Bytes(long.as_bytes()), Cell::Json(long.as_bytes())];
    for value in values {
        writer(&tree(0), 1000, None, |writer| {
            assert_eq!(writer.cell(&value), Err(Halt::Full));
            assert!(writer.len() <= 2 * CHUNK_BYTES + 1, "{}", writer.len());
        });
    }
}

#[test]
fn no_list_is_written_much_beyond_the_limit() {
    let list = Cell::List((0..3).map(Cell::Int).collect());
    writer(&tree(0), 1000, None, |writer| {
        writer.cell(&Cell::List(vec![list, Cell::List(Vec::new())])).unwrap();
        assert_eq!(writer.out, b"[[0,1,2],[]]");
    });
    let long = Cell::List(vec![Cell::Bool(true); 1 << 20]);
    writer(&tree(0), 1000, None, |writer| {
        assert_eq!(writer.cell(&long), Err(Halt::Full));
        assert!(writer.len() <= 1000 + 10, "{}", writer.len());
    });
}

#[test]
fn little_stays_where_it_is_written() {
    let waiting = StopOnDrop::new();
    for (len, is_mapped) in [(FLUSH_BYTES, false), (FLUSH_BYTES + 1, true)] {
        writer(&tree(0), 1 << 20, Some(&waiting.stop()), |writer| {
            writer.out = vec![b' '; len];
            writer.check_limits().unwrap();
            assert_eq!(writer.before.is_some(), is_mapped, "{len}");
        });
    }
}

/// Only what is written on a blocking thread, within a limit, leaves the allocator.
#[test]
fn much_goes_on_in_a_mapping() {
    let tree = tree(0);
    let waiting = StopOnDrop::new();
    let stop = waiting.stop();
    for (most, stop, rows, is_mapped) in [
        (1 << 20, Some(&stop), 1000, false),
        (1 << 20, Some(&stop), 100_000, true),
        (1 << 20, None, 100_000, false),
        (usize::MAX, Some(&stop), 100_000, false),
    ] {
        writer(&tree, most, stop, |writer| {
            writer.node(0, 0..rows).unwrap();
            assert_eq!(writer.before.is_some(), is_mapped, "{most} {rows}");
            assert_eq!(writer.len(), 8 * rows + 1);
            assert!(writer.out.len() <= FLUSH_BYTES + 2 * CHECK_BYTES || !is_mapped);
        });
    }
}

/// Small answers wait for no other thread, and no more than them.
#[tokio::test]
async fn small_answers_are_written_inline() {
    let memory = Memory::default();
    let other = Budget::read(AnswerLimit::new(0, 0), &memory);
    // No turn is left: what is not written inline waits.
    let _turns: Vec<_> = std::iter::from_fn(|| other.turn().now_or_never().flatten()).collect();
    let long = |bytes: usize| {
        let mut tree = tree(2000);
        Arc::get_mut(&mut tree.plan.levels).unwrap()[0].members =
            vec![JsonMember::Constant { text: vec![b'x'; bytes] }];
        tree
    };
    for (tree, limit, is_inline) in [
        (tree(2000), 1 << 20, true),
        (tree(2001), 1 << 20, false),
        (long(100), 1 << 20, true),
        (long(200), 1 << 20, false),
        // It is known to be too large before it is written once more.
        (long(100), 100_000, true),
    ] {
        let mut budget = Budget::read(AnswerLimit::new(limit, 0), &memory);
        let mut answer = Box::pin(tree.answer(None, &mut budget));
        assert_eq!(futures::poll!(&mut answer).is_ready(), is_inline);
    }
}

#[tokio::test]
async fn an_answer_takes_a_share_when_it_turns_out_large_and_may_be() {
    let memory = Memory::default();
    let mut budget = Budget::read(AnswerLimit::new(2_000_000, 0), &memory);
    let answer = tree(200_000).answer(None, &mut budget).await.unwrap();
    assert_eq!((answer.json.len(), budget.has_share()), (1_600_001, true));
    assert_eq!(budget.answer_room(), 399_999);
    let mut budget = Budget::read(AnswerLimit::new(400_000, 0), &memory);
    let refused = tree(100_000).answer(None, &mut budget).await;
    assert_eq!(refused, Err(budget.too_large()));
    assert!(!budget.has_share());
}

#[tokio::test]
async fn an_index_is_not_made_for_nobody() {
    let mut tree = tree(0);
    let level = &mut Arc::get_mut(&mut tree.plan.levels).unwrap()[0];
    level.link = vec![0];
    let rows = Rows::Sqlite(sqlite::SqliteRows::affected(1));
    let waiting = StopOnDrop::new();
    let stop = waiting.stop();
    drop(waiting);
    assert!(matches!(index(level, Some(&rows), Some(&stop)), Err(Halt::Stopped)));
}

#[test]
fn writing_ends_when_nobody_waits() {
    let tree = tree(usize::MAX);
    let waiting = StopOnDrop::new();
    let stop = waiting.stop();
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| tree.write(None, usize::MAX, Some(&stop)));
        drop(waiting);
        writer.join().unwrap()
    });
    assert_eq!(written, Err(Halt::Stopped));
}
