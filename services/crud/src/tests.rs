//! What crud promises, on every engine: SQLite always, PostgreSQL where `TEST_POSTGRES_URL` is its URL.

mod budgets;
mod compile;
mod grants;
mod reads;
mod service;
mod support;
mod writes;
