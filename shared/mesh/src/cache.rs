//! Caches that are bounded by the memory of what they hold.

use std::hash::Hash;

use foldhash::quality::RandomState;
pub use quick_cache::Weighter;
use quick_cache::{
    OptionsBuilder,
    sync::{Cache, DefaultLifecycle},
};

/// Parts of a cache, each with a lock and its share of the memory: few enough that large values fit in one, however many
/// processors there are.
pub const SHARDS: usize = 16;

/// A cache whose values are weighed in bytes by `W`.
pub type WeightedCache<K, V, W> = Cache<K, V, W, RandomState>;

/// A cache of at most `bytes`, for some `values_expected` of the size that is usual.
pub fn weighted<K, V, W>(bytes: u64, values_expected: usize, weighter: W) -> WeightedCache<K, V, W>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let options = OptionsBuilder::new()
        .estimated_items_capacity(values_expected)
        .weight_capacity(bytes)
        .shards(SHARDS)
        .build()
        .expect("both capacities are given");
    Cache::with_options(options, weighter, RandomState::default(), DefaultLifecycle::default())
}
