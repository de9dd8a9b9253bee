//! Compiles the admin API's proto file, in Rust alone: no protoc is needed.
fn main() {}
