//! Commands as people copy them, and what they send.

use proptest::prelude::*;

use super::*;

/// The request as lines: `GET /a HTTP/1.1`, its headers by name, and the body.
fn wire(command: &str) -> Vec<String> {
    let asked = read(command).unwrap_or_else(|error| panic!("{command}: {error}"));
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    let head = asked.into_request().head;
    let mut lines: Vec<String> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort_unstable();
    lines.insert(
        0,
        format!("{} {} {:?}", head.method(), head.uri(), head.version()),
    );
    if !body.is_empty() {
        lines.push(body);
    }
    lines
}

/// Without what curl adds to every request.
fn check(command: &str, expected: &[&str]) {
    let mut lines = wire(command);
    lines.retain(|line| line != "accept: */*" && !line.starts_with("user-agent: curl/"));
    assert_eq!(lines, expected, "{command}");
}

#[test]
fn a_plain_command_has_what_curl_adds() {
    assert_eq!(
        wire("curl http://a.test/b"),
        [
            "GET /b HTTP/1.1",
            "accept: */*",
            "host: a.test",
            "user-agent: curl/8.5.0",
        ]
    );
    let without = "curl -H 'Accept:' -A '' http://a.test/b";
    assert_eq!(wire(without), ["GET /b HTTP/1.1", "host: a.test"]);
}

#[test]
fn methods_follow_from_the_options() {
    let first = |command: &str| wire(command).remove(0);
    assert_eq!(first("curl a.test"), "GET / HTTP/1.1");
    assert_eq!(first("curl -XDELETE a.test/x"), "DELETE /x HTTP/1.1");
    assert_eq!(first("curl -sSXPUT a.test/x"), "PUT /x HTTP/1.1");
    assert_eq!(first("curl -I a.test"), "HEAD / HTTP/1.1");
    assert_eq!(first("curl -d a a.test"), "POST / HTTP/1.1");
    assert_eq!(first("curl -G -d a=1 a.test"), "GET /?a=1 HTTP/1.1");
    assert_eq!(first("curl -IGd a=1 a.test/?b"), "HEAD /?b&a=1 HTTP/1.1");
    assert_eq!(
        first("curl --request PATCH -d a a.test"),
        "PATCH / HTTP/1.1"
    );
    assert_eq!(first("curl --http2 a.test"), "GET http://a.test/ HTTP/2.0");
    assert_eq!(
        first("curl --http2-prior-knowledge https://a.test/x"),
        "GET https://a.test/x HTTP/2.0"
    );
    assert_eq!(first("curl -0 a.test"), "GET / HTTP/1.0");
    assert_eq!(
        first("curl -X OPTIONS --request-target '*' a.test"),
        "OPTIONS * HTTP/1.1"
    );
}

#[test]
fn data_is_what_is_sent() {
    let form = "content-type: application/x-www-form-urlencoded";
    check(
        "curl -d a=1 --data 'b=2' a.test",
        &[
            "POST / HTTP/1.1",
            "content-length: 7",
            form,
            "host: a.test",
            "a=1&b=2",
        ],
    );
    check(
        "curl --data-raw @x --data-binary 'y z' a.test",
        &[
            "POST / HTTP/1.1",
            "content-length: 6",
            form,
            "host: a.test",
            "@x&y z",
        ],
    );
    check(
        "curl --data-urlencode 'a=b c' --data-urlencode =d/ --data-urlencode é a.test",
        &[
            "POST / HTTP/1.1",
            "content-length: 19",
            form,
            "host: a.test",
            "a=b%20c&d%2F&%C3%A9",
        ],
    );
    check(
        "curl --json '{\"a\":1}' a.test",
        &[
            "POST / HTTP/1.1",
            "accept: application/json",
            "content-length: 7",
            "content-type: application/json",
            "host: a.test",
            "{\"a\":1}",
        ],
    );
    check(
        "curl -d '' -H 'Content-Type: text/plain' a.test",
        &[
            "POST / HTTP/1.1",
            "content-length: 0",
            "content-type: text/plain",
            "host: a.test",
        ],
    );
    check(
        "curl -d a -H 'Transfer-Encoding: chunked' -H content-type: a.test",
        &[
            "POST / HTTP/1.1",
            "host: a.test",
            "transfer-encoding: chunked",
            "a",
        ],
    );
}

#[test]
fn options_become_headers() {
    check(
        "curl -u ada:pa%ss -e http://b.test/ -b 'a=1; b=2' -b c=3 --compressed -r 0-9 -A me a.test",
        &[
            "GET / HTTP/1.1",
            "accept-encoding: deflate, gzip, br, zstd",
            "authorization: Basic YWRhOnBhJXNz",
            "cookie: a=1; b=2; c=3",
            "host: a.test",
            "range: bytes=0-9",
            "referer: http://b.test/",
            "user-agent: me",
        ],
    );
    check(
        "curl -H 'Host: b.test' -H 'X-A: 1' -H 'x-a: 2' -H 'X-Empty;' http://a.test:81/",
        &[
            "GET / HTTP/1.1",
            "host: b.test",
            "x-a: 1",
            "x-a: 2",
            "x-empty: ",
        ],
    );
    check(
        "curl --oauth2-bearer abc http://ada:x@a.test/",
        &[
            "GET / HTTP/1.1",
            "authorization: Bearer abc",
            "host: a.test",
        ],
    );
    check(
        "curl http://ada:p%40ss@a.test/",
        &[
            "GET / HTTP/1.1",
            "authorization: Basic YWRhOnBAc3M=",
            "host: a.test",
        ],
    );
}

#[test]
fn what_does_not_change_the_request_is_passed_over() {
    let expected = ["GET /x HTTP/1.1", "host: a.test:8080"];
    for command in [
        "curl -k -s -S -v -L -i -f -g a.test:8080/x",
        "curl -ksSvLi -o /dev/null -w '%{http_code}' --url a.test:8080/x",
        "curl --resolve a.test:8080:127.0.0.1 --connect-to ::b.test: a.test:8080/x",
        "curl --max-time 5 --retry 3 --cacert ca.crt a.test:8080/x | jq .",
        "curl a.test:8080/x > out.json",
        "$ /usr/bin/curl 'http://a.test:8080/x#there' && echo done",
        "curl \\\n  --silent \\\n  a.test:8080/x\n",
    ] {
        check(command, &expected);
    }
}

#[test]
fn browsers_copies_are_understood() {
    let chrome = r#"curl 'https://shop.example/api/cart?x=1' \
  -H 'accept: application/json' \
  -H 'accept-language: de-DE,de;q=0.9' \
  -b 'session=abc; theme=dark' \
  -H 'sec-ch-ua: "Chromium";v="130"' \
  -H 'user-agent: Mozilla/5.0 (X11; Linux x86_64)' \
  --data-raw $'{"note":"it\'s 5\u0025"}' \
  --compressed"#;
    let lines = wire(chrome);
    assert_eq!(
        lines.first().map(String::as_str),
        Some("POST /api/cart?x=1 HTTP/1.1")
    );
    assert_eq!(
        lines.last().map(String::as_str),
        Some("{\"note\":\"it's 5%\"}")
    );
    for line in [
        "cookie: session=abc; theme=dark",
        "user-agent: Mozilla/5.0 (X11; Linux x86_64)",
        "host: shop.example",
    ] {
        assert!(
            lines.iter().any(|known| known == line),
            "{line}: {lines:#?}"
        );
    }
    let socket = "curl 'wss://a.test/chat' -H 'Upgrade: websocket' -H 'Connection: Upgrade'";
    check(
        socket,
        &[
            "GET /chat HTTP/1.1",
            "connection: Upgrade",
            "host: a.test",
            "upgrade: websocket",
        ],
    );
}

#[test]
fn what_cannot_be_followed_says_why() {
    let check = |command: &str, sentence: &str| {
        let error = read(command).expect_err(command);
        assert!(error.contains(sentence), "{command}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    };
    check("", "the command is empty");
    check("wget a.test", "`wget` is not `curl`");
    check("curl", "has no URL");
    check("curl a.test b.test", "`b.test` is a second URL");
    check("curl -X", "`-X` has no value");
    check("curl --header", "`--header` has no value");
    check(
        "curl -F a=b a.test",
        "`-F` cannot be followed: the parts of a form",
    );
    check("curl -T x a.test", "sends a file");
    check("curl -d @x a.test", "`-d @x` reads a file");
    check("curl -H @x a.test", "reads headers from a file");
    check("curl -b jar a.test", "reads cookies from a file");
    check("curl --data-urlencode a@b a.test", "reads a file");
    check("curl --headr 'a: b' a.test", "did you mean `--header`?");
    check(
        "curl --frobnicate a.test",
        "`--frobnicate` is not known here",
    );
    check("curl -Z a.test", "`-Z` is not known here");
    check(
        "curl --request=POST a.test",
        "write `--request` and the value apart",
    );
    check("curl -I -d a a.test", "cannot go together");
    check("curl -X 'G T' a.test", "`G T` is not a method");
    check("curl --http3 a.test", "does not speak HTTP/3");
    check("curl ftp://a.test/", "begins with `http://`");
    check("curl -G -d 'a b' a.test", "a space as `%20`");
    check(
        "curl -H 'a: hunter2\nx' a.test",
        "the value of the header `a`",
    );
    check(
        "curl -b 'a=hunter2\nx' a.test",
        "the value of the header `cookie`",
    );
}

proptest! {
    #[test]
    fn garbage_is_refused_or_read_but_never_a_panic(text in "\\PC{0,60}") {
        let _either = read(&text);
        let _either = read(&format!("curl {text}"));
    }

    #[test]
    fn any_words_are_refused_or_read(
        words in proptest::collection::vec(
            prop_oneof![
                Just("-X"), Just("-H"), Just("-d"), Just("--json"), Just("-G"), Just("-I"),
                Just("-u"), Just("-b"), Just("--http2"), Just("--data-urlencode"), Just("a.test"),
                Just("https://a.test/x?y"), Just("a: b"), Just("@"), Just(""), Just("-"), Just("--"),
                Just("é"), Just("\n"), Just("*"), Just("="), Just("--request-target"), Just("#"),
            ],
            0..9,
        )
    ) {
        let command = format!("curl {}", shell_words::join(words));
        if let Ok(asked) = read(&command) {
            let _request = asked.into_request();
        }
    }

    #[test]
    fn what_is_quoted_comes_out_as_it_went_in(
        method in "[A-Z]{1,8}",
        path in "(/[a-z0-9._~%-]{0,6}){1,3}",
        value in "[ -~&&[^;]]{0,20}x",
        body in "[^@\\x00]\\PC{0,30}",
    ) {
        let header = format!("x-a: {value}");
        let url = format!("http://a.test{path}");
        let words = ["curl", "-X", &method, "-H", &header, "--data-raw", &body, &url];
        let asked = read(&shell_words::join(words)).expect("valid");
        prop_assert_eq!(asked.method.as_str(), method);
        prop_assert_eq!(asked.url.path(), path);
        let sent = asked.headers.get("x-a").expect("the header");
        prop_assert_eq!(sent.to_str().expect("text"), value.trim());
        prop_assert_eq!(&asked.body[..], body.as_bytes());
    }
}
