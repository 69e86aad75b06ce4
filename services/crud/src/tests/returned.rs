//! What relations of rows that were written lead to is looked up by the keys of these rows: their table is not read again.

use std::{collections::BTreeMap, sync::Arc};

use query::{Typed, resources::TableLink};
use serde_json::json;

use super::support::{Db, grants, read, sqlite};
use crate::{
    bind::{Bind, Stored},
    budget::Budget,
    resolve::Resolver,
    sql::{self, Dialect, Source},
    store::Statement,
};

/// The statement that reads what `relation` of all rows of `near` leads to, as if these had been written.
async fn below(db: &Db, relation: &str) -> Statement {
    let known = db.schema();
    let read = read(&known.schema, "near", &json!({"select": {relation: {"select": ["id"]}}})).unwrap();
    let terms = db.terms(&query::read_accesses(&known.schema, &read).unwrap());
    let mut resolver = Resolver::new(&known.schema, grants(&terms));
    let node = resolver.read(&read).unwrap();
    let columns = sql::columns(&node);
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let keys = Statement {
        text: format!("SELECT {} FROM near ORDER BY id", names.join(", ")).into(),
        args: Vec::new(),
        columns: columns.iter().map(|column| column.r#type.into()).collect(),
        sources: Vec::new(),
        plain: None,
    };
    let rows = db.database.store().snapshot(&[keys], &Budget::unlimited()).await.unwrap().remove(0);
    let kept: Vec<usize> = (0..rows.len()).collect();
    let mut statements = Vec::new();
    sql::select(&Dialect::Sqlite, &node, &Source::Rows { rows: &rows, kept: &kept, limit: 1000 }, &mut statements);
    let [statement] = &statements[..] else { panic!("one for the only level below") };
    statement.clone()
}

#[tokio::test]
async fn rows_below_those_that_were_written_are_found_by_their_keys() {
    let db = sqlite().await;
    for sql in [
        "CREATE TABLE near (id INTEGER PRIMARY KEY, number INTEGER, name TEXT)",
        "CREATE TABLE far (id INTEGER PRIMARY KEY, number INTEGER, ratio REAL, name TEXT, folded TEXT COLLATE NOCASE)",
        "INSERT INTO near VALUES (1, 5, 'a'), (2, 6, 'b'), (3, 5, 'a'), (4, NULL, NULL)",
    ] {
        db.execute(sql).await;
    }
    let link = |(name, here, there): (&str, &str, &str)| {
        let on = BTreeMap::from([(here.to_owned(), there.to_owned())]);
        (name.to_owned(), TableLink { database: None, table: "far".to_owned(), on, many: None })
    };
    let links = [
        ("same", "number", "number"),
        ("ratio", "number", "ratio"),
        ("word", "name", "name"),
        ("folded", "name", "folded"),
    ];
    assert!(db.database.refresh().await.unwrap());
    assert!(db.database.link(Arc::new(BTreeMap::from([("near".to_owned(), links.map(link).into())]).into())));
    let int = |value| Bind::Stored(Stored::Int(value));
    let text = |value: &str| Bind::Stored(Stored::Text(value.as_bytes().to_vec()));
    let typed = |value: &str| Typed::Text(value.to_owned());

    for (relation, expected) in [
        // Where a value of one column is one of the other too, and they are equal alike, it is looked up.
        ("same", vec![Bind::List(vec![Typed::Int(5), Typed::Int(6)])]),
        ("word", vec![Bind::List(vec![typed("a"), typed("b")])]),
        // Else the database compares what is stored, each key once.
        ("ratio", vec![int(5), int(6)]),
        ("folded", vec![text("a"), text("b")]),
    ] {
        let statement = below(&db, relation).await;
        assert_eq!(statement.args, expected, "{relation}: {}", statement.text);
        assert!(!statement.text.contains("near"), "{relation}: {}", statement.text);
    }
}
