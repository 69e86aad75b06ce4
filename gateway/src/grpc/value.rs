//! Values of `google.protobuf.Struct`.

use prost_types::{Struct, value::Kind};
use query::{Error, Guard, Object, Value, number::MAX_EXACT};

/// The object that a struct is. A whole number that a double holds exactly is an integer; absent is empty.
///
/// Errors: `BAD_REQUEST` for a number that is none, a value without a kind and a NUL character; `TOO_COMPLEX`.
pub fn object(given: Option<Struct>, guard: &mut Guard) -> Result<Value, Error> {
    let mut reader = Reader { guard };
    reader.object(given.unwrap_or_default(), 0).map(Value::Object)
}

struct Reader<'g> {
    guard: &'g mut Guard,
}

impl Reader<'_> {
    fn object(&mut self, given: Struct, depth: usize) -> Result<Object, Error> {
        self.count(depth)?;
        let mut members = Vec::with_capacity(given.fields.len());
        for (name, value) in given.fields {
            members.push((text(name)?, self.value(value, depth + 1)?));
        }
        Ok(Object(members))
    }

    fn value(&mut self, given: prost_types::Value, depth: usize) -> Result<Value, Error> {
        self.count(depth)?;
        match given.kind {
            Some(Kind::NullValue(_)) => Ok(Value::Null),
            Some(Kind::BoolValue(flag)) => Ok(Value::Bool(flag)),
            Some(Kind::NumberValue(number)) => self::number(number),
            Some(Kind::StringValue(content)) => text(content).map(Value::Text),
            Some(Kind::StructValue(inner)) => self.object(inner, depth).map(Value::Object),
            Some(Kind::ListValue(list)) => {
                let items = list.values.into_iter().map(|item| self.value(item, depth + 1));
                items.collect::<Result<_, _>>().map(Value::List)
            }
            None => Err(Error::Malformed("invalid value: its kind is missing".to_owned())),
        }
    }

    fn count(&mut self, depth: usize) -> Result<(), Error> {
        self.guard.depth(depth)?;
        self.guard.token()
    }
}

fn number(number: f64) -> Result<Value, Error> {
    if !number.is_finite() {
        return Err(Error::Malformed(format!("invalid number {number}: must be finite")));
    }
    if number.fract() == 0.0 && number.abs() <= MAX_EXACT as f64 {
        // Exact: it is whole and within what both types hold.
        return Ok(Value::Int(number as i64));
    }
    // Debug writes the shortest text that reads back as the same double, with an exponent where that is long.
    Ok(Value::Number(format!("{number:?}")))
}

fn text(text: String) -> Result<String, Error> {
    match text.contains('\0') {
        true => Err(Error::Malformed("a NUL character is not allowed in a name or string".to_owned())),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(kind: Kind) -> Result<Value, Error> {
        let value = prost_types::Value { kind: Some(kind) };
        let fields = [("a".to_owned(), value)].into_iter().collect();
        let Value::Object(Object(mut members)) = object(Some(Struct { fields }), &mut Guard::default())? else {
            panic!("an object is one")
        };
        Ok(members.remove(0).1)
    }

    #[test]
    fn whole_numbers_are_integers_and_others_keep_every_digit() {
        for (given, expected) in [
            (3.0, Value::Int(3)),
            (-0.0, Value::Int(0)),
            (9_007_199_254_740_992.0, Value::Int(9_007_199_254_740_992)),
            (0.1, Value::Number("0.1".to_owned())),
            (-2.5e-9, Value::Number("-2.5e-9".to_owned())),
            (1e300, Value::Number("1e300".to_owned())),
            (1.8e16, Value::Number("1.8e16".to_owned())),
        ] {
            assert_eq!(kind(Kind::NumberValue(given)), Ok(expected));
        }
    }

    #[test]
    fn numbers_are_json() {
        for given in [0.1, -2.5e-9, 1e300, 1.8e16, f64::MIN_POSITIVE, f64::MAX] {
            let Ok(Value::Number(text)) = kind(Kind::NumberValue(given)) else { panic!("{given} is no integer") };
            assert!(Value::number(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for given in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(kind(Kind::NumberValue(given)), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn a_nul_character_is_refused_in_names_and_texts() {
        assert!(kind(Kind::StringValue("a\0".to_owned())).is_err());
        let fields = [("a\0".to_owned(), prost_types::Value { kind: Some(Kind::BoolValue(true)) })];
        assert!(object(Some(Struct { fields: fields.into_iter().collect() }), &mut Guard::default()).is_err());
    }

    #[test]
    fn nesting_has_an_end() {
        let mut value = prost_types::Value { kind: Some(Kind::BoolValue(true)) };
        for _ in 0..101 {
            value = prost_types::Value { kind: Some(Kind::ListValue(prost_types::ListValue { values: vec![value] })) };
        }
        let fields = [("a".to_owned(), value)].into_iter().collect();
        assert!(matches!(
            object(Some(Struct { fields }), &mut Guard::default()),
            Err(Error::TooComplex { what: "depth", .. })
        ));
    }
}
