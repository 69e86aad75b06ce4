//! Which grants of a request are whose.

/// Where the accesses of the second operation of a request and of each later one begin among those of all: of one
/// operation, as most requests are, nothing is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares(Vec<usize>);

impl Shares {
    /// Adds a further operation, whose accesses begin at this index. Those of the first begin at 0.
    pub fn begin(&mut self, index: usize) {
        self.0.push(index);
    }

    /// Adds the operations of another request, whose accesses begin at this index.
    pub fn append(&mut self, index: usize, other: Self) {
        self.begin(index);
        self.0.extend(other.0.into_iter().map(|begin| index + begin));
    }

    /// The index of the operation that access `index`, which has to be one of all, belongs to.
    pub fn operation(&self, index: usize) -> usize {
        self.0.partition_point(|begin| *begin <= index)
    }

    /// How many accesses each operation takes, where there are `total`.
    pub fn counts(&self, total: usize) -> impl Iterator<Item = usize> {
        let begins = std::iter::once(0).chain(self.0.iter().copied());
        let ends = self.0.iter().copied().chain([total]);
        begins.zip(ends).map(|(begin, end)| end - begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(shares: &Shares, total: usize) -> Vec<usize> {
        shares.counts(total).collect()
    }

    #[test]
    fn an_access_belongs_to_the_operation_whose_accesses_it_is_among() {
        let shares = Shares(vec![2, 2]);
        assert_eq!([0, 1, 2].map(|index| shares.operation(index)), [0, 0, 2]);
        assert_eq!(Shares::default().operation(7), 0);
    }

    #[test]
    fn each_operation_takes_what_is_up_to_the_next() {
        assert_eq!(counts(&Shares::default(), 3), [3]);
        assert_eq!(counts(&Shares::default(), 0), [0]);
        assert_eq!(counts(&Shares(vec![2, 2]), 3), [2, 0, 1]);
        assert_eq!(counts(&Shares(vec![0]), 0), [0, 0]);
    }

    #[test]
    fn requests_that_are_joined_keep_their_shares() {
        let mut joined = Shares(vec![2]);
        joined.append(3, Shares::default());
        joined.append(4, Shares(vec![1, 1]));
        assert_eq!(counts(&joined, 7), [2, 1, 1, 1, 0, 2]);
    }
}
