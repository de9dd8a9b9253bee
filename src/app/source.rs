//! Where the configuration comes from.

use std::path::{Path, PathBuf};

use crate::config::{self, Loaded};

/// A file, or text that is built in.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, with what it includes.
    File(PathBuf),
    /// A text of the program's own.
    Text {
        /// What problems call it.
        name: String,
        /// The YAML.
        text: String,
    },
}

/// The demonstration that runs without any file.
const QUICKSTART: &str = include_str!("../../config/quickstart.yaml");

impl Source {
    /// The built-in demonstration.
    pub fn quickstart() -> Self {
        Self::text("quickstart.yaml", QUICKSTART)
    }

    /// A text; `name` stands where a file's path would.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Text {
            name: name.into(),
            text: text.into(),
        }
    }

    /// Reads and checks it.
    pub fn load(&self) -> Loaded {
        let env = |name: &str| std::env::var(name).ok();
        match self {
            Self::File(path) => config::load(path, &env),
            Self::Text { name, text } => config::parse(name, text, &env),
        }
    }

    /// What logs and the admin API call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { name, .. } => format!("built-in {name}"),
        }
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text { .. } => None,
        }
    }
}
