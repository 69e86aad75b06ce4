//! Quotas: sockets and event streams by caller of a project, and what their operations hold in memory, by socket or stream,
//! by caller, and of the whole node.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::HashMap;
use mesh::{
    Code, Fault,
    telemetry::{Counter, Metrics},
};

use crate::{config::Config, http::claims};

/// What any operation takes, for its task, its feeds and its place in queues.
const OPERATION_BYTES: usize = 8 * 1024;

/// Quotas of a node. Clones are the same quotas.
#[derive(Clone)]
pub struct Quotas {
    shared: Arc<QuotaShared>,
}

struct QuotaShared {
    /// `limits.sockets`
    sockets: usize,
    /// `limits.subscriptions`
    subscriptions: usize,
    /// `limits.socket_bytes`
    socket_bytes: usize,
    /// `limits.caller_bytes`
    caller_bytes: usize,
    /// `limits.live_bytes`
    live_bytes: usize,
    usage: Mutex<Usage>,
    shed: Counter,
    shed_sockets: Counter,
}

#[derive(Default)]
struct Usage {
    bytes: usize,
    callers: HashMap<CallerId, CallerUsage>,
}

#[derive(Default, Clone, Copy, PartialEq)]
struct CallerUsage {
    sockets: usize,
    operations: usize,
    bytes: usize,
}

/// Identity by which a caller of a project is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerId([u8; 32]);

impl CallerId {
    /// The bearer of a valid `token`, by its claims; without one, whoever calls from `peer`.
    pub fn of(project: &str, token: &str, peer: Option<IpAddr>) -> Self {
        match (claims::identity(token), token) {
            (Some(claims), _) => Self::hash(project, "claims", claims.as_bytes()),
            (None, "") => Self::of_peer(project, "peer", peer),
            (None, token) => Self::hash(project, "token", token.as_bytes()),
        }
    }

    /// Whoever signs with the access key `id` of a project.
    pub fn of_access_key(project: &str, id: &str) -> Self {
        Self::hash(project, "key", id.as_bytes())
    }

    /// Whoever connects from `peer` and has yet to say who they are. Callers without a token are others, so that they
    /// leave room to those who send theirs later.
    pub fn unidentified(project: &str, peer: Option<IpAddr>) -> Self {
        Self::of_peer(project, "unidentified", peer)
    }

    fn of_peer(project: &str, kind: &str, peer: Option<IpAddr>) -> Self {
        match peer {
            Some(IpAddr::V4(peer)) => Self::hash(project, kind, &peer.octets()),
            // A network of 64 bits has one owner. Source: RFC 6177, section 2.
            Some(IpAddr::V6(peer)) => Self::hash(project, kind, &peer.octets()[..8]),
            None => Self::hash(project, kind, &[]),
        }
    }

    fn hash(project: &str, kind: &str, value: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(project.len() as u64).to_le_bytes()).update(project.as_bytes());
        hasher.update(kind.as_bytes()).update(value);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Quotas {
    /// Quotas of `config`, of which nothing is used.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let &Config { sockets, subscriptions, socket_bytes, caller_bytes, live_bytes, .. } = config;
        let (usage, shed, shed_sockets) = (Mutex::default(), metrics.shed("subscriptions"), metrics.shed("sockets"));
        let shared =
            QuotaShared { sockets, subscriptions, socket_bytes, caller_bytes, live_bytes, usage, shed, shed_sockets };
        Self { shared: Arc::new(shared) }
    }

    /// Counts a socket or an event stream of `caller`, until its quota and all holds of it are dropped.
    ///
    /// Errors: `TOO_MANY` where the caller has as many as one may have.
    pub fn socket(&self, caller: CallerId) -> Result<SocketQuota, Fault> {
        let shared = &self.shared;
        {
            let mut usage = shared.usage();
            let of_caller = usage.callers.entry(caller).or_default();
            if of_caller.sockets >= shared.sockets {
                shared.shed_sockets.inc();
                return Err(refusal(
                    Code::TooMany,
                    "WebSockets and event streams of the caller",
                    "sockets",
                    shared.sockets,
                ));
            }
            of_caller.sockets += 1;
        }
        Ok(SocketQuota {
            socket: Arc::new(CountedSocket { shared: shared.clone(), caller, bytes: AtomicUsize::new(0) }),
        })
    }
}

/// Quota of one socket. Clones are of the same socket.
#[derive(Clone)]
pub struct SocketQuota {
    socket: Arc<CountedSocket>,
}

struct CountedSocket {
    shared: Arc<QuotaShared>,
    caller: CallerId,
    /// Bytes held, beyond what any operation takes. Changed under the lock of the node's usage only.
    bytes: AtomicUsize,
}

impl SocketQuota {
    /// Whose socket it is.
    pub fn caller(&self) -> CallerId {
        self.socket.caller
    }

    /// Counts an operation that holds `bytes`, until the hold is dropped.
    ///
    /// Errors: `TOO_MANY` with the limit that is reached, `TOO_LARGE` where it would not fit alone.
    pub fn hold(&self, bytes: usize) -> Result<Hold, Fault> {
        let shared = &self.socket.shared;
        let mut usage = shared.usage();
        if usage.of(self.caller()).operations >= shared.subscriptions {
            return Err(shared.refusal(Code::TooMany, "subscriptions", shared.subscriptions));
        }
        self.held(&mut usage, Counted::operation(bytes))
    }

    /// Counts a buffer of `bytes` that the socket keeps, until the hold is dropped: for its caller and the node alone, since
    /// the operation that it was received for counts for the socket. Errors: as of [`SocketQuota::hold`].
    pub fn buffer(&self, bytes: usize) -> Result<Hold, Fault> {
        self.held(&mut self.socket.shared.usage(), Counted { operations: 0, of_socket: 0, bytes })
    }

    fn held(&self, usage: &mut Usage, counted: Counted) -> Result<Hold, Fault> {
        self.change(usage, Counted::default(), counted)?;
        Ok(Hold { quota: self.clone(), counted })
    }

    /// Counts `after` in place of `before`.
    fn change(&self, usage: &mut Usage, before: Counted, after: Counted) -> Result<(), Fault> {
        let of_socket = self.socket.bytes.load(Ordering::Relaxed) - before.of_socket;
        let bytes_of_caller = usage.of(self.caller()).bytes - before.bytes;
        let of_node = usage.bytes - before.bytes;
        let shared = &*self.socket.shared;
        // One that is large runs alone on its socket.
        if of_socket > 0 && after.of_socket > 0 && of_socket + after.of_socket > shared.socket_bytes {
            return Err(shared.refusal(Code::TooMany, "socket_bytes", shared.socket_bytes));
        }
        for (name, others, limit) in
            [("caller_bytes", bytes_of_caller, shared.caller_bytes), ("live_bytes", of_node, shared.live_bytes)]
        {
            if others + after.bytes > limit {
                let code = if after.bytes > limit { Code::TooLarge } else { Code::TooMany };
                return Err(shared.refusal(code, name, limit));
            }
        }
        self.count(usage, before, after);
        Ok(())
    }

    fn count(&self, usage: &mut Usage, before: Counted, after: Counted) {
        let of_socket = &self.socket.bytes;
        of_socket.store(of_socket.load(Ordering::Relaxed) - before.of_socket + after.of_socket, Ordering::Relaxed);
        usage.bytes = usage.bytes - before.bytes + after.bytes;
        let caller = usage.callers.entry(self.caller()).or_default();
        caller.bytes = caller.bytes - before.bytes + after.bytes;
        caller.operations = caller.operations - before.operations + after.operations;
    }
}

impl Drop for CountedSocket {
    fn drop(&mut self) {
        let mut usage = self.shared.usage();
        let of_caller = usage.callers.entry(self.caller).or_default();
        of_caller.sockets -= 1;
        // What was held was counted for a socket, of which none is left.
        if *of_caller == CallerUsage::default() {
            usage.callers.remove(&self.caller);
        }
    }
}

impl Usage {
    fn of(&self, caller: CallerId) -> CallerUsage {
        self.callers.get(&caller).copied().unwrap_or_default()
    }
}

/// What is counted for one hold.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    operations: usize,
    /// Bytes for the socket.
    of_socket: usize,
    /// Bytes for the caller and for the node.
    bytes: usize,
}

impl Counted {
    /// Of an operation that holds `bytes`: for the socket, what it takes beyond any other.
    fn operation(bytes: usize) -> Self {
        Self { operations: 1, of_socket: bytes.saturating_sub(OPERATION_BYTES), bytes: bytes.max(OPERATION_BYTES) }
    }

    /// The same with other `bytes`.
    fn resized(self, bytes: usize) -> Self {
        match self.operations {
            0 => Self { bytes, ..self },
            _ => Self::operation(bytes),
        }
    }
}

impl QuotaShared {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().expect("no code panics while it holds this lock")
    }

    fn refusal(&self, code: Code, name: &str, limit: usize) -> Fault {
        self.shed.inc();
        refusal(code, "operations over WebSockets and event streams", name, limit)
    }
}

fn refusal(code: Code, what: &str, name: &str, limit: usize) -> Fault {
    Fault::new(code, format!("the {what} are at the limit of limits.{name}: {limit}"))
}

/// What is counted until it is dropped.
pub struct Hold {
    quota: SocketQuota,
    counted: Counted,
}

impl Hold {
    /// Whose operation it is.
    pub fn caller(&self) -> CallerId {
        self.quota.caller()
    }

    /// Bytes that are counted, as far as they were asked for.
    pub fn bytes(&self) -> usize {
        self.counted.bytes
    }

    /// Counts what the operation comes to hold besides, until that hold is dropped: for its caller and the node alone.
    pub fn beside(&self) -> Result<Hold, Fault> {
        self.quota.buffer(0)
    }

    /// Counts `bytes` in place of those before. Errors as of [`SocketQuota::hold`]; what was counted stays.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Fault> {
        let (quota, after) = (&self.quota, self.counted.resized(bytes));
        quota.change(&mut quota.socket.shared.usage(), self.counted, after)?;
        self.counted = after;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.quota.count(&mut self.quota.socket.shared.usage(), self.counted, Counted::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Quotas {
        let (socket_bytes, caller_bytes) = (OPERATION_BYTES, 6 * OPERATION_BYTES);
        let config = Config {
            subscriptions: 3,
            sockets: 2,
            socket_bytes,
            caller_bytes,
            live_bytes: 8 * OPERATION_BYTES,
            ..Config::default()
        };
        Quotas::new(&config, &Metrics::default())
    }

    fn caller(name: &str) -> CallerId {
        CallerId::of("shop", name, None)
    }

    fn socket(quotas: &Quotas, caller: CallerId) -> SocketQuota {
        quotas.socket(caller).expect("there is room")
    }

    fn refusal<T>(counted: Result<T, Fault>) -> (Code, String) {
        let fault = counted.map(|_| "counted").expect_err("it is over a limit");
        (fault.code, fault.message.split("limits.").nth(1).expect("it names a limit").to_owned())
    }

    #[test]
    fn sockets_are_counted_by_caller_until_nothing_of_them_is_left() {
        let quotas = quotas();
        let (one, other) = (socket(&quotas, caller("ann")), socket(&quotas, caller("ann")));
        assert_eq!(refusal(quotas.socket(caller("ann"))), (Code::TooMany, "sockets: 2".to_owned()));
        let held = one.hold(0).expect("there is room");
        let others = [caller("bob"), CallerId::of("forum", "ann", None)].map(|caller| socket(&quotas, caller));
        drop(one);
        assert_eq!(refusal(quotas.socket(caller("ann"))).1, "sockets: 2", "what it began goes on");
        drop(held);
        let again = socket(&quotas, caller("ann"));
        drop((other, again, others));
        assert!(quotas.shared.usage().callers.is_empty());
    }

    #[test]
    fn operations_are_counted_by_caller_and_not_by_socket() {
        let quotas = quotas();
        let (one, other) = (socket(&quotas, caller("ann")), socket(&quotas, caller("ann")));
        let held = [one.hold(0), one.hold(0), other.hold(0)].map(|held| held.expect("there is room"));
        assert_eq!(refusal(other.hold(0)), (Code::TooMany, "subscriptions: 3".to_owned()));
        assert!(socket(&quotas, caller("bob")).hold(0).is_ok());
        assert!(socket(&quotas, CallerId::of("forum", "ann", None)).hold(0).is_ok());
        drop(held);
        assert!(other.hold(0).is_ok());
        drop((one, other));
        assert!(quotas.shared.usage().callers.is_empty());
    }

    #[test]
    fn bytes_are_bounded_by_socket_by_caller_and_of_the_node() {
        let quotas = quotas();
        let (one, other) = (socket(&quotas, caller("ann")), socket(&quotas, caller("ann")));
        let large = one.hold(3 * OPERATION_BYTES).expect("a large one runs alone");
        let text = format!("socket_bytes: {OPERATION_BYTES}");
        assert_eq!(refusal(one.hold(OPERATION_BYTES + 1)), (Code::TooMany, text));
        let small = one.hold(OPERATION_BYTES).expect("what any operation takes is not counted by socket");
        let text = format!("caller_bytes: {}", 6 * OPERATION_BYTES);
        assert_eq!(refusal(other.hold(3 * OPERATION_BYTES)), (Code::TooMany, text.clone()));
        assert_eq!(refusal(other.hold(7 * OPERATION_BYTES)), (Code::TooLarge, text));
        let text = format!("live_bytes: {}", 8 * OPERATION_BYTES);
        let third = socket(&quotas, caller("bob"));
        assert_eq!(refusal(third.hold(5 * OPERATION_BYTES)), (Code::TooMany, text));
        drop((large, small));
        assert_eq!(quotas.shared.usage().bytes, 0);
        assert!(third.hold(5 * OPERATION_BYTES).is_ok());
    }

    #[test]
    fn an_operation_that_grows_is_counted_anew() {
        let quotas = quotas();
        let socket = socket(&quotas, caller("ann"));
        let mut held = socket.hold(0).expect("there is room");
        held.resize(5 * OPERATION_BYTES).expect("there is room");
        assert_eq!(quotas.shared.usage().bytes, 5 * OPERATION_BYTES);
        assert_eq!(held.resize(7 * OPERATION_BYTES).expect_err("there is none").code, Code::TooLarge);
        assert_eq!(quotas.shared.usage().bytes, 5 * OPERATION_BYTES);
        drop(held);
        assert_eq!((quotas.shared.usage().bytes, socket.socket.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_buffer_counts_for_its_caller_and_not_for_its_socket_or_as_an_operation() {
        let quotas = quotas();
        let socket = socket(&quotas, caller("ann"));
        let mut buffer = socket.buffer(1).expect("there is room");
        buffer.resize(2 * OPERATION_BYTES).expect("there is room");
        let operations = [socket.hold(2 * OPERATION_BYTES), socket.hold(0), socket.hold(0)]
            .map(|held| held.expect("the buffer is not in its way"));
        assert_eq!(refusal(socket.buffer(OPERATION_BYTES)).1, format!("caller_bytes: {}", 6 * OPERATION_BYTES));
        drop(operations);
        assert_eq!(quotas.shared.usage().bytes, 2 * OPERATION_BYTES);
        drop((buffer, socket));
        assert!(quotas.shared.usage().callers.is_empty());
    }

    #[test]
    fn callers_without_a_token_are_told_apart_by_their_address() {
        let anonymous = |peer: [u8; 4]| CallerId::of("shop", "", Some(peer.into()));
        assert_eq!(anonymous([10, 0, 0, 1]), anonymous([10, 0, 0, 1]));
        assert_ne!(anonymous([10, 0, 0, 1]), anonymous([10, 0, 0, 2]));
        let network = |peer: &str| CallerId::of("shop", "", Some(peer.parse().expect("it is legal")));
        assert_eq!(network("2001:db8::1"), network("2001:db8::2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        let unidentified = CallerId::unidentified("shop", Some([10, 0, 0, 1].into()));
        assert_ne!(unidentified, anonymous([10, 0, 0, 1]));
        assert_ne!(unidentified, CallerId::unidentified("shop", Some([10, 0, 0, 2].into())));
    }
}
