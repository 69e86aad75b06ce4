//! Images: rows as JSON objects, of which watches tell parts without reading their values.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use query::{Field, FieldKind, Object, image};
use serde_json::value::RawValue;

use crate::Error;

/// Image of a row: the JSON texts of its columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    json: Bytes,
    /// In the order of the table; images of one table share them.
    names: Arc<[String]>,
    /// Where the text of each column is.
    places: Vec<Range<usize>>,
}

/// Reads images of one table.
#[derive(Debug, Default)]
pub struct ImageReader {
    names: Arc<[String]>,
}

/// A change of one row; at least one of both is there.
#[derive(Debug)]
pub struct RowChange {
    /// The row as it was.
    pub before: Option<RowVersion>,
    /// The row as it is.
    pub after: Option<RowVersion>,
}

/// A row at a moment.
#[derive(Debug)]
pub struct RowVersion {
    /// What is told of it.
    pub image: Image,
    /// What conditions on it are decided by.
    pub values: Object,
}

impl ImageReader {
    /// The image that a JSON object is.
    pub fn read(&mut self, json: Bytes) -> Result<Image, Error> {
        let members = image::columns(&json).map_err(|error| Error::Unreadable(error.to_string()))?;
        let is_same = members.len() == self.names.len()
            && members.iter().zip(&*self.names).all(|((name, _), known)| name == known);
        let place = |text: &str| {
            let start = text.as_ptr().addr() - json.as_ptr().addr();
            start..start + text.len()
        };
        let places = members.iter().map(|(_, value)| place(value.get())).collect();
        if !is_same {
            self.names = members.into_iter().map(|(name, _)| name).collect();
        }
        Ok(Image { json, names: self.names.clone(), places })
    }
}

impl Image {
    /// The rows of an answer, a JSON array.
    pub fn rows(json: &Bytes) -> Result<Vec<Bytes>, Error> {
        let rows: Vec<&RawValue> =
            serde_json::from_slice(json).map_err(|error| Error::Unreadable(error.to_string()))?;
        Ok(rows.into_iter().map(|row| json.slice_ref(row.get().as_bytes())).collect())
    }

    /// The names of its columns, in the order of the table.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Whether it has the same text.
    pub fn is_same(&self, other: &Image) -> bool {
        self.json == other.json
    }

    /// Bytes of its text.
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// The JSON text of a column; `None` where the image has none.
    pub fn column(&self, name: &str) -> Option<&[u8]> {
        let index = self.names.iter().position(|known| known == name)?;
        Some(&self.json[self.places[index].clone()])
    }

    /// The values by which conditions are decided. Lists and objects, by which none is, are empty.
    pub fn values(&self) -> Object {
        let text = |place: &Range<usize>| std::str::from_utf8(&self.json[place.clone()]).unwrap_or_default();
        let value = |place: &Range<usize>| image::column_value(text(place));
        Object(self.names.iter().cloned().zip(self.places.iter().map(value)).collect())
    }

    /// The object that `fields` ask for; `is_told` says of which columns, the others are null.
    pub fn object(&self, fields: &[Field], is_told: impl Fn(&str) -> bool) -> Bytes {
        let mut out = Vec::with_capacity(self.json.len());
        out.push(b'{');
        for field in fields {
            if out.len() > 1 {
                out.push(b',');
            }
            write_text(&mut out, &field.key);
            out.push(b':');
            match &field.kind {
                FieldKind::Column(name) => {
                    let value = self.column(name).filter(|_| is_told(name));
                    out.extend_from_slice(value.unwrap_or(b"null"));
                }
                FieldKind::Constant(text) => write_text(&mut out, text),
                // A plan has none of these: see `Plan::of`.
                FieldKind::Columns | FieldKind::Count | FieldKind::Relation { .. } => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
        out.into()
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON and memory takes it");
}

#[cfg(test)]
mod tests {
    use query::Value;

    use super::*;

    fn image(json: &'static str) -> Image {
        ImageReader::default().read(Bytes::from_static(json.as_bytes())).unwrap()
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
        assert_eq!(**image.names(), ["id", "a \"b\"", "t", "l", "hidden"].map(str::to_owned));
    }

    #[test]
    fn values_keep_every_digit() {
        let image =
            image(r#"{"a":9223372036854775807,"b":1.10,"c":"ä\u0000","d":null,"e":true,"f":false,"g":[1],"h":{}}"#);
        let values = image.values();
        let expected = [
            ("a", Value::Int(i64::MAX)),
            ("b", Value::Number("1.10".to_owned())),
            ("c", Value::Text("ä\0".to_owned())),
            ("d", Value::Null),
            ("e", Value::Bool(true)),
            ("f", Value::Bool(false)),
            ("g", Value::List(Vec::new())),
            ("h", Value::Object(Object::default())),
        ];
        assert_eq!(values.0, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn images_of_one_table_share_the_names_of_their_columns() {
        let mut reader = ImageReader::default();
        let mut read = |json: &'static str| reader.read(Bytes::from_static(json.as_bytes())).unwrap();
        let (one, other, wider) = (read(r#"{"id":1}"#), read(r#"{"id":2}"#), read(r#"{"id":2,"a":3}"#));
        assert!(Arc::ptr_eq(one.names(), other.names()));
        assert!(!Arc::ptr_eq(one.names(), wider.names()));
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
            assert!(ImageReader::default().read(Bytes::from_static(json.as_bytes())).is_err(), "{json}");
        }
    }
}
