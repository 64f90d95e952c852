//! Who may read HAProxy's metrics (`metrics_acl`).

use super::shown;
use crate::config::Metrics;
use crate::config::values::{BindAddress, Network};

/// The most networks; more than anybody scrapes from.
const MAX_NETWORKS: usize = 1000;

/// Networks between commas and white space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsAcl {
    pub networks: Vec<Network>,
    /// Why others are left out. HAProxy would refuse its whole configuration for one of them.
    pub problems: Vec<String>,
}

impl MetricsAcl {
    pub fn parse(text: &str) -> Self {
        let mut acl = Self::default();
        let between = |character: char| character == ',' || character.is_whitespace();
        for entry in text.split(between).filter(|entry| !entry.is_empty()) {
            if acl.networks.len() + acl.problems.len() == MAX_NETWORKS {
                acl.problems.push(format!(
                    "metrics_acl: only the first {MAX_NETWORKS} entries are read; join networks"
                ));
                break;
            }
            match Network::try_from(entry.to_owned()) {
                Ok(network) => acl.networks.push(network),
                Err(_) => acl.problems.push(format!(
                    "metrics_acl: {} is not an address or a network like 10.0.0.0/8; correct or \
                        remove it",
                    shown(entry)
                )),
            }
        }
        acl
    }

    /// HAProxy's metrics at this address for those networks; none where no network is left, for
    /// then everybody could read them.
    pub fn metrics(&self, bind: BindAddress) -> Option<Metrics> {
        let allow = self.networks.clone();
        (!allow.is_empty()).then_some(Metrics { bind, allow })
    }
}
