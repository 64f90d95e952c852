//! Names that are shown to be ours by records in DNS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{NAMES, Scene, Trust, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::{Acme, Plan};

/// A hook that keeps records in the tests' DNS, and a list of its calls; `before` is done after
/// that, and before it does anything else.
pub(super) fn hook(folder: &Path, acme: &Acme, before: &str) -> String {
    let file = folder.join("hook");
    let script = format!(
        "#!/bin/sh\necho \"$1 $2\" >>{calls}\n{before}\
        case $1 in\n\
        add) body=\"{{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}}\" path=set-txt ;;\n\
        remove) body=\"{{\\\"host\\\": \\\"$2.\\\"}}\" path=clear-txt ;;\n\
        esac\n\
        exec curl -sf -d \"$body\" http://{dns}/$path\n",
        calls = folder.join("calls").display(),
        dns = acme.dns_management(),
    );
    fs::write(&file, script).expect("the folder can be written to");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    format!("challenge = \"dns-01\"\nhook = [\"{}\"]\n", file.display())
}

/// Pebble takes no shorter one.
const EXTERNAL_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[test]
fn a_hook_shows_the_names_by_dns_and_a_new_account_is_made_where_the_old_one_is_unknown() {
    let ground = Ground::new(oldest_and_newest()[1]);
    let acme = Plan::asks_at(1).binds_accounts("key-1", EXTERNAL_KEY).start();
    let key = ground.file("external.key");
    fs::write(&key, format!("{EXTERNAL_KEY}\n")).expect("the folder can be written to");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let binding = format!("eab = {{ kid = \"key-1\", key_file = \"{}\" }}\n", key.display());
    let settings = format!("{}{binding}{}", acme.settings(), hook(ground.path(), &acme, ""));
    let scene = Scene::on(ground, &settings, "acme");
    scene.wait_for_trust(&acme);
    let calls = fs::read_to_string(scene.file("calls")).expect("the hook was called");
    for name in NAMES {
        for what in ["add", "remove"] {
            let call = format!("{what} _acme-challenge.{name}\n");
            assert!(calls.contains(&call), "{call:?} is not in: {calls}");
        }
    }
    // The authority has lost all that it knew.
    acme.launch();
    assert!(Trust::of(&acme.root()).ask(scene.secure, NAMES[0]).is_err(), "it has another root");
    assert_eq!(scene.renew().0, 202);
    scene.wait_for_trust(&acme);
    scene.managed.wait_for_log("the authority does not know the account");
}

#[test]
fn what_a_hook_that_fails_has_printed_is_told_and_nothing_is_replaced() {
    let ground = Ground::new(oldest_and_newest()[1]);
    let acme = Plan::asks_at(1).start();
    let hook =
        "challenge = \"dns-01\"\nhook = [\"/bin/sh\", \"-c\", \"echo no such zone; exit 3\"]\n";
    let scene = Scene::on(ground, &format!("{}{hook}", acme.settings()), "acme");
    let failed = scene.wait_for_certificate("it is told", |certificate| {
        certificate["renewal"]["error"].is_string()
    });
    let error = failed["renewal"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("exit status: 3") && error.contains("no such zone"), "{error}");
    assert_eq!(failed["in_force"]["self_signed"], true, "{failed}");
}
