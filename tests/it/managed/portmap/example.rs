//! `examples/triton.toml`, started as it stands with a stand-in for `mdata-get`, free ports and a
//! folder of the test's.

use std::fs;
use std::path::Path;

use super::super::obtained::Trust;
use super::{Ground, Managed, Mapsmith, MdataGet, PATIENCE, answer, free_port};
use crate::support::dns::Dnsmasq;
use crate::support::haproxy::Binary;
use crate::support::master::Master;
use crate::support::scene::oldest_and_newest;

#[test]
fn the_example_for_triton_serves_what_mdata_get_says() {
    oldest_and_newest().into_iter().for_each(serve);
}

fn serve(binary: &'static Binary) {
    let web = Master::start("safe");
    let dns = Dnsmasq::start(&["host-record=web.example.test,127.0.0.1"]);
    let ground = Ground::new(binary);
    let mdata = MdataGet::new(ground.path());
    let [plain, tls] = [(); 2].map(|()| free_port());
    mdata.put("loadbalancer", "true");
    let name = format!("web.example.test:{}", web.address().port());
    mdata.put("portmap", &format!("http://{plain}:{name}\nhttps-http://{tls}:{name}"));
    mdata.put("timeouts", "{client:60s}");
    mdata.put("certificate_name", "web.test");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/triton.toml");
    let mut text = fs::read_to_string(path).expect("the example");
    // Nobody is there.
    let acme = format!("directory = \"https://127.0.0.1:1/\"\nhttp_port = {plain}\nterms_agreed");
    for (from, to) in [
        ("/var/lib/mapsmith/haproxy", ground.path().display().to_string()),
        ("/var/lib/mapsmith/mapsmith.db", ground.file("mapsmith.db").display().to_string()),
        ("/usr/sbin/mdata-get", mdata.program().display().to_string()),
        ("# hsts", "hsts".to_owned()),
        ("terms_agreed", acme),
    ] {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replace(from, &to);
    }
    text += &format!(
        "\n[[source]]\nname = \"dns\"\ntype = \"dns\"\nservers = [\"{}\"]\n",
        dns.address()
    );
    let program = ground.binary.path.to_str().expect("a path in UTF-8");
    let config = Mapsmith::config(&text).variable("MAPSMITH__HAPROXY__BINARY", program);
    let managed = Managed { mapsmith: config.start(), ground };
    managed.mapsmith.wait_for("web answers by HTTP", PATIENCE, |_| {
        (answer(plain).ok()? == "safe").then_some(())
    });
    let own = fs::read_to_string(managed.ground.file("certificates/portmap.pem"));
    let trust = Trust::of(&own.expect("the certificate is there"));
    managed.mapsmith.wait_for("web answers by HTTPS", PATIENCE, |_| {
        trust.ask(([127, 0, 0, 1], tls).into(), "web.test").ok()
    });
    let file = fs::read_to_string(managed.ground.file("haproxy.cfg")).expect("the file");
    assert!(file.contains("Strict-Transport-Security max-age=15552000"), "{file}");
    assert!(
        file.contains("timeout client 1m\n") && file.contains("timeout connect 2s\n"),
        "{file}"
    );
    mdata.put("loadbalancer", "false");
    managed
        .mapsmith
        .wait_for("every listener is closed", PATIENCE, |_| answer(plain).is_err().then_some(()));
}
