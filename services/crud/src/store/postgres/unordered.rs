//! Types whose values have no order, and what equality they have.

use std::collections::HashMap;

use query::Comparisons;

use super::{connection::Connection, error::PostgresError};

/// Types that no operator class sorts by `<`, neither their own nor that of a type that their values are, too; whether
/// they have an equality, and whether their arrays have, for which it takes an operator class.
///
/// What is compared by its number and read as its name (`regclass`) has neither here, nor have composite types, whose
/// values are read as text.
const UNORDERED: &str = "\
SELECT t.oid,
    t.typtype = 'b' AND EXISTS (SELECT FROM pg_catalog.pg_operator o
        WHERE o.oprname = '=' AND o.oprleft = t.oid AND o.oprright = t.oid),
    t.typtype = 'b' AND EXISTS (SELECT FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod
        WHERE m.amname = 'hash' AND c.opcdefault AND c.opcintype = t.oid)
FROM pg_catalog.pg_type t
WHERE t.typtype = 'c' AND (t.oid IN (SELECT a.atttypid FROM pg_catalog.pg_attribute a)
        OR t.typarray IN (SELECT a.atttypid FROM pg_catalog.pg_attribute a)
        OR t.oid IN (SELECT d.typbasetype FROM pg_catalog.pg_type d WHERE d.typbasetype <> 0))
    OR t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type item WHERE item.typarray = t.oid)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod
            JOIN pg_catalog.pg_amop s ON s.amopfamily = c.opcfamily AND s.amopstrategy = 1
                AND s.amoplefttype = c.opcintype AND s.amoprighttype = c.opcintype
            JOIN pg_catalog.pg_operator o ON o.oid = s.amopopr AND o.oprname = '<'
            WHERE m.amname = 'btree' AND c.opcdefault AND (c.opcintype = t.oid
                OR c.opcintype <> 'oid'::pg_catalog.regtype AND EXISTS (SELECT FROM pg_catalog.pg_cast k
                    WHERE k.castsource = t.oid AND k.casttarget = c.opcintype AND k.castmethod = 'b'
                        AND k.castcontext = 'i')))";

/// Comparisons of a type without an order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unordered {
    /// Of its values.
    pub values: Comparisons,
    /// Of its arrays.
    pub arrays: Comparisons,
}

/// The types without an order, by their identifiers.
pub async fn types(connection: &Connection) -> Result<HashMap<u32, Unordered>, PostgresError> {
    let comparisons = |has_equality: bool| if has_equality { Comparisons::Equality } else { Comparisons::None };
    let mut types = HashMap::new();
    for row in connection.query(UNORDERED, &[]).await? {
        let unordered = Unordered { values: comparisons(row.try_get(1)?), arrays: comparisons(row.try_get(2)?) };
        types.insert(row.try_get(0)?, unordered);
    }
    Ok(types)
}
