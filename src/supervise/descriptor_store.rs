//! systemd's descriptor store, which keeps held sockets while neither Mapsmith nor HAProxy runs
//! (`FileDescriptorStoreMax` in systemd.service(5)). Without systemd nothing is kept.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

/// What names of sockets begin with; their number follows.
const NAME: &str = "haproxy-";

/// The descriptors that this process was started with, by the numbers that they have for HAProxy.
static PASSED: OnceLock<BTreeMap<RawFd, RawFd>> = OnceLock::new();

/// Takes over what systemd has passed. Called before anything is started that would inherit it.
pub fn open() {
    PASSED.get_or_init(|| match sd_notify::listen_fds_with_names() {
        Ok(passed) => passed
            .filter_map(|(descriptor, name)| {
                Some((name.strip_prefix(NAME)?.parse().ok()?, descriptor))
            })
            .collect(),
        Err(error) => {
            tracing::warn!("what systemd passes is not taken: {error}");
            BTreeMap::new()
        }
    });
}

/// The socket of this number that an earlier Mapsmith had stored, if it listens on this address.
pub(super) fn kept(number: RawFd, address: SocketAddr) -> Option<OwnedFd> {
    let descriptor = *PASSED.get()?.get(&number)?;
    // Nothing else makes a descriptor of a number without unsafe code.
    let own = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let socket = pidfd_getfd(own, descriptor, PidfdGetfdFlags::empty()).ok()?;
    if !socket_acceptconn(&socket).ok()? {
        return None;
    }
    let listener = TcpListener::from(socket);
    let local = listener.local_addr().ok()?;
    let is_of = (local.ip().to_canonical(), local.port()) == (address.ip(), address.port());
    is_of.then(|| listener.into())
}

/// Has systemd keep a socket.
pub(super) fn keep(number: RawFd, socket: &impl AsFd) {
    let name = format!("{NAME}{number}");
    let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[socket.as_fd()]) {
        tracing::warn!("systemd does not take a held socket into its store: {error}");
    }
}

/// Has systemd close a socket.
pub(super) fn forget(number: RawFd) {
    let name = format!("{NAME}{number}");
    // One that listens no more goes by itself.
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]);
}
