//! Texts of a binary log, which have the character set of their column.

use std::borrow::Cow;

/// Characters of the bytes 0x80 to 0x9f in `latin1`, which is Windows-1252 here; `\0` stands for the byte itself.
const LATIN1_HIGH: [char; 32] = [
    '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“', '”', '•',
    '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
];

/// A character set whose texts are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8, a part of it, or bytes that are no text.
    Plain,
    Latin1,
    /// Two bytes for a unit, the higher first: `ucs2` and `utf16`.
    Utf16,
    Utf16Le,
    Utf32,
}

impl Charset {
    /// That of a name; `None` where its texts are not understood.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" | "binary" => Charset::Plain,
            "latin1" => Charset::Latin1,
            "ucs2" | "utf16" => Charset::Utf16,
            "utf16le" => Charset::Utf16Le,
            "utf32" => Charset::Utf32,
            _ => return None,
        })
    }

    /// A text in UTF-8.
    pub fn utf8(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        let text: String = match self {
            Charset::Plain => return Cow::Borrowed(bytes),
            Charset::Latin1 if bytes.is_ascii() => return Cow::Borrowed(bytes),
            Charset::Latin1 => bytes.iter().map(|byte| latin1(*byte)).collect(),
            Charset::Utf16 => utf16(bytes, u16::from_be_bytes),
            Charset::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Charset::Utf32 => {
                let units = bytes.as_chunks::<4>().0.iter().map(|unit| u32::from_be_bytes(*unit));
                units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
        };
        Cow::Owned(text.into_bytes())
    }
}

fn latin1(byte: u8) -> char {
    let high = byte.checked_sub(0x80).and_then(|index| LATIN1_HIGH.get(usize::from(index)));
    high.copied().filter(|char| *char != '\0').unwrap_or(char::from(byte))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
    char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_in_their_character_set() {
        for (name, bytes, text) in [
            ("utf8mb3", "é€".as_bytes(), "é€"),
            ("latin1", b"\xe9\x80\x81".as_slice(), "é€\u{81}"),
            ("ucs2", b"\x00a\x20\xac".as_slice(), "a€"),
            ("utf16", b"\xd8\x3d\xde\x00".as_slice(), "😀"),
            ("utf16le", b"\x3d\xd8\x00\xde".as_slice(), "😀"),
            ("utf32", b"\x00\x01\xf6\x00".as_slice(), "😀"),
        ] {
            assert_eq!(Charset::parse(name).unwrap().utf8(bytes), text.as_bytes(), "{name}");
        }
        assert_eq!(Charset::parse("sjis"), None);
    }
}
