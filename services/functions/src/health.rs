//! What of the service does not work now, as `/ready` tells it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use mesh::{Component, ComponentState, Health, config::ServiceName};

/// What does not work, by name. Clones are the same.
#[derive(Clone)]
pub struct PartHealth {
    health: Health,
    wrong: Arc<Mutex<BTreeMap<String, String>>>,
}

impl PartHealth {
    /// Nothing is wrong.
    pub fn new(health: Health) -> Self {
        Self { health, wrong: Arc::default() }
    }

    /// Tells why a part does not work, or that it does; whether that is news.
    pub fn set(&self, part: &str, why: Option<String>) -> bool {
        let mut wrong = self.wrong.lock().expect("no code panics while it holds this lock");
        let is_news = wrong.get(part) != why.as_ref();
        match why {
            Some(why) => drop(wrong.insert(part.to_owned(), why)),
            None => drop(wrong.remove(part)),
        }
        if is_news {
            let state = if wrong.is_empty() { ComponentState::Ready } else { ComponentState::Partial(wrong.clone()) };
            self.health.set(Component::Service(ServiceName::of(&proto::services::functions::FUNCTIONS)), state);
        }
        is_news
    }
}
