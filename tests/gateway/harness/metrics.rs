//! Reads the Prometheus text format, as far as tests need it.

use std::collections::BTreeMap;

/// The series of one scrape.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    series: Vec<(String, BTreeMap<String, String>, f64)>,
    pub(crate) text: String,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let value = value.parse().expect("a number");
                (name.to_owned(), parse_labels(labels), value)
            })
            .collect();
        Self {
            series,
            text: text.to_owned(),
        }
    }

    /// The sum over the series that have all these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series
            .iter()
            .filter(|(found, has, _)| {
                found == name
                    && labels
                        .iter()
                        .all(|(key, value)| has.get(*key).is_some_and(|v| v == value))
            })
            .map(|(_, _, value)| value)
            .sum()
    }

    /// True if any series has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.series.iter().any(|(found, _, _)| found == name)
    }

    /// The values of a label over the series of a name.
    pub(crate) fn values(&self, name: &str, label: &str) -> Vec<&str> {
        self.series
            .iter()
            .filter(|(found, _, _)| found == name)
            .filter_map(|(_, labels, _)| labels.get(label).map(String::as_str))
            .collect()
    }
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_end_matches('}');
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = after.find('"').expect("a closing quote");
        labels.insert(
            key.trim_start_matches(',').to_owned(),
            after[..end].to_owned(),
        );
        rest = &after[end + 1..];
    }
    labels
}
