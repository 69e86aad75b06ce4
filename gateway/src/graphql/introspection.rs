//! Introspection: `__schema` and `__type`, answered from a schema of what the caller can reach.
//!
//! What is asked that is not cached is written out of the catalogue, type by type, straight into compressed JSON: the
//! types of a thousand tables take many megabytes, their compressed answer takes kilobytes. One answer is written at a
//! time for each project, so that a stranger cannot make it costly.

pub mod reach;
mod schema;
mod type_names;
mod writer;

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use mesh::{
    Code, Fault,
    cache::{self, WeightedCache, Weighter},
    fault::answer_too_large,
};
use proto::auth::ReachableResponse;
use tokio::sync::OwnedMutexGuard;

use self::{reach::Reach, schema::PublishedSchema, type_names::TypeNames, writer::Introspector};
use super::{names::Names, plan::IntrospectionField};

pub use self::{
    schema::NOTHING,
    writer::{CompressedJson, NoAnswer, Output},
};

/// Approximate memory limit of the cache of answers.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Answers of the size that is usual that it holds.
const ANSWERS_EXPECTED: usize = 1000;

/// Cache of answers to fields of introspection.
pub struct IntrospectionCache {
    answers: WeightedCache<AnswerKey, Arc<CachedAnswer>, AnswerWeighter>,
}

impl Default for IntrospectionCache {
    fn default() -> Self {
        Self { answers: cache::weighted(CACHE_BYTES, ANSWERS_EXPECTED, AnswerWeighter) }
    }
}

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AnswerKey {
    /// [`Names::id`].
    names: u64,
    /// Digest of what the caller can reach.
    reach: [u8; 32],
    /// The field with its selection.
    field: String,
}

/// The answer to a field of introspection, or why there is none.
type CachedAnswer = Result<CompressedJson, NoAnswer>;

#[derive(Clone)]
struct AnswerWeighter;

impl Weighter<AnswerKey, Arc<CachedAnswer>> for AnswerWeighter {
    fn weight(&self, key: &AnswerKey, answer: &Arc<CachedAnswer>) -> u64 {
        let bytes = match answer.as_ref() {
            Ok(json) => json.memory(),
            Err(NoAnswer::Invalid(text)) => text.len(),
            Err(NoAnswer::TooLarge) => 0,
        };
        (key.field.len() + bytes + 200) as u64
    }
}

impl IntrospectionCache {
    /// JSON of each of `fields`, for a caller of this reach. Errors have the index of their field as detail `field`.
    pub async fn answers(
        &self,
        names: &Arc<Names>,
        reach: ReachableResponse,
        fields: &[IntrospectionField],
        bytes_max: u64,
    ) -> Result<Vec<CompressedJson>, Fault> {
        let digest = digest(&reach);
        let key = |field: &IntrospectionField| {
            let mut text = String::new();
            field.write(&mut text);
            AnswerKey { names: names.id, reach: digest, field: text }
        };
        let keys: Vec<AnswerKey> = fields.iter().map(key).collect();
        let answers = match self.cached(&keys) {
            Some(answers) => answers,
            None => self.made(names, reach, fields, keys, bytes_max).await?,
        };
        let mut left = bytes_max;
        let mut shown = Vec::with_capacity(answers.len());
        for (index, answer) in answers.iter().enumerate() {
            let at = |fault: Fault| fault.with("field", index.to_string());
            let too_large = || at(Fault::new(Code::TooLarge, answer_too_large(bytes_max)));
            match answer.as_ref() {
                Ok(json) => {
                    left = left.checked_sub(json.bytes).ok_or_else(too_large)?;
                    shown.push(json.clone());
                }
                Err(NoAnswer::Invalid(text)) => return Err(at(Fault::new(Code::BadRequest, text.clone()))),
                Err(NoAnswer::TooLarge) => return Err(too_large()),
            }
        }
        Ok(shown)
    }

    /// A document about what a caller of this reach sees of `names`, which `write` makes unless it is cached under `name`.
    pub async fn document(
        &self,
        names: &Arc<Names>,
        reach: ReachableResponse,
        name: &str,
        bytes_max: u64,
        write: fn(&Names, &Reach, &mut Output) -> Result<(), NoAnswer>,
    ) -> Result<CompressedJson, Fault> {
        let key = AnswerKey { names: names.id, reach: digest(&reach), field: name.to_owned() };
        if let Some(answer) = self.answers.get(&key) {
            return shown(&answer, bytes_max);
        }
        let turn = turn(names).await?;
        if let Some(answer) = self.answers.get(&key) {
            return shown(&answer, bytes_max);
        }
        let names = names.clone();
        let make = move || {
            // The turn lasts as long as the work, even if the caller leaves.
            let _turn = turn;
            let mut out = Output::new(bytes_max);
            write(&names, &Reach::new(&names, &reach), &mut out).and_then(|()| out.finish())
        };
        let made = tokio::task::spawn_blocking(make).await;
        let answer = Arc::new(made.map_err(|panic| Fault::internal("the document could not be written", panic))?);
        self.answers.insert(key, answer.clone());
        shown(&answer, bytes_max)
    }

    fn cached(&self, keys: &[AnswerKey]) -> Option<Vec<Arc<CachedAnswer>>> {
        keys.iter().map(|key| self.answers.get(key)).collect()
    }

    /// Answers the fields, unless somebody did meanwhile.
    async fn made(
        &self,
        names: &Arc<Names>,
        reach: ReachableResponse,
        fields: &[IntrospectionField],
        keys: Vec<AnswerKey>,
        bytes_max: u64,
    ) -> Result<Vec<Arc<CachedAnswer>>, Fault> {
        let turn = turn(names).await?;
        if let Some(answers) = self.cached(&keys) {
            return Ok(answers);
        }
        let (names, fields) = (names.clone(), fields.to_vec());
        let make = move || {
            // The turn lasts as long as the work, even if the caller leaves.
            let _turn = turn;
            let (reach, types) = (Reach::new(&names, &reach), TypeNames::new(&names));
            let schema = PublishedSchema::new(&names, &reach, &types);
            answers_within(&Introspector::new(schema), &fields, bytes_max)
        };
        let made = tokio::task::spawn_blocking(make).await;
        let made = made.map_err(|panic| Fault::internal("the schema could not be shown", panic))?;
        for (index, (key, answer)) in keys.into_iter().zip(&made).enumerate() {
            // One that others left too little room for may fit by itself.
            if index == 0 || !matches!(**answer, Err(NoAnswer::TooLarge)) {
                self.answers.insert(key, answer.clone());
            }
        }
        Ok(made)
    }
}

/// A turn to make answers about `names`.
async fn turn(names: &Names) -> Result<OwnedMutexGuard<()>, Fault> {
    let turn = names.introspection.next().await;
    turn.ok_or_else(|| Fault::new(Code::TooMany, "too many requests wait for the schema"))
}

/// The answer, or why there is none of at most so many bytes.
fn shown(answer: &CachedAnswer, bytes_max: u64) -> Result<CompressedJson, Fault> {
    match answer {
        Ok(json) if json.bytes <= bytes_max => Ok(json.clone()),
        Ok(_) | Err(NoAnswer::TooLarge) => Err(Fault::new(Code::TooLarge, answer_too_large(bytes_max))),
        Err(NoAnswer::Invalid(text)) => Err(Fault::new(Code::BadRequest, text.clone())),
    }
}

/// Answers to `fields` of so many bytes together, up to the first that there is none to: what a request costs does not
/// grow with its aliases.
fn answers_within(
    introspector: &Introspector<'_>,
    fields: &[IntrospectionField],
    bytes_max: u64,
) -> Vec<Arc<CachedAnswer>> {
    let mut left = bytes_max;
    let mut answers = Vec::with_capacity(fields.len());
    for field in fields {
        let answer = introspector.answer(field, left);
        let bytes = answer.as_ref().ok().map(|json| json.bytes);
        answers.push(Arc::new(answer));
        match bytes {
            Some(bytes) => left = left.saturating_sub(bytes),
            None => break,
        }
    }
    answers
}

/// A digest of `reach`. It must not collide: answers are shared by it.
fn digest(reach: &ReachableResponse) -> [u8; 32] {
    let mut hasher = Blake(blake3::Hasher::new());
    for table in &reach.tables {
        (&table.database, &table.table, table.operations.len()).hash(&mut hasher);
        for (operation, columns) in &table.operations {
            (operation, &columns.read, &columns.filter, &columns.write, &columns.deny).hash(&mut hasher);
        }
    }
    *hasher.0.finalize().as_bytes()
}

/// BLAKE3 as a hasher of the standard library, whose `Hash` writes lengths and ends of what it is given.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use query::{Columns, Operation};

    use super::*;
    use crate::graphql::fixture;

    fn selected(key: &str, name: &str, fields: Vec<IntrospectionField>) -> IntrospectionField {
        IntrospectionField { key: key.to_owned(), name: name.to_owned(), argument: None, fields }
    }

    #[tokio::test]
    async fn what_is_made_for_a_request_ends_at_the_limit_of_its_answer() {
        let names = Arc::new(Names::new(fixture::shop()));
        let albums = proto::auth::ReachableTable {
            database: "music".to_owned(),
            table: "album".to_owned(),
            operations: vec![(Operation::Read, Arc::new(Columns::default()))],
        };
        let reach = || ReachableResponse { tables: vec![albums.clone()] };
        let types = |key: &str| {
            let types = selected("types", "types", vec![selected(key, "name", Vec::new())]);
            selected("__schema", "__schema", vec![types])
        };
        let fields = ["a", "b", "c"].map(types);
        let one = IntrospectionCache::default().answers(&names, reach(), &fields[..1], u64::MAX).await.unwrap();
        let limit = one[0].bytes * 3 / 2;
        let cache = IntrospectionCache::default();

        let refused = cache.answers(&names, reach(), &fields, limit).await.unwrap_err();

        assert_eq!((refused.code, refused.detail("field")), (Code::TooLarge, Some("1")));
        assert_eq!(cache.answers.len(), 1, "no more than the first fits");
        assert!(cache.answers(&names, reach(), &fields[1..2], limit).await.is_ok(), "the second fits by itself");
    }
}
