//! What is known of a mutation before the database sees it.

use std::borrow::Cow;

use query::{Column, Table, Type};

use super::{
    row_size::{SHORT_BYTES, is_small, row_bytes, small_room, written_bytes},
    *,
};
use crate::{
    budget::{AnswerLimit, Room},
    json,
    resolve::{Cond, JoinPair, NodeMember},
};

fn column(name: &str, r#type: Type) -> Column {
    Column { nullable: true, ..Column::new(name, r#type, "text") }
}

/// A table of a number and a text.
fn table() -> Table {
    let columns = vec![column("id", Type::Int32), column("name", Type::Text)];
    Table { primary_key: vec!["id".to_owned()], ..Table::new("artist", columns) }
}

fn mutation<'s>(table: &'s Table, kind: MutationKind<'s>) -> Mutation<'s> {
    Mutation { table, kind, check: Cond::TRUE, returning: None }
}

/// An insert of one row, with values for the columns of `given`.
fn insert<'s>(table: &'s Table, given: &[(&str, &'s Typed)]) -> Mutation<'s> {
    let row = given.iter().map(|(name, value)| (table.column(name).unwrap(), Cow::Borrowed(*value)));
    mutation(table, MutationKind::Insert(vec![row.collect()]))
}

/// An answer of `columns`, each under its own name.
fn node<'s>(table: &'s Table, columns: &[&str]) -> Node<'s> {
    let member = |name: &&str| {
        let column = table.column(name).unwrap();
        NodeMember { key: &column.name, kind: MemberKind::Column(column) }
    };
    let members = columns.iter().map(member).collect();
    Node { table, shape: query::Shape::Many, members, cond: Cond::TRUE, order: Vec::new(), skip: 0, limit: None }
}

#[test]
fn a_column_is_left_null_where_it_gets_no_value() {
    let schema = Schema::new(vec![table()]);
    let insert = |given: &[(&str, &Typed)]| {
        let members = given.iter().map(|(name, value)| ((*name).to_owned(), Typed::clone(value)));
        changed(query::MutationKind::Insert { docs: [query::Document(members.collect())].into() })
    };
    let leaves_null = |mutation: &query::Mutation, column: &str| leaves_null(&schema, mutation, column);
    let (null, text, one) = (Typed::Null, Typed::Text("x".to_owned()), Typed::Int(1));
    let rows = insert(&[("id", &null), ("name", &text)]);
    assert!(leaves_null(&rows, "id") && !leaves_null(&rows, "name"));
    let rows = insert(&[("id", &one)]);
    assert!(!leaves_null(&rows, "id") && leaves_null(&rows, "name"));
    assert!(!leaves_null(&rows, "of another table"));

    let set = |column: &str, value: &Typed| query::Change::Set { column: column.to_owned(), value: value.clone() };
    let inc = query::Change::Inc { column: "number".to_owned(), by: one.clone() };
    let changes = vec![set("id", &one), set("name", &null), inc];
    let update = changed(query::MutationKind::Update { filter: query::Filter::TRUE, changes, one: false });
    assert!(!leaves_null(&update, "id") && leaves_null(&update, "name") && !leaves_null(&update, "number"));
    let delete = changed(query::MutationKind::Delete { filter: query::Filter::TRUE, one: false });
    assert!(!leaves_null(&delete, "id"));
}

/// A change of the table.
fn changed(kind: query::MutationKind) -> query::Mutation {
    query::Mutation { table: "artist".to_owned(), kind, returning: None }
}

#[test]
fn a_mutation_is_its_own_transaction_where_nothing_is_left_to_check() {
    let table = table();
    let hidden = Table { primary_key: Vec::new(), row_id: vec!["ctid".to_owned()], ..table.clone() };
    let bare = Table { row_id: Vec::new(), ..hidden.clone() };
    let is_single = |mutation: Mutation<'_>| compile(&Dialect::Sqlite, &mutation).unwrap().is_single_statement();
    for (table, one, expected) in
        [(&table, true, true), (&hidden, true, true), (&bare, true, false), (&bare, false, true)]
    {
        let delete = mutation(table, MutationKind::Delete { cond: Cond::TRUE, one });
        assert_eq!(is_single(delete), expected, "{:?} {one}", table.row_id);
    }
    let text = Typed::Text("x".to_owned());
    let insert = || insert(&table, &[("name", &text)]);
    assert!(is_single(insert()) && is_single(Mutation { returning: Some(node(&table, &["id"])), ..insert() }));
    assert!(!is_single(Mutation { check: Cond::IsNull(&table.columns[0]), ..insert() }));
    let mut returning = node(&table, &["id"]);
    let kind = MemberKind::Relation { name: "artist", many: false, on: Vec::new(), node: node(&table, &[]) };
    returning.members.push(NodeMember { key: "artist", kind });
    assert!(!is_single(Mutation { returning: Some(returning), ..insert() }));
}

/// What mutations of a file of SQLite run with.
fn context<'a>(store: &'a Store, meters: &'a Meters, bytes: u64) -> WriteContext<'a> {
    let (numbers, answer) = (query::resources::Numbers::Exact, AnswerLimit::new(bytes, 0));
    let options = AnswerOptions { limit: 1000, numbers, answer, snapshot: false };
    WriteContext { store, dialect: &Dialect::Sqlite, options, meters }
}

#[tokio::test]
async fn a_statement_whose_answer_fits_takes_no_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("CREATE TABLE artist (id INTEGER PRIMARY KEY, name TEXT)")
        .unwrap();
    let store = Store::Sqlite(crate::store::sqlite::Sqlite::existing(&file, &mesh::Tasks::default()).unwrap());
    let meters = Meters::new(&mesh::telemetry::Metrics::default(), "sqlite");
    let table = table();
    let long = "x".repeat(100);
    let (text, answer) = (Typed::Text(long.clone()), format!(r#"[{{"name":"{long}"}}]"#));
    for (returned, bytes, expected) in [
        (None, 1000, Some("")),
        (Some("id"), 1000, Some(r#"[{"id":2}]"#)),
        // It is known to be small before it is written, whatever room its rows would have.
        (Some("name"), 1000, Some(answer.as_str())),
        (Some("name"), 10, None),
    ] {
        let insert =
            Mutation { returning: returned.map(|name| node(&table, &[name])), ..insert(&table, &[("name", &text)]) };
        let work = compile(&Dialect::Sqlite, &insert).unwrap();

        let context = context(&store, &meters, bytes);
        let written = work.single(&context, &work.statements[0]).perform(&context).await;

        let rows = written.unwrap().map(|written| String::from_utf8(written.rows).unwrap());
        assert_eq!(rows.as_deref(), expected, "{returned:?}");
    }
}

#[test]
fn an_answer_is_small_where_all_of_its_values_are_known_to_be() {
    let table = table();
    let (one, text) = (Typed::Int(1), Typed::Text("x".to_owned()));
    let of = |bytes, used| AnswerLimit { bytes, used };
    let rows = insert(&table, &[("name", &text)]);
    let name = node(&table, &["name"]);
    // Two brackets, three bytes of a row, a name, and a text of one character that may be escaped.
    let bytes = 2 + 3 + (4 * 6 + 6) + (6 + 320);
    assert!(is_small(&rows, &name, of(bytes, 0)) && !is_small(&rows, &name, of(bytes - 1, 0)));
    assert!(is_small(&rows, &name, of(bytes + 9, 9)) && !is_small(&rows, &name, of(bytes + 8, 9)));
    // The database makes a number, which is short; it might make any text.
    assert!(is_small(&rows, &node(&table, &["id", "name"]), of(10_000, 0)));
    assert!(!is_small(&insert(&table, &[("id", &one)]), &name, of(10_000, 0)));
    let delete = mutation(&table, MutationKind::Delete { cond: Cond::TRUE, one: false });
    assert!(!is_small(&delete, &name, of(10_000, 0)));

    let many = vec![vec![(table.column("name").unwrap(), Cow::Borrowed(&text))]; 3];
    let many = mutation(&table, MutationKind::Insert(many));
    let bytes = 2 + 3 * (bytes - 2);
    assert!(is_small(&many, &name, of(bytes, 0)) && !is_small(&many, &name, of(bytes - 1, 0)));
}

#[test]
fn rows_of_unknown_values_have_room_by_what_they_grow() {
    let table = table();
    // 33 bytes of names, and 320 of a value, in 16 bytes of memory; six times for texts.
    let node = node(&table, &["name"]);
    let room = small_room(row_bytes(&node), AnswerLimit { bytes: 28_000, used: 0 });
    assert_eq!((room.bytes, room.limit), (1000, 28_000));
    assert_eq!(small_room(row_bytes(&node), AnswerLimit { bytes: 28_000, used: 2800 }).bytes, 900);
}

/// The bytes of a text as JSON.
fn written(text: &str) -> usize {
    let mut out = Vec::new();
    json::string(&mut out, text);
    out.len()
}

#[test]
fn what_is_fixed_of_a_row_is_counted_as_if_it_were_escaped() {
    let table = table();
    let escaped = "\u{1}".repeat(100);
    let mut node = node(&table, &[]);
    assert_eq!(row_bytes(&node), 3);
    node.members.push(NodeMember { key: &escaped, kind: MemberKind::Count });
    node.members.push(NodeMember { key: "n", kind: MemberKind::Constant(&escaped) });
    let least = written(&escaped) * 2 + written("n");
    assert!((least..least + 25).contains(&row_bytes(&node)), "{} of {least}", row_bytes(&node));
}

#[test]
fn a_value_is_counted_as_if_it_were_escaped() {
    let escaped = "\u{1}".repeat(1000);
    let (text, json) = (Typed::Text(escaped.clone()), written(&escaped));
    let known = |value: &Typed, json: usize| {
        let bytes = written_bytes(value);
        assert!((json..=json + SHORT_BYTES).contains(&bytes), "{bytes} of {json}");
    };
    known(&text, json);
    known(&Typed::Int(i64::MIN), 20);
    // As base64, which is four characters for three bytes, or as hexadecimal digits.
    known(&Typed::Bytes(vec![0; 1000]), 2000);
    let items = vec![text.clone(), text];
    assert_eq!(written_bytes(&Typed::List(items.clone())), 2 + 2 * (written_bytes(&items[0]) + 1));
}

/// Rows of a text and a number.
fn rows(values: &str) -> Rows {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let mut statement = connection.prepare(&format!("VALUES {values}")).unwrap();
    let columns = std::sync::Arc::new([Type::Text.into(), Type::Int32.into()]);
    let room = Room { bytes: 1000, limit: 1000 };
    Rows::Sqlite(crate::store::sqlite::SqliteRows::collect(columns, statement.query([]).unwrap(), room).unwrap())
}

#[test]
fn a_delete_is_done_again_where_it_finds_rows_whose_relations_were_not_read() {
    let table = table();
    let mut node = node(&table, &["name"]);
    let id = &table.columns[0];
    let on = vec![JoinPair { own: id, far: id, refers: true }];
    let kind = MemberKind::Relation { name: "other", many: false, on, node: self::node(&table, &[]) };
    node.members.push(NodeMember { key: "other", kind });
    let read = rows("('a', 1), ('b', 2)");
    for (deleted, expected) in
        [("('a', 1)", Ok(())), ("('c', 2), ('d', 1)", Ok(())), ("('a', 1), ('a', 3)", Err(Error::Raced))]
    {
        assert_eq!(check_related(&node, &read, &rows(deleted)), expected, "{deleted}");
    }
}
