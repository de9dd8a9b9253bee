//! Keys that the format has and this version does not do yet.
//!
//! Taking them silently would let people believe that they work; "unknown key" would let them
//! believe that they misspelt. An entry goes as soon as its settings exist.

/// Keys of a section's items; middlewares know their own.
const KEYS: &[(&str, &[&str])] = &[
    ("telemetry", &["tracing"]),
    (
        "listeners",
        &["tls", "proxy_protocol", "original_destination"],
    ),
    ("upstreams", &["tls"]),
];

/// True if the items of a section will have that key.
pub(super) fn is_key(section: &str, key: &str) -> bool {
    KEYS.iter()
        .any(|(name, keys)| *name == section && keys.contains(&key))
}

/// True if what stands under a key will be of that kind.
pub(super) fn is_kind(key: &str, kind: &str) -> bool {
    key == "middlewares" && crate::middleware::PLANNED.contains(&kind)
}
