//! A gateway's configuration, as its plan says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::gateway::Gateway;
use super::plan::Redispatch;

impl Gateway {
    pub(super) fn render(&self) -> String {
        let Self { plan, admin_socket, user_socket, map, http_port, runtime_port, .. } = self;
        let mut text = format!("global\n    nbthread {}\n", plan.threads);
        // So that a reload hands the sockets over and no connection is refused meanwhile.
        let hand_over = if plan.master_worker { " expose-fd listeners" } else { "" };
        text +=
            &format!("    stats socket {admin_socket} mode 600 level {}{hand_over}\n", plan.level);
        if plan.user_socket {
            text += &format!("    stats socket {user_socket} mode 600 level user\n");
        }
        if plan.tcp_socket {
            text += &format!("    stats socket ipv4@127.0.0.1:{runtime_port} level admin\n");
        }
        if let Some((local, _)) =
            plan.redispatch.as_ref().and_then(|redispatch| redispatch.peers.as_ref())
        {
            text += &format!("    localpeer {local}\n");
        }
        text += "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    \
            timeout server 60s\n";
        text += &format!("frontend gateway\n    bind 127.0.0.1:{http_port}\n");
        if let Some(redispatch) = &plan.redispatch {
            return text + &render_redispatch(redispatch, map, &plan.masters);
        }
        if plan.map_is_used {
            text +=
                &format!("    use_backend %[req.hdr(X-Node-Name),lower,map_str({map},default)]\n");
        }
        text += "    default_backend default\n";
        text += "backend default\n    http-request return status 404 content-type text/plain \
            string none\n";
        for (name, address) in &plan.masters {
            text += &format!("backend {name}\n    server {name} {address}\n");
        }
        text + &plan.more
    }
}

/// The shape of one backend for all masters, from the frontend's rules on.
///
/// A retry avoids only the server tried last, and the turn of the others is shared with the traffic
/// beside it: each try finds the owner among three masters with a chance of one half at worst, so
/// that 28 miss it once in a hundred million searches.
fn render_redispatch(
    redispatch: &Redispatch,
    map: &str,
    masters: &BTreeMap<String, SocketAddr>,
) -> String {
    let mut text = format!(
        "    http-request set-var(txn.node) req.hdr(X-Node-Name),lower
    http-request return status 400 content-type text/plain string \"name the node in \
    X-Node-Name\" unless {{ var(txn.node) -m len gt 0 }}
    http-request set-var(txn.master) var(txn.node),map_str({map})
    default_backend puppet
backend puppet
    balance roundrobin
    option redispatch 1
    retries 28
    retry-on {}
    http-error status 503 content-type text/plain string \"no master answers\"
    acl learned var(txn.node),in_table(puppet)
    acl as_mapped srv_name,strcmp(txn.master) eq 0
    use-server %[var(txn.master)] if {{ var(txn.master) -m found }} !learned
    stick match var(txn.node)
    stick store-response var(txn.node) if {{ status 200:299 }} !as_mapped
    stick store-response var(txn.node) if {{ status 200:299 }} learned\n",
        redispatch.retry_on
    );
    let shared = if redispatch.peers.is_some() { " peers gateways" } else { "" };
    text += &format!("    stick-table type string len 255 size 100k expire 10m{shared}\n");
    for (name, address) in masters {
        text += &format!("    server {name} {address}\n");
    }
    if let Some((_, peers)) = &redispatch.peers {
        text += "peers gateways\n";
        for (name, port) in peers {
            text += &format!("    peer {name} 127.0.0.1:{port}\n");
        }
    }
    text
}
