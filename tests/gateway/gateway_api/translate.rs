//! HTTPRoutes and GRPCRoutes as our YAML, the way a control plane would write it.
//!
//! What the API leaves to the control plane is decided here: which listener a route is attached to,
//! on which hostnames both agree, whether a reference is granted. A reference that leads nowhere is
//! a handler that answers 500, as the API asks for.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{BACKENDS, Backends, GATEWAYS};

/// The objects of a test as they stand when some of its cases are sent.
pub(super) struct Situation {
    objects: Vec<Value>,
    granted: bool,
}

/// A listener of a Gateway.
#[derive(Debug, Clone, PartialEq)]
struct Door {
    gateway: String,
    listener: String,
    port: u64,
    hostname: Option<String>,
}

/// The situations of a test: usually one. Where two objects have one name, each is one's turn; where
/// a grant is taken away half way, that is the second.
pub(super) fn situations(test: &Value) -> Vec<Situation> {
    let objects = test["manifests"].as_array().expect("manifests");
    let mut objects = objects.clone();
    let first = distinct(&objects);
    objects.reverse();
    let last = distinct(&objects);
    let mut situations = vec![Situation {
        objects: first.clone(),
        granted: true,
    }];
    let is_same = first.len() == last.len() && last.iter().all(|object| first.contains(object));
    if !is_same {
        situations.push(Situation {
            objects: last.into_iter().rev().collect(),
            granted: true,
        });
    }
    if test["name"] == "HTTPRouteReferenceGrant" {
        situations.push(Situation {
            objects: first,
            granted: false,
        });
    }
    situations
}

fn distinct(objects: &[Value]) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    objects
        .iter()
        .filter(|object| {
            let meta = &object["metadata"];
            seen.insert(format!(
                "{} {} {}",
                object["kind"], meta["namespace"], meta["name"]
            ))
        })
        .cloned()
        .collect()
}

impl Situation {
    /// True if the case is meant for this situation and can be replayed at all.
    pub(super) fn has(&self, test: &str, case: &Value) -> bool {
        let is_known = !has_reference(&case["Request"])
            && !has_reference(&case["Backend"])
            && !has_reference(&case["Response"]["StatusCode"]);
        let is_granted = test != "HTTPRouteReferenceGrant" || (case["line"] == 54) == self.granted;
        is_known && is_granted && !self.doors(test, case).is_empty()
    }

    /// Names of our listeners to which a case is sent: which of several, only the suite's code knows.
    pub(super) fn doors(&self, test: &str, case: &Value) -> Vec<String> {
        let line = case["line"].as_u64().expect("a line");
        let host = case["Request"]["Host"].as_str().unwrap_or_default();
        let port = host.split_once(':').and_then(|(_, port)| port.parse().ok());
        let wanted: Box<dyn Fn(&Door) -> bool> = match test {
            "HTTPRouteMultipleGateways" if line < 80 => Box::new(|d| d.gateway == "same-namespace"),
            "HTTPRouteMultipleGateways" => Box::new(|d| d.gateway == "all-namespaces"),
            "HTTPRouteHostnameIntersection" => {
                Box::new(move |d| d.gateway.ends_with("-all") == (line > 300))
            }
            "HTTPRouteRedirectPortAndScheme" => Box::new(move |d| match line {
                82 => d.port == 80,
                171 => d.port == 8080,
                _ => false,
            }),
            "HTTPRouteListenerPortMatching" => Box::new(move |d| d.port == port.unwrap_or(80)),
            _ => Box::new(|_| true),
        };
        let names: BTreeSet<_> = self
            .used_doors()
            .into_iter()
            .filter(|door| wanted(door))
            .map(|door| door.name())
            .collect();
        names.into_iter().collect()
    }

    /// Listeners of gateways to which a route of the test is attached.
    fn used_doors(&self) -> Vec<Door> {
        let used: BTreeSet<&str> = self
            .routes()
            .flat_map(|route| list(&route["spec"]["parentRefs"]))
            .filter_map(|parent| parent["name"].as_str())
            .collect();
        let mut doors = self.all_doors();
        doors.retain(|door| used.contains(door.gateway.as_str()));
        doors
    }

    fn all_doors(&self) -> Vec<Door> {
        let standard = GATEWAYS.iter().map(|gateway| Door {
            gateway: (*gateway).to_owned(),
            listener: "http".to_owned(),
            port: 80,
            hostname: None,
        });
        let own = self.of_kind("Gateway").flat_map(|gateway| {
            list(&gateway["spec"]["listeners"])
                .iter()
                .filter(|listener| listener["protocol"] == "HTTP")
                .map(|listener| Door {
                    gateway: text(&gateway["metadata"]["name"]),
                    listener: text(&listener["name"]),
                    port: listener["port"].as_u64().expect("a port"),
                    hostname: listener["hostname"].as_str().map(str::to_owned),
                })
        });
        standard.chain(own).collect()
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects
            .iter()
            .filter(move |object| object["kind"] == kind)
    }

    fn routes(&self) -> impl Iterator<Item = &Value> {
        self.of_kind("HTTPRoute").chain(self.of_kind("GRPCRoute"))
    }

    /// True if a route of one namespace may send to a service of another.
    fn is_granted(&self, from: &str, to: &str, service: &str) -> bool {
        let grants = |grant: &Value| {
            let is_from = |source: &Value| {
                source["namespace"] == from
                    && source["kind"] == "HTTPRoute"
                    && source["group"] == "gateway.networking.k8s.io"
            };
            let is_to = |target: &Value| {
                target["kind"] == "Service"
                    && target["group"] == ""
                    && (target["name"].is_null() || target["name"] == service)
            };
            grant["metadata"]["namespace"] == to
                && list(&grant["spec"]["from"]).iter().any(is_from)
                && list(&grant["spec"]["to"]).iter().any(is_to)
        };
        from == to || (self.granted && self.of_kind("ReferenceGrant").any(grants))
    }
}

impl Door {
    /// What our listener for it is called; Gateway listeners on one port share one.
    fn name(&self) -> String {
        format!("{}-{}", self.gateway, self.port)
    }

    fn is_meant_by(&self, parent: &Value) -> bool {
        parent["name"] == self.gateway.as_str()
            && (parent["sectionName"].is_null() || parent["sectionName"] == self.listener.as_str())
            && (parent["port"].is_null() || parent["port"] == self.port)
    }
}

/// The whole configuration of a situation.
pub(super) fn configuration(situation: &Situation, backends: &Backends) -> String {
    let doors = situation.used_doors();
    let mut routes = Vec::new();
    for route in situation.routes() {
        for door in &doors {
            if let Some(hosts) = attached(route, door, &doors) {
                rules(situation, route, door, &hosts, &mut routes);
            }
        }
    }
    // A request belongs to the most specific Gateway listener of its port, and to no other: where
    // that has no route for it, it is not found.
    for door in doors.iter().filter(|door| door.hostname.is_some()) {
        routes.push(json!({
            "name": format!("nothing-else-{}-{}", door.name(), door.listener),
            "listeners": [door.name()],
            "match": {"host": door.hostname, "path_prefix": "/"},
            "handler": {"respond": {"status": 404}},
        }));
    }
    let names: BTreeSet<String> = doors.iter().map(Door::name).collect();
    let listeners: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "address": "127.0.0.1:0"}))
        .collect();
    let upstreams: Map<String, Value> = backends
        .iter()
        .map(|(name, (upstream, is_http2))| {
            let protocol = if *is_http2 { "http2" } else { "http1" };
            let settings =
                json!({"endpoints": [upstream.address.to_string()], "protocol": protocol});
            (label(name), settings)
        })
        .collect();
    format!(
        "listeners: {}\nroutes: {}\nupstreams: {}\n",
        Value::from(listeners),
        Value::from(routes),
        Value::from(upstreams)
    )
}

/// The hostnames on which a route and a listener agree, empty for all; none if it is not attached.
///
/// Hosts that belong to a more specific listener of the same port are not this one's to serve.
fn attached(route: &Value, door: &Door, doors: &[Door]) -> Option<Vec<String>> {
    let parents = list(&route["spec"]["parentRefs"]);
    if !parents.iter().any(|parent| door.is_meant_by(parent)) {
        return None;
    }
    let own: Vec<String> = list(&route["spec"]["hostnames"]).iter().map(text).collect();
    let mut both: Vec<String> = match &door.hostname {
        None if own.is_empty() => return Some(own),
        None => own,
        Some(hostname) if own.is_empty() => vec![hostname.clone()],
        Some(hostname) => own
            .iter()
            .filter_map(|own| intersection(hostname, own))
            .collect(),
    };
    let more_specific: Vec<&String> = doors
        .iter()
        .filter(|other| other.name() == door.name() && other.hostname != door.hostname)
        .filter_map(|other| other.hostname.as_ref())
        .filter(|hostname| {
            door.hostname
                .as_ref()
                .is_none_or(|own| includes(own, hostname))
        })
        .collect();
    both.retain(|host| {
        !more_specific
            .iter()
            .any(|hostname| includes(hostname, host))
    });
    (!both.is_empty()).then_some(both)
}

/// True if every host of the second is one of the first.
fn includes(wide: &str, narrow: &str) -> bool {
    wide == narrow
        || wide
            .strip_prefix('*')
            .is_some_and(|tail| narrow.ends_with(tail))
}

/// The more exact of two hostnames of which one includes the other.
fn intersection(one: &str, other: &str) -> Option<String> {
    if includes(one, other) {
        Some(other.to_owned())
    } else {
        includes(other, one).then(|| one.to_owned())
    }
}

/// Our routes for the rules of one of theirs.
fn rules(
    situation: &Situation,
    route: &Value,
    door: &Door,
    hosts: &[String],
    routes: &mut Vec<Value>,
) {
    let is_grpc = route["kind"] == "GRPCRoute";
    for rule in list(&route["spec"]["rules"]) {
        let everything = [json!({})];
        let matches = match list(&rule["matches"]) {
            [] => &everything,
            matches => matches,
        };
        // One route for each match: a replaced prefix is that of the match.
        for condition in matches {
            let prefix = condition["path"]["value"].as_str().unwrap_or("/");
            let (middlewares, redirect) = filters(&rule["filters"], prefix);
            let mut ours = json!({
                "name": format!("r{}-{}", routes.len(), text(&route["metadata"]["name"])),
                "listeners": [door.name()],
                "match": if is_grpc { grpc_match(condition, hosts) } else { http_match(condition, hosts) },
                "middlewares": middlewares,
            });
            let mirrors = mirrors(&rule["filters"]);
            if !mirrors.is_empty() {
                ours["mirror"] = mirrors.into();
            }
            let timeouts = timeouts(&rule["timeouts"]);
            if !timeouts.is_empty() {
                ours["timeouts"] = timeouts.into();
            }
            if let Some(redirect) = redirect {
                ours["handler"] = redirect;
            } else {
                ours["backends"] = backends_of(situation, route, rule, prefix);
            }
            routes.push(ours);
        }
    }
}

fn http_match(condition: &Value, hosts: &[String]) -> Value {
    let mut ours = conditions(condition, hosts);
    let path = &condition["path"];
    let value = path["value"].as_str().unwrap_or("/");
    let key = if path["type"] == "Exact" {
        "path"
    } else {
        "path_prefix"
    };
    ours.insert(key.to_owned(), value.into());
    if let Some(method) = condition["method"].as_str() {
        ours.insert("method".to_owned(), method.into());
    }
    ours.into()
}

fn grpc_match(condition: &Value, hosts: &[String]) -> Value {
    let mut ours = conditions(condition, hosts);
    let method = &condition["method"];
    if let Some(service) = method["service"].as_str() {
        let mut grpc = json!({"service": service});
        if let Some(method) = method["method"].as_str() {
            grpc["method"] = method.into();
        }
        ours.insert("grpc".to_owned(), grpc);
    } else {
        let path = method["method"]
            .as_str()
            .map_or("/{service}/{method}".to_owned(), |method| {
                format!("/{{service}}/{method}")
            });
        ours.insert("path".to_owned(), path.into());
        let headers = ours.entry("headers").or_insert_with(|| json!({}));
        headers["content-type"] = json!({"prefix": "application/grpc"});
    }
    ours.into()
}

/// Hosts, headers and query; of a name that stands twice the first counts.
fn conditions(condition: &Value, hosts: &[String]) -> Map<String, Value> {
    let mut ours = Map::new();
    if !hosts.is_empty() {
        ours.insert("host".to_owned(), json!(hosts));
    }
    for (theirs, key) in [("headers", "headers"), ("queryParams", "query")] {
        let mut named = Map::new();
        for item in list(&condition[theirs]) {
            let name = text(&item["name"]);
            let name = if key == "headers" {
                name.to_lowercase()
            } else {
                name
            };
            named.entry(name).or_insert_with(|| item["value"].clone());
        }
        if !named.is_empty() {
            ours.insert(key.to_owned(), named.into());
        }
    }
    ours
}

/// Middlewares for filters, and a redirect if there is one.
fn filters(filters: &Value, prefix: &str) -> (Vec<Value>, Option<Value>) {
    let mut middlewares = Vec::new();
    let mut redirect = None;
    for filter in list(filters) {
        match filter["type"].as_str().expect("a type") {
            "RequestHeaderModifier" => {
                let changes = changes(&filter["requestHeaderModifier"]);
                middlewares.push(json!({"set_headers": {"request": changes}}));
            }
            "ResponseHeaderModifier" => {
                let changes = changes(&filter["responseHeaderModifier"]);
                middlewares.push(json!({"set_headers": {"response": changes}}));
            }
            "URLRewrite" => {
                middlewares.push(json!({"rewrite": rewrite(&filter["urlRewrite"], prefix)}));
            }
            "CORS" => middlewares.push(json!({"cors": cors(&filter["cors"])})),
            "RequestRedirect" => {
                redirect =
                    Some(json!({"redirect": redirection(&filter["requestRedirect"], prefix)}));
            }
            // See [`mirrors`].
            "RequestMirror" => {}
            other => panic!("no translation of the filter {other}"),
        }
    }
    (middlewares, redirect)
}

/// Who gets copies of the requests.
fn mirrors(filters: &Value) -> Vec<Value> {
    let all = list(filters)
        .iter()
        .filter(|filter| filter["type"] == "RequestMirror");
    all.map(|filter| {
        let mirror = &filter["requestMirror"];
        let backend = &mirror["backendRef"];
        let (namespace, service) = (text(&backend["namespace"]), text(&backend["name"]));
        let fraction = &mirror["fraction"];
        let share = match (mirror["percent"].as_f64(), fraction["numerator"].as_f64()) {
            (Some(percent), _) => percent / 100.0,
            (None, Some(part)) => part / fraction["denominator"].as_f64().unwrap_or(100.0),
            (None, None) => 1.0,
        };
        let upstream = label(&format!("{namespace}/{service}:{}", backend["port"]));
        json!({"upstream": upstream, "share": share})
    })
    .collect()
}

fn changes(modifier: &Value) -> Value {
    let pairs = |key: &str| -> Map<String, Value> {
        list(&modifier[key])
            .iter()
            .map(|pair| (text(&pair["name"]), pair["value"].clone()))
            .collect()
    };
    json!({"set": pairs("set"), "add": pairs("add"), "remove": list(&modifier["remove"])})
}

fn rewrite(theirs: &Value, prefix: &str) -> Value {
    let mut ours = path_change(&theirs["path"], prefix);
    if let Some(host) = theirs["hostname"].as_str() {
        ours["host"] = host.into();
    }
    ours
}

fn path_change(path: &Value, prefix: &str) -> Value {
    match path["type"].as_str() {
        Some("ReplaceFullPath") => json!({"path": path["replaceFullPath"]}),
        Some("ReplacePrefixMatch") => {
            json!({"path_prefix": {"from": prefix, "to": path["replacePrefixMatch"]}})
        }
        _ => json!({}),
    }
}

fn redirection(theirs: &Value, prefix: &str) -> Value {
    let mut ours = path_change(&theirs["path"], prefix);
    for (from, to) in [
        ("scheme", "scheme"),
        ("hostname", "host"),
        ("port", "port"),
        ("statusCode", "status"),
    ] {
        if !theirs[from].is_null() {
            ours[to] = theirs[from].clone();
        }
    }
    ours
}

fn cors(theirs: &Value) -> Value {
    let mut ours = json!({});
    for (from, to) in [
        ("allowOrigins", "origins"),
        ("allowMethods", "methods"),
        ("allowHeaders", "headers"),
        ("exposeHeaders", "expose_headers"),
        ("allowCredentials", "credentials"),
    ] {
        if !theirs[from].is_null() {
            ours[to] = theirs[from].clone();
        }
    }
    if theirs["allowCredentials"] == true && theirs["allowOrigins"] == json!(["*"]) {
        // Ours asks whoever gives credentials to every site to say so.
        ours["origins"] = json!(["http://*", "https://*"]);
    }
    if let Some(seconds) = theirs["maxAge"].as_u64() {
        ours["max_age"] = format!("{seconds}s").into();
    }
    ours
}

fn timeouts(theirs: &Value) -> Map<String, Value> {
    [("request", "request"), ("backendRequest", "attempt")]
        .iter()
        .filter_map(|(from, to)| Some(((*to).to_owned(), theirs[from].as_str()?)))
        .filter(|(_, time)| *time != "0s")
        .map(|(key, time)| (key, time.into()))
        .collect()
}

/// Where a rule sends, by weight.
fn backends_of(situation: &Situation, route: &Value, rule: &Value, prefix: &str) -> Value {
    let own = text(&route["metadata"]["namespace"]);
    let nowhere = json!({"handler": {"respond": {"status": 500}}});
    let backends: Vec<Value> = list(&rule["backendRefs"])
        .iter()
        .map(|backend| {
            let namespace = backend["namespace"].as_str().unwrap_or(&own);
            let service = text(&backend["name"]);
            let port = backend["port"].as_u64().unwrap_or_default();
            let is_service = backend["kind"].is_null() || backend["kind"] == "Service";
            let exists = BACKENDS.iter().any(|(ns, name, number, _)| {
                (*ns, *name, *number) == (namespace, service.as_str(), port)
            });
            let (middlewares, redirect) = filters(&backend["filters"], prefix);
            let mut ours = if let Some(redirect) = redirect {
                json!({"handler": redirect})
            } else if is_service && exists && situation.is_granted(&own, namespace, &service) {
                json!({"upstream": label(&format!("{namespace}/{service}:{port}"))})
            } else {
                nowhere.clone()
            };
            ours["weight"] = backend["weight"].as_u64().unwrap_or(1).into();
            ours["middlewares"] = middlewares.into();
            ours
        })
        .collect();
    if backends.is_empty() {
        return json!([nowhere]);
    }
    backends.into()
}

/// A service as the name of an upstream.
fn label(service: &str) -> String {
    service.replace(['/', ':'], ".")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// True if a value stands for one that only the suite's code knows.
fn has_reference(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.contains_key("$ref") || map.contains_key("$expr") || map.values().any(has_reference)
        }
        Value::Array(items) => items.iter().any(has_reference),
        _ => false,
    }
}
