//! What of this node works and what does not, for `/ready`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// How a part is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Ready,
    /// It does not; why, for people.
    Failing(String),
}

/// The parts of this node and their state: `service crud`, `peer http://…`, `database shop/music`, `resources`.
#[derive(Debug, Clone, Default)]
pub struct Board {
    parts: Arc<Mutex<BTreeMap<String, State>>>,
}

impl Board {
    /// Says how `part` is doing.
    pub fn set(&self, part: &str, state: State) {
        self.parts.lock().expect("no code panics while it holds this lock").insert(part.to_owned(), state);
    }

    /// Forgets `part`.
    pub fn remove(&self, part: &str) {
        self.parts.lock().expect("no code panics while it holds this lock").remove(part);
    }

    /// Every part, by name.
    pub fn parts(&self) -> BTreeMap<String, State> {
        self.parts.lock().expect("no code panics while it holds this lock").clone()
    }
}
