//! Whole texts, and what comes of them.
