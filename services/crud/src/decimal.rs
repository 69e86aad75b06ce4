//! Decimals as columns declare them.

use std::borrow::Cow;

use query::{
    Column, Digits, Error,
    number::{self, DOUBLE_DIGITS},
};

/// `text`, a decimal without exponent, as `column` stores it: rounded to its scale as PostgreSQL does, half away from
/// zero.
///
/// Errors: `OUT_OF_RANGE` where it has more digits before the point than the column declares.
pub fn stored<'t>(column: &Column, text: &'t str) -> Result<Cow<'t, str>, Error> {
    let Some(digits) = column.digits().filter(|_| number::not_finite(text).is_none()) else {
        return Ok(Cow::Borrowed(text));
    };
    let text = rounded(text, digits.scale);
    let whole = text.trim_start_matches('-').split('.').next().unwrap_or_default().trim_start_matches('0');
    if whole.len() + digits.scale > digits.precision {
        let Digits { precision, scale } = digits;
        let expected = format!("decimal of {precision} digits, {scale} of them after the point");
        return Err(Error::OutOfRange { name: column.name.clone(), expected });
    }
    Ok(text)
}

/// Checks that SQLite stores `text`, a decimal without exponent, without loss: it holds all but integers as doubles.
///
/// Errors: `OUT_OF_RANGE`.
pub fn check_sqlite_digits(column: &Column, text: &str) -> Result<(), Error> {
    let is_integer = text.parse::<i64>().is_ok();
    let significant = significant(text);
    let is_near = text.parse::<f64>().is_ok_and(|near| near.is_finite() && (near != 0.0 || significant == 0));
    if is_integer || (significant <= DOUBLE_DIGITS && is_near) {
        return Ok(());
    }
    let expected = format!("decimal of {DOUBLE_DIGITS} digits, which is what SQLite keeps");
    Err(Error::OutOfRange { name: column.name.clone(), expected })
}

/// How many digits `text` has from the first that is not zero to the last.
fn significant(text: &str) -> usize {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len()
}

fn rounded(text: &str, scale: usize) -> Cow<'_, str> {
    let Some((whole, fraction)) = text.split_once('.').filter(|(_, fraction)| fraction.len() > scale) else {
        return Cow::Borrowed(text);
    };
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => ("-", whole),
        None => ("", whole),
    };
    let (kept, cut) = fraction.split_at(scale);
    let mut digits = format!("0{whole}{kept}").into_bytes();
    if cut.as_bytes()[0] >= b'5' {
        let last = digits.iter().rposition(|digit| *digit != b'9').unwrap_or_default();
        digits[last] += 1;
        digits[last + 1..].fill(b'0');
    }
    let is_zero = digits.iter().all(|digit| *digit == b'0');
    let digits: String = digits.into_iter().map(char::from).collect();
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if is_zero { "" } else { sign };
    Cow::Owned(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use query::Type;

    use super::*;

    fn column(native: &str) -> Column {
        Column { nullable: true, ..Column::new("price", Type::Decimal, native) }
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        for (text, scale, expected) in [
            ("1.005", 2, "1.01"),
            ("1.0049", 2, "1.00"),
            ("-0.005", 2, "-0.01"),
            ("-0.004", 2, "0.00"),
            ("9.99", 1, "10.0"),
            ("0.5", 0, "1"),
            ("99.95", 1, "100.0"),
            ("12", 2, "12"),
            ("12.3", 2, "12.3"),
        ] {
            assert_eq!(rounded(text, scale), expected, "{text}");
        }
    }

    #[test]
    fn what_a_column_cannot_hold_is_told_with_its_digits() {
        let price = column("NUMERIC(4,2)");
        assert_eq!(stored(&price, "99.994"), Ok(Cow::Borrowed("99.99")));
        let error = stored(&price, "99.995").expect_err("it has three digits before the point");
        assert_eq!(error.to_string(), "price is out of range: expected decimal of 4 digits, 2 of them after the point");
        assert_eq!(stored(&column("numeric"), "12345.678"), Ok(Cow::Borrowed("12345.678")));
    }

    #[test]
    fn sqlite_keeps_integers_of_64_bits_and_fractions_of_15_digits() {
        let price = column("NUMERIC");
        for kept in ["9223372036854775807", "123456789012.345", "100000000000000000000", "0", "0.000", "-0.00001"] {
            assert_eq!(check_sqlite_digits(&price, kept), Ok(()), "{kept}");
        }
        for lost in ["9223372036854775809", "1234567890123.4567"] {
            assert!(check_sqlite_digits(&price, lost).is_err(), "{lost}");
        }
        assert!(check_sqlite_digits(&price, &format!("1{}", "0".repeat(400))).is_err());
        assert!(check_sqlite_digits(&price, &format!("0.{}1", "0".repeat(400))).is_err());
    }
}
