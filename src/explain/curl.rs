//! A request as a command of curl says it, copied from a browser or a shell.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;

use crate::base::suggest;
use crate::explain::asked::{Asked, method_of, url_of};

/// Options that change nothing about the request, with a value or without one.
const SILENT: &[&str] = &[
    "compressed",
    "silent",
    "s",
    "show-error",
    "S",
    "verbose",
    "v",
    "insecure",
    "k",
    "location",
    "L",
    "include",
    "i",
    "fail",
    "f",
    "globoff",
    "g",
    "no-progress-meter",
    "no-buffer",
    "N",
    "path-as-is",
    "http1.1",
    "ipv4",
    "4",
    "ipv6",
    "6",
];
const SILENT_WITH_VALUE: &[&str] = &[
    "output",
    "o",
    "max-time",
    "m",
    "connect-timeout",
    "retry",
    "resolve",
    "connect-to",
    "write-out",
    "w",
    "cacert",
    "cert",
    "key",
    "dump-header",
    "D",
    "cookie-jar",
    "c",
];
/// Options that say something about the request.
const SPEAKING: &[&str] = &[
    "request",
    "X",
    "header",
    "H",
    "data",
    "d",
    "data-raw",
    "data-binary",
    "data-ascii",
    "json",
    "get",
    "G",
    "head",
    "I",
    "user",
    "u",
    "user-agent",
    "A",
    "referer",
    "e",
    "cookie",
    "b",
    "url",
    "http2",
    "http2-prior-knowledge",
];

#[derive(Default)]
struct Reading {
    method: Option<String>,
    url: Option<String>,
    headers: Vec<String>,
    data: Vec<String>,
    json: bool,
    get: bool,
    http2: bool,
}

/// Reads a command such as `curl -H 'x-a: b' http://shop/orders`.
///
/// # Errors
/// A sentence that says what is wrong, or what has no meaning here.
pub(super) fn read(command: &str) -> Result<Asked, String> {
    // Shells of Windows go on after `^`, all others after `\`.
    let command = command
        .replace("\\\r\n", " ")
        .replace("\\\n", " ")
        .replace("^\n", " ");
    let words = shell_words::split(&command)
        .map_err(|error| format!("the command cannot be split into words: {error}"))?;
    let mut words = words.into_iter().peekable();
    words.next_if(|word| word == "curl" || word.ends_with("/curl"));
    let mut reading = Reading::default();
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(long) => {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                reading.option(name, value, &mut words)?;
            }
            None if word.len() > 1 && word.starts_with('-') => {
                reading.letters(&word, &mut words)?;
            }
            None => reading.set_url(word)?,
        }
    }
    reading.finish()
}

type Words = std::iter::Peekable<std::vec::IntoIter<String>>;

impl Reading {
    /// Several letters may stand together, the last with its value: `-sXPOST`.
    fn letters(&mut self, word: &str, words: &mut Words) -> Result<(), String> {
        let mut rest = word.trim_start_matches('-');
        while let Some(letter) = rest.chars().next() {
            let (name, after) = rest.split_at(letter.len_utf8());
            if takes_value(name) {
                let value = (!after.is_empty()).then(|| after.to_owned());
                return self.option(name, value, words);
            }
            self.option(name, None, words)?;
            rest = after;
        }
        Ok(())
    }

    fn option(
        &mut self,
        name: &str,
        value: Option<String>,
        words: &mut Words,
    ) -> Result<(), String> {
        let mut value = || {
            value
                .clone()
                .or_else(|| words.next())
                .ok_or_else(|| format!("the option `{name}` of curl needs a value"))
        };
        match name {
            "request" | "X" => self.method = Some(value()?),
            "header" | "H" => self.headers.push(value()?),
            "data" | "d" | "data-ascii" | "data-raw" | "data-binary" => {
                let data = value()?;
                if data.starts_with('@') && name != "data-raw" {
                    return Err(format!(
                        "`{data}`: files are not read here; write the body itself"
                    ));
                }
                self.data.push(data);
            }
            "json" => {
                self.json = true;
                self.data.push(value()?);
            }
            "get" | "G" => self.get = true,
            "head" | "I" => self.method = Some("HEAD".to_owned()),
            "user" | "u" => {
                let user = BASE64_STANDARD.encode(value()?);
                self.headers.push(format!("authorization: Basic {user}"));
            }
            "user-agent" | "A" => {
                let agent = value()?;
                self.headers.push(format!("user-agent: {agent}"));
            }
            "referer" | "e" => {
                let referer = value()?;
                self.headers.push(format!("referer: {referer}"));
            }
            "cookie" | "b" => {
                let cookie = value()?;
                self.headers.push(format!("cookie: {cookie}"));
            }
            "url" => {
                let url = value()?;
                self.set_url(url)?;
            }
            "http2" | "http2-prior-knowledge" => self.http2 = true,
            "form" | "F" => {
                return Err(
                    "forms (`-F`) are not understood: write the body with `--data`".to_owned(),
                );
            }
            _ if SILENT.contains(&name) => {}
            _ if SILENT_WITH_VALUE.contains(&name) => drop(value()?),
            _ => {
                let known = SILENT
                    .iter()
                    .chain(SILENT_WITH_VALUE)
                    .chain(SPEAKING)
                    .copied();
                let advice = suggest::advice(name, known).map(|advice| format!(": {advice}"));
                return Err(format!(
                    "the option `{name}` of curl is not understood{}",
                    advice.unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    fn set_url(&mut self, url: String) -> Result<(), String> {
        match self.url.replace(url) {
            None => Ok(()),
            Some(first) => Err(format!("the command has two URLs, the first is `{first}`")),
        }
    }

    fn finish(self) -> Result<Asked, String> {
        let mut url = self.url.ok_or("the command has no URL")?;
        let body = self.data.join(if self.json { "" } else { "&" });
        let sends = !self.data.is_empty() && !self.get;
        if self.get && !body.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url += &body;
        }
        let method = match &self.method {
            Some(method) => method_of(method)?,
            None if sends => Method::POST,
            None => Method::GET,
        };
        let mut asked = Asked::new(method, url_of(&url)?);
        asked.http2 = self.http2;
        for line in &self.headers {
            asked.add_header(line)?;
        }
        if sends {
            let kind = if self.json {
                "application/json"
            } else {
                "application/x-www-form-urlencoded"
            };
            if !asked.headers.contains_key(http::header::CONTENT_TYPE) {
                asked.add_header(&format!("content-type: {kind}"))?;
            }
            asked.body = body.into_bytes().into();
        }
        Ok(asked)
    }
}

fn takes_value(letter: &str) -> bool {
    SILENT_WITH_VALUE.contains(&letter)
        || matches!(letter, "X" | "H" | "d" | "u" | "A" | "e" | "b" | "F")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_read_as_curl_reads_them() {
        let check = |command: &str,
                     method: &str,
                     target: &str,
                     header: Option<(&str, &str)>,
                     body: &str| {
            let asked = read(command).unwrap_or_else(|why| panic!("{command}: {why}"));
            assert_eq!(asked.method, method, "{command}");
            assert_eq!(asked.url.to_string(), target, "{command}");
            if let Some((name, value)) = header {
                assert_eq!(asked.headers[name], value, "{command}");
            }
            assert_eq!(asked.body, body, "{command}");
        };
        check("curl http://a/b", "GET", "http://a/b", None, "");
        check("curl a/b", "GET", "http://a/b", None, "");
        check(
            "curl -sXPUT 'http://a/b?c=d e'"
                .replace(' ', " ")
                .replace("d e", "d")
                .as_str(),
            "PUT",
            "http://a/b?c=d",
            None,
            "",
        );
        check(
            "curl --location \\\n 'http://a/' -H 'X-A: b'",
            "GET",
            "http://a/",
            Some(("x-a", "b")),
            "",
        );
        check(
            "curl http://a/ -d x=1 --data y=2",
            "POST",
            "http://a/",
            Some(("content-type", "application/x-www-form-urlencoded")),
            "x=1&y=2",
        );
        check("curl -G http://a/ -d x=1", "GET", "http://a/?x=1", None, "");
        check(
            "curl --json '{}' http://a/",
            "POST",
            "http://a/",
            Some(("content-type", "application/json")),
            "{}",
        );
        check(
            "curl -u me:secret http://a/",
            "GET",
            "http://a/",
            Some(("authorization", "Basic bWU6c2VjcmV0")),
            "",
        );
        check(
            "curl -I -b 's=1' --url=http://a/",
            "HEAD",
            "http://a/",
            Some(("cookie", "s=1")),
            "",
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let check = |command: &str, part: &str| {
            let why = read(command).expect_err(command);
            assert!(why.contains(part), "{command}: {why}");
        };
        check("curl", "no URL");
        check("curl http://a http://b", "two URLs");
        check("curl 'http://a", "split into words");
        check("curl --heder 'a: b' http://a", "did you mean `header`");
        check("curl -F a=b http://a", "forms");
        check("curl -d @file http://a", "files are not read");
        check("curl http://a -X", "needs a value");
    }

    proptest! {
        #[test]
        fn garbage_is_no_panic(command in "\\PC{0,80}") {
            let _read = read(&format!("curl {command}"));
        }
    }
}
