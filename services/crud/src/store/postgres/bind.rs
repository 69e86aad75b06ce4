//! Bound values in the form PostgreSQL wants them: the type of a placeholder is the one the server inferred.

use std::{borrow::Cow, error::Error, fmt::Write as _};

use bytes::{BufMut, BytesMut};
use query::{Typed, datetime, uuid};
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

use super::cell::{DAY_MICROS, EPOCH_DAYS, EPOCH_MICROS};
use crate::bind::Bind;

/// A value on its way to a placeholder.
#[derive(Debug)]
pub struct Bound<'a> {
    /// The value.
    pub value: &'a Bind,
    /// Position of the placeholder, counted from 0.
    pub at: usize,
}

/// A value that does not fit the type the server inferred for its placeholder.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a value does not fit {native}")]
pub struct Unfit {
    /// The type.
    pub native: String,
    /// Position of the placeholder, counted from 0.
    pub at: usize,
}

/// The error is the name of a type that does not hold the value.
type Encoded = Result<(), String>;

impl ToSql for Bound<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql_checked(ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.value {
            Bind::Value(Typed::Null) => return Ok(IsNull::Yes),
            Bind::Value(value) if is_binary(value, base(ty)) => {
                binary(value, base(ty), out).map_err(|native| Unfit { native, at: self.at })?;
            }
            Bind::Value(value) => out.put_slice(text(value, base(ty)).as_bytes()),
            Bind::List(items) if !has_lists(items) && is_binary_array(items, base(ty)) => {
                array(items, base(ty), out).map_err(|native| Unfit { native, at: self.at })?;
            }
            Bind::List(items) => out.put_slice(list(items, base(ty)).as_bytes()),
            Bind::LeastArray(items) => out.put_slice(least(items, base(ty)).as_bytes()),
            Bind::GreatestArray(items) => out.put_slice(greatest(items, base(ty)).as_bytes()),
            Bind::Stored(_) => return Err(Unfit { native: ty.name().to_owned(), at: self.at }.into()),
        }
        Ok(IsNull::No)
    }

    fn encode_format(&self, ty: &Type) -> Format {
        let is_binary = match self.value {
            Bind::Value(value) => is_binary(value, base(ty)),
            Bind::List(items) => !has_lists(items) && is_binary_array(items, base(ty)),
            Bind::LeastArray(_) | Bind::GreatestArray(_) => false,
            Bind::Stored(_) => true,
        };
        if is_binary { Format::Binary } else { Format::Text }
    }
}

/// The value as the text that the type's input reads; `None` for what PostgreSQL does not have.
pub fn as_text(value: &Bind, ty: &Type) -> Option<Typed> {
    let ty = base(ty);
    Some(Typed::Text(match value {
        Bind::Value(Typed::Null) => return Some(Typed::Null),
        Bind::Value(value) => text(value, ty).into_owned(),
        Bind::List(items) => list(items, ty),
        Bind::LeastArray(items) => least(items, ty),
        Bind::GreatestArray(items) => greatest(items, ty),
        Bind::Stored(_) => return None,
    }))
}

/// A list of parameters as text.
fn list(items: &[Typed], ty: &Type) -> String {
    if has_lists(items) { texts_literal(items, ty) } else { array_literal(items, ty) }
}

fn least(items: &[Typed], ty: &Type) -> String {
    array_from(items, ty, |_| i32::MIN)
}

/// Source: `ArrayCheckBounds` in PostgreSQL's `arrayutils.c`.
fn greatest(items: &[Typed], ty: &Type) -> String {
    array_from(items, ty, |count| i32::MAX - count)
}

/// The type under all domains.
fn base(mut ty: &Type) -> &Type {
    while let Kind::Domain(under) = ty.kind() {
        ty = under;
    }
    ty
}

/// Whether the value goes out in the type's binary form; else the server parses its text, which it can for any type.
fn is_binary(value: &Typed, ty: &Type) -> bool {
    match value {
        Typed::Null => true,
        Typed::Bool(_) => *ty == Type::BOOL,
        Typed::Int(_) => [Type::INT2, Type::INT4, Type::INT8, Type::OID].contains(ty),
        Typed::Float(_) => [Type::FLOAT4, Type::FLOAT8].contains(ty),
        Typed::Bytes(_) => *ty == Type::BYTEA,
        Typed::Timestamp(_) => [Type::TIMESTAMP, Type::TIMESTAMPTZ].contains(ty),
        Typed::Date(_) => *ty == Type::DATE,
        Typed::Time(_) => *ty == Type::TIME,
        Typed::Uuid(_) => *ty == Type::UUID,
        Typed::Text(_) => is_text(ty),
        Typed::Decimal(_) | Typed::Json(_) | Typed::Other(_) => false,
        Typed::List(items) => is_binary_array(items, ty),
    }
}

/// Whether the array goes out in binary form. One without values may be of a type that has no such form.
fn is_binary_array(items: &[Typed], ty: &Type) -> bool {
    let Kind::Array(item) = ty.kind() else { return false };
    let has_values = items.iter().any(|value| *value != Typed::Null);
    has_values
        && items.iter().all(|value| match value {
            Typed::List(items) => is_binary_array(items, ty),
            value => is_binary(value, base(item)),
        })
}

/// Whether values of a list of parameters are lists themselves, which go out as texts: they are of several shapes.
fn has_lists(items: &[Typed]) -> bool {
    items.iter().any(|value| matches!(value, Typed::List(_)))
}

fn is_text(ty: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME].contains(ty)
}

fn binary(value: &Typed, ty: &Type, out: &mut BytesMut) -> Encoded {
    match value {
        Typed::Null => {}
        Typed::Bool(value) => out.put_u8(u8::from(*value)),
        Typed::Int(value) => integer(*value, ty, out)?,
        Typed::Float(value) if *ty == Type::FLOAT4 => out.put_f32(single(*value)?),
        Typed::Float(value) => out.put_f64(*value),
        Typed::Bytes(value) => out.put_slice(value),
        Typed::Timestamp(micros @ (datetime::LAST_MICROS | datetime::FIRST_MICROS)) => out.put_i64(*micros),
        Typed::Timestamp(micros) => {
            out.put_i64(micros.checked_sub(EPOCH_MICROS).ok_or_else(|| String::from("timestamp"))?)
        }
        Typed::Date(days @ (datetime::LAST_DAY | datetime::FIRST_DAY)) => out.put_i32(*days),
        Typed::Date(days) => out.put_i32(days.checked_sub(EPOCH_DAYS).ok_or_else(|| String::from("date"))?),
        Typed::Time(micros) => out.put_i64(*micros),
        Typed::Uuid(value) => out.put_slice(value),
        Typed::Text(value) | Typed::Decimal(value) | Typed::Json(value) | Typed::Other(value) => {
            out.put_slice(value.as_bytes());
        }
        Typed::List(items) => array(items, ty, out)?,
    }
    Ok(())
}

fn integer(value: i64, ty: &Type, out: &mut BytesMut) -> Encoded {
    let misfit = |_| ty.name().to_owned();
    match *ty {
        Type::INT2 => out.put_i16(i16::try_from(value).map_err(misfit)?),
        Type::INT4 => out.put_i32(i32::try_from(value).map_err(misfit)?),
        Type::OID => out.put_u32(u32::try_from(value).map_err(misfit)?),
        _ => out.put_i64(value),
    }
    Ok(())
}

fn single(value: f64) -> Result<f32, String> {
    #[allow(clippy::cast_possible_truncation, reason = "a single holds the nearest value; overflow is refused below")]
    let single = value as f32;
    if single.is_infinite() && value.is_finite() { Err("real".to_owned()) } else { Ok(single) }
}

/// An array: number of dimensions, whether it has nulls, type of the values, length and lower bound of each dimension,
/// values. Source: `array_recv` in PostgreSQL's `arrayfuncs.c`.
fn array(items: &[Typed], ty: &Type, out: &mut BytesMut) -> Encoded {
    let misfit = || ty.name().to_owned();
    let Kind::Array(item) = ty.kind() else { return Err(misfit()) };
    let shape = match items {
        [] => Vec::new(),
        items => query::list_shape(items).ok_or_else(misfit)?,
    };
    out.put_i32(i32::try_from(shape.len()).map_err(|_| misfit())?);
    out.put_i32(i32::from(has_nulls(items)));
    out.put_u32(item.oid());
    for length in shape {
        out.put_i32(i32::try_from(length).map_err(|_| misfit())?);
        out.put_i32(1);
    }
    array_items(items, ty, base(item), out)
}

fn has_nulls(items: &[Typed]) -> bool {
    items.iter().any(|value| match value {
        Typed::List(items) => has_nulls(items),
        value => *value == Typed::Null,
    })
}

fn array_items(items: &[Typed], ty: &Type, item: &Type, out: &mut BytesMut) -> Encoded {
    for value in items {
        match value {
            Typed::Null => {
                out.put_i32(-1);
                continue;
            }
            Typed::List(items) => {
                array_items(items, ty, item, out)?;
                continue;
            }
            _ => {}
        }
        let length_at = out.len();
        out.put_i32(0);
        binary(value, item, out)?;
        let length = i32::try_from(out.len() - length_at - 4).map_err(|_| ty.name().to_owned())?;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// The value as PostgreSQL reads it from text for a placeholder of type `ty`.
fn text<'v>(value: &'v Typed, ty: &Type) -> Cow<'v, str> {
    match value {
        Typed::Null => Cow::Borrowed("NULL"),
        Typed::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Typed::Int(value) => Cow::Owned(value.to_string()),
        Typed::Float(value) => Cow::Owned(float(*value, ty)),
        Typed::Bytes(value) => Cow::Owned(hex(value)),
        Typed::Timestamp(micros) => Cow::Owned(timestamp(*micros)),
        Typed::Date(days) => Cow::Owned(date(*days)),
        Typed::Time(micros) => Cow::Owned(datetime::written(|out| datetime::clock(out, *micros))),
        Typed::Uuid(bytes) => Cow::Owned(datetime::written(|out| uuid::write(out, bytes))),
        Typed::Decimal(value) | Typed::Text(value) | Typed::Json(value) | Typed::Other(value) => Cow::Borrowed(value),
        Typed::List(items) => Cow::Owned(array_literal(items, ty)),
    }
}

/// A number, for a single or an array of them the nearest single: the shortest text of a double may be on the other side of the
/// middle between two.
fn float(value: f64, ty: &Type) -> String {
    let item = if let Kind::Array(item) = ty.kind() { base(item) } else { ty };
    match single(value) {
        Ok(single) if *item == Type::FLOAT4 => format!("{single:e}"),
        _ => format!("{value:e}"),
    }
}

/// A date as PostgreSQL reads it, which knows no signs of years: `12345-06-07`, `0044-03-15 BC`.
fn date(days: i32) -> String {
    match days {
        datetime::LAST_DAY | datetime::FIRST_DAY => datetime::written(|out| datetime::date(out, days)),
        _ => era(days, ""),
    }
}

fn timestamp(micros: i64) -> String {
    if let datetime::LAST_MICROS | datetime::FIRST_MICROS = micros {
        return datetime::written(|out| datetime::rfc3339(out, micros));
    }
    let days = i32::try_from(micros.div_euclid(DAY_MICROS)).expect("64 bits of microseconds are fewer than 2^31 days");
    let clock = datetime::written(|out| datetime::clock(out, micros.rem_euclid(DAY_MICROS)));
    era(days, &format!(" {clock}Z"))
}

/// A day and a time, with its era where that is the one before the year 1.
fn era(days: i32, clock: &str) -> String {
    let (year, month, day) = datetime::year_month_day(days);
    match year {
        1.. => format!("{year:04}-{month:02}-{day:02}{clock}"),
        _ => format!("{:04}-{month:02}-{day:02}{clock} BC", 1 - year),
    }
}

/// An array as text: `{"a","b \"c\"",NULL}`. Source: PostgreSQL manual, "Array Input and Output Syntax".
fn array_literal(items: &[Typed], ty: &Type) -> String {
    // The one type whose values hold commas of their own.
    let delimiter = match ty.kind() {
        Kind::Array(item) if *base(item) == Type::BOX => ';',
        _ => ',',
    };
    let mut literal = String::from("{");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            literal.push(delimiter);
        }
        match item {
            Typed::Null => literal.push_str("NULL"),
            Typed::List(items) => literal.push_str(&array_literal(items, ty)),
            item => quote(&text(item, ty), &mut literal),
        }
    }
    literal.push('}');
    literal
}

/// An array as text whose subscripts begin, in each dimension of `count` values, at `first(count)`: `[5:6]={"a","b"}`.
fn array_from(items: &[Typed], ty: &Type, first: impl Fn(i32) -> i32) -> String {
    let mut literal = String::new();
    let shape = if items.is_empty() { None } else { query::list_shape(items) };
    for count in shape.unwrap_or_default() {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let first = first(count);
        let _ = write!(literal, "[{first}:{}]", first + count - 1);
    }
    literal.push_str(if literal.is_empty() { "" } else { "=" });
    literal + &array_literal(items, ty)
}

/// An array of texts, each of which is a value: `{"{\"1\",\"2\"}",NULL}`.
fn texts_literal(items: &[Typed], ty: &Type) -> String {
    let mut literal = String::from("{");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            literal.push(',');
        }
        match item {
            Typed::Null => literal.push_str("NULL"),
            item => quote(&text(item, ty), &mut literal),
        }
    }
    literal.push('}');
    literal
}

fn quote(text: &str, literal: &mut String) {
    literal.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal.push('"');
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("\\x"), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hex digit"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: impl Into<Bind>, ty: &Type) -> Result<Vec<u8>, String> {
        let mut out = BytesMut::new();
        Bound { value: &value.into(), at: 0 }.to_sql_checked(ty, &mut out).map_err(|error| error.to_string())?;
        Ok(out.to_vec())
    }

    #[test]
    fn integers_take_the_inferred_width() {
        let five = || Typed::Int(5);
        assert_eq!(encoded(five(), &Type::INT2).unwrap(), [0, 5]);
        assert_eq!(encoded(five(), &Type::INT4).unwrap(), [0, 0, 0, 5]);
        assert_eq!(encoded(five(), &Type::INT8).unwrap(), [0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(encoded(five(), &Type::NUMERIC).unwrap(), b"5");
    }

    #[test]
    fn integers_too_wide_are_refused() {
        assert_eq!(encoded(Typed::Int(70_000), &Type::INT2).unwrap_err(), "a value does not fit int2");
    }

    #[test]
    fn doubles_too_large_for_a_single_are_refused() {
        assert_eq!(encoded(Typed::Float(1e300), &Type::FLOAT4).unwrap_err(), "a value does not fit real");
        assert_eq!(encoded(Typed::Float(0.5), &Type::FLOAT4).unwrap(), 0.5_f32.to_be_bytes());
    }

    #[test]
    fn singles_as_texts_are_those_of_the_binary_form() {
        let middle = 1.0 + f64::from(f32::EPSILON) / 2.0;
        let items = || vec![Typed::Float(middle), Typed::Float(0.1)];
        for (ty, expected) in
            [(&Type::FLOAT4_ARRAY, "{\"1e0\",\"1e-1\"}"), (&Type::FLOAT8_ARRAY, "{\"1.0000000596046448e0\",\"1e-1\"}")]
        {
            assert_eq!(as_text(&Bind::List(items()), ty), Some(Typed::Text(expected.to_owned())));
        }
        let too_large = Bind::Value(Typed::Float(1e300));
        assert_eq!(as_text(&too_large, &Type::FLOAT4), Some(Typed::Text("1e300".to_owned())), "the server refuses it");
    }

    #[test]
    fn text_arrays_are_quoted() {
        let items = [Typed::Other("a\"b\\c".into()), Typed::Null, Typed::Other(String::new())];
        assert_eq!(array_literal(&items, &Type::TEXT_ARRAY), r#"{"a\"b\\c",NULL,""}"#);
        assert_eq!(array_literal(&[], &Type::TEXT_ARRAY), "{}");
        let boxes = [Typed::Other("(1,1),(0,0)".into()), Typed::Null];
        assert_eq!(array_literal(&boxes, &Type::BOX_ARRAY), r#"{"(1,1),(0,0)";NULL}"#);
        let lists = [1, 2].map(|number| Typed::List(vec![Typed::Decimal(number.to_string())]));
        assert_eq!(array_literal(&lists, &Type::NUMERIC_ARRAY), r#"{{"1"},{"2"}}"#);
    }

    #[test]
    fn arrays_begin_at_the_least_and_the_greatest_subscripts() {
        let text = |bind: Bind| String::from_utf8(encoded(bind, &Type::INT4_ARRAY).unwrap()).unwrap();
        let pair = |one, other| Typed::List(vec![Typed::Int(one), Typed::Int(other)]);
        let grid = vec![pair(1, 2), pair(3, 4), pair(5, 6)];
        let least = "[-2147483648:-2147483646][-2147483648:-2147483647]={{\"1\",\"2\"},{\"3\",\"4\"},{\"5\",\"6\"}}";
        assert_eq!(text(Bind::LeastArray(grid.clone())), least);
        let greatest = "[2147483644:2147483646][2147483645:2147483646]={{\"1\",\"2\"},{\"3\",\"4\"},{\"5\",\"6\"}}";
        assert_eq!(text(Bind::GreatestArray(grid)), greatest);
        assert_eq!(text(Bind::LeastArray(Vec::new())), "{}");
        assert_eq!(text(Bind::GreatestArray(Vec::new())), "{}");
    }

    #[test]
    fn integer_arrays_are_binary() {
        let list = Bind::List(vec![Typed::Int(1), Typed::Null]);
        let bytes = encoded(list, &Type::INT4_ARRAY).unwrap();
        assert_eq!(
            bytes,
            [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255]
        );
        let none = Bind::List(Vec::new());
        assert_eq!(encoded(none, &Type::INT4_ARRAY).unwrap(), b"{}");
    }

    #[test]
    fn dates_times_and_uuids_are_binary_in_columns_of_their_type() {
        assert_eq!(encoded(Typed::Date(10_958), &Type::DATE).unwrap(), 1_i32.to_be_bytes());
        assert_eq!(encoded(Typed::Date(i32::MIN + 1), &Type::DATE).unwrap_err(), "a value does not fit date");
        assert_eq!(encoded(Typed::Time(5), &Type::TIME).unwrap(), 5_i64.to_be_bytes());
        assert_eq!(encoded(Typed::Uuid([7; 16]), &Type::UUID).unwrap(), [7; 16]);
        assert_eq!(encoded(Typed::Date(10_958), &Type::TIMESTAMP).unwrap(), b"2000-01-02");
        assert_eq!(encoded(Typed::Time(47_655_500_000), &Type::TIMETZ).unwrap(), b"13:14:15.5");
        let uuid = encoded(Typed::Uuid([0xab; 16]), &Type::TEXT).unwrap();
        assert_eq!(uuid, b"abababab-abab-abab-abab-abababababab");
    }

    #[test]
    fn lists_of_lists_are_arrays_of_several_dimensions() {
        let pair = |one, other| Typed::List(vec![one, other]);
        let square = pair(pair(Typed::Int(1), Typed::Null), pair(Typed::Int(3), Typed::Int(4)));
        let words = [2, 1, 23, 2, 1, 2, 1, 4, 1, -1, 4, 3, 4, 4];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &i32| word.to_be_bytes()).collect();
        assert_eq!(encoded(square, &Type::INT4_ARRAY).unwrap(), bytes);
    }

    #[test]
    fn lists_among_the_values_of_a_list_are_texts() {
        let texts = |texts: &[&str]| Typed::List(texts.iter().map(|text| Typed::Text((*text).to_owned())).collect());
        let keys = Bind::List(vec![texts(&["a", "b"]), texts(&["c"]), Typed::Null, texts(&[])]);
        let literal = r#"{"{\"a\",\"b\"}","{\"c\"}",NULL,"{}"}"#;
        assert_eq!(String::from_utf8(encoded(keys, &Type::TEXT_ARRAY).unwrap()).unwrap(), literal);
    }

    #[test]
    fn infinity_is_infinite_on_the_wire_and_in_text() {
        assert_eq!(encoded(Typed::Date(i32::MAX), &Type::DATE).unwrap(), i32::MAX.to_be_bytes());
        assert_eq!(encoded(Typed::Timestamp(i64::MIN), &Type::TIMESTAMPTZ).unwrap(), i64::MIN.to_be_bytes());
        assert_eq!(encoded(Typed::Timestamp(i64::MIN), &Type::DATE).unwrap(), b"-infinity");
        assert_eq!(encoded(Typed::Date(i32::MAX), &Type::TIMESTAMP).unwrap(), b"infinity");
        assert_eq!(encoded(Typed::Date(2_932_897), &Type::TIMESTAMP).unwrap(), b"10000-01-01");
        assert_eq!(encoded(Typed::Date(-719_529), &Type::TIMESTAMP).unwrap(), b"0002-12-31 BC");
    }

    #[test]
    fn timestamps_and_bytes_have_a_text_form() {
        assert_eq!(encoded(Typed::Timestamp(0), &Type::DATE).unwrap(), b"1970-01-01 00:00:00Z");
        assert_eq!(encoded(Typed::Bytes(vec![1, 0xab]), &Type::TEXT).unwrap(), b"\\x01ab");
    }
}
