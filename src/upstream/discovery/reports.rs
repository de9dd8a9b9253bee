//! What a look brought becomes what is worth telling.

use super::{Found, ordered};

/// Tells lists and failures on, each only if it is news.
#[derive(Debug)]
pub(super) struct Reports<R> {
    report: R,
    list: Option<Vec<Found>>,
    failure: Option<String>,
}

impl<R: FnMut(Result<Vec<Found>, String>)> Reports<R> {
    /// Nothing told yet.
    pub(super) fn new(report: R) -> Self {
        Self {
            report,
            list: None,
            failure: None,
        }
    }

    /// A look found this list.
    pub(super) fn found(&mut self, list: Vec<Found>) {
        self.looked(Some(list), None);
    }

    /// A look failed.
    pub(super) fn failed(&mut self, failure: String) {
        self.looked(None, Some(failure));
    }

    /// A look brought a list, a failure, or both where a part of the source failed.
    pub(super) fn looked(&mut self, list: Option<Vec<Found>>, failure: Option<String>) {
        if let Some(list) = list.map(ordered) {
            let is_over = failure.is_none() && self.failure.is_some();
            if is_over || self.list.as_ref() != Some(&list) {
                (self.report)(Ok(list.clone()));
                self.list = Some(list);
                self.failure = None;
            }
        }
        match failure {
            Some(failure) if self.failure.as_ref() != Some(&failure) => {
                (self.report)(Err(failure.clone()));
                self.failure = Some(failure);
            }
            Some(_) => {}
            None => self.failure = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[&str]) -> Vec<Found> {
        let found = |address: &&str| Found {
            address: address.parse().expect(address),
            weight: 1,
            zone: None,
            host: None,
        };
        addresses.iter().map(found).collect()
    }

    /// What was told after each look: the number of endpoints, or the failure's words.
    fn told(looks: &[(Option<&[&str]>, Option<&str>)]) -> Vec<Result<usize, String>> {
        let mut told = Vec::new();
        let mut reports = Reports::new(|report: Result<Vec<Found>, String>| {
            told.push(report.map(|list| list.len()));
        });
        for (addresses, failure) in looks {
            reports.looked(addresses.map(list), failure.map(ToOwned::to_owned));
        }
        told
    }

    const ONE: Option<&[&str]> = Some(&["10.0.0.1:80"]);
    const TWO: Option<&[&str]> = Some(&["10.0.0.1:80", "10.0.0.2:80"]);
    const TWO_TURNED: Option<&[&str]> = Some(&["10.0.0.2:80", "10.0.0.1:80"]);
    const NONE: Option<&[&str]> = Some(&[]);

    #[test]
    fn a_list_is_told_at_first_and_when_it_changed() {
        assert_eq!(
            told(&[(TWO, None), (TWO_TURNED, None), (ONE, None)]),
            [Ok(2), Ok(1)]
        );
        assert_eq!(told(&[(NONE, None), (NONE, None)]), [Ok(0)]);
    }

    #[test]
    fn a_failure_is_told_once_until_its_words_change_or_it_is_over() {
        let a = || Err("a".to_owned());
        let b = || Err("b".to_owned());
        assert_eq!(
            told(&[(None, Some("a")), (None, Some("a")), (None, Some("b"))]),
            [a(), b()]
        );
        assert_eq!(
            told(&[
                (ONE, None),
                (None, Some("a")),
                (ONE, None),
                (ONE, None),
                (None, Some("a"))
            ]),
            [Ok(1), a(), Ok(1), a()]
        );
    }

    #[test]
    fn a_failed_part_is_told_after_the_list_and_no_oftener_than_that() {
        let a = || Err("a".to_owned());
        assert_eq!(
            told(&[
                (ONE, Some("a")),
                (ONE, Some("a")),
                (TWO, Some("a")),
                (TWO, None)
            ]),
            [Ok(1), a(), Ok(2), a(), Ok(2)]
        );
    }
}
