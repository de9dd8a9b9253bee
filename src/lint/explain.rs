//! What each code means, why it matters, and what to write instead.

use std::fmt::Write as _;

use crate::base::code::Code;

/// The long form of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: Code,
    /// What is wrong, in a sentence.
    pub title: &'static str,
    /// Why it matters, and what to do.
    pub text: &'static str,
    /// What it looks like.
    pub instead_of: &'static str,
    /// What to write.
    pub write: &'static str,
}

macro_rules! explanations {
    ($($NAME:ident $title:literal $text:literal $bad:literal => $good:literal;)*) => {
        const ALL: &[Explanation] = &[$(Explanation {
            code: Code::$NAME,
            title: $title,
            text: $text,
            instead_of: $bad,
            write: $good,
        }),*];
    };
}

explanations! {
    SHADOWED_MATCH "a match can never win"
        "Another match is as exact, has no more conditions, and comes first: it takes every request of this one. Remove it, or give it a condition that the other does not have."
        "match: {path: /a}   # and the same again further down" => "match: {path: /a, headers: {x-canary: \"1\"}}";
    NO_LISTENERS "there are routes and no listener"
        "Nobody can connect. A program that embeds the gateway may mean it; a process of its own does not."
        "routes: […]" => "listeners: [{name: public, address: \"0.0.0.0:8080\"}]";
    LISTENER_WITHOUT_ROUTES "no route is for a listener"
        "It answers 404 to every request. Give it a route, or remove it."
        "routes: [{name: a, listeners: [other], …}]" => "routes: [{name: a, …}]   # every listener";
    NO_WEIGHT "every backend of a route has the weight 0"
        "The route takes its requests and answers 503 to all of them."
        "backends: [{upstream: a, weight: 0}]" => "backends: [{upstream: a}]";
    SPLIT_OF_ONE "a route is split over one backend"
        "`split_by` decides among several backends: with one there is nothing to decide."
        "upstream: a\nsplit_by: client_ip" => "backends: [{upstream: a, weight: 90}, {upstream: b, weight: 10}]\nsplit_by: client_ip";
    BALANCE_WITHOUT_KEY "requests are balanced by a path parameter that their route does not have"
        "Requests without the key go to any endpoint, so those of this route lose the affinity that the policy is there for."
        "match: {path: /orders}   # to an upstream with maglev by {path: user}" => "match: {path: \"/{user}/orders\"}";
    ROUTE_TO_ITSELF "the upstream of a route brings its requests back to the route"
        "An endpoint is one of the gateway's own listeners, on which the same route wins again. Each request goes in circles until it is answered 508."
        "endpoints: [\"127.0.0.1:8080\"]   # our own listener" => "endpoints: [\"127.0.0.1:9000\"]   # the service";
    REDIRECT_TO_ITSELF "a redirect leads to where the client is"
        "Browsers follow it until they give up."
        "match: {path: /a}\nhandler: {redirect: {path: /a}}" => "match: {path: /a}\nhandler: {redirect: {path: /b}}";
    NEEDLESS_REGEX "a regular expression says no more than plain text would"
        "A literal, a prefix or a typed template is faster to match, has a better place in the order of precedence, and cannot match more than it was meant to (an unescaped `.` does)."
        "path_regex: \"/api/.*\"" => "path_prefix: /api";
    ATTEMPT_OUTLASTS_REQUEST "an attempt may take longer than its whole request"
        "The request's own limit ends it first, so the limit of the attempt never takes effect and no time is left to try again."
        "timeouts: {request: 5s, attempt: 10s}" => "timeouts: {request: 15s, attempt: 5s}";
    ATTEMPTS_OUTLAST_REQUEST "all attempts together take longer than the request may"
        "The last of them are never made, or cut short. Shorten the attempts, make fewer, or give the request more time."
        "timeouts: {request: 10s, attempt: 5s}\nretry: {attempts: 4}" => "timeouts: {request: 10s, attempt: 3s}\nretry: {attempts: 3}";
    IDLE_ENDS_ATTEMPT "silence ends an attempt before its own limit does"
        "An upstream that thinks is silent: `idle` (1 m by default) ends the attempt as a timeout."
        "timeouts: {attempt: 2m}" => "timeouts: {attempt: 2m, idle: 3m}";
    CONNECT_OUTLASTS_ATTEMPT "a connection may take longer than the attempt that needs it"
        "An endpoint that swallows packets then fails as slow (UT), not as unreachable (UF), and retries on `connect_failure` do not happen."
        "timeouts: {attempt: 500ms}   # connect: 1s" => "timeouts: {connect: 200ms}   # in the upstream";
    HEDGE_TOO_LATE "a hedge would be asked when the request is over"
        "`hedge.after` must be well below the limits of the attempt and of the request."
        "hedge: {after: 5s}\ntimeouts: {request: 5s}" => "hedge: {after: 200ms}\ntimeouts: {request: 5s}";
    QUEUE_OUTLASTS_REQUEST "a request may wait for room longer than it may take"
        "Its own limit ends it in the queue: the client hears of a deadline, not of an overflow with `retry-after`."
        "limits: {queue: 100, queue_timeout: 30s}" => "limits: {queue: 100, queue_timeout: 1s}";
    DRAIN_OUTLASTS_GRACE "draining may take longer than Kubernetes waits"
        "Kubernetes kills a pod `terminationGracePeriodSeconds` (30 s by default) after TERM; what is in flight then is cut. If the pod has more, allow this warning."
        "runtime: {drain: 60s}" => "runtime: {drain: 25s}";
    REQUEST_OUTLASTS_DRAIN "a request may take longer than draining lasts"
        "At every rollout the longest requests of the route are cut. Raise `runtime.drain` (and the pod's grace period), or shorten the request."
        "timeouts: {request: 2m}   # drain: 25s" => "timeouts: {request: 20s}";
    POOL_OUTLASTS_LISTENER "connections to one of our own listeners are kept longer than it keeps them"
        "The listener closes idle connections first, and a request may meet one that is closing. The same happens with services: gunicorn keeps connections 2 s, Node 5 s, nginx 75 s. Retort learns such limits, but a pool that is shorter from the start meets none."
        "pool: {idle_timeout: 2m}   # the listener: 75s" => "pool: {idle_timeout: 55s}";
    RETRIES_MULTIPLY "two gateways in a row try again"
        "The route sends to another listener of this gateway whose route retries, too: 3 attempts of 3 are 9 at the service that is in trouble already. Retry where the failure is seen first, once."
        "retry: {attempts: 3}   # on both routes" => "retry: {attempts: 1}   # on the outer one";
    RETRY_NEVER_HAPPENS "no request of a route may be tried again"
        "Every method of the route may change something, and nothing in `on` proves that a request did not run. Say `idempotent: true` if the service can bear repetition."
        "match: {method: POST}\nretry: {on: [\"503\"]}" => "match: {method: POST}\nretry: {on: [\"503\"], idempotent: true}";
    TIMEOUT_NEVER_RETRIED "timeouts are to be retried, and there is none to speak of"
        "Only a limit of the attempt leaves time for another. Without `timeouts.attempt` the request is over when it times out."
        "retry: {on: [timeout]}" => "retry: {on: [timeout]}\ntimeouts: {attempt: 2s}";
    BUDGET_WITHOUT_BOUND "a retry budget bounds nothing"
        "With 100 % every request may be tried again: an upstream in trouble gets twice its load. A fifth is enough for single failures."
        "retry: {budget: 100%}" => "retry: {budget: 20%}";
    HEDGE_NEVER_HAPPENS "no request of a route may be hedged"
        "Only what may be done twice is asked twice, and no method of the route may."
        "match: {method: POST}\nhedge: {after: p95}" => "match: {method: GET}\nhedge: {after: p95}";
    MIRROR_TO_BACKEND "a mirror is a backend of the same route"
        "It gets requests twice, and once more than anybody expects."
        "upstream: a\nmirror: {upstream: a}" => "upstream: a\nmirror: {upstream: a-next}";
    EJECTS_ALL "every endpoint of an upstream may be ejected"
        "If all fail at once (a shared database), all are out and every request fails fast, also when the trouble is over. Leave some in, or set a panic threshold."
        "outlier: {max_ejected: 100%}" => "outlier: {max_ejected: 50%}";
    EJECTS_NOBODY "no endpoint of an upstream can be ejected"
        "An only endpoint is never ejected, and a share that is less than one endpoint is none."
        "endpoints: [\"127.0.0.1:9001\"]\noutlier: {}" => "endpoints: [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\noutlier: {}";
    TOO_FEW_TO_COMPARE "too few endpoints for their success rates to be compared"
        "A rate is an outlier among others: there must be at least as many endpoints as `success_rate` asks for."
        "outlier: {success_rate: {}}   # with two endpoints" => "outlier: {consecutive_failures: 5}";
    TRUSTS_EVERYBODY "everybody is a trusted proxy"
        "Any client can say in `x-forwarded-for` that it is another: rate limits, logs and access rules by address believe it. Name the networks of your load balancers."
        "trusted_proxies: [0.0.0.0/0]" => "trusted_proxies: [10.0.0.0/8]";
    ADMIN_REACHABLE "other hosts reach the port for operators"
        "Whoever reaches it may see and change what is served. Keep it on loopback or a Unix socket."
        "admin: {address: \"0.0.0.0:15000\"}" => "admin: {address: \"127.0.0.1:15000\"}";
    CORS_TRUSTS_EVERY_SITE "scripts of every site act with a visitor's credentials"
        "Any page that a visitor opens can read and change what the visitor can. Name the sites."
        "cors: {origins: [{regex: \".*\"}], credentials: true}" => "cors: {origins: [\"https://shop.example\"], credentials: true}";
    PLAIN_SECRET "a secret stands in the file"
        "Files are copied, committed and shown. Take it from the environment or from a file that only the process reads."
        "set: {authorization: \"Bearer abc\"}" => "set: {authorization: \"Bearer ${TOKEN}\"}";
    UNBOUNDED_BUFFERS "copies of bodies may take more memory than there is"
        "`retry.buffer` is kept for every request in flight. With many of them at once that is the process's largest cost: keep it small, or bound the requests."
        "retry: {buffer: 64MiB}" => "retry: {buffer: 64KiB}";
    UNUSED "something is declared and never named"
        "Dead configuration misleads whoever reads it at three in the morning. Remove it, or name it where it was meant to be."
        "upstreams: {old: {…}}   # no route sends there" => "upstreams: {}";
    NOTHING_TO_RETRY "a route says how to retry, and sends to no upstream"
        "Handlers answer once. The section has no effect."
        "handler: hello\nretry: {}" => "handler: hello";
    NO_FILE_MATCHES "a pattern of `include` finds no file"
        "Most often a slip in the path, which is relative to the file that includes."
        "include: [route/*.yaml]" => "include: [routes/*.yaml]";
    QUEUE_WITHOUT_LIMIT "there is a queue, and no limit before it"
        "Nobody waits where everybody is let through."
        "limits: {queue: 100}" => "limits: {requests: 500, queue: 100}";
    ZONES_WITHOUT_ZONE "endpoints have zones, and the gateway's own is not known"
        "No endpoint is preferred. Say `runtime.zone`, from the environment of the pod."
        "endpoints: [{address: \"10.0.0.1:80\", zone: eu-1a}]" => "runtime: {zone: \"${ZONE}\"}";
    PANIC_WITHOUT_CHECKS "a panic threshold where every endpoint is always ready"
        "Without health checks and ejection no endpoint is ever out, and the threshold has no meaning."
        "panic_threshold: 50%" => "panic_threshold: 50%\nhealth_check: {http: {path: /healthz}}";
}

/// Every explanation, in the order of the codes.
pub const fn all() -> &'static [Explanation] {
    ALL
}

/// The explanation of a code.
pub fn find(code: Code) -> Option<&'static Explanation> {
    ALL.iter().find(|one| one.code == code)
}

impl Explanation {
    /// For a terminal.
    pub fn page(&self) -> String {
        let indented = |text: &str| {
            let lines = text.lines();
            lines
                .flat_map(|line| ["    ", line, "\n"])
                .collect::<String>()
        };
        format!(
            "{} {}: {}\n\n{}\n\ninstead of\n\n{}\nwrite\n\n{}\nto silence it, beside it or in the line above\n\n    # retort: allow {}\n",
            self.code,
            self.code.name(),
            self.title,
            wrapped(self.text),
            indented(self.instead_of),
            indented(self.write),
            self.code
        )
    }
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 100 {
            out.push('\n');
            width = 0;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out += word;
        width += length;
    }
    out
}

/// All codes as a page.
pub fn markdown() -> String {
    let mut text = String::new();
    for one in ALL {
        // Writing to a string cannot fail.
        let _infallible = write!(
            text,
            "### {} {}\n\n**{}.** {}\n\nInstead of\n\n```text\n{}\n```\n\nwrite\n\n```text\n{}\n```\n\n",
            one.code,
            one.code.name(),
            one.title,
            one.text,
            one.instead_of,
            one.write
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once_and_in_order() {
        let explained: Vec<Code> = all().iter().map(|one| one.code).collect();
        assert_eq!(explained, Code::ALL);
    }
}
