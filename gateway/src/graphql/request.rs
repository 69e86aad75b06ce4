//! Requests and media types of GraphQL over HTTP.

use axum::extract::Query;
use http::{HeaderMap, HeaderValue, Uri, header};
use mesh::{Code, Fault};
use query::{Guard, Object, Value};

use crate::{
    error,
    http::{ContentType, HeaderSummary},
};

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// A GraphQL request.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// The document.
    pub query: String,
    /// The operation to carry out, where the document has several.
    pub operation: Option<String>,
    /// Values of its variables.
    pub variables: Object,
}

impl Request {
    /// Parses the body of a POST.
    pub fn of_json(body: &[u8], guard: Guard) -> Result<Self, Fault> {
        match proto::json::parse(body, guard).map_err(Fault::from)? {
            Value::Object(members) => Self::of_members(members),
            Value::List(_) => Err(error::bad_request("invalid body: expected one operation, found array")),
            other => Err(error::bad_request(format!(
                "invalid body: expected object with the member query, found {}",
                other.kind()
            ))),
        }
    }

    /// Parses the query string of a GET.
    pub fn of_parameters(query: &str, guard: Guard) -> Result<Self, Fault> {
        let uri: Uri = format!("/?{query}").parse().map_err(|_| error::bad_request("the address is malformed"))?;
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
            .map_err(|cause| error::bad_request(format!("the address is malformed: {cause}")))?;
        let mut members: Vec<(String, Value)> = Vec::with_capacity(parameters.len());
        for (name, text) in parameters {
            if members.iter().any(|(other, _)| *other == name) {
                return Err(error::bad_request(format!("parameter {name} is given twice")));
            }
            let value = match name.as_str() {
                "variables" | "extensions" if !text.is_empty() => parsed(&name, &text, guard)?,
                "variables" | "extensions" => Value::Null,
                _ => Value::Text(text),
            };
            members.push((name, value));
        }
        Self::of_members(Object(members))
    }

    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.query.len() + self.operation.as_ref().map_or(0, String::len) + self.variables.memory_bytes()
    }

    /// Takes the members of a request.
    pub fn of_members(members: Object) -> Result<Self, Fault> {
        let (mut query, mut operation, mut variables) = (None, None, Object::default());
        for (name, value) in members.0 {
            match (name.as_str(), value) {
                ("query", Value::Text(text)) => query = Some(text),
                ("query", Value::Null) => {}
                ("operationName", Value::Text(text)) => operation = Some(text).filter(|text| !text.is_empty()),
                ("operationName", Value::Null) => {}
                ("variables", Value::Object(object)) => variables = object,
                ("extensions", Value::Object(_)) | ("variables" | "extensions", Value::Null) => {}
                ("query" | "operationName", other) => return Err(wrong(&name, "string", &other)),
                ("variables" | "extensions", other) => return Err(wrong(&name, "object", &other)),
                // The specification leaves other members to extensions of it that we do not know.
                _ => {}
            }
        }
        let query = query.ok_or_else(|| Fault::new(Code::Required, "query is required"))?;
        Ok(Self { query, operation, variables })
    }
}

fn parsed(name: &str, text: &str, guard: Guard) -> Result<Value, Fault> {
    proto::json::parse(text.as_bytes(), guard).map_err(|error| {
        let fault = Fault::from(error);
        Fault { message: format!("{name}: {}", fault.message), ..fault }
    })
}

fn wrong(name: &str, expected: &str, found: &Value) -> Fault {
    error::bad_request(format!("invalid {name}: expected {expected}, found {}", found.kind()))
}

/// Refuses bodies that are not JSON in UTF-8.
pub fn check_content_type(headers: &HeaderMap, summary: HeaderSummary) -> Result<(), Fault> {
    if summary.content == ContentType::Json {
        return Ok(());
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(error::bad_request("the content type is missing: send application/json"));
    };
    let text = value.to_str().unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.eq_ignore_ascii_case(JSON) {
        return Err(error::bad_request(format!("content type {media:?} is not supported: send application/json")));
    }
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset")
            && !matches!(value.to_ascii_lowercase().as_str(), "utf-8" | "utf8")
        {
            return Err(error::bad_request(format!("charset {value:?} is not supported: send utf-8")));
        }
    }
    Ok(())
}

/// Media type of the response, which decides its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/graphql-response+json`: the status says what went wrong.
    Graphql,
    /// `application/json`, because the client asked for it: a request that is understood is answered with 200, whatever
    /// is wrong with its document, since such clients take other statuses for the word of something in between.
    Json,
    /// `application/json`, because the client did not say: the status says what went wrong.
    Unspecified,
    /// `text/event-stream`: answers are events, and what comes in their place is `application/json`.
    Events,
}

impl Media {
    /// The media type that the client prefers; without a preference JSON.
    pub fn of(headers: &HeaderMap, summary: HeaderSummary) -> Self {
        if summary.accepts_json {
            return Media::Json;
        }
        let mut accepted = headers.get_all(header::ACCEPT).iter();
        match (accepted.next(), accepted.next()) {
            (None, _) => Media::Unspecified,
            // What most other clients send needs no preferences.
            (Some(only), None) => Media::named(only.as_bytes()).unwrap_or_else(|| Media::preferred(headers)),
            (Some(_), Some(_)) => Media::preferred(headers),
        }
    }

    /// The media type of this name, of any case.
    fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is(JSON) => Some(Media::Json),
            () if is(GRAPHQL) => Some(Media::Graphql),
            () if is(EVENTS) => Some(Media::Events),
            () if is("*/*") || is("application/*") => Some(Media::Unspecified),
            () => None,
        }
    }

    fn preferred(headers: &HeaderMap) -> Self {
        let mut best: Option<(f32, Media)> = None;
        let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let Some(media) = Media::named(parts.next().unwrap_or_default().as_bytes()) else { continue };
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.and_then(|weight| weight.trim().parse().ok()).unwrap_or(1.0);
            if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
                best = Some((weight, media));
            }
        }
        best.map_or(Media::Unspecified, |(_, media)| media)
    }

    /// The content type of answers that are not events.
    pub fn content_type(self) -> HeaderValue {
        const GRAPHQL: HeaderValue = HeaderValue::from_static("application/graphql-response+json; charset=utf-8");
        const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
        match self {
            Media::Graphql => GRAPHQL,
            Media::Json | Media::Unspecified | Media::Events => JSON,
        }
    }

    /// The status of a request that was understood and failed with `code`.
    pub fn status(self, code: Code) -> u16 {
        match (self, code.http()) {
            (Media::Json, 400 | 404 | 409) => 200,
            (_, status) => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    fn media(accept: &'static str) -> Media {
        let headers = headers(header::ACCEPT, accept);
        Media::of(&headers, HeaderSummary::of(&headers))
    }

    #[test]
    fn the_client_says_how_it_is_answered() {
        assert_eq!(media("application/graphql-response+json"), Media::Graphql);
        assert_eq!(media("application/json"), Media::Json);
        assert_eq!(media("application/graphql-response+json, application/json;q=0.9"), Media::Graphql);
        assert_eq!(media("application/graphql-response+json;q=0.5, application/json"), Media::Json);
        assert_eq!(media("application/json;q=0, */*;q=0.1"), Media::Unspecified);
        assert_eq!(media("*/*"), Media::Unspecified);
        assert_eq!(media("text/html"), Media::Unspecified);
        assert_eq!(media("Text/Event-Stream"), Media::Events);
        assert_eq!(media("text/event-stream, multipart/mixed"), Media::Events);
        assert_eq!(media("application/json, text/event-stream"), Media::Json);
        assert_eq!(Media::of(&HeaderMap::new(), HeaderSummary::default()), Media::Unspecified);
    }

    #[test]
    fn a_client_that_asks_for_json_gets_200_for_what_it_can_mend() {
        assert_eq!(Media::Json.status(Code::BadRequest), 200);
        assert_eq!(Media::Json.status(Code::Unauthenticated), 401);
        assert_eq!(Media::Json.status(Code::Unavailable), 503);
        assert_eq!(Media::Graphql.status(Code::UnknownTable), 404);
        assert_eq!(Media::Unspecified.status(Code::BadRequest), 400);
    }

    #[test]
    fn bodies_are_json_in_utf_8() {
        let checked = |content_type| {
            let headers = headers(header::CONTENT_TYPE, content_type);
            check_content_type(&headers, HeaderSummary::of(&headers))
        };
        for fine in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert!(checked(fine).is_ok(), "{fine}");
        }
        for wrong in ["text/plain", "application/json; charset=latin1", ""] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn members_of_wrong_types_are_refused() {
        for body in [
            r#"{}"#,
            r#"[]"#,
            r#"{"query": 0}"#,
            r#"{"query": "{a}", "variables": []}"#,
            r#"{"query": "{a}", "operationName": 1}"#,
            r#"{"query": "{a}", "extensions": "x"}"#,
            r#"{"query"#,
        ] {
            assert!(Request::of_json(body.as_bytes(), Guard::default()).is_err(), "{body}");
        }
    }

    #[test]
    fn null_members_are_absent() {
        let body = r#"{"query": "{a}", "variables": null, "operationName": null, "extensions": null}"#;
        let request = Request::of_json(body.as_bytes(), Guard::default()).unwrap();

        assert_eq!(request, Request { query: "{a}".to_owned(), operation: None, variables: Object::default() });
    }

    #[test]
    fn an_address_carries_the_same_members() {
        let request =
            Request::of_parameters("query=%7Ba%7D&operationName=A&variables=%7B%22x%22%3A1%7D", Guard::default())
                .unwrap();

        assert_eq!(request.query, "{a}");
        assert_eq!(request.operation.as_deref(), Some("A"));
        assert_eq!(request.variables.get("x"), Some(&Value::Int(1)));
        assert!(Request::of_parameters("query=a&query=b", Guard::default()).is_err());
        assert!(Request::of_parameters("query=a&variables=x", Guard::default()).is_err());
        assert!(Request::of_parameters("", Guard::default()).is_err());
    }
}
