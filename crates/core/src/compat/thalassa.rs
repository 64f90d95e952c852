//! Thalassa's HTTP API: registrations by name and version, which are members here.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::aqueduct::Refusal;
use crate::members::{InvalidMember, Member, MemberKey, TTL};

/// What the registry calls itself among what is registered.
pub const ITSELF: &str = "thalassa";
/// How long a member may be silent that says nothing of that.
const USUAL_TTL: Duration = Duration::from_secs(10);

/// The member that a path names.
///
/// # Errors
/// It can be none.
pub fn key(name: &str, version: &str, host: &str, port: &str) -> Result<MemberKey, Refusal> {
    MemberKey::new(name, version, host, port).map_err(|error| refusal(&error))
}

/// The member that a path and a body say.
///
/// # Errors
/// It can be none.
pub fn member(key: MemberKey, payload: Value, by: &str, now: Timestamp) -> Result<Member, Refusal> {
    let mut meta = match payload {
        Value::Null => serde_json::Map::new(),
        Value::Object(meta) => meta,
        _ => return Err(Refusal::payload("value", "value must be an object")),
    };
    meta.entry("hostname").or_insert_with(|| key.host.clone().into());
    let ttl = match meta.get("secondsToExpire") {
        Some(Value::Number(seconds)) => seconds.as_f64(),
        Some(Value::String(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    let (shortest, longest) = (TTL.start().as_secs_f64(), TTL.end().as_secs_f64());
    let ttl = ttl.filter(|seconds| *seconds > 0.0 && seconds.is_finite());
    let ttl = ttl.map(|seconds| Duration::from_secs_f64(seconds.clamp(shortest, longest)));
    let (ttl, by) = (Some(ttl.unwrap_or(USUAL_TTL)), Some(by.to_owned()));
    let member = Member { key, meta, ttl, since: now, by };
    member.check().map_err(|error| refusal(&error))?;
    Ok(member)
}

fn refusal(error: &InvalidMember) -> Refusal {
    Refusal { message: error.to_string(), validation: None }
}

/// A member, as it is listed; `last_known` is when it was heard of last, in milliseconds.
pub fn shown(member: &Member, last_known: i64) -> Value {
    let MemberKey { name, version, host, port } = &member.key;
    json!({
        "id": format!("/{}", member.key),
        "name": name,
        "version": version,
        "host": host,
        "port": port,
        "meta": member.meta,
        "lastKnown": last_known,
    })
}

/// The registry itself, at this address.
pub fn itself(version: &str, host: &str, port: u16, now: i64) -> Value {
    json!({
        "id": format!("/{ITSELF}/{version}/{host}/{port}"),
        "name": ITSELF,
        "version": version,
        "host": host,
        "port": port,
        "meta": {"hostname": host},
        "lastKnown": now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_a_member_for_as_long_as_it_says() {
        let member = |payload: Value| {
            let key = key("foo", "1.0.0", "127.0.0.1", "8080").unwrap();
            member(key, payload, "compat.thalassa", Timestamp::UNIX_EPOCH)
        };
        let plain = member(Value::Null).unwrap();
        assert_eq!(
            shown(&plain, 7),
            json!({"id": "/foo/1.0.0/127.0.0.1/8080", "name": "foo", "version": "1.0.0",
                "host": "127.0.0.1", "port": 8080, "meta": {"hostname": "127.0.0.1"},
                "lastKnown": 7})
        );
        for (seconds, expected) in [
            (Value::Null, 10),
            (json!(5), 5),
            (json!("60"), 60),
            (json!(0), 10),
            (json!(-1), 10),
            (json!("soon"), 10),
            (json!(0.1), 1),
            (json!(1e300), 86_400),
        ] {
            let meta = json!({"secondsToExpire": seconds, "hostname": "h"});
            let member = member(meta.clone()).unwrap();
            assert_eq!(member.ttl, Some(Duration::from_secs(expected)), "{seconds}");
            assert_eq!(Value::Object(member.meta), meta);
        }
        assert!(member(json!([1])).is_err());
        assert!(member(json!({"a": "x".repeat(9000)})).is_err());
        for port in ["abc", "80x", "0", ""] {
            assert!(key("foo", "1.0.0", "h", port).unwrap_err().message.contains("port"));
        }
    }
}
