//! What a backend wants of a ZooKeeper.

use serde::Deserialize;

use super::keys::check_path;
use super::records::ChildFormat;
use super::records::registrar::{MOST_PORTS, RecordType, Registrar};
use crate::settings::keys::{SelectorKeys, section};

section! {
    /// A path, and how its children are servers. A child that can't be read is rejected, and the
    /// servers that it was before stay in force.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(in crate::source) struct ZooKeeperSelector {
        /// What the children are. `proxymgr`: each holds `{"address": .., "port": ..}`, and may
        /// have a server's other fields. `campanjazk`: each is named like its host. `registrar`:
        /// the records of Triton's registrar.
        #[unset(required)]
        pub(in crate::source) format: FormatName,
        /// `proxymgr`, `campanjazk`: the path whose children are the servers.
        pub(in crate::source) path: Option<String>,
        /// `campanjazk`: the port of each server.
        pub(in crate::source) port: Option<u16>,
        /// `registrar`: the domain: `region.example.com`.
        pub(in crate::source) domain: Option<String>,
        /// `registrar`: the service in this domain: `manta`.
        pub(in crate::source) service: Option<String>,
        /// `registrar`: the types of records that are servers: `db_host`, `host`, `load_balancer`,
        /// `moray_host`, `ops_host`, `redis_host`, `rr_host`. Others are skipped, and counted by
        /// `mapsmith_source_rejected_entries` as `record_type`.
        #[unset(says "all but `db_host` and `host`, as in Triton's DNS")]
        #[serde(default)]
        pub(in crate::source) record: Vec<RecordType>,
        /// `registrar`: the ports of each record, which is a server on each of them.
        #[unset(says "the record's own")]
        #[serde(default)]
        pub(in crate::source) ports: Vec<u16>,
    }
}

/// What `[services]` wants of it: the children of a path.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::source) struct ServicesSelector {
    pub(super) path: String,
}

impl SelectorKeys for ServicesSelector {
    fn problems(&self, mut problem: impl FnMut(String)) {
        if let Err(reason) = check_path(&self.path) {
            problem(format!("path: {reason}"));
        }
    }
}

/// The formats, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum FormatName {
    ProxyMgr,
    CampanjaZk,
    Registrar,
}

impl SelectorKeys for ZooKeeperSelector {
    fn problems(&self, problem: impl FnMut(String)) {
        if let Err(problems) = self.wanted() {
            problems.into_iter().for_each(problem);
        }
    }
}

impl ZooKeeperSelector {
    /// The path, and how its children are read.
    ///
    /// # Errors
    /// What is wrong with the keys.
    pub(super) fn wanted(&self) -> Result<(String, ChildFormat), Vec<String>> {
        let mut problems = Vec::new();
        let of_registrar = self.format == FormatName::Registrar;
        let of_children = [
            ("path", self.path.is_some(), !of_registrar),
            ("port", self.port.is_some(), self.format == FormatName::CampanjaZk),
            ("domain", self.domain.is_some(), of_registrar),
            ("service", self.service.is_some(), of_registrar),
        ];
        for (key, given, needed) in of_children {
            match (given, needed) {
                (false, true) => problems.push(format!("{key}: is missing for this format")),
                (true, false) => problems.push(format!("{key}: this format has none")),
                (true, true) | (false, false) => {}
            }
        }
        let has_own = !self.record.is_empty() || !self.ports.is_empty();
        if !of_registrar && has_own {
            problems.push("record, ports: only the format registrar has them".to_owned());
        }
        if self.ports.len() > MOST_PORTS || self.ports.iter().chain(&self.port).any(|p| *p == 0) {
            problems.push(format!("port, ports: at most {MOST_PORTS}, each 1 to 65535"));
        }
        let path = self.path.clone().unwrap_or_else(|| {
            let text = |key: &Option<String>| key.clone().unwrap_or_default();
            Registrar::path(&text(&self.domain), &text(&self.service))
        });
        if problems.is_empty()
            && let Err(reason) = check_path(&path)
        {
            let key = if of_registrar { "domain, service" } else { "path" };
            problems.push(format!("{key}: {reason}"));
        }
        let format = match self.format {
            FormatName::ProxyMgr => ChildFormat::ProxyMgr,
            FormatName::CampanjaZk => ChildFormat::CampanjaZk(self.port.unwrap_or_default()),
            FormatName::Registrar => {
                let (records, ports) = (self.record.clone(), self.ports.clone());
                ChildFormat::Registrar(Registrar { records, ports })
            }
        };
        if problems.is_empty() { Ok((path, format)) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Selector;

    use super::*;

    fn read(keys: &str) -> Result<(String, ChildFormat), String> {
        let text = format!("{{\"source\": \"zk\", {keys}}}");
        let selector: Selector = serde_json::from_str(&text).unwrap();
        let keys = selector.read::<ZooKeeperSelector>();
        keys.and_then(|keys| keys.wanted()).map_err(|problems| problems.join("; "))
    }

    #[test]
    fn each_format_has_its_keys_and_no_others() {
        let registrar = r#""format": ["registrar"], "domain": ["region.example.com"],
            "service": ["manta"]"#;
        let record = format!(r#"{registrar}, "record": ["host"], "ports": ["80", "81"]"#);
        let (path, format) = read(&record).unwrap();
        assert_eq!(path, "/com/example/region/manta");
        let expected = Registrar { records: vec![RecordType::Host], ports: vec![80, 81] };
        assert_eq!(format, ChildFormat::Registrar(expected));
        let campanja = r#""format": ["campanjazk"], "path": ["/web"], "port": ["8080"]"#;
        assert_eq!(read(campanja), Ok(("/web".to_owned(), ChildFormat::CampanjaZk(8080))));
        for (keys, part) in [
            (r#""path": ["/web"]"#.to_owned(), "format: is missing"),
            (r#""path": ["/web"], "format": ["json"]"#.to_owned(), "\"json\""),
            (r#""format": ["proxymgr"]"#.to_owned(), "path: is missing for this format"),
            (r#""format": ["proxymgr"], "path": ["web"]"#.to_owned(), "path: \"web\" is not"),
            (format!(r#"{campanja}, "ports": ["1"]"#), "only the format registrar"),
            (campanja.replace("8080", "0"), "each 1 to 65535"),
            (format!(r#"{registrar}, "path": ["/web"]"#), "path: this format has none"),
            (format!(r#"{registrar}, "record": ["hots"]"#), "hots"),
            (registrar.replace("region.", "region.."), "domain, service: \"/com/example//region"),
        ] {
            let problems = read(&keys).unwrap_err();
            assert!(problems.contains(part), "{keys}: {problems}");
        }
    }
}
