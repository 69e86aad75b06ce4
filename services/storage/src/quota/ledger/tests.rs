use query::resources::ByteSize;

use super::*;

fn quota(bytes: u64, files: u64) -> FileQuota {
    FileQuota { bytes: Some(ByteSize(bytes)), files: Some(files) }
}

fn change(path: &str, before: Option<u64>, after: Option<u64>) -> FileChange {
    FileChange { path: FilePath::from_key(path).expect("a sound path"), before, after }
}

fn of_folders(bucket: FileQuota, folders: &[(&str, FileQuota)]) -> QuotaLimits {
    let folders = folders.iter().map(|(prefix, quota)| FolderQuota::new(prefix, *quota)).collect();
    QuotaLimits { bucket, folders }
}

/// A bucket that was counted and is empty.
fn counted(state: &mut LedgerState, limits: QuotaLimits) -> u64 {
    let id = state.add();
    state.limit(id, Some(limits));
    count(state, id, &[], FoundUploads::new());
    id
}

fn count(state: &mut LedgerState, id: u64, files: &[(&str, u64)], uploads: FoundUploads) {
    let count = (id, state.begin_count(id).expect("it has quotas"));
    state.count_page(count, files.iter().copied(), None, Touched::default).expect("it goes on");
    assert!(state.end_count(count, uploads));
}

/// Makes a change of one file.
fn enter(state: &mut LedgerState, id: u64, path: &str, before: Option<u64>, after: Option<u64>) -> Result<(), String> {
    let changes = [change(path, before, after)];
    let reserved = state.reserve(id, &changes, &[]).map_err(|refusal| refusal.error.to_string())?;
    state.settle(id, &reserved, &changes, true);
    Ok(())
}

fn used(state: &LedgerState, id: u64) -> (u64, u64) {
    let usage = state.usage(id).expect("it was counted");
    (usage.bytes, usage.files)
}

fn touched(files: &[&str], folders: &[&str]) -> Touched {
    Touched {
        files: files.iter().map(|path| (*path).to_owned()).collect(),
        folders: folders.iter().map(|path| (*path).to_owned()).collect(),
    }
}

#[test]
fn what_grows_fits_into_each_quota() {
    let mut state = LedgerState::default();
    let first = counted(&mut state, of_folders(quota(100, 5), &[("/u/:id", quota(50, 2))]));
    let second = counted(&mut state, QuotaLimits::default());
    state.quota = Some(quota(120, 100));
    let mut put =
        |id: u64, path: &str, before: Option<u64>, after: Option<u64>| enter(&mut state, id, path, before, after);
    assert_eq!(put(first, "u/1/a", None, Some(40)), Ok(()));
    let told = put(first, "u/1/b", None, Some(11)).expect_err("it has no room");
    assert!(told.contains("the folder /u/1") && told.contains("50 bytes"), "{told}");
    assert_eq!(put(first, "u/2/b", None, Some(50)), Ok(()));
    let told = put(first, "c", None, Some(11)).expect_err("it has no room");
    assert!(told.contains("the bucket") && told.contains("100 bytes"), "{told}");
    assert_eq!(put(second, "c", None, Some(30)), Ok(()));
    let told = put(second, "d", None, Some(1)).expect_err("it has no room");
    assert!(told.contains("the project") && told.contains("120 bytes"), "{told}");
    // What shrinks, goes or stays as large is never refused.
    for (before, after) in [(Some(40), Some(40)), (Some(40), Some(30)), (Some(30), None)] {
        assert_eq!(put(first, "u/1/a", before, after), Ok(()));
    }
    for (path, size) in [("u/3/a", 0), ("u/3/b", 0)] {
        assert_eq!(put(first, path, None, Some(size)), Ok(()), "{path}");
    }
    let told = put(first, "u/3/c", None, Some(0)).expect_err("it has no room");
    assert!(told.contains("2 files"), "{told}");
    state.remove(second);
    assert_eq!(enter(&mut state, first, "f", None, Some(50)), Ok(()), "a bucket that is gone has nothing");
}

#[test]
fn what_a_change_frees_is_free_once_it_was_made() {
    let mut state = LedgerState::default();
    let id = counted(&mut state, of_folders(quota(1000, 10), &[]));
    enter(&mut state, id, "a", None, Some(600)).expect("there is room");
    let shrinking = [change("a", Some(600), Some(100))];
    let reserved = state.reserve(id, &shrinking, &[]).expect("it shrinks");
    assert!(enter(&mut state, id, "b", None, Some(401)).is_err(), "it may fail");
    state.settle(id, &reserved, &[change("a", Some(600), Some(600))], true);
    assert!(enter(&mut state, id, "b", None, Some(401)).is_err(), "it has failed");
    assert_eq!(used(&state, id), (600, 1));
    let reserved = state.reserve(id, &shrinking, &[]).expect("it shrinks");
    state.settle(id, &reserved, &shrinking, true);
    assert_eq!(enter(&mut state, id, "b", None, Some(900)), Ok(()));
    // A move inside of the bucket needs no room.
    let moved = [change("b", Some(900), None), change("c", None, Some(900))];
    let reserved = state.reserve(id, &moved, &[]).expect("nothing grows");
    assert!(enter(&mut state, id, "d", None, Some(1)).is_err());
    state.settle(id, &reserved, &moved, true);
    assert_eq!(used(&state, id), (1000, 2));
}

#[test]
fn who_has_no_room_learns_whether_others_may_leave_some() {
    let mut state = LedgerState::default();
    let id = counted(&mut state, of_folders(quota(100, 10), &[]));
    let growing = [change("a", None, Some(60))];
    let reserved = state.reserve(id, &growing, &[]).expect("there is room");
    let may_fit = |state: &mut LedgerState, size: u64| {
        state.reserve(id, &[change("b", None, Some(size))], &[]).err().map(|refusal| refusal.may_fit)
    };
    assert_eq!((may_fit(&mut state, 41), may_fit(&mut state, 101)), (Some(true), Some(false)));
    assert!(
        state.check_room(id, &[change("b", None, Some(100))], &[]).is_ok(),
        "what is not there yet is not asked for"
    );
    state.settle(id, &reserved, &growing, true);
    assert_eq!(may_fit(&mut state, 41), Some(false));
    assert!(state.check_room(id, &[change("b", None, Some(41))], &[]).is_err());
}

#[test]
fn a_file_counts_once_while_pages_are_counted() {
    let mut state = LedgerState::default();
    let id = state.add();
    state.limit(id, Some(of_folders(quota(1000, 1000), &[])));
    assert!(!state.is_ready(id, &["a"]) && !state.is_counted(id));
    let count = (id, state.begin_count(id).expect("it has quotas"));
    // `b` was changed while the page was listed, and `z` is not on it.
    let page = [("a", 1), ("b", 999), ("c/d", 2)];
    let pending = state.count_page(count, page.into_iter(), Some("c/d"), || touched(&["b", "z"], &[]));
    assert_eq!(pending, Some(touched(&["b"], &[])));
    // The change of it ends now; it does not count before it was looked at.
    state.settle(id, &Reserved::default(), &[change("b", Some(5), Some(20))], true);
    state.settle(id, &Reserved::default(), &[change("a", Some(1), Some(10))], true);
    state.settle(id, &Reserved::default(), &[change("z", None, Some(100))], true);
    state.count_pending(count, [("b", 20)].into_iter(), &touched(&["b"], &[]));
    state.settle(id, &Reserved::default(), &[change("b", Some(20), Some(30))], true);
    state.count_page(count, [("e", 4), ("z", 100)].into_iter(), None, Touched::default).expect("it goes on");
    state.settle(id, &Reserved::default(), &[change("zz", None, Some(1000))], true);
    assert!(state.end_count(count, FoundUploads::new()) && state.is_ready(id, &["a"]));
    assert_eq!(used(&state, id), (10 + 30 + 2 + 4 + 100 + 1000, 6));
}

#[test]
fn a_folder_that_is_deleted_while_pages_are_counted_is_gone() {
    let mut state = LedgerState::default();
    let id = state.add();
    state.limit(id, Some(of_folders(quota(1000, 1000), &[])));
    let count = (id, state.begin_count(id).expect("it has quotas"));
    state.count_page(count, [("b/a", 1), ("b/c", 2)].into_iter(), Some("b/c"), Touched::default).expect("it goes on");
    // It is listed before it is deleted, and the next page while it is.
    let sum = |state: &LedgerState| {
        let (mut all, mut seen) = (Tally::default(), Tally::default());
        state.sum(id, [("b/a", 1), ("b/c", 2), ("b/d", 4), ("b/x", 8)].into_iter(), (&mut all, &mut seen));
        (all, seen)
    };
    let before = sum(&state);
    assert_eq!((before.0.all.bytes, before.1.all.bytes), (15, 3));
    let page = [("b/d", 4), ("c", 100)];
    let pending = state.count_page(count, page.into_iter(), Some("c"), || touched(&["b/d"], &["b"]));
    assert!(pending.expect("it goes on").has("b/d"));
    assert_eq!(sum(&state).1.all.bytes, 3, "what is pending was not seen");
    let nothing = Tally::default();
    state.settle_folder((id, Some(count.1)), (&before.0, &before.1), (&nothing, &nothing));
    state.count_pending(count, std::iter::empty(), &touched(&[], &["b"]));
    state.count_page(count, [("d", 1000)].into_iter(), None, Touched::default).expect("it goes on");
    assert!(state.end_count(count, FoundUploads::new()));
    assert_eq!(used(&state, id), (1100, 2));
    // One that began to be deleted before a count has nothing that the count has seen.
    let before = sum(&state);
    let later = (id, state.begin_count(id).expect("it has quotas"));
    let pending = state.count_page(later, [("c", 100)].into_iter(), None, || touched(&[], &["b"]));
    assert!(pending.is_some());
    state.settle_folder((id, Some(count.1)), (&before.0, &before.0), (&nothing, &nothing));
    state.count_pending(later, std::iter::empty(), &touched(&[], &["b"]));
    assert!(state.end_count(later, FoundUploads::new()));
    assert_eq!(used(&state, id), (100, 1));
}

#[test]
fn quotas_that_are_edited_hold_at_once_for_what_was_counted() {
    let mut state = LedgerState::default();
    let small = of_folders(quota(100, 9), &[("/a/:b", quota(10, 9))]);
    let id = counted(&mut state, small);
    enter(&mut state, id, "a/b/c", None, Some(6)).expect("there is room");
    // Another quota of the same folders, whatever their capture is called.
    state.limit(id, Some(of_folders(quota(100, 9), &[("/a/:other", quota(7, 9))])));
    assert!(state.is_ready(id, &["a/b/d"]) && enter(&mut state, id, "a/b/d", None, Some(2)).is_err());
    // Other folders wait until they are counted, and nobody else does.
    let running = (id, state.begin_count(id).expect("it has quotas"));
    state.limit(id, Some(of_folders(quota(8, 9), &[("/a/:b", quota(10, 9)), ("/c", quota(1, 9))])));
    assert!(state.is_ready(id, &["a/b/d"]) && !state.is_ready(id, &["x", "c/d"]) && !state.is_counted(id));
    assert!(
        enter(&mut state, id, "a/b/d", None, Some(3)).is_err() && enter(&mut state, id, "x", None, Some(2)).is_ok()
    );
    assert!(state.count_page(running, std::iter::empty(), None, Touched::default).is_none(), "it is of other folders");
    count(&mut state, id, &[("a/b/c", 6), ("c/d", 1)], FoundUploads::new());
    assert!(state.is_ready(id, &["c/d"]) && enter(&mut state, id, "c/e", None, Some(1)).is_err());
    // Without quotas nothing is known, and nothing is refused.
    state.limit(id, None);
    assert!(state.is_ready(id, &["c/e"]) && state.is_counted(id) && state.usage(id).is_none());
    assert!(enter(&mut state, id, "c/e", None, Some(5000)).is_ok() && state.begin_count(id).is_none());
    state.limit(id, Some(of_folders(quota(8, 9), &[])));
    assert!(!state.is_ready(id, &["c/e"]));
}

#[test]
fn a_bucket_that_cannot_be_counted_stops_itself_alone() {
    let mut state = LedgerState { quota: Some(quota(100, 100)), ..LedgerState::default() };
    let (first, second) = (state.add(), state.add());
    for id in [first, second] {
        state.limit(id, Some(QuotaLimits::default()));
    }
    count(&mut state, first, &[("a", 90)], FoundUploads::new());
    assert!(!state.is_ready(first, &["b"]), "what the other one has is not known yet");
    let failing = (second, state.begin_count(second).expect("it has quotas"));
    state.fail_count(second);
    assert!(state.is_ready(first, &["b"]) && !state.is_ready(second, &["b"]));
    assert!(!state.end_count(failing, FoundUploads::new()), "it was given up");
    assert!(
        enter(&mut state, first, "b", None, Some(10)).is_ok() && enter(&mut state, first, "c", None, Some(1)).is_err()
    );
    // What was counted once stays known where it cannot be counted again.
    count(&mut state, second, &[("a", 5)], FoundUploads::new());
    state.fail_count(second);
    assert!(state.is_ready(second, &["b"]));
    assert!(
        enter(&mut state, second, "a", Some(5), Some(4)).is_ok()
            && enter(&mut state, second, "b", None, Some(1)).is_err()
    );
}

#[test]
fn unfinished_uploads_hold_room_until_they_end() {
    let mut state = LedgerState::default();
    let id = counted(&mut state, of_folders(quota(100, 3), &[("/u/:id", quota(60, 3))]));
    let hold = |state: &mut LedgerState, name: &str, path: &str, bytes| {
        state.hold_upload(id, name, path, Some(bytes)).map_err(|refusal| (refusal.error.to_string(), refusal.may_fit))
    };
    hold(&mut state, "one", "u/1/a", 50).expect("there is room");
    let told = hold(&mut state, "two", "u/1/b", 11).expect_err("it has no room");
    assert!(told.0.contains("the folder /u/1") && !told.1, "{told:?}");
    hold(&mut state, "two", "u/2/b", 50).expect("there is room");
    assert!(enter(&mut state, id, "c", None, Some(1)).is_err() && hold(&mut state, "one", "u/1/a", 51).is_err());
    assert_eq!(used(&state, id), (100, 2));
    // It grows as its parts come, and shrinks where one is cut.
    state.shrink_upload(id, "two", Some(20));
    hold(&mut state, "two", "u/2/b", 45).expect("there is room");
    state.shrink_upload(id, "two", Some(45));
    state.shrink_upload(id, "none such", Some(9));
    // What is published takes the place of what was held, whatever else has no room.
    let (changes, one) = ([change("u/1/a", None, Some(50))], ["one".to_owned()]);
    assert!(state.check_room(id, &changes, &one).is_ok() && state.check_room(id, &changes, &[]).is_err());
    let reserved = state.reserve(id, &changes, &one).expect("it holds its room");
    // Nobody has it a second time, and what it has is not given away.
    assert!(state.reserve(id, &[change("u/9/a", None, Some(50))], &one).is_err());
    assert!(enter(&mut state, id, "c", None, Some(6)).is_err());
    state.settle(id, &reserved, &changes, true);
    assert_eq!(used(&state, id), (95, 2));
    // One whose file is not published holds it further.
    let changes = [change("u/2/b", None, Some(45))];
    let reserved = state.reserve(id, &changes, &["two".to_owned()]).expect("it holds its room");
    state.settle(id, &reserved, &[change("u/2/b", None, None)], false);
    assert_eq!(used(&state, id), (95, 2));
    // One that is ended while it is published does not come back.
    let reserved = state.reserve(id, &changes, &["two".to_owned()]).expect("it holds its room");
    state.shrink_upload(id, "two", None);
    assert!(hold(&mut state, "two", "u/2/b", 45).is_ok(), "its room is the change's");
    state.settle(id, &reserved, &[change("u/2/b", None, None)], false);
    assert_eq!(used(&state, id), (50, 1));
    state.shrink_upload(id, "two", Some(45));
    let ended = state.hold_upload(id, "two", "u/2/b", None).expect_err("it has ended");
    assert!(matches!(ended.error, Error::NoUpload));
    assert_eq!(used(&state, id), (50, 1));
}

#[test]
fn a_creator_takes_no_more_uploads_than_there_are_for_one() {
    let mut state = LedgerState::default();
    let id = counted(&mut state, of_folders(FileQuota::default(), &[]));
    let name = |creator: &str, index: usize| format!("{:016}{creator}{index:012}", 0);
    for index in 0..UPLOADS_OF_CREATOR_MAX {
        assert!(state.hold_upload(id, &name("aaaa", index), "a", Some(0)).is_ok());
    }
    let refused = state.hold_upload(id, &name("aaaa", UPLOADS_MAX), "a", Some(0)).expect_err("they have too many");
    assert!(matches!(refused.error, Error::ManyUnfinished));
    assert!(
        state.hold_upload(id, &name("aaaa", 0), "a", Some(1)).is_ok()
            && state.hold_upload(id, &name("bbbb", 0), "a", Some(0)).is_ok()
    );
}

#[test]
fn a_count_finds_unfinished_uploads() {
    let mut state = LedgerState::default();
    let id = counted(&mut state, of_folders(quota(100, 100), &[]));
    for (name, bytes) in [("ended elsewhere", 1), ("grows", 2), ("ends", 3)] {
        state.hold_upload(id, name, "a", Some(bytes)).map_err(|refusal| refusal.error).expect("there is room");
    }
    let count = (id, state.begin_count(id).expect("it has quotas"));
    state.count_page(count, std::iter::empty(), None, Touched::default).expect("it goes on");
    state.hold_upload(id, "grows", "a", Some(20)).map_err(|refusal| refusal.error).expect("there is room");
    state.hold_upload(id, "begins", "a", Some(30)).map_err(|refusal| refusal.error).expect("there is room");
    state.begin_upload(id, "begins", true);
    state.shrink_upload(id, "ends", None);
    let found = [("of another node", 7), ("grows", 2), ("ends", 3)];
    let found = found.map(|(name, bytes)| (name.to_owned(), "a".to_owned(), bytes));
    assert!(state.end_count(count, found.into()));
    assert_eq!(used(&state, id), (7 + 20 + 30, 3));
    // One that still begins is found by nobody, and holds its room.
    self::count(&mut state, id, &[], FoundUploads::new());
    assert_eq!(used(&state, id), (30, 1));
    state.begin_upload(id, "begins", false);
    self::count(&mut state, id, &[], FoundUploads::new());
    assert_eq!(used(&state, id), (0, 0));
}
