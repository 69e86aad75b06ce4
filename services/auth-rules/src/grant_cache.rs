//! Cache of the grants of one caller, for policies whose grants depend on the claims alone.
//!
//! It belongs to a verified token and goes with it. A policy that is parsed anew has another number, so that grants by
//! the one before are not found again; whether the token is still valid is checked before its grants are looked at.

use std::sync::Arc;

use arc_swap::ArcSwap;
use proto::{auth::TableAccess, grant::Grant};

/// Grants of the size that is usual that are kept for a caller.
pub const GRANTS_MAX: usize = 8;
/// How long a grant is given out.
pub const REUSE_MS: i64 = 5_000;

/// Grants given to one caller, the oldest first.
#[derive(Default)]
pub struct GrantCache(ArcSwap<Vec<CachedGrant>>);

#[derive(Clone)]
struct CachedGrant {
    /// [`crate::rule::Policy::id`]
    policy: u64,
    database: Arc<str>,
    table: String,
    grant: Grant,
    /// Milliseconds since the Unix epoch.
    issued_ms: i64,
}

impl GrantCache {
    /// The grant by the policy for a table, if one was issued a short time before.
    pub fn get(&self, policy: u64, access: &TableAccess, now_ms: i64) -> Option<Grant> {
        let grants = self.0.load();
        let found = grants.iter().find(|cached| cached.is_for(policy, access))?;
        found.is_fresh(now_ms).then(|| found.grant.clone())
    }

    /// Keeps a grant that is issued now.
    pub fn keep(&self, policy: u64, access: &TableAccess, grant: &Grant, now_ms: i64) {
        self.0.rcu(|grants| {
            let others = grants.iter().filter(|cached| !cached.is_for(policy, access) && cached.is_fresh(now_ms));
            let mut next: Vec<CachedGrant> = others.cloned().collect();
            if next.len() == GRANTS_MAX {
                next.remove(0);
            }
            next.push(CachedGrant {
                policy,
                database: access.database.clone(),
                table: access.table.clone(),
                grant: grant.clone(),
                issued_ms: now_ms,
            });
            Arc::new(next)
        });
    }
}

impl CachedGrant {
    fn is_for(&self, policy: u64, access: &TableAccess) -> bool {
        self.policy == policy && self.table == access.table && self.database == access.database
    }

    /// Whether it holds for as long as a request may take. A clock that was set back makes none hold longer.
    fn is_fresh(&self, now_ms: i64) -> bool {
        (self.issued_ms..self.issued_ms + REUSE_MS).contains(&now_ms)
    }
}

#[cfg(test)]
mod tests {
    use proto::grant::{Signer, pair};
    use query::{Columns, Filter, GrantTerms, Operation};

    use super::*;

    fn grant(signer: &Signer, table: &str) -> Grant {
        signer.grant(GrantTerms {
            project: "shop".to_owned(),
            database: "d".to_owned(),
            table: table.to_owned(),
            operation: Operation::Read,
            filter: Filter::TRUE,
            check: Filter::TRUE,
            columns: Columns::default().into(),
            allow_all: false,
            expires_ms: 0,
        })
    }

    #[test]
    fn a_grant_is_found_for_its_policy_and_table_and_for_a_short_time() {
        let (signer, cache) = (pair(b"mesh").0, GrantCache::default());
        let access = |database, table| TableAccess::new(database, table, Operation::Read);
        cache.keep(1, &access("d", "t"), &grant(&signer, "t"), 1000);

        let found = |policy, access, now_ms| cache.get(policy, &access, now_ms).is_some();

        assert!(found(1, access("d", "t"), 1000));
        assert!(found(1, access("d", "t"), 999 + REUSE_MS));
        assert!(!found(1, access("d", "t"), 1000 + REUSE_MS));
        assert!(!found(1, access("d", "t"), 999), "the clock was set back");
        assert!(!found(2, access("d", "t"), 1000));
        assert!(!found(1, access("e", "t"), 1000));
        assert!(!found(1, access("d", "u"), 1000));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (signer, verifier) = pair(b"mesh");
        let cache = GrantCache::default();
        let names: Vec<String> = (0..=GRANTS_MAX).map(|index| format!("t{index}")).collect();
        let access = |table: &String| TableAccess::new("d", table, Operation::Read);
        for name in &names {
            cache.keep(1, &access(name), &grant(&signer, name), 1000);
            cache.keep(1, &access(name), &grant(&signer, name), 1000);
        }

        let found = |name| cache.get(1, &access(name), 1000).map(|grant| verifier.terms(grant).unwrap().table.clone());

        assert_eq!(found(&names[0]), None);
        assert!(names[1..].iter().all(|name| found(name).as_ref() == Some(name)));
    }
}
