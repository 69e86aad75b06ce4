//! Metrics of the statements of one database.

use std::time::Instant;

use mesh::telemetry::{Counter, Meter, Metrics};

/// Counters and timers of the statements of one database.
#[derive(Debug)]
pub struct Meters {
    /// Meter of reads.
    pub reads: Meter,
    /// Meter of mutations.
    pub writes: Meter,
    /// Answers refused as too large.
    pub too_large: Counter,
}

impl Meters {
    /// The meters of databases of one engine.
    pub fn new(metrics: &Metrics, engine: &'static str) -> Self {
        Self {
            reads: metrics.statement(engine, "read"),
            writes: metrics.statement(engine, "write"),
            too_large: metrics.too_large_answers(engine),
        }
    }
}

/// Awaits `work`, which runs this many statements, and meters its time.
pub async fn timed<T>(meter: &Meter, statements: usize, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = work.await;
    meter.done(statements, start.elapsed());
    done
}
