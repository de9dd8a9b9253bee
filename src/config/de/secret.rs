//! Looks up `{file: path}` and `{env: NAME}` while settings are read.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read as _;
use std::path::Path;

use super::{Error, Reading, Within};
use crate::config::load::cause;
use crate::config::tree::{Kind, Node};

/// More than any key or password has.
const MAX_BYTES: u64 = 64 * 1024;

const WRITTEN: &str = "a secret is written as `{file: path}` or `{env: NAME}`, never as text";

/// The secret's text.
pub(super) fn read(node: &Node, reading: &Reading<'_>) -> Result<String, Error> {
    let Kind::Map(entries) = &node.kind else {
        return Err(Error::said(WRITTEN));
    };
    let [(key, value)] = entries.as_slice() else {
        return Err(Error::said(WRITTEN));
    };
    if matches!(value.kind, Kind::Broken) {
        return Err(Error::Silent);
    }
    let text = match (key.key(), value.text()) {
        ("file", Some(path)) => file(path, value, reading),
        ("env", Some(name)) => (reading.env)(name)
            .ok_or_else(|| format!("the environment variable `{name}` is not set")),
        _ => return Err(Error::said(WRITTEN).placed(key.span, reading_within(key))),
    };
    let text =
        text.map_err(|message| Error::said(message).placed(value.span, reading_within(key)))?;
    let mut hasher = DefaultHasher::new();
    (reading.secrets.get(), &text).hash(&mut hasher);
    reading.secrets.set(hasher.finish());
    Ok(text)
}

fn reading_within(key: &Node) -> Within<'_> {
    Within::Key(key.key())
}

fn file(path: &str, node: &Node, reading: &Reading<'_>) -> Result<String, String> {
    let directory = reading.directories.get(usize::from(node.span.file));
    let path = directory.map_or_else(
        || Path::new(path).to_owned(),
        |directory| directory.join(path),
    );
    reading.files.borrow_mut().push(path.clone());
    let failed =
        |error: std::io::Error| format!("cannot read `{}`: {}", path.display(), cause(&error));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(failed)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("`{}` is too long for a secret", path.display()));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("`{}` is not text", path.display()))?;
    let end = text.strip_suffix('\n').map_or(text.as_str(), |text| {
        text.strip_suffix('\r').unwrap_or(text)
    });
    Ok(end.to_owned())
}
