//! Metrics of images that are made of files.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::LATENCY_BUCKETS;

/// What is measured of images that are made of files.
#[derive(Debug, Clone)]
pub struct ImageMeters {
    /// Images that were made.
    pub made: Counter,
    /// Images that had been made before.
    pub kept: Counter,
    /// Images that were refused because too many were asked for.
    pub refused: Counter,
    /// Images that could not be made.
    pub failed: Counter,
    /// Time to make one, without waiting.
    pub seconds: Histogram,
}

#[derive(Debug)]
pub(super) struct ImageFamilies {
    outcomes: Family<ImageOutcome, Counter>,
    seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ImageOutcome {
    outcome: &'static str,
}

impl Default for ImageFamilies {
    fn default() -> Self {
        Self { outcomes: Family::default(), seconds: Histogram::new(LATENCY_BUCKETS) }
    }
}

impl ImageFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("images", "Images that were asked for", self.outcomes.clone());
        registry.register("image_seconds", "Time to make an image", self.seconds.clone());
    }

    pub(super) fn meters(&self) -> ImageMeters {
        let outcome = |outcome: &'static str| self.outcomes.get_or_create_owned(&ImageOutcome { outcome });
        ImageMeters {
            made: outcome("made"),
            kept: outcome("kept"),
            refused: outcome("refused"),
            failed: outcome("failed"),
            seconds: self.seconds.clone(),
        }
    }
}
