//! YAML → checked configuration; pure but for reading files at the door, and names no kind.

mod interpolate;
mod merge;
mod parse;
mod syntax;
mod tree;
