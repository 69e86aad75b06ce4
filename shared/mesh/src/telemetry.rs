//! Logs and metrics.

mod files;
mod images;

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use files::FileUsage;
pub use images::ImageMeters;
pub use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};
use tracing_subscriber::{EnvFilter, fmt as lines, util::SubscriberInitExt};

use crate::{
    config::{Error, Format, Telemetry},
    tasks::panic_text,
};

/// Buckets of latency histograms in seconds: from an answer out of memory to the default time limit.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Starts writing logs to stderr, panics among them. Only the first call in a process counts: several nodes share one
/// log.
pub fn start(config: &Telemetry) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| Error(format!("telemetry.log: {error}")))?;
    // It logs each request that it refuses as an error.
    let filter = match config.log.contains("s3s") {
        true => filter,
        false => filter.add_directive("s3s=off".parse().expect("it is a directive")),
    };
    let writer = lines().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let started = match config.format {
        Format::Text => writer.finish().try_init(),
        Format::Json => writer.json().flatten_event(true).finish().try_init(),
    };
    // An error means that another node of this process has started it.
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            let text = panic_text(panic.payload());
            tracing::error!(at, text, "panic");
        }));
    }
    Ok(())
}

/// Counters of this node, written as OpenMetrics text. Labels come from closed sets, never from users.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    families: Arc<Families>,
}

#[derive(Debug)]
struct Families {
    registry: Registry,
    rpcs: Family<Rpc, Counter>,
    rpc_seconds: Seconds<Method>,
    requests: Family<Request, Counter>,
    request_seconds: Seconds<Protocol>,
    statements: Family<Statement, Counter>,
    statement_seconds: Seconds<Statement>,
    too_large_answers: Family<Engine, Counter>,
    load: Load,
    shed: Family<Shed, Counter>,
    live_reads: Family<LiveRead, Counter>,
    shared_live_reads: Counter,
    batched_live_reads: Counter,
    live_changes: Family<LiveChange, Counter>,
    live_resyncs: Family<LiveResync, Counter>,
    changes_lag_bytes: Family<OfDatabase, Gauge>,
    changes_lag_seconds: Family<OfDatabase, Gauge<f64, AtomicU64>>,
    file_bytes: Family<FileBytes, Counter>,
    files: files::FileFamilies,
    images: images::ImageFamilies,
    function_answers: Family<FunctionAnswer, Counter>,
    function_calls: Gauge,
    function_workers: Gauge,
    function_retries: Counter,
    function_circuits_opened: Counter,
    events: EventMeters,
    bus: BusMeters,
}

/// What is measured of a bus between processes.
#[derive(Debug, Clone, Default)]
pub struct BusMeters {
    /// 1 while it is connected.
    pub connected: Gauge,
    /// Connections that were made anew.
    pub reconnects: Counter,
    /// Databases whose changes this node reads for all.
    pub read_databases: Gauge,
    /// Messages of changes that this node published.
    pub published: Counter,
    /// Times that this node began or ended to read the changes of a database for all.
    pub elections: Counter,
}

/// What is measured of events of triggers.
#[derive(Debug, Clone)]
pub struct EventMeters {
    /// Events that were made durable.
    pub queued: Counter,
    /// Events that wait.
    pub pending: Gauge,
    /// Time from an event to its delivery.
    pub seconds: Histogram,
    deliveries: Family<EventDelivery, Counter>,
    missed: Family<LiveResync, Counter>,
}

impl EventMeters {
    /// Counts an attempt to deliver an event by its outcome: `delivered`, `retried` or `dead`.
    pub fn delivered(&self, outcome: &'static str) {
        self.deliveries.get_or_create(&EventDelivery { outcome }).inc();
    }

    /// Counts a gap in the log, of which no events are made, by its reason.
    pub fn missed(&self, reason: &'static str) {
        self.missed.get_or_create(&LiveResync { reason }).inc();
    }
}

/// Gauges of the load on the public port.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Connections.
    pub connections: Gauge,
    /// Requests being answered.
    pub in_flight: Gauge,
    /// Bytes of answers that their clients have not taken yet.
    pub unsent_bytes: Gauge,
    /// WebSocket connections.
    pub sockets: Gauge,
    /// Answers as streams of events.
    pub event_streams: Gauge,
    /// Live queries.
    pub live_queries: Gauge,
}

/// Counters of the reads of live queries.
#[derive(Debug, Clone)]
pub struct LiveReads {
    /// The answer differed from the one before.
    pub changed: Counter,
    /// The answer was the same.
    pub same: Counter,
    /// There was no answer.
    pub failed: Counter,
    /// The answer was read for another live query.
    pub shared: Counter,
    /// The answer was read together with those of others.
    pub batched: Counter,
}

/// Counters of the transactions that were looked at for live queries.
#[derive(Debug, Clone)]
pub struct LiveChanges {
    /// Some live query was asked again.
    pub told: Counter,
    /// None was.
    pub skipped: Counter,
}

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rpc {
    service: &'static str,
    method: &'static str,
    code: GrpcCode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    service: &'static str,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    protocol: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Protocol {
    protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveRead {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveChange {
    concerns: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveResync {
    reason: &'static str,
}

/// A database, by the ids of resources: operators choose them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDatabase {
    project: String,
    database: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileBytes {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionAnswer {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventDelivery {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Shed {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Statement {
    engine: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Engine {
    engine: &'static str,
}

/// A gRPC code as a label: `Ok`, `NotFound`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GrpcCode(tonic::Code);

impl EncodeLabelValue for GrpcCode {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        use fmt::Write;
        write!(encoder, "{:?}", self.0)
    }
}

/// Counts and times work of one kind; its labels are looked up once, when it is made.
#[derive(Debug, Clone)]
pub struct Meter {
    count: Counter,
    seconds: Histogram,
}

/// Counts and times calls of one method.
#[derive(Debug, Clone)]
pub(crate) struct RpcMeter {
    ok: Meter,
    method: Method,
    families: Arc<Families>,
}

/// Counts and times the requests of one protocol.
#[derive(Debug, Clone)]
pub struct HttpMeter {
    ok: Meter,
    protocol: &'static str,
    families: Arc<Families>,
}

impl Meter {
    /// Work was done `count` times in `elapsed` altogether; each time is observed with all of it.
    pub fn done(&self, count: usize, elapsed: Duration) {
        self.count.inc_by(count as u64);
        (0..count).for_each(|_| self.seconds.observe(elapsed.as_secs_f64()));
    }
}

impl RpcMeter {
    /// A call was answered.
    pub fn done(&self, code: tonic::Code, elapsed: Duration) {
        if code == tonic::Code::Ok {
            return self.ok.done(1, elapsed);
        }
        let Method { service, method } = self.method;
        self.families.rpcs.get_or_create(&Rpc { service, method, code: GrpcCode(code) }).inc();
        self.ok.seconds.observe(elapsed.as_secs_f64());
    }
}

impl HttpMeter {
    /// A request was answered.
    pub fn done(&self, status: u16, elapsed: Duration) {
        if status == 200 {
            return self.ok.done(1, elapsed);
        }
        self.families.requests.get_or_create(&Request { protocol: self.protocol, status }).inc();
        self.ok.seconds.observe(elapsed.as_secs_f64());
    }
}

impl Metrics {
    /// For calls of `method` between services.
    pub(crate) fn rpc(&self, service: &'static str, method: &'static str) -> RpcMeter {
        let (families, code) = (self.families.clone(), GrpcCode(tonic::Code::Ok));
        let count = families.rpcs.get_or_create_owned(&Rpc { service, method, code });
        let method = Method { service, method };
        let seconds = families.rpc_seconds.get_or_create_owned(&method);
        RpcMeter { ok: Meter { count, seconds }, method, families }
    }

    /// For requests of clients; `protocol` is `graphql`, `rest`, `grpc` and so on.
    pub fn http(&self, protocol: &'static str) -> HttpMeter {
        let families = self.families.clone();
        let count = families.requests.get_or_create_owned(&Request { protocol, status: 200 });
        let seconds = families.request_seconds.get_or_create_owned(&Protocol { protocol });
        HttpMeter { ok: Meter { count, seconds }, protocol, families }
    }

    /// For statements in a database; `kind` is `read` or `write`.
    pub fn statement(&self, engine: &'static str, kind: &'static str) -> Meter {
        let labels = Statement { engine, kind };
        let count = self.families.statements.get_or_create_owned(&labels);
        Meter { count, seconds: self.families.statement_seconds.get_or_create_owned(&labels) }
    }

    /// For answers of databases that are refused as too large.
    pub fn too_large_answers(&self, engine: &'static str) -> Counter {
        self.families.too_large_answers.get_or_create_owned(&Engine { engine })
    }

    /// For bytes of files that go `in` or `out`.
    pub fn file_bytes(&self, direction: &'static str) -> Counter {
        self.families.file_bytes.get_or_create_owned(&FileBytes { direction })
    }

    /// What is measured of a bucket that has quotas.
    pub fn file_usage(&self, project: &str, bucket: &str) -> FileUsage {
        self.families.files.usage(project, bucket)
    }

    /// What is measured of images that are made of files.
    pub fn images(&self) -> ImageMeters {
        self.families.images.meters()
    }

    /// For answers of functions, by the class of their status: `2xx` and so on.
    pub fn function_answers(&self, class: &'static str) -> Counter {
        self.families.function_answers.get_or_create_owned(&FunctionAnswer { class })
    }

    /// Calls of functions that run or wait.
    pub fn function_calls(&self) -> Gauge {
        self.families.function_calls.clone()
    }

    /// For calls of functions that are sent again.
    pub fn function_retries(&self) -> Counter {
        self.families.function_retries.clone()
    }

    /// For functions that are not called for a while, because their server cannot be reached.
    pub fn function_circuits_opened(&self) -> Counter {
        self.families.function_circuits_opened.clone()
    }

    /// Workers that take calls of functions.
    pub fn function_workers(&self) -> Gauge {
        self.families.function_workers.clone()
    }

    /// For events of triggers.
    pub fn events(&self) -> EventMeters {
        self.families.events.clone()
    }

    /// Gauges of the load on the public port.
    pub fn load(&self) -> &Load {
        &self.families.load
    }

    /// For work that is refused because of `limit`, the name of a setting.
    pub fn shed(&self, limit: &'static str) -> Counter {
        self.families.shed.get_or_create_owned(&Shed { limit })
    }

    /// For reads of live queries.
    pub fn live_reads(&self) -> LiveReads {
        let of = |answer| self.families.live_reads.get_or_create_owned(&LiveRead { answer });
        let shared = self.families.shared_live_reads.clone();
        let batched = self.families.batched_live_reads.clone();
        LiveReads { changed: of("changed"), same: of("same"), failed: of("failed"), shared, batched }
    }

    /// For transactions that are looked at for live queries.
    pub fn live_changes(&self) -> LiveChanges {
        let of = |concerns| self.families.live_changes.get_or_create_owned(&LiveChange { concerns });
        LiveChanges { told: of("some"), skipped: of("none") }
    }

    /// Counts a watch that begins anew for a reason.
    pub fn live_resync(&self, reason: &'static str) {
        self.families.live_resyncs.get_or_create(&LiveResync { reason }).inc();
    }

    /// For the bus between processes.
    pub fn bus(&self) -> BusMeters {
        self.families.bus.clone()
    }

    /// Sets how far what is told of changes of a database is behind what was committed.
    pub fn changes_lag(&self, project: &str, database: &str, bytes: u64, late: Duration) {
        let of = OfDatabase { project: project.to_owned(), database: database.to_owned() };
        self.families.changes_lag_bytes.get_or_create(&of).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.families.changes_lag_seconds.get_or_create(&of).set(late.as_secs_f64());
    }

    /// Forgets a database that is served no longer.
    pub fn forget_changes_lag(&self, project: &str, database: &str) {
        let of = OfDatabase { project: project.to_owned(), database: database.to_owned() };
        self.families.changes_lag_bytes.remove(&of);
        self.families.changes_lag_seconds.remove(&of);
    }

    /// Everything, as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.families.registry).expect("a String takes any text");
        out
    }
}

impl Default for Families {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(LATENCY_BUCKETS);
        let families = Self {
            registry: Registry::with_prefix("perigee"),
            rpcs: Family::default(),
            rpc_seconds: Family::new_with_constructor(seconds),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            statements: Family::default(),
            statement_seconds: Family::new_with_constructor(seconds),
            too_large_answers: Family::default(),
            load: Load::default(),
            shed: Family::default(),
            live_reads: Family::default(),
            shared_live_reads: Counter::default(),
            batched_live_reads: Counter::default(),
            live_changes: Family::default(),
            file_bytes: Family::default(),
            files: files::FileFamilies::default(),
            images: images::ImageFamilies::default(),
            function_answers: Family::default(),
            function_calls: Gauge::default(),
            function_workers: Gauge::default(),
            function_retries: Counter::default(),
            function_circuits_opened: Counter::default(),
            events: EventMeters {
                queued: Counter::default(),
                pending: Gauge::default(),
                seconds: seconds(),
                deliveries: Family::default(),
                missed: Family::default(),
            },
            live_resyncs: Family::default(),
            changes_lag_bytes: Family::default(),
            changes_lag_seconds: Family::default(),
            bus: BusMeters::default(),
        };
        families.registered()
    }
}

impl Families {
    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("requests", "Calls between services", self.rpcs.clone());
        registry.register("request_seconds", "Time to answer a call between services", self.rpc_seconds.clone());
        registry.register("http_requests", "Requests of clients", self.requests.clone());
        registry.register("http_request_seconds", "Time to answer a client's request", self.request_seconds.clone());
        registry.register("statements", "SQL statements", self.statements.clone());
        registry.register("too_large_answers", "Answers refused as too large", self.too_large_answers.clone());
        registry.register("file_bytes", "Bytes of files taken in and handed out", self.file_bytes.clone());
        self.files.register(registry);
        self.images.register(registry);
        registry.register("function_answers", "Answers of functions", self.function_answers.clone());
        registry.register("function_calls", "Calls of functions that run or wait", self.function_calls.clone());
        registry.register("function_retries", "Calls of functions that were sent again", self.function_retries.clone());
        let opened = "Functions that were not called for a while, because their server could not be reached";
        registry.register("function_circuits_opened", opened, self.function_circuits_opened.clone());
        registry.register("function_workers", "Workers that take calls of functions", self.function_workers.clone());
        registry.register("events_queued", "Events of triggers made durable", self.events.queued.clone());
        registry.register("events_pending", "Events that wait for their delivery", self.events.pending.clone());
        registry.register("event_seconds", "Time from an event to its delivery", self.events.seconds.clone());
        registry.register("event_deliveries", "Attempts to deliver events", self.events.deliveries.clone());
        registry.register("event_gaps", "Gaps in a log of changes without events", self.events.missed.clone());
        registry.register("statement_seconds", "Time of an SQL statement", self.statement_seconds.clone());
        registry.register("connections", "Connections of clients", self.load.connections.clone());
        registry.register("in_flight", "Requests of clients being answered", self.load.in_flight.clone());
        registry.register("unsent_bytes", "Bytes of answers not taken yet", self.load.unsent_bytes.clone());
        registry.register("sockets", "WebSocket connections", self.load.sockets.clone());
        registry.register("event_streams", "Answers as streams of events", self.load.event_streams.clone());
        registry.register("live_queries", "Live queries", self.load.live_queries.clone());
        registry.register("live_reads", "Reads of live queries", self.live_reads.clone());
        registry.register(
            "shared_live_reads",
            "Reads that answered another live query",
            self.shared_live_reads.clone(),
        );
        let batched = self.batched_live_reads.clone();
        registry.register("batched_live_reads", "Reads answered together with those of other live queries", batched);
        registry.register("live_changes", "Transactions looked at for live queries", self.live_changes.clone());
        registry.register("live_resyncs", "Watches that began anew", self.live_resyncs.clone());
        let (bytes, seconds) = (self.changes_lag_bytes.clone(), self.changes_lag_seconds.clone());
        registry.register("changes_lag_bytes", "Bytes of a log of changes that are not told yet", bytes);
        registry.register("changes_lag_seconds", "Age of the oldest change that is not told yet", seconds);
        registry.register("bus_connected", "Whether the bus is connected", self.bus.connected.clone());
        registry.register("bus_reconnects", "Connections to the bus made anew", self.bus.reconnects.clone());
        registry.register("changes_read", "Databases whose changes this node reads", self.bus.read_databases.clone());
        registry.register("changes_published", "Messages of changes published", self.bus.published.clone());
        registry.register("changes_elections", "Elections of a reader of changes", self.bus.elections.clone());
        registry.register("shed", "Work refused because of a limit", self.shed.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_written() {
        let metrics = Metrics::default();
        let (rpcs, requests) = (metrics.rpc("crud", "Read"), metrics.http("graphql"));
        rpcs.done(tonic::Code::NotFound, Duration::from_millis(2));
        requests.done(200, Duration::from_millis(3));
        requests.done(503, Duration::from_millis(3));
        metrics.too_large_answers("sqlite").inc();
        metrics.file_bytes("in").inc_by(7);
        metrics.file_usage("shop", "files").set(12, 3);
        metrics.images().made.inc();
        metrics.function_answers("2xx").inc();
        metrics.function_calls().inc();
        metrics.function_workers().inc();
        metrics.function_retries().inc();
        metrics.function_circuits_opened().inc();
        metrics.events().queued.inc();
        metrics.events().delivered("retried");
        metrics.events().missed("overflow");
        metrics.statement("sqlite", "read").done(3, Duration::from_micros(50));
        metrics.changes_lag("shop", "music", 7, Duration::from_millis(1500));
        metrics.changes_lag("shop", "gone", 8, Duration::ZERO);
        metrics.forget_changes_lag("shop", "gone");
        metrics.load().connections.inc();
        metrics.shed("in_flight").inc();
        metrics.live_reads().same.inc();
        metrics.live_reads().shared.inc();
        metrics.live_reads().batched.inc();
        metrics.live_changes().skipped.inc();
        metrics.live_resync("rules");
        metrics.bus().connected.set(1);
        metrics.bus().reconnects.inc();
        let text = metrics.render();
        for line in [
            "perigee_connections 1",
            r#"perigee_changes_lag_bytes{project="shop",database="music"} 7"#,
            r#"perigee_changes_lag_seconds{project="shop",database="music"} 1.5"#,
            "perigee_bus_connected 1",
            "perigee_bus_reconnects_total 1",
            r#"perigee_shed_total{limit="in_flight"} 1"#,
            r#"perigee_requests_total{service="crud",method="Read",code="NotFound"} 1"#,
            r#"perigee_requests_total{service="crud",method="Read",code="Ok"} 0"#,
            r#"perigee_request_seconds_bucket{le="0.0025",service="crud",method="Read"} 1"#,
            r#"perigee_http_requests_total{protocol="graphql",status="200"} 1"#,
            r#"perigee_http_requests_total{protocol="graphql",status="503"} 1"#,
            r#"perigee_http_request_seconds_count{protocol="graphql"} 2"#,
            r#"perigee_statements_total{engine="sqlite",kind="read"} 3"#,
            r#"perigee_statement_seconds_count{engine="sqlite",kind="read"} 3"#,
            r#"perigee_too_large_answers_total{engine="sqlite"} 1"#,
            r#"perigee_file_bytes_total{direction="in"} 7"#,
            r#"perigee_bucket_bytes{project="shop",bucket="files"} 12"#,
            r#"perigee_bucket_files{project="shop",bucket="files"} 3"#,
            r#"perigee_images_total{outcome="made"} 1"#,
            r#"perigee_function_answers_total{class="2xx"} 1"#,
            "perigee_function_calls 1",
            "perigee_function_workers 1",
            "perigee_function_retries_total 1",
            "perigee_function_circuits_opened_total 1",
            "perigee_events_queued_total 1",
            r#"perigee_event_deliveries_total{outcome="retried"} 1"#,
            r#"perigee_event_gaps_total{reason="overflow"} 1"#,
            r#"perigee_live_reads_total{answer="same"} 1"#,
            "perigee_shared_live_reads_total 1",
            "perigee_batched_live_reads_total 1",
            r#"perigee_live_changes_total{concerns="none"} 1"#,
            r#"perigee_live_changes_total{concerns="some"} 0"#,
            r#"perigee_live_resyncs_total{reason="rules"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }
}
