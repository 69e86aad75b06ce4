//! Schemas for tests.

use crate::{Column, ForeignKey, Guard, Object, Parser, Schema, Spelling, Table, Type, Typed, Value};

/// The Chinook sample database, as PostgreSQL declares it.
pub fn chinook() -> Schema {
    const PEOPLE: &str = "address:text? city:text? state:text? country:text? postal_code:text? phone:text? fax:text?";
    Schema::new(vec![
        table("album", "album_id:int title:text artist_id:int", &["album_id"], &[("artist_id", "artist", "artist_id")]),
        table("artist", "artist_id:int name:text?", &["artist_id"], &[]),
        table(
            "customer",
            &format!(
                "customer_id:int first_name:text last_name:text company:text? {PEOPLE} email:text support_rep_id:int?"
            ),
            &["customer_id"],
            &[("support_rep_id", "employee", "employee_id")],
        ),
        table(
            "employee",
            &format!(
                "employee_id:int last_name:text first_name:text title:text? reports_to:int? birth_date:timestamp? \
                 hire_date:timestamp? {PEOPLE} email:text?"
            ),
            &["employee_id"],
            &[("reports_to", "employee", "employee_id")],
        ),
        table("genre", "genre_id:int name:text?", &["genre_id"], &[]),
        table(
            "invoice",
            "invoice_id:int customer_id:int invoice_date:timestamp billing_address:text? billing_city:text? \
             billing_state:text? billing_country:text? billing_postal_code:text? total:decimal",
            &["invoice_id"],
            &[("customer_id", "customer", "customer_id")],
        ),
        table(
            "invoice_line",
            "invoice_line_id:int invoice_id:int track_id:int unit_price:decimal quantity:int",
            &["invoice_line_id"],
            &[("invoice_id", "invoice", "invoice_id"), ("track_id", "track", "track_id")],
        ),
        table("media_type", "media_type_id:int name:text?", &["media_type_id"], &[]),
        table("playlist", "playlist_id:int name:text?", &["playlist_id"], &[]),
        table(
            "playlist_track",
            "playlist_id:int track_id:int",
            &["playlist_id", "track_id"],
            &[("playlist_id", "playlist", "playlist_id"), ("track_id", "track", "track_id")],
        ),
        table(
            "track",
            "track_id:int name:text album_id:int? media_type_id:int genre_id:int? composer:text? milliseconds:int \
             bytes:int? unit_price:decimal",
            &["track_id"],
            &[
                ("album_id", "album", "album_id"),
                ("genre_id", "genre", "genre_id"),
                ("media_type_id", "media_type", "media_type_id"),
            ],
        ),
    ])
}

/// A table `t` with a nullable column of each type, a generated one, one with a default and one that is required.
pub fn types() -> Schema {
    let mut t = table(
        "t",
        "id:int a:int? small:int16? big:int64? f:float? d:decimal? s:text? flag:bool? raw:bytes? day:date? clock:time? \
         at:timestamp? key:uuid? doc:json? other:other? made:int? level:int",
        &["id"],
        &[],
    );
    for column in &mut t.columns {
        column.generated = column.name == "made";
        column.has_default = column.name == "level";
    }
    Schema::new(vec![t])
}

/// A table of `columns` written `name:type`, with `?` for those that may be null, and single foreign keys written
/// `(column, table, column)`.
pub fn table(name: &str, columns: &str, primary_key: &[&str], foreign_keys: &[(&str, &str, &str)]) -> Table {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Table {
        primary_key: names(primary_key),
        foreign_keys: foreign_keys
            .iter()
            .map(|(column, table, foreign)| ForeignKey {
                columns: names(&[column]),
                foreign_database: None,
                foreign_table: (*table).to_owned(),
                foreign_columns: names(&[foreign]),
            })
            .collect(),
        ..Table::new(name, columns.split_whitespace().map(column).collect())
    }
}

/// A column written `name:type`, with `?` if it may be null.
pub fn column(text: &str) -> Column {
    let (name, native) = text.split_once(':').expect("name:type");
    let nullable = native.ends_with('?');
    let native = native.trim_end_matches('?');
    let r#type = match native {
        "bool" => Type::Bool,
        "int16" => Type::Int16,
        "int" => Type::Int32,
        "int64" => Type::Int64,
        "float" => Type::Float,
        "decimal" => Type::Decimal,
        "text" => Type::Text,
        "bytes" => Type::Bytes,
        "date" => Type::Date,
        "time" => Type::Time,
        "timestamp" => Type::Timestamp,
        "uuid" => Type::Uuid,
        "json" => Type::Json,
        "other" => Type::Other,
        "any" => Type::Any,
        "int[]" => Type::List(&Type::Int32),
        "text[]" => Type::List(&Type::Text),
        _ => panic!("no type {native}"),
    };
    Column { nullable, ..Column::new(name, r#type, native) }
}

/// A value written as JSON.
pub fn value(json: &str) -> Value {
    crate::json_text::parse(json.as_bytes(), Guard::default()).expect("a test's JSON is JSON")
}

/// A value written as JSON, as the column called `name` of [`types`] or of [`chinook`] holds it.
pub fn typed(name: &str, json: &str) -> Typed {
    let schemas = [types(), chinook()];
    let column = schemas.iter().flat_map(Schema::tables).find_map(|table| table.column(name).ok());
    crate::typed(column.expect("a column of a sample"), &value(json)).expect("a value of the column")
}

/// An object written as JSON.
pub fn object(json: &str) -> Object {
    match value(json) {
        Value::Object(object) => object,
        other => panic!("expected object, found {}", other.kind()),
    }
}

/// A parser of REST's grammar.
pub fn rest(schema: &Schema) -> Parser<'_> {
    Parser { schema, spelling: Spelling::Dollar }
}

/// A parser of GraphQL's grammar.
pub fn graphql(schema: &Schema) -> Parser<'_> {
    Parser { schema, spelling: Spelling::Underscore }
}
