//! Replaces a whole map in a running HAProxy, atomically: staged in a version of its own, read
//! back, committed.
//!
//! ```text
//! swap_map unix@/run/haproxy/admin.sock /etc/haproxy/maps/node-master.map node1=m1 node2=m2
//! ```

use std::error::Error;
use std::time::Duration;

use haproxy_runtime::{MapClient, MapName, RuntimeClient};

/// Swaps `entries` in and gives the version that is live then.
pub async fn swap(
    address: &str,
    map: &str,
    entries: &[(&str, &str)],
) -> Result<u64, Box<dyn Error>> {
    let client = RuntimeClient::new(address.parse()?, Duration::from_secs(10));
    // 16 KiB is what HAProxy's default `tune.bufsize` takes as one command.
    let map = MapClient::new(client, MapName::new(map), 15 * 1024);
    let version = map.prepare().await?;
    let mut rested = Duration::ZERO;
    map.stage(version, entries.iter().copied(), &mut rested).await?;
    let mut staged = Vec::new();
    let read = |key: &[u8], value: &[u8]| {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        staged.push((text(key), text(value)));
    };
    map.list(Some(version), entries.len(), read).await?;
    let same = |(staged, entry): (&(String, String), &(&str, &str))| {
        (staged.0.as_str(), staged.1.as_str()) == *entry
    };
    if staged.len() != entries.len() || !staged.iter().zip(entries).all(same) {
        map.clear(version).await?;
        return Err("what HAProxy staged is not what was sent; nothing is committed".into());
    }
    map.commit(version).await?;
    Ok(version)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, map, entries @ ..] = arguments.as_slice() else {
        return Err("usage: swap_map ADDRESS MAP KEY=VALUE...".into());
    };
    let entries: Vec<_> = entries.iter().filter_map(|entry| entry.split_once('=')).collect();
    println!("version {} is live", swap(address, map, &entries).await?);
    Ok(())
}
