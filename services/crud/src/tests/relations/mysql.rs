//! Relations of MariaDB, whose foreign keys are of columns of one type.

use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};

use super::{Pair, ROWS, check_reads, check_writes};
use crate::tests::{stored::mysql::mysql, support::Db};

const TEXTS: &[&str] = &["a", "A", "a ", "\u{e4}", "\u{c4}", "", " ", "ab", "aB", "\u{df}", "ss"];
const NUMBERS: &[&str] = &["0", "1", "-1", "7", "100", "127", "42"];
const LARGE: &[&str] = &["0", "1", "18446744073709551615", "9223372036854775808", "9007199254740993"];
const DECIMALS: &[&str] = &["0", "-0.01", "1.5", "1.50", "99999999.99", "99999999.98", "9007199.25"];
const DOUBLES: &[&str] = &["0", "-0", "0.1", "0.10000000149011612", "16777216", "16777217", "-1.5", "1e30"];
const MOMENTS: &[&str] =
    &["2024-01-01", "2024-01-01 00:00:00", "2024-01-01 12:00:00.5", "2024-01-01 12:00:00.500001", "2024-02-29"];
const TIMES: &[&str] = &["00:00:00", "12:00:00", "12:00:00.000001", "23:59:59.999999"];
const UUIDS: &[&str] = &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"];

/// Declarations of the keys, and texts of their values.
const KEYS: [(&[&str], &[&str]); 29] = [
    (&["tinyint(1)"], &["0", "1"]),
    (&["bit(9)"], &["0", "1", "255", "256", "511"]),
    (&["int"], NUMBERS),
    (&["bigint"], NUMBERS),
    (&["bigint unsigned"], LARGE),
    (&["decimal(10,2)"], DECIMALS),
    (
        &["decimal(38,30)"],
        &["0.000000000000000000000000000001", "0", "12345678.5", "12345678.500000000000000000000000000001"],
    ),
    (&["float"], DOUBLES),
    (&["double"], DOUBLES),
    (&["year"], &["1901", "2001", "2020", "0"]),
    (&["date"], MOMENTS),
    (&["time(6)"], TIMES),
    (&["datetime"], MOMENTS),
    (&["datetime(6)"], MOMENTS),
    (&["timestamp(6) NULL"], MOMENTS),
    (&["char(5)"], TEXTS),
    (&["varchar(20)"], TEXTS),
    (&["varchar(20) COLLATE utf8mb4_bin"], TEXTS),
    (&["varchar(20) COLLATE utf8mb4_unicode_520_nopad_ci"], TEXTS),
    (&["varchar(20) CHARACTER SET latin1 COLLATE latin1_german1_ci"], TEXTS),
    (&["varchar(20) CHARACTER SET ucs2"], TEXTS),
    (&["varbinary(20)"], TEXTS),
    (&["enum('a','B')"], &["a", "B"]),
    (&["uuid"], UUIDS),
    (&["inet6"], &["::1", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4"]),
    (&["int", "varchar(20)"], NUMBERS),
    (&["bigint unsigned", "decimal(12,1)"], &["0", "1", "7", "18446744073"]),
    (&["date", "datetime(6)"], MOMENTS),
    (&["varchar(20) COLLATE utf8mb4_bin", "double"], NUMBERS),
];

/// Adds rows whose keys the database takes. Those of children may refer to nothing, as other programs leave them.
async fn fill(db: &Db, index: usize, keys: usize, values: &'static [&'static str], runner: &mut TestRunner) {
    let value = prop_oneof![20 => select(values).prop_map(|text| format!("'{text}'")), 1 => Just("NULL".to_owned())];
    for table in ["p", "c"] {
        let rows = (1..=ROWS).map(|id| {
            let key: Vec<_> = (0..keys).map(|_| value.new_tree(runner).unwrap().current()).collect();
            format!("({id}, {}, 0)", key.join(", "))
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        db.execute(&format!(
            "SET STATEMENT foreign_key_checks = 0 FOR INSERT IGNORE INTO {table}{index} VALUES {rows}"
        ))
        .await;
    }
}

#[tokio::test]
async fn a_relation_is_the_join_that_mariadb_makes() {
    let Some(db) = mysql().await else { return };
    let mut runner = TestRunner::default();
    let pairs = KEYS.map(|(keys, _)| Pair { parent: keys.to_vec(), child: keys.to_vec(), cast: "" });
    for (index, (pair, (keys, values))) in pairs.iter().zip(KEYS).enumerate() {
        for sql in pair.tables(index, "", "INTEGER PRIMARY KEY") {
            db.execute(&sql).await;
        }
        fill(&db, index, keys.len(), values, &mut runner).await;
    }
    assert!(db.database.refresh().await.unwrap());
    let mut found = 0;
    for (index, pair) in pairs.iter().enumerate() {
        let context = format!("{:?}", pair.parent);
        let joined = pair.joined(&db, index).await;
        found += joined.parents.len();
        check_reads(&db, index, &context, &joined).await;
        check_writes(&db, index, &context, &joined).await;
    }
    assert!(found >= 400, "{found} keys of {} pairs", pairs.len());
}
