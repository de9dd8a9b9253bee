//! What choosing an endpoint costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use retort::upstream::Balance;
use retort::upstream::balance::{Balancer, Outcome};

fn picks(criterion: &mut Criterion) {
    let policies = [
        ("round_robin", Balance::RoundRobin, 1),
        ("round_robin, weighted", Balance::RoundRobin, 7),
        ("p2c_ewma", Balance::P2cEwma, 1),
        ("p2c_ewma, weighted", Balance::P2cEwma, 7),
    ];
    for (name, policy, weights) in policies {
        for endpoints in [3, 1_000_u32] {
            let start = Instant::now();
            let ready = (0..endpoints).map(|number| (number, 1 + number % weights));
            let mut balancer = Balancer::new(policy, ready, 42, start);
            let mut random = fastrand::Rng::with_seed(42);
            // A clock of its own: reading the real one is not a part of a pick.
            let mut now = start;
            criterion.bench_function(&format!("{name}, {endpoints} endpoints"), |bencher| {
                bencher.iter(|| {
                    now += Duration::from_micros(10);
                    let pick = balancer.pick(&[], random.u64(..), now);
                    if let Some(endpoint) = black_box(pick) {
                        balancer.settle(endpoint, Outcome::Answered(Duration::from_millis(1)), now);
                    }
                });
            });
        }
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
