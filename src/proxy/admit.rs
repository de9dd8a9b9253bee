//! May this request in at all, and what of its head can be believed?
//!
//! Pure: a function of the head and of what the listener says. After it the path is in its one
//! normal form, the host is sure, hop-by-hop headers are gone, and forwarding headers say only
//! what we or a trusted proxy vouch for.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::base::message::{Client, RequestHead};
use crate::proxy::failure::Failure;
use crate::proxy::present::{self, Present};
use crate::routing::path::{self, EncodedSlashes};
use crate::telemetry::decision::Flag;

pub(crate) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Our name in `via` (RFC 9110, 7.6.3), by which a request that goes in circles is known.
const VIA: HeaderValue = HeaderValue::from_static("1.1 retort");

/// A request may pass this many of us: a chain of services with a sidecar on each side of a call
/// stays far below, a loop is there at once.
const MOST_HOPS: usize = 24;

/// The connection that a request came by.
#[derive(Debug)]
pub(crate) struct Hop<'a> {
    /// The other end; none for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The same, as a header value made once a connection.
    pub peer_text: &'a HeaderValue,
    /// Whether it was TLS.
    pub secure: bool,
    /// Whose word about earlier hops is taken.
    pub trusted: &'a [IpNet],
}

/// Whether the client asks to leave HTTP behind, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A plain request.
    Plain,
    /// `Upgrade` (RFC 9110, 7.8): WebSocket and others.
    Upgrade,
}

/// Checks and cleans a head.
///
/// # Errors
/// 400 for what is malformed or ambiguous, 501 for CONNECT, 508 for what goes in circles.
pub(crate) fn admit(head: &mut RequestHead, hop: &Hop<'_>) -> Result<Wish, Failure> {
    check_method(head)?;
    check_host(head)?;
    let normal = path::normalise(head.path(), EncodedSlashes::Refuse)
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    if let std::borrow::Cow::Owned(normal) = normal {
        head.set_path(normal);
    }
    let present = Present::of(&head.headers);
    // At once, for what is set below: a map that grows twice hashes all its names twice.
    head.headers.reserve(4);
    count_hops(head, present)?;
    let wish = strip_hop_by_hop(head, present)?;
    identify(head, hop, present);
    Ok(wish)
}

fn check_method(head: &RequestHead) -> Result<(), Failure> {
    if head.method() == Method::CONNECT {
        return Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            Flag::BadRequest,
            "CONNECT is not served: this gateway is no forward proxy",
        ));
    }
    if head.path() == "*" && head.method() != Method::OPTIONS {
        return Err(Failure::bad_request("the target `*` is for OPTIONS alone"));
    }
    // A bare host is a target for CONNECT alone (RFC 9112, 3.2.3).
    if head.uri().authority().is_some() && head.uri().scheme().is_none() {
        return Err(Failure::bad_request(
            "the target is neither a path nor a URL",
        ));
    }
    Ok(())
}

/// RFC 9112, 3.2: exactly one host, and the target's authority must agree with it.
fn check_host(head: &mut RequestHead) -> Result<(), Failure> {
    let mut hosts = head.headers.all(header::HOST);
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Failure::bad_request("Host is given twice"));
    }
    drop(hosts);
    let authority = head.uri().authority();
    match (first, authority) {
        (Some(host), Some(authority)) => {
            if !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes())
            {
                return Err(Failure::bad_request(
                    "Host and the target's authority disagree",
                ));
            }
        }
        (Some(host), None) => {
            let may_be_empty = head.version() < Version::HTTP_2;
            if !(is_host(host.as_bytes()) || host.is_empty() && may_be_empty) {
                return Err(Failure::bad_request(
                    "Host is not a host with an optional port",
                ));
            }
        }
        (None, Some(authority)) => {
            let host = HeaderValue::from_str(authority.as_str());
            let host = host.map_err(|_| Failure::bad_request("the authority is not a host"))?;
            head.set_header(header::HOST, host);
        }
        (None, None) if head.version() == Version::HTTP_11 => {
            return Err(Failure::bad_request("Host is missing (RFC 9112, 3.2)"));
        }
        (None, None) => {}
    }
    if head
        .uri()
        .authority()
        .is_some_and(|authority| !is_host(authority.as_str().as_bytes()))
    {
        return Err(Failure::bad_request(
            "the authority is not a host with an optional port",
        ));
    }
    Ok(())
}

/// A name, an IPv4 address or a bracketed IPv6 address, then perhaps a port: no user, no more.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|&byte| byte == b':') {
        Some(colon) if text.last() != Some(&b']') => {
            let (host, port) = text.split_at(colon);
            (host, port.get(1..).unwrap_or_default())
        }
        _ => (text, [].as_slice()),
    };
    let inside = host
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    let host_is_fine = match inside {
        Some(address) => std::str::from_utf8(address)
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host.len() <= 255
                && host
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    // Digits of equal number compare as numbers do.
    let port_is_fine = port.len() < 5 || (port.len() == 5 && port <= b"65535".as_slice());
    host_is_fine && port_is_fine && port.iter().all(u8::is_ascii_digit)
}

fn count_hops(head: &mut RequestHead, present: Present) -> Result<(), Failure> {
    if present.any(present::VIA) {
        let hops = head
            .headers
            .all(header::VIA)
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .filter(|hop| hop.trim_ascii().ends_with(b" retort"))
            .count();
        if hops >= MOST_HOPS {
            return Err(Failure::of(
                Flag::Loop,
                format!(
                    "the request has passed {hops} gateways: is an upstream's endpoint one of its own listeners?"
                ),
            ));
        }
    }
    head.headers.append(header::VIA, VIA);
    Ok(())
}

/// Takes away what belongs to the client's connection alone (RFC 9110, 7.6.1).
fn strip_hop_by_hop(head: &mut RequestHead, present: Present) -> Result<Wish, Failure> {
    if !present.any(present::HOP_BY_HOP) {
        return Ok(Wish::Plain);
    }
    let trailers = head
        .headers
        .text(header::TE)
        .is_some_and(|te| te.split(',').any(|coding| coding.trim() == "trailers"));
    let mut wish = Wish::Plain;
    let connection: SmallVec<[HeaderValue; 1]> =
        head.headers.all(header::CONNECTION).cloned().collect();
    let options = connection
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    for option in options {
        wish = strip_option(head, option.trim_ascii(), wish)?;
    }
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        head.headers.remove(name);
    }
    if wish == Wish::Plain {
        head.headers.remove(header::UPGRADE);
    }
    if trailers {
        let trailers = HeaderValue::from_static("trailers");
        head.headers.set(header::TE, trailers);
    }
    Ok(wish)
}

/// One option of `Connection`: the header of that name goes, too.
fn strip_option(head: &mut RequestHead, option: &[u8], wish: Wish) -> Result<Wish, Failure> {
    if option.is_empty()
        || option.eq_ignore_ascii_case(b"close")
        || option.eq_ignore_ascii_case(b"keep-alive")
        || option.eq_ignore_ascii_case(b"te")
    {
        return Ok(wish);
    }
    if option.eq_ignore_ascii_case(b"upgrade") {
        let is_switch = head.version() == Version::HTTP_11
            && head
                .headers
                .text(header::UPGRADE)
                .is_some_and(|protocol| !protocol.eq_ignore_ascii_case("h2c"));
        return Ok(if is_switch { Wish::Upgrade } else { wish });
    }
    let name = HeaderName::from_bytes(option)
        .map_err(|_| Failure::bad_request("Connection names something that is no header"))?;
    // Nobody may use it to take away what routing, framing or security rest upon.
    let vital = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::AUTHORIZATION,
        header::COOKIE,
        header::VIA,
    ];
    if vital.contains(&name) || name.as_str().starts_with("x-forwarded-") {
        return Err(Failure::bad_request(
            "Connection names a header that is not the connection's own",
        ));
    }
    head.headers.remove(name);
    Ok(wish)
}

/// Finds out who the client is, and rebuilds the headers that say so to the upstream.
fn identify(head: &mut RequestHead, hop: &Hop<'_>, present: Present) {
    let peer = hop.peer.map(|peer| peer.ip().to_canonical());
    let trusted = peer.is_some_and(|peer| is_trusted(peer, hop.trusted));
    let mut client = Client {
        peer: hop.peer,
        ip: peer,
        secure: hop.secure,
    };
    if trusted {
        client.ip = first_untrusted(head, hop.trusted).or(peer);
        client.secure = head
            .headers
            .text(&X_FORWARDED_PROTO)
            .map_or(hop.secure, |proto| proto.eq_ignore_ascii_case("https"));
        append_hop(head, hop.peer_text);
    } else {
        head.headers.remove(header::FORWARDED);
        if peer.is_some() {
            head.headers
                .set(X_FORWARDED_FOR.clone(), hop.peer_text.clone());
        } else {
            head.headers.remove(&X_FORWARDED_FOR);
        }
    }
    head.headers.set(
        X_FORWARDED_PROTO.clone(),
        HeaderValue::from_static(client.scheme()),
    );
    if !(trusted && present.any(present::X_FORWARDED_HOST)) {
        match head.headers.get(header::HOST).cloned() {
            Some(host) => head.headers.set(X_FORWARDED_HOST.clone(), host),
            None => {
                head.headers.remove(&X_FORWARDED_HOST);
            }
        }
    }
    head.client = client;
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The nearest address that no trusted proxy has, read from right to left.
fn first_untrusted(head: &RequestHead, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut farthest = None;
    let fields: SmallVec<[&HeaderValue; 2]> = head.headers.all(&X_FORWARDED_FOR).collect();
    for field in fields.into_iter().rev() {
        for hop in field.to_str().ok()?.rsplit(',') {
            let hop = hop.trim();
            let address = hop
                .parse::<SocketAddr>()
                .map(|address| address.ip())
                .or_else(|_| hop.trim_matches(['[', ']']).parse::<IpAddr>())
                .ok()?
                .to_canonical();
            if !is_trusted(address, trusted) {
                return Some(address);
            }
            farthest = Some(address);
        }
    }
    farthest
}

/// Adds the peer to what a trusted proxy has handed on.
fn append_hop(head: &mut RequestHead, peer: &HeaderValue) {
    let mut chain = Vec::new();
    for field in head.headers.all(&X_FORWARDED_FOR) {
        chain.extend_from_slice(field.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        head.headers.set(X_FORWARDED_FOR.clone(), chain);
    }
    if let Some(forwarded) = head.headers.text(header::FORWARDED) {
        let peer = peer.to_str().unwrap_or("unknown");
        let quoted = if peer.contains(':') {
            format!("{forwarded}, for=\"[{peer}]\"")
        } else {
            format!("{forwarded}, for={peer}")
        };
        if let Ok(forwarded) = HeaderValue::try_from(quoted) {
            head.headers.set(header::FORWARDED, forwarded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;

    static PEER: HeaderValue = HeaderValue::from_static("10.0.0.9");

    fn hop(trusted: &[IpNet]) -> Hop<'_> {
        Hop {
            peer: Some(SocketAddr::from(([10, 0, 0, 9], 1234))),
            peer_text: &PEER,
            secure: false,
            trusted,
        }
    }

    fn head(target: &'static str, headers: &[(&'static str, &'static str)]) -> RequestHead {
        let mut head = RequestHead::new(Method::GET, Uri::from_static(target));
        for (name, value) in headers {
            head.headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        head
    }

    fn admitted(headers: &[(&'static str, &'static str)], trusted: &[IpNet]) -> RequestHead {
        let mut head = head("/", headers);
        admit(&mut head, &hop(trusted)).expect("admitted");
        head
    }

    #[test]
    fn an_unknown_peer_is_not_believed() {
        let head = admitted(
            &[
                ("host", "a"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("forwarded", "for=1.2.3.4"),
            ],
            &[],
        );
        assert_eq!(head.client.ip, Some([10, 0, 0, 9].into()));
        assert_eq!(head.header("x-forwarded-for"), Some("10.0.0.9"));
        assert_eq!(head.header("x-forwarded-proto"), Some("http"));
        assert_eq!(head.header("x-forwarded-host"), Some("a"));
        assert_eq!(head.header("forwarded"), None);
    }

    #[test]
    fn a_trusted_proxy_is_believed_from_right_to_left() {
        let trusted = ["10.0.0.0/8".parse().expect("a range")];
        let check = |value: &'static str, ip: [u8; 4]| {
            let head = admitted(&[("host", "a"), ("x-forwarded-for", value)], &trusted);
            assert_eq!(head.client.ip, Some(ip.into()), "{value}");
        };
        check("1.2.3.4", [1, 2, 3, 4]);
        check("6.6.6.6, 1.2.3.4, 10.1.1.1", [1, 2, 3, 4]);
        check("10.3.3.3, 10.1.1.1", [10, 3, 3, 3]);
        check("1.2.3.4:5678", [1, 2, 3, 4]);
        check("nonsense", [10, 0, 0, 9]);
        let head = admitted(&[("host", "a"), ("x-forwarded-for", "1.2.3.4")], &trusted);
        assert_eq!(head.header("x-forwarded-for"), Some("1.2.3.4, 10.0.0.9"));
    }

    #[test]
    fn what_belongs_to_the_connection_goes_no_further() {
        let head = admitted(
            &[
                ("host", "a"),
                ("connection", "keep-alive, x-secret"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
            ],
            &[],
        );
        for name in ["connection", "x-secret", "keep-alive", "upgrade"] {
            assert_eq!(head.header(name), None, "{name}");
        }
        assert_eq!(head.header("te"), Some("trailers"));
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let refused = admit(&mut head("/", headers), &hop(&[])).expect_err("refused");
            assert_eq!(refused.status, 400, "{headers:?}");
        };
        check(&[]);
        check(&[("host", "a"), ("host", "a")]);
        check(&[("host", "a b")]);
        check(&[("host", "user@a")]);
        check(&[("host", "a:port")]);
        check(&[("host", "a:65536")]);
        check(&[("host", "a:000080")]);
        check(&[("host", "a/b")]);
        check(&[("host", "[::1")]);
        check(&[("host", "a"), ("connection", "host")]);
        for fine in ["a", "a.b-c_d:80", "a:65535", "127.0.0.1", "[::1]:80"] {
            admitted(&[("host", fine)], &[]);
        }
    }

    #[test]
    fn a_request_in_circles_is_stopped() {
        let mut head = head("/", &[("host", "a")]);
        let passes = (0..100)
            .take_while(|_| admit(&mut head, &hop(&[])).is_ok())
            .count();
        assert_eq!(passes, MOST_HOPS);
    }

    #[test]
    fn an_upgrade_is_a_wish_only_where_it_is_whole() {
        let wish = |headers: &[(&'static str, &'static str)]| {
            admit(&mut head("/", headers), &hop(&[])).expect("admitted")
        };
        let host = ("host", "a");
        let upgrade = ("upgrade", "websocket");
        assert_eq!(
            wish(&[host, ("connection", "Upgrade"), upgrade]),
            Wish::Upgrade
        );
        assert_eq!(wish(&[host, upgrade]), Wish::Plain);
        assert_eq!(wish(&[host, ("connection", "upgrade")]), Wish::Plain);
        assert_eq!(
            wish(&[host, ("connection", "upgrade"), ("upgrade", "h2c")]),
            Wish::Plain
        );
    }
}
