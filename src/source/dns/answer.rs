//! What a name server's message says of a name. Pure.

use std::fmt;
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

/// The most names that may stand for one another (CNAME) in a message.
const MOST_ALIASES: usize = 16;

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The records that were asked for, and the smallest TTL on the way to them, in seconds.
    Records { records: Vec<RData>, ttl: u32 },
    /// There are none, and for how many seconds that is so, if the server says it.
    Absent { absence: Absence, ttl: Option<u32> },
    /// The name stands for another one (CNAME), of which the message says nothing.
    Alias { name: Name, ttl: u32 },
}

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// The name does not exist.
    NxDomain,
    /// The name has no such record.
    NoData,
}

/// A name server that did not say what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    ServFail,
    /// Another code of failure.
    Refused(ResponseCode),
    NoAnswer(Duration),
    Unreachable(String),
    /// A message that says nothing of what was asked, or can't be read.
    Malformed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServFail => out.write_str("could not resolve it (SERVFAIL)"),
            Self::Refused(code) => write!(
                out,
                "refused ({}); is it a name server for this name, and for this client?",
                format!("{code:?}").to_uppercase()
            ),
            Self::NoAnswer(bound) => write!(out, "gave no answer within {bound:?}"),
            Self::Unreachable(cause) => write!(out, "can't be reached: {cause}"),
            Self::Malformed(cause) => write!(out, "answered something else: {cause}"),
        }
    }
}

/// What a message says of a name's records of this type, aliases followed.
pub(super) fn read(name: &Name, kind: RecordType, message: &Message) -> Result<Answer, Failure> {
    let (mut name, mut ttl, mut is_alias) = (name.clone(), u32::MAX, false);
    for _ in 0..MOST_ALIASES {
        let own = || message.answers.iter().filter(|record| record.name == name);
        let wanted = own().filter(|record| record.data.record_type() == kind);
        if let Some(smallest) = wanted.clone().map(|record| record.ttl).min() {
            let records = wanted.map(|record| record.data.clone()).collect();
            return Ok(Answer::Records { records, ttl: ttl.min(smallest) });
        }
        let alias = own().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, smallest)) = alias else { return absent(message, is_alias, name, ttl) };
        (name, ttl, is_alias) = (target, ttl.min(smallest), true);
    }
    Err(Failure::Malformed("its aliases (CNAME) lead nowhere".to_owned()))
}

/// Of a message that has no record of the name that was asked for, or that one is an alias of.
fn absent(message: &Message, is_alias: bool, name: Name, ttl: u32) -> Result<Answer, Failure> {
    let soa = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    match message.response_code {
        ResponseCode::NXDomain => Ok(Answer::Absent { absence: Absence::NxDomain, ttl: soa }),
        ResponseCode::NoError if is_alias && soa.is_none() => Ok(Answer::Alias { name, ttl }),
        ResponseCode::NoError if is_alias || message.answers.is_empty() => {
            Ok(Answer::Absent { absence: Absence::NoData, ttl: soa })
        }
        ResponseCode::NoError => Err(Failure::Malformed("other records".to_owned())),
        code => Err(Failure::Refused(code)),
    }
}

/// What the client's error means: it makes one of messages without a record.
pub(super) fn of_error(error: NetError, bound: Duration) -> Result<Answer, Failure> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => without_records(&none),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => Err(Failure::ServFail),
        NetError::Dns(DnsError::ResponseCode(code)) => Err(Failure::Refused(code)),
        NetError::Timeout => Err(Failure::NoAnswer(bound)),
        NetError::Io(error) => Err(Failure::Unreachable(error.to_string())),
        NetError::Busy | NetError::NoConnections => {
            Err(Failure::Unreachable("no connection".to_owned()))
        }
        other => Err(Failure::Malformed(other.to_string())),
    }
}

fn without_records(none: &NoRecords) -> Result<Answer, Failure> {
    let ttl = none.negative_ttl;
    match none.response_code {
        ResponseCode::NXDomain => Ok(Answer::Absent { absence: Absence::NxDomain, ttl }),
        ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => {
            Err(Failure::Malformed(
                "it names other name servers (a referral): it resolves nothing for its clients"
                    .to_owned(),
            ))
        }
        ResponseCode::NoError => Ok(Answer::Absent { absence: Absence::NoData, ttl }),
        ResponseCode::ServFail => Err(Failure::ServFail),
        code => Err(Failure::Refused(code)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::op::{MessageType, OpCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(10, 0, 0, last))))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn message(code: ResponseCode, answers: Vec<Record>, soa: bool) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.answers = answers;
        if soa {
            let soa = SOA::new(name("ns.test."), name("root.test."), 1, 60, 60, 60, 7);
            message.authorities = vec![Record::from_rdata(name("test."), 60, RData::SOA(soa))];
        }
        message
    }

    #[test]
    fn records_absence_and_aliases_are_told_apart() {
        let ok = ResponseCode::NoError;
        let found = |ttl, last: &[u8]| {
            let records = last.iter().map(|last| a("x.", 0, *last).data).collect();
            Ok(Answer::Records { records, ttl })
        };
        let absent = |absence, ttl| Ok(Answer::Absent { absence, ttl });
        for (message, expected) in [
            (message(ok, vec![a("A.test.", 9, 1), a("a.test.", 4, 2)], false), found(4, &[1, 2])),
            (
                message(ok, vec![alias("a.test.", 3, "b.test."), a("b.test.", 9, 1)], false),
                found(3, &[1]),
            ),
            (message(ok, vec![], true), absent(Absence::NoData, Some(7))),
            (message(ok, vec![], false), absent(Absence::NoData, None)),
            (
                message(ok, vec![alias("a.test.", 3, "b.test.")], true),
                absent(Absence::NoData, Some(7)),
            ),
            (
                message(ResponseCode::NXDomain, vec![alias("a.test.", 3, "b.test.")], true),
                absent(Absence::NxDomain, Some(7)),
            ),
            (
                message(ok, vec![alias("a.test.", 3, "b.other.")], false),
                Ok(Answer::Alias { name: name("b.other."), ttl: 3 }),
            ),
        ] {
            assert_eq!(read(&name("a.test."), RecordType::A, &message), expected, "{message}");
        }
        for message in [
            message(ok, vec![a("b.test.", 9, 1)], false),
            message(
                ok,
                vec![alias("a.test.", 1, "b.test."), alias("b.test.", 1, "a.test.")],
                false,
            ),
        ] {
            let failure = read(&name("a.test."), RecordType::A, &message).unwrap_err();
            assert!(matches!(failure, Failure::Malformed(_)), "{failure:?}");
        }
    }
}
