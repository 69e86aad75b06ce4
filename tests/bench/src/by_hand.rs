//! The scenarios as one would write them by hand: one route each, no rules, no dynamic queries.

mod live;
mod pipelined;
mod rusqlite;
mod sqlx;

use serde::{Deserialize, Serialize};

/// How a server by hand reaches its database.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Driver {
    /// axum and sqlx with a pool of 16; nested rows by `json_agg`.
    Sqlx,
    /// axum and tokio-postgres, pipelined over two connections, rows.
    Postgres,
    /// axum and rusqlite on the caller's thread.
    Rusqlite,
    /// Live queries, asked again after each notification.
    Listen,
    /// Live queries, asked again each second.
    Poll,
}

/// Query of the point read.
#[derive(Deserialize)]
struct ById {
    id: i32,
}

/// Query of the nested read.
#[derive(Deserialize)]
struct First {
    artists: u32,
}

/// Body of the insert.
#[derive(Deserialize)]
struct NewNote {
    body: String,
    rank: i32,
}

#[derive(Serialize, Clone)]
struct Album {
    album_id: i32,
    title: String,
    artist_id: i32,
}

#[derive(Serialize)]
struct Note {
    note_id: i64,
    body: String,
    rank: i32,
}

#[derive(Serialize)]
struct ListedTrack {
    track_id: i32,
    name: String,
    milliseconds: i32,
}

#[derive(Serialize)]
struct Tree {
    artist_id: i32,
    name: Option<String>,
    album: Vec<TreeAlbum>,
}

#[derive(Serialize)]
struct TreeAlbum {
    album_id: i32,
    title: String,
    track: Vec<TreeTrack>,
}

#[derive(Serialize)]
struct TreeTrack {
    track_id: i32,
    name: String,
    milliseconds: i32,
}

/// Serves the scenarios on a loopback port until the process is ended.
pub async fn serve(by: Driver, database: &str, port: u16) -> anyhow::Result<()> {
    let router = match by {
        Driver::Sqlx => sqlx::router(database).await?,
        Driver::Postgres => pipelined::router(database).await?,
        Driver::Rusqlite => rusqlite::router(database)?,
        Driver::Listen => live::router(database, live::Trigger::Notifications).await?,
        Driver::Poll => live::router(database, live::Trigger::Clock).await?,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router).await?;
    Ok(())
}
