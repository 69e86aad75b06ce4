//! Decimals as texts.

use std::cmp::Ordering;

/// Digits on each side of the point that a decimal may have: what PostgreSQL lets a column declare. An exponent must
/// not turn a few bytes of a request into many of memory.
const MOST_DIGITS: usize = 1000;

/// The JSON number `text` without an exponent; `None` where that has too many digits.
pub fn plain(text: &str) -> Option<String> {
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
    let most = i64::try_from(MOST_DIGITS).ok()?;
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
    let Some(plain) = plain(text) else { return Integral::Outside };
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if fraction.bytes().any(|digit| digit != b'0') {
        return Integral::Fraction;
    }
    whole.parse().map_or(Integral::Outside, Integral::Whole)
}

/// How two decimals without exponent compare.
pub fn compare(one: &str, other: &str) -> Ordering {
    let negative = |text: &str| text.starts_with('-') && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    match (negative(one), negative(other)) {
        (false, false) => magnitude(one, other),
        (true, true) => magnitude(other, one),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

fn magnitude(one: &str, other: &str) -> Ordering {
    let (one_whole, one_fraction) = parts(one);
    let (other_whole, other_fraction) = parts(other);
    one_whole
        .len()
        .cmp(&other_whole.len())
        .then_with(|| one_whole.cmp(other_whole))
        .then_with(|| one_fraction.cmp(other_fraction))
}

/// The digits before the point without leading zeros and those after it without trailing ones.
fn parts(text: &str) -> (&str, &str) {
    let digits = text.trim_start_matches('-');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    (whole.trim_start_matches('0'), fraction.trim_end_matches('0'))
}
