//! What crud promises, on every engine: SQLite always, PostgreSQL where `PERIGEE_TEST_POSTGRES` is its URL.

mod compile;
mod grants;
mod reads;
mod support;
mod writes;
