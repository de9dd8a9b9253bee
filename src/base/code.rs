//! Stable numbers of the warnings about configurations: `RT0101`.
//!
//! A number is for scripts, comments and search engines, so it keeps its meaning for ever: a rule that
//! goes takes its number with it, and a new one gets the next that is free in its hundred. The
//! explanations stand in `lint`.
//!
//! | hundred | subject |
//! |---|---|
//! | 1 | routing |
//! | 2 | time |
//! | 3 | failures: retries, hedging, mirrors, ejection |
//! | 4 | security |
//! | 5 | resources |
//! | 6 | what is not used |

use std::fmt;
use std::str::FromStr;

/// What kind of warning it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

/// Makes a constant and a name of each line.
macro_rules! codes {
    ($($(#[$doc:meta])* $NAME:ident = $number:literal $name:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $NAME: Self = Self($number);)*

            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$NAME),*];

            /// The short name, as in `shadowed-match`.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $name,)*
                    _ => "unknown",
                }
            }
        }
    };
}

codes! {
    /// A match that another takes all requests from.
    SHADOWED_MATCH = 101 "shadowed-match";
    /// Routes, and no listener that could bring them requests.
    NO_LISTENERS = 102 "no-listeners";
    /// A listener that no route is for.
    LISTENER_WITHOUT_ROUTES = 103 "listener-without-routes";
    /// Backends whose weights are all 0.
    NO_WEIGHT = 104 "no-weight";
    /// A split over one backend.
    SPLIT_OF_ONE = 105 "split-of-one";
    /// A balance by a parameter that a route does not have.
    BALANCE_WITHOUT_KEY = 106 "balance-without-key";
    /// A route whose upstream brings its requests back to it.
    ROUTE_TO_ITSELF = 107 "route-to-itself";
    /// A redirect to where the client is already.
    REDIRECT_TO_ITSELF = 108 "redirect-to-itself";
    /// A regular expression that says no more than a plain text would.
    NEEDLESS_REGEX = 109 "needless-regex";

    /// An attempt that may take longer than its request.
    ATTEMPT_OUTLASTS_REQUEST = 201 "attempt-outlasts-request";
    /// Attempts that together take longer than their request.
    ATTEMPTS_OUTLAST_REQUEST = 202 "attempts-outlast-request";
    /// A silence that ends an attempt before its own limit does.
    IDLE_ENDS_ATTEMPT = 203 "idle-ends-attempt";
    /// A connection that may take longer than what it is for.
    CONNECT_OUTLASTS_ATTEMPT = 204 "connect-outlasts-attempt";
    /// A hedge that would be asked when all is over.
    HEDGE_TOO_LATE = 205 "hedge-too-late";
    /// A wait for room that is longer than the request.
    QUEUE_OUTLASTS_REQUEST = 206 "queue-outlasts-request";
    /// A drain that Kubernetes cuts short.
    DRAIN_OUTLASTS_GRACE = 207 "drain-outlasts-grace";
    /// Requests that a drain cuts short.
    REQUEST_OUTLASTS_DRAIN = 208 "request-outlasts-drain";
    /// Connections to ourselves that the other end closes first.
    POOL_OUTLASTS_LISTENER = 209 "pool-outlasts-listener";

    /// Two gateways in a row that both try again.
    RETRIES_MULTIPLY = 301 "retries-multiply";
    /// Retries that no request of the route may have.
    RETRY_NEVER_HAPPENS = 302 "retry-never-happens";
    /// A retry after a timeout that never comes.
    TIMEOUT_NEVER_RETRIED = 303 "timeout-never-retried";
    /// A retry budget that bounds nothing.
    BUDGET_WITHOUT_BOUND = 304 "budget-without-bound";
    /// A hedge that no request of the route may have.
    HEDGE_NEVER_HAPPENS = 305 "hedge-never-happens";
    /// A mirror that is a backend, too.
    MIRROR_TO_BACKEND = 306 "mirror-to-backend";
    /// An upstream that may lose every endpoint.
    EJECTS_ALL = 307 "ejects-all";
    /// An upstream that may lose none.
    EJECTS_NOBODY = 308 "ejects-nobody";
    /// Success rates of too few endpoints to be compared.
    TOO_FEW_TO_COMPARE = 309 "too-few-to-compare";

    /// Everybody is a trusted proxy.
    TRUSTS_EVERYBODY = 401 "trusts-everybody";
    /// The port for operators is open to other hosts.
    ADMIN_REACHABLE = 402 "admin-reachable";
    /// Scripts of every site act with a visitor's credentials.
    CORS_TRUSTS_EVERY_SITE = 403 "cors-trusts-every-site";
    /// A secret that is written in the file.
    PLAIN_SECRET = 404 "plain-secret";

    /// Copies of bodies that nothing bounds.
    UNBOUNDED_BUFFERS = 501 "unbounded-buffers";

    /// A middleware, handler or upstream that nobody names.
    UNUSED = 601 "unused";
    /// Settings for upstreams on a route that sends to none.
    NOTHING_TO_RETRY = 602 "nothing-to-retry";
    /// A pattern of files that finds none.
    NO_FILE_MATCHES = 603 "no-file-matches";
    /// A queue before a limit that is not there.
    QUEUE_WITHOUT_LIMIT = 604 "queue-without-limit";
    /// Zones, where the gateway's own is not known.
    ZONES_WITHOUT_ZONE = 605 "zones-without-zone";
    /// A panic threshold where every endpoint is always ready.
    PANIC_WITHOUT_CHECKS = 606 "panic-without-checks";
}

impl Code {
    /// The code of that number or short name, in upper or lower case.
    pub fn find(word: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        match word.parse() {
            Ok(code) => Some(code),
            Err(Unknown) => all.find(|code| code.name().eq_ignore_ascii_case(word)),
        }
    }

    /// The hundred that its number is of.
    pub const fn group(self) -> u16 {
        self.0 / 100
    }
}

/// A text that is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl FromStr for Code {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let mut all = Self::ALL.iter().copied();
        all.find(|code| code.to_string().eq_ignore_ascii_case(text))
            .ok_or(Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RT{:04}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_is_found_by_number_and_by_name() {
        let check = |word: &str, expected: Option<Code>| {
            assert_eq!(Code::find(word), expected, "{word}");
        };
        check("RT0101", Some(Code::SHADOWED_MATCH));
        check("rt0101", Some(Code::SHADOWED_MATCH));
        check("shadowed-match", Some(Code::SHADOWED_MATCH));
        check("Unused", Some(Code::UNUSED));
        check("RT0199", None);
        check("0101", None);
        check("unknown", None);
        check("", None);
    }

    #[test]
    fn numbers_ascend_and_names_are_words_with_dashes() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.is_sorted());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        }
        assert_eq!(Code::UNUSED.to_string(), "RT0601");
        assert_eq!(Code::UNUSED.group(), 6);
    }
}
