//! Images that are made of files: what the address asks for.

use http::HeaderMap;
use mesh::Fault;
use proto::storage::{
    ImageRequest,
    image_request::{Fit, Format},
};

use super::{conditional, parameters::FileParameters};
use crate::error;

/// Words of `fit`.
const FITS: [(&str, Fit); 3] = [("contain", Fit::Contain), ("cover", Fit::Cover), ("fill", Fit::Fill)];
/// Words of `format`.
const FORMATS: [(&str, Format); 3] = [("jpeg", Format::Jpeg), ("png", Format::Png), ("webp", Format::Webp)];

/// The image that the parameters ask for; `None` where they ask for none.
pub fn wanted(parameters: &FileParameters, headers: &HeaderMap) -> Result<Option<ImageRequest>, Fault> {
    if ["w", "h", "fit", "format", "q"].iter().all(|name| parameters.get(name).is_none()) {
        return Ok(None);
    }
    let (width, height) = (positive(parameters, "w")?, positive(parameters, "h")?);
    let fit = word(parameters, "fit", FITS)?.unwrap_or_default();
    if fit != Fit::Unspecified && (width == 0 || height == 0) {
        return Err(error::bad_request("invalid fit: expected w and h beside it"));
    }
    Ok(Some(ImageRequest {
        width,
        height,
        fit: fit.into(),
        format: word(parameters, "format", FORMATS)?.unwrap_or_default().into(),
        quality: positive(parameters, "q")?,
        known_etags: conditional::known_etags(headers)?,
    }))
}

/// A number from 1 on; 0 where there is none.
fn positive(parameters: &FileParameters, name: &str) -> Result<u32, Fault> {
    match (parameters.get(name), parameters.number(name, 0)?) {
        (Some(text), 0) => Err(error::bad_request(format!("invalid {name} {text:?}: must be at least 1"))),
        (_, number) => Ok(number),
    }
}

fn word<T: Copy, const N: usize>(
    parameters: &FileParameters,
    name: &str,
    words: [(&str, T); N],
) -> Result<Option<T>, Fault> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let known = words.map(|(word, _)| word);
    found.map(Some).ok_or_else(|| {
        let hint = query::nearest(text, known).map(|near| format!(", did you mean {near}?")).unwrap_or_default();
        error::bad_request(format!("invalid {name} {text:?}: expected one of {}{hint}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Option<ImageRequest>, String> {
        let uri = format!("http://a/b?{query}").parse().expect("a sound address");
        let parameters = FileParameters::of(&uri).map_err(|fault| fault.message.to_string())?;
        wanted(&parameters, &HeaderMap::new()).map_err(|fault| fault.message.to_string())
    }

    #[test]
    fn parameters_ask_for_an_image() {
        assert_eq!(asked("download=x&op=y"), Ok(None));
        let image = asked("w=10&h=20&fit=cover&format=webp&q=70").expect("it is sound").expect("it is asked for");
        assert_eq!((image.width, image.height, image.quality), (10, 20, 70));
        assert_eq!((image.fit(), image.format()), (Fit::Cover, Format::Webp));
        let image = asked("w=10").expect("it is sound").expect("it is asked for");
        assert_eq!((image.height, image.fit(), image.format()), (0, Fit::Unspecified, Format::Unspecified));
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (query, told) in [
            ("w=0", "invalid w \"0\": must be at least 1"),
            ("h=-1", "invalid h \"-1\": expected integer"),
            ("w=99999999999", "invalid w \"99999999999\": expected integer"),
            ("q=0", "invalid q \"0\": must be at least 1"),
            ("w=", "invalid w \"\": expected integer"),
            ("w=1&w=2", "parameter w is given twice"),
            ("fit=cover&w=1", "invalid fit: expected w and h beside it"),
            ("w=1&h=1&fit=covr", "invalid fit \"covr\": expected one of contain, cover, fill, did you mean cover?"),
            ("format=gif", "invalid format \"gif\": expected one of jpeg, png, webp"),
        ] {
            let found = asked(query).expect_err(query);
            assert!(found.starts_with(told), "{query}: {found}");
        }
    }
}
