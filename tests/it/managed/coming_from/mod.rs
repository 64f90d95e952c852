//! What Muppet and ProxyMgr did with HAProxy's servers when a list, an operator or HAProxy itself
//! changed, situation by situation, in a HAProxy that Mapsmith runs. `docs/coming-from.md` says in
//! words where Mapsmith means to differ; the plans behind it are held by the cases of
//! `core::plan::servers`.

mod muppet;
mod proxymgr;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::{Binary, ask};
use crate::support::mapsmith::Mapsmith;

/// A server of a list: its name, its address, and its options.
type Row<'a> = (&'a str, &'a str, &'a [&'a str]);

/// A server of HAProxy: its address, and `READY`, `MAINT` or `DRAIN`.
type State = (String, &'static str);

/// A managed HAProxy with a backend `app`, whose servers come from a list.
struct Listed {
    managed: Managed,
    /// More keys of the backend.
    backend: String,
}

impl Listed {
    fn start(binary: &'static Binary, backend: &str, rows: &[Row<'_>]) -> Self {
        let ground = Ground::new(binary);
        write(&ground, rows);
        let settings = settings(&ground, "one", backend, "");
        let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
        managed.wait_for_word("one");
        managed.wait_for_state("in_force");
        let listed = Self { managed, backend: backend.to_owned() };
        listed.wait_for(rows);
        listed
    }

    fn list(&self, rows: &[Row<'_>]) {
        write(&self.managed.ground, rows);
    }

    /// Other settings, which take a reload.
    fn change(&mut self, word: &str, backend: &str, more: &str) {
        backend.clone_into(&mut self.backend);
        let settings = settings(&self.managed.ground, word, backend, more);
        self.managed.write_settings(&settings);
        self.managed.mapsmith.hangup();
        self.managed.wait_for_word(word);
        self.managed.wait_for_state("in_force");
    }

    /// What an operator orders at the Runtime API.
    fn command(&self, command: &str) -> String {
        let socket = format!("unix@{}", self.managed.ground.file("admin.sock").display());
        ask(&socket, command).expect("HAProxy answers")
    }

    fn states(&self) -> BTreeMap<String, State> {
        let table = self.command("show servers state app");
        let rows = table.lines().skip(2).map(|line| line.split(' ').collect::<Vec<_>>());
        rows.filter_map(|row| {
            let admin: u32 = row.get(6)?.parse().ok()?;
            let state = match admin {
                0 => "READY",
                admin if admin & 0x27 != 0 => "MAINT",
                _ => "DRAIN",
            };
            let address = format!("{}:{}", row.get(4)?, row.get(18)?);
            Some(((*row.get(3)?).to_owned(), (address, state)))
        })
        .collect()
    }

    /// Waits until HAProxy has these, ready, and the file too.
    fn wait_for(&self, rows: &[Row<'_>]) {
        let expected: Vec<_> =
            rows.iter().map(|(name, address, _)| (*name, *address, "READY")).collect();
        self.wait_for_states(&expected);
        self.managed.mapsmith.wait_for("the file has the servers", PATIENCE, |_| {
            let text = fs::read_to_string(self.managed.ground.file("haproxy.cfg")).ok()?;
            let lines = text.lines().map(str::trim_start);
            let mut servers: Vec<_> =
                lines.filter_map(|line| line.strip_prefix("server ")).collect();
            servers.sort_unstable();
            let is_same = servers.len() == rows.len()
                && rows.iter().all(|(name, address, _)| {
                    servers.iter().any(|line| line.starts_with(&format!("{name} {address}")))
                });
            is_same.then_some(())
        });
    }

    fn wait_for_states(&self, expected: &[(&str, &str, &'static str)]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, address, state)| ((*name).to_owned(), ((*address).to_owned(), *state)))
            .collect();
        self.managed.mapsmith.wait_for(&format!("servers are {expected:?}"), PATIENCE, |_| {
            (self.states() == expected).then_some(())
        });
    }

    /// What status says of the servers.
    fn servers(&self) -> Value {
        self.managed.mapsmith.get("/v1/status").1["instances"][0]["servers"].clone()
    }

    /// Waits until status shows what somebody else did to a server.
    fn wait_for_external(&self, server: &str) {
        self.managed.mapsmith.wait_for("what an operator did is shown", PATIENCE, |_| {
            self.servers()["external"].to_string().contains(server).then_some(())
        });
    }

    /// How often HAProxy was reloaded since its start.
    fn reloads(&self) -> u32 {
        self.managed.ground.reloads()
    }
}

fn settings(ground: &Ground, word: &str, backend: &str, more: &str) -> String {
    let file = ground.file("app.json");
    ground.settings(
        word,
        &format!(
            "default_backend = \"app\"\n{more}\n[[source]]\nname = \"app\"\ntype = \"file\"\n\
            path = {file:?}\n[[backend]]\nname = \"app\"\nfrom = \"app\"\ndrain = \"0s\"\n\
            {backend}\n[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n\
            max_removed = \"100%\"\n"
        ),
    )
}

fn write(ground: &Ground, rows: &[Row<'_>]) {
    let row = |(name, address, options): &Row<'_>| match *options {
        [] => json!({"name": name, "address": address}),
        options => json!({"name": name, "address": address, "options": options}),
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    // As a whole: half a list would be another change.
    let fresh = ground.file("app.new");
    fs::write(&fresh, json!(rows).to_string()).expect("the list can be written");
    fs::rename(&fresh, ground.file("app.json")).expect("the list can be put in place");
}
