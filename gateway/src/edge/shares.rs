//! Which grants of a request are whose.

/// How many of a request's accesses each of its operations takes, in their order.
///
/// Where those of the second and of the later ones begin: of one operation, as most requests are, nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    begins: Vec<usize>,
    /// Operations.
    len: usize,
    /// Accesses of all of them.
    total: usize,
}

impl Shares {
    /// Adds an operation that takes `count` accesses.
    pub fn add(&mut self, count: usize) {
        if self.len > 0 {
            self.begins.push(self.total);
        }
        self.len += 1;
        self.total += count;
    }

    /// The index of the operation that access `index` belongs to.
    pub fn operation(&self, index: usize) -> Option<usize> {
        (index < self.total).then(|| self.begins.partition_point(|begin| *begin <= index))
    }

    /// How many accesses each operation takes.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        let begins = std::iter::once(0).chain(self.begins.iter().copied());
        let ends = self.begins.iter().copied().chain([self.total]);
        begins.zip(ends).map(|(begin, end)| end - begin).take(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(counts: &[usize]) -> Shares {
        let mut shares = Shares::default();
        counts.iter().for_each(|count| shares.add(*count));
        shares
    }

    #[test]
    fn an_access_belongs_to_the_operation_whose_accesses_it_is_among() {
        let shares = shares(&[2, 0, 1]);
        let operations: Vec<_> = (0..4).map(|index| shares.operation(index)).collect();
        assert_eq!(operations, [Some(0), Some(0), Some(2), None]);
    }

    #[test]
    fn each_operation_takes_as_many_as_it_was_added_with() {
        for counts in [&[][..], &[3], &[0], &[2, 0, 1], &[0, 0], &[1, 2, 3]] {
            assert_eq!(shares(counts).counts().collect::<Vec<_>>(), counts);
        }
    }
}
