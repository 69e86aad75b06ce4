//! Links of MariaDB, which has an equality of any two columns: there are those that compare values as they are read.

use super::{check, pairs};
use crate::tests::stored::mysql::mysql;

const NUMBERS: &[&str] = &["0", "1", "7", "0.1", "9007199254740992", "9007199254740993", "0.10000000149011612"];
const TEXTS: &[&str] = &["a", "A", "a ", "\u{e4}", "\u{df}", "ss", "1"];
const MOMENTS: &[&str] = &["2024-01-01", "2024-01-01 12:00:00", "2024-01-01 12:00:00.5", "2024-03-31 02:30:00"];

/// Columns of one kind are linked with each other, and with no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Number,
    Moment,
    Wide,
    Latin,
    /// Those of one type alone.
    Own(usize),
}

const COLUMNS: [(&str, Kind, &[&str]); 20] = [
    ("int", Kind::Number, NUMBERS),
    ("bigint", Kind::Number, NUMBERS),
    ("bigint unsigned", Kind::Number, NUMBERS),
    ("decimal(20,1)", Kind::Number, NUMBERS),
    ("float", Kind::Number, NUMBERS),
    ("double", Kind::Number, NUMBERS),
    ("date", Kind::Moment, MOMENTS),
    ("datetime", Kind::Moment, MOMENTS),
    ("datetime(6)", Kind::Moment, MOMENTS),
    ("timestamp(6) NULL", Kind::Moment, MOMENTS),
    ("char(5)", Kind::Wide, TEXTS),
    ("varchar(20)", Kind::Wide, TEXTS),
    ("varchar(20) COLLATE utf8mb4_bin", Kind::Wide, TEXTS),
    ("varchar(20) COLLATE utf8mb4_unicode_520_nopad_ci", Kind::Wide, TEXTS),
    ("varchar(20) CHARACTER SET latin1", Kind::Latin, TEXTS),
    ("varchar(20) CHARACTER SET latin1 COLLATE latin1_bin", Kind::Latin, TEXTS),
    ("time", Kind::Own(0), &["00:00:00", "12:00:00"]),
    ("varbinary(20)", Kind::Own(1), TEXTS),
    ("uuid", Kind::Own(2), &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("inet6", Kind::Own(3), &["::1"]),
];

/// The collation of a column of texts.
fn collation(at: usize) -> Option<&'static str> {
    let (declared, kind, _) = COLUMNS[at];
    let default = match kind {
        Kind::Wide => "utf8mb4_general_ci",
        Kind::Latin => "latin1_swedish_ci",
        Kind::Number | Kind::Moment | Kind::Own(..) => return None,
    };
    Some(declared.split_once(" COLLATE ").map_or(default, |(_, name)| name))
}

#[tokio::test]
async fn a_link_is_the_join_that_mariadb_makes() {
    let Some(db) = mysql().await else { return };
    let columns = |after: &str| {
        let column = |(index, (declared, ..)): (usize, &(&str, Kind, &[&str]))| format!("k{index} {declared}{after}");
        COLUMNS.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    };
    for (table, after) in [("near", ""), ("far", " UNIQUE")] {
        db.execute(&format!("CREATE TABLE {table} (id INTEGER AUTO_INCREMENT PRIMARY KEY, {})", columns(after))).await;
        for (index, (.., values)) in COLUMNS.iter().enumerate() {
            let values = values.iter().map(|value| format!("('{value}')")).collect::<Vec<_>>().join(", ");
            db.execute(&format!("INSERT IGNORE INTO {table} (k{index}) VALUES {values}")).await;
        }
    }
    assert!(db.database.refresh().await.unwrap());
    assert!(db.database.link(pairs(COLUMNS.len())));

    let on = |here: usize, there: usize| match (collation(here), collation(there)) {
        (Some(own), Some(other)) if own != other => format!("f.k{there} COLLATE {other} = n.k{here} COLLATE {other}"),
        _ => format!("f.k{there} = n.k{here}"),
    };
    let (links, joined, _) = check(&db, COLUMNS.len(), on).await;
    assert!(links >= 60 && joined >= 200, "{links} {joined}");

    let snapshot = db.schema();
    let near = snapshot.schema.table("near").unwrap();
    for (here, (declared, kind, _)) in COLUMNS.iter().enumerate() {
        for (there, (other, of, _)) in COLUMNS.iter().enumerate() {
            let relation = near.relation(&format!("l{here}_{there}")).ok();
            assert_eq!(relation.is_some(), kind == of, "{declared} to {other}");
            let Some(relation) = relation else { continue };
            // One row alone has the value of a unique column, where no comparison makes others of its values.
            let is_inexact = |name: &str| matches!(name, "float" | "double");
            let merges = match kind {
                Kind::Number => !is_inexact(other) && is_inexact(declared),
                Kind::Wide | Kind::Latin => collation(here) != collation(there),
                Kind::Moment | Kind::Own(..) => false,
            };
            assert_eq!(relation.many, merges, "{declared} to {other}");
        }
    }
}
