//! UUIDs between bytes and text.

/// Where hyphens stand in the form of RFC 9562, section 4, before which bytes.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

/// The UUID of `text`, in either case: 32 hexadecimal digits, with hyphens where RFC 9562 puts them or without any.
pub fn parse(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    let has_hyphens = text.len() == 36;
    if !has_hyphens && text.len() != 32 {
        return None;
    }
    let digit = |at: usize| char::from(text[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 16];
    let mut at = 0;
    for (index, byte) in bytes.iter_mut().enumerate() {
        if has_hyphens && HYPHENS.contains(&index) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        *byte = digit(at)? << 4 | digit(at + 1)?;
        at += 2;
    }
    Some(bytes)
}

/// Writes a UUID, lower case, with hyphens.
pub fn write(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in bytes.iter().enumerate() {
        if HYPHENS.contains(&index) {
            out.push(b'-');
        }
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_it_is_read() {
        let text = "0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d";
        for spelling in [text.to_owned(), text.to_uppercase(), text.replace('-', "")] {
            let mut out = Vec::new();
            write(&mut out, &parse(&spelling).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), text, "{spelling}");
        }
    }

    #[test]
    fn hyphens_and_digits_have_their_places() {
        for text in [
            "",
            "0190c2c4",
            "0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1g",
            "0190c2c47-a3e-7cc1-9a3b-5d0a4f0e6b1d",
            "0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d0",
            "é190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
