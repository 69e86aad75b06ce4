//! axum and rusqlite on the caller's thread: a read connection per thread, one writer behind a lock.

use std::{cell::RefCell, sync::Arc, sync::Mutex};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::IntoResponse,
    routing::{get, post},
};
use rusqlite::Connection;

use super::{Album, ById, First, ListedTrack, NewNote, Note, Tree, TreeAlbum, TreeTrack};

struct Database {
    file: String,
    writer: Mutex<Connection>,
}

thread_local! {
    static READER: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

impl Database {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        READER.with_borrow_mut(|reader| {
            let connection = reader.get_or_insert_with(|| Connection::open(&self.file).expect("the file opens"));
            read(connection).expect("the rows are read")
        })
    }
}

/// The scenarios over one file.
pub fn router(file: &str) -> anyhow::Result<Router> {
    let writer = Connection::open(file)?;
    writer.pragma_update(None, "journal_mode", "WAL")?;
    writer.pragma_update(None, "synchronous", "FULL")?;
    Ok(Router::new()
        .route("/point", get(point))
        .route("/nested", get(nested))
        .route("/list", get(list))
        .route("/insert", post(insert))
        .with_state(Arc::new(Database { file: file.to_owned(), writer: Mutex::new(writer) })))
}

async fn point(State(database): State<Arc<Database>>, Query(by): Query<ById>) -> impl IntoResponse {
    Json(database.read(|connection| {
        connection
            .prepare_cached("SELECT album_id, title, artist_id FROM album WHERE album_id = ?1")?
            .query_row([by.id], |row| Ok(Album { album_id: row.get(0)?, title: row.get(1)?, artist_id: row.get(2)? }))
    }))
}

async fn nested(State(database): State<Arc<Database>>, Query(first): Query<First>) -> impl IntoResponse {
    Json(database.read(|connection| {
        let mut artists =
            connection.prepare_cached("SELECT artist_id, name FROM artist ORDER BY artist_id LIMIT ?1")?;
        artists
            .query_map([first.artists], |row| {
                let artist_id = row.get(0)?;
                Ok(Tree { artist_id, name: row.get(1)?, album: albums(connection, artist_id)? })
            })?
            .collect::<rusqlite::Result<Vec<Tree>>>()
    }))
}

fn albums(connection: &Connection, artist_id: i32) -> rusqlite::Result<Vec<TreeAlbum>> {
    let mut albums =
        connection.prepare_cached("SELECT album_id, title FROM album WHERE artist_id = ?1 ORDER BY album_id")?;
    let rows = albums.query_map([artist_id], |row| {
        let album_id = row.get(0)?;
        Ok(TreeAlbum { album_id, title: row.get(1)?, track: tracks(connection, album_id)? })
    })?;
    rows.collect()
}

fn tracks(connection: &Connection, album_id: i32) -> rusqlite::Result<Vec<TreeTrack>> {
    let mut tracks = connection
        .prepare_cached("SELECT track_id, name, milliseconds FROM track WHERE album_id = ?1 ORDER BY track_id")?;
    let rows = tracks.query_map([album_id], |row| {
        Ok(TreeTrack { track_id: row.get(0)?, name: row.get(1)?, milliseconds: row.get(2)? })
    })?;
    rows.collect()
}

async fn list(State(database): State<Arc<Database>>) -> impl IntoResponse {
    Json(database.read(|connection| {
        connection
            .prepare_cached(
                "SELECT track_id, name, milliseconds FROM track WHERE genre_id = ?1 AND milliseconds > ?2
                 ORDER BY milliseconds DESC, track_id LIMIT 50",
            )?
            .query_map([1, 200_000], |row| {
                Ok(ListedTrack { track_id: row.get(0)?, name: row.get(1)?, milliseconds: row.get(2)? })
            })?
            .collect::<rusqlite::Result<Vec<ListedTrack>>>()
    }))
}

async fn insert(State(database): State<Arc<Database>>, Json(note): Json<NewNote>) -> impl IntoResponse {
    let writer = database.writer.lock().expect("no handler panics while it writes");
    let stored = writer
        .prepare_cached("INSERT INTO note (body, rank) VALUES (?1, ?2) RETURNING note_id, body, rank")
        .and_then(|mut statement| {
            statement.query_row((&note.body, note.rank), |row| {
                Ok(Note { note_id: row.get(0)?, body: row.get(1)?, rank: row.get(2)? })
            })
        });
    Json(stored.expect("the note is stored"))
}
