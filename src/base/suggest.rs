//! "did you mean": the known word nearest to an unknown one.

/// How many words are shown where none is near.
const SHOWN: usize = 24;

/// Words longer than this are not compared: no name is so long, and each costs its square.
const LONGEST: usize = 64;

/// Advice for an unknown word: the nearest known one, or all of them if they are few.
#[expect(
    single_use_lifetimes,
    reason = "an anonymous one is not stable in this place"
)]
pub(crate) fn advice<'a>(
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(near) = nearest(word, known.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let words: Vec<_> = known
        .take(SHOWN + 1)
        .map(|word| format!("`{word}`"))
        .collect();
    match words.as_slice() {
        [one] => Some(format!("only {one} is known here")),
        [all @ .., last] if !all.is_empty() && words.len() <= SHOWN => {
            Some(format!("known here are {} and {last}", all.join(", ")))
        }
        _ => None,
    }
}

/// The nearest word by edit distance, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let letters: Vec<char> = word.chars().collect();
    if letters.is_empty() || letters.len() > LONGEST {
        return None;
    }
    let limit = match letters.len() {
        1..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    let near = known
        .clone()
        .filter(|known| known.len() <= LONGEST * 4)
        .filter_map(|known| distance(&letters, known, limit).map(|distance| (distance, known)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known);
    near.or_else(|| part_of(word, known))
}

/// `prefix` for `path_prefix`, where there is but one such word.
fn part_of<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut whole = known.filter(|known| known.split(['_', '-', '.']).any(|part| part == word));
    let first = whole.next()?;
    whole.next().is_none().then_some(first)
}

/// How many letters must be added, removed, changed or swapped with their neighbour; none if more
/// than `limit`.
fn distance(from: &[char], to: &str, limit: usize) -> Option<usize> {
    let to: Vec<char> = to.chars().collect();
    if from.len().abs_diff(to.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut next = Vec::with_capacity(last.len());
        next.push(row + 1);
        for (column, b) in to.iter().enumerate() {
            let at =
                |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let changed = at(&last, column) + usize::from(a != b);
            let mut best = changed
                .min(at(&last, column + 1) + 1)
                .min(at(&next, column) + 1);
            let swapped = row > 0
                && column > 0
                && from.get(row - 1) == Some(b)
                && to.get(column - 1) == Some(a);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = [
        "path",
        "path_prefix",
        "path_regex",
        "host",
        "headers",
        "orders-next",
    ];

    #[test]
    fn the_nearest_word_is_suggested() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, KNOWN.iter().copied()), expected, "{word}");
        };
        check("pathh", Some("path"));
        check("paht", Some("path"));
        check("path_perfix", Some("path_prefix"));
        check("hots", Some("host"));
        check("prefix", Some("path_prefix"));
        check("next", Some("orders-next"));
        check("upstream", None);
        check("", None);
        check(&"x".repeat(1000), None);
    }

    #[test]
    fn few_words_are_listed_where_none_is_near() {
        let check = |known: &[&str], expected: Option<&str>| {
            assert_eq!(advice("zzzzz", known.iter().copied()).as_deref(), expected);
        };
        check(&[], None);
        check(&["a"], Some("only `a` is known here"));
        check(&["a", "b", "c"], Some("known here are `a`, `b` and `c`"));
        check(&["a"; 25], None);
    }
}
