//! A cookie keeps a client with its endpoint for as long as that endpoint may take requests.

use crate::harness::service::{ask, endpoints};
use crate::harness::{Answer, Conn, Gateway, Service, Upstream};

async fn gateway(route: &str, up: &str) -> Gateway {
    Gateway::start(format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up{route}}}
upstreams:
  up: {{balance: round_robin, {up}}}
"
    ))
    .await
}

/// A client that keeps cookies, as a browser does.
struct Client {
    conn: Conn,
    cookie: Option<String>,
}

impl Client {
    async fn new(gateway: &Gateway) -> Self {
        Self {
            conn: Conn::connect(gateway.public()).await,
            cookie: None,
        }
    }

    async fn get(&mut self) -> Answer {
        let cookie = self.cookie.as_ref();
        let cookie = cookie.map(|pair| format!("cookie: {pair}\r\n"));
        self.conn.send(ask("/", &cookie.unwrap_or_default())).await;
        let answer = self.conn.answer().await;
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        answer
    }

    /// Who answers the next requests: always the same, and without a new cookie.
    async fn home(&mut self) -> String {
        let first = self.get().await.text();
        for _ in 0..6 {
            let answer = self.get().await;
            assert_eq!(answer.header("set-cookie"), None);
            assert_eq!(answer.text(), first);
        }
        first
    }
}

const COOKIE: &str = "affinity: {cookie: {}}";

#[tokio::test]
async fn each_client_stays_with_who_answered_it_first() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let gateway = gateway("", &format!("endpoints: [\"{a}\", \"{b}\"], {COOKIE}")).await;
    let mut homes = Vec::new();
    for _ in 0..6 {
        let mut client = Client::new(&gateway).await;
        let first = client.get().await;
        let cookie = first.header("set-cookie").expect("a cookie");
        let (pair, rest) = cookie.split_once(';').expect("attributes");
        let value = pair.strip_prefix("retort-endpoint=").expect("its name");
        assert_eq!(value.len(), 16, "{cookie}");
        assert_eq!(rest, " Path=/; HttpOnly; SameSite=Lax");
        let home = client.home().await;
        assert_eq!(first.text(), home);
        homes.push(home);
    }
    homes.sort();
    assert_eq!(
        homes,
        ["a", "a", "a", "b", "b", "b"],
        "new clients are spread"
    );
}

#[tokio::test]
async fn the_cookie_is_as_it_is_configured() {
    let a = Service::start("a").await;
    let settings = "affinity: {cookie: {name: home, ttl: 2h, path: /shop}}";
    let gateway = gateway("", &format!("endpoints: [\"{a}\"], {settings}")).await;
    let answer = gateway.get("/").await;
    let cookie = answer.header("set-cookie").expect("a cookie");
    let (pair, rest) = cookie.split_once(';').expect("attributes");
    assert!(pair.starts_with("home="), "{cookie}");
    assert_eq!(rest, " Path=/shop; Max-Age=7200; HttpOnly; SameSite=Lax");
}

#[tokio::test]
async fn a_cookie_of_nobody_is_like_none() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let gateway = gateway("", &format!("endpoints: [\"{a}\", \"{b}\"], {COOKIE}")).await;
    for value in ["0123456789abcdef", "", "x", "ffffffffffffffffff", "\"\""] {
        let mut client = Client::new(&gateway).await;
        client.cookie = Some(format!("retort-endpoint={value}"));
        let answer = client.get().await;
        assert!(answer.header("set-cookie").is_some(), "{value}");
        client.home().await;
    }
}

#[tokio::test]
async fn a_client_moves_when_its_endpoint_is_unhealthy_and_stays_there() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let check = "health_check: {http: {path: /healthz}, interval: 100ms, unhealthy_after: 1}";
    let up = format!("endpoints: [\"{a}\", \"{b}\"], {COOKIE}, {check}");
    let gateway = gateway("", &up).await;
    let mut client = Client::new(&gateway).await;
    client.get().await;
    let home = client.home().await;
    let (ill, well) = if home == "a" { (&a, "b") } else { (&b, "a") };
    ill.is(503);
    endpoints(&gateway, "unhealthy", 1).await;
    let answer = client.get().await;
    assert_eq!(answer.text(), well);
    assert!(answer.header("set-cookie").is_some());
    assert_eq!(client.home().await, well);
    ill.is(200);
    endpoints(&gateway, "ready", 2).await;
    assert_eq!(client.home().await, well, "it has settled there");
}

#[tokio::test]
async fn an_attempt_that_fails_is_repeated_elsewhere_and_the_client_stays_there() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let retry = ", retry: {attempts: 2, on: [503, connect_failure], backoff: 1ms}";
    let gateway = gateway(retry, &format!("endpoints: [\"{a}\", \"{b}\"], {COOKIE}")).await;
    let mut client = Client::new(&gateway).await;
    client.get().await;
    let home = client.home().await;
    let (failing, other) = if home == "a" { (a, "b") } else { (b, "a") };
    failing.says(503);
    let answer = client.get().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, other));
    assert!(answer.header("set-cookie").is_some());
    assert_eq!(client.home().await, other);
    // The same where it cannot be reached.
    let mut client = Client::new(&gateway).await;
    failing.says(200);
    while client.get().await.text() == other {
        client.cookie = None;
    }
    failing.stop().await;
    let answer = client.get().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, other));
    assert_eq!(client.home().await, other);
}

#[tokio::test]
async fn an_answer_of_the_gateways_own_sets_no_cookie() {
    let absent = Upstream::absent();
    let gateway = gateway("", &format!("endpoints: [\"{absent}\"], {COOKIE}")).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("set-cookie"), None);
}
