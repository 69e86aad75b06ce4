//! What every call begins with: who calls, and whether the message is within the limits of its project.

use std::sync::Arc;

use http::{Extensions, HeaderMap};
use mesh::{Code, Fault};
use prost::Message;

use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    error,
    http::{body, cors::RequestedProject, current},
};

/// The caller of a request whose message is within the body limit of its project; and the project, where all is known
/// of it.
pub fn accepted(
    service: &Service,
    (headers, extensions): (&HeaderMap, &Extensions),
    message: &impl Message,
    project: &str,
) -> Result<(Caller, Option<Arc<Project>>), Fault> {
    let caller = Caller::of(current(), headers)?;
    if let Some(requested) = extensions.get::<RequestedProject>() {
        requested.set(project);
    }
    let known = service.edge().known(project);
    let limit = body::limit(service.config(), known.as_ref().map(|known| &*known.project));
    if limit < service.config().body_bytes {
        let size = message.encoded_len();
        if size > limit {
            return Err(body::too_large(limit, Some(size as u64)));
        }
    }
    Ok((caller, known.filter(|known| known.is_described).map(|known| known.project)))
}

/// `value`, the field `name` of a message. Errors: it is empty, or has a NUL character.
pub fn required<'a>(name: &str, value: &'a str) -> Result<&'a str, Fault> {
    match value {
        "" => Err(Fault::new(Code::Required, format!("{name} is required"))),
        value if value.contains('\0') => Err(error::bad_request(format!("{name} has a NUL character"))),
        value => Ok(value),
    }
}
