//! The stack as its users meet it, in one binary.

mod bad_input;
mod commands;
mod layering;
mod tidy;
