//! Comparisons of the columns that a relation joins: as the database compares them where one refers to the other.

use super::{Alias, Sql};
use crate::resolve::JoinPair;

impl Sql<'_> {
    /// Appends the column of the table called `far`, as it is compared with that of the other.
    pub fn far_key(&mut self, far: Alias, pair: &JoinPair<'_>) {
        self.column(far, pair.far);
        if !pair.refers {
            self.push(self.dialect.key_cast(pair.far, pair.own));
        }
        self.key_collation(pair);
    }

    /// Appends what makes of the column of a relation's own table what is compared with the other.
    pub fn own_key(&mut self, pair: &JoinPair<'_>) {
        if pair.refers {
            self.push(self.dialect.key_cast(pair.own, pair.far));
        }
        self.key_collation(pair);
    }

    /// Appends the collation that decides, where the columns have different ones. On both sides: PostgreSQL makes the
    /// rows of an `IN` distinct by the collation of its subselect.
    fn key_collation(&mut self, pair: &JoinPair<'_>) {
        let [own, far] = [pair.own, pair.far].map(|column| column.equality.collation.as_deref());
        if own != far {
            let referenced = pair.referenced().equality.collation.as_deref();
            self.push(" COLLATE ");
            self.append(referenced.unwrap_or(self.dialect.default_collation()));
        }
    }
}
