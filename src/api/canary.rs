//! Where a request has a change go first. Pure.

use std::time::Duration;

use mapsmith_core::desired::rollout::{CanaryInstances, Terms};

use super::requests::Invalid;
use super::types::CanaryRequest;

/// How long a canary bakes unless it says otherwise, at least, and at most.
const USUAL_BAKE: Duration = Duration::from_secs(5 * 60);
const SHORTEST_BAKE: Duration = Duration::from_secs(1);
const LONGEST_BAKE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a change goes first, and for how long.
pub fn terms(request: CanaryRequest) -> Result<Terms, Invalid> {
    let CanaryRequest { instances, share, bake, then } = request;
    let percent = |text: &str| {
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        number.filter(|number| *number > 0.0 && *number <= 100.0)
    };
    let instances = match (instances, share) {
        (Some(names), None) if !names.is_empty() => CanaryInstances::Named(names),
        (None, Some(share)) => {
            let help = || Invalid(format!("canary.share: {share:?} is not a share like 10%"));
            CanaryInstances::Share(percent(&share).ok_or_else(help)?)
        }
        _ => {
            let help = "canary: name its `instances`, or a `share` of them like 10%";
            return Err(Invalid(help.to_owned()));
        }
    };
    let bake = match bake.as_deref().map(humantime::parse_duration) {
        None => USUAL_BAKE,
        Some(Ok(bake)) if (SHORTEST_BAKE..=LONGEST_BAKE).contains(&bake) => bake,
        Some(_) => {
            let help = "canary.bake must be a duration from 1s to a day, like 5m";
            return Err(Invalid(help.to_owned()));
        }
    };
    Ok(Terms { instances, bake, then })
}

#[cfg(test)]
mod tests {
    use mapsmith_core::desired::rollout::Then;

    use super::*;

    #[test]
    fn a_canary_is_of_named_instances_or_a_share_and_bakes_for_a_day_at_most() {
        let asked = |text: &str| terms(serde_json::from_str(text).unwrap());
        let terms = asked(r#"{"share": "2.5%"}"#).unwrap();
        assert_eq!(terms.instances, CanaryInstances::Share(2.5));
        assert_eq!((terms.bake, terms.then), (USUAL_BAKE, Then::Auto));
        let named = asked(r#"{"instances": ["e1"], "bake": "1d", "then": "wait"}"#).unwrap();
        assert_eq!((named.bake, named.then), (LONGEST_BAKE, Then::Wait));
        for (text, part) in [
            ("{}", "name its `instances`"),
            (r#"{"instances": []}"#, "name its `instances`"),
            (r#"{"instances": ["e1"], "share": "1%"}"#, "name its `instances`"),
            (r#"{"share": "0%"}"#, "a share like 10%"),
            (r#"{"share": "101%"}"#, "a share like 10%"),
            (r#"{"share": "NaN%"}"#, "a share like 10%"),
            (r#"{"share": "5"}"#, "a share like 10%"),
            (r#"{"share": "5%", "bake": "25h"}"#, "from 1s to a day"),
            (r#"{"share": "5%", "bake": "10ms"}"#, "from 1s to a day"),
        ] {
            let error = asked(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
