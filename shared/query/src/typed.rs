//! Typed values: a value in the form of its column, as a database gets it bound.

use std::cmp::Ordering;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::number::{self, Integral};
use crate::{Column, Error, Type, Value, datetime, uuid};

mod list;

pub use list::shape as list_shape;

/// Base64 of the standard alphabet, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A value in the form of its column's type, one spelling for each value.
#[derive(Debug, Clone, PartialEq)]
pub enum Typed {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer within the column's width.
    Int(i64),
    /// A double.
    Float(f64),
    /// A decimal without exponent: `-12.50`; `NaN`, `Infinity` or `-Infinity`.
    Decimal(String),
    /// A text without NUL characters.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since the Unix epoch.
    Timestamp(i64),
    /// A UUID.
    Uuid([u8; 16]),
    /// JSON text.
    Json(String),
    /// The database's own text of the value.
    Other(String),
    /// A list: of values and nulls, or of lists that all have one shape.
    List(Vec<Typed>),
}

/// `value` as `column` holds it. NULL is always of the type: whether it may be stored is asked elsewhere.
///
/// Integers and decimals may be given as texts, for clients that cannot hold them; a number that has no fraction is an
/// integer however it is written.
///
/// Errors: `WRONG_TYPE`, `OUT_OF_RANGE`.
pub fn typed(column: &Column, value: &Value) -> Result<Typed, Error> {
    if matches!(value, Value::Null) {
        return Ok(Typed::Null);
    }
    match column.r#type {
        Type::Bool => bool(column, value),
        Type::Int16 => integer(column, value, i16::MIN.into(), i16::MAX.into()),
        Type::Int32 => integer(column, value, i32::MIN.into(), i32::MAX.into()),
        Type::Int64 => integer(column, value, i64::MIN, i64::MAX),
        Type::Float => float(column, value),
        Type::Decimal => decimal(column, value),
        Type::Text => text(column, value).map(|text| Typed::Text(text.to_owned())),
        Type::Bytes => parsed(column, value, |text| BASE64.decode(text).ok().map(Typed::Bytes)),
        Type::Date => parsed(column, value, |text| date(column, text).map(Typed::Date)),
        Type::Time => parsed(column, value, |text| clock(column, text).map(Typed::Time)),
        Type::Timestamp => parsed(column, value, |text| timestamp(column, text).map(Typed::Timestamp)),
        Type::Uuid => parsed(column, value, |text| hyphenated(text).map(Typed::Uuid)),
        Type::Json => json(column, value),
        Type::Other | Type::Address => other(column, value),
        Type::Any => any(column, value),
        Type::List(item) => list::typed(column, *item, value),
    }
}

/// `value` as `column` can be compared with it: a value that is not null, in a column whose values can be compared.
///
/// Errors: `WRONG_TYPE`, `OUT_OF_RANGE`.
pub fn comparable(column: &Column, value: &Value) -> Result<Typed, Error> {
    column.check_equality(value.kind())?;
    let is_one = match value {
        Value::Null | Value::Object(_) => false,
        Value::List(_) => matches!(column.r#type, Type::List(_)),
        Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => true,
    };
    if is_one { typed(column, value) } else { Err(wrong_type(column, value)) }
}

impl Typed {
    /// Whether it is a value of `column`, for which it may have been typed by an older schema.
    pub fn is_of(&self, column: &Column) -> bool {
        self.is_of_type(column.r#type)
    }

    fn is_of_type(&self, r#type: Type) -> bool {
        match (self, r#type) {
            (Typed::Null, _) => true,
            (Typed::Int(number), Type::Int16) => i16::try_from(*number).is_ok(),
            (Typed::Int(number), Type::Int32) => i32::try_from(*number).is_ok(),
            (Typed::Bool(_), Type::Bool)
            | (Typed::Int(_), Type::Int64)
            | (Typed::Float(_), Type::Float)
            | (Typed::Decimal(_), Type::Decimal)
            | (Typed::Text(_), Type::Text)
            | (Typed::Bytes(_), Type::Bytes)
            | (Typed::Date(_), Type::Date)
            | (Typed::Time(_), Type::Time)
            | (Typed::Timestamp(_), Type::Timestamp)
            | (Typed::Uuid(_), Type::Uuid)
            | (Typed::Json(_), Type::Json)
            | (Typed::Other(_), Type::Other | Type::Address)
            | (Typed::Int(_) | Typed::Float(_) | Typed::Text(_), Type::Any) => true,
            (Typed::List(items), Type::List(item)) => items.iter().all(|value| match value {
                Typed::List(_) => value.is_of_type(r#type),
                value => value.is_of_type(*item),
            }),
            _ => false,
        }
    }

    /// The value as a client writes it; JSON as its text.
    pub fn to_value(&self) -> Value {
        match self {
            Typed::Null => Value::Null,
            Typed::Bool(flag) => Value::Bool(*flag),
            Typed::Int(number) => Value::Int(*number),
            Typed::Float(number) if !number.is_finite() => {
                Value::Text(number::not_finite_text(*number).unwrap_or_default().to_owned())
            }
            Typed::Float(number) => {
                let mut text = Vec::new();
                serde_json::to_writer(&mut text, number).expect("a double is JSON and memory takes it");
                Value::Number(String::from_utf8(text).expect("JSON is written as UTF-8")).canonical_number()
            }
            Typed::Decimal(text) => Value::number(text).unwrap_or_else(|| Value::Text(text.clone())),
            Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => Value::Text(text.clone()),
            Typed::Bytes(bytes) => Value::Text(BASE64.encode(bytes)),
            Typed::Date(days) => Value::Text(datetime::written(|out| datetime::date(out, *days))),
            Typed::Time(micros) => Value::Text(datetime::written(|out| datetime::clock(out, *micros))),
            Typed::Timestamp(micros) => Value::Text(datetime::written(|out| datetime::rfc3339(out, *micros))),
            Typed::Uuid(bytes) => Value::Text(datetime::written(|out| uuid::write(out, bytes))),
            Typed::List(items) => Value::List(items.iter().map(Typed::to_value).collect()),
        }
    }

    /// How two values of one column compare; `None` where one is null or they are of different types.
    ///
    /// Texts compare by their code points, as in the collations `C` and `BINARY`. In a column of any type numbers
    /// compare by their value, and not with texts.
    pub fn compare(&self, other: &Typed) -> Option<Ordering> {
        match (self, other) {
            (Typed::Bool(one), Typed::Bool(other)) => Some(one.cmp(other)),
            (Typed::Int(one), Typed::Int(other))
            | (Typed::Time(one), Typed::Time(other))
            | (Typed::Timestamp(one), Typed::Timestamp(other)) => Some(one.cmp(other)),
            (Typed::Date(one), Typed::Date(other)) => Some(one.cmp(other)),
            (Typed::Uuid(one), Typed::Uuid(other)) => Some(one.cmp(other)),
            (Typed::Float(one), Typed::Float(other)) => Some(number::compare_doubles(*one, *other)),
            (Typed::Int(one), Typed::Float(other)) => number::compare_decimals(&one.to_string(), &double(*other)),
            (Typed::Float(one), Typed::Int(other)) => number::compare_decimals(&double(*one), &other.to_string()),
            (Typed::Decimal(one), Typed::Decimal(other)) => number::compare_decimals(one, other),
            (Typed::Bytes(one), Typed::Bytes(other)) => Some(one.cmp(other)),
            (Typed::Text(one), Typed::Text(other))
            | (Typed::Json(one), Typed::Json(other))
            | (Typed::Other(one), Typed::Other(other)) => Some(one.cmp(other)),
            (Typed::List(one), Typed::List(other)) => list::compare(one, other),
            // Values of one column are null, of types that compare, or numbers and texts.
            _ => None,
        }
    }
}

impl Type {
    /// Whether values of the type can be added.
    pub fn is_number(self) -> bool {
        match self {
            Type::Int16 | Type::Int32 | Type::Int64 | Type::Float | Type::Decimal => true,
            Type::Bool
            | Type::Text
            | Type::Bytes
            | Type::Date
            | Type::Time
            | Type::Timestamp
            | Type::Uuid
            | Type::Json
            | Type::Other
            | Type::Any
            | Type::Address
            | Type::List(_) => false,
        }
    }

    /// What a value of the type looks like, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            Type::Bool => "boolean",
            Type::Int16 => "integer from -32768 to 32767",
            Type::Int32 => "integer from -2147483648 to 2147483647",
            Type::Int64 => "integer of 64 bits",
            Type::Float => "number",
            Type::Decimal => "decimal, as number or string",
            Type::Text => "string",
            Type::Bytes => "base64 string",
            Type::Date => "date such as 2009-01-31",
            Type::Time => "time such as 13:14:15.5",
            Type::Timestamp => "timestamp such as 2009-01-31T13:14:15Z",
            Type::Uuid => "UUID such as 0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d",
            Type::Json => "any JSON",
            Type::Other => "string",
            Type::Any => "number or string",
            Type::Address => "address such as 10.0.0.1 or 10.0.0.0/8",
            Type::List(_) => "array",
        }
    }
}

fn bool(column: &Column, value: &Value) -> Result<Typed, Error> {
    let Value::Bool(flag) = value else {
        return Err(wrong_type(column, value));
    };
    Ok(Typed::Bool(*flag))
}

/// An integer between the bounds of the column's width.
fn integer(column: &Column, value: &Value, least: i64, most: i64) -> Result<Typed, Error> {
    let number = match value {
        Value::Int(number) => *number,
        Value::Number(text) => integral(column, value, text)?,
        Value::Text(text) => match Value::number(text) {
            Some(Value::Int(number)) => number,
            Some(Value::Number(text)) => integral(column, value, &text)?,
            Some(Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_)) | None => {
                return Err(malformed(column));
            }
        },
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => return Err(wrong_type(column, value)),
    };
    if number < least || number > most {
        return Err(out_of_range(column));
    }
    Ok(Typed::Int(number))
}

/// The integer that a number in another notation, such as `5.0`, amounts to.
fn integral(column: &Column, value: &Value, text: &str) -> Result<i64, Error> {
    match number::integral(text) {
        Integral::Whole(number) => Ok(number),
        Integral::Outside => Err(out_of_range(column)),
        Integral::Fraction => {
            let found = format!("{} with a fraction", value.kind());
            Err(Error::WrongType { found, name: column.name.clone(), expected: column.r#type.expected().to_owned() })
        }
    }
}

fn float(column: &Column, value: &Value) -> Result<Typed, Error> {
    match value {
        Value::Int(number) => Ok(Typed::Float(*number as f64)),
        Value::Number(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Typed::Float(number)),
            Ok(_) | Err(_) => Err(out_of_range(column)),
        },
        Value::Text(text) => number::not_finite(text).map(Typed::Float).ok_or_else(|| wrong_type(column, value)),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => Err(wrong_type(column, value)),
    }
}

/// A double as decimal.
fn double(number: f64) -> String {
    number::not_finite_text(number).map_or_else(|| number.to_string(), str::to_owned)
}

fn decimal(column: &Column, value: &Value) -> Result<Typed, Error> {
    let plain = match value {
        Value::Int(number) => Some(number.to_string()),
        Value::Number(text) => number::without_exponent(text),
        Value::Text(text) if Value::number(text).is_some() => number::without_exponent(text),
        Value::Text(text) if number::not_finite(text).is_some() => Some(text.clone()),
        Value::Text(_) => return Err(malformed(column)),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => return Err(wrong_type(column, value)),
    };
    plain.map(Typed::Decimal).ok_or_else(|| out_of_range(column))
}

/// The text, which has no NUL character: PostgreSQL cannot hold one.
fn text<'a>(column: &Column, value: &'a Value) -> Result<&'a str, Error> {
    let Value::Text(text) = value else {
        return Err(wrong_type(column, value));
    };
    if has_nul(text) {
        return Err(Error::WrongType {
            name: column.name.clone(),
            expected: "string".to_owned(),
            found: "string with a NUL character".to_owned(),
        });
    }
    Ok(text)
}

fn date(column: &Column, text: &str) -> Option<i32> {
    if column.abilities.wide_times { datetime::parse_wide_date(text) } else { datetime::parse_date(text) }
}

fn clock(column: &Column, text: &str) -> Option<i64> {
    if column.abilities.wide_times { datetime::parse_wide_clock(text) } else { datetime::parse_clock(text) }
}

fn timestamp(column: &Column, text: &str) -> Option<i64> {
    if column.abilities.wide_times { datetime::parse_wide_timestamp(text) } else { datetime::parse_timestamp(text) }
}

/// The value that `parse` reads from a string.
fn parsed(column: &Column, value: &Value, parse: impl Fn(&str) -> Option<Typed>) -> Result<Typed, Error> {
    let Value::Text(text) = value else {
        return Err(wrong_type(column, value));
    };
    parse(text).ok_or_else(|| malformed(column))
}

fn json(column: &Column, value: &Value) -> Result<Typed, Error> {
    if nul_within(value) {
        return Err(Error::WrongType {
            name: column.name.clone(),
            expected: "any JSON".to_owned(),
            found: "JSON with a NUL character".to_owned(),
        });
    }
    let mut out = Vec::new();
    value.write_json(&mut out);
    Ok(Typed::Json(String::from_utf8(out).expect("JSON is written as UTF-8")))
}

fn other(column: &Column, value: &Value) -> Result<Typed, Error> {
    match value {
        Value::Int(number) => Ok(Typed::Other(number.to_string())),
        Value::Number(text) => Ok(Typed::Other(text.clone())),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
            text(column, value).map(|text| Typed::Other(text.to_owned()))
        }
    }
}

/// A number or a text, as it is; a boolean is 0 or 1, as in SQLite.
fn any(column: &Column, value: &Value) -> Result<Typed, Error> {
    match value {
        Value::Bool(flag) => Ok(Typed::Int(i64::from(*flag))),
        Value::Int(number) => Ok(Typed::Int(*number)),
        Value::Number(text) => match number::integral(text) {
            Integral::Whole(number) => Ok(Typed::Int(number)),
            // The nearest double may be whole, and is read as such.
            Integral::Outside | Integral::Fraction => float(column, value).map(|number| match number {
                Typed::Float(double) => match number::integral(&double.to_string()) {
                    Integral::Whole(number) => Typed::Int(number),
                    Integral::Outside | Integral::Fraction => Typed::Float(double),
                },
                other => other,
            }),
        },
        Value::Null | Value::Text(_) | Value::List(_) | Value::Object(_) => {
            text(column, value).map(|text| Typed::Text(text.to_owned()))
        }
    }
}

fn nul_within(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) => false,
        Value::Text(text) => has_nul(text),
        Value::List(items) => items.iter().any(nul_within),
        Value::Object(object) => object.0.iter().any(|(name, value)| has_nul(name) || nul_within(value)),
    }
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

/// The UUID of a text in the form of RFC 9562, section 4, of either case.
fn hyphenated(text: &str) -> Option<[u8; 16]> {
    text.contains('-').then(|| uuid::parse(text))?
}

fn wrong_type(column: &Column, value: &Value) -> Error {
    Error::WrongType {
        name: column.name.clone(),
        expected: column.r#type.expected().to_owned(),
        found: value.kind().to_owned(),
    }
}

/// The error of a string that does not have the form of the column's type.
fn malformed(column: &Column) -> Error {
    Error::WrongType {
        name: column.name.clone(),
        expected: column.r#type.expected().to_owned(),
        found: "string in another form".to_owned(),
    }
}

fn out_of_range(column: &Column) -> Error {
    Error::OutOfRange { name: column.name.clone(), expected: column.r#type.expected().to_owned() }
}

#[cfg(test)]
mod tests;
