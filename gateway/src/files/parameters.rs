//! Parameters of the addresses of files.

use axum::extract::Query;
use http::Uri;
use mesh::Fault;
use proto::auth::FileSignature;

use crate::error;

/// The parameters of an address, each given once.
#[derive(Debug, Default)]
pub struct FileParameters(Vec<(String, String)>);

impl FileParameters {
    /// The parameters of `uri`. Errors: `BAD_REQUEST` for one that is given twice, or that is malformed.
    pub fn of(uri: &Uri) -> Result<Self, Fault> {
        let malformed = |cause| error::bad_request(format!("the address is malformed: {cause}"));
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(malformed)?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if pairs[..index].iter().any(|(other, _)| other == name) {
                return Err(error::bad_request(format!("parameter {name} is given twice")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A number; `default` where there is none.
    pub fn number(&self, name: &str, default: u32) -> Result<u32, Fault> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|_| error::bad_request(format!("invalid {name} {text:?}: expected integer")))
    }

    /// A flag; off where there is none.
    pub fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(error::bad_request(format!("invalid {name} {other:?}: expected true or false"))),
        }
    }

    /// The signature of the address, if it has one.
    pub fn signature(&self) -> Result<Option<FileSignature>, Fault> {
        let Some(signature) = self.get("signature") else { return Ok(None) };
        let expires = self.get("expires").and_then(|text| text.parse().ok());
        let expires_s = expires.ok_or_else(|| error::bad_request("invalid expires: expected seconds since 1970"))?;
        Ok(Some(FileSignature { expires_s, signature: signature.to_owned() }))
    }
}
