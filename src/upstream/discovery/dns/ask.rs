//! One question to a name server, and what became of it.
//!
//! That something does not exist is an answer; that a server is silent or broken is none. The two are
//! kept apart, so that half an answer (IPv4 addresses came, IPv6 ones did not) is never taken for
//! a whole one.

use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::records::{addresses, least_ttl};
use super::settings::{Family, Settings};
use super::system::System;

/// What a look-up asks with.
pub(super) struct Asker<'a> {
    /// Who is asked.
    pub(super) system: &'a System,
    /// What is wanted.
    pub(super) settings: &'a Settings,
    /// How many questions were asked.
    pub(super) asked: &'a Cell<u32>,
}

/// The addresses of a name, and for how long they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) list: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// Why there is no answer of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Miss {
    /// NXDOMAIN: there is no such name.
    NoName,
    /// The name is there, and has no such record.
    NoRecord,
    /// A server said that it cannot tell.
    Refused(String),
    /// No server answered, and none will for the next name either.
    Silent(String),
}

impl Miss {
    /// True if a server has said that it does not exist.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::NoName | Self::NoRecord)
    }

    /// The sentence for operators.
    pub(super) fn about(self, name: &str, record: impl fmt::Display) -> String {
        match self {
            Self::NoName => format!("the name `{name}` does not exist (NXDOMAIN)"),
            Self::NoRecord => format!("the name `{name}` has no {record} record (empty answer)"),
            Self::Refused(reason) | Self::Silent(reason) => reason,
        }
    }
}

impl Asker<'_> {
    /// The records of one kind that a full name has: at least one.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Result<Lookup, Miss> {
        self.asked.set(self.asked.get().saturating_add(1));
        let timeout = self.settings.timeout;
        let asking = self.system.resolver.lookup(name.clone(), kind);
        let answer = match tokio::time::timeout(timeout, asking).await {
            Ok(answer) => answer.map_err(|error| self.miss(name, &error))?,
            Err(_) => return Err(self.silence()),
        };
        let is_there = answer
            .answers()
            .iter()
            .any(|record| record.record_type() == kind);
        is_there.then_some(answer).ok_or(Miss::NoRecord)
    }

    /// The addresses of a full name, of the family that is wanted.
    pub(super) async fn addresses(&self, name: &Name) -> Result<Addresses, Miss> {
        match self.settings.family {
            Family::Ipv4 => self.of_kind(name, RecordType::A).await,
            Family::Ipv6 => self.of_kind(name, RecordType::AAAA).await,
            Family::PreferIpv4 => match self.of_kind(name, RecordType::A).await {
                Err(Miss::NoRecord) => self.of_kind(name, RecordType::AAAA).await,
                other => other,
            },
            Family::Both => {
                let v4 = self.of_kind(name, RecordType::A);
                let v6 = self.of_kind(name, RecordType::AAAA);
                let (v4, v6) = future::join(v4, v6).await;
                both(v4, v6)
            }
        }
    }

    /// The addresses that the hosts file gives to a name, of the family that is wanted.
    pub(super) fn hosts(&self, name: &Name) -> Option<Addresses> {
        let mut name = name.clone();
        name.set_fqdn(true);
        let of_kind = |kind| self.system.hosts(&name, kind);
        let list = self.settings.family.choose(of_kind);
        (!list.is_empty()).then_some(Addresses {
            list,
            ttl: Duration::MAX,
        })
    }

    async fn of_kind(&self, name: &Name, kind: RecordType) -> Result<Addresses, Miss> {
        let answer = self.records(name, kind).await?;
        Ok(Addresses {
            list: addresses(answer.answers(), kind),
            ttl: least_ttl(answer.answers()),
        })
    }

    fn miss(&self, name: &Name, error: &NetError) -> Miss {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Miss::NoName,
                ResponseCode::NoError => Miss::NoRecord,
                code => refused(name, code),
            },
            NetError::Dns(DnsError::ResponseCode(code)) => refused(name, *code),
            NetError::Timeout => self.silence(),
            NetError::NoConnections => Miss::Silent(match &self.system.unread {
                Some(reason) => reason.clone(),
                None => "no name server can be reached".into(),
            }),
            NetError::Io(reason) => {
                Miss::Silent(format!("no name server can be reached: {reason}"))
            }
            other => Miss::Refused(format!("the answer about `{name}` is of no use: {other}")),
        }
    }

    fn silence(&self) -> Miss {
        let timeout = humantime::format_duration(self.settings.timeout);
        Miss::Silent(format!("no name server answered within {timeout}"))
    }
}

fn refused(name: &Name, code: ResponseCode) -> Miss {
    let code = match code {
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        other => other.to_str(),
    };
    Miss::Refused(format!("the name server answered {code} about `{name}`"))
}

/// What two questions about one name come to: a whole answer, or none.
fn both(v4: Result<Addresses, Miss>, v6: Result<Addresses, Miss>) -> Result<Addresses, Miss> {
    match (v4, v6) {
        (Ok(mut all), Ok(more)) => {
            all.list.extend(more.list);
            all.ttl = all.ttl.min(more.ttl);
            Ok(all)
        }
        (Ok(all), Err(miss)) | (Err(miss), Ok(all)) if miss.is_absence() => Ok(all),
        (Ok(_), Err(miss)) | (Err(miss), Ok(_)) => Err(miss),
        (Err(one), Err(other)) => Err(match (one, other) {
            (Miss::NoName | Miss::NoRecord, failure) if !failure.is_absence() => failure,
            (Miss::NoName, Miss::NoRecord) => Miss::NoRecord,
            (one, _) => one,
        }),
    }
}

impl Family {
    /// Of what is at hand, the addresses that are wanted; none means that one has to ask.
    pub(super) fn choose(self, mut of_kind: impl FnMut(RecordType) -> Vec<IpAddr>) -> Vec<IpAddr> {
        match self {
            Self::Ipv4 => of_kind(RecordType::A),
            Self::Ipv6 => of_kind(RecordType::AAAA),
            Self::PreferIpv4 => match of_kind(RecordType::A) {
                none if none.is_empty() => of_kind(RecordType::AAAA),
                some => some,
            },
            Self::Both => {
                let mut all = of_kind(RecordType::A);
                all.extend(of_kind(RecordType::AAAA));
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_taken_only_if_the_other_half_does_not_exist() {
        let some = |address: &str, ttl: u64| {
            Ok(Addresses {
                list: vec![address.parse().expect(address)],
                ttl: Duration::from_secs(ttl),
            })
        };
        let silent = || Miss::Silent("silence".into());
        let count = |v4, v6| both(v4, v6).map(|all| (all.list.len(), all.ttl.as_secs()));
        assert_eq!(count(some("10.0.0.1", 9), some("::1", 3)), Ok((2, 3)));
        assert_eq!(count(some("10.0.0.1", 9), Err(Miss::NoRecord)), Ok((1, 9)));
        assert_eq!(count(Err(Miss::NoRecord), some("::1", 3)), Ok((1, 3)));
        assert_eq!(count(some("10.0.0.1", 9), Err(silent())), Err(silent()));
        assert_eq!(count(Err(silent()), some("::1", 3)), Err(silent()));
        assert_eq!(count(Err(Miss::NoRecord), Err(silent())), Err(silent()));
        assert_eq!(count(Err(silent()), Err(Miss::NoRecord)), Err(silent()));
        let absent = count(Err(Miss::NoName), Err(Miss::NoRecord));
        assert_eq!(absent, Err(Miss::NoRecord));
        assert_eq!(
            count(Err(Miss::NoName), Err(Miss::NoName)),
            Err(Miss::NoName)
        );
    }

    #[test]
    fn a_miss_says_what_it_is() {
        let check = |miss: Miss, sentence: &str| assert_eq!(miss.about("users", "A"), sentence);
        check(Miss::NoName, "the name `users` does not exist (NXDOMAIN)");
        check(
            Miss::NoRecord,
            "the name `users` has no A record (empty answer)",
        );
        let name = Name::from_ascii("users.").expect("a name");
        check(
            refused(&name, ResponseCode::ServFail),
            "the name server answered SERVFAIL about `users.`",
        );
    }
}
