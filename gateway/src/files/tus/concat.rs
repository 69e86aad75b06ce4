//! Uploads that are parts of a file, and the file that is put together of them. Source: TUS 1.0.0, concatenation.

use http::{HeaderMap, HeaderValue, Uri};
use mesh::Fault;
use proto::storage::FindUploadResponse;

use super::{UploadsPath, header::UPLOAD_CONCAT};
use crate::{error, http::API_PREFIX};

/// Most bytes of the header.
const HEADER_BYTES: usize = 8 * 1024;
const PARTIAL: &str = "partial";
const FINAL: &str = "final;";

/// What an upload is to others.
#[derive(Debug, PartialEq)]
pub enum Concat {
    /// Nothing.
    Whole,
    /// A part of a file.
    Partial,
    /// The file that is put together of the uploads with these ids.
    Final(Vec<String>),
}

impl Concat {
    /// What a request to uploads of a project says. Errors: it is malformed, or names what is no upload of the project.
    pub fn of(headers: &HeaderMap, project: &str) -> Result<Self, Fault> {
        let Some(value) = headers.get(UPLOAD_CONCAT) else { return Ok(Concat::Whole) };
        let malformed = |what: String| error::bad_request(format!("invalid upload-concat: {what}"));
        if value.len() > HEADER_BYTES {
            return Err(malformed(format!("over the limit of {HEADER_BYTES} bytes: it has {}", value.len())));
        }
        let text = value.to_str().unwrap_or_default();
        if text == PARTIAL {
            return Ok(Concat::Partial);
        }
        let addresses = text.strip_prefix(FINAL).map(str::trim).filter(|addresses| !addresses.is_empty());
        let addresses = addresses.ok_or_else(|| {
            malformed("expected partial, or final; and the addresses of uploads with spaces between".to_owned())
        })?;
        let id = |address: &str| {
            let uri: Uri = address.parse().ok()?;
            let of = UploadsPath::of(uri.path()).filter(|of| of.project(uri.path()) == project)?;
            Some(of.id(uri.path())).filter(|id| !id.is_empty()).map(str::to_owned)
        };
        let ids = addresses.split_ascii_whitespace().map(|address| {
            id(address).ok_or_else(|| malformed(format!("{address} is no address of an upload of the project")))
        });
        Ok(Concat::Final(ids.collect::<Result<_, _>>()?))
    }

    /// What an upload of a project was begun as.
    pub fn told(found: &FindUploadResponse, project: &str) -> Option<HeaderValue> {
        if found.partial {
            return Some(HeaderValue::from_static(PARTIAL));
        }
        let addresses = found.joined_of.iter().map(|id| format!("{API_PREFIX}{project}/uploads/{id}"));
        let addresses: Vec<String> = addresses.collect();
        let told = (!addresses.is_empty()).then(|| format!("{FINAL}{}", addresses.join(" ")))?;
        HeaderValue::from_str(&told).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_a_part_or_put_together_of_others() {
        let of = |text: &str| {
            let value = HeaderValue::from_str(text).expect("the test sends a legal header");
            Concat::of(&HeaderMap::from_iter([(UPLOAD_CONCAT, value)]), "shop")
        };
        assert_eq!(Concat::of(&HeaderMap::new(), "shop"), Ok(Concat::Whole));
        assert_eq!(of("partial"), Ok(Concat::Partial));
        let ids = Concat::Final(vec!["a".to_owned(), "b-_".to_owned()]);
        assert_eq!(of("final;/v1/api/shop/uploads/a  http://localhost:4122/v1/api/shop/uploads/b-_"), Ok(ids));
        for wrong in [
            "",
            "Partial",
            "final",
            "final;",
            "final; ",
            "final;a",
            "final;/v1/api/shop/uploads/",
            "final;/v1/api/other/uploads/a",
            "final;/v1/api/shop/files/a",
            "final;/v1/api/shop/uploads/a,/v1/api/other/uploads/b /x",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert!(of(&format!("final;{}", "/v1/api/shop/uploads/a ".repeat(400))).is_err(), "it is too long");
    }

    #[test]
    fn what_it_was_begun_as_is_told_again() {
        let told = |found: FindUploadResponse| {
            Concat::told(&found, "shop").map(|told| told.to_str().unwrap_or_default().to_owned())
        };
        assert_eq!(told(FindUploadResponse::default()), None);
        assert_eq!(told(FindUploadResponse { partial: true, ..Default::default() }).as_deref(), Some("partial"));
        let joined_of = vec!["a".to_owned(), "b".to_owned()];
        let of = told(FindUploadResponse { joined_of, ..Default::default() });
        assert_eq!(of.as_deref(), Some("final;/v1/api/shop/uploads/a /v1/api/shop/uploads/b"));
    }
}
