//! Compiles the admin API's proto file, in Rust alone: no protoc is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

/// Messages that come as JSON, too: what is not said has its default, and what is not known is refused.
const JSON: &str = "#[derive(serde::Deserialize)] #[serde(default, deny_unknown_fields)]";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["retort/admin/v1/admin.proto"], ["proto"])?;
    // Kept for server reflection.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("admin.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // The JSON side reads the same messages.
        .message_attribute("ExplainRequest", JSON)
        .message_attribute("ListRecentFailuresRequest", JSON)
        .compile_fds(descriptors)?;
    Ok(())
}
