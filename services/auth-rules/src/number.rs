//! Exact numbers: `1`, `1.0` and `1e0` are one number, and 64-bit integers lose no digit.

use std::cmp::Ordering;

use query::Value;

/// How two numbers compare; `None` where one is no number, or too far out to tell.
pub fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        return Some(left.cmp(right));
    }
    Some(Decimal::of(left)?.compare(&Decimal::of(right)?))
}

/// The number as an integer, where it is one of 64 bits, however it is written; else as it is.
pub fn plain(value: &Value) -> Value {
    let integer = || {
        let decimal = Decimal::of(value)?;
        let zeros = usize::try_from(decimal.exponent.checked_sub(i64::try_from(decimal.digits.len()).ok()?)?).ok()?;
        if zeros > 19 {
            return None;
        }
        let sign = if decimal.negative { "-" } else { "" };
        format!("{sign}0{}{}", decimal.digits, "0".repeat(zeros)).parse().ok()
    };
    integer().map_or_else(|| value.clone(), Value::Int)
}

/// `0.digits × 10^exponent`, without zeros at either end of the digits; zero has no digits.
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(value: &Value) -> Option<Decimal> {
        match value {
            Value::Int(int) => Self::parse(&int.to_string()),
            Value::Number(text) => Self::parse(text),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Decimal> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) || whole.is_empty() {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let zeros = i64::try_from(all.len() - digits.len()).ok()?;
        let digits = digits.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits, exponent: 0 });
        }
        let exponent: i64 = exponent.parse().ok()?;
        let exponent = exponent.checked_add(i64::try_from(whole.len()).ok()?)?.checked_sub(zeros)?;
        Some(Decimal { negative, digits, exponent })
    }

    fn compare(&self, other: &Decimal) -> Ordering {
        let size = || match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits)),
        };
        match (self.negative, other.negative) {
            (false, false) => size(),
            (true, true) => size().reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
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
            ("2", "10", Ordering::Less),
        ] {
            assert_eq!(compare(&number(left), &number(right)), Some(order), "{left} {right}");
        }
    }

    #[test]
    fn other_types_do_not_compare() {
        assert_eq!(compare(&number("1"), &Value::Text("1".to_owned())), None);
        assert_eq!(compare(&number("1"), &Value::Number("1e99999999999999999999".to_owned())), None);
        assert_eq!(compare(&Value::Number("nan".to_owned()), &number("1.5")), None);
    }

    #[test]
    fn integers_are_recognised_however_they_are_written() {
        assert_eq!(plain(&number("1.0")), Value::Int(1));
        assert_eq!(plain(&number("-2.5e1")), Value::Int(-25));
        assert_eq!(plain(&number("0.0")), Value::Int(0));
        assert_eq!(plain(&number("1.5")), number("1.5"));
        assert_eq!(plain(&number("1e30")), number("1e30"));
        assert_eq!(plain(&number("-9223372036854775808.0")), Value::Int(i64::MIN));
    }

    proptest! {
        #[test]
        fn any_two_texts_compare_without_panic(left in ".{0,30}", right in "[-+0-9.eE]{0,30}") {
            let (left, right) = (Value::Number(left), Value::Number(right));
            let order = compare(&left, &right);
            prop_assert_eq!(compare(&right, &left), order.map(Ordering::reverse));
            plain(&right);
        }

        #[test]
        fn floats_compare_as_floats_do(left in -1e9..1e9_f64, right in -1e9..1e9_f64) {
            let text = |float: f64| Value::Number(format!("{float:?}"));
            prop_assert_eq!(compare(&text(left), &text(right)), left.partial_cmp(&right));
        }
    }
}
