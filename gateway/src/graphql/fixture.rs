//! Projects that tests plan against.

use std::sync::Arc;

use query::{Column, ForeignKey, Schema, Table, TableKind, Type, Writes, resources};

use crate::catalogue::{Database, Project, ServiceSettings};

/// A shop with one database, `music`.
pub fn shop() -> Arc<Project> {
    project(vec![database("music", music())])
}

/// A shop with a service `mail`, whose functions may all be in queries.
pub fn with_functions() -> Arc<Project> {
    let spec = serde_json::json!({ "http": { "url": "http://mail" }, "default": { "idempotent": true } });
    let spec = serde_json::from_value(spec).expect("it is a service");
    let services = vec![Arc::new(ServiceSettings { id: "mail".to_owned(), spec })];
    Arc::new(Project { services, ..Arc::into_inner(shop()).expect("nobody else has it") })
}

/// A shop whose databases `music` and `archive` both have a table `genre`.
pub fn two_databases() -> Arc<Project> {
    project(vec![database("music", music()), database("archive", vec![genre(), table("box", &["box_id"])])])
}

/// A database with names that are no GraphQL names.
pub fn odd_names() -> Arc<Project> {
    let mut items = table("order items", &["unit price", "unit_price", "2nd"]);
    items.primary_key = vec!["2nd".to_owned()];
    project(vec![database("odd", vec![items])])
}

/// A database whose relations have long names too.
pub fn long_names() -> Arc<Project> {
    let mut staff = table("staff", &["staff_id", "boss", "name"]);
    refer_to(&mut staff, "boss", "staff", "staff_id");
    let mut task = table("task list", &["task_id", "staff", "owner"]);
    refer_to(&mut task, "staff", "staff", "staff_id");
    refer_to(&mut task, "owner", "staff", "staff_id");
    project(vec![database("music", vec![staff, task])])
}

/// A database that has not been reached.
pub fn unreached() -> Arc<Project> {
    let mut shop = database("music", Vec::new());
    shop.schema = None;
    project(vec![shop])
}

fn music() -> Vec<Table> {
    let mut album = table("album", &["album_id", "title", "artist_id"]);
    refer(&mut album, "artist_id", "artist");
    let mut track = table("track", &["track_id", "name", "album_id", "genre_id", "milliseconds", "unit_price"]);
    track.columns[4].r#type = Type::Int32;
    track.columns[5].r#type = Type::Decimal;
    refer(&mut track, "album_id", "album");
    refer(&mut track, "genre_id", "genre");
    let mut line = table("playlist_track", &["playlist_id", "track_id"]);
    line.primary_key = vec!["playlist_id".to_owned(), "track_id".to_owned()];
    refer(&mut line, "track_id", "track");
    let mut audit = table("audit", &["text", "payload"]);
    audit.primary_key.clear();
    audit.columns[1].r#type = Type::Json;
    let mut bestseller = table("bestseller", &["name"]);
    bestseller.kind = TableKind::View;
    bestseller.writes = Writes::NONE;
    bestseller.primary_key.clear();
    vec![table("artist", &["artist_id", "name"]), album, track, genre(), line, audit, bestseller]
}

fn genre() -> Table {
    table("genre", &["genre_id", "name"])
}

/// A table whose first column is its key; columns that end in `id` are integers, others are texts.
fn table(name: &str, columns: &[&str]) -> Table {
    let column = |name: &&str| Column {
        nullable: true,
        ..Column::new(*name, if name.ends_with("_id") { Type::Int32 } else { Type::Text }, "text")
    };
    Table { primary_key: vec![columns[0].to_owned()], ..Table::new(name, columns.iter().map(column).collect()) }
}

fn refer(table: &mut Table, column: &str, to: &str) {
    refer_to(table, column, to, column);
}

fn refer_to(table: &mut Table, column: &str, to: &str, foreign: &str) {
    table.foreign_keys.push(ForeignKey {
        columns: vec![column.to_owned()],
        foreign_database: None,
        foreign_table: to.to_owned(),
        foreign_columns: vec![foreign.to_owned()],
    });
}

fn database(id: &str, tables: Vec<Table>) -> Database {
    let schema = Some(Arc::new(Schema::new(tables)));
    Database { id: id.into(), engine: resources::Engine::Sqlite, schema, version: 1, is_opening: false }
}

fn project(databases: Vec<Database>) -> Arc<Project> {
    Arc::new(Project {
        id: "shop".into(),
        spec: resources::Project::default(),
        databases,
        buckets: Vec::new(),
        services: Vec::new(),
        hooks: Arc::default(),
        has_events: false,
        version: 1,
    })
}

/// A database whose tables are called like that.
pub fn with_tables(tables: &[&str]) -> Arc<Project> {
    project(vec![database("named", tables.iter().map(|name| table(name, &["id"])).collect())])
}
