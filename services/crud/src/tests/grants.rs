//! What happens without the grants that an operation needs.

use std::{collections::BTreeMap, sync::Arc};

use mesh::{Code, Fault};
use query::{Columns, Operation, TableAccess};
use serde_json::json;

use super::support::{Db, grants, read, sqlite};
use crate::Error;

/// What becomes of a read of albums by their artist, with the grants that `change` makes of the right ones.
async fn outcome(change: impl FnOnce(&Db, &[TableAccess<'_>]) -> Vec<Arc<query::GrantTerms>>) -> Result<(), Error> {
    let db = sqlite().await;
    let known = db.schema();
    let options = json!({"find": {"artist": {"name": "AC/DC"}}, "select": {"title": 1, "track": {"select": ["name"]}}});
    let read = read(&known.schema, "album", &options).unwrap();
    // A read like it is prepared.
    db.answers(std::slice::from_ref(&read)).await.unwrap();
    let terms = change(&db, &query::read_accesses(&known.schema, &read).unwrap());
    db.database.read(&[read], grants(&terms), db.options).await.map(|_| ()).map_err(|failure| failure.error)
}

#[tokio::test]
async fn the_right_grants_in_the_order_of_the_walk_are_accepted() {
    assert_eq!(outcome(|db, accesses| db.terms(accesses)).await, Ok(()));
}

#[tokio::test]
async fn a_missing_or_surplus_grant_denies() {
    for change in [
        (|db, accesses| db.terms(&accesses[..2])) as fn(&Db, &[TableAccess<'_>]) -> _,
        |db, accesses| db.terms(&accesses[1..]),
        |db, accesses| db.terms(&[accesses, &accesses[..1]].concat()),
        |db, accesses| db.terms(&[&accesses[1..], &accesses[..1]].concat()),
        |_, _| Vec::new(),
    ] {
        assert!(matches!(outcome(change).await, Err(Error::Ungranted(_))));
    }
}

#[tokio::test]
async fn a_grant_for_something_else_denies() {
    for change in [
        (|grant| grant.project = "other".to_owned()) as fn(&mut query::GrantTerms),
        |grant| grant.database = "other".to_owned(),
        |grant| grant.table = "track".to_owned(),
        |grant| grant.operation = Operation::Update,
        |grant| grant.expires_ms = 999,
    ] {
        let outcome = outcome(|db, accesses| {
            let mut grant = db.grant(&accesses[0]);
            change(&mut grant);
            let mut terms = db.terms(accesses);
            terms[0] = Arc::new(grant);
            terms
        });
        assert!(matches!(outcome.await, Err(Error::Denied(_) | Error::Ungranted(_))));
    }
}

#[tokio::test]
async fn a_grant_is_for_the_table_of_its_database_alone() {
    let db = sqlite().await;
    let known = db.schema();
    let read = read(&known.schema, "album", &json!({})).unwrap();
    let accesses = query::read_accesses(&known.schema, &read).unwrap();
    let own = known.schema.table("album").unwrap();
    let far = query::Table { database: Some("hr".to_owned()), ..own.clone() };
    for (table, right) in [(own, "music"), (&far, "hr")] {
        for granted in ["music", "hr", ""] {
            let terms = [Arc::new(query::GrantTerms { database: granted.to_owned(), ..db.grant(&accesses[0]) })];

            let taken = grants(&terms).take(table, Operation::Read);

            assert_eq!(taken.is_ok(), granted == right, "{granted}: {taken:?}");
        }
    }
}

#[tokio::test]
async fn grants_of_the_schema_before_are_asked_for_again() {
    let db = sqlite().await;
    let known = db.schema();
    let read = read(&known.schema, "album", &json!({"select": {"track": {"select": ["name"]}}})).unwrap();
    let terms = db.terms(&query::read_accesses(&known.schema, &read).unwrap());
    let on = BTreeMap::from([("artist_id".to_owned(), "artist_id".to_owned())]);
    let link = query::resources::TableLink { table: "artist".to_owned(), database: None, on, many: Some(true) };
    let links = BTreeMap::from([("album".to_owned(), BTreeMap::from([("track".to_owned(), link)]))]);
    db.database.link(Arc::new(links.into()));

    let error = db.database.read(&[read], grants(&terms), db.options).await.unwrap_err().error;

    assert!(matches!(&error, Error::SchemaMoved(cause) if cause.contains("read of table track stands")), "{error:?}");
    assert_eq!(Fault::from(error).code, Code::Unavailable);
}

#[tokio::test]
async fn a_grant_holds_until_the_end_of_its_time() {
    let ends_now = |db: &Db, accesses: &[TableAccess<'_>]| {
        let mut terms = db.terms(accesses);
        terms.iter_mut().for_each(|grant| Arc::make_mut(grant).expires_ms = 1000);
        terms
    };
    assert_eq!(outcome(ends_now).await, Ok(()));
}

#[tokio::test]
async fn only_grants_in_scope_are_taken() {
    let db = sqlite().await;
    let known = db.schema();
    let table = known.schema.table("album").unwrap();
    let read = read(&known.schema, "album", &json!({"select": ["title"]})).unwrap();
    let access = query::read_accesses(&known.schema, &read).unwrap().remove(0);
    for (change, is_in_scope, is_taken) in [
        ((|_| {}) as fn(&mut query::GrantTerms), true, true),
        (|grant| grant.expires_ms = 1000, true, true),
        (|grant| grant.expires_ms = 999, false, false),
        (|grant| grant.project = "other".to_owned(), false, false),
        // Another database of the project may be one of the neighbours; its grants are for its own tables.
        (|grant| grant.database = "other".to_owned(), true, false),
    ] {
        let mut grant = db.grant(&access);
        change(&mut grant);
        let terms = [Arc::new(grant)];
        assert_eq!(grants(&terms).are_in_scope(), is_in_scope, "{terms:?}");
        assert_eq!(grants(&terms).take(table, Operation::Read).is_ok(), is_taken, "{terms:?}");
    }
}

#[tokio::test]
async fn columns_outside_the_grant_are_refused_by_name() {
    let mut db = sqlite().await;
    let only = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    db.rule("track", Operation::Read).columns =
        Columns { read: only(&["name"]), filter: only(&["track_id"]), ..Columns::default() };
    db.rule("artist", Operation::Read).columns = Columns { deny: vec!["name".to_owned()], ..Columns::default() };
    db.rule("track", Operation::Update).columns = Columns { write: only(&["name"]), ..Columns::default() };
    db.rule("track", Operation::Create).columns = Columns { write: only(&["name"]), ..Columns::default() };

    let denied = |outcome: Result<serde_json::Value, Error>, column: &str| {
        assert!(matches!(&outcome, Err(Error::Denied(text)) if text.contains(column)), "{column}: {outcome:?}");
    };
    denied(db.read("track", json!({"select": ["milliseconds"]})).await, "milliseconds");
    denied(db.read("track", json!({"select": ["name"], "find": {"milliseconds": 1}})).await, "milliseconds");
    denied(db.read("track", json!({"select": ["name"], "sort": ["milliseconds"]})).await, "milliseconds");
    denied(db.read("album", json!({"select": ["title"], "find": {"track": {"$some": {"name": "x"}}}})).await, "name");
    denied(db.read("artist", json!({"select": ["name"]})).await, "name");
    denied(db.read("artist", json!({"select": ["artist_id"], "find": {"name": "x"}})).await, "name");
    denied(db.read("album", json!({"select": {"track": {"select": ["album_id"]}}})).await, "album_id");
    assert!(db.read("album", json!({"select": {"track": {"select": ["name"]}}})).await.is_ok());

    let update = |set, returning| db.update("track", json!({"track_id": 1}), set, returning);
    let outcome = db.mutate(update(json!({"$inc": {"milliseconds": 1}}), None)).await;
    denied(outcome.map(|(_, rows)| rows), "milliseconds");
    let outcome = db.mutate(update(json!({"$set": {"name": "x"}}), Some(json!(["unit_price"])))).await;
    denied(outcome.map(|(_, rows)| rows), "unit_price");
    let outcome = db.mutate(db.insert("track", json!({"name": "x", "milliseconds": 1}), None)).await;
    denied(outcome.map(|(_, rows)| rows), "milliseconds");
}
