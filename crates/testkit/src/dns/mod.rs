//! Real name servers of a test's own: BIND, whose records are changed while it runs, and dnsmasq,
//! the small one that many hosts have in front.

mod bind;
mod dnsmasq;

use std::net::UdpSocket;
use std::time::Duration;

pub use bind::Bind;
pub use dnsmasq::Dnsmasq;

/// Every record of the tests is in this zone.
pub const ZONE: &str = "example.test";

/// Whether a name server answers at this port, whatever it answers.
fn answers(port: u16) -> bool {
    // Identification, recursion desired, one question: the root's NS records, class IN.
    const QUESTION: [u8; 17] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.connect(("127.0.0.1", port))?;
        socket.send(&QUESTION)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(length >= 12 && answer[..2] == QUESTION[..2])
    };
    ask().unwrap_or(false)
}
