use proptest::prelude::*;

use crate::fixtures::value;
use crate::{Error, Guard, Object, Value, json_text};

fn parse(json: &[u8]) -> Result<Value, Error> {
    json_text::parse(json, Guard::default())
}

fn message(json: &[u8]) -> String {
    match parse(json) {
        Err(Error::Malformed(message)) => message,
        other => panic!("{other:?} for {}", String::from_utf8_lossy(json)),
    }
}

#[test]
fn numbers_keep_every_digit() {
    assert_eq!(value("1"), Value::Int(1));
    assert_eq!(value("-0"), Value::Int(0));
    assert_eq!(value("9223372036854775807"), Value::Int(i64::MAX));
    assert_eq!(value("-9223372036854775808"), Value::Int(i64::MIN));
    for text in ["9223372036854775808", "0.10", "1e400", "-1.0", "123456789012345678901234567890.123456789"] {
        assert_eq!(value(text), Value::Number(text.to_owned()));
    }
}

#[test]
fn text_that_is_no_number_is_none() {
    for text in
        ["", "-", "01", "1.", ".5", "+1", "1e", "1e+", "0x1", "NaN", "Infinity", " 1", "1 ", "1.2.3", "--1", "١"]
    {
        assert_eq!(Value::number(text), None, "{text}");
    }
}

#[test]
fn members_keep_their_order() {
    let Value::Object(Object(members)) = value(r#"{"z": 1, "a": [true, null], "m": {"x": "y"}}"#) else { panic!() };
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn malformed_text_is_refused_with_its_place() {
    assert!(message(b"{\"a\": 1,\n \"b\": }").ends_with("at line 2 column 7"), "{}", message(b"{\"a\": 1,\n \"b\": }"));
    for json in [
        &b""[..],
        b" ",
        b"{",
        b"[1,]",
        b"{\"a\":1,}",
        b"{a:1}",
        b"01",
        b"1.",
        b"nul",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"'x'",
        b"\"\x01\"",
        b"\"\\x\"",
        b"{} x",
        b"1 2",
        b"{}{}",
    ] {
        let message = message(json);
        assert!(message.contains(" at line 1 column "), "{message}");
    }
}

#[test]
fn texts_are_utf_8_without_lone_surrogates_and_nul() {
    assert_eq!(value(r#""\ud83d\ude00é""#), Value::Text("😀é".to_owned()));
    for json in [&b"\"\xff\""[..], b"\"\xc3\"", b"{\"\xff\": 1}", br#""\ud800""#, br#""\udc00""#, br#""\ud800\u0041""#]
    {
        message(json);
    }
    assert_eq!(message(br#"["a\u0000b"]"#), "NUL character in a string at line 1 column 2");
    assert!(message(br#"{"a\u0000": 1}"#).starts_with("NUL character in a member's name"));
}

#[test]
fn a_member_appears_once() {
    assert!(message(br#"{"a": 1, "b": 2, "a": 3}"#).starts_with("member a appears twice at line 1"));
    let mut many: Vec<String> = (0..100).map(|number| format!("\"m{number}\": 1")).collect();
    assert!(parse(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
    many.push("\"m42\": 2".to_owned());
    assert!(message(format!("{{{}}}", many.join(",")).as_bytes()).starts_with("member m42 appears twice"));
}

#[test]
fn messages_do_not_echo_long_names() {
    let name = "x".repeat(10_000);
    assert!(message(format!(r#"{{"{name}": 1, "{name}": 2}}"#).as_bytes()).len() < 300);
}

#[test]
fn limits_hold_while_the_text_is_read() {
    let limits = Guard::new(3, 6);
    assert!(json_text::parse(b"[[[1]]]", limits).is_ok());
    assert_eq!(json_text::parse(b"[[[[1]]]]", limits), Err(Error::TooComplex { what: "depth", seen: 4, limit: 3 }));
    assert!(json_text::parse(b"[1,2,3,4,5]", limits).is_ok());
    assert_eq!(json_text::parse(b"[1,2,3,4,5,6]", limits), Err(Error::TooComplex { what: "nodes", seen: 7, limit: 6 }));
    let boundless = Guard::new(usize::MAX, usize::MAX);
    let deep = "[".repeat(1_000_000);
    assert!(matches!(json_text::parse(deep.as_bytes(), boundless), Err(Error::TooComplex { what: "depth", .. })));
}

#[test]
fn other_values_convert() {
    let json = serde_json::json!({"a": [1, u64::MAX, 0.5, "x", true, null]});
    assert_eq!(Value::from(&json), value(r#"{"a": [1, 18446744073709551615, 0.5, "x", true, null]}"#));
}

/// Values that JSON text can hold.
pub fn values() -> impl Strategy<Value = Value> {
    let text = "[^\0]{0,8}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        "-?(0|[1-9][0-9]{0,30})\\.[0-9]{1,20}([eE][+-]?[0-9]{1,3})?".prop_map(Value::Number),
        "[1-9][0-9]{19,40}".prop_map(Value::Number),
        text.prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::btree_map(text, inner, 0..6)
                .prop_map(|members| Value::Object(Object(members.into_iter().collect()))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in values()) {
        let mut json = Vec::new();
        value.write_json(&mut json);
        prop_assert_eq!(parse(&json), Ok(value));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_almost_json_makes_the_reader_panic(text in r#"[\[\]{}",:0-9eE+.\\u dDfn-]{0,48}"#) {
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn what_serde_reads_is_read(text in r#"[\[\]{}",:0-9eE+. -]{0,12}"#) {
        if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
            // serde_json keeps the last of members that appear twice.
            let read = parse(text.as_bytes());
            let twice = matches!(&read, Err(Error::Malformed(message)) if message.contains("appears twice"));
            prop_assert!(read.is_ok() || twice);
        }
    }
}
