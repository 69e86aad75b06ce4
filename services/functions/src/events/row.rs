//! Images of rows, as the log of changes has them.

use mesh::Fault;
use query::{Object, image};
use serde_json::value::RawValue;

/// A row as a JSON object, of which members are told without reading their values.
#[derive(Debug)]
pub struct RowImage<'j> {
    /// Its text.
    pub json: &'j str,
    members: Vec<(String, &'j RawValue)>,
}

impl<'j> RowImage<'j> {
    /// The image that a JSON object is; `None` for no bytes.
    pub fn read(json: &'j [u8]) -> Result<Option<Self>, Fault> {
        if json.is_empty() {
            return Ok(None);
        }
        let wrong = |cause: String| Fault::internal("a change of a row cannot be read", cause);
        let json = std::str::from_utf8(json).map_err(|error| wrong(error.to_string()))?;
        let members = image::columns(json.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Self { json, members }))
    }

    /// The names of its columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// The JSON text of a column; `None` where the image has none.
    pub fn column(&self, name: &str) -> Option<&'j str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// The values by which conditions are decided. Lists and objects, by which none is, are empty.
    pub fn values(&self) -> Object {
        Object(self.members.iter().map(|(name, json)| (name.clone(), image::column_value(json.get()))).collect())
    }
}
