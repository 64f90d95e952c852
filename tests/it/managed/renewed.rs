//! Certificates that somebody else writes.

use std::fs;
use std::net::SocketAddr;

use super::{Managed, PATIENCE};
use crate::support::authority::Authority;
use crate::support::curl::Client;
use crate::support::haproxy::installed;
use crate::support::{eventually, free_port};

#[test]
fn a_certificate_that_somebody_else_has_renewed_is_loaded_at_the_next_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let own = folder.path().join(name);
        fs::create_dir(&own).unwrap();
        let authority = Authority::create(&own);
        authority.issue("gateway");
        authority
    };
    let (before, after) = (authority("before"), authority("after"));
    let path = folder.path().join("site.pem");
    fs::copy(before.both("gateway"), &path).unwrap();
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let more = format!(
        "[[certificate]]\nname = \"site\"\npath = \"{}\"\n\
        [[frontend]]\nname = \"secure\"\n\
        bind = [{{ address = \"{secure}\", certificate = [\"site\"] }}]\n\
        rules = [{{ return = {{ status = 200, body = \"safe\" }} }}]\n",
        path.display()
    );
    let mut managed = Managed::start(&installed()[0], "one", &more);
    let safe = |authority: &Authority| {
        Client::stranger(authority.ca()).get(secure, "/", &[]).body == "safe"
    };
    assert!(safe(&before) && !safe(&after));
    fs::copy(after.both("gateway"), &path).unwrap();
    managed.mapsmith.hangup();
    eventually("the new one is shown", PATIENCE, || safe(&after).then_some(()));
    assert_eq!(managed.wait_for_state("in_force")["reloads"], 1);
}
