//! UUIDs between bytes and text.

/// Writes a UUID, lower case, with hyphens.
pub fn write(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// The bytes of 32 hexadecimal digits, wherever hyphens stand between them.
pub fn parse(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut count = 0;
    for digit in text.bytes().filter(|byte| *byte != b'-') {
        let value = char::from(digit).to_digit(16)? as u8;
        let place = bytes.get_mut(count / 2)?;
        *place = *place << 4 | value;
        count += 1;
    }
    (count == 32).then_some(bytes)
}
