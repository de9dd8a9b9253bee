//! A `curl` command → the request that it sends.
//!
//! What curl adds by itself is added, what does not change the request is passed over, and what cannot
//! be told without curl (files, forms, proxies) is refused by name.

mod options;
mod words;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use self::options::{Meaning, Takes};
use super::asked::{self, Asked, Target, shown};
use crate::base::suggest;

/// What curl leaves as it is in `--data-urlencode`.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Reads a command.
pub(super) fn read(command: &str) -> Result<Asked, String> {
    let mut words = words::split(command)?.into_iter();
    match words.next() {
        Some(word) if is_curl(&word) => {}
        Some(word) => {
            return Err(format!(
                "`{}` is not `curl`: copy the whole command, from `curl` on",
                shown(&word)
            ));
        }
        None => return Err("the command is empty".to_owned()),
    }
    let mut call = Call::default();
    while let Some(word) = words.next() {
        if words::ENDS.contains(&word.as_str()) {
            break;
        }
        call.word(&word, &mut words)?;
    }
    call.request()
}

fn is_curl(word: &str) -> bool {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    matches!(name, "curl" | "curl.exe")
}

/// What the options have said so far.
#[derive(Default)]
struct Call {
    url: Option<String>,
    method: Option<String>,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Headers that curl shall not add by itself.
    removed: Vec<HeaderName>,
    /// What curl adds by an option, unless the same is given as a header.
    added: Vec<(HeaderName, HeaderValue)>,
    cookies: Vec<String>,
    data: Option<String>,
    is_json: bool,
    in_query: bool,
    head: bool,
    version: Option<Version>,
    target: Option<String>,
}

impl Call {
    fn word(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            let Some(option) = options::long(long) else {
                return Err(unknown(word));
            };
            return self.option(word, option, || rest.next());
        }
        let Some(cluster) = word.strip_prefix('-').filter(|cluster| !cluster.is_empty()) else {
            return self.url(word);
        };
        let mut letters = cluster.chars();
        while let Some(letter) = letters.next() {
            let name = format!("-{letter}");
            let Some(option) = options::short(letter) else {
                return Err(unknown(&name));
            };
            if option.takes == Takes::Value && !letters.as_str().is_empty() {
                // `-XPOST`: the rest is the value.
                let value = letters.as_str().to_owned();
                return self.option(&name, option, || Some(value));
            }
            self.option(&name, option, || rest.next())?;
        }
        Ok(())
    }

    fn option(
        &mut self,
        name: &str,
        option: &options::Known,
        value: impl FnOnce() -> Option<String>,
    ) -> Result<(), String> {
        let value = match option.takes {
            Takes::Nothing => String::new(),
            Takes::Value => value().ok_or_else(|| format!("`{name}` has no value after it"))?,
        };
        self.apply(name, option.meaning, value)
    }

    fn apply(&mut self, name: &str, meaning: Meaning, value: String) -> Result<(), String> {
        match meaning {
            Meaning::Nothing => {}
            Meaning::Refused(why) => return Err(format!("`{name}` cannot be followed: {why}")),
            Meaning::Url => return self.url(&value),
            Meaning::Method => self.method = Some(value),
            Meaning::Header => return self.header(name, &value),
            Meaning::Data => self.data(&literal(name, value)?, "&"),
            Meaning::RawData => self.data(&value, "&"),
            Meaning::EncodedData => self.data(&encoded(name, &value)?, "&"),
            Meaning::Json => {
                self.is_json = true;
                self.data(&literal(name, value)?, "");
            }
            Meaning::InQuery => self.in_query = true,
            Meaning::Head => self.head = true,
            Meaning::User => self.add(header::AUTHORIZATION, asked::basic(value.as_bytes())?),
            Meaning::Bearer => return self.set(header::AUTHORIZATION, &format!("Bearer {value}")),
            Meaning::Agent if value.is_empty() => self.removed.push(header::USER_AGENT),
            Meaning::Agent => return self.set(header::USER_AGENT, &value),
            Meaning::Referer => {
                let value = value.strip_suffix(";auto").unwrap_or(&value);
                return self.set(header::REFERER, value);
            }
            Meaning::Range => return self.set(header::RANGE, &format!("bytes={value}")),
            Meaning::Cookie if value.contains('=') => self.cookies.push(value),
            Meaning::Cookie => {
                return Err(format!(
                    "`{name} {}` reads cookies from a file: write them as `name=value`",
                    shown(&value)
                ));
            }
            Meaning::Compressed => {
                return self.set(header::ACCEPT_ENCODING, "deflate, gzip, br, zstd");
            }
            Meaning::Version(version) => self.version = Some(version),
            Meaning::Target => self.target = Some(value),
        }
        Ok(())
    }

    fn url(&mut self, url: &str) -> Result<(), String> {
        match &self.url {
            Some(first) => Err(format!(
                "`{}` is a second URL after `{}`: one request at a time",
                shown(url),
                shown(first)
            )),
            None => {
                self.url = Some(url.to_owned());
                Ok(())
            }
        }
    }

    fn header(&mut self, name: &str, line: &str) -> Result<(), String> {
        if let Some(file) = line.strip_prefix('@') {
            return Err(format!(
                "`{name} @{}` reads headers from a file: write them on the command line",
                shown(file)
            ));
        }
        if let Some((name, value)) = line.split_once(':') {
            // Without a value it only takes away what curl would add.
            if value.trim().is_empty() {
                self.removed.push(asked::field_name(name)?);
                return Ok(());
            }
        } else if let Some(name) = line.strip_suffix(';') {
            let empty = HeaderValue::from_static("");
            self.fields.push((asked::field_name(name)?, empty));
            return Ok(());
        }
        self.fields.push(asked::field(line)?);
        Ok(())
    }

    fn set(&mut self, name: HeaderName, value: &str) -> Result<(), String> {
        let value = asked::field_value(name.as_str(), value)?;
        self.add(name, value);
        Ok(())
    }

    /// The last of several options for one header counts.
    fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.added.retain(|(known, _)| *known != name);
        self.added.push((name, value));
    }

    fn data(&mut self, more: &str, between: &str) {
        match &mut self.data {
            Some(data) => {
                data.push_str(between);
                data.push_str(more);
            }
            None => self.data = Some(more.to_owned()),
        }
    }

    /// The request that all of it comes to.
    fn request(mut self) -> Result<Asked, String> {
        let Some(url) = self.url.take() else {
            return Err("the command has no URL".to_owned());
        };
        let Target { url, user } = Target::read(&url)?;
        let has_user = self.added.iter().any(|(of, _)| of == header::AUTHORIZATION);
        if let Some(user) = user.filter(|_| !has_user) {
            self.add(header::AUTHORIZATION, asked::basic(&asked::decoded(&user))?);
        }
        let query = self.data.take_if(|_| self.in_query);
        let method = self.method()?;
        let url = match (self.target.take(), query) {
            (Some(target), _) => aimed(&url, &target)?,
            (None, Some(query)) => queried(&url, &query)?,
            (None, None) => url,
        };
        let body = self.data.take();
        let mut asked = Asked {
            listener: None,
            method,
            url,
            version: self.version.unwrap_or(Version::HTTP_11),
            headers: HeaderMap::new(),
            body: body.clone().map_or_else(Bytes::new, Bytes::from),
            client: None,
        };
        self.fill(&mut asked, body.is_some())?;
        Ok(asked)
    }

    fn method(&self) -> Result<Method, String> {
        if self.head && self.data.is_some() {
            return Err(
                "`--head` and data cannot go together: add `--get`, or leave one of them out"
                    .to_owned(),
            );
        }
        match &self.method {
            // Here they are sent as they are written, in small letters, too.
            Some(written) => Method::from_bytes(written.as_bytes())
                .map_err(|_| format!("`{}` is not a method such as `GET`", shown(written))),
            None if self.head => Ok(Method::HEAD),
            None if self.data.is_some() => Ok(Method::POST),
            None => Ok(Method::GET),
        }
    }

    /// Headers as they are given, then what curl adds where it was neither given nor taken away.
    fn fill(self, asked: &mut Asked, has_body: bool) -> Result<(), String> {
        for (name, value) in self.fields {
            asked.headers.append(name, value);
        }
        if !self.cookies.is_empty() {
            let value = asked::field_value("cookie", &self.cookies.join("; "))?;
            asked.headers.append(header::COOKIE, value);
        }
        let is = HeaderValue::from_static;
        let (kind, accepted) = if self.is_json {
            ("application/json", "application/json")
        } else {
            ("application/x-www-form-urlencoded", "*/*")
        };
        let mut added = self.added;
        if has_body {
            added.push((header::CONTENT_TYPE, is(kind)));
        }
        added.push((header::ACCEPT, is(accepted)));
        added.push((header::USER_AGENT, is(AGENT)));
        added.retain(|(name, _)| !self.removed.contains(name));
        for (name, value) in added {
            asked.default_header(name, value);
        }
        if has_body && !self.removed.contains(&header::CONTENT_LENGTH) {
            asked.say_length();
        }
        Ok(())
    }
}

/// How curl calls itself, in some version.
const AGENT: &str = "curl/8.5.0";

fn unknown(option: &str) -> String {
    if let Some((name, _)) = option.split_once('=')
        && let Some(long) = name.strip_prefix("--")
        && options::long(long).is_some()
    {
        return format!("curl takes no `=` after an option: write `{name}` and the value apart");
    }
    let long = option.strip_prefix("--");
    let near = long.and_then(|long| suggest::nearest(long, options::longs()));
    match near {
        Some(near) => format!(
            "the option `{}` is not known here: did you mean `--{near}`?",
            shown(option)
        ),
        None => format!(
            "the option `{}` is not known here: leave it out if it does not change the request",
            shown(option)
        ),
    }
}

/// Data that is written, not read from a file.
fn literal(name: &str, value: String) -> Result<String, String> {
    match value.strip_prefix('@') {
        Some(file) => Err(format!(
            "`{name} @{}` reads a file: write the data itself, or `--data-raw` if it begins with `@`",
            shown(file)
        )),
        None => Ok(value),
    }
}

/// `--data-urlencode`: `content`, `=content` or `name=content`.
fn encoded(name: &str, value: &str) -> Result<String, String> {
    let text = |text: &str| utf8_percent_encode(text, FORM).to_string();
    match value.find(['=', '@']).map(|at| value.split_at(at)) {
        Some(("", content)) if content.starts_with('=') => {
            Ok(text(content.strip_prefix('=').unwrap_or_default()))
        }
        Some((key, content)) if content.starts_with('=') => {
            let content = content.strip_prefix('=').unwrap_or_default();
            Ok(format!("{key}={}", text(content)))
        }
        Some(_) => Err(format!(
            "`{name} {}` reads a file: write the data itself",
            shown(value)
        )),
        None => Ok(text(value)),
    }
}

/// The URL with data behind its query.
fn queried(url: &Uri, data: &str) -> Result<Uri, String> {
    let sign = if url.query().is_some() { '&' } else { '?' };
    let text = url.to_string();
    if data.is_empty() {
        return Ok(url.clone());
    }
    Ok(Target::read(&format!("{text}{sign}{data}"))?.url)
}

/// The URL with another target: `--request-target`.
fn aimed(url: &Uri, target: &str) -> Result<Uri, String> {
    let path = target
        .parse()
        .map_err(|_| format!("`{}` is not a target of a request", shown(target)))?;
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
