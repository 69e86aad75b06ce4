//! Numbers of any size as texts, exactly: `1`, `1.0` and `1e0` are one number, and no digit is lost.

use std::cmp::Ordering;

use crate::Value;

/// Digits on each side of the point that a decimal may have: what PostgreSQL lets a column declare. An exponent must
/// not turn a few bytes of a request into many of memory.
const MAX_DIGITS: usize = 1000;

/// The largest integer up to which doubles hold every one.
pub const MAX_EXACT: i64 = 1 << 53;
/// Significant decimal digits that every double keeps.
pub const DOUBLE_DIGITS: usize = 15;

/// The JSON number `text` without an exponent; `None` where that has too many digits.
pub fn without_exponent(text: &str) -> Option<String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.bytes().all(|digit| digit == b'0') {
        return Some("0".to_owned());
    }
    let exponent: i32 = exponent.parse().ok()?;
    let point = i64::from(exponent) + i64::try_from(whole.len()).ok()?;
    let length = i64::try_from(digits.len()).ok()?;
    let most = i64::try_from(MAX_DIGITS).ok()?;
    if point > most || length - point > most {
        return None;
    }
    let padded = match point {
        ..=0 => format!("0.{}{digits}", "0".repeat(usize::try_from(-point).ok()?)),
        _ if point >= length => format!("{digits}{}", "0".repeat(usize::try_from(point - length).ok()?)),
        _ => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).ok()?);
            format!("{whole}.{fraction}")
        }
    };
    let trimmed = padded.trim_start_matches('0');
    let zero = if trimmed.starts_with('.') || trimmed.is_empty() { "0" } else { "" };
    Some(format!("{sign}{zero}{trimmed}"))
}

/// What a JSON number is as an integer.
pub enum Integral {
    /// It has no fraction and fits 64 bits.
    Whole(i64),
    /// It has a fraction.
    Fraction,
    /// It does not fit 64 bits.
    Outside,
}

/// The integer that the JSON number `text` amounts to, however it is written: `5`, `5.0`, `0.5e1`.
pub fn integral(text: &str) -> Integral {
    let Some(plain) = without_exponent(text) else { return Integral::Outside };
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if fraction.bytes().any(|digit| digit != b'0') {
        return Integral::Fraction;
    }
    whole.parse().map_or(Integral::Outside, Integral::Whole)
}

/// The doubles that are no finite numbers, as texts: databases hold them, and JSON has no numbers for them.
const NOT_FINITE: [(&str, f64); 3] = [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];

/// The text of a double that is not finite.
pub fn not_finite_text(number: f64) -> Option<&'static str> {
    let is_it = |of: f64| (of.is_nan() && number.is_nan()) || of == number;
    NOT_FINITE.iter().find(|(_, of)| is_it(*of)).map(|(text, _)| *text)
}

/// The double that is not finite of `NaN`, `Infinity` or `-Infinity`.
pub fn not_finite(text: &str) -> Option<f64> {
    NOT_FINITE.iter().find(|(known, _)| *known == text).map(|(_, number)| *number)
}

/// How two doubles compare, as in PostgreSQL: NaN equals itself and is greater than all others.
pub fn compare_doubles(one: f64, other: f64) -> Ordering {
    one.partial_cmp(&other).unwrap_or_else(|| one.is_nan().cmp(&other.is_nan()))
}

/// How two decimals compare, of which one may be `NaN` or infinite.
pub fn compare_decimals(one: &str, other: &str) -> Option<Ordering> {
    match (not_finite(one), not_finite(other)) {
        (None, None) => compare(one, other),
        (one, other) => Some(compare_doubles(one.unwrap_or(0.0), other.unwrap_or(0.0))),
    }
}

/// How two numbers compare; `None` where one is not a number, or has an exponent of more than 64 bits.
pub fn compare(one: &str, other: &str) -> Option<Ordering> {
    Some(Decimal::parse(one)?.compare(&Decimal::parse(other)?))
}

impl Value {
    /// How two numbers compare; `None` where one is not a number, or has an exponent of more than 64 bits.
    pub fn compare_numbers(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
            (Value::Int(one), Value::Number(other)) => compare(&one.to_string(), other),
            (Value::Number(one), Value::Int(other)) => compare(one, &other.to_string()),
            (Value::Number(one), Value::Number(other)) => compare(one, other),
            (Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_), _)
            | (_, Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_)) => None,
        }
    }

    /// The number as [`Value::Int`] where it is an integer of 64 bits, however it is written; any other value as it is.
    pub fn canonical_number(&self) -> Value {
        match self {
            Value::Number(text) => match integral(text) {
                Integral::Whole(integer) => Value::Int(integer),
                Integral::Fraction | Integral::Outside => self.clone(),
            },
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
                self.clone()
            }
        }
    }
}

/// The normal form `±0.digits × 10^exponent`. Digits are those of `whole` and then those of `fraction`, without zeros at
/// either end; zero has none.
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Decimal<'a>> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let places = fraction.trim_end_matches('0');
        let fraction = if whole.is_empty() { places.trim_start_matches('0') } else { places };
        if whole.is_empty() && fraction.is_empty() {
            return Some(Decimal { negative: false, whole, fraction, exponent: 0 });
        }
        let exponent: i64 = exponent.parse().ok()?;
        let exponent = exponent
            .checked_add(i64::try_from(whole.len()).ok()?)?
            .checked_sub(i64::try_from(places.len() - fraction.len()).ok()?)?;
        let whole = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
        Some(Decimal { negative, whole, fraction, exponent })
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn compare(&self, other: &Decimal<'_>) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }

    fn compare_magnitude(&self, other: &Decimal<'_>) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits().cmp(other.digits())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::Number(text.to_owned()), Value::Int)
    }

    #[test]
    fn numbers_compare_by_value_not_by_text() {
        for (left, right, order) in [
            ("1", "1.0", Ordering::Equal),
            ("1e2", "100", Ordering::Equal),
            ("-0", "0.00", Ordering::Equal),
            ("0.1", "0.09", Ordering::Greater),
            ("-5", "-4.5", Ordering::Less),
            ("-1", "0", Ordering::Less),
            ("9007199254740993", "9007199254740992.0", Ordering::Greater),
            ("18446744073709551616", "9223372036854775807", Ordering::Greater),
            ("1e400", "1e399", Ordering::Greater),
            ("10.05", "10.5", Ordering::Less),
            ("0.050", "5e-2", Ordering::Equal),
            ("100", "1e2", Ordering::Equal),
            ("120", "1.2e2", Ordering::Equal),
            ("0", "1e-400", Ordering::Less),
            ("-1e-400", "0e99999999999999999999", Ordering::Less),
            ("2", "10", Ordering::Less),
        ] {
            assert_eq!(number(left).compare_numbers(&number(right)), Some(order), "{left} {right}");
        }
    }

    #[test]
    fn other_types_do_not_compare() {
        assert_eq!(number("1").compare_numbers(&Value::Text("1".to_owned())), None);
        assert_eq!(number("1").compare_numbers(&Value::Number("1e99999999999999999999".to_owned())), None);
        assert_eq!(Value::Number("nan".to_owned()).compare_numbers(&number("1.5")), None);
    }

    #[test]
    fn integers_are_recognised_however_they_are_written() {
        assert_eq!(number("1.0").canonical_number(), Value::Int(1));
        assert_eq!(number("-2.5e1").canonical_number(), Value::Int(-25));
        assert_eq!(number("0.0").canonical_number(), Value::Int(0));
        assert_eq!(number("1.5").canonical_number(), number("1.5"));
        assert_eq!(number("1e30").canonical_number(), number("1e30"));
        assert_eq!(number("-9223372036854775808.0").canonical_number(), Value::Int(i64::MIN));
    }

    proptest! {
        #[test]
        fn any_two_texts_compare_without_panic(left in ".{0,30}", right in "[-+0-9.eE]{0,30}") {
            let (left, right) = (Value::Number(left), Value::Number(right));
            let order = left.compare_numbers(&right);
            prop_assert_eq!(right.compare_numbers(&left), order.map(Ordering::reverse));
            right.canonical_number();
        }

        #[test]
        fn floats_compare_as_floats_do(left in -1e9..1e9_f64, right in -1e9..1e9_f64) {
            let text = |float: f64| Value::Number(format!("{float:?}"));
            prop_assert_eq!(text(left).compare_numbers(&text(right)), left.partial_cmp(&right));
        }
    }
}
