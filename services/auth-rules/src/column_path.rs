//! Column paths: a column of a table, or of one that relations lead to.

use query::{Quantifier, RuleFilter};

/// A column, and the relations that lead to it.
#[derive(Debug, Clone)]
pub struct ColumnPath {
    /// Names of relations, from the table on.
    pub relations: Vec<String>,
    /// The column's name.
    pub name: String,
}

impl ColumnPath {
    /// Parses names with dots between them; `None` where one is empty.
    pub fn parse(text: &str) -> Option<ColumnPath> {
        let mut names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return None;
        }
        let name = names.pop()?;
        Some(ColumnPath { relations: names, name })
    }

    /// All names, the column's last.
    pub fn names(&self) -> Vec<&str> {
        self.relations.iter().chain([&self.name]).map(String::as_str).collect()
    }

    /// `filter`, which is on the table of the column, as a filter on the table where the path begins.
    ///
    /// `outermost` quantifies the first relation; the others always ask for some row.
    pub fn related(&self, outermost: Quantifier, filter: RuleFilter) -> RuleFilter {
        let mut filter = filter;
        for (depth, relation) in self.relations.iter().enumerate().rev() {
            let quantifier = if depth == 0 { outermost } else { Quantifier::Some };
            let relation = relation.clone();
            filter = RuleFilter::Related { relation, long_name: None, quantifier, filter: Box::new(filter) };
        }
        filter
    }
}
