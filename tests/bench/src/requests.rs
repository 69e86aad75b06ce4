//! What clients send in each scenario, by each protocol.

use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use proto::api::v1::{CreateRequest, ReadRequest, Related, Select};

use crate::{grpc::Calls, load::Requests};

/// What clients ask for.
#[derive(Debug, Clone, Copy)]
pub enum Scenario {
    /// One album by its key.
    Point,
    /// The first artists, their albums, their tracks.
    Nested {
        /// How many artists.
        artists: u32,
    },
    /// 50 tracks, filtered and sorted.
    List,
    /// One row, answered as stored.
    Insert,
}

impl Scenario {
    /// Its name on the command line and in what is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Point => "point",
            Self::Nested { .. } => "nested",
            Self::List => "list",
            Self::Insert => "insert",
        }
    }

    /// What it asks for, in words.
    pub fn about(self) -> String {
        match self {
            Self::Point => "one album by its key".to_owned(),
            Self::Nested { artists } => format!("{artists} artists, their albums, their tracks"),
            Self::List => "50 tracks filtered and sorted".to_owned(),
            Self::Insert => "one row, answered as stored".to_owned(),
        }
    }
}

/// Requests to a server by hand; those over PostgreSQL always answer 20 artists.
pub fn by_hand(scenario: Scenario) -> Requests {
    Requests::Http(match scenario {
        Scenario::Point => (1..=347).map(|id| http("GET", &format!("/point?id={id}"), "none", "")).collect(),
        Scenario::Nested { artists } => vec![http("GET", &format!("/nested?artists={artists}"), "none", "")],
        Scenario::List => vec![http("GET", "/list", "none", "")],
        Scenario::Insert => {
            (1..=1000).map(|n| http("POST", "/insert", "none", &format!(r#"{{"body":"a note","rank":{n}}}"#))).collect()
        }
    })
}

/// GraphQL over HTTP.
pub fn graphql(scenario: Scenario, token: &str) -> Requests {
    let post = |query: &str, variables: String| {
        let body = format!(r#"{{"query":"{query}","variables":{{{variables}}}}}"#);
        http("POST", "/v1/api/shop/graphql", token, &body)
    };
    Requests::Http(match scenario {
        Scenario::Point => (1..=347)
            .map(|id| {
                post(
                    "query($id: Int!) { album_by_pk(album_id: $id) { album_id title artist_id } }",
                    format!(r#""id":{id}"#),
                )
            })
            .collect(),
        Scenario::Nested { artists } => vec![post(
            &format!(
                "{{ artist(sort: [artist_id_asc], limit: {artists}) {{ artist_id name album {{ album_id title track {{ \
                 track_id name milliseconds }} }} }} }}"
            ),
            String::new(),
        )],
        Scenario::List => vec![post(
            "{ track(where: {genre_id: {_eq: 1}, milliseconds: {_gt: 200000}}, sort: [milliseconds_desc], limit: 50) { \
             track_id name milliseconds } }",
            String::new(),
        )],
        Scenario::Insert => (1..=1000)
            .map(|n| {
                post(
                    "mutation($docs: [NoteInsert!]!) { insert_note(docs: $docs) { returning { note_id body rank } } }",
                    format!(r#""docs":[{{"body":"a note","rank":{n}}}]"#),
                )
            })
            .collect(),
    })
}

/// REST.
pub fn rest(scenario: Scenario, token: &str) -> Requests {
    let post = |table: &str, operation: &str, body: &str| {
        http("POST", &format!("/v1/api/shop/crud/music/{table}/{operation}"), token, body)
    };
    Requests::Http(match scenario {
        Scenario::Point => (1..=347)
            .map(|id| post("album", "read", &format!(r#"{{"op":"one","find":{{"album_id":{id}}}}}"#)))
            .collect(),
        Scenario::Nested { artists } => vec![post(
            "artist",
            "read",
            &format!(
                r#"{{"op":"all","options":{{"sort":["artist_id"],"limit":{artists},"select":{{"artist_id":1,"name":1,
            "album":{{"select":{{"album_id":1,"title":1,"track":{{"select":{{"track_id":1,"name":1,"milliseconds":1}}}}}}}}}}}}}}"#
            ),
        )],
        Scenario::List => vec![post(
            "track",
            "read",
            r#"{"op":"all","find":{"genre_id":1,"milliseconds":{"$gt":200000}},"options":{"sort":["-milliseconds"],
            "limit":50,"select":{"track_id":1,"name":1,"milliseconds":1}}}"#,
        )],
        Scenario::Insert => (1..=1000)
            .map(|n| {
                let body = format!(
                    r#"{{"op":"one","doc":{{"body":"a note","rank":{n}}},"returning":["note_id","body","rank"]}}"#
                );
                post("note", "create", &body)
            })
            .collect(),
    })
}

/// gRPC.
pub fn grpc(scenario: Scenario, token: &str) -> Requests {
    let calls = |path, messages| Requests::Grpc(Calls { path, token: token.to_owned(), messages });
    let reads = |requests: Vec<ReadRequest>| {
        calls("/perigee.api.v1.Data/Read", requests.iter().map(Message::encode_to_vec).collect())
    };
    match scenario {
        Scenario::Point => reads(
            (1..=347)
                .map(|id| ReadRequest {
                    r#where: Some(object([("album_id", number(id))])),
                    // One row, as the other protocols ask: PostgreSQL looks for more otherwise.
                    limit: Some(1),
                    ..read("album")
                })
                .collect(),
        ),
        Scenario::Nested { artists } => {
            let mut album = columns(["album_id", "title"]);
            album.relations.extend(related("track", columns(["track_id", "name", "milliseconds"])));
            let mut artist = columns(["artist_id", "name"]);
            artist.relations.extend(related("album", album));
            reads(vec![ReadRequest {
                select: Some(artist),
                sort: vec!["artist_id".to_owned()],
                limit: Some(artists),
                ..read("artist")
            }])
        }
        Scenario::List => {
            let longer = object([("$gt", number(200_000))]);
            let longer = Value { kind: Some(Kind::StructValue(longer)) };
            reads(vec![ReadRequest {
                r#where: Some(object([("genre_id", number(1)), ("milliseconds", longer)])),
                select: Some(columns(["track_id", "name", "milliseconds"])),
                sort: vec!["-milliseconds".to_owned()],
                limit: Some(50),
                ..read("track")
            }])
        }
        Scenario::Insert => {
            let doc = |n| {
                object([("body", Value { kind: Some(Kind::StringValue("a note".to_owned())) }), ("rank", number(n))])
            };
            let create = |n| CreateRequest {
                project: "shop".to_owned(),
                database: "music".to_owned(),
                table: "note".to_owned(),
                docs: vec![doc(n)],
                returning: Some(columns(["note_id", "body", "rank"])),
            };
            calls("/perigee.api.v1.Data/Create", (1..=1000).map(|n| create(n).encode_to_vec()).collect())
        }
    }
}

fn http(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: \
         application/json\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn number(value: i32) -> Value {
    Value { kind: Some(Kind::NumberValue(f64::from(value))) }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Struct {
    Struct { fields: members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

fn columns<const N: usize>(names: [&str; N]) -> Select {
    Select { columns: names.map(str::to_owned).to_vec(), relations: Default::default() }
}

fn related(name: &str, select: Select) -> [(String, Related); 1] {
    [(name.to_owned(), Related { select: Some(select), ..Related::default() })]
}

fn read(table: &str) -> ReadRequest {
    ReadRequest {
        project: "shop".to_owned(),
        database: "music".to_owned(),
        table: table.to_owned(),
        ..Default::default()
    }
}
