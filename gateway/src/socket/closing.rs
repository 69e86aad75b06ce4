//! The codes with which a connection is closed.

use mesh::{Code, Fault};
use tungstenite::{Message, Utf8Bytes, protocol::CloseFrame};

/// Bytes that the reason of a close frame may have. Source: RFC 6455, section 5.5.
const REASON_BYTES_MAX: usize = 123;

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq)]
pub struct Closing {
    /// By RFC 6455, section 7.4, or by the protocol: 4400 and above.
    pub code: u16,
    /// For people.
    pub reason: Utf8Bytes,
}

impl Closing {
    /// The node stops; the client connects anew, elsewhere.
    pub const RESTART: Closing = Closing::with(1012, "the node stops; connect again");
    /// `subscribe` before `connection_ack`.
    pub const UNAUTHORIZED: Closing = Closing::with(4401, "Unauthorized");
    /// The client ends the connection by a message.
    pub const TERMINATED: Closing = Closing::with(1000, "");
    /// No `connection_init` in time.
    pub const INIT_TIMEOUT: Closing = Closing::with(4408, "Connection initialisation timeout");
    /// A second `connection_init`.
    pub const INITIALISED_AGAIN: Closing = Closing::with(4429, "Too many initialisation requests");
    /// A message over its limit.
    pub const TOO_LARGE: Closing = Closing::with(1009, "the message is over the limit of limits.body_bytes");
    const MALFORMED: Closing = Closing::with(1002, "invalid frame");

    const fn with(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Utf8Bytes::from_static(reason) }
    }

    fn because(code: u16, reason: &str) -> Self {
        Self { code, reason: reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned().into() }
    }

    /// A message that is none of the protocol, with what is wrong with it.
    pub fn invalid(what: &str) -> Self {
        Self::because(4400, what)
    }

    /// An operation with an id that is taken.
    pub fn known_subscriber(id: &str) -> Self {
        Self::because(4409, &format!("Subscriber for {id} already exists"))
    }

    /// A token that is not valid.
    pub fn forbidden(fault: &Fault) -> Self {
        Self::because(4403, &format!("Forbidden: {}", fault.message))
    }

    /// A message that is none of a protocol whose clients know no codes. Source: RFC 6455, section 7.4.1.
    pub fn unreadable(what: &str) -> Self {
        Self::because(1007, what)
    }

    /// The end of a live query, where the protocol has no message for that: its client begins again, and is told why then.
    pub fn ended(fault: &Fault) -> Self {
        let is_passing = matches!(fault.code, Code::Unavailable | Code::Deadline | Code::TooMany | Code::TooLarge);
        let code = match fault.code {
            Code::Internal => 1011,
            _ if is_passing => 1013,
            _ => 1008,
        };
        Self::because(code, &fault.message)
    }

    /// The token cannot be checked.
    pub fn failed(fault: &Fault) -> Self {
        // Not 4500, after which clients of the protocol do not come back.
        Self::because(1013, &fault.message)
    }

    /// The client has as many sockets as one may have, or what it holds by its messages is over a limit.
    pub fn full(fault: &Fault) -> Self {
        Self::because(1013, &fault.message)
    }

    /// The end of a connection whose frames cannot be read; `None` where it is broken.
    pub fn of(error: &tungstenite::Error) -> Option<Self> {
        match error {
            tungstenite::Error::Capacity(_) => Some(Self::TOO_LARGE),
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Some(Self::TOO_LARGE),
            tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_) => Some(Self::MALFORMED),
            _ => None,
        }
    }
}

impl From<Closing> for Message {
    fn from(closing: Closing) -> Self {
        Message::Close(Some(CloseFrame { code: closing.code.into(), reason: closing.reason }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_live_query_says_whether_to_come_back() {
        for (code, expected) in [
            (Code::TokenExpired, 1008),
            (Code::Denied, 1008),
            (Code::UnknownTable, 1008),
            (Code::Unavailable, 1013),
            (Code::TooMany, 1013),
            (Code::Internal, 1011),
        ] {
            assert_eq!(Closing::ended(&Fault::new(code, "why")), Closing::because(expected, "why"));
        }
    }

    #[test]
    fn a_reason_fits_its_frame() {
        let closing = Closing::known_subscriber(&"ä".repeat(100));
        assert!(closing.reason.len() <= REASON_BYTES_MAX && closing.reason.starts_with("Subscriber for ä"));
    }
}
