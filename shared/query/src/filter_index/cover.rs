//! Cover of a condition: places of an index, of which each row that passes has one.

use foldhash::fast::RandomState;

use super::probe::Probe;
use crate::{Comparison, Filter, Typed};

/// Places of one condition; one that would take more is found by each row.
const ENTRIES_MAX: usize = 128;

/// Cost of an equality, of a range with both ends, of an equality that many rows have, and of a range with one end. A
/// conjunction is found by its cheapest part; each condition that is at a place already adds [`CROWD_COST`].
const POINT_COST: usize = 1;
const RANGE_COST: usize = 8;
const COMMON_POINT_COST: usize = 16;
const HALF_RANGE_COST: usize = 64;
const CROWD_COST: usize = 2;

/// Where a condition is entered.
#[derive(Debug)]
pub enum Cover {
    /// Any row may pass.
    All,
    /// A row that passes has one of these places.
    Entries(Vec<Entry>),
}

/// A place in an index; columns by their places in the table.
#[derive(Debug, PartialEq)]
pub enum Entry {
    /// The value has this hash.
    Point { column: usize, hash: u64, cost: usize },
    /// The value is of this class and has a place from `low` to `high`.
    Range { column: usize, class: u8, low: u128, high: u128 },
}

impl Entry {
    /// The column.
    pub fn column(&self) -> usize {
        let (Entry::Point { column, .. } | Entry::Range { column, .. }) = self;
        *column
    }

    fn cost(&self) -> usize {
        match self {
            Entry::Point { cost, .. } => *cost,
            Entry::Range { low: 0, .. } | Entry::Range { high: u128::MAX, .. } => HALF_RANGE_COST,
            Entry::Range { .. } => RANGE_COST,
        }
    }
}

impl Cover {
    fn none() -> Self {
        Cover::Entries(Vec::new())
    }
}

/// What covers are chosen by.
pub struct Compiler<'c> {
    /// Which place a column has in the table.
    pub columns: &'c dyn Fn(&str) -> Option<usize>,
    /// How many conditions are at a place already.
    pub crowd: &'c dyn Fn(&Entry) -> usize,
    /// Hashes values.
    pub hasher: &'c RandomState,
}

impl Compiler<'_> {
    /// The cover of `filter`.
    pub fn compile(&self, filter: &Filter) -> Cover {
        self.cover(filter, true)
    }

    fn cost(&self, cover: &Cover) -> usize {
        let cost = |entry: &Entry| entry.cost() + CROWD_COST * (self.crowd)(entry);
        match cover {
            Cover::All => usize::MAX,
            Cover::Entries(entries) => entries.iter().map(cost).sum(),
        }
    }

    /// Covers the rows for which `filter` is true, or those for which it is false.
    fn cover(&self, filter: &Filter, holds: bool) -> Cover {
        match (filter, holds) {
            (Filter::And(filters), true) | (Filter::Or(filters), false) => self.all_of(filters, holds),
            (Filter::Or(filters), true) | (Filter::And(filters), false) => self.one_of(filters, holds),
            (Filter::Not(filter), _) => self.cover(filter, !holds),
            (Filter::Compare { column, comparison, value }, _) => {
                let comparison = if holds { *comparison } else { opposite(*comparison) };
                self.compare(column, comparison, value)
            }
            (Filter::In { column, values }, true) => self.within(column, values),
            (Filter::IsNull { column }, true) => self.point(column, &Probe::Null, COMMON_POINT_COST),
            (Filter::In { .. } | Filter::IsNull { .. }, false) | (Filter::Related { .. }, _) => Cover::All,
        }
    }

    /// The cheapest of several, of which a row has to pass all; ranges of one column are one range.
    fn all_of(&self, filters: &[Filter], holds: bool) -> Cover {
        let mut ranges: Vec<(usize, u8, u128, u128)> = Vec::new();
        let mut best = Cover::All;
        for filter in filters {
            let cover = self.cover(filter, holds);
            if let Cover::Entries(entries) = &cover
                && let [Entry::Range { column, class, low, high }] = entries[..]
            {
                match ranges.iter_mut().find(|known| (known.0, known.1) == (column, class)) {
                    Some((.., lowest, highest)) => (*lowest, *highest) = ((*lowest).max(low), (*highest).min(high)),
                    None => ranges.push((column, class, low, high)),
                }
            } else {
                best = self.cheaper(best, cover);
            }
        }
        for (column, class, low, high) in ranges {
            let cover = match low <= high {
                true => Cover::Entries(vec![Entry::Range { column, class, low, high }]),
                // No place is in both.
                false => Cover::none(),
            };
            best = self.cheaper(best, cover);
        }
        best
    }

    fn cheaper(&self, one: Cover, other: Cover) -> Cover {
        if self.cost(&other) < self.cost(&one) { other } else { one }
    }

    /// All of several, of which a row has to pass one.
    fn one_of(&self, filters: &[Filter], holds: bool) -> Cover {
        let mut all = Vec::new();
        for filter in filters {
            let Cover::Entries(mut entries) = self.cover(filter, holds) else { return Cover::All };
            all.append(&mut entries);
            if all.len() > ENTRIES_MAX {
                return Cover::All;
            }
        }
        Cover::Entries(all)
    }

    fn compare(&self, column: &str, comparison: Comparison, value: &Typed) -> Cover {
        match comparison {
            Comparison::Eq => self.equal(column, value),
            Comparison::Ne => Cover::All,
            Comparison::Gt | Comparison::Gte => self.range(column, (Some(value), None)),
            Comparison::Lt | Comparison::Lte => self.range(column, (None, Some(value))),
        }
    }

    fn equal(&self, column: &str, value: &Typed) -> Cover {
        let cost = if matches!(value, Typed::Bool(_)) { COMMON_POINT_COST } else { POINT_COST };
        self.point(column, &Probe::operand(value), cost)
    }

    fn within(&self, column: &str, values: &[Typed]) -> Cover {
        if values.len() > ENTRIES_MAX {
            return self.range_of(column, values);
        }
        let mut all = Vec::with_capacity(values.len());
        for value in values {
            let Cover::Entries(mut entries) = self.equal(column, value) else { return Cover::All };
            all.append(&mut entries);
        }
        Cover::Entries(all)
    }

    fn point(&self, column: &str, probe: &Probe, cost: usize) -> Cover {
        let place = (self.columns)(column).zip(probe.hash(self.hasher));
        place.map_or(Cover::All, |(column, hash)| Cover::Entries(vec![Entry::Point { column, hash, cost }]))
    }

    /// The range between two values, or on one side of one.
    fn range(&self, column: &str, (low, high): (Option<&Typed>, Option<&Typed>)) -> Cover {
        let place = |value: &Typed| Probe::operand(value).place();
        let Some(column) = (self.columns)(column) else { return Cover::All };
        let Some((class, _)) = low.or(high).and_then(place) else { return Cover::All };
        let end = |value: Option<&Typed>, open: u128| match value {
            None => Some(open),
            Some(value) => place(value).filter(|(of, _)| *of == class).map(|(_, place)| place),
        };
        let (Some(low), Some(high)) = (end(low, 0), end(high, u128::MAX)) else { return Cover::All };
        Cover::Entries(vec![Entry::Range { column, class, low, high }])
    }

    /// The range that has all of many values.
    fn range_of(&self, column: &str, values: &[Typed]) -> Cover {
        let mut ends: Option<(&Typed, &Typed)> = None;
        for value in values {
            let (low, high) = ends.unwrap_or((value, value));
            let (Some(by_low), Some(by_high)) = (value.compare(low), value.compare(high)) else { return Cover::All };
            ends = Some((if by_low.is_lt() { value } else { low }, if by_high.is_gt() { value } else { high }));
        }
        ends.map_or(Cover::All, |(low, high)| self.range(column, (Some(low), Some(high))))
    }
}

/// The comparison that is true where `comparison` is false.
fn opposite(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Eq => Comparison::Ne,
        Comparison::Ne => Comparison::Eq,
        Comparison::Gt => Comparison::Lte,
        Comparison::Gte => Comparison::Lt,
        Comparison::Lt => Comparison::Gte,
        Comparison::Lte => Comparison::Gt,
    }
}
