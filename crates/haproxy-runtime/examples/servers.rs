//! Lists every server behind a stats socket; with `drain BACKEND/SERVER` also takes one out of
//! rotation.
//!
//! ```text
//! servers unix@/run/haproxy/admin.sock
//! servers unix@/run/haproxy/admin.sock drain puppet/master1
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use haproxy_runtime::{RuntimeClient, ServerCommand, ServerPath, ServerState, ServersClient};

/// A line for each server: its name, address, weight and status.
pub async fn list(servers: &ServersClient) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for (name, backend) in &servers.observe().await? {
        for (server, seen) in &backend.servers {
            let address = seen.address.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
            let (port, weight, status) = (seen.port, seen.weight, &seen.status);
            writeln!(text, "{name}/{server} {address}:{port} weight {weight} {status}")?;
        }
    }
    Ok(text)
}

/// Lets a server finish what it has and sends it nothing new.
pub async fn drain(servers: &ServersClient, at: &str) -> Result<(), Box<dyn Error>> {
    let (backend, server) = at.split_once('/').ok_or("name a server as BACKEND/SERVER")?;
    let at = ServerPath::new(backend, server)?;
    let outcomes =
        servers.run(&[ServerCommand::SetState { at, state: ServerState::Drain }]).await?;
    for outcome in outcomes {
        outcome?;
    }
    Ok(())
}

/// A client of the servers behind the socket at `address`.
pub fn client(address: &str) -> Result<ServersClient, Box<dyn Error>> {
    let client = RuntimeClient::new(address.parse()?, Duration::from_secs(10));
    Ok(ServersClient::new(client, 15 * 1024))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [address] => print!("{}", list(&client(address)?).await?),
        [address, "drain", at] => drain(&client(address)?, at).await?,
        _ => return Err("usage: servers ADDRESS [drain BACKEND/SERVER]".into()),
    }
    Ok(())
}
