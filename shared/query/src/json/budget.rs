//! What is left of the limits while a document is parsed.

use crate::{Error, Limits};

/// Counts the parts of one document and how deep they stand.
pub struct Budget {
    limits: Limits,
    nodes: usize,
    depth: usize,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Self { limits, nodes: 0, depth: 0 }
    }

    /// One more part: a condition, a selected field.
    pub fn node(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(Error::TooComplex { what: "nodes", seen: self.nodes, limit: self.limits.nodes });
        }
        Ok(())
    }

    /// Does `work` one level deeper.
    pub fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let limit = self.limits.depth.min(crate::value::DEEPEST);
        if self.depth >= limit {
            return Err(Error::TooComplex { what: "depth", seen: self.depth + 1, limit });
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }
}
