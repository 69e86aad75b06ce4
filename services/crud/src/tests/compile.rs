//! The SQL of every dialect, and that nothing of a request gets into it.
