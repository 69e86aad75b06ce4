//! Questions of rules to functions, and their answers.
//!
//! Evaluation does not wait: a question without an answer is undecided, is asked, and the rule is evaluated again. What is not
//! answered as it should be stays undecided, so that neither the rule nor its negation passes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Questions of one request; more are undecided.
const QUESTIONS_MAX: usize = 16;

/// A function that a rule asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AskedFunction {
    /// The service.
    pub service: String,
    /// Its function.
    pub function: String,
}

/// A question: a function with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The function.
    pub asked: AskedFunction,
    /// JSON.
    pub params: Vec<u8>,
}

/// The questions of one request. Each is asked once.
#[derive(Debug, Default)]
pub struct Questions(Mutex<QuestionState>);

#[derive(Debug, Default)]
struct QuestionState {
    answers: HashMap<Question, Option<bool>>,
    pending: Vec<Question>,
}

impl Questions {
    fn state(&self) -> MutexGuard<'_, QuestionState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question; `None` where there is none yet, or none that counts.
    pub fn answer(&self, question: Question) -> Option<bool> {
        let mut state = self.state();
        if let Some(answer) = state.answers.get(&question) {
            return *answer;
        }
        let count = state.answers.len() + state.pending.len();
        if count < QUESTIONS_MAX && !state.pending.contains(&question) {
            state.pending.push(question);
        }
        None
    }

    /// The questions that are to be asked.
    pub fn take(&self) -> Vec<Question> {
        std::mem::take(&mut self.state().pending)
    }

    /// A question was asked.
    pub fn answered(&self, question: Question, answer: Option<bool>) {
        self.state().answers.insert(question, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: usize) -> Question {
        let asked = AskedFunction { service: "s".to_owned(), function: "f".to_owned() };
        Question { asked, params: number.to_string().into_bytes() }
    }

    #[test]
    fn questions_are_asked_once_and_only_so_many() {
        let questions = Questions::default();
        for _ in 0..2 {
            for number in 0..QUESTIONS_MAX + 5 {
                assert_eq!(questions.answer(question(number)), None);
            }
        }
        let asked = questions.take();
        assert_eq!(asked.len(), QUESTIONS_MAX);
        for question in asked {
            questions.answered(question, Some(true));
        }
        assert_eq!(questions.answer(question(0)), Some(true));
        assert_eq!(questions.answer(question(QUESTIONS_MAX)), None);
        assert!(questions.take().is_empty(), "no more than that");
    }
}
