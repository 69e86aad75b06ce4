//! Names of components, and of tables in paths.

use std::collections::HashSet;

use crate::graphql::names::Names;

/// Names of the components of each table, by its index. They depend on all tables, so that they are the same for every
/// caller.
pub struct ComponentNames {
    tables: Vec<String>,
}

impl ComponentNames {
    /// The names for the tables of `names`.
    pub fn new(names: &Names) -> Self {
        let mut taken = HashSet::new();
        let name = |index: usize| {
            let (database, table) = (plain(names.database_id(index)), plain(&names.stored(index).name));
            let mut name = format!("{database}.{table}");
            while !taken.insert(name.clone()) {
                name = format!("{name}_{}", index + 1);
            }
            name
        };
        Self { tables: (0..names.tables_count()).map(name).collect() }
    }

    /// `music.album`, with which the names of the components of the table at an index begin.
    pub fn table(&self, table: usize) -> &str {
        &self.tables[table]
    }
}

/// `name` with `_` for characters that names of components may not have, and for the dot that separates parts.
pub fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// `name` as a segment of a path: what is not unreserved is percent-encoded (RFC 3986, section 2.3). `None` for those
/// that no path can have.
pub fn segment(name: &str) -> Option<String> {
    if matches!(name, "" | "." | "..") {
        return None;
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => segment.push(char::from(byte)),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::fixture;

    #[test]
    fn components_have_names_of_their_own() {
        let names = Names::new(fixture::with_tables(&["order items", "order_items", "order.items", "naïve"]));

        let components = ComponentNames::new(&names);

        let all: Vec<&str> = (0..4).map(|table| components.table(table)).collect();
        assert_eq!(all, ["named.order_items", "named.order_items_2", "named.order_items_3", "named.na_ve"]);
    }

    #[test]
    fn what_is_not_unreserved_is_percent_encoded_in_paths() {
        assert_eq!(segment("odd \"name\"; {a}/é").as_deref(), Some("odd%20%22name%22%3B%20%7Ba%7D%2F%C3%A9"));
        assert_eq!(segment("a-b.c_d~e").as_deref(), Some("a-b.c_d~e"));
        assert_eq!((segment("."), segment(".."), segment("")), (None, None, None));
    }
}
