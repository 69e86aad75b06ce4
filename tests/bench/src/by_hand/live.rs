//! Live queries by hand: a stream of events for each subscriber, whose query is asked again after each notification of the
//! database, or each second.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    response::Response,
    routing::get,
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

/// What tells subscribers to ask again.
#[derive(Debug, Clone, Copy)]
pub enum Trigger {
    /// `LISTEN`.
    Notifications,
    /// The clock, each second.
    Clock,
}

/// Queries of a row by its rank, which answer an id and a body.
const NOTE: &str = "SELECT note_id, body FROM note WHERE rank = $1 ORDER BY note_id DESC LIMIT 1";
const POST: &str =
    "SELECT post_id::int8, body FROM post JOIN topic USING (topic_id) WHERE rank = $1 ORDER BY post_id DESC LIMIT 1";

struct Live {
    client: Client,
    note: Statement,
    post: Statement,
    changed: watch::Sender<()>,
}

#[derive(Deserialize)]
struct ByRank {
    rank: i32,
}

/// The route of the subscribers.
pub async fn router(url: &str, trigger: Trigger) -> anyhow::Result<Router> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let (of_note, of_post) = (client.prepare(NOTE).await?, client.prepare(POST).await?);
    let live = Arc::new(Live { note: of_note, post: of_post, client, changed: watch::Sender::new(()) });
    match trigger {
        Trigger::Notifications => listen(url, live.clone()).await?,
        Trigger::Clock => {
            let live = live.clone();
            tokio::spawn(async move {
                let mut clock = tokio::time::interval(Duration::from_secs(1));
                loop {
                    clock.tick().await;
                    live.changed.send_replace(());
                }
            });
        }
    }
    Ok(Router::new().route("/live", get(note)).route("/joined", get(post)).with_state(live))
}

async fn listen(url: &str, live: Arc<Live>) -> anyhow::Result<()> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(_) = message {
                live.changed.send_replace(());
            }
        }
    });
    client.batch_execute("LISTEN note").await?;
    // It listens as long as it is there.
    tokio::spawn(async move {
        let _client = client;
        std::future::pending::<()>().await;
    });
    Ok(())
}

async fn note(State(live): State<Arc<Live>>, Query(ByRank { rank }): Query<ByRank>) -> Response {
    let query = live.note.clone();
    subscribe(live, query, rank)
}

async fn post(State(live): State<Arc<Live>>, Query(ByRank { rank }): Query<ByRank>) -> Response {
    let query = live.post.clone();
    subscribe(live, query, rank)
}

fn subscribe(live: Arc<Live>, query: Statement, rank: i32) -> Response {
    let mut changed = live.changed.subscribe();
    changed.mark_changed();
    let events =
        stream::unfold((live, query, changed, String::new()), move |(live, query, mut changed, last)| async move {
            loop {
                changed.changed().await.ok()?;
                let row = live.client.query_opt(&query, &[&rank]).await.ok()?;
                let text = row.map_or("{}\n".to_owned(), |row| {
                    let (id, body): (i64, String) = (row.get(0), row.get(1));
                    format!("data: {{\"note_id\":{id},\"body\":\"{body}\"}}\n")
                });
                if text != last {
                    return Some((Ok::<_, std::io::Error>(text.clone()), (live, query, changed, text)));
                }
            }
        });
    Response::new(Body::from_stream(events))
}
