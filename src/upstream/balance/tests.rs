//! What is true of every policy.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::upstream::balance::testing::{MS, candidates, choice, map, simulate};
use crate::upstream::balance::{Balance, Balancer, Candidate, Choice, Outcome};

fn policies() -> Vec<Balance> {
    let read = |json| serde_json::from_str(json).expect(json);
    vec![
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::P2cEwma,
        read(r#"{"ring_hash": {"by": "client_ip"}}"#),
        read(r#"{"ring_hash": {"by": "client_ip", "bounded_load": "101%"}}"#),
        read(r#"{"maglev": {"by": "client_ip"}}"#),
        read(r#"{"maglev": {"by": "client_ip", "bounded_load": "125%"}}"#),
    ]
}

#[test]
fn without_endpoints_nobody_is_picked_and_with_one_it_always_is() {
    let now = Instant::now();
    for balance in policies() {
        for (weights, pick) in [(&[][..], None), (&[0], None), (&[3], Some(0))] {
            let mut balancer = Balancer::new(&balance, &candidates(weights), 1, now, None);
            for avoid in [&[][..], &[0], &[0, 1, 2]] {
                for key in [None, Some(0), Some(u64::MAX)] {
                    let choice = Choice {
                        avoid,
                        key,
                        ..choice(u64::MAX, now)
                    };
                    assert_eq!(balancer.pick(&choice), pick, "{balance:?} {choice:?}");
                }
            }
            for number in [0, 1, u32::MAX] {
                balancer.settle(number, Outcome::Failed(MS), now);
            }
        }
    }
}

#[test]
fn shares_follow_the_weights() {
    // How far a share may be from its due: the ring's points fall by chance, requests in
    // flight are whole numbers, and latencies scatter.
    let tolerance = |balance: &Balance| match balance {
        Balance::RoundRobin => 0.01,
        Balance::Random => 0.07,
        Balance::Maglev(hashing) if hashing.bounded_load.is_none() => 0.07,
        Balance::LeastRequest | Balance::Maglev(_) => 0.2,
        Balance::P2cEwma => 0.25,
        Balance::RingHash(_) => 0.35,
    };
    for balance in policies() {
        for weights in [&[1; 3][..], &[1; 10], &[1, 3], &[5, 3, 2, 10]] {
            for pace in [Duration::from_micros(200), 10 * MS] {
                let latencies = vec![2 * MS; weights.len()];
                let counts = simulate(&balance, weights, &latencies, pace, 30_000);
                let total: u32 = weights.iter().sum();
                for (count, weight) in counts.iter().zip(weights) {
                    let due = 30_000.0 * f64::from(*weight) / f64::from(total);
                    let off = (f64::from(*count) - due).abs() / due;
                    assert!(
                        off <= tolerance(&balance),
                        "{balance:?} {weights:?} {pace:?}: {counts:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_key_leads_to_the_same_address_in_every_process() {
    let mine = candidates(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    // The other process has found the endpoints in another order, and had some before.
    let other: Vec<Candidate> = (0..)
        .zip(mine.iter().rev())
        .map(|(place, candidate)| Candidate {
            number: 100 - 3 * place,
            ..*candidate
        })
        .collect();
    let hash = |all: &[Candidate], number: u32| {
        all.iter()
            .find(|candidate| candidate.number == number)
            .map(|candidate| candidate.hash)
    };
    for balance in policies() {
        if !matches!(balance, Balance::RingHash(_) | Balance::Maglev(_)) {
            continue;
        }
        let (here, there) = (map(&balance, &mine, 2_000), map(&balance, &other, 2_000));
        for (here, there) in here.into_iter().zip(there) {
            assert_eq!(hash(&mine, here), hash(&other, there), "{balance:?}");
        }
    }
}

#[test]
fn nobody_has_more_in_flight_than_the_bound_allows() {
    let check = |kind: &str, weights: &[u32], percent: u64, keys: u64| {
        let json = format!(r#"{{"{kind}": {{"by": "client_ip", "bounded_load": "{percent}%"}}}}"#);
        let balance: Balance = serde_json::from_str(&json).expect("a policy");
        let now = Instant::now();
        let mut balancer = Balancer::new(&balance, &candidates(weights), 0, now, None);
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut flying, mut counts) = (Vec::new(), vec![0_u64; weights.len()]);
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        for _ in 0..3_000 {
            if rng.u8(..) < 100 && !flying.is_empty() {
                let number: u32 = flying.swap_remove(rng.usize(..flying.len()));
                balancer.settle(number, Outcome::Answered(MS), now);
                counts[number as usize] -= 1;
                continue;
            }
            let key = Some(crate::base::key::mix(rng.u64(..keys)));
            let number = balancer
                .pick(&Choice {
                    key,
                    ..choice(0, now)
                })
                .expect("one");
            flying.push(number);
            counts[number as usize] += 1;
            let (all, weight) = (flying.len() as u64, u64::from(weights[number as usize]));
            let most = (percent * all * weight).div_ceil(100 * total);
            assert!(
                counts[number as usize] <= most,
                "{json} {weights:?}: {counts:?}"
            );
        }
    };
    for kind in ["ring_hash", "maglev"] {
        // One key is as hot as it gets.
        for keys in [1, 5, 1_000] {
            check(kind, &[1; 3], 125, keys);
            check(kind, &[1; 20], 101, keys);
            check(kind, &[1, 2, 7], 150, keys);
            check(kind, &[1; 200], 1_000, keys);
        }
    }
}

#[test]
fn the_next_place_of_a_key_is_its_own_too() {
    let now = Instant::now();
    for balance in policies() {
        if !matches!(balance, Balance::RingHash(_) | Balance::Maglev(_)) {
            continue;
        }
        let mut balancer = Balancer::new(&balance, &candidates(&[1; 5]), 0, now, None);
        let mut pick = |key: u64, avoid: &[u32]| {
            let choice = Choice {
                avoid,
                key: Some(crate::base::key::mix(key)),
                ..choice(key, now)
            };
            let number = balancer.pick(&choice).expect("one");
            balancer.settle(number, Outcome::Answered(MS), now);
            number
        };
        let mut seconds = std::collections::HashSet::new();
        for key in 0..100 {
            let first = pick(key, &[]);
            let second = pick(key, &[first]);
            assert_ne!(first, second);
            assert_eq!(second, pick(key, &[first]), "{balance:?}");
            if first == 0 {
                seconds.insert(second);
            }
        }
        assert!(
            seconds.len() > 1,
            "the keys of one endpoint go to several: {balance:?}"
        );
    }
}

#[test]
fn a_key_that_is_missing_leaves_it_to_chance() {
    let now = Instant::now();
    for balance in policies() {
        let mut balancer = Balancer::new(&balance, &candidates(&[1; 4]), 0, now, None);
        let mut rng = fastrand::Rng::with_seed(9);
        let mut counts = [0_u32; 4];
        for _ in 0..400 {
            let number = balancer.pick(&choice(rng.u64(..), now)).expect("one");
            counts[number as usize] += 1;
            balancer.settle(number, Outcome::Answered(MS), now);
        }
        assert!(
            counts.iter().all(|count| *count > 20),
            "{balance:?}: {counts:?}"
        );
    }
}

#[test]
fn what_is_in_flight_outlives_a_change_of_the_list() {
    let now = Instant::now();
    let all = candidates(&[1; 3]);
    let mut balancer = Balancer::new(&Balance::LeastRequest, &all[..2], 0, now, None);
    for _ in 0..10 {
        let pick = balancer.pick(&Choice {
            avoid: &[1],
            ..choice(1, now)
        });
        assert_eq!(pick, Some(0));
    }
    let mut longer = Balancer::new(&Balance::LeastRequest, &all, 0, now, Some(&balancer));
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..15 {
        let pick = longer.pick(&choice(rng.u64(..), now));
        assert_ne!(pick, Some(0), "it has ten already");
    }
    // Another policy knows nothing of it, and is not told of it either.
    let mut other = Balancer::new(&Balance::P2cEwma, &all, 0, now, Some(&longer));
    other.settle(0, Outcome::Answered(MS), now);
    assert!(other.pick(&choice(0, now)).is_some());
}

/// What may happen to a balancer.
#[derive(Debug, Clone)]
enum Event {
    Pick {
        avoid: Vec<u32>,
        key: Option<u64>,
        random: u64,
    },
    Settle(usize),
    /// A list with other endpoints: weights by number.
    Change(Vec<u32>),
}

fn event() -> impl Strategy<Value = Event> {
    let avoid = proptest::collection::vec(0..8_u32, 0..5);
    prop_oneof![
        8 => (avoid, any::<Option<u64>>(), any::<u64>())
            .prop_map(|(avoid, key, random)| Event::Pick { avoid, key, random }),
        6 => any::<usize>().prop_map(Event::Settle),
        1 => proptest::collection::vec(0..4_u32, 0..8).prop_map(Event::Change),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_pick_is_a_candidate_and_not_avoided_unless_all_are(
        events in proptest::collection::vec(event(), 1..60),
        policy in 0..8_usize,
    ) {
        let balance = &policies()[policy];
        let now = Instant::now();
        let mut weights = vec![1, 1, 1];
        let mut balancer = Balancer::new(balance, &candidates(&weights), 0, now, None);
        let mut flying = Vec::new();
        for event in events {
            match event {
                Event::Pick { avoid, key, random } => {
                    let choice = Choice { avoid: &avoid, key, random, now };
                    let is_ready = |number: &u32| {
                        weights.get(*number as usize).is_some_and(|weight| *weight > 0)
                    };
                    let mut good = (0..8).filter(|n| is_ready(n) && !avoid.contains(n));
                    let pick = balancer.pick(&choice);
                    prop_assert_eq!(pick.is_some(), (0..8).any(|n| is_ready(&n)));
                    if let Some(pick) = pick {
                        prop_assert!(is_ready(&pick));
                        prop_assert!(!avoid.contains(&pick) || good.next().is_none());
                        flying.push(pick);
                    }
                }
                Event::Settle(which) if !flying.is_empty() => {
                    let number = flying.swap_remove(which % flying.len());
                    balancer.settle(number, Outcome::Answered(MS), now);
                }
                Event::Settle(_) => balancer.settle(7, Outcome::Failed(MS), now),
                Event::Change(next) => {
                    weights = next;
                    let candidates = candidates(&weights);
                    balancer = Balancer::new(balance, &candidates, 3, now, Some(&balancer));
                }
            }
        }
    }
}

#[test]
fn a_request_that_stays_with_its_endpoint_counts_there() {
    let bounded = r#"{"maglev": {"by": "client_ip", "bounded_load": "101%"}}"#;
    for json in [r#""least_request""#, r#""p2c_ewma""#, bounded] {
        let balance: Balance = serde_json::from_str(json).expect(json);
        let now = Instant::now();
        let mut balancer = Balancer::new(&balance, &candidates(&[1, 1]), 0, now, None);
        for _ in 0..30 {
            balancer.begin(0);
        }
        for random in 0..20 {
            let choice = choice(u64::MAX / 20 * random, now);
            assert_eq!(balancer.pick(&choice), Some(1), "{json}");
        }
        // They are settled as all others are.
        for number in [0; 30].into_iter().chain([1; 20]) {
            balancer.settle(number, Outcome::Abandoned(Duration::ZERO), now);
        }
        for _ in 0..30 {
            balancer.begin(1);
        }
        assert_eq!(balancer.pick(&choice(7, now)), Some(0), "{json}");
    }
}
