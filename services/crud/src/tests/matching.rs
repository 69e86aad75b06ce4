//! Conditions that memory decides have the result that the database gives: differential, on every engine.

use query::{Filter, Guard, Matching, Object, Row, Table, Value};
use serde_json::{Value as Json, json};

use super::support::{self, Db, engines};
use crate::sql::Dialect;

/// Columns and values of them, few enough that conditions meet them.
fn columns() -> Vec<(&'static str, Vec<Json>)> {
    vec![
        ("flag", vec![json!(true), json!(false)]),
        ("big", vec![json!(-1), json!(0), json!(1), json!(2), json!(9_007_199_254_740_993_i64), json!(i64::MAX)]),
        ("ratio", vec![json!(-1.5), json!(0), json!(0.1), json!(0.5), json!(1), json!(1e300)]),
        ("price", vec![json!("-0.01"), json!("1.5"), json!("1.50"), json!("99999999.99"), json!(0)]),
        ("words", vec![json!(""), json!("a"), json!("A"), json!("ab"), json!("b "), json!("é"), json!("😀")]),
        ("raw", vec![json!(""), json!("AA=="), json!("AP8="), json!("/w==")]),
        ("born", vec![json!("1999-12-31"), json!("2000-01-01"), json!("2009-01-31")]),
        ("clock", vec![json!("00:00:00"), json!("13:14:15.5"), json!("13:14:15.000001")]),
        (
            "seen",
            vec![json!("1999-12-31T23:00:00Z"), json!("2000-01-01T00:00:00+01:00"), json!("2009-01-31T13:14:15.5Z")],
        ),
        ("ident", vec![json!("0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d"), json!("FFFFFFFF-7a3e-7cc1-9a3b-5d0a4f0e6b1d")]),
    ]
}

/// What no client writes, and a file of SQLite may hold all the same.
const ODD: [&str; 4] = [
    "INSERT INTO kinds (id, flag, big, ratio, born) VALUES (1001, 5, 'many', 'much', 'soon')",
    "INSERT INTO kinds (id, big, ratio, born, clock) VALUES (1002, 1.5, x'00', 946684800, 'noon')",
    "INSERT INTO kinds (id, flag, seen, ident) VALUES (1003, 'true', '2000-01-01 00:00:00', x'0190c2c47a3e7cc19a3b5d0a4f0e6b1d')",
    "INSERT INTO kinds (id, flag, seen, ident) VALUES (1004, 'maybe', 2451544.5, 'none')",
];

/// A generator of small numbers: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn of<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        &values[self.below(values.len())]
    }

    fn row(&mut self, id: usize) -> Json {
        let mut row = json!({ "id": id });
        for (name, values) in columns() {
            row[name] = if self.below(5) == 0 { Json::Null } else { self.of(&values).clone() };
        }
        row
    }

    fn condition(&mut self, depth: usize) -> Json {
        let kind = if depth == 0 { self.below(7) } else { self.below(10) };
        if kind >= 7 {
            let parts: Vec<Json> = (0..=self.below(2)).map(|_| self.condition(depth - 1)).collect();
            return match kind {
                7 => json!({ "$and": parts }),
                8 => json!({ "$or": parts }),
                _ => json!({ "$not": self.condition(depth - 1) }),
            };
        }
        let all = columns();
        let (name, values) = self.of(&all);
        let value = self.of(values).clone();
        match kind {
            0 => json!({ *name: { "$isNull": self.below(2) == 0 } }),
            1 => json!({ *name: { "$in": [value, self.of(values)] } }),
            2 => json!({ *name: { "$nin": [value, self.of(values)] } }),
            _ => {
                let operator = *self.of(&["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
                json!({ *name: { operator: value } })
            }
        }
    }
}

fn parsed(json: &[u8]) -> Value {
    proto::json::parse(json, Guard::new(16, 1_000_000)).unwrap()
}

/// All rows as reads tell them.
async fn rows(db: &Db) -> Vec<Object> {
    let Value::List(rows) = parsed(&db.answer("kinds", json!({ "sort": ["id"] })).await.unwrap().json) else {
        panic!("rows")
    };
    let row = |row| match row {
        Value::Object(row) => row,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(row).collect()
}

fn matched(rows: &[Object], table: &Table, filter: &Filter) -> Vec<Json> {
    let passes = |columns: &&Object| filter.matches(&Row { table, columns, related: &[] }) == Some(true);
    let id = |row: &Object| match row.get("id") {
        Some(Value::Int(id)) => json!(id),
        other => panic!("{other:?}"),
    };
    rows.iter().filter(passes).map(id).collect()
}

#[tokio::test]
async fn memory_decides_as_the_database_does() {
    const CONDITIONS: usize = 300;
    for db in engines().await {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let docs: Vec<Json> = (0..80).map(|id| dice.row(id)).collect();
        db.mutate(db.insert("kinds", json!(docs), None)).await.unwrap();
        if db.schema().dialect == Dialect::Sqlite {
            for sql in ODD {
                db.execute(sql).await;
            }
        }
        let (known, rows) = (db.schema(), rows(&db).await);
        let table = known.schema.table("kinds").unwrap();
        let mut decided = 0;
        for _ in 0..CONDITIONS {
            let find = dice.condition(2);
            let read = support::read(&known.schema, "kinds", &json!({ "find": find, "sort": ["id"] })).unwrap();
            if read.node.filter.undecidable(table).is_some() {
                continue;
            }
            decided += 1;
            let found: Vec<Json> =
                serde_json::from_slice(&db.answers(std::slice::from_ref(&read)).await.unwrap()[0].json).unwrap();
            let found: Vec<Json> = found.iter().map(|row| row["id"].clone()).collect();
            assert_eq!(matched(&rows, table, &read.node.filter), found, "{find} on {:?}", known.dialect);
        }
        assert!(decided > CONDITIONS / 2, "{decided} of {CONDITIONS} conditions are decided in memory");
        let undecided = table.columns.iter().filter(|column| column.abilities.matching == Matching::None);
        assert!(undecided.count() <= 4, "{:?}", table.columns);
    }
}
