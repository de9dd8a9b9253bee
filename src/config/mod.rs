//! YAML → checked configuration; pure but for reading files at the door, and names no kind.

mod de;
mod interpolate;
mod later;
mod merge;
mod parse;
mod suggest;
mod syntax;
mod tree;
