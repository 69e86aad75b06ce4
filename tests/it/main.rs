//! Scenarios, each in both shapes of the mesh, and the case suite on both engines.

mod bad_input;
mod cases;
mod echo;
mod overload;
mod process;
mod readme;
mod shop;
mod workspace;
