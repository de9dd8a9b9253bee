//! The limit at a service that is played through: events in order, no clock.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A service with so many workers and a queue before them, and clients that do not care.
struct World {
    gradient: Gradient,
    start: Instant,
    now: u64,
    /// When each worker of the service is free, in nanoseconds.
    free: Vec<u64>,
    /// When answers come, and when they were asked for.
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    random: fastrand::Rng,
}

struct Load {
    capacity: usize,
    service: Duration,
    /// Requests in a second.
    rate: f64,
}

#[derive(Default)]
struct Seen {
    served: f64,
    refused: f64,
    latency: f64,
    least: f64,
    most: f64,
    mean: f64,
}

impl World {
    fn new(settings: &Settings) -> Self {
        Self {
            gradient: Gradient::new(settings),
            start: Instant::now(),
            now: 0,
            free: Vec::new(),
            under_way: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(7),
        }
    }

    fn chance(&mut self) -> f64 {
        -(1.0 - self.random.f64()).ln()
    }

    fn run(&mut self, seconds: u32, load: &Load) -> Seen {
        self.free.resize(load.capacity, self.now);
        let end = self.now + u64::from(seconds) * 1_000_000_000;
        let mut seen = Seen {
            least: f64::MAX,
            ..Seen::default()
        };
        let mut arrivals = 0.0;
        while self.now < end {
            let pause = self.chance() / load.rate;
            self.now += nanos(Duration::from_secs_f64(pause));
            self.answer(&mut seen);
            let limit = f64::from(self.gradient.limit());
            seen.least = seen.least.min(limit);
            seen.most = seen.most.max(limit);
            seen.mean += limit;
            arrivals += 1.0;
            if self.under_way.len() >= self.gradient.limit() as usize {
                seen.refused += 1.0;
                continue;
            }
            // Half of the time is the same for all requests, half is as it comes.
            let took = load.service.mul_f64(0.5 + 0.5 * self.chance());
            let worker = self.free.iter_mut().min().expect("a worker");
            *worker = (*worker).max(self.now) + nanos(took);
            self.under_way.push(Reverse((*worker, self.now)));
        }
        seen.mean /= arrivals;
        seen.latency /= seen.served;
        seen.served /= f64::from(seconds);
        seen.refused /= arrivals;
        seen
    }

    fn answer(&mut self, seen: &mut Seen) {
        while let Some(&Reverse((at, sent))) = self.under_way.peek()
            && at <= self.now
        {
            let in_flight = u32::try_from(self.under_way.len()).expect("few");
            self.under_way.pop();
            let rtt = Duration::from_nanos(at - sent);
            let now = self.start + Duration::from_nanos(at);
            self.gradient.observe(rtt, in_flight, false, now);
            seen.served += 1.0;
            seen.latency += rtt.as_secs_f64();
        }
    }
}

const SERVICE: Duration = Duration::from_millis(10);

/// Fifty at once at 10 ms each: the service can do 5,000 a second.
fn load(rate: f64) -> Load {
    Load {
        capacity: 50,
        service: SERVICE,
        rate,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("short")
}

#[track_caller]
fn within(what: &str, value: f64, range: std::ops::RangeInclusive<f64>) {
    assert!(range.contains(&value), "{what} is {value}, not {range:?}");
}

#[test]
fn under_a_lasting_overload_the_limit_stays_where_the_service_is_busy_and_quick() {
    let mut world = World::new(&Settings::default());
    world.run(5, &load(10_000.0));
    for half_minute in 0..2 {
        let seen = world.run(30, &load(10_000.0));
        within("the limit", seen.mean, 55.0..=110.0);
        within("served", seen.served, 4_800.0..=5_200.0);
        within("latency", seen.latency, 0.010..=0.020);
        within("refused", seen.refused, 0.45..=0.55);
        assert!(
            seen.most < 150.0,
            "{} in half-minute {half_minute}",
            seen.most
        );
    }
}

#[test]
fn the_limit_falls_with_the_capacity_and_recovers_with_it() {
    let mut world = World::new(&Settings::default());
    world.run(20, &load(10_000.0));
    let half = Load {
        capacity: 25,
        ..load(10_000.0)
    };
    world.run(10, &half);
    let seen = world.run(20, &half);
    within("the limit", seen.mean, 25.0..=60.0);
    within("latency", seen.latency, 0.010..=0.022);
    world.run(10, &load(10_000.0));
    let seen = world.run(20, &load(10_000.0));
    within("the limit", seen.mean, 55.0..=110.0);
    within("served", seen.served, 4_800.0..=5_200.0);
}

#[test]
fn latency_that_doubles_without_a_queue_is_learned() {
    let mut world = World::new(&Settings::default());
    world.run(20, &load(10_000.0));
    let slower = Load {
        service: SERVICE * 2,
        ..load(5_000.0)
    };
    // At once it is taken for a queue.
    let seen = world.run(2, &slower);
    assert!(seen.least < 50.0, "{}", seen.least);
    world.run(20, &slower);
    let seen = world.run(20, &slower);
    within("the limit", seen.mean, 55.0..=110.0);
    within("served", seen.served, 2_300.0..=2_600.0);
}

#[test]
fn an_overload_at_the_start_is_found_out() {
    let mut world = World::new(&Settings {
        min: 200,
        ..Settings::default()
    });
    world.run(1, &load(50_000.0));
    world.gradient.min = 8.0;
    world.run(60, &load(50_000.0));
    let seen = world.run(20, &load(50_000.0));
    within("the limit", seen.mean, 50.0..=120.0);
    within("latency", seen.latency, 0.010..=0.022);
}

#[test]
fn a_service_with_room_is_not_throttled() {
    let mut world = World::new(&Settings::default());
    world.run(3, &load(3_500.0));
    let seen = world.run(60, &load(3_500.0));
    within("refused", seen.refused, 0.0..=0.001);
    // A burst of ten times as much, that the service is fit for.
    let large = |rate| Load {
        capacity: 1_000,
        ..load(rate)
    };
    world.run(3, &large(35_000.0));
    let seen = world.run(10, &large(35_000.0));
    within("refused", seen.refused, 0.0..=0.001);
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut world = World::new(&Settings::default());
    let seen = world.run(120, &load(100.0));
    assert!(seen.most <= 20.0, "{}", seen.most);
    assert!(seen.least >= 20.0, "{}", seen.least);
    let now = Instant::now();
    for second in 0..1_000 {
        let now = now + Duration::from_secs(second);
        world.gradient.observe(SERVICE, 1, false, now);
    }
    assert_eq!(world.gradient.limit(), 20);
}

#[test]
fn failures_lower_the_limit_however_quick_they_are() {
    let mut gradient = Gradient::new(&Settings::default());
    let start = Instant::now();
    for ms in 0..10_000 {
        let now = start + Duration::from_millis(ms);
        gradient.observe(Duration::from_micros(100), 20, ms % 5 == 0, now);
    }
    assert_eq!(gradient.limit(), Settings::default().min);
    for ms in 10_000..20_000 {
        let now = start + Duration::from_millis(ms);
        gradient.observe(SERVICE, gradient.limit(), false, now);
    }
    assert!(gradient.limit() > 20, "{}", gradient.limit());
}

#[test]
fn whatever_is_seen_the_limit_stays_between_its_bounds() {
    for (seed, (min, max)) in (0..).zip([(1, 1), (1, 2), (8, 1000), (5, 5), (100, 300)]) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut gradient = Gradient::new(&Settings {
            min,
            max,
            tolerance: 1.1,
        });
        let mut now = Instant::now();
        for _ in 0..50_000 {
            let limit = gradient.limit();
            assert!((min..=max).contains(&limit), "{limit} not in {min}..={max}");
            let rtt = match random.u8(..4) {
                0 => Duration::ZERO,
                1 => Duration::from_secs(random.u64(..1_000_000)),
                _ => Duration::from_micros(random.u64(..1_000_000)),
            };
            let in_flight = match random.u8(..3) {
                0 => random.u32(..),
                _ => random.u32(..=limit),
            };
            now += Duration::from_micros(random.u64(..50_000));
            gradient.observe(rtt, in_flight, random.u8(..20) == 0, now);
        }
    }
}
