//! axum and tokio-postgres, pipelined over two shared connections.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::IntoResponse,
    routing::{get, post},
};
use tokio_postgres::{Client, NoTls, Statement};

use super::{Album, ById, ListedTrack, NewNote, Note, Tree, TreeAlbum, TreeTrack};

struct Connection {
    client: Client,
    point: Statement,
    artists: Statement,
    albums: Statement,
    tracks: Statement,
    list: Statement,
    insert: Statement,
}

/// Reads share two connections; inserts, which wait for the disk, spread over sixteen.
struct Connections {
    reads: Vec<Connection>,
    writes: Vec<Connection>,
    next: AtomicUsize,
}

impl Connections {
    fn read(&self) -> &Connection {
        &self.reads[self.next.fetch_add(1, Ordering::Relaxed) % self.reads.len()]
    }

    fn write(&self) -> &Connection {
        &self.writes[self.next.fetch_add(1, Ordering::Relaxed) % self.writes.len()]
    }
}

/// The scenarios over shared connections.
pub async fn router(url: &str) -> anyhow::Result<Router> {
    let mut connections = Connections { reads: Vec::new(), writes: Vec::new(), next: AtomicUsize::new(0) };
    for _ in 0..2 {
        connections.reads.push(connect(url).await?);
    }
    for _ in 0..16 {
        connections.writes.push(connect(url).await?);
    }
    Ok(Router::new()
        .route("/point", get(point))
        .route("/nested", get(nested))
        .route("/list", get(list))
        .route("/insert", post(insert))
        .with_state(Arc::new(connections)))
}

async fn connect(url: &str) -> anyhow::Result<Connection> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let artists = "SELECT artist_id, name FROM artist ORDER BY artist_id LIMIT 20";
    let albums = "SELECT album_id, title, artist_id FROM album WHERE artist_id IN
        (SELECT artist_id FROM artist ORDER BY artist_id LIMIT 20) ORDER BY album_id";
    let tracks = "SELECT track_id, name, milliseconds, album_id FROM track WHERE album_id IN
        (SELECT album_id FROM album WHERE artist_id IN (SELECT artist_id FROM artist ORDER BY artist_id LIMIT 20))
        ORDER BY track_id";
    let list = "SELECT track_id, name, milliseconds FROM track WHERE genre_id = $1 AND milliseconds > $2
        ORDER BY milliseconds DESC, track_id LIMIT 50";
    Ok(Connection {
        point: client.prepare("SELECT album_id, title, artist_id FROM album WHERE album_id = $1").await?,
        artists: client.prepare(artists).await?,
        albums: client.prepare(albums).await?,
        tracks: client.prepare(tracks).await?,
        list: client.prepare(list).await?,
        insert: client.prepare("INSERT INTO note (body, rank) VALUES ($1, $2) RETURNING note_id, body, rank").await?,
        client,
    })
}

async fn point(State(connections): State<Arc<Connections>>, Query(by): Query<ById>) -> impl IntoResponse {
    let on = connections.read();
    let row = on.client.query_one(&on.point, &[&by.id]).await.expect("the album exists");
    Json(Album { album_id: row.get(0), title: row.get(1), artist_id: row.get(2) })
}

async fn nested(State(connections): State<Arc<Connections>>) -> impl IntoResponse {
    let on = connections.read();
    let (artists, albums, tracks) = tokio::try_join!(
        on.client.query(&on.artists, &[]),
        on.client.query(&on.albums, &[]),
        on.client.query(&on.tracks, &[]),
    )
    .expect("the tree is read");
    let mut by_album: HashMap<i32, Vec<TreeTrack>> = HashMap::new();
    for row in &tracks {
        let track = TreeTrack { track_id: row.get(0), name: row.get(1), milliseconds: row.get(2) };
        by_album.entry(row.get(3)).or_default().push(track);
    }
    let mut by_artist: HashMap<i32, Vec<TreeAlbum>> = HashMap::new();
    for row in &albums {
        let track = by_album.remove(&row.get(0)).unwrap_or_default();
        by_artist.entry(row.get(2)).or_default().push(TreeAlbum { album_id: row.get(0), title: row.get(1), track });
    }
    let tree: Vec<Tree> = artists
        .iter()
        .map(|row| Tree {
            artist_id: row.get(0),
            name: row.get(1),
            album: by_artist.remove(&row.get(0)).unwrap_or_default(),
        })
        .collect();
    Json(tree)
}

async fn list(State(connections): State<Arc<Connections>>) -> impl IntoResponse {
    let on = connections.read();
    let rows = on.client.query(&on.list, &[&1, &200_000]).await.expect("the list is read");
    let tracks: Vec<ListedTrack> = rows
        .iter()
        .map(|row| ListedTrack { track_id: row.get(0), name: row.get(1), milliseconds: row.get(2) })
        .collect();
    Json(tracks)
}

async fn insert(State(connections): State<Arc<Connections>>, Json(note): Json<NewNote>) -> impl IntoResponse {
    let on = connections.write();
    let row = on.client.query_one(&on.insert, &[&note.body, &note.rank]).await.expect("the note is stored");
    Json(Note { note_id: row.get(0), body: row.get(1), rank: row.get(2) })
}
