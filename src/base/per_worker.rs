//! A configured value with a copy of its own for each worker thread.
//!
//! Cloning a [`HeaderValue`] counts references, and a count that all workers write is a cache line
//! that they fight for. What every request clones is therefore copied once per worker; finding the
//! worker's copy costs about 2 ns and writes nothing that others read.

use std::fmt;

use http::header::{HeaderName, HeaderValue};
use thread_local::ThreadLocal;

/// Something that is cloned by every request of every worker.
pub struct PerWorker<T: Send> {
    original: T,
    /// Boxed, for it has half a kilobyte of places for threads.
    copies: Box<ThreadLocal<T>>,
}

/// A copy that shares nothing with its original.
pub trait Apart {
    /// Makes it.
    #[must_use]
    fn apart(&self) -> Self;
}

impl<T: Apart + Send> PerWorker<T> {
    /// Keeps the value; the copies are made when a worker first asks.
    pub fn new(original: T) -> Self {
        Self {
            original,
            copies: Box::default(),
        }
    }

    /// The copy of this thread.
    pub fn get(&self) -> &T {
        self.copies.get_or(|| self.original.apart())
    }
}

impl Apart for HeaderName {
    fn apart(&self) -> Self {
        // The text of a name is a valid name: the second branch is never taken.
        Self::from_bytes(self.as_str().as_bytes()).unwrap_or_else(|_| self.clone())
    }
}

impl Apart for HeaderValue {
    fn apart(&self) -> Self {
        // The bytes of a value are a valid value: the second branch is never taken.
        Self::from_bytes(self.as_bytes()).unwrap_or_else(|_| self.clone())
    }
}

impl<A: Apart, B: Apart> Apart for (A, B) {
    fn apart(&self) -> Self {
        (self.0.apart(), self.1.apart())
    }
}

impl<T: Apart> Apart for Box<[T]> {
    fn apart(&self) -> Self {
        self.iter().map(T::apart).collect()
    }
}

impl<T: fmt::Debug + Send> fmt::Debug for PerWorker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.original.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_one_copy_of_its_own() {
        let value = PerWorker::new(HeaderValue::from_static("retort"));
        let here: *const HeaderValue = value.get();
        assert_eq!(value.get(), "retort");
        assert!(std::ptr::eq(here, value.get()));
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(value.get(), "retort"));
        });
    }
}
