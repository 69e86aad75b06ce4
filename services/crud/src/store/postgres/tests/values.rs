use super::*;

const SETUP: &str = "\
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN price AS numeric(10, 2) CHECK (VALUE >= 0);
CREATE TABLE thing (
    id int PRIMARY KEY, yes bool, small int2, big int8, object oid, single float4, double float8, exact numeric, cost price,
    words text, short varchar(5), padded char(4), data bytea, day date, hour time, stamp timestamp, moment timestamptz,
    uuid uuid, loose json, tight jsonb, mood mood, address inet, gap interval, tags text[], numbers int4range
);";

/// Column, value in, cell out.
fn samples() -> Vec<(&'static str, Typed, &'static str)> {
    let uuid = 0x0190c2c4_0000_7000_8000_0000000000ff_u128.to_be_bytes();
    vec![
        ("yes", Typed::Bool(true), "Bool(true)"),
        ("small", Typed::Int(-7), "Int(-7)"),
        ("big", int(i64::MIN), "Int(-9223372036854775808)"),
        ("object", int(4_294_967_295), "Int(4294967295)"),
        ("single", Typed::Float(0.1), "Float(0.1)"),
        ("double", Typed::Float(1e300), "Float(1e300)"),
        ("exact", Typed::Decimal("-10002.050".into()), "Decimal(\"-10002.050\")"),
        ("exact", Typed::Decimal("1e-7".into()), "Decimal(\"0.0000001\")"),
        (
            "exact",
            Typed::Decimal("123456789012345678901234567890.5".into()),
            "Decimal(\"123456789012345678901234567890.5\")",
        ),
        ("exact", Typed::Decimal("NaN".into()), "Decimal(\"NaN\")"),
        ("exact", int(5), "Decimal(\"5\")"),
        ("cost", Typed::Decimal("0.99".into()), "Decimal(\"0.99\")"),
        ("cost", int(3), "Decimal(\"3.00\")"),
        ("words", text("naïve \"quotes\" \\ 'x'"), "Text(\"naïve \\\"quotes\\\" \\\\ 'x'\")"),
        ("short", text("abc"), "Text(\"abc\")"),
        ("padded", text("ab"), "Text(\"ab  \")"),
        ("data", Typed::Bytes(vec![0, 255]), "Bytes([0, 255])"),
        ("day", Typed::Date(14_275), "Date(14275)"),
        ("day", Typed::Other("infinity".into()), "Date(2147483647)"),
        ("day", Typed::Date(i32::MIN), "Date(-2147483648)"),
        ("stamp", Typed::Timestamp(i64::MAX), "Timestamp(9223372036854775807)"),
        ("hour", Typed::Time(86_400_000_000), "Time(86400000000)"),
        ("hour", Typed::Time(47_655_500_000), "Time(47655500000)"),
        ("stamp", Typed::Timestamp(1_230_768_000_000_001), "Timestamp(1230768000000001)"),
        ("moment", Typed::Timestamp(-1), "Timestamp(-1)"),
        ("uuid", Typed::Uuid(uuid), "Uuid([1, 144, 194, 196, 0, 0, 112, 0, 128, 0, 0, 0, 0, 0, 0, 255])"),
        ("loose", Typed::Json("{\"a\": 1}".into()), "Json([123, 34, 97, 34, 58, 32, 49, 125])"),
        ("tight", Typed::Json("[1]".into()), "Json([91, 49, 93])"),
        ("mood", Typed::Other("happy".into()), "Text(\"happy\")"),
        ("address", Typed::Other("10.0.0.1/8".into()), "Text(\"10.0.0.1/8\")"),
        ("gap", Typed::Other("1 day 2 hours".into()), "Text(\"1 day 02:00:00\")"),
        ("tags", Typed::List(vec![text("a"), Typed::Null]), "List([Text(\"a\"), Null])"),
        ("tags", Typed::Other("{a,\"b c\"}".into()), "List([Text(\"a\"), Text(\"b c\")])"),
        ("numbers", Typed::Other("[1,5)".into()), "Text(\"[1,5)\")"),
    ]
}

fn selected(column: &str) -> String {
    let is_other = ["mood", "gap", "numbers"].contains(&column);
    format!("\"{column}\"{}", if is_other { "::text" } else { "" })
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_went_in() {
    let Some(server) = Server::with("values", SETUP).await else { return };
    let store = server.store(4);
    for (column, bind, cell) in samples() {
        server.execute("TRUNCATE thing").await;
        let insert = format!("INSERT INTO thing (id, \"{column}\") VALUES ($1, $2)");
        assert_eq!(store.write(&statement(&insert, vec![int(1), bind.clone()])).await.unwrap().len(), 1, "{column}");
        let update = format!("UPDATE thing SET \"{column}\" = $1 WHERE id = $2 RETURNING {}", selected(column));
        let rows = store.write(&statement(&update, vec![bind, int(1)])).await.unwrap();
        assert_eq!(format!("{:?}", rows.cell(0, 0)), cell, "{column}");
        let read = format!("SELECT {} FROM thing", selected(column));
        assert_eq!(cells(&store, &read, Vec::new()).await, [cell], "{column}");
    }
}

#[tokio::test]
async fn values_of_every_type_are_found_alone_and_in_lists() {
    let Some(server) = Server::with("lists", SETUP).await else { return };
    let store = server.store(4);
    for (column, bind, cell) in samples() {
        if column == "loose" {
            continue; // json has no equality
        }
        server.execute("TRUNCATE thing").await;
        let insert = format!("INSERT INTO thing (id, \"{column}\") VALUES (1, $1), (2, NULL)");
        store.write(&statement(&insert, vec![bind.clone()])).await.unwrap();
        let alone = format!("SELECT {} FROM thing WHERE \"{column}\" = $1", selected(column));
        assert_eq!(cells(&store, &alone, vec![bind.clone()]).await, [cell], "{column}");
        if column == "tags" {
            continue; // there are no arrays of arrays
        }
        let listed = format!("SELECT {} FROM thing WHERE \"{column}\" = ANY($1)", selected(column));
        let items = vec![bind.clone(), Typed::Null, bind];
        assert_eq!(listed_cells(&store, &listed, items).await, [cell], "{column}");
        assert!(listed_cells(&store, &listed, Vec::new()).await.is_empty(), "{column}");
    }
}

#[tokio::test]
async fn null_fits_every_column() {
    let Some(server) = Server::with("nulls", SETUP).await else { return };
    let store = server.store(4);
    server.execute("INSERT INTO thing (id) VALUES (1)").await;
    for (column, ..) in samples() {
        let update = format!("UPDATE thing SET \"{column}\" = $1 RETURNING {}", selected(column));
        let rows = store.write(&statement(&update, vec![Typed::Null])).await.unwrap();
        assert_eq!(rows.cell(0, 0), Cell::Null, "{column}");
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_and_keep_silent_about_themselves() {
    let Some(server) = Server::with("misfits", SETUP).await else { return };
    let store = server.store(4);
    let misfits = [
        ("small", int(70_000)),
        ("exact", text("secret")),
        ("cost", Typed::Decimal("1e12".into())),
        ("short", text("secret secret")),
        ("day", Typed::Other("2009-02-30".into())),
        ("mood", Typed::Other("secret".into())),
        ("address", Typed::Other("secret".into())),
        ("tight", Typed::Json("{secret".into())),
        ("words", text("a\0secret")),
    ];
    for (column, bind) in misfits {
        let insert = format!("INSERT INTO thing (id, \"{column}\") VALUES (1, $1)");
        let error = store.write(&statement(&insert, vec![bind.clone()])).await.unwrap_err();
        assert!(!error.to_string().contains("secret"), "{column}: {error}");
        let Error::InvalidValue(invalid) = error else { panic!("{column}: {error:?}") };
        assert!(!invalid.cause.contains("secret"), "{column}: {}", invalid.cause);
        // What is too long is said of the row.
        let is_bound = column != "short";
        assert_eq!(invalid.value, is_bound.then_some(bind.into()), "{column}");
    }
    assert_eq!(server.count("SELECT count(*) FROM thing").await, 0);
}

#[tokio::test]
async fn an_answer_that_cannot_be_decoded_names_its_column() {
    let Some(server) = Server::with("undecodable", SETUP).await else { return };
    let error = server
        .store(4)
        .snapshot(&[statement("SELECT gap FROM thing", Vec::new())], &Budget::unlimited())
        .await
        .unwrap_err();
    let text = "column gap of type interval is not cast to text by its statement";
    assert_eq!(error, Error::Database(text.to_owned()).into());
}

#[tokio::test]
async fn numerics_are_written_as_the_server_writes_them() {
    let Some(server) = Server::with("numerics", "").await else { return };
    let sql = "SELECT x, x::text FROM (SELECT round((random() - 0.5)::numeric * power(10::numeric, i % 60 - 30), i % 25) \
               AS x FROM generate_series(1, 5000) AS i) AS samples";
    let rows = server.store(4).snapshot(&[statement(sql, Vec::new())], &Budget::unlimited()).await.unwrap().remove(0);
    assert_eq!(rows.len(), 5000);
    for row in 0..rows.len() {
        let (Cell::Decimal(ours), Cell::Text(theirs)) = (rows.cell(row, 0), rows.cell(row, 1)) else {
            panic!("a numeric and its text");
        };
        assert_eq!(ours, theirs);
    }
}
