//! Keys that the format has and this version does not do yet.
//!
//! Taking them silently would let people believe that they work; "unknown key" would let them
//! believe that they misspelt. An entry goes as soon as its settings exist.

/// Keys of a section's items.
const KEYS: &[(&str, &[&str])] = &[
    ("telemetry", &["tracing"]),
    (
        "listeners",
        &["tls", "proxy_protocol", "original_destination"],
    ),
    ("routes", &["retry", "mirror", "hedge", "split_by"]),
    (
        "upstreams",
        &["health_check", "outlier", "limits", "tls", "discovery"],
    ),
];

/// Kinds of what stands under a key.
const KINDS: &[(&str, &[&str])] = &[
    (
        "balance",
        &["random", "least_request", "ring_hash", "maglev"],
    ),
    ("protocol", &["auto"]),
];

/// True if the items of a section will have that key.
pub(super) fn is_key(section: &str, key: &str) -> bool {
    has(KEYS, section, key)
}

/// True if a key's value will be of that kind.
pub(super) fn is_kind(key: &str, kind: &str) -> bool {
    match key {
        "middlewares" => crate::middleware::PLANNED.contains(&kind),
        _ => has(KINDS, key, kind),
    }
}

fn has(table: &[(&str, &[&str])], group: &str, word: &str) -> bool {
    table
        .iter()
        .any(|(name, words)| *name == group && words.contains(&word))
}
