//! Statements that are merged answer what they answer alone.

use super::*;
use crate::store::MERGED_FROM;

const TABLE: &str = "
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE t (id int PRIMARY KEY, a int, b text COLLATE \"C\", c char(4), n numeric(10, 2), f real, d date,
        at timestamptz, u uuid, raw bytea, m mood, p positive, list int[], words text[], yes boolean, doc jsonb, v varchar(9));
    INSERT INTO t SELECT n, n % 7, chr(97 + n % 5), 'c' || n % 3, n % 9 + 0.5, (n % 4)::real / 3, '2024-01-01'::date + n % 6,
        '2024-01-01T00:00:00Z'::timestamptz + n % 6 * interval '1 day', lpad(n % 8 || '', 32, '0')::uuid,
        decode(lpad(n % 8 || '', 2, '0'), 'hex'), CASE n % 2 WHEN 0 THEN 'glad' ELSE 'sad' END::mood, n % 3 + 1,
        CASE WHEN n % 4 = 0 THEN NULL ELSE ARRAY[n % 3, NULL] END, ARRAY['a\"' || n % 3], n % 2 = 0,
        jsonb_build_object('n', n % 3), 'v ' || n % 4 FROM generate_series(1, 60) AS n;
    INSERT INTO t (id) VALUES (100), (101);";

/// The cells of the rows of each statement.
fn shown(all: &[PostgresRows], columns: usize) -> Vec<Vec<String>> {
    let row = |rows: &PostgresRows, row| (0..columns).map(|at| format!("{:?}", rows.cell(row, at))).collect::<String>();
    all.iter().map(|rows| (0..rows.len()).map(|at| row(rows, at)).collect()).collect()
}

/// Whether statements of `sql` with these values answer merged what they answer alone; how many are sent.
async fn merged(store: &Postgres, sql: &str, columns: usize, values: Vec<Vec<Bind>>) -> usize {
    let statements: Vec<_> = values.into_iter().map(|args| Statement { args, ..statement(sql, Vec::new()) }).collect();
    let budget = Budget::unlimited();
    let (rows, sent) = store.merged_snapshot(&statements, &budget).await.unwrap();
    let alone = store.snapshot(&statements, &budget).await.unwrap();
    assert_eq!(shown(&rows, columns), shown(&alone, columns), "{sql}");
    assert_eq!(rows.iter().map(|rows| rows.size).sum::<usize>() > 0, sent == 1 || !alone.is_empty());
    sent
}

#[tokio::test]
async fn a_hundred_statements_of_one_text_are_one() {
    let Some(server) = Server::with("merged", TABLE).await else { return };
    let store = server.store(2);
    let sql = "SELECT id, b, b FROM t WHERE a = $1 AND id > $3 ORDER BY b DESC, id LIMIT $2";
    let values = |number: i64| [number % 8, 3, number / 3].map(|value| Bind::Value(int(value))).to_vec();
    // No value, one, and several rows; in the order of the statement.
    assert_eq!(merged(&store, sql, 3, (0..100).map(values).collect()).await, 1);
    let counts = "SELECT count(*) FROM t WHERE a < $1";
    assert_eq!(merged(&store, counts, 1, (0..100).map(|number| vec![Bind::Value(int(number))]).collect()).await, 1);
    let few = (0..MERGED_FROM as i64 - 1).map(|number| vec![Bind::Value(int(number))]).collect();
    assert_eq!(merged(&store, counts, 1, few).await, MERGED_FROM - 1, "few are sent as they are");
    let same = vec![vec![Bind::Value(int(1))]; MERGED_FROM];
    assert_eq!(merged(&store, counts, 1, same).await, MERGED_FROM, "there is no list of what is the same");
}

#[tokio::test]
async fn values_of_all_types_are_what_they_are_alone() {
    let Some(server) = Server::with("merged_types", TABLE).await else { return };
    let store = server.store(2);
    let list = |items: Vec<Typed>| Bind::List(items);
    let value = |typed: Typed| Bind::Value(typed);
    let of = |number: i64, column: &str| match column {
        "a" | "p" => value(int(number % 8)),
        "b" => value(text(&char::from(b'a' + (number % 6) as u8).to_string())),
        "c" => value(text(&format!("c{}", number % 4))),
        "v" => value(text(&format!("v {}", number % 5))),
        "n" => value(Typed::Decimal(format!("{}.50", number % 10))),
        "f" => value(Typed::Float((number % 5) as f64 / 3.0)),
        "d" => value(Typed::Date(19_723 + (number % 7) as i32)),
        "at" => value(Typed::Timestamp((19_723 + number % 7) * 86_400_000_000)),
        "u" => value(Typed::Uuid(u128::from_str_radix(&(number % 9).to_string(), 16).unwrap().to_be_bytes())),
        "raw" => value(Typed::Bytes(vec![(number % 9) as u8])),
        "m" => value(text(if number % 2 == 0 { "glad" } else { "sad" })),
        "yes" => value(Typed::Bool(number % 2 == 0)),
        "list" => value(Typed::List(vec![int(number % 4), Typed::Null])),
        "words" => value(Typed::List(vec![text(&format!("a\"{}", number % 4))])),
        other => panic!("{other}"),
    };
    for column in ["a", "b", "c", "n", "f", "d", "at", "u", "raw", "m", "p", "list", "words", "yes", "v"] {
        for operator in ["=", "<", "<>"] {
            let sql =
                format!("SELECT id, {column} FROM t WHERE {column} {operator} $1 ORDER BY {column} DESC, id LIMIT 9");
            let values = (0..20).map(|number| vec![of(number, column)]).collect();
            assert_eq!(merged(&store, &sql, 2, values).await, 1, "{sql}");
        }
    }
    let sql = "SELECT id FROM t WHERE a = ANY($1) ORDER BY id LIMIT 50";
    let lists = (0..20).map(|number| vec![list((0..number % 4).map(|item| int(number + item)).collect())]).collect();
    assert_eq!(merged(&store, sql, 1, lists).await, 1);
    let sql = "SELECT id FROM t WHERE list >= $1 AND list <= $2 ORDER BY id LIMIT 50";
    let bounds = (0..20).map(|number| {
        let items = || vec![int(number % 3), Typed::Null];
        vec![Bind::LeastArray(items()), Bind::GreatestArray(items())]
    });
    assert_eq!(merged(&store, sql, 1, bounds.collect()).await, 1);
}

#[tokio::test]
async fn where_one_of_them_fails_it_is_told_which() {
    let Some(server) = Server::with("merged_failures", TABLE).await else { return };
    let store = server.store(1);
    let sql = "SELECT 1 / ($1::int - 5)";
    let all = |count: i64| (0..count).map(|number| statement(sql, vec![int(number)])).collect::<Vec<_>>();
    let wide = |number: i64| statement("SELECT id FROM t WHERE a = $1", vec![int(number << 20)]);
    let budget = Budget::unlimited();
    for _ in 0..2 {
        let error = store.merged_snapshot(&all(10), &budget).await.unwrap_err();
        assert_eq!(error.statement, Some(5));
        // A value that the type cannot hold.
        let error = store.merged_snapshot(&(2040..2060).map(wide).collect::<Vec<_>>(), &budget).await.unwrap_err();
        let Error::InvalidValue(invalid) = error.error else { panic!("{error:?}") };
        assert_eq!((invalid.kind, error.statement), (InvalidKind::OutOfRange, Some(8)));
    }
    assert_eq!(store.merged_snapshot(&all(5), &budget).await.unwrap().0.len(), 5);
}
