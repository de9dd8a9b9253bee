//! Looks at the cgroup's memory and CPU time a few times a second, and says how bad it is.
//!
//! Runs on the control thread. Where the cgroup has no limit there is nothing to be near of, and
//! nothing is ever refused.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::base::cgroup::{Cgroup, Cpu};
use crate::base::pressure::{self, Gauge, Level, Pressure, Resource, Shedding, Trigger};

/// How often is looked: memory can grow by some percent of a small limit within a second.
const PERIOD: Duration = Duration::from_millis(250);

/// Over about how long CPU time is averaged: a burst that is over by then harms nobody.
const AVERAGE: Duration = Duration::from_secs(2);

/// How long a level stands in the log before its end is told.
const QUIET: Duration = Duration::from_secs(10);

/// The task that looks; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    gauge: Arc<Gauge>,
    settings: watch::Sender<Shedding>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Starts looking, from the calling thread's event loop; the system's files are below `root`.
    pub(crate) fn start(root: Option<&Path>, shedding: Shedding) -> Self {
        let cgroup = Cgroup::find(root.unwrap_or(Path::new("/")));
        let gauge = Arc::<Gauge>::default();
        let settings = watch::Sender::new(shedding);
        let task = look(cgroup, settings.subscribe(), Arc::clone(&gauge));
        Self {
            gauge,
            settings,
            task: tokio::spawn(task),
        }
    }

    /// What it says.
    pub(crate) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Puts other settings in force.
    pub(crate) fn configure(&self, shedding: Shedding) {
        self.settings.send_replace(shedding);
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(cgroup: Cgroup, settings: watch::Receiver<Shedding>, gauge: Arc<Gauge>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = State::new(Instant::now());
    loop {
        ticks.tick().await;
        let shedding = *settings.borrow();
        let pressure = state.sample(&cgroup, &shedding, Instant::now());
        gauge.store(pressure);
    }
}

/// What is remembered from one look to the next.
#[derive(Debug)]
struct State {
    /// The levels of memory and of CPU time.
    levels: (Level, Level),
    load: Load,
    told: Told,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            levels: Default::default(),
            load: Load::default(),
            told: Told {
                level: Level::Calm,
                at: now,
            },
        }
    }

    fn sample(&mut self, cgroup: &Cgroup, shedding: &Shedding, now: Instant) -> Pressure {
        let is_on = |trigger: Trigger| trigger != Trigger::Off;
        let memory = is_on(shedding.memory).then(|| cgroup.memory()).flatten();
        let cpu = is_on(shedding.cpu).then(|| cgroup.cpu()).flatten();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no last byte")]
        let memory = memory.map(|memory| memory.used as f64 / memory.limit as f64);
        let cpu = self.load.share(cpu, now);
        let pressure = pressure::assess(shedding, (memory, cpu), &mut self.levels);
        if let Some(before) = self.told.is_news(pressure.level, now) {
            tell(before, pressure);
        }
        pressure
    }
}

/// The average share of the CPU quota.
#[derive(Debug, Default)]
struct Load {
    last: Option<(Instant, Duration)>,
    average: f64,
}

impl Load {
    /// The share, once it was looked at twice.
    fn share(&mut self, cpu: Option<Cpu>, now: Instant) -> Option<f64> {
        let Some(Cpu { used, quota }) = cpu else {
            *self = Self::default();
            return None;
        };
        let (then, before) = self.last.replace((now, used))?;
        let passed = now.saturating_duration_since(then).as_secs_f64();
        if passed > 0.0 {
            let share = used.saturating_sub(before).as_secs_f64() / (passed * quota);
            let weight = 1.0 - (-passed / AVERAGE.as_secs_f64()).exp();
            self.average += (share - self.average) * weight;
        }
        Some(self.average)
    }
}

/// What the log says last.
#[derive(Debug)]
struct Told {
    level: Level,
    at: Instant,
}

impl Told {
    /// A level that is worse is news at once, one that is better only after a while: whatever goes
    /// up and down makes few lines. Returns what was told before.
    fn is_news(&mut self, level: Level, now: Instant) -> Option<Level> {
        let is_quiet = now.saturating_duration_since(self.at) >= QUIET;
        let is_news = level > self.level || (level < self.level && is_quiet);
        is_news.then(|| std::mem::replace(self, Self { level, at: now }).level)
    }
}

fn tell(before: Level, pressure: Pressure) {
    let Pressure { level, of, percent } = pressure;
    let what = match of {
        Resource::Memory => "memory limit",
        Resource::Cpu => "CPU quota",
    };
    let refused = match level {
        Level::Calm => {
            return tracing::info!("no request is refused for want of memory or CPU any more");
        }
        Level::Low => "low",
        Level::Normal => "low and normal",
        Level::High => "low, normal and high",
    };
    if level > before {
        tracing::warn!(
            "the process uses {percent} % of its {what}: requests of priority {refused} are refused"
        );
    } else {
        tracing::info!(
            "the process uses {percent} % of its {what}: only requests of priority {refused} are still refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn cpu_time_is_averaged_and_a_short_burst_is_not_seen() {
        let start = Instant::now();
        let mut load = Load::default();
        let mut share = |after: Duration, used: Duration| {
            let cpu = Cpu { used, quota: 2.0 };
            load.share(Some(cpu), start + after)
        };
        assert_eq!(share(Duration::ZERO, SECOND), None, "nothing to compare");
        let burst = share(PERIOD, SECOND + PERIOD * 2).expect("a share");
        assert!((0.1..0.2).contains(&burst), "{burst}");
        let mut last = burst;
        for step in 2..40 {
            let after = PERIOD * step;
            last = share(after, SECOND + after * 2).expect("a share");
        }
        assert!((0.97..=1.0).contains(&last), "{last}");
        assert_eq!(load.share(None, start), None);
    }

    #[test]
    fn worse_is_told_at_once_and_better_after_a_while() {
        let start = Instant::now();
        let mut told = Told {
            level: Level::Calm,
            at: start,
        };
        let mut check = |seconds: u32, level: Level, before: Option<Level>| {
            let news = told.is_news(level, start + SECOND * seconds);
            assert_eq!(news, before, "{level:?} after {seconds} s");
        };
        check(1, Level::Calm, None);
        check(2, Level::Low, Some(Level::Calm));
        check(3, Level::Calm, None);
        check(4, Level::Low, None);
        check(5, Level::High, Some(Level::Low));
        check(6, Level::Low, None);
        check(15, Level::Low, Some(Level::High));
        check(20, Level::Calm, None);
        check(25, Level::Calm, Some(Level::Low));
    }
}
