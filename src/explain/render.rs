//! An explanation as people read it: one line that says all, then why.

use crate::base::paint::{Paint, harmless};
use crate::base::report::Style;
use crate::explain::explanation::{
    Answer, Change, Chosen, Explanation, Place, Rival, Sending, Turn,
};
use crate::explain::shown;

/// Matches and endpoints that are shown: a page shall fit on a screen.
const MOST: usize = 8;

/// The width of the first column.
const MARGIN: usize = 12;

/// The explanation of a request that was asked as `what`.
pub fn render(what: &str, explanation: &Explanation, style: Style) -> String {
    let (what, explanation) = (&harmless(what), &shown::disarmed(explanation));
    let mut page = Page {
        text: String::new(),
        paint: Paint::new(style),
    };
    page.headline(what, explanation);
    page.door(explanation);
    page.route(explanation);
    page.turns(&explanation.steps);
    if let Some(backend) = &explanation.backend {
        page.backend(backend);
    }
    for sending in &explanation.sent {
        page.sent(sending);
    }
    page.answer(&explanation.answer);
    page.notes(explanation);
    page.text
}

struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    /// A line with a word in the margin.
    fn line(&mut self, word: &str, text: &str) {
        let margin = format!("{word:MARGIN$}");
        self.text += &self.paint.bold(&margin);
        self.text += text;
        self.text += "\n";
    }

    fn headline(&mut self, what: &str, explanation: &Explanation) {
        let answer = &explanation.answer;
        let mut way = vec![what.to_owned()];
        way.extend(
            explanation
                .route
                .iter()
                .map(|route| format!("route {}", route.name)),
        );
        way.push(answer.by.clone());
        if let Some(upstream) = explanation
            .backend
            .as_ref()
            .and_then(|one| one.upstream.as_ref())
            && answer.by == "the gateway"
        {
            way.insert(way.len() - 1, format!("upstream {upstream}"));
        }
        let status = answer.status.to_string();
        let flag = answer
            .flag
            .as_ref()
            .map(|flag| format!(" {flag}"))
            .unwrap_or_default();
        let end = format!("{status}{flag}");
        way.push(if answer.status < 400 {
            self.paint.green(end)
        } else {
            self.paint.red(end)
        });
        self.text += &way.join(" → ");
        self.text += "\n\n";
    }

    fn door(&mut self, explanation: &Explanation) {
        let listener = &explanation.listener;
        let because = self.paint.dim(&listener.because);
        self.line(
            "listener",
            &format!("{} ({}), {because}", listener.name, listener.address),
        );
        let client = &explanation.client;
        let ip = client.ip.as_deref().unwrap_or("unknown");
        let trusted = if client.trusted {
            ", a trusted proxy"
        } else {
            ""
        };
        self.line(
            "client",
            &format!(
                "{ip} over {}, connected from {}{trusted}",
                client.scheme, client.peer
            ),
        );
        if let Some(request) = &explanation.request {
            let query = request
                .query
                .as_ref()
                .map(|query| format!("?{query}"))
                .unwrap_or_default();
            let host = request.host.as_deref().unwrap_or("(no host)");
            self.line(
                "request",
                &format!("{} {host} {}{query}", request.method, request.path),
            );
            self.changes(&request.changes);
        }
    }

    fn changes(&mut self, changes: &[Change]) {
        for Change { what, from, to } in changes {
            let text = match (from, to) {
                (None, Some(to)) => self.paint.green(format!("+ {what}: {to}")),
                (Some(from), None) => self.paint.red(format!("- {what}: {from}")),
                (Some(from), Some(to)) => format!("~ {what}: {from} → {to}"),
                (None, None) => continue,
            };
            self.line("", &format!("  {text}"));
        }
    }

    fn route(&mut self, explanation: &Explanation) {
        match &explanation.route {
            Some(route) => {
                let place = route
                    .place
                    .as_ref()
                    .map(|place| format!(" at {place}"))
                    .unwrap_or_default();
                self.line(
                    "route",
                    &format!("{}{place}, match {}", route.name, route.r#match),
                );
                for (name, value) in &route.params {
                    self.line("", &format!("  {{{name}}} = {value}"));
                }
            }
            None => self.line("route", "none"),
        }
        let candidates = &explanation.candidates;
        let winner = candidates.iter().position(|rival| rival.wins);
        let is_near = |place: usize| place < MOST || winner == Some(place);
        for (place, rival) in candidates.iter().enumerate().filter(|(at, _)| is_near(*at)) {
            let word = if place == 0 { "precedence" } else { "" };
            let text = self.rival(rival);
            self.line(word, &text);
        }
        let shown = (0..candidates.len()).filter(|at| is_near(*at)).count();
        self.more(candidates.len() - shown);
    }

    /// Says how many are left out.
    fn more(&mut self, number: usize) {
        if number > 0 {
            let text = format!("and {number} more, which --json has");
            let text = self.paint.dim(text);
            self.line("", &text);
        }
    }

    fn rival(&self, rival: &Rival) -> String {
        let is = format!("{}: {}", rival.route, rival.r#match);
        match (&rival.lost_on, rival.wins) {
            (_, true) => self.paint.green(format!("✓ {is}")),
            (Some(lost_on), false) => {
                format!("✗ {is}, {}", self.paint.red(format!("lost on {lost_on}")))
            }
            (None, false) => format!("· {is}, {}", self.paint.dim("comes later")),
        }
    }

    fn turns(&mut self, turns: &[Turn]) {
        for (place, turn) in turns.iter().enumerate() {
            let word = if place == 0 { "middlewares" } else { "" };
            let kind = if turn.name == turn.kind {
                String::new()
            } else {
                format!("{}, ", turn.kind)
            };
            let mut text = format!("{} ({kind}of the {})", turn.name, turn.of);
            if let Some(status) = turn.answered {
                text = self.paint.red(format!("{text} answers {status}"));
            } else if !turn.ran {
                text = self.paint.dim(format!("{text} is not reached"));
            }
            self.line(word, &text);
            if let Some(about) = &turn.about {
                self.line("", &format!("  {about}"));
            }
            self.changes(&turn.changes);
            for note in &turn.notes {
                self.line("", &format!("  {note}"));
            }
        }
    }

    fn backend(&mut self, backend: &Chosen) {
        let by = backend.by.as_ref();
        let by = by
            .map(|by| format!(", one of {} by {by}", backend.of))
            .unwrap_or_default();
        match (&backend.upstream, &backend.handler) {
            (Some(upstream), _) => {
                let protocol = backend.protocol.as_deref().unwrap_or_default();
                let balance = backend.balance.as_deref().unwrap_or_default();
                let key = backend.key.as_ref();
                let key = key.map(|key| format!(" by {key}")).unwrap_or_default();
                self.line(
                    "upstream",
                    &format!("{upstream} ({protocol}, {balance}{key}){by}"),
                );
            }
            (None, Some(handler)) => self.line("handler", &format!("{handler}{by}")),
            (None, None) => {}
        }
        self.endpoints(&backend.endpoints);
        let times = &backend.timeouts;
        let parts = [
            ("request", times.request_ms),
            ("attempt", times.attempt_ms),
            ("idle", times.idle_ms),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter_map(|(what, time)| {
                Some(format!(
                    "{what} {:?}",
                    std::time::Duration::from_millis(time?)
                ))
            })
            .collect();
        if !parts.is_empty() {
            self.line("timeouts", &parts.join(", "));
        }
        if let Some(retry) = &backend.retry {
            let may = if retry.repeatable {
                "it may be repeated"
            } else {
                "only where it cannot have run"
            };
            let default = if retry.by_default {
                " (by default)"
            } else {
                ""
            };
            self.line(
                "retry",
                &format!(
                    "{} attempts{default} on {}; {may}",
                    retry.attempts,
                    retry.on.join(", ")
                ),
            );
            if let Some(hedge) = &retry.hedge {
                self.line("hedge", hedge);
            }
        }
        if !backend.mirrors.is_empty() {
            self.line("mirrors", &backend.mirrors.join(", "));
        }
    }

    fn endpoints(&mut self, endpoints: &[Place]) {
        // First those that may not be chosen: they are what is looked for among many.
        let mut endpoints: Vec<&Place> = endpoints.iter().collect();
        if endpoints.len() > MOST {
            endpoints.sort_by_key(|endpoint| endpoint.eligible);
        }
        for (place, endpoint) in endpoints.iter().take(MOST).enumerate() {
            let word = if place == 0 { "endpoints" } else { "" };
            let zone = endpoint
                .zone
                .as_ref()
                .map(|zone| format!(" in {zone}"))
                .unwrap_or_default();
            let why = if endpoint.why.is_empty() {
                String::new()
            } else {
                format!(": {}", endpoint.why)
            };
            let state = format!("{}{why}", endpoint.state);
            let state = if endpoint.eligible {
                self.paint.green(state)
            } else {
                self.paint.red(state)
            };
            let weight = if endpoint.weight > 1 {
                format!(", weight {}", endpoint.weight)
            } else {
                String::new()
            };
            self.line(word, &format!("{}{zone} {state}{weight}", endpoint.address));
        }
        self.more(endpoints.len().saturating_sub(MOST));
    }

    fn sent(&mut self, sending: &Sending) {
        self.line(
            "sent",
            &format!("to {} of {}", sending.endpoint, sending.upstream),
        );
        for line in sending.head.lines() {
            let line = self.paint.dim(line);
            self.line("", &format!("  {line}"));
        }
        if sending.body_bytes > 0 {
            self.line("", &format!("  and a body of {} bytes", sending.body_bytes));
        }
    }

    fn answer(&mut self, answer: &Answer) {
        let supposed = if answer.by.starts_with("upstream ") {
            ", supposing 200"
        } else {
            ""
        };
        let flag = answer
            .flag
            .as_ref()
            .map(|flag| format!(", flag {flag}"))
            .unwrap_or_default();
        self.line(
            "answer",
            &format!("{} by {}{flag}{supposed}", answer.status, answer.by),
        );
        for (name, value) in &answer.headers {
            self.line("", &format!("  {name}: {value}"));
        }
        if let Some(meaning) = &answer.meaning {
            let detail = answer.detail.as_ref().filter(|detail| *detail != meaning);
            let detail = detail
                .map(|detail| format!(": {detail}"))
                .unwrap_or_default();
            self.line("because", &format!("{meaning}{detail}"));
        }
        for hint in &answer.hints {
            self.line("hint", hint);
        }
    }

    /// What was noted besides what stands at a middleware already.
    fn notes(&mut self, explanation: &Explanation) {
        let is_said = |note: &String| {
            let mut steps = explanation.steps.iter();
            steps.any(|turn| turn.notes.contains(note))
        };
        let notes = explanation.answer.notes.iter();
        for note in notes.filter(|note| !is_said(note)) {
            self.line("note", note);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::report::Style;
    use crate::explain::asked::Asked;
    use crate::explain::world::World;

    const CONFIG: &str = r#"
listeners: [{name: web, address: "127.0.0.1:8080"}]
routes:
  - {name: a, match: {path: /a}, middlewares: [{rate_limit: {requests: 1, per: 1h}}, {set_headers: {request: {set: {x-a: b}}}}], upstream: up}
  - {name: b, match: {path: /a, method: POST, headers: {x-b: "1"}}, upstream: up}
upstreams: {up: {endpoints: ["127.0.0.1:1"]}}
"#;

    fn rendered(world: &World, style: Style) -> String {
        let asked = Asked::from_arguments(&["/a".to_owned()], &[], None).expect("a request");
        let explanation = super::super::explain(world, asked, None).expect("an explanation");
        super::render("GET /a", &explanation, style)
    }

    fn world() -> World {
        let loaded = crate::config::parse("test.yaml", CONFIG, &|_| None);
        World::apart(&loaded.config.expect("a configuration")).expect("a world")
    }

    #[test]
    fn colours_are_for_terminals_and_change_no_word() {
        let coloured = rendered(&world(), Style::Coloured);
        let plain = rendered(&world(), Style::Plain);
        assert!(!plain.contains('\x1b'), "{plain}");
        assert!(coloured.contains("\x1b[32m200\x1b[0m"), "{coloured}");
        let mut bare = String::new();
        for (number, part) in coloured.split('\x1b').enumerate() {
            let text = part.split_once('m').filter(|_| number > 0);
            bare += text.map_or(part, |(_, text)| text);
        }
        assert_eq!(bare, plain);
    }

    #[test]
    fn a_middleware_that_answers_hides_those_behind_it() {
        let world = world();
        let _first = rendered(&world, Style::Plain);
        let second = rendered(&world, Style::Plain);
        for line in [
            "GET /a → route a → middleware rate_limit → 429 RL",
            "precedence  ✗ b: POST literal /a, header `x-b` = \"1\", lost on method",
            "middlewares rate_limit (of the route) answers 429",
            "            set_headers (of the route) is not reached",
            "because     a rate limit is used up: `rate_limit` by route is used up",
        ] {
            assert!(second.contains(line), "{line} is not in\n{second}");
        }
        assert!(!second.contains("sent "), "{second}");
    }
}
