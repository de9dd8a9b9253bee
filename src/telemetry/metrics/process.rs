//! What the kernel says about this process, under the names that every Prometheus client uses.
//!
//! Read from `/proc` at each scrape; what cannot be read is left out.

use std::fs;
use std::str::FromStr;

use super::catalogue::Metric;
use super::exposition::Exposition;

/// `USER_HZ`: a promise of the kernel to programs, 100 on every architecture that we build for.
const TICKS_A_SECOND: f64 = 100.0;

pub(super) fn collect(out: &mut Exposition<'_>) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat")
        && let Some(times) = Times::of(&stat)
    {
        out.float(Metric::ProcessCpu, &[], times.cpu_seconds);
        if let Ok(system) = fs::read_to_string("/proc/stat")
            && let Some(boot) = number_after::<f64>(&system, "btime ")
        {
            out.float(Metric::ProcessStart, &[], boot + times.started_after_boot);
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (metric, key, unit) in [
            (Metric::ProcessResident, "VmRSS:", 1024),
            (Metric::ProcessVirtual, "VmSize:", 1024),
            (Metric::ProcessThreads, "Threads:", 1),
        ] {
            if let Some(number) = number_after::<u64>(&status, key) {
                out.number(metric, &[], number * unit);
            }
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = entries.count().saturating_sub(1);
        out.number(Metric::ProcessOpenFds, &[], open as u64);
    }
    if let Ok(limits) = fs::read_to_string("/proc/self/limits")
        && let Some(most) = number_after(&limits, "Max open files")
    {
        out.number(Metric::ProcessMaxFds, &[], most);
    }
}

struct Times {
    cpu_seconds: f64,
    started_after_boot: f64,
}

impl Times {
    /// Reads `/proc/[pid]/stat` (proc(5)): after the name in brackets comes field 3.
    fn of(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_A_SECOND,
            started_after_boot: ticks(22)? / TICKS_A_SECOND,
        })
    }
}

/// The number that follows a key at the beginning of a line.
fn number_after<T: FromStr>(text: &str, key: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1000 9 9";
        let times = Times::of(stat).expect("reads");
        assert!((times.cpu_seconds - 2.0).abs() < 1e-9);
        assert!((times.started_after_boot - 10.0).abs() < 1e-9);
        assert!(Times::of("").is_none());
    }

    #[test]
    fn numbers_are_found_by_their_key() {
        let text = "VmSize:\t  10 kB\nThreads:\t3\nMax open files  1024  4096 files\n";
        assert_eq!(number_after(text, "VmSize:"), Some(10_u64));
        assert_eq!(number_after(text, "Threads:"), Some(3_u64));
        assert_eq!(number_after(text, "Max open files"), Some(1024_u64));
        assert_eq!(number_after::<u64>(text, "VmRSS:"), None);
        assert_eq!(
            number_after::<u64>("Max open files unlimited", "Max open files"),
            None
        );
    }
}
