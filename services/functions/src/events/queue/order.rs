//! Order: of the events of a key that are not finished one is delivered, the others are blocked.

use std::collections::BTreeSet;

use super::{
    QueueError, TriggerKey, chunks,
    store::{Parameter, Statement, StoreTransaction},
};

/// Keys of triggers, each once.
pub type OrderKeys<'k> = Vec<(&'k TriggerKey, &'k [u8])>;

/// Each key once.
pub fn keys<'k>(all: impl Iterator<Item = (&'k TriggerKey, &'k [u8])>) -> OrderKeys<'k> {
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Unblocks the first event of each key of which none is unblocked. The order is locked.
pub async fn unblock(transaction: &mut StoreTransaction, keys: &OrderKeys<'_>) -> Result<(), QueueError> {
    for chunk in chunks(keys) {
        let rows = chunk.iter().map(|(trigger, key)| {
            [Parameter::from(&*trigger.project), Parameter::from(&*trigger.id), Parameter::from(*key)]
        });
        let unblock = Statement::new("WITH k(project, trigger_id, order_key) AS (VALUES ").rows(rows).push(
            ") UPDATE events SET blocked = 0 WHERE seq IN (SELECT (SELECT e.seq FROM events e WHERE e.project = k.project \
             AND e.trigger_id = k.trigger_id AND e.order_key = k.order_key AND e.order_key IS NOT NULL \
             AND e.finished_ms IS NULL ORDER BY e.seq LIMIT 1) FROM k WHERE NOT EXISTS (SELECT 1 FROM events h \
             WHERE h.project = k.project AND h.trigger_id = k.trigger_id AND h.order_key = k.order_key \
             AND h.order_key IS NOT NULL AND h.finished_ms IS NULL AND h.blocked = 0))",
        );
        transaction.execute(unblock).await?;
    }
    Ok(())
}

/// The same for all keys, after many events were finished or made due at once.
pub async fn unblock_all(transaction: &mut StoreTransaction) -> Result<(), QueueError> {
    let unblock = "UPDATE events SET blocked = 0 WHERE seq IN (SELECT min(seq) FROM events WHERE order_key IS NOT NULL \
        AND finished_ms IS NULL GROUP BY project, trigger_id, order_key HAVING min(blocked) = 1)";
    transaction.execute(Statement::new(unblock)).await?;
    Ok(())
}
