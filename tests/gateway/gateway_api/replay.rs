//! Sends one case of the tables and judges what came back, as the suite's own code would.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::HeaderMap;
use serde_json::Value;

use super::translate::Situation;
use crate::harness::http2::{Http2, pairs};
use crate::harness::{Conn, Gateway};

/// How often a case with weights is sent.
const DRAWS: u32 = 600;

/// What came back.
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    /// What the backend received, where one answered.
    received: Option<Value>,
    grpc_status: Option<String>,
}

/// Replays a case at every listener that it is meant for.
pub(super) async fn case(
    test: &str,
    case: &Value,
    situation: &Situation,
    gateway: &Gateway,
) -> Result<(), String> {
    for door in situation.doors(test, case) {
        let address = gateway.address(&door);
        if test.ends_with("Weight") || test.ends_with("BackendWeights") {
            weights(test, case, address).await?;
        } else if test.starts_with("GRPC") {
            judge_grpc(case, &send_grpc(case, address).await)?;
        } else {
            judge(case, &send(case, &door, address).await)?;
        }
    }
    Ok(())
}

/// True if our contract promises another answer than the case expects.
pub(super) fn differs(test: &str, case: &Value) -> bool {
    let path = case["Request"]["Path"].as_str().unwrap_or_default();
    let is_known = match case["Request"]["Method"].as_str().unwrap_or("GET") {
        "HEAD" | "PUT" => path == "/",
        "DELETE" => path == "/path4",
        _ => false,
    };
    test == "HTTPRouteMethodMatching" && case["Response"]["StatusCode"] == 404 && is_known
}

/// Sends the request of a case over the protocol that it names.
async fn send(case: &Value, door: &str, address: SocketAddr) -> Seen {
    let request = &case["Request"];
    let path = request["Path"].as_str().expect("a path");
    let method = request["Method"].as_str().unwrap_or("GET");
    let mut host = request["Host"]
        .as_str()
        .unwrap_or("gateway.test")
        .to_owned();
    // Clients name the port that they connect to, unless it is the scheme's own.
    let port = door.rsplit('-').next().unwrap_or_default();
    if port != "80" && !host.contains(':') {
        host = format!("{host}:{port}");
    }
    let mut headers = fields(&request["Headers"]);
    let set: Vec<String> = fields(&case["BackendSetResponseHeaders"])
        .into_iter()
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    if !set.is_empty() {
        headers.push(("x-echo-set-header".to_owned(), set.join(",")));
    }
    if request["Protocol"] == "H2C_PRIOR_KNOWLEDGE" {
        return send_http2(method, &format!("http://{host}{path}"), &headers, address).await;
    }
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let mut conn = Conn::connect(address).await;
    conn.send(format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n{lines}\r\n"
    ))
    .await;
    let answer = conn.answer_to(method).await.expect("an answer");
    Seen {
        status: answer.status,
        received: serde_json::from_slice(&answer.body).ok(),
        headers: answer.head.headers,
        grpc_status: None,
    }
}

async fn send_grpc(case: &Value, address: SocketAddr) -> Seen {
    let method = ["EchoRequest", "EchoTwoRequest", "EchoThreeRequest"]
        .into_iter()
        .find(|kind| !case[kind].is_null())
        .and_then(|kind| kind.strip_suffix("Request"))
        .expect("a method");
    let host = case["RequestMetadata"]["Authority"]
        .as_str()
        .unwrap_or("gateway.test");
    let mut headers = fields(&case["RequestMetadata"]["Metadata"]);
    headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
    headers.push(("te".to_owned(), "trailers".to_owned()));
    let path =
        format!("http://{host}/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/{method}");
    send_http2("POST", &path, &headers, address).await
}

async fn send_http2(
    method: &str,
    target: &str,
    headers: &[(String, String)],
    address: SocketAddr,
) -> Seen {
    let client = Http2::connect(address).await;
    let mut request = http::Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let reply = client
        .send(request.body(()).expect("a request"), None)
        .await
        .expect("an answer");
    let status_of = |fields: &HeaderMap| {
        let value = fields.get("grpc-status")?;
        Some(value.to_str().expect("text").to_owned())
    };
    let trailers = reply.trailers.unwrap_or_default();
    Seen {
        status: reply.status,
        received: serde_json::from_slice(&reply.body).ok(),
        grpc_status: status_of(&trailers).or_else(|| status_of(&reply.headers)),
        headers: pairs(&reply.headers),
    }
}

/// Judges an HTTP case.
fn judge(case: &Value, seen: &Seen) -> Result<(), String> {
    let expected = &case["Response"];
    let mut statuses: Vec<u64> = list(&expected["StatusCodes"])
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    statuses.extend(expected["StatusCode"].as_u64());
    if statuses.is_empty() {
        statuses.push(200);
    }
    if !statuses.contains(&u64::from(seen.status)) {
        return Err(format!("status {} is not among {statuses:?}", seen.status));
    }
    response_headers(expected, seen)?;
    if !case["RedirectRequest"].is_null() {
        return redirect(&case["RedirectRequest"], seen);
    }
    if seen.status != 200 || case["Request"]["Method"] == "OPTIONS" {
        return Ok(());
    }
    backend(case, seen)?;
    let wanted = match &case["ExpectedRequest"] {
        Value::Null => &case["Request"],
        expected => &expected["Request"],
    };
    arrived(wanted, &case["ExpectedRequest"]["AbsentHeaders"], seen)
}

/// Judges what a mirror received.
pub(super) fn copied(case: &Value, received: Value) -> Result<(), String> {
    let seen = Seen {
        status: 200,
        headers: Vec::new(),
        received: Some(received),
        grpc_status: None,
    };
    let expected = &case["ExpectedRequest"];
    arrived(&expected["Request"], &expected["AbsentHeaders"], &seen)
}

/// Judges a gRPC case.
fn judge_grpc(case: &Value, seen: &Seen) -> Result<(), String> {
    if case["Response"]["Code"]["$ref"] == "codes.Unimplemented" {
        // Clients read a plain 404 so, too.
        let is_unimplemented = seen.grpc_status.as_deref() == Some("12") || seen.status == 404;
        return is_unimplemented
            .then_some(())
            .ok_or_else(|| format!("status {}, grpc-status {:?}", seen.status, seen.grpc_status));
    }
    if seen.grpc_status.as_deref() != Some("0") {
        return Err(format!(
            "status {}, grpc-status {:?}",
            seen.status, seen.grpc_status
        ));
    }
    backend(case, seen)
}

/// The right service answered.
fn backend(case: &Value, seen: &Seen) -> Result<(), String> {
    let received = seen.received.as_ref().ok_or("no backend answered")?;
    let who = received["upstream"].as_str().unwrap_or_default();
    let (namespace, name) = who.split_once('/').unwrap_or_default();
    let is_right =
        |wanted: &Value, found: &str| wanted.as_str().is_none_or(|w| w.is_empty() || w == found);
    if !is_right(&case["Backend"], name) || !is_right(&case["Namespace"], namespace) {
        return Err(format!("{who} answered"));
    }
    Ok(())
}

/// The backend received what it should have.
fn arrived(wanted: &Value, absent: &Value, seen: &Seen) -> Result<(), String> {
    let received = seen.received.as_ref().ok_or("no backend answered")?;
    let headers: Vec<(String, String)> =
        serde_json::from_value(received["headers"].clone()).map_err(|error| error.to_string())?;
    if let Some(path) = wanted["Path"].as_str().filter(|path| !path.is_empty())
        && received["target"] != path
    {
        return Err(format!("the backend saw the path {}", received["target"]));
    }
    if let Some(method) = wanted["Method"]
        .as_str()
        .filter(|method| !method.is_empty())
        && received["method"] != method
    {
        return Err(format!("the backend saw the method {}", received["method"]));
    }
    if let Some(host) = wanted["Host"].as_str().filter(|host| !host.is_empty()) {
        let found = joined(&headers, "host");
        if found.as_deref() != Some(host) {
            return Err(format!("the backend saw the host {found:?}"));
        }
    }
    for (name, value) in fields(&wanted["Headers"]) {
        let found = joined(&headers, &name);
        if found.as_deref() != Some(value.as_str()) {
            return Err(format!("the backend saw {name}: {found:?}"));
        }
    }
    for name in list(absent).iter().filter_map(Value::as_str) {
        if let Some(found) = joined(&headers, name) {
            return Err(format!("the backend saw {name}: {found:?}"));
        }
    }
    Ok(())
}

/// The client received the fields that it should have.
fn response_headers(expected: &Value, seen: &Seen) -> Result<(), String> {
    for (name, value) in fields(&expected["Headers"]) {
        let found = joined(&seen.headers, &name);
        if found.as_deref() != Some(value.as_str()) {
            return Err(format!("the client saw {name}: {found:?}"));
        }
    }
    for name in list(&expected["AbsentHeaders"])
        .iter()
        .filter_map(Value::as_str)
    {
        if let Some(found) = joined(&seen.headers, name) {
            return Err(format!("the client saw {name}: {found:?}"));
        }
    }
    let any_of = expected["ValidHeaderValues"].as_object();
    for (name, allowed) in any_of.into_iter().flatten() {
        let found = joined(&seen.headers, name).unwrap_or_default();
        let bare = |text: &str| text.replace(' ', "");
        let is_allowed = list(allowed)
            .iter()
            .filter_map(Value::as_str)
            .any(|value| same_list(&bare(value), &bare(&found)));
        if !is_allowed {
            return Err(format!(
                "the client saw {name}: {found:?}, not one of {allowed}"
            ));
        }
    }
    Ok(())
}

/// The same items, whatever their order and case: these are lists of methods and field names.
fn same_list(one: &str, other: &str) -> bool {
    let items = |text: &str| {
        let mut items: Vec<String> = text.split(',').map(str::to_lowercase).collect();
        items.sort();
        items
    };
    items(one) == items(other)
}

/// The client was sent to where it should go.
fn redirect(wanted: &Value, seen: &Seen) -> Result<(), String> {
    let location = joined(&seen.headers, "location").ok_or("no location")?;
    let (scheme, rest) = location.split_once("://").unwrap_or(("http", &location));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    for (key, found) in [("Scheme", scheme), ("Host", host), ("Path", path)] {
        let is_right = wanted[key]
            .as_str()
            .is_none_or(|wanted| wanted.is_empty() || wanted == found);
        if !is_right {
            return Err(format!("the location is {location}"));
        }
    }
    if authority.is_empty() || wanted["Host"].is_null() {
        return Ok(());
    }
    (wanted["Port"].as_str().unwrap_or_default() == port)
        .then_some(())
        .ok_or_else(|| format!("the location is {location}"))
}

/// Each backend gets its share: six standard deviations are allowed.
async fn weights(test: &str, case: &Value, address: SocketAddr) -> Result<(), String> {
    let shares: &[(&str, f64)] = if test.contains("BackendWeights") {
        &[("v1", 0.5), ("v2", 0.5)]
    } else {
        &[("v1", 0.7), ("v2", 0.3), ("v3", 0.0)]
    };
    let mut counts = BTreeMap::<String, f64>::new();
    for _ in 0..DRAWS {
        let seen = if test.starts_with("GRPC") {
            send_grpc(case, address).await
        } else {
            send(case, "80", address).await
        };
        let received = seen.received.ok_or("no backend answered")?;
        let who = received["upstream"].as_str().unwrap_or_default();
        if test.contains("BackendWeights") {
            let headers: Vec<(String, String)> =
                serde_json::from_value(received["headers"].clone()).expect("headers");
            let says = joined(&headers, "backend").unwrap_or_default();
            if !who.ends_with(&says) || says.is_empty() {
                return Err(format!("{who} received the changes meant for {says:?}"));
            }
        }
        *counts
            .entry(who.rsplit('-').next().unwrap_or_default().to_owned())
            .or_default() += 1.0;
    }
    let draws = f64::from(DRAWS);
    for (version, share) in shares {
        let found = counts.get(*version).copied().unwrap_or_default();
        let allowed = 6.0 * (draws * share * (1.0 - share)).sqrt();
        if (found - draws * share).abs() > allowed {
            return Err(format!("shares {counts:?} of {DRAWS}"));
        }
    }
    Ok(())
}

/// Every value of a field, joined as the suite joins them; none where it is absent.
fn joined(headers: &[(String, String)], name: &str) -> Option<String> {
    let values: Vec<&str> = headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// A map of names and values.
fn fields(map: &Value) -> Vec<(String, String)> {
    map.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
