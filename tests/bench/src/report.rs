//! Medians of rounds, and how they compare.

use std::{collections::BTreeMap, time::Duration};

use crate::load::Round;

/// All rounds of one subject in one scenario.
#[derive(Debug, Default)]
pub struct Rounds {
    rounds: Vec<Round>,
    server: Duration,
    database: Duration,
}

impl Rounds {
    /// Adds a round and the processor time it took.
    pub fn push(&mut self, round: Round, server: Duration, database: Duration) {
        self.rounds.push(round);
        self.server += server;
        self.database += database;
    }

    /// Median answers per second.
    pub fn per_second(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.per_second))
    }

    fn line(&self, subject: &str, against: &[(&str, f64)]) -> String {
        let answers: u64 = self.rounds.iter().map(|round| round.answers).sum::<u64>().max(1);
        let milliseconds =
            |times: fn(&Round) -> Duration| median(self.rounds.iter().map(|r| times(r).as_secs_f64() * 1e3));
        let each = |time: Duration| time.as_secs_f64() * 1e6 / answers as f64;
        let ratios: Vec<String> =
            against.iter().map(|(name, other)| format!("{:.2} {name}", self.per_second() / other)).collect();
        format!(
            "{subject:<16} {:>9.0} {:>9.2} {:>9.2} {:>10.0} {:>10.0}   {}",
            self.per_second(),
            milliseconds(|round| round.p50),
            milliseconds(|round| round.p99),
            each(self.server),
            each(self.database),
            ratios.join("  ")
        )
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints one scenario; every subject against the ones by hand.
pub fn print(scenario: &str, subjects: &BTreeMap<String, Rounds>) {
    println!("\n{scenario}");
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>10} {:>10}   ratio to",
        "", "answers/s", "p50 ms", "p99 ms", "server µs", "db µs"
    );
    let baselines: Vec<(&str, f64)> = subjects
        .iter()
        .filter(|(name, _)| !name.contains("perigee"))
        .map(|(name, rounds)| (&name[..1], rounds.per_second()))
        .collect();
    for (subject, rounds) in subjects {
        let against = if subject.contains("perigee") { baselines.as_slice() } else { &[] };
        println!("{}", rounds.line(subject, against));
    }
}
