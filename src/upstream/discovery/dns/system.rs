//! How this machine resolves names: `/etc/hosts`, `/etc/resolv.conf`, search domains.
//!
//! Both files are read anew when they changed. A missing `resolv.conf` is no end: names of
//! `/etc/hosts` still have their addresses, and all others fail with the reason.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};

use crate::upstream::discovery::unreadable;

/// Where the system says how names are resolved.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Name servers and search domains.
    pub(super) resolv_conf: PathBuf,
    /// Names with their addresses.
    pub(super) hosts: PathBuf,
}

/// What the files said when they were read last.
pub(super) struct System {
    /// Asks the servers; has no cache, so that the time to live is ours to keep.
    pub(super) resolver: TokioResolver,
    /// Why the servers are not known.
    pub(super) unread: Option<String>,
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
    stamps: [Stamp; 2],
}

/// Tells one content of a file from the next.
type Stamp = Option<(SystemTime, u64)>;

impl Places {
    /// Those of this machine.
    pub(super) fn system() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }

    fn stamps(&self) -> [Stamp; 2] {
        let stamp = |path: &Path| {
            let about = fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        [stamp(&self.resolv_conf), stamp(&self.hosts)]
    }
}

impl System {
    /// Reads both files; `server` takes the place of the servers named there.
    ///
    /// # Errors
    /// A sentence, if no resolver can be made of what they say.
    pub(super) fn read(
        places: &Places,
        server: Option<SocketAddr>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let stamps = places.stamps();
        let (mut config, mut options, unread) = match servers(&places.resolv_conf) {
            Ok((config, options)) => (config, options, None),
            Err(reason) => {
                let none = ResolverConfig::from_name_servers(Vec::new());
                (none, ResolverOpts::default(), Some(reason))
            }
        };
        let search = match (config.search(), config.domain()) {
            ([], Some(domain)) => vec![domain.clone()],
            (search, _) => search.to_vec(),
        };
        let unread = match server {
            Some(server) => {
                config = ResolverConfig::from_name_servers(vec![at(server)]);
                None
            }
            None => unread,
        };
        let ndots = options.ndots;
        options.timeout = timeout;
        // A lost packet is sent again within one try already.
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder
            .build()
            .map_err(|error| format!("no resolver can be made: {error}"))?;
        Ok(Self {
            resolver,
            unread,
            hosts: hosts(&places.hosts),
            search,
            ndots,
            stamps,
        })
    }

    /// False once one of the files has changed.
    pub(super) fn is_current(&self, places: &Places) -> bool {
        self.stamps == places.stamps()
    }

    /// The full names that a name may stand for, in the order in which they are tried.
    pub(super) fn names(&self, name: &Name) -> Vec<Name> {
        if name.is_fqdn() {
            return vec![name.clone()];
        }
        let mut as_it_is = name.clone();
        as_it_is.set_fqdn(true);
        let search = self.search.iter();
        // One that grows too long with its domain cannot exist.
        let mut names: Vec<Name> = search
            .filter_map(|domain| name.clone().append_domain(domain).ok())
            .collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        if dots >= self.ndots || name.is_localhost() {
            names.insert(0, as_it_is);
        } else {
            names.push(as_it_is);
        }
        names
    }

    /// The addresses that the hosts file gives to a name.
    pub(super) fn hosts(&self, name: &Name, kind: RecordType) -> Vec<IpAddr> {
        let query = Query::query(name.clone(), kind);
        let Some(lookup) = self.hosts.lookup_static_host(&query) else {
            return Vec::new();
        };
        let addresses = lookup.answers().iter();
        addresses
            .filter_map(|record| record.data.ip_addr())
            .collect()
    }
}

fn servers(path: &Path) -> Result<(ResolverConfig, ResolverOpts), String> {
    let text = fs::read(path).map_err(|error| unreadable(path, &error))?;
    parse_resolv_conf(text).map_err(|error| {
        let reason = match &error {
            NetError::Io(reason) => reason.to_string(),
            other => other.to_string(),
        };
        format!("`{}` is of no use: {reason}", path.display())
    })
}

/// Without such a file, no name has an address there.
fn hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = File::open(path).and_then(|file| hosts.read_hosts_conf(file));
    if let Err(error) = read {
        tracing::debug!(path = %path.display(), %error, "the hosts file is not used");
    }
    hosts
}

fn at(server: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![
        on_port(ConnectionConfig::udp()),
        // For answers that do not fit into a packet.
        on_port(ConnectionConfig::tcp()),
    ];
    NameServerConfig::new(server.ip(), true, connections)
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System")
            .field("search", &self.search)
            .field("ndots", &self.ndots)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(resolv_conf: Option<&str>, hosts: &str) -> System {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places {
            resolv_conf: folder.path().join("resolv.conf"),
            hosts: folder.path().join("hosts"),
        };
        if let Some(text) = resolv_conf {
            fs::write(&places.resolv_conf, text).expect("written");
        }
        fs::write(&places.hosts, hosts).expect("written");
        System::read(&places, None, Duration::from_secs(1)).expect("readable")
    }

    #[test]
    fn names_are_tried_as_the_system_tries_them() {
        let kubernetes = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                          nameserver 10.96.0.10\noptions ndots:5\n";
        let check = |resolv_conf: &str, name: &str, expected: &[&str]| {
            let name = Name::from_ascii(name).expect("a name");
            let names = system(Some(resolv_conf), "").names(&name);
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(names, expected, "{name}");
        };
        check(
            kubernetes,
            "users.default.svc",
            &[
                "users.default.svc.default.svc.cluster.local.",
                "users.default.svc.svc.cluster.local.",
                "users.default.svc.cluster.local.",
                "users.default.svc.",
            ],
        );
        check(kubernetes, "users.example.com.", &["users.example.com."]);
        let plain = "search example.com\nnameserver 10.0.0.1\n";
        check(plain, "users", &["users.example.com.", "users."]);
        check(plain, "a.b", &["a.b.", "a.b.example.com."]);
        check(
            plain,
            "localhost",
            &["localhost.", "localhost.example.com."],
        );
        let domain = "domain corp.example\nnameserver 10.0.0.1\n";
        check(domain, "users", &["users.corp.example.", "users."]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_hosts_still_count() {
        let check = |resolv_conf: Option<&str>, reason: &str| {
            let system = system(resolv_conf, "10.0.0.7 users\n::7 users\n");
            let unread = system.unread.as_deref().expect("a reason");
            assert!(unread.contains(reason), "{unread}");
            let name = Name::from_ascii("users").expect("a name");
            let expected: Vec<IpAddr> = vec!["10.0.0.7".parse().expect("valid")];
            assert_eq!(system.hosts(&name, RecordType::A), expected);
            assert_eq!(system.hosts(&name, RecordType::AAAA).len(), 1);
        };
        check(None, "there is no such file");
        check(Some("options ndots:2\n"), "no nameservers found");
    }

    #[test]
    fn a_change_of_a_file_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places {
            resolv_conf: folder.path().join("resolv.conf"),
            hosts: folder.path().join("hosts"),
        };
        let server = Some("127.0.0.1:53".parse().expect("valid"));
        let system = System::read(&places, server, Duration::from_secs(1)).expect("readable");
        assert_eq!(system.unread, None, "the server is known all the same");
        assert!(system.is_current(&places));
        fs::write(&places.hosts, "10.0.0.7 users\n").expect("written");
        assert!(!system.is_current(&places));
    }
}
