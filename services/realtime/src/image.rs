//! Images: rows as JSON objects, of which watches tell parts without reading their values.

use std::fmt;

use bytes::Bytes;
use query::{Field, FieldKind};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Error;

/// Image of a row: the JSON texts of its columns, by their names, in the order of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    json: Bytes,
    columns: Vec<(String, std::ops::Range<usize>)>,
}

impl Image {
    /// The image that a JSON object is.
    pub fn parse(json: Bytes) -> Result<Self, Error> {
        let unreadable = |error: serde_json::Error| Error::Unreadable(error.to_string());
        let mut reader = serde_json::Deserializer::from_slice(&json);
        let members = reader.deserialize_map(Members).map_err(unreadable)?;
        reader.end().map_err(unreadable)?;
        let place = |text: &str| {
            let start = text.as_ptr().addr() - json.as_ptr().addr();
            start..start + text.len()
        };
        let columns = members.into_iter().map(|(name, value)| (name, place(value.get()))).collect();
        Ok(Self { columns, json })
    }

    /// The rows of an answer, a JSON array.
    pub fn rows(json: &Bytes) -> Result<Vec<Bytes>, Error> {
        let rows: Vec<&RawValue> =
            serde_json::from_slice(json).map_err(|error| Error::Unreadable(error.to_string()))?;
        Ok(rows.into_iter().map(|row| json.slice_ref(row.get().as_bytes())).collect())
    }

    /// The JSON text of a column; `None` where the image has none.
    pub fn column(&self, name: &str) -> Option<&[u8]> {
        let (_, place) = self.columns.iter().find(|(known, _)| known == name)?;
        Some(&self.json[place.clone()])
    }

    /// The names of its columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// The object that `fields` ask for; `is_told` says of which columns, the others are null.
    pub fn object(&self, fields: &[Field], is_told: impl Fn(&str) -> bool) -> Bytes {
        let mut out = Vec::with_capacity(self.json.len());
        out.push(b'{');
        let mut member = |key: &str, value: &[u8]| {
            if out.len() > 1 {
                out.push(b',');
            }
            write_text(&mut out, key);
            out.push(b':');
            out.extend_from_slice(value);
        };
        for field in fields {
            let value = |name: &str| self.column(name).filter(|_| is_told(name)).unwrap_or(b"null");
            match &field.kind {
                FieldKind::Column(name) => member(&field.key, value(name)),
                FieldKind::Constant(text) => {
                    let mut constant = Vec::new();
                    write_text(&mut constant, text);
                    member(&field.key, &constant);
                }
                // A plan has none of these: see `Plan::of`.
                FieldKind::Columns | FieldKind::Count | FieldKind::Relation { .. } => {}
            }
        }
        out.push(b'}');
        out.into()
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON and memory takes it");
}

/// Reads the members of an object.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &'static str) -> Image {
        Image::parse(Bytes::from_static(json.as_bytes())).unwrap()
    }

    fn object(image: &Image, fields: &[Field]) -> String {
        String::from_utf8(image.object(fields, |name| name != "hidden").to_vec()).unwrap()
    }

    #[test]
    fn fields_are_the_bytes_of_the_image() {
        let image = image(r#"{"id":1,"a \"b\"":12345678901234567890.10,"t":"ä\n","l":[1, {"x":2}],"hidden":3}"#);
        let fields = [
            Field { key: "x".to_owned(), kind: FieldKind::Column("a \"b\"".to_owned()) },
            Field::column("l"),
            Field { key: "__typename".to_owned(), kind: FieldKind::Constant("\"row\"".to_owned()) },
            Field::column("hidden"),
            Field::column("none"),
        ];
        let expected =
            r#"{"x":12345678901234567890.10,"l":[1, {"x":2}],"__typename":"\"row\"","hidden":null,"none":null}"#;
        assert_eq!(object(&image, &fields), expected);
        assert_eq!(object(&image, &[]), "{}");
        assert_eq!(image.names().collect::<Vec<_>>(), ["id", "a \"b\"", "t", "l", "hidden"]);
    }

    #[test]
    fn rows_are_parts_of_the_answer() {
        let rows = Image::rows(&Bytes::from_static(br#"[{"id":1}, {"id":2}]"#)).unwrap();
        assert_eq!(rows, [r#"{"id":1}"#, r#"{"id":2}"#]);
        assert_eq!(Image::rows(&Bytes::from_static(b"[]")).unwrap(), Vec::<Bytes>::new());
    }

    #[test]
    fn what_is_no_row_is_not_read() {
        for json in ["", "null", "[]", "{\"a\":}", "{\"a\":1}x"] {
            assert!(Image::parse(Bytes::from_static(json.as_bytes())).is_err(), "{json}");
        }
    }
}
