//! How many connections one address has: whoever opens as many as it can keeps nobody else out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of each address that is not this machine's.
#[derive(Debug)]
pub(super) struct Addresses {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One of an address's connections; none is counted of this machine.
#[derive(Debug)]
pub(super) struct Own(Option<(Arc<Addresses>, IpAddr)>);

impl Addresses {
    /// Of so many connections in all one address may have half: a proxy before the API is one, too.
    pub(super) fn new(connections: usize) -> Self {
        Self { most: connections.div_ceil(2), open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None where the address has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Own> {
        let address = network(address);
        // Programs of this machine are no strangers to each other.
        if address.is_loopback() {
            return Some(Own(None));
        }
        let mut open = self.open();
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Own(Some((Arc::clone(self), address))))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some((addresses, address)) = &self.0 else { return };
        let mut open = addresses.open();
        if let Some(count) = open.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

/// Who has an address of IPv6 has the other addresses of its /64, too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_half_of_the_places_to_others() {
        let addresses = Arc::new(Addresses::new(4));
        let enter = |address: &str| addresses.enter(address.parse().unwrap());
        let mut open = vec![enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap()];
        assert!(enter("192.0.2.1").is_none(), "it has half of them");
        open.extend([enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap()]);
        assert!(enter("2001:db8::3").is_none(), "it is in the same /64");
        assert!(enter("2001:db8:0:1::1").is_some() && enter("192.0.2.2").is_some());
        let local: Vec<_> = (0..9).filter_map(|_| enter("127.0.0.1")).collect();
        assert_eq!(local.len(), 9, "this machine's");
        open.clear();
        assert!(addresses.open().is_empty(), "nothing is left of those that are closed");
        assert!(enter("192.0.2.1").is_some());
    }
}
