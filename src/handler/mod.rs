//! Handlers answer inside the process: one file a kind, one line here.
