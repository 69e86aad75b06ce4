use crate::fixtures::{graphql, object, rest, typed, types, value};
use crate::{Budget, Change, Document, Error, Limits};

fn changes(json: &str) -> Result<Vec<Change>, Error> {
    let schema = types();
    rest(&schema).changes(schema.table("t").unwrap(), &value(json), &mut Budget::default())
}

fn docs(json: &str) -> Result<Vec<Document>, Error> {
    let schema = types();
    rest(&schema).docs(schema.table("t").unwrap(), &value(json), &mut Budget::default())
}

fn document(json: &str) -> Document {
    let schema = types();
    let column = |name: &str| schema.table("t").unwrap().column(name).unwrap();
    let member = |(name, value): (String, _)| (name.clone(), crate::typed(column(&name), &value).unwrap());
    Document(object(json).0.into_iter().map(member).collect())
}

fn set(column: &str, json: &str) -> Change {
    Change::Set { column: column.to_owned(), value: typed(column, json) }
}

fn inc(column: &str, json: &str) -> Change {
    Change::Inc { column: column.to_owned(), by: typed(column, json) }
}

/// Whether `result` is an error of this code and text.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, reason: &str, message: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.reason(), error.to_string().as_str()), (reason, message));
}

#[test]
fn changes_keep_their_order() {
    assert_eq!(
        changes(r#"{"$set": {"a": 1, "s": null}, "$inc": {"small": 2, "d": "0.5"}}"#),
        Ok(vec![set("a", "1"), set("s", "null"), inc("small", "2"), inc("d", "\"0.5\"")])
    );
    assert_eq!(changes(r#"{"$set": {}}"#), Ok(vec![]));
    assert_eq!(changes("{}"), Ok(vec![]));
    assert_eq!(changes(r#"{"$set": {"t.a": 1}}"#), Ok(vec![set("a", "1")]));
    assert_eq!(changes(r#"{"$set": {"doc": {"k": [1]}}}"#), Ok(vec![set("doc", r#"{"k": [1]}"#)]));
}

#[test]
fn graphql_names_operators_bare() {
    let schema = types();
    let table = schema.table("t").unwrap();
    for json in [r#"{"set": {"a": 1}, "inc": null}"#, r#"{"_set": {"a": 1}}"#, r#"{"$set": {"a": 1}}"#] {
        assert_eq!(
            graphql(&schema).changes(table, &value(json), &mut Budget::default()),
            Ok(vec![set("a", "1")]),
            "{json}"
        );
    }
}

#[test]
fn changes_that_cannot_be_made_are_refused() {
    for (json, reason, message) in [
        (r#"{"$push": {"a": 1}}"#, "UNKNOWN_OPERATOR", "operator $push is not known"),
        (r#"{"$mul": {"a": 1}}"#, "UNKNOWN_OPERATOR", "operator $mul is not known"),
        (r#"{"set": {"a": 1}}"#, "UNKNOWN_OPERATOR", "operator set is not known; did you mean $set?"),
        (r#"{"$set": {"a": 1}, "$inc": {"a": 1}}"#, "BAD_REQUEST", "column a is changed twice"),
        (r#"{"$set": {"a": 1, "t.a": 2}}"#, "BAD_REQUEST", "column a is changed twice"),
        (r#"{"$set": null}"#, "WRONG_TYPE", "invalid $set: expected object of columns, found null"),
        (r#"{"$set": [1]}"#, "WRONG_TYPE", "invalid $set: expected object of columns, found array"),
        ("null", "REQUIRED", "update is required"),
        ("[]", "WRONG_TYPE", "invalid update: expected object of operators, found array"),
        (r#"{"$set": {"smal": 1}}"#, "UNKNOWN_COLUMN", "column smal is not in table t; did you mean small?"),
        (
            r#"{"$set": {"made": 1}}"#,
            "WRONG_TYPE",
            "invalid made: expected no value, because the database computes it, found integer",
        ),
        (r#"{"$set": {"level": null}}"#, "REQUIRED", "level is required"),
        (r#"{"$set": {"s": 5}}"#, "WRONG_TYPE", "invalid s: expected string, found integer"),
        (
            r#"{"$inc": {"s": 1}}"#,
            "WRONG_TYPE",
            "invalid s: expected numeric column to increment, found column of type text",
        ),
        (r#"{"$inc": {"a": "1"}}"#, "WRONG_TYPE", "invalid a: expected number to add, found string"),
        (
            r#"{"$inc": {"big": "x"}}"#,
            "WRONG_TYPE",
            "invalid big: expected integer of 64 bits, found string in another form",
        ),
        (r#"{"$inc": {"a": null}}"#, "WRONG_TYPE", "invalid a: expected number to add, found null"),
        (
            r#"{"$inc": {"a": 1.5}}"#,
            "WRONG_TYPE",
            "invalid a: expected integer from -2147483648 to 2147483647, found number with a fraction",
        ),
    ] {
        refused(changes(json), reason, message);
    }
}

#[test]
fn documents_are_objects_of_columns() {
    let doc = r#"{"id": 1, "s": "x", "doc": [1, {"k": null}], "a": null}"#;
    assert_eq!(docs(doc), Ok(vec![document(doc)]));
    assert_eq!(docs(&format!("[{doc}, {{\"id\": 2}}]")), Ok(vec![document(doc), document(r#"{"id": 2}"#)]));
    assert_eq!(docs("[]"), Ok(vec![]));
    assert_eq!(docs(r#"{"t.id": 1}"#), Ok(vec![document(r#"{"id": 1}"#)]));
}

#[test]
fn documents_that_cannot_be_rows_are_refused() {
    for (json, reason, message) in [
        ("1", "BAD_REQUEST", "incorrect insert object provided: expected object, found integer"),
        (
            r#"[{"id": 1}, 1]"#,
            "BAD_REQUEST",
            "incorrect insert object provided: expected object as document 1, found integer",
        ),
        ("null", "REQUIRED", "doc is required"),
        (r#"{"id": 1, "t.id": 2}"#, "BAD_REQUEST", "column id is given twice"),
        (r#"{"id": 1, "smal": 2}"#, "UNKNOWN_COLUMN", "column smal is not in table t; did you mean small?"),
        (
            r#"{"id": 1, "made": 2}"#,
            "WRONG_TYPE",
            "invalid made: expected no value, because the database computes it, found integer",
        ),
        (r#"{"a": 1}"#, "REQUIRED", "id is required"),
        (r#"{"id": null}"#, "REQUIRED", "id is required"),
        (
            r#"{"id": 1, "small": 40000}"#,
            "OUT_OF_RANGE",
            "small is out of range: expected integer from -32768 to 32767",
        ),
        (
            r#"{"id": 1, "day": "2009-02-30"}"#,
            "WRONG_TYPE",
            "invalid day: expected date such as 2009-01-31, found string in another form",
        ),
    ] {
        refused(docs(json), reason, message);
    }
}

#[test]
fn limits_count_rows_and_values() {
    let schema = types();
    let table = schema.table("t").unwrap();
    let limits = Limits { list_items: 2, values: 7, ..Limits::default() };
    let docs = |json: &str| rest(&schema).docs(table, &value(json), &mut Budget::new(limits)).map(|docs| docs.len());
    let one = r#"{"id": 1, "doc": [1, 2, 3], "level": 1}"#;
    assert_eq!(docs(one), Ok(1));
    let long = Error::TooLong { list: "the list of rows".to_owned(), seen: 3, limit: 2 };
    assert_eq!(docs(&format!("[{one}, {one}, {one}]")), Err(long));
    let many = Error::TooComplex { what: "values", seen: 8, limit: 7 };
    assert_eq!(docs(&format!("[{one}, {one}]")), Err(many.clone()));
    let fewer = Limits { values: 6, ..limits };
    let row = rest(&schema).docs(table, &value(one), &mut Budget::new(fewer)).map(|_| ());
    assert_eq!(row, Err(Error::TooComplex { what: "values", seen: 7, limit: 6 }), "a row is one");
    let changes = |json: &str| rest(&schema).changes(table, &value(json), &mut Budget::new(limits)).map(|_| ());
    assert_eq!(changes(r#"{"$set": {"doc": [1, 2, 3, 4, 5, 6]}}"#), Ok(()));
    assert_eq!(changes(r#"{"$set": {"doc": [1, 2, 3, 4, 5, 6]}, "$inc": {"a": 1}}"#), Err(many));
}

#[test]
fn a_value_nests_so_deep() {
    for (open, close) in [("[", "]"), (r#"{"a": "#, "}")] {
        let nested =
            |levels: usize| format!(r#"{{"$set": {{"doc": {}1{}}}}}"#, open.repeat(levels), close.repeat(levels));
        assert!(changes(&nested(Limits::VALUE_DEPTH)).is_ok());
        let error = changes(&nested(Limits::VALUE_DEPTH + 1)).unwrap_err();
        assert_eq!(error.to_string(), "depth of a value of 29 is over the limit of 28");
    }
}
