//! What this process may use of memory and CPU, as its cgroup says, and what it uses.
//!
//! Knows both versions of cgroups (<https://docs.kernel.org/admin-guide/cgroup-v1/>,
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>), and machines that have both at once. A
//! limit may be the process's own group's or that of a group around it: the nearest one counts.
//! Whatever is missing or cannot be read means that there is no limit.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Where this process's limits and uses are written.
#[derive(Debug, Default)]
pub struct Cgroup {
    version: Version,
    /// Its own group and those around it, the nearest first.
    memory: Vec<PathBuf>,
    /// The same, for CPU time; in version 1 with the groups where its use is written.
    cpu: Vec<(PathBuf, PathBuf)>,
}

/// Which version says it, for either resource: machines may have one in each.
#[derive(Debug, Clone, Copy, Default)]
struct Version {
    memory: Kind,
    cpu: Kind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    One,
    #[default]
    Two,
}

/// Memory of a group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// In use, without what the kernel takes back before it ends anything: pages of files that
    /// nobody has used for long.
    pub used: u64,
    /// At which the kernel ends processes.
    pub limit: u64,
}

/// CPU time of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// Used since the group was made.
    pub used: Duration,
    /// How many CPUs it may use at once.
    pub quota: f64,
}

/// Where groups stand in the file tree.
const MOUNT: &str = "sys/fs/cgroup";

/// Version 1 writes a number of pages near 2^63 where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

impl Cgroup {
    /// Finds this process's groups; `root` is `/` but for tests.
    pub fn find(root: &Path) -> Self {
        let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mount = root.join(MOUNT);
        let line = |controller: &str| text.lines().find_map(|line| one(line, controller));
        let mut found = Self::default();
        let unified = || {
            let path = text.lines().find_map(|line| line.strip_prefix("0::"));
            // Beside version 1, version 2 has a place of its own.
            let places = [mount.join("unified"), mount.clone()];
            let mount = places.into_iter().find(|place| place.is_dir());
            path.zip(mount)
        };
        if let Some((controllers, path)) = line("memory") {
            found.version.memory = Kind::One;
            found.memory = groups(&place(&mount, controllers, "memory"), path);
        } else if let Some((path, mount)) = unified() {
            found.memory = groups(&mount, path);
        }
        if let Some((controllers, path)) = line("cpu") {
            found.version.cpu = Kind::One;
            let quotas = groups(&place(&mount, controllers, "cpu"), path);
            let used = line("cpuacct").unwrap_or((controllers, path));
            let used = groups(&place(&mount, used.0, "cpuacct"), used.1);
            // From the outermost group inwards, both have the same depth or none.
            found.cpu = quotas
                .into_iter()
                .rev()
                .zip(used.into_iter().rev())
                .collect();
            found.cpu.reverse();
        } else if let Some((path, mount)) = unified() {
            let groups = groups(&mount, path).into_iter();
            found.cpu = groups.map(|group| (group.clone(), group)).collect();
        }
        found
    }

    /// Memory of the nearest group with a limit; none without one.
    pub fn memory(&self) -> Option<Memory> {
        let (limit, used, reclaimable) = match self.version.memory {
            Kind::One => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            Kind::Two => ("memory.max", "memory.current", "inactive_file"),
        };
        let mut groups = self.memory.iter();
        let (group, limit) = groups.find_map(|group| {
            let limit: u64 = read(group, limit)?.parse().ok()?;
            (1..NO_LIMIT).contains(&limit).then_some((group, limit))
        })?;
        let used: u64 = read(group, used)?.parse().ok()?;
        let reclaimable = field(group, "memory.stat", reclaimable).unwrap_or_default();
        Some(Memory {
            used: used.saturating_sub(reclaimable),
            limit,
        })
    }

    /// CPU time of the nearest group with a quota; none without one.
    pub fn cpu(&self) -> Option<Cpu> {
        self.cpu.iter().find_map(|(quotas, used)| {
            Some(match self.version.cpu {
                Kind::One => Cpu {
                    quota: cpus(
                        &read(quotas, "cpu.cfs_quota_us")?,
                        &read(quotas, "cpu.cfs_period_us")?,
                    )?,
                    used: Duration::from_nanos(read(used, "cpuacct.usage")?.parse().ok()?),
                },
                Kind::Two => {
                    let text = read(quotas, "cpu.max")?;
                    let (quota, period) = text.split_once(' ')?;
                    Cpu {
                        quota: cpus(quota, period)?,
                        used: Duration::from_micros(field(used, "cpu.stat", "usage_usec")?),
                    }
                }
            })
        })
    }
}

/// Controllers and path of a line of version 1, if it is about that controller.
fn one<'a>(line: &'a str, controller: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let mut all = controllers.split(',');
    all.any(|one| one == controller)
        .then_some((controllers, path))
}

/// Where a hierarchy of version 1 stands: under the names of all its controllers, or of one.
fn place(mount: &Path, controllers: &str, controller: &str) -> PathBuf {
    let all = mount.join(controllers);
    if all.is_dir() {
        all
    } else {
        mount.join(controller)
    }
}

/// The group at a path and those around it, the nearest first.
///
/// Within a container the path may be that of the machine, which the container does not see: then
/// what stands at the top of its own tree is its group.
fn groups(mount: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let is_below = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let path = if is_below { path } else { Path::new("") };
    let groups = path.ancestors().map(|path| mount.join(path));
    groups.filter(|group| group.is_dir()).collect()
}

/// A file of one word or line.
fn read(group: &Path, file: &str) -> Option<String> {
    let mut text = fs::read_to_string(group.join(file)).ok()?;
    text.truncate(text.trim_end().len());
    Some(text)
}

/// A number of a file of names and numbers.
fn field(group: &Path, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join(file)).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

/// Time in each period, as a number of CPUs; none where it is `max` or -1.
fn cpus(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file tree with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        dir
    }

    fn check(files: &[(&str, &str)], memory: Option<(u64, u64)>, cpu: Option<(u64, f64)>) {
        let dir = tree(files);
        let cgroup = Cgroup::find(dir.path());
        let memory = memory.map(|(used, limit)| Memory { used, limit });
        let cpu = cpu.map(|(used, quota)| Cpu {
            used: Duration::from_micros(used),
            quota,
        });
        assert_eq!(cgroup.memory(), memory, "{files:?}");
        assert_eq!(cgroup.cpu(), cpu, "{files:?}");
    }

    #[test]
    fn version_2_in_a_container() {
        check(
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/memory.max", "1000\n"),
                ("sys/fs/cgroup/memory.current", "700\n"),
                (
                    "sys/fs/cgroup/memory.stat",
                    "anon 500\nactive_file 80\ninactive_file 120\n",
                ),
                ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
                (
                    "sys/fs/cgroup/cpu.stat",
                    "usage_usec 5000\nuser_usec 4000\n",
                ),
            ],
            Some((580, 1000)),
            Some((5000, 1.5)),
        );
    }

    #[test]
    fn version_2_without_limits_or_with_those_of_a_group_around() {
        let own = [
            ("proc/self/cgroup", "0::/pod/me\n"),
            ("sys/fs/cgroup/pod/me/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/me/memory.current", "700\n"),
            ("sys/fs/cgroup/pod/me/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pod/me/cpu.stat", "usage_usec 5000\n"),
        ];
        check(&own, None, None);
        let around = [
            ("sys/fs/cgroup/pod/memory.max", "4000\n"),
            ("sys/fs/cgroup/pod/memory.current", "3000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/pod/cpu.stat", "usage_usec 9000\n"),
        ];
        check(
            &[own.as_slice(), &around].concat(),
            Some((3000, 4000)),
            Some((9000, 0.5)),
        );
    }

    #[test]
    fn version_1_beside_an_empty_version_2() {
        let files = [
            (
                "proc/self/cgroup",
                "9:name=systemd:/\n4:memory:/slice/me\n2:cpu,cpuacct:/me\n0::/\n",
            ),
            ("sys/fs/cgroup/unified/cgroup.procs", ""),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "sys/fs/cgroup/memory/slice/me/memory.limit_in_bytes",
                "1000\n",
            ),
            (
                "sys/fs/cgroup/memory/slice/me/memory.usage_in_bytes",
                "900\n",
            ),
            (
                "sys/fs/cgroup/memory/slice/me/memory.stat",
                "inactive_file 1\ntotal_inactive_file 300\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/me/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/me/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/me/cpuacct.usage", "7000000\n"),
        ];
        check(&files, Some((600, 1000)), Some((7000, 2.0)));
    }

    #[test]
    fn version_1_with_cpu_and_its_accounts_apart_or_without_a_quota() {
        let apart = |quota: &'static str| {
            [
                ("proc/self/cgroup", "2:cpuacct:/\n1:cpu:/\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
                ("sys/fs/cgroup/cpuacct/cpuacct.usage", "1000"),
            ]
        };
        check(&apart("100000"), None, Some((1, 1.0)));
        check(&apart("-1"), None, None);
    }

    #[test]
    fn a_container_that_sees_only_its_own_tree_is_found_at_its_top() {
        let files = [
            (
                "proc/self/cgroup",
                "4:memory:/kubepods/pod1/abc\n0::/../../x\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 1\n"),
        ];
        check(&files, Some((100, 1000)), Some((1, 1.0)));
    }

    #[test]
    fn what_is_missing_or_nonsense_is_no_limit() {
        check(&[], None, None);
        check(&[("proc/self/cgroup", "nonsense\n::\n0::/\n")], None, None);
        check(
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/memory.max", "much\n"),
                ("sys/fs/cgroup/cpu.max", "1\n"),
            ],
            None,
            None,
        );
    }

    #[test]
    fn this_machine_is_read_without_a_fuss() {
        let cgroup = Cgroup::find(Path::new("/"));
        if let Some(memory) = cgroup.memory() {
            assert!(memory.used > 0 && memory.limit > 0, "{memory:?}");
        }
        if let Some(cpu) = cgroup.cpu() {
            assert!(cpu.quota > 0.0, "{cpu:?}");
        }
    }
}
