//! What curl's options mean for the request that is sent.

use http::Version;

/// An option that is known.
#[derive(Debug)]
pub(super) struct Known {
    /// Without the two dashes.
    pub(super) long: &'static str,
    /// The letter that stands for it; none if there is none.
    short: Option<char>,
    pub(super) takes: Takes,
    pub(super) meaning: Meaning,
}

/// Whether a value follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Value,
}

/// What an option means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing for the request: where to connect, what to print, how long to wait.
    Nothing,
    /// Something that cannot be told here.
    Refused(&'static str),
    Url,
    Method,
    Header,
    /// Data, or a file's after `@`.
    Data,
    RawData,
    EncodedData,
    Json,
    /// The data goes into the query.
    InQuery,
    Head,
    User,
    Bearer,
    Agent,
    Referer,
    Range,
    Cookie,
    Compressed,
    Version(Version),
    Target,
}

/// The option of that name.
pub(super) fn long(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.long == name)
}

/// The option of that letter.
pub(super) fn short(letter: char) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.short == Some(letter))
}

/// Every name.
pub(super) fn longs() -> impl Iterator<Item = &'static str> + Clone {
    KNOWN.iter().map(|known| known.long)
}

const fn value(long: &'static str, short: Option<char>, meaning: Meaning) -> Known {
    Known {
        long,
        short,
        takes: Takes::Value,
        meaning,
    }
}

const fn flag(long: &'static str, short: Option<char>, meaning: Meaning) -> Known {
    Known {
        long,
        short,
        takes: Takes::Nothing,
        meaning,
    }
}

const FORM: Meaning = Meaning::Refused(
    "the parts of a form have a border that only curl knows; give the body with `--data-raw`",
);
const FILE: Meaning = Meaning::Refused("it sends a file; give the body with `--data-raw`");
const PROXY: Meaning = Meaning::Refused("it asks a proxy; give the request as the gateway gets it");
const LOGIN: Meaning = Meaning::Refused("only `-u` with basic authentication is known here");
const ONE: Meaning = Meaning::Refused("one request at a time");
const HTTP3: Meaning = Meaning::Refused("the gateway does not speak HTTP/3");
const CONFIG: Meaning = Meaning::Refused("it reads options from a file; write them out");

const KNOWN: &[Known] = &[
    value("url", None, Meaning::Url),
    value("request", Some('X'), Meaning::Method),
    value("header", Some('H'), Meaning::Header),
    value("data", Some('d'), Meaning::Data),
    value("data-ascii", None, Meaning::Data),
    value("data-binary", None, Meaning::Data),
    value("data-raw", None, Meaning::RawData),
    value("data-urlencode", None, Meaning::EncodedData),
    value("json", None, Meaning::Json),
    flag("get", Some('G'), Meaning::InQuery),
    flag("head", Some('I'), Meaning::Head),
    value("user", Some('u'), Meaning::User),
    value("oauth2-bearer", None, Meaning::Bearer),
    value("user-agent", Some('A'), Meaning::Agent),
    value("referer", Some('e'), Meaning::Referer),
    value("range", Some('r'), Meaning::Range),
    value("cookie", Some('b'), Meaning::Cookie),
    value("request-target", None, Meaning::Target),
    flag("compressed", None, Meaning::Compressed),
    flag("http1.0", Some('0'), Meaning::Version(Version::HTTP_10)),
    flag("http1.1", None, Meaning::Version(Version::HTTP_11)),
    flag("http2", None, Meaning::Version(Version::HTTP_2)),
    flag(
        "http2-prior-knowledge",
        None,
        Meaning::Version(Version::HTTP_2),
    ),
    // What cannot be told.
    flag("http3", None, HTTP3),
    flag("http3-only", None, HTTP3),
    value("form", Some('F'), FORM),
    value("form-string", None, FORM),
    value("upload-file", Some('T'), FILE),
    value("proxy", Some('x'), PROXY),
    flag("digest", None, LOGIN),
    flag("ntlm", None, LOGIN),
    flag("negotiate", None, LOGIN),
    flag("anyauth", None, LOGIN),
    flag("netrc", Some('n'), LOGIN),
    value("aws-sigv4", None, LOGIN),
    flag("next", Some(':'), ONE),
    value("config", Some('K'), CONFIG),
    // Where to connect, and with which keys.
    value("resolve", None, Meaning::Nothing),
    value("connect-to", None, Meaning::Nothing),
    value("unix-socket", None, Meaning::Nothing),
    value("abstract-unix-socket", None, Meaning::Nothing),
    value("interface", None, Meaning::Nothing),
    flag("ipv4", Some('4'), Meaning::Nothing),
    flag("ipv6", Some('6'), Meaning::Nothing),
    flag("insecure", Some('k'), Meaning::Nothing),
    value("cacert", None, Meaning::Nothing),
    value("capath", None, Meaning::Nothing),
    value("cert", Some('E'), Meaning::Nothing),
    value("cert-type", None, Meaning::Nothing),
    value("key", None, Meaning::Nothing),
    value("key-type", None, Meaning::Nothing),
    value("pass", None, Meaning::Nothing),
    value("ciphers", None, Meaning::Nothing),
    value("tls-max", None, Meaning::Nothing),
    flag("tlsv1.2", None, Meaning::Nothing),
    flag("tlsv1.3", None, Meaning::Nothing),
    flag("basic", None, Meaning::Nothing),
    flag("tcp-nodelay", None, Meaning::Nothing),
    flag("no-keepalive", None, Meaning::Nothing),
    value("noproxy", None, Meaning::Nothing),
    // What to print, and where.
    flag("silent", Some('s'), Meaning::Nothing),
    flag("show-error", Some('S'), Meaning::Nothing),
    flag("verbose", Some('v'), Meaning::Nothing),
    flag("include", Some('i'), Meaning::Nothing),
    flag("show-headers", None, Meaning::Nothing),
    flag("fail", Some('f'), Meaning::Nothing),
    flag("fail-with-body", None, Meaning::Nothing),
    flag("fail-early", None, Meaning::Nothing),
    flag("no-buffer", Some('N'), Meaning::Nothing),
    flag("progress-bar", Some('#'), Meaning::Nothing),
    flag("no-progress-meter", None, Meaning::Nothing),
    flag("remote-name", Some('O'), Meaning::Nothing),
    flag("remote-header-name", Some('J'), Meaning::Nothing),
    flag("create-dirs", None, Meaning::Nothing),
    value("output", Some('o'), Meaning::Nothing),
    value("output-dir", None, Meaning::Nothing),
    value("write-out", Some('w'), Meaning::Nothing),
    value("dump-header", Some('D'), Meaning::Nothing),
    value("cookie-jar", Some('c'), Meaning::Nothing),
    value("stderr", None, Meaning::Nothing),
    value("trace", None, Meaning::Nothing),
    value("trace-ascii", None, Meaning::Nothing),
    flag("trace-time", None, Meaning::Nothing),
    // What happens afterwards, and how long it may take.
    flag("location", Some('L'), Meaning::Nothing),
    flag("location-trusted", None, Meaning::Nothing),
    value("max-redirs", None, Meaning::Nothing),
    flag("post301", None, Meaning::Nothing),
    flag("post302", None, Meaning::Nothing),
    flag("post303", None, Meaning::Nothing),
    value("max-time", Some('m'), Meaning::Nothing),
    value("connect-timeout", None, Meaning::Nothing),
    value("expect100-timeout", None, Meaning::Nothing),
    value("keepalive-time", None, Meaning::Nothing),
    value("retry", None, Meaning::Nothing),
    value("retry-delay", None, Meaning::Nothing),
    value("retry-max-time", None, Meaning::Nothing),
    flag("retry-all-errors", None, Meaning::Nothing),
    flag("retry-connrefused", None, Meaning::Nothing),
    value("limit-rate", None, Meaning::Nothing),
    value("max-filesize", None, Meaning::Nothing),
    value("speed-limit", Some('Y'), Meaning::Nothing),
    value("speed-time", Some('y'), Meaning::Nothing),
    // How the URL is read: it is taken as it is written.
    flag("globoff", Some('g'), Meaning::Nothing),
    flag("path-as-is", None, Meaning::Nothing),
    flag("disable", Some('q'), Meaning::Nothing),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_and_no_letter_is_there_twice() {
        let mut names = HashSet::new();
        let mut letters = HashSet::new();
        for known in KNOWN {
            assert!(names.insert(known.long), "{}", known.long);
            assert!(
                known.short.is_none_or(|short| letters.insert(short)),
                "{known:?}"
            );
        }
    }
}
