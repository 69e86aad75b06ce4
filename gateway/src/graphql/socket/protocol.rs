//! Subprotocols: framings of the same session.

use http::{HeaderMap, header};

/// A subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// `graphql-transport-ws`. Source: github.com/enisdenjo/graphql-ws, PROTOCOL.md.
    Current,
    /// `graphql-ws`, which clients spoke before that. Source: github.com/apollographql/subscriptions-transport-ws,
    /// PROTOCOL.md.
    Legacy,
}

impl Subprotocol {
    /// All, those first that are preferred.
    const ALL: [Self; 2] = [Subprotocol::Current, Subprotocol::Legacy];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Subprotocol::Current => "graphql-transport-ws",
            Subprotocol::Legacy => "graphql-ws",
        }
    }

    /// The one to speak with a client whose handshake offers some; `None` where it offers neither.
    pub fn offered(headers: &HeaderMap) -> Option<Self> {
        let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
        let names: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
        Self::ALL.into_iter().find(|protocol| names.iter().any(|name| name.eq_ignore_ascii_case(protocol.name())))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_newer_one_is_spoken_where_both_are_offered() {
        for (lists, expected) in [
            (&["graphql-transport-ws"][..], Some(Subprotocol::Current)),
            (&["graphql-ws"], Some(Subprotocol::Legacy)),
            (&["graphql-ws, graphql-transport-ws"], Some(Subprotocol::Current)),
            (&["graphql-ws", "graphql-transport-ws"], Some(Subprotocol::Current)),
            (&["chat,graphql-ws"], Some(Subprotocol::Legacy)),
            (&["graphql"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(list));
            }
            assert_eq!(Subprotocol::offered(&headers), expected, "{lists:?}");
        }
    }
}
