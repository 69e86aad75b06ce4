//! axum and sqlx.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::header,
    response::IntoResponse,
    routing::{get, post},
};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};

use super::{Album, ById, ListedTrack, NewNote, Note};

/// The scenarios over a pool of 16 connections.
pub async fn router(url: &str) -> anyhow::Result<Router> {
    let pool = PgPoolOptions::new().max_connections(16).test_before_acquire(false).connect(url).await?;
    Ok(Router::new()
        .route("/point", get(point))
        .route("/nested", get(nested))
        .route("/list", get(list))
        .route("/insert", post(insert))
        .with_state(pool))
}

async fn point(State(pool): State<PgPool>, Query(by): Query<ById>) -> impl IntoResponse {
    let row = sqlx::query("SELECT album_id, title, artist_id FROM album WHERE album_id = $1")
        .bind(by.id)
        .fetch_one(&pool)
        .await
        .expect("the album exists");
    Json(Album { album_id: row.get(0), title: row.get(1), artist_id: row.get(2) })
}

async fn nested(State(pool): State<PgPool>) -> impl IntoResponse {
    let json: String = sqlx::query_scalar(
        "SELECT json_agg(json_build_object('artist_id', a.artist_id, 'name', a.name, 'album', (
            SELECT coalesce(json_agg(json_build_object('album_id', b.album_id, 'title', b.title, 'track', (
                SELECT coalesce(json_agg(json_build_object('track_id', t.track_id, 'name', t.name,
                    'milliseconds', t.milliseconds) ORDER BY t.track_id), '[]')
                FROM track t WHERE t.album_id = b.album_id)) ORDER BY b.album_id), '[]')
            FROM album b WHERE b.artist_id = a.artist_id)) ORDER BY a.artist_id)::text
         FROM (SELECT artist_id, name FROM artist ORDER BY artist_id LIMIT 20) a",
    )
    .fetch_one(&pool)
    .await
    .expect("the tree is read");
    ([(header::CONTENT_TYPE, "application/json")], json)
}

async fn list(State(pool): State<PgPool>) -> impl IntoResponse {
    let rows = sqlx::query(
        "SELECT track_id, name, milliseconds FROM track WHERE genre_id = $1 AND milliseconds > $2
         ORDER BY milliseconds DESC, track_id LIMIT 50",
    )
    .bind(1)
    .bind(200_000)
    .fetch_all(&pool)
    .await
    .expect("the list is read");
    let tracks: Vec<ListedTrack> = rows
        .iter()
        .map(|row| ListedTrack { track_id: row.get(0), name: row.get(1), milliseconds: row.get(2) })
        .collect();
    Json(tracks)
}

async fn insert(State(pool): State<PgPool>, Json(note): Json<NewNote>) -> impl IntoResponse {
    let row = sqlx::query("INSERT INTO note (body, rank) VALUES ($1, $2) RETURNING note_id, body, rank")
        .bind(note.body)
        .bind(note.rank)
        .fetch_one(&pool)
        .await
        .expect("the note is stored");
    Json(Note { note_id: row.get(0), body: row.get(1), rank: row.get(2) })
}
