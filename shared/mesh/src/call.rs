//! Call context: the request id, trace and deadline that travel with every call.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue};

const REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";
const TIMEOUT: &str = "grpc-timeout";

tokio::task_local! {
    static CURRENT: Call;
}

/// One request of a client on its way through the mesh.
#[derive(Debug, Clone)]
pub struct Call {
    /// The client's `X-Request-Id`, or one made at the edge.
    pub request_id: Arc<str>,
    /// W3C trace context of the span that this call belongs to.
    pub traceparent: Option<Arc<str>>,
    /// Deadline of the answer.
    pub deadline: Option<Instant>,
    /// Whoever began the call gives it up at its deadline, so links set no timer.
    is_watched: bool,
}

impl Call {
    /// A call that begins here, at the edge: what the client sent is taken where it is well formed; without a request
    /// id one is made. A trace goes on as a child span.
    pub fn begin(request_id: Option<&str>, traceparent: Option<&str>, time: Option<Duration>) -> Call {
        Self::begin_at(Instant::now(), request_id, traceparent, time)
    }

    /// As [`Call::begin`], for a request that came at `start`.
    pub fn begin_at(
        start: Instant,
        request_id: Option<&str>,
        traceparent: Option<&str>,
        time: Option<Duration>,
    ) -> Call {
        let request_id = request_id.filter(|id| is_request_id(id)).map_or_else(made_request_id, Arc::from);
        let traceparent = traceparent.and_then(child_span);
        let deadline = time.and_then(|time| start.checked_add(time));
        Call { request_id, traceparent, deadline, is_watched: false }
    }

    /// The call that is being answered here, if any is.
    pub fn current() -> Option<Call> {
        CURRENT.try_with(Call::clone).ok()
    }

    /// Whether it is [`Call::current`], and has no trace to which a step would be added.
    pub(crate) fn is_current(&self) -> bool {
        let is_same = |current: &Call| {
            let Call { request_id, traceparent, deadline, is_watched } = current;
            Arc::ptr_eq(request_id, &self.request_id)
                && (traceparent, &self.traceparent) == (&None, &None)
                && (*deadline, *is_watched) == (self.deadline, self.is_watched)
        };
        CURRENT.try_with(is_same).unwrap_or(false)
    }

    /// The call without timers of links: the caller enforces the deadline itself.
    pub fn without_timer(self) -> Call {
        Call { is_watched: true, ..self }
    }

    /// The deadline that a link has to enforce, if it has to.
    pub(crate) fn timer_deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.is_watched)
    }

    /// `message` as the next step of this call: identity, trace and the time that is left travel with it.
    pub(crate) fn next<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(self.clone());
        request
    }

    /// Time until the deadline; zero when it has passed, `None` without one.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The call of a request from another node, as a child span.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Call {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Call::begin(text(REQUEST_ID), text(TRACEPARENT), text(TIMEOUT).and_then(timeout))
    }

    /// Writes the call into the headers of a request to another node.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        // They are other texts in each call: not for the table of the headers that HTTP/2 sends only once.
        let value = |text: &str| {
            let mut value = HeaderValue::from_str(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        if let Some(id) = value(&self.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(parent) = self.traceparent.as_deref().and_then(value) {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(left) = self.time_left().and_then(|left| value(&timeout_header(left))) {
            headers.insert(TIMEOUT, left);
        }
    }

    /// The call inside the service that answers it, as a child span.
    pub(crate) fn child(mut self) -> Call {
        if let Some(parent) = &self.traceparent {
            self.traceparent = child_span(parent);
        }
        self
    }

    /// Runs synchronous `work` with this call as [`Call::current`].
    pub(crate) fn sync_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Runs `work` with this call as [`Call::current`].
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }
}

/// The id of the request that is being answered here, if any is.
pub(crate) fn current_request_id() -> Option<Arc<str>> {
    CURRENT.try_with(|call| call.request_id.clone()).ok()
}

/// Whether a client's request id may be used: printable ASCII, up to 64 bytes.
fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// A UUID of version 7. Its random part comes from the thread's generator: the system's costs a system call.
fn made_request_id() -> Arc<str> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = now.as_secs() * 1000 + u64::from(now.subsec_millis());
    // A number at once: the generator makes an array byte by byte.
    let [random @ .., _, _, _, _, _, _] = rand::random::<u128>().to_ne_bytes();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    Arc::from(&*id.hyphenated().encode_lower(&mut [0; uuid::fmt::Hyphenated::LENGTH]))
}

/// `parent` with a new span id; `None` if it is malformed. Source: W3C Trace Context, "traceparent Header Field
/// Values".
fn child_span(parent: &str) -> Option<Arc<str>> {
    let mut parts = parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let is_sound = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    let is_last = version != "00" || parts.next().is_none();
    if !is_sound || !is_last || version == "ff" || is_zero(trace) || is_zero(span) {
        return None;
    }
    let mut child = String::with_capacity(55);
    write!(child, "00-{trace}-{:016x}-{flags}", rand::random_range(1..=u64::MAX)).expect("a String takes any text");
    Some(child.into())
}

/// The time left in a `grpc-timeout` header: up to 8 digits and a unit of `H M S m u n`; `None` if malformed.
/// Source: gRPC over HTTP/2, "Requests".
pub fn timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// `left` as a `grpc-timeout`, in the finest unit whose 8 digits hold it.
fn timeout_header(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    match left {
        left if left.as_micros() <= MOST => format!("{}u", left.as_micros()),
        left if left.as_millis() <= MOST => format!("{}m", left.as_millis()),
        left => format!("{}S", u128::from(left.as_secs()).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[tokio::test]
    async fn a_call_is_found_where_it_is_answered() {
        let call = Call::begin(Some("abc"), Some(PARENT), None);
        let there = call.scope(async { Call::current() }).await.expect("it is being answered");
        assert_eq!(&*there.request_id, "abc");
        assert!(Call::current().is_none());
    }

    #[test]
    fn a_call_that_is_watched_limits_no_link() {
        let call = Call::begin(None, None, Some(Duration::from_secs(5)));
        assert_eq!(call.timer_deadline(), call.deadline);
        assert_eq!(call.without_timer().timer_deadline(), None);
    }

    #[test]
    fn a_far_call_carries_identity_trace_and_time() {
        let call = Call::begin(Some("abc"), Some(PARENT), Some(Duration::from_secs(5)));
        let mut headers = HeaderMap::new();
        call.write_headers(&mut headers);
        let there = Call::from_headers(&headers);
        assert_eq!(&*there.request_id, "abc");
        let left = there.time_left().expect("the deadline travelled");
        assert!(left > Duration::from_secs(4) && left <= Duration::from_secs(5));
        let (here, there) = (call.traceparent.expect("it was sent"), there.traceparent.expect("it travelled"));
        assert_eq!(here[..36], there[..36]);
        assert_ne!(here[36..52], there[36..52]);
    }

    #[test]
    fn a_request_id_that_is_not_printable_or_too_long_is_replaced() {
        for id in ["", "a\nb", "ä", &"x".repeat(65)] {
            assert_ne!(&*Call::begin(Some(id), None, None).request_id, id);
        }
        assert_eq!(&*Call::begin(Some(&"x".repeat(64)), None, None).request_id, "x".repeat(64));
    }

    #[test]
    fn a_request_id_that_is_made_is_a_new_uuid() {
        let made = || Call::begin(None, None, None).request_id;
        assert_eq!(uuid::Uuid::parse_str(&made()).unwrap().get_version_num(), 7);
        assert_ne!(made(), made());
    }

    #[test]
    fn a_malformed_trace_is_dropped() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for parent in ["", "00-1-2-3", zero, &PARENT.to_uppercase(), &format!("{PARENT}-more")] {
            assert_eq!(Call::begin(None, Some(parent), None).traceparent, None);
        }
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_refused_malformed() {
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("3M"), Some(Duration::from_secs(180)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for header in ["", "S", "123456789S", "5x", "-5S", "5", "ä"] {
            assert_eq!(timeout(header), None, "{header}");
        }
    }

    #[test]
    fn a_timeout_that_is_written_is_read_alike() {
        for left in
            [Duration::ZERO, Duration::from_micros(1500), Duration::from_secs(3600), Duration::from_secs(200_000)]
        {
            assert_eq!(timeout(&timeout_header(left)), Some(left));
        }
    }
}
