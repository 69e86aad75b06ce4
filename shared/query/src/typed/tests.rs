use proptest::prelude::*;

use crate::fixtures::{column, value};
use crate::value::tests::values;
use crate::{Column, Error, Type, Typed, Value, comparable, typed};

fn of(r#type: &str) -> Column {
    column(&format!("c:{type}?", type = r#type))
}

fn ok(r#type: &str, json: &str) -> Typed {
    typed(&of(r#type), &value(json)).unwrap_or_else(|error| panic!("{json} as {type}: {error}", type = r#type))
}

fn reason(r#type: &str, json: &str) -> &'static str {
    match typed(&of(r#type), &value(json)) {
        Ok(found) => panic!("{json} as {type} is {found:?}", type = r#type),
        Err(error) => error.reason(),
    }
}

#[test]
fn null_is_of_every_type() {
    for r#type in ["bool", "int", "text", "json", "timestamp", "other"] {
        assert_eq!(ok(r#type, "null"), Typed::Null);
    }
}

#[test]
fn integers_are_whole_numbers_within_their_width() {
    for json in ["5", "5.0", "5e0", "0.5e1", "50e-1", "\"5\"", "\"5.00\""] {
        assert_eq!(ok("int", json), Typed::Int(5), "{json}");
    }
    assert_eq!(ok("int64", "\"9223372036854775807\""), Typed::Int(i64::MAX));
    assert_eq!(ok("int64", "-9223372036854775808.0"), Typed::Int(i64::MIN));
    assert_eq!(ok("int16", "-32768"), Typed::Int(-32768));
    assert_eq!(ok("int", "-0.0"), Typed::Int(0));
    for (r#type, json) in [
        ("int16", "32768"),
        ("int", "2147483648"),
        ("int", "-2147483649"),
        ("int64", "9223372036854775808"),
        ("int64", "\"-9223372036854775809\""),
        ("int64", "1e400"),
        ("int64", "1e99999999999999999999"),
    ] {
        assert_eq!(reason(r#type, json), "OUT_OF_RANGE", "{json}");
    }
    for json in ["5.5", "\"5.5\"", "\"\"", "\"x\"", "\" 5\"", "\"+5\"", "true", "[5]", "{}"] {
        assert_eq!(reason("int", json), "WRONG_TYPE", "{json}");
    }
}

#[test]
fn decimals_have_one_spelling_without_exponent() {
    for (json, plain) in [
        ("1", "1"),
        ("0.10", "0.10"),
        ("\"12.50\"", "12.50"),
        ("-1.5e1", "-15"),
        ("1.50e1", "15.0"),
        ("1e3", "1000"),
        ("1e-3", "0.001"),
        ("-12e-1", "-1.2"),
        ("0.001e2", "0.1"),
        ("0e999999", "0"),
        ("123456789012345678901234567890.000000000000000001", "123456789012345678901234567890.000000000000000001"),
    ] {
        assert_eq!(ok("decimal", json), Typed::Decimal(plain.to_owned()), "{json}");
    }
    for json in ["1e1001", "1e-1001", "1e2147483648", "\"1e99999\""] {
        assert_eq!(reason("decimal", json), "OUT_OF_RANGE", "{json}");
    }
    for json in ["\"x\"", "\"nan\"", "\"\"", "true", "[1]"] {
        assert_eq!(reason("decimal", json), "WRONG_TYPE", "{json}");
    }
}

#[test]
fn floats_are_numbers_or_name_what_is_none() {
    for (json, number) in [("\"Infinity\"", f64::INFINITY), ("\"-Infinity\"", f64::NEG_INFINITY)] {
        assert_eq!(ok("float", json), Typed::Float(number), "{json}");
        assert_eq!(ok("float", json).to_value(), value(json));
    }
    assert_eq!(ok("float", "\"NaN\"").to_value(), value("\"NaN\""));
    assert_eq!(ok("decimal", "\"NaN\""), Typed::Decimal("NaN".to_owned()));
    assert_eq!(ok("float", "1"), Typed::Float(1.0));
    assert_eq!(ok("float", "0.1"), Typed::Float(0.1));
    assert_eq!(reason("float", "1e400"), "OUT_OF_RANGE");
    assert_eq!(reason("float", "\"1\""), "WRONG_TYPE");
}

#[test]
fn booleans_and_texts_are_only_themselves() {
    assert_eq!(ok("bool", "true"), Typed::Bool(true));
    assert_eq!(reason("bool", "1"), "WRONG_TYPE");
    assert_eq!(reason("bool", "\"true\""), "WRONG_TYPE");
    assert_eq!(ok("text", "\"5\""), Typed::Text("5".to_owned()));
    assert_eq!(reason("text", "5"), "WRONG_TYPE");
    assert_eq!(
        typed(&of("text"), &Value::Int(5)),
        Err(Error::WrongType { name: "c".to_owned(), expected: "string".to_owned(), found: "integer".to_owned() })
    );
}

#[test]
fn a_nul_character_is_refused_wherever_it_hides() {
    let nul = Value::Text("a\0".to_owned());
    for r#type in ["text", "other", "json", "date", "uuid", "bytes"] {
        assert_eq!(typed(&of(r#type), &nul).map_err(|error| error.reason()), Err("WRONG_TYPE"), "{type}", type = r#type);
    }
    assert!(typed(&of("json"), &Value::List(vec![nul.clone()])).is_err());
    let member = |name: &str, value: &Value| Value::Object(crate::Object(vec![(name.to_owned(), value.clone())]));
    assert!(typed(&of("json"), &member("a\0", &Value::Int(1))).is_err());
    assert!(typed(&of("json"), &member("a", &nul)).is_err());
    assert!(typed(&of("json"), &member("a", &Value::Int(1))).is_ok());
}

#[test]
fn bytes_are_base64() {
    assert_eq!(ok("bytes", "\"aGk=\""), Typed::Bytes(b"hi".to_vec()));
    assert_eq!(ok("bytes", "\"aGk\""), Typed::Bytes(b"hi".to_vec()));
    assert_eq!(ok("bytes", "\"\""), Typed::Bytes(Vec::new()));
    assert_eq!(reason("bytes", "\"a\""), "WRONG_TYPE");
    assert_eq!(reason("bytes", "\"-_==\""), "WRONG_TYPE");
}

#[test]
fn dates_exist_in_the_calendar() {
    assert_eq!(ok("date", "\"2008-02-29\""), Typed::Date(13_938));
    for json in [
        "\"2009-02-29\"",
        "\"2009-1-1\"",
        "\"2009-01-31T00:00:00Z\"",
        "\"20090131\"",
        "\"\"",
        "20090131",
        "\"+009-01-01\"",
    ] {
        assert_eq!(reason("date", json), "WRONG_TYPE", "{json}");
    }
}

#[test]
fn times_have_microseconds_and_no_zone() {
    for (json, time) in [
        ("\"13:14:15\"", 47_655_000_000),
        ("\"13:14:15.50\"", 47_655_500_000),
        ("\"13:14\"", 47_640_000_000),
        ("\"00:00:00.000\"", 0),
        ("\"13:14:15.123456789\"", 47_655_123_456),
    ] {
        assert_eq!(ok("time", json), Typed::Time(time));
    }
    for json in ["\"24:00:00\"", "\"13:1\"", "\"13:14:15Z\"", "\"13:14:60\"", "\"13:14:15.\"", "\"1:14:15\""] {
        assert_eq!(reason("time", json), "WRONG_TYPE", "{json}");
    }
}

#[test]
fn an_instant_keeps_its_zone_and_nanoseconds() {
    let found = crate::datetime::instant("2019-11-25T23:45:06.123456789+05:30").unwrap();
    assert_eq!((found.hour(), found.nanosecond(), found.offset().whole_minutes()), (23, 123_456_789, 330));
    assert_eq!(
        crate::datetime::instant("2019-11-25T00:00:00"),
        crate::datetime::instant("2019-11-25T01:00:00.000+01:00")
    );
    assert_eq!(crate::datetime::instant("2019-11-25"), crate::datetime::instant("2019-11-24 19:00:00-05:00"));
    for text in ["", "yesterday", "2019-13-01", "2019-02-30", "25.11.2019", "2019-11-25T23:59:60Z", "2019-11-25T"] {
        assert_eq!(crate::datetime::instant(text), None, "{text}");
    }
    for text in ["9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00+00:01"] {
        assert_eq!(crate::datetime::instant(text), None, "{text}");
    }
    assert!(crate::datetime::instant("9999-12-31T23:59:59.999999999Z").is_some());
}

#[test]
fn timestamps_are_points_in_time() {
    let day = 1_230_768_000_000_000;
    for json in [
        "\"2009-01-01T00:00:00Z\"",
        "\"2009-01-01\"",
        "\"2009-01-01 00:00:00\"",
        "\"2009-01-01t00:00:00.000z\"",
        "\"2009-01-01T02:00:00+02:00\"",
        "\"2008-12-31T18:30:00-05:30\"",
        "\"2009-01-01T01:00+01\"",
    ] {
        assert_eq!(ok("timestamp", json), Typed::Timestamp(day), "{json}");
    }
    assert_eq!(ok("timestamp", "\"2009-01-01T00:00:00.5Z\""), Typed::Timestamp(day + 500_000));
    assert_eq!(ok("timestamp", "\"1969-12-31T23:59:59.5\""), Typed::Timestamp(-500_000));
    for json in [
        "\"2009-13-01T00:00:00Z\"",
        "\"2009-01-01T25:00:00Z\"",
        "\"2009-01-01T00:00:00+24:00\"",
        "\"2009-01-01T00:00:00+0200\"",
        "\"2009-01-01X00:00:00\"",
        "\"2009-01-01T\"",
        "\"0000-01-01T00:00:00+01:00\"",
        "\"9999-12-31T23:59:59-01:00\"",
        "\"ééééé\"",
        "\"now\"",
        "1230768000000",
    ] {
        assert_eq!(reason("timestamp", json), "WRONG_TYPE", "{json}");
    }
}

#[test]
fn uuids_have_hyphens_and_either_case() {
    for json in ["\"0190C2C4-7A3E-7CC1-9A3B-5D0A4F0E6B1D\"", "\"0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d\""] {
        assert_eq!(ok("uuid", json), Typed::Uuid(0x0190c2c4_7a3e_7cc1_9a3b_5d0a4f0e6b1d_u128.to_be_bytes()));
    }
    for json in ["\"0190c2c47a3e7cc19a3b5d0a4f0e6b1d\"", "\"0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1g\"", "\"\"", "5"] {
        assert_eq!(reason("uuid", json), "WRONG_TYPE");
    }
}

#[test]
fn json_is_kept_as_it_is_and_not_compared() {
    assert_eq!(ok("json", r#"{"b": [1, 0.10], "a": "x"}"#), Typed::Json(r#"{"b":[1,0.10],"a":"x"}"#.to_owned()));
    assert_eq!(ok("json", "5"), Typed::Json("5".to_owned()));
    assert_eq!(comparable(&of("json"), &Value::Int(5)).map_err(|error| error.reason()), Err("WRONG_TYPE"));
}

#[test]
fn only_single_values_are_compared() {
    for json in ["null", "[1]", "{}"] {
        assert_eq!(comparable(&of("int"), &value(json)).map_err(|error| error.reason()), Err("WRONG_TYPE"));
    }
    assert_eq!(comparable(&of("int"), &value("5.0")), Ok(Typed::Int(5)));
}

#[test]
fn decimals_compare_by_their_value() {
    let decimal = |text: &str| ok("decimal", text);
    for (less, more) in [("-2", "-1.5"), ("-1", "0"), ("0.09", "0.1"), ("9", "10"), ("1.1", "1.11"), ("-0.2", "-0.1")] {
        assert!(decimal(less).compare(&decimal(more)).unwrap().is_lt(), "{less} {more}");
        assert!(decimal(more).compare(&decimal(less)).unwrap().is_gt(), "{less} {more}");
    }
    for (one, other) in [("1", "1.00"), ("0", "-0.0"), ("\"0.50\"", "0.5"), ("1e2", "100")] {
        assert!(decimal(one).compare(&decimal(other)).unwrap().is_eq(), "{one} {other}");
    }
}

#[test]
fn values_of_one_type_compare_in_its_order() {
    for (r#type, less, more) in [
        ("bool", "false", "true"),
        ("int", "9", "10"),
        ("date", "\"1969-12-31\"", "\"2008-02-29\""),
        ("time", "\"09:00\"", "\"13:14:15\""),
        ("timestamp", "\"2009-01-01T00:00:00+02:00\"", "\"2009-01-01\""),
        ("bytes", "\"aGk=\"", "\"aGkA\""),
        ("bytes", "\"AH8=\"", "\"AIA=\""),
        ("text", "\"B\"", "\"a\""),
        ("other", "\"B\"", "\"a\""),
        ("uuid", "\"0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d\"", "\"1190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d\""),
    ] {
        let (less, more) = (ok(r#type, less), ok(r#type, more));
        let orders = [less.compare(&more), more.compare(&less), less.compare(&less)];
        assert_eq!(orders, [-1, 1, 0].map(|sign: i32| Some(sign.cmp(&0))), "{less:?} {more:?}");
        assert_eq!(less.compare(&Typed::Null), None);
    }
}

#[test]
fn nan_equals_itself_and_is_greater_than_all_others() {
    for r#type in ["float", "decimal"] {
        let order = ["\"-Infinity\"", "-1", "1e3", "\"Infinity\"", "\"NaN\""].map(|json| ok(r#type, json));
        for (index, one) in order.iter().enumerate() {
            for (other_index, other) in order.iter().enumerate() {
                assert_eq!(one.compare(other), Some(index.cmp(&other_index)), "{one:?} {other:?}");
            }
        }
    }
}

#[test]
fn a_typed_value_is_of_columns_that_can_hold_it() {
    assert!(ok("int", "32767").is_of(&of("int16")) && ok("int16", "5").is_of(&of("int64")));
    assert!(!ok("int", "32768").is_of(&of("int16")) && !ok("int64", "2147483648").is_of(&of("int")));
    assert!(!ok("int", "5").is_of(&of("text")) && !ok("text", "\"5\"").is_of(&of("other")));
    assert!(Typed::Null.is_of(&of("json")));
}

#[test]
fn values_of_columns_of_any_type_keep_their_kind() {
    assert_eq!((ok("any", "5"), ok("any", "5.0"), ok("any", "true")), (Typed::Int(5), Typed::Int(5), Typed::Int(1)));
    assert_eq!((ok("any", "0.5"), ok("any", "1e30")), (Typed::Float(0.5), Typed::Float(1e30)));
    assert_eq!(ok("any", "\"5\""), Typed::Text("5".to_owned()));
    for (number, text) in [("9", "\"1\""), ("1e30", "\"\""), ("5", "\"5\"")] {
        assert_eq!(ok("any", number).compare(&ok("any", text)), None, "{number} {text}");
        assert_eq!(ok("any", text).compare(&ok("any", number)), None, "{number} {text}");
    }
    for (less, more) in [("1", "1.5"), ("1.5", "2"), ("\"1\"", "\"9\"")] {
        assert!(ok("any", less).compare(&ok("any", more)).unwrap().is_lt(), "{less} {more}");
        assert!(ok("any", more).compare(&ok("any", less)).unwrap().is_gt(), "{less} {more}");
    }
}

const TYPES: [Type; 19] = [
    Type::Bool,
    Type::Int16,
    Type::Int32,
    Type::Int64,
    Type::Float,
    Type::Decimal,
    Type::Text,
    Type::Bytes,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::Uuid,
    Type::Json,
    Type::Other,
    Type::Any,
    Type::Address,
    Type::List(&Type::Int32),
    Type::List(&Type::Text),
    Type::List(&Type::Timestamp),
];

proptest! {
    #[test]
    fn no_value_makes_a_type_panic(value in values(), text in "[0-9TZ:. +-]{0,30}") {
        for r#type in TYPES {
            let column = Column { r#type, ..column("c:text") };
            let _ = typed(&column, &value);
            let _ = typed(&column, &Value::Text(text.clone()));
        }
    }

    #[test]
    fn a_typed_value_is_written_as_it_is_read(value in values(), text in "[0-9TZ:. +-]{0,30}", number in any::<f64>()) {
        let number = Value::number(&format!("{number:e}")).unwrap_or(Value::Null);
        for r#type in TYPES.into_iter().filter(|r#type| *r#type != Type::Json) {
            let column = Column { r#type, ..column("c:text") };
            for value in [&value, &Value::Text(text.clone()), &number] {
                let Ok(found) = typed(&column, value) else { continue };
                prop_assert!(found.is_of(&column));
                prop_assert_eq!(typed(&column, &found.to_value()), Ok(found));
            }
        }
    }

    #[test]
    fn a_float_amounts_to_its_decimal(number in -1e15f64..1e15) {
        let text = format!("{number:e}");
        let plain = crate::number::without_exponent(&text).unwrap();
        prop_assert_eq!(plain.parse::<f64>().unwrap(), number);
        prop_assert!(!plain.contains('e'));
    }
}
