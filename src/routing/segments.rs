//! A path cut at its slashes, once for a whole look-up.

use smallvec::SmallVec;

/// Where the slashes of a path are; no more of them than the table can ask for.
#[derive(Debug)]
pub(super) struct Segments<'p> {
    path: &'p str,
    slashes: SmallVec<[u32; 12]>,
}

impl<'p> Segments<'p> {
    /// Finds the first `most` slashes of a path that starts with one; in any other path (`*`) none.
    #[inline]
    pub(super) fn new(path: &'p str, most: usize) -> Self {
        let mut slashes = SmallVec::new();
        if path.starts_with('/') {
            for at in memchr::memchr_iter(b'/', path.as_bytes()).take(most) {
                // A head is far shorter than 4 GiB.
                slashes.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        Self { path, slashes }
    }

    #[inline]
    fn slash(&self, i: usize) -> Option<usize> {
        self.slashes.get(i).map(|&at| at as usize)
    }

    /// Number of segments, or the `most` of [`Segments::new`] where there are as many or more.
    pub(super) fn count(&self) -> usize {
        self.slashes.len()
    }

    /// The segment of that number, from 0. The last that is counted runs to the end of the path.
    pub(super) fn get(&self, i: usize) -> Option<&'p str> {
        let start = self.slash(i)? + 1;
        match self.slash(i + 1) {
            Some(end) => self.path.get(start..end),
            None => self.path.get(start..),
        }
    }

    /// The segments from that number on, with the slashes between them.
    pub(super) fn rest(&self, i: usize) -> Option<&'p str> {
        self.path.get(self.slash(i)? + 1..)
    }

    /// The first `depth` segments, each with its slash before it; 0 is the empty root.
    pub(super) fn prefix(&self, depth: usize) -> Option<&'p str> {
        match self.slash(depth) {
            Some(end) => self.path.get(..end),
            None if depth == self.slashes.len() && depth > 0 => Some(self.path),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_prefixes_end_at_slashes() {
        let segments = Segments::new("/a/bc//d", 10);
        assert_eq!(segments.count(), 4);
        let all: Vec<_> = (0..5).map(|i| segments.get(i)).collect();
        assert_eq!(all, [Some("a"), Some("bc"), Some(""), Some("d"), None]);
        let all: Vec<_> = (0..6).map(|depth| segments.prefix(depth)).collect();
        assert_eq!(
            all,
            [
                Some(""),
                Some("/a"),
                Some("/a/bc"),
                Some("/a/bc/"),
                Some("/a/bc//d"),
                None
            ]
        );
        assert_eq!(segments.rest(1), Some("bc//d"));
    }

    #[test]
    fn no_more_is_cut_than_asked_for() {
        let segments = Segments::new("/a/b/c/d", 2);
        assert_eq!(segments.count(), 2);
        assert_eq!(segments.get(0), Some("a"));
        assert_eq!(segments.rest(1), Some("b/c/d"));
        assert_eq!(segments.prefix(1), Some("/a"));
    }

    #[test]
    fn slashes_are_found_wherever_they_are() {
        for odd in [
            "/",
            "/\u{af}\u{2f}a/",
            "//////////",
            "/a2345678/b2345/////c/",
            "/.0/o/_/\u{12f}",
        ] {
            for most in 0..12 {
                let segments = Segments::new(odd, most);
                let found = segments.slashes.iter().map(|at| *at as usize);
                let all = odd.match_indices('/').map(|(at, _)| at).take(most);
                assert!(found.eq(all), "{odd}");
            }
        }
    }

    #[test]
    fn what_is_no_path_has_no_segments() {
        for odd in ["*", ""] {
            let segments = Segments::new(odd, 10);
            assert_eq!((segments.count(), segments.prefix(0)), (0, None));
        }
        assert_eq!(Segments::new("/", 10).count(), 1);
    }
}
