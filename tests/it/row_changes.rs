//! Changes of rows, one message each, by every protocol that tells them, on both engines.

use anyhow::Context;
use serde_json::{Value, json};
use tests::{
    client::{Protocol, reason},
    engine::{Database, Engine},
    event_stream::{EventStream, Sent},
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh},
    node_tool,
    socket::{Incoming, Socket},
    token,
    watching::{Asked, Change, FRAMINGS, Framing, Watching},
};

scenarios!(
    each_protocol_tells_the_rows_that_there_are,
    each_protocol_tells_every_change,
    a_watch_goes_on_after_a_position,
    a_position_that_is_too_old_begins_anew_and_nothing_else_is_told,
    who_may_not_watch_is_told_so,
    what_is_hidden_is_not_told,
    what_cannot_be_watched_is_refused,
    a_token_that_expires_ends_a_watch,
    a_renewed_token_goes_on_without_a_loss,
    a_rule_that_is_edited_counts_at_once,
    a_node_that_stops_says_so,
    watches_are_bounded_by_caller,
    connect_web_of_npm_is_a_client,
    the_schema_has_the_changes_of_tables_that_are_reached,
    the_openapi_document_has_the_watches_that_are_reached,
);

const NOTES: &str = "CREATE TABLE note (id BIGINT NOT NULL PRIMARY KEY, owner TEXT, text TEXT);
    CREATE TABLE plain (text TEXT);
    CREATE TABLE secret (id BIGINT NOT NULL PRIMARY KEY);
    CREATE VIEW shown AS SELECT id, text FROM note;";

fn rules(read: &str) -> String {
    format!(
        "---\nkind: table\nmeta: {{ project: shop, database: lab, id: note }}\nspec: {{ rules: {{ read: {read} }} }}\n"
    )
}

const OWN: &str = r#"{ rule: match, type: string, eval: "==", f1: args.find.owner, f2: args.auth.id }"#;

fn notes() -> Asked {
    Asked { find: json!({}), table: "note", columns: &["id", "text"], ..Asked::default() }
}

async fn lab(
    shape: Shape,
    engine: Engine,
    resources: &str,
    limits: &'static str,
) -> anyhow::Result<(TestMesh, Database)> {
    let (lab, resources) = (Some(NOTES.to_owned()), resources.to_owned());
    let setup = Setup { lab, resources, introspection: true, node_limits: limits, ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

async fn watch(mesh: &TestMesh, framing: Framing, token: &str, asked: &Asked) -> anyhow::Result<Watching> {
    let begun = Watching::begin(framing, &mesh.client, token, asked).await?;
    begun.map_err(|code| anyhow::anyhow!("{framing:?} refused with {code}"))
}

/// The code with which a watch is refused, at once or by its first message.
async fn refusal(mesh: &TestMesh, framing: Framing, token: &str, asked: &Asked) -> anyhow::Result<String> {
    let code = match Watching::begin(framing, &mesh.client, token, asked).await? {
        Ok(mut watching) => watching.next().await?.err(),
        Err(code) => Some(code),
    };
    code.with_context(|| format!("{framing:?}: not refused"))
}

async fn next(watching: &mut Watching) -> anyhow::Result<Change> {
    watching.next().await?.map_err(|code| anyhow::anyhow!("ended with {code}"))
}

fn kinds(told: &[Change]) -> Vec<(&str, &Value, &Value)> {
    told.iter().map(|change| (change.kind.as_str(), &change.row, &change.before)).collect()
}

async fn each_protocol_tells_the_rows_that_there_are(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a\nb'), (2, 'bob', NULL), (9007199254740993, 'ann', 'c')").await?;
        for framing in FRAMINGS {
            let mut watching = watch(&mesh, framing, "", &notes()).await?;
            let (mut told, ready) = watching.until_ready().await?;
            told.sort_by_key(|change| change.row["id"].as_i64());
            let rows = [
                json!({ "id": 1, "text": "a\nb" }),
                json!({ "id": 2, "text": null }),
                json!({ "id": 9_007_199_254_740_993_i64, "text": "c" }),
            ];
            let expected = rows.iter().map(|row| ("INITIAL", row, &Value::Null)).collect::<Vec<_>>();
            assert_eq!(kinds(&told), expected, "{framing:?} {engine:?}");
            let positions = told.iter().map(|change| &change.position).chain([&ready]);
            let distinct: std::collections::BTreeSet<_> = positions.clone().collect();
            assert_eq!(distinct.len(), 4, "{framing:?}: each has a position of its own");
            assert!(distinct.iter().all(|position| position.len() <= 512 && position.is_ascii()));

            let filtered = Asked { find: json!({ "owner": "ann" }), columns: &["text"], ..notes() };
            let (mut told, _) = watch(&mesh, framing, "", &filtered).await?.until_ready().await?;
            told.sort_by_key(|change| change.row["text"].to_string());
            let rows = [json!({ "text": "a\nb" }), json!({ "text": "c" })];
            let expected = rows.iter().map(|row| ("INITIAL", row, &Value::Null)).collect::<Vec<_>>();
            assert_eq!(kinds(&told), expected, "{framing:?} {engine:?}");

            let without = Asked { skip_initial: true, ..notes() };
            assert_eq!(next(&mut watch(&mesh, framing, "", &without).await?).await?.kind, "READY", "{framing:?}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn each_protocol_tells_every_change(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        let asked = Asked { find: json!({ "owner": "ann" }), ..notes() };
        let mut all = Vec::new();
        for framing in FRAMINGS {
            let mut watching = watch(&mesh, framing, "", &asked).await?;
            assert_eq!(watching.until_ready().await?.0, [], "{framing:?}");
            all.push((framing, watching));
        }
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a')").await?;
        lab.run("INSERT INTO note VALUES (2, 'bob', 'b')").await?;
        lab.run("UPDATE note SET text = 'c' WHERE id = 1").await?;
        lab.run("UPDATE note SET owner = 'ann' WHERE id = 2").await?;
        lab.run("UPDATE note SET owner = 'bob' WHERE id = 1").await?;
        lab.run("UPDATE note SET id = 3 WHERE id = 2").await?;
        lab.run("DELETE FROM note").await?;
        for (framing, watching) in &mut all {
            let key = |id: i64| match framing {
                Framing::Rest => json!({ "id": id }),
                _ => json!({ "id": id, "text": null }),
            };
            let (one, two) = (json!({ "id": 1, "text": "a" }), json!({ "id": 2, "text": "b" }));
            let (changed, three) = (json!({ "id": 1, "text": "c" }), json!({ "id": 3, "text": "b" }));
            for (kind, row, before) in [
                ("INSERT", one.clone(), Value::Null),
                ("UPDATE", changed.clone(), one),
                ("UPDATE", two.clone(), Value::Null),
                ("DELETE", key(1), changed),
                ("DELETE", key(2), two),
                ("INSERT", three.clone(), Value::Null),
                ("DELETE", key(3), three),
            ] {
                let change = next(watching).await?;
                assert_eq!(
                    (change.kind.as_str(), &change.row, &change.before),
                    (kind, &row, &before),
                    "{framing:?} {engine:?}"
                );
                assert_eq!(change.reason, None);
            }
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_watch_goes_on_after_a_position(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a')").await?;
        // While nobody follows the table, nothing of it is kept.
        let mut kept = watch(&mesh, Framing::Socket, "", &notes()).await?;
        kept.until_ready().await?;
        let mut positions = Vec::new();
        for framing in FRAMINGS {
            positions.push((framing, watch(&mesh, framing, "", &notes()).await?.until_ready().await?.1));
        }
        lab.run("UPDATE note SET text = 'b'").await?;
        let change = next(&mut kept).await?;
        for (framing, position) in positions {
            // The position wins over what is asked of the rows that there are.
            let asked = Asked { after: position.clone(), ..notes() };
            let mut again = watch(&mesh, framing, "", &asked).await?;
            assert_eq!(next(&mut again).await?.kind, "READY", "{framing:?} {engine:?}");
            let told = next(&mut again).await?;
            assert_eq!((&*told.kind, &told.row), ("UPDATE", &change.row), "{framing:?} {engine:?}");
            if framing == Framing::Rest {
                // As a browser goes on: by a header, whatever the address says.
                let path = Asked { after: "stale".to_owned(), ..notes() }.path();
                let header = [("last-event-id", position.as_str())];
                let opened = EventStream::open_path(mesh.client.address(), "", &path, &header).await?;
                let mut events = opened.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
                let Sent::Event { name, .. } = events.next().await? else { anyhow::bail!("an event") };
                assert_eq!(name, "ready");
            }
            for invalid in ["nonsense", "a b\"", &"x".repeat(600)] {
                let asked = Asked { after: invalid.to_owned(), ..notes() };
                let mut anew = watch(&mesh, framing, "", &asked).await?;
                let resync = next(&mut anew).await?;
                assert_eq!(
                    (&*resync.kind, resync.reason.as_deref()),
                    ("RESYNC", Some("position")),
                    "{framing:?} {invalid}"
                );
                assert_eq!(anew.until_ready().await?.0.len(), 1, "{framing:?}");
            }
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_position_that_is_too_old_begins_anew_and_nothing_else_is_told(shape: Shape) -> anyhow::Result<()> {
    for (engine, loss) in [
        // As after a restore, and what no position survives.
        (Engine::Sqlite, "DELETE FROM perigee_log; INSERT INTO note VALUES (1, 'ann', 'a')"),
        (Engine::Postgres, "TRUNCATE note; INSERT INTO note VALUES (1, 'ann', 'a')"),
        (Engine::Mysql, "TRUNCATE note; INSERT INTO note VALUES (1, 'ann', 'a')"),
    ] {
        let (mesh, lab) = lab(shape, engine, OPEN_LAB, "").await?;
        let mut kept = watch(&mesh, Framing::Socket, "", &notes()).await?;
        kept.until_ready().await?;
        let mut positions = Vec::new();
        for framing in FRAMINGS {
            positions.push((framing, watch(&mesh, framing, "", &notes()).await?.until_ready().await?.1));
        }
        lab.run(loss).await?;
        while next(&mut kept).await?.kind != "RESYNC" {}
        for (framing, after) in positions {
            let asked = Asked { after, skip_initial: true, ..notes() };
            let (told, _) = watch(&mesh, framing, "", &asked).await?.until_ready().await?;
            let kinds: Vec<&str> = told.iter().map(|change| &*change.kind).collect();
            assert_eq!(kinds, ["RESYNC", "INITIAL"], "{framing:?} {engine:?}");
            assert!(told[0].reason.as_deref().is_some_and(|reason| reason != "position"), "{framing:?} {engine:?}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn who_may_not_watch_is_told_so(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, &rules(OWN), "").await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
        let (ann, forged) = (token::sign(json!({ "id": "ann" })), "a.b.c");
        for framing in FRAMINGS {
            let (told, _) = watch(&mesh, framing, &ann, &notes()).await?.until_ready().await?;
            assert_eq!(kinds(&told), [("INITIAL", &json!({ "id": 1, "text": "a" }), &Value::Null)], "{framing:?}");
            assert_eq!(refusal(&mesh, framing, "", &notes()).await?, "UNAUTHENTICATED", "{framing:?}");
            for table in ["secret", "shown", "lost"] {
                let asked = Asked { table, columns: &["id"], ..notes() };
                assert_eq!(refusal(&mesh, framing, &ann, &asked).await?, "DENIED", "{framing:?} {table}");
            }
            match framing {
                // The socket does not open, or its stream does not.
                Framing::Socket => assert!(Socket::open(mesh.client.address(), forged).await.is_err()),
                Framing::Events => assert_eq!(refusal(&mesh, framing, forged, &notes()).await?, "401"),
                Framing::LegacySocket | Framing::Rest | Framing::Grpc => {
                    assert_eq!(refusal(&mesh, framing, forged, &notes()).await?, "UNAUTHENTICATED", "{framing:?}");
                }
            }
        }
        // EventSource sends no headers: the token is in the address.
        let path = format!("{}&token={ann}", notes().path());
        let opened = EventStream::open_path(mesh.client.address(), "", &path, &[]).await?;
        let mut events = opened.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        let Sent::Event { name, data, .. } = events.next().await? else { anyhow::bail!("an event") };
        assert_eq!((name.as_str(), data), ("initial", json!({ "row": { "id": 1, "text": "a" } })));
        mesh.stop().await;
    }
    Ok(())
}

async fn what_is_hidden_is_not_told(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let hidden = |column: &str| rules(OWN).replace(" } }\n", &format!(" }}, columns: {{ deny: [{column}] }} }}\n"));
        let (mesh, lab) = lab(shape, engine, &hidden("text"), "").await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
        let (ann, bob) = (token::sign(json!({ "id": "ann" })), token::sign(json!({ "id": "bob" })));
        let asked = Asked { columns: &["id", "owner"], ..notes() };
        let mut all = Vec::new();
        for framing in FRAMINGS {
            let (_, foreign) = watch(&mesh, framing, &bob, &asked).await?.until_ready().await?;
            let mut watching = watch(&mesh, framing, &ann, &asked).await?;
            let (told, own) = watching.until_ready().await?;
            let row = json!({ "id": 1, "owner": "ann" });
            assert_eq!(kinds(&told), [("INITIAL", &row, &Value::Null)], "{framing:?}");
            for after in [String::new(), own.clone()] {
                for refused in [notes(), Asked { find: json!({ "text": "a" }), ..asked.clone() }] {
                    let refused = Asked { after: after.clone(), ..refused };
                    assert_eq!(refusal(&mesh, framing, &ann, &refused).await?, "DENIED", "{framing:?} {refused:?}");
                }
            }
            // A position of who may see others, and of another query.
            let other = Asked { find: json!({ "id": 1 }), after: own, ..asked.clone() };
            for foreign in [Asked { after: foreign, ..asked.clone() }, other] {
                let (told, _) = watch(&mesh, framing, &ann, &foreign).await?.until_ready().await?;
                assert_eq!((&*told[0].kind, told[0].reason.as_deref()), ("RESYNC", Some("position")), "{framing:?}");
                assert_eq!(kinds(&told[1..]), [("INITIAL", &row, &Value::Null)], "{framing:?}");
            }
            all.push((framing, watching));
        }
        lab.run("UPDATE note SET text = 'x'").await?;
        lab.run("INSERT INTO note VALUES (3, 'bob', 'c')").await?;
        lab.run("DELETE FROM note WHERE owner = 'bob'").await?;
        lab.run("UPDATE note SET owner = 'bob', text = 'y' WHERE id = 1").await?;
        lab.run("DELETE FROM note").await?;
        lab.run("INSERT INTO note VALUES (4, 'ann', 'd')").await?;
        for (framing, watching) in &mut all {
            let told = next(watching).await?;
            let before = json!({ "id": 1, "owner": "ann" });
            assert_eq!((&*told.kind, &told.row["id"], &told.before), ("DELETE", &json!(1), &before), "{framing:?}");
            assert!(told.row.get("owner").is_none_or(Value::is_null), "{framing:?}");
            let told = next(watching).await?;
            assert_eq!((&*told.kind, &told.row), ("INSERT", &json!({ "id": 4, "owner": "ann" })), "{framing:?}");
        }
        mesh.stop().await;

        // Nothing of the row is asked for or may be told but that it changed.
        let (mesh, lab) = self::lab(shape, engine, &hidden("id"), "").await?;
        lab.run("INSERT INTO note VALUES (4, 'ann', 'd')").await?;
        let mut socket = Socket::open(mesh.client.address(), &ann).await?;
        socket.subscribe("1", "subscription { note_changes(initial: false) { type before { owner } } }").await?;
        assert_eq!(socket.answer("1").await?, json!({ "note_changes": { "type": "READY", "before": null } }));
        lab.run("UPDATE note SET id = 5; UPDATE note SET text = 'z'").await?;
        let told = json!({ "note_changes": { "type": "UPDATE", "before": { "owner": "ann" } } });
        assert_eq!(socket.answer("1").await?, told);
        socket.subscribe("2", "subscription { note_changes { type } }").await?;
        assert_eq!(socket.answer("2").await?, json!({ "note_changes": { "type": "INITIAL" } }));
        mesh.stop().await;
    }
    Ok(())
}

async fn what_cannot_be_watched_is_refused(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, _) = lab(shape, engine, OPEN_LAB, "").await?;
        for framing in FRAMINGS {
            for (asked, code) in [
                (Asked { columns: &["id", "lost"], ..notes() }, "UNKNOWN_COLUMN"),
                (Asked { find: json!({ "lost": 1 }), ..notes() }, "UNKNOWN_COLUMN"),
                (Asked { find: json!({ "id": "x" }), ..notes() }, "WRONG_TYPE"),
            ] {
                assert_eq!(refusal(&mesh, framing, "", &asked).await?, code, "{framing:?} {asked:?}");
            }
            // GraphQL has no such field, and does not say of which table it would be.
            let is_graphql = matches!(framing, Framing::Socket | Framing::LegacySocket | Framing::Events);
            for (table, columns) in [("shown", &["id"][..]), ("plain", &["text"])] {
                let asked = Asked { table, columns: if columns == ["id"] { &["id"] } else { &["text"] }, ..notes() };
                let code = if is_graphql { "UNAUTHENTICATED" } else { "BAD_REQUEST" };
                assert_eq!(refusal(&mesh, framing, "", &asked).await?, code, "{framing:?} {table}");
            }
            let lost = Asked { table: "lost", ..notes() };
            let code = if is_graphql { "UNAUTHENTICATED" } else { "UNKNOWN_TABLE" };
            assert_eq!(refusal(&mesh, framing, "", &lost).await?, code, "{framing:?}");
        }
        let base = "/v1/api/shop/crud/lab/note/watch";
        for (query, code) in [
            ("find=[]", "BAD_REQUEST"),
            ("find=%7B", "BAD_REQUEST"),
            ("select=1", "BAD_REQUEST"),
            ("select=%7B%22lost%22:1%7D", "UNKNOWN_COLUMN"),
            ("initial=no", "BAD_REQUEST"),
            ("after=a&after=b", "BAD_REQUEST"),
        ] {
            let opened = EventStream::open_path(mesh.client.address(), "", &format!("{base}?{query}"), &[]).await?;
            let refused = opened.map(|_| "a stream").expect_err("it is refused");
            assert_eq!(refused, (400, code.to_owned()), "{query}");
        }
        let mut socket = Socket::open(mesh.client.address(), "").await?;
        for (query, code) in [
            ("{ note_changes { type } }", "BAD_REQUEST"),
            ("subscription { note_changes }", "BAD_REQUEST"),
            ("subscription { note_changes { lost } }", "UNKNOWN_COLUMN"),
            ("subscription { note_changes { type { a } } }", "BAD_REQUEST"),
            ("subscription { note_changes { a: row { id } b: row { id } } }", "BAD_REQUEST"),
            ("subscription { note_changes(limit: 1) { type } }", "UNKNOWN_ARGUMENT"),
            ("subscription { note_changes(initial: 1) { type } }", "WRONG_TYPE"),
            ("subscription { note_changes(after: 1) { type } }", "WRONG_TYPE"),
            ("subscription { note_changes { type } note { id } }", "BAD_REQUEST"),
        ] {
            socket.subscribe("1", query).await?;
            assert_eq!(socket.error("1").await?, code, "{query}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_token_that_expires_ends_a_watch(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, _) = lab(shape, engine, &rules(OWN), "").await?;
        let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 4);
        let mut all = Vec::new();
        for framing in FRAMINGS {
            let mut watching = watch(&mesh, framing, &short, &notes()).await?;
            watching.until_ready().await?;
            all.push((framing, watching));
        }
        let client = mesh.client.with_token(&short);
        let message = notes().message();
        let by_web = client.unary::<_, proto::api::v1::WatchResponse>(Protocol::GrpcWeb, "Watch", message);
        for (framing, watching) in &mut all {
            assert_eq!(watching.next().await?.err().as_deref(), Some("TOKEN_EXPIRED"), "{framing:?} {engine:?}");
        }
        let status = by_web.await?.expect_err("it ends");
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        // It may have begun after the end of the token.
        assert!(["TOKEN_EXPIRED", "UNAUTHENTICATED"].contains(&reason(&status)?.as_str()), "{status:?}");
        // EventSource gives up then.
        let again = EventStream::open_path(mesh.client.address(), &short, &notes().path(), &[]).await?;
        assert_eq!(again.map(|_| "a stream").expect_err("it has expired").0, 401);
        // The socket stays, and the token may be renewed.
        let (_, Watching::Socket(socket, _)) = &mut all[0] else { anyhow::bail!("the first is a socket") };
        let long = token::sign(json!({ "id": "ann" }));
        socket.send(&json!({ "type": "ping", "payload": { "authorization": format!("Bearer {long}") } })).await?;
        assert_eq!(socket.next().await?, Incoming::Message(json!({ "type": "pong" })));
        socket.subscribe("2", "subscription { note_changes { type } }").await?;
        assert_eq!(socket.answer("2").await?, json!({ "note_changes": { "type": "READY" } }));
        mesh.stop().await;
    }
    Ok(())
}

async fn a_renewed_token_goes_on_without_a_loss(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, &rules(OWN), "").await?;
        let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 3);
        let mut renewed = watch(&mesh, Framing::Socket, &short, &notes()).await?;
        let mut ending = watch(&mesh, Framing::Rest, &short, &notes()).await?;
        renewed.until_ready().await?;
        ending.until_ready().await?;
        let Watching::Socket(socket, _) = &mut renewed else { anyhow::bail!("it is a socket") };
        let long = token::sign(json!({ "id": "ann" }));
        socket.send(&json!({ "type": "ping", "payload": { "authorization": format!("Bearer {long}") } })).await?;
        assert_eq!(socket.next().await?, Incoming::Message(json!({ "type": "pong" })));
        assert_eq!(ending.next().await?.err().as_deref(), Some("TOKEN_EXPIRED"));
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
        let change = next(&mut renewed).await?;
        assert_eq!((&*change.kind, change.row), ("INSERT", json!({ "id": 1, "text": "a" })), "{engine:?}");
        mesh.stop().await;
    }
    Ok(())
}

async fn a_rule_that_is_edited_counts_at_once(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = lab(shape, engine, &rules("{ rule: allow }"), "").await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
        let ann = token::sign(json!({ "id": "ann" }));
        let mut all = Vec::new();
        for framing in FRAMINGS {
            let mut watching = watch(&mesh, framing, &ann, &notes()).await?;
            assert_eq!(watching.until_ready().await?.0.len(), 2);
            all.push((framing, watching));
        }
        mesh.edit(&rules(OWN))?;
        for (framing, watching) in &mut all {
            let change = next(watching).await?;
            match change.kind.as_str() {
                "DELETE" => assert_eq!(change.row["id"], 2, "{framing:?}"),
                kind => {
                    assert_eq!((kind, change.reason.as_deref()), ("RESYNC", Some("rules")), "{framing:?}");
                    assert_eq!(watching.until_ready().await?.0.len(), 1, "{framing:?}");
                }
            }
        }
        mesh.edit(&rules("{ rule: deny }"))?;
        for (framing, watching) in &mut all {
            assert_eq!(watching.next().await?.err().as_deref(), Some("DENIED"), "{framing:?} {engine:?}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn a_node_that_stops_says_so(shape: Shape) -> anyhow::Result<()> {
    for framing in FRAMINGS {
        let (mesh, _) = lab(shape, Engine::Sqlite, OPEN_LAB, "").await?;
        let mut watching = watch(&mesh, framing, "", &notes()).await?;
        watching.until_ready().await?;
        let ((), end) = tokio::join!(mesh.stop(), watching.next());
        let expected = match framing {
            Framing::Socket | Framing::LegacySocket => "1012",
            Framing::Events | Framing::Grpc => "UNAVAILABLE",
            Framing::Rest => "end",
        };
        assert_eq!(end?.err().as_deref(), Some(expected), "{framing:?}");
    }
    Ok(())
}

async fn watches_are_bounded_by_caller(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, OPEN_LAB, "sockets: 1").await?;
    for framing in [Framing::Rest, Framing::Grpc] {
        let caller = token::sign(json!({ "id": format!("{framing:?}") }));
        let _first = watch(&mesh, framing, &caller, &notes()).await?;
        for other in [Framing::Rest, Framing::Grpc] {
            assert_eq!(refusal(&mesh, other, &caller, &notes()).await?, "TOO_MANY", "{framing:?} {other:?}");
        }
        assert!(Socket::open(mesh.client.address(), &caller).await.is_err(), "sockets count too");
    }
    mesh.stop().await;
    Ok(())
}

async fn the_schema_has_the_changes_of_tables_that_are_reached(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, &rules("{ rule: allow }"), "").await?;
    let query =
        "{ __schema { subscriptionType { fields { name args { name defaultValue } type { kind ofType { name } } } } }
        change: __type(name: \"NoteChange\") { fields { name type { name ofType { name } } } }
        row: __type(name: \"NoteRow\") { fields { name type { kind } } }
        kinds: __type(name: \"ChangeType\") { enumValues { name } } }";
    let (_, answer) = mesh.client.graphql(query, json!({})).await?;
    let data = &answer["data"];
    let fields = data["__schema"]["subscriptionType"]["fields"].as_array().context("fields")?;
    let changes: Vec<&Value> =
        fields.iter().filter(|field| field["name"].as_str().is_some_and(|name| name.ends_with("_changes"))).collect();
    let of_lab: Vec<&&Value> = changes.iter().filter(|field| field["name"] == "note_changes").collect();
    assert!(changes.iter().all(|field| {
        !["secret_changes", "shown_changes", "plain_changes"].contains(&field["name"].as_str().unwrap_or_default())
    }));
    assert_eq!(
        of_lab,
        [&&json!({
            "name": "note_changes",
            "args": [
                { "name": "where", "defaultValue": null },
                { "name": "initial", "defaultValue": "true" },
                { "name": "after", "defaultValue": null },
            ],
            "type": { "kind": "NON_NULL", "ofType": { "name": "NoteChange" } },
        })]
    );
    let names = |part: &str, list: &str| -> Vec<String> {
        let items = data[part][list].as_array().into_iter().flatten();
        items.filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(names("change", "fields"), ["type", "row", "before", "reason", "position"]);
    assert_eq!(names("row", "fields"), ["id", "owner", "text"]);
    let row = data["row"]["fields"].as_array().context("fields")?;
    assert!(row.iter().all(|field| field["type"]["kind"] == "SCALAR"), "each may be null: {row:?}");
    assert_eq!(names("kinds", "enumValues"), ["INITIAL", "READY", "INSERT", "UPDATE", "DELETE", "RESYNC"]);
    let (_, of_query) = mesh.client.graphql("{ __type(name: \"Query\") { fields { name } } }", json!({})).await?;
    let of_query = of_query["data"]["__type"]["fields"].as_array().cloned().unwrap_or_default();
    assert!(of_query.iter().all(|field| field["name"] != "note_changes"), "{of_query:?}");
    mesh.stop().await;
    Ok(())
}

async fn the_openapi_document_has_the_watches_that_are_reached(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = lab(shape, Engine::Sqlite, &rules("{ rule: allow }"), "").await?;
    let (status, document) = mesh.client.get(&mesh.client.openapi_path()).await?;
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().context("paths")?;
    let of_lab: Vec<&String> =
        paths.keys().filter(|path| path.starts_with("/crud/lab/") && path.ends_with("/watch")).collect();
    assert_eq!(of_lab, ["/crud/lab/note/watch"]);
    let operation = &paths["/crud/lab/note/watch"]["get"];
    let names: Vec<&str> =
        operation["parameters"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["find", "select", "initial", "after", "token", "Last-Event-ID"]);
    assert!(operation["responses"]["200"]["content"]["text/event-stream"].is_object(), "{operation}");
    mesh.stop().await;
    Ok(())
}

/// The client of browsers for grpc-web, in Node.
async fn connect_web_of_npm_is_a_client(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let resources = rules(OWN).replace("rules: {", "rules: { create: { rule: allow },");
        let (mesh, _) = lab(shape, engine, &resources, "").await?;
        let descriptors = tempfile::NamedTempFile::new()?;
        std::fs::write(descriptors.path(), proto::api::DESCRIPTORS)?;
        let url = format!("http://{}", mesh.client.address());
        let claims = json!({ "id": "ann" });
        let (token, short) = (token::sign(claims.clone()), token::sign_with(claims, token::SECRET, 4));
        let path = descriptors.path().to_str().context("a path")?;
        let printed = node_tool::script("connect_web.js", &[&url, path, &token, &short]).await?;
        let got: Value = serde_json::from_str(&printed)?;
        let row = |kind: &str, id: i64| json!({ "kind": kind, "row": { "id": id, "owner": "ann", "text": "x" } });
        let ready = json!({ "kind": "ready", "row": null });
        let expected = json!([
            [row("initial", 1), ready, row("insert", 2)],
            [ready, row("insert", 3)],
            [row("initial", 3), ready],
        ]);
        assert_eq!(got["printed"], expected, "{engine:?}");
        // Unauthenticated, permission denied, and again the first for a token that expires in the stream.
        assert_eq!(got["codes"], json!([16, 7, 16]), "{engine:?}");
        mesh.stop().await;
    }
    Ok(())
}
