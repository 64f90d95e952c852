//! `show servers state`, `show stat`, the outcomes of commands.

use std::sync::LazyLock;

use haproxy_runtime::process;
use haproxy_runtime::server::command::{self, BackendName, ServerCommand, ServerPath, ServerState};
use mapsmith_core::ObservedServers;
use mapsmith_core::server::{Server, ServerAddress};

use super::cuts;

/// Replies about servers: looked at, and judged as outcomes of commands.
pub fn server_replies(answer: &[u8]) {
    if let Ok(names) = process::backends_and_servers(answer) {
        assert!(
            answer.starts_with(b"# pxname,svname,")
                && names.iter().all(|name| !name.contains([',', '\n']))
        );
    }
    if let Ok(seen) = haproxy_runtime::server::reply::observed(answer) {
        let again = printed(&seen);
        assert_eq!(haproxy_runtime::server::reply::observed(again.as_bytes()), Ok(seen), "{again}");
        for cut in cuts(answer) {
            assert!(
                haproxy_runtime::server::reply::observed(&answer[..cut]).is_err(),
                "cut at {cut} it is still whole"
            );
        }
    }
    for commands in COMMANDS.iter() {
        if let Ok(outcomes) = command::outcomes(answer, commands) {
            assert_eq!(outcomes.len(), commands.len());
            for cut in cuts(answer) {
                assert!(
                    command::outcomes(&answer[..cut], commands).is_err(),
                    "cut at {cut} {commands:?} are still whole"
                );
            }
        }
    }
    let _ = command::removable(answer);
}

/// As HAProxy shows these servers, in the columns that are read.
fn printed(seen: &ObservedServers) -> String {
    let mut states =
        "1\n# be_name srv_name srv_addr srv_port srv_fqdn srv_uweight srv_iweight srv_op_state \
            srv_admin_state srv_check_state srv_check_result srv_agent_state srv_use_ssl\n"
            .to_owned();
    let mut statistics =
        "# pxname,svname,type,status,bck,scur,slim,stot,qcur,qlimit,algo,check_desc,\n".to_owned();
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let limit = |limit: Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
    for (backend, shown) in seen {
        let proxy = quoted(backend);
        statistics += &format!(
            "{proxy},BACKEND,1,,,,,,,,{},,\n",
            quoted(shown.algorithm.as_deref().unwrap_or_default())
        );
        for (name, server) in &shown.servers {
            states += &format!(
                "{backend} {name} {} {} {} {} {} {} {} {} {} {} {}\n",
                server.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
                server.port,
                server.fqdn.as_deref().unwrap_or("-"),
                server.weight,
                server.initial_weight,
                if server.running { 2 } else { 0 },
                server.admin.0,
                if server.check_configured { 2 } else { 0 }
                    + if server.check_enabled { 4 } else { 0 },
                if server.check_failed { 2 } else { 0 },
                if server.agent_enabled { 4 } else { 0 },
                u8::from(server.tls),
            );
            statistics += &format!(
                "{proxy},{},2,{},{},{},{},{},{},{},,{},\n",
                quoted(name),
                quoted(&server.status),
                u8::from(server.backup),
                server.sessions,
                limit(server.maxconn),
                server.sessions_total,
                server.queued,
                limit(server.maxqueue),
                quoted(&server.last_check),
            );
        }
    }
    format!("{states}\n{statistics}\n")
}

/// Lines of commands whose answer may be any.
static COMMANDS: LazyLock<[Vec<ServerCommand>; 5]> = LazyLock::new(|| {
    let at = || ServerPath::new("b", "s").expect("valid names");
    let backend = |name| BackendName::new(name).expect("a valid name");
    let address = ServerAddress { ip: [127, 0, 0, 1].into(), port: 8140 };
    let mut server = Server {
        name: "s".to_owned(),
        address,
        weight: Some(7),
        backup: true,
        options: Default::default(),
    };
    server.options.check = true;
    [
        vec![ServerCommand::Add { at: at(), server: Box::new(server) }],
        vec![
            ServerCommand::SetState { at: at(), state: ServerState::Maintenance },
            ServerCommand::Delete { at: at() },
        ],
        vec![ServerCommand::AddBackend { backend: backend("b"), defaults: backend("d") }],
        vec![
            ServerCommand::SetAddress { at: at(), address },
            ServerCommand::SetWeight { at: at(), weight: 256 },
        ],
        vec![],
    ]
});
