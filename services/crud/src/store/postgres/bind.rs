//! Bound values in the form PostgreSQL wants them: the type of a placeholder is the one the server inferred.

use std::{borrow::Cow, error::Error};

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

use super::cell::EPOCH_MICROS;
use crate::bind::Bind;

/// A value on its way to a placeholder.
#[derive(Debug)]
pub struct Bound<'a>(pub &'a Bind);

/// A value that does not fit the type the server inferred for its placeholder.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a value does not fit {0}")]
pub struct Unfit(pub String);

type Encoded = Result<(), Box<dyn Error + Sync + Send>>;

impl ToSql for Bound<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql_checked(ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if let Bind::Null(_) = self.0 {
            return Ok(IsNull::Yes);
        }
        if is_binary(self.0, base(ty)) {
            binary(self.0, base(ty), out)?;
        } else {
            out.put_slice(text(self.0)?.as_bytes());
        }
        Ok(IsNull::No)
    }

    fn encode_format(&self, ty: &Type) -> Format {
        if is_binary(self.0, base(ty)) { Format::Binary } else { Format::Text }
    }
}

/// The type under all domains.
fn base(mut ty: &Type) -> &Type {
    while let Kind::Domain(under) = ty.kind() {
        ty = under;
    }
    ty
}

/// Whether the value goes out in the type's binary form; else the server parses its text, which it can for any type.
fn is_binary(bind: &Bind, ty: &Type) -> bool {
    match bind {
        Bind::Null(_) => true,
        Bind::Bool(_) => *ty == Type::BOOL,
        Bind::Int(..) => [Type::INT2, Type::INT4, Type::INT8, Type::OID].contains(ty),
        Bind::Float(_) => [Type::FLOAT4, Type::FLOAT8].contains(ty),
        Bind::Bytes(_) => *ty == Type::BYTEA,
        Bind::Timestamp(_) => [Type::TIMESTAMP, Type::TIMESTAMPTZ].contains(ty),
        Bind::Uuid(uuid) => *ty == Type::UUID && uuid_bytes(uuid).is_some(),
        Bind::Text(_) => is_text(ty),
        Bind::Decimal(_) | Bind::Date(_) | Bind::Time(_) | Bind::Json(_) | Bind::Other(_) => false,
        Bind::List(_, items) => match ty.kind() {
            Kind::Array(item) => items.iter().all(|value| is_binary(value, base(item))),
            _ => false,
        },
    }
}

fn is_text(ty: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME].contains(ty)
}

fn binary(bind: &Bind, ty: &Type, out: &mut BytesMut) -> Encoded {
    match bind {
        Bind::Null(_) => {}
        Bind::Bool(value) => out.put_u8(u8::from(*value)),
        Bind::Int(_, value) => integer(*value, ty, out)?,
        Bind::Float(value) if *ty == Type::FLOAT4 => out.put_f32(single(*value)?),
        Bind::Float(value) => out.put_f64(*value),
        Bind::Bytes(value) => out.put_slice(value),
        Bind::Timestamp(micros) => out.put_i64(micros.checked_sub(EPOCH_MICROS).ok_or_else(|| unfit("timestamp"))?),
        Bind::Uuid(value) => out.put_slice(&uuid_bytes(value).ok_or_else(|| unfit("uuid"))?),
        Bind::Text(value) => out.put_slice(value.as_bytes()),
        Bind::Decimal(value) | Bind::Date(value) | Bind::Time(value) | Bind::Json(value) | Bind::Other(value) => {
            out.put_slice(value.as_bytes());
        }
        Bind::List(_, items) => array(items, ty, out)?,
    }
    Ok(())
}

fn integer(value: i64, ty: &Type, out: &mut BytesMut) -> Encoded {
    let misfit = |_| unfit(ty.name());
    match *ty {
        Type::INT2 => out.put_i16(i16::try_from(value).map_err(misfit)?),
        Type::INT4 => out.put_i32(i32::try_from(value).map_err(misfit)?),
        Type::OID => out.put_u32(u32::try_from(value).map_err(misfit)?),
        _ => out.put_i64(value),
    }
    Ok(())
}

fn single(value: f64) -> Result<f32, Unfit> {
    #[allow(clippy::cast_possible_truncation, reason = "a single holds the nearest value; overflow is refused below")]
    let single = value as f32;
    if single.is_infinite() && value.is_finite() { Err(unfit("real")) } else { Ok(single) }
}

/// A one-dimensional array: dimensions, whether it has nulls, type of the items, length, lower bound, items.
/// Source: `array_recv` in PostgreSQL's `arrayfuncs.c`.
fn array(items: &[Bind], ty: &Type, out: &mut BytesMut) -> Encoded {
    let Kind::Array(item) = ty.kind() else { return Err(unfit(ty.name()).into()) };
    let has_nulls = items.iter().any(|value| matches!(value, Bind::Null(_)));
    out.put_i32(i32::from(!items.is_empty()));
    out.put_i32(i32::from(has_nulls));
    out.put_u32(item.oid());
    if items.is_empty() {
        return Ok(());
    }
    out.put_i32(i32::try_from(items.len()).map_err(|_| unfit(ty.name()))?);
    out.put_i32(1);
    for value in items {
        if let Bind::Null(_) = value {
            out.put_i32(-1);
            continue;
        }
        let length_at = out.len();
        out.put_i32(0);
        binary(value, base(item), out)?;
        let length = i32::try_from(out.len() - length_at - 4).map_err(|_| unfit(ty.name()))?;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// The value as PostgreSQL reads it from text.
fn text(bind: &Bind) -> Result<Cow<'_, str>, Unfit> {
    Ok(match bind {
        Bind::Null(_) => Cow::Borrowed("NULL"),
        Bind::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Bind::Int(_, value) => Cow::Owned(value.to_string()),
        Bind::Float(value) => Cow::Owned(format!("{value:e}")),
        Bind::Bytes(value) => Cow::Owned(hex(value)),
        Bind::Timestamp(micros) => Cow::Owned(timestamp(*micros)?),
        Bind::Decimal(value)
        | Bind::Text(value)
        | Bind::Date(value)
        | Bind::Time(value)
        | Bind::Uuid(value)
        | Bind::Json(value)
        | Bind::Other(value) => Cow::Borrowed(value),
        Bind::List(_, items) => Cow::Owned(array_literal(items)?),
    })
}

/// An array as text: `{"a","b \"c\"",NULL}`. Source: PostgreSQL manual, "Array Input and Output Syntax".
fn array_literal(items: &[Bind]) -> Result<String, Unfit> {
    let mut literal = String::from("{");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            literal.push(',');
        }
        if let Bind::Null(_) = item {
            literal.push_str("NULL");
            continue;
        }
        literal.push('"');
        for character in text(item)?.chars() {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal.push('}');
    Ok(literal)
}

fn timestamp(micros: i64) -> Result<String, Unfit> {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .ok()
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
        .ok_or_else(|| unfit("timestamp"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("\\x"), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hex digit"));
        }
        text
    })
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut nibbles = 0;
    for character in text.chars().filter(|character| *character != '-') {
        let nibble = u8::try_from(character.to_digit(16)?).ok()?;
        *bytes.get_mut(nibbles / 2)? |= if nibbles % 2 == 0 { nibble << 4 } else { nibble };
        nibbles += 1;
    }
    (nibbles == 32).then_some(bytes)
}

fn unfit(what: &str) -> Unfit {
    Unfit(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bind: &Bind, ty: &Type) -> Result<Vec<u8>, String> {
        let mut out = BytesMut::new();
        Bound(bind).to_sql_checked(ty, &mut out).map_err(|error| error.to_string())?;
        Ok(out.to_vec())
    }

    #[test]
    fn integers_take_the_inferred_width() {
        let five = Bind::Int(query::Type::Int64, 5);
        assert_eq!(encoded(&five, &Type::INT2).unwrap(), [0, 5]);
        assert_eq!(encoded(&five, &Type::INT4).unwrap(), [0, 0, 0, 5]);
        assert_eq!(encoded(&five, &Type::INT8).unwrap(), [0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(encoded(&five, &Type::NUMERIC).unwrap(), b"5");
    }

    #[test]
    fn integers_too_wide_are_refused() {
        let wide = Bind::Int(query::Type::Int64, 70_000);
        assert_eq!(encoded(&wide, &Type::INT2).unwrap_err(), "a value does not fit int2");
    }

    #[test]
    fn doubles_too_large_for_a_single_are_refused() {
        assert_eq!(encoded(&Bind::Float(1e300), &Type::FLOAT4).unwrap_err(), "a value does not fit real");
        assert_eq!(encoded(&Bind::Float(0.5), &Type::FLOAT4).unwrap(), 0.5_f32.to_be_bytes());
    }

    #[test]
    fn text_arrays_are_quoted() {
        let items = [Bind::Other("a\"b\\c".into()), Bind::Null(query::Type::Other), Bind::Other(String::new())];
        assert_eq!(array_literal(&items).unwrap(), r#"{"a\"b\\c",NULL,""}"#);
        assert_eq!(array_literal(&[]).unwrap(), "{}");
    }

    #[test]
    fn integer_arrays_are_binary() {
        let list =
            Bind::List(query::Type::Int32, vec![Bind::Int(query::Type::Int32, 1), Bind::Null(query::Type::Int32)]);
        let bytes = encoded(&list, &Type::INT4_ARRAY).unwrap();
        assert_eq!(
            bytes,
            [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255]
        );
        let none = Bind::List(query::Type::Int32, Vec::new());
        assert_eq!(encoded(&none, &Type::INT4_ARRAY).unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23]);
    }

    #[test]
    fn uuids_are_sixteen_bytes_or_left_to_the_server() {
        let uuid = Bind::Uuid("0190c2c4-0000-7000-8000-0000000000ff".into());
        assert_eq!(encoded(&uuid, &Type::UUID).unwrap().len(), 16);
        let broken = Bind::Uuid("0190c2c4".into());
        assert_eq!(Bound(&broken).encode_format(&Type::UUID) as i16, Format::Text as i16);
    }

    #[test]
    fn timestamps_and_bytes_have_a_text_form() {
        assert_eq!(encoded(&Bind::Timestamp(0), &Type::DATE).unwrap(), b"1970-01-01T00:00:00Z");
        assert_eq!(encoded(&Bind::Bytes(vec![1, 0xab]), &Type::TEXT).unwrap(), b"\\x01ab");
    }
}
