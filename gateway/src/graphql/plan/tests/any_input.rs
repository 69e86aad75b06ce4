//! Documents that nobody would write, and pieces of those that somebody would.

use proptest::prelude::*;

use super::*;

const DOCUMENTS: [&str; 6] = [
    r#"query A($x: [Int!] = [1], $w: AlbumFilter) { a: album(where: {title: {_eq: "x\u00e9"}}, sort: [title_desc], limit: 2) @music { title ...F @include(if: true) } }
       fragment F on Album { track(where: $w, skip: 1) { name genre { name } } track_aggregate { count } }"#,
    r#"mutation { insert_album(docs: [{album_id: 1, title: """block "q" """}]) { status error returning { title artist { name } } } }"#,
    r#"mutation { update_track(where: {track_id: {_in: [1, 2]}}, set: {name: null}, inc: {milliseconds: -1.5e3}) @music { affected } }"#,
    r#"{ playlist_track_by_pk(playlist_id: 1, track_id: 99999999999999999999) { __typename } album(op: count) }"#,
    r#"{ album_aggregate(where: {_or: [{artist: {name: "x"}}, {track: {_some: {name: "y"}}}]}) { count } } # end"#,
    r#"mutation { delete_album(where: {album__title: "x"}, op: one) { status } __typename }"#,
];

const PIECES: [&str; 24] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ":",
    "$x",
    "\"",
    "\"\"\"",
    "\\",
    "...",
    "@include(if: $x)",
    "@music",
    "#",
    ",",
    "-1e999",
    "null",
    "on",
    "fragment F on Album { ...F }",
    "\0",
    "\u{feff}",
    "é",
    "99999999999999999999",
];

fn try_plan(project: &std::sync::Arc<crate::catalogue::Project>, text: &str, sent: &str) {
    // Whether it can be planned does not matter, only that nothing panics.
    let _ = planned(project, text, sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_planned_or_refused(text in "\\PC{0,80}") {
        try_plan(&fixture::shop(), &text, "{}");
    }

    #[test]
    fn any_tokens_are_planned_or_refused(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        try_plan(&fixture::shop(), &format!("{{ album {{ title {} }}", pieces.join(" ")), "{}");
    }

    #[test]
    fn any_change_of_a_document_is_planned_or_refused(
        document in prop::sample::select(&DOCUMENTS[..]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6, prop::sample::select(&PIECES[..])), 0..4),
    ) {
        let mut text: Vec<char> = document.chars().collect();
        for (at, removed, inserted) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        try_plan(&fixture::shop(), &text, r#"{"x": true, "w": {"track_id": {"$gt": 1}}}"#);
    }
}

#[test]
fn the_documents_that_are_changed_are_fine() {
    for text in DOCUMENTS.iter().filter(|text| !text.contains("99999999999999999999")) {
        planned(&fixture::shop(), text, r#"{"w": {}}"#).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
    }
}
