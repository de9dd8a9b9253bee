//! What choosing an endpoint costs, and building what it is chosen by.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use retort::base::key;
use retort::upstream::Balance;
use retort::upstream::balance::{Balancer, Candidate, Choice, Outcome};

const POLICIES: [&str; 8] = [
    r#""round_robin""#,
    r#""random""#,
    r#""least_request""#,
    r#""p2c_ewma""#,
    r#"{"ring_hash": {"by": "client_ip"}}"#,
    r#"{"ring_hash": {"by": "client_ip", "bounded_load": "125%"}}"#,
    r#"{"maglev": {"by": "client_ip"}}"#,
    r#"{"maglev": {"by": "client_ip", "bounded_load": "125%"}}"#,
];

/// So many endpoints, with weights from 1 to `heaviest`.
fn candidates(count: u32, heaviest: u32) -> Vec<Candidate> {
    let candidate = |number: u32| Candidate {
        number,
        weight: 1 + number % heaviest,
        hash: key::hash(&number.to_be_bytes()),
    };
    (0..count).map(candidate).collect()
}

#[expect(clippy::expect_used, reason = "the policies are written above")]
fn policy(json: &str) -> Balance {
    serde_json::from_str(json).expect("a policy")
}

fn picks(criterion: &mut Criterion) {
    for (json, heaviest) in POLICIES.iter().flat_map(|json| [(json, 1), (json, 7)]) {
        for endpoints in [3, 1_000] {
            let start = Instant::now();
            let candidates = candidates(endpoints, heaviest);
            let mut balancer = Balancer::new(&policy(json), &candidates, 42, start, None);
            let mut random = fastrand::Rng::with_seed(42);
            // A clock of its own: reading the real one is not a part of a pick.
            let mut now = start;
            let weights = if heaviest > 1 { "weighted" } else { "equal" };
            criterion.bench_function(&format!("{json}, {endpoints} {weights}"), |bencher| {
                bencher.iter(|| {
                    now += Duration::from_micros(10);
                    let choice = Choice {
                        avoid: &[],
                        key: Some(random.u64(..)),
                        random: random.u64(..),
                        now,
                    };
                    if let Some(endpoint) = black_box(balancer.pick(&choice)) {
                        balancer.settle(endpoint, Outcome::Answered(Duration::from_millis(1)), now);
                    }
                });
            });
        }
    }
}

/// A change of the list; it happens on the thread that serves requests.
fn builds(criterion: &mut Criterion) {
    for json in POLICIES {
        let policy = policy(json);
        for endpoints in [3, 1_000] {
            let now = Instant::now();
            let candidates = candidates(endpoints, 1);
            let before = Balancer::new(&policy, &candidates, 42, now, None);
            criterion.bench_function(&format!("build {json}, {endpoints}"), |bencher| {
                bencher.iter(|| Balancer::new(&policy, &candidates, 42, now, Some(&before)));
            });
        }
    }
}

criterion_group!(benches, picks, builds);
criterion_main!(benches);
