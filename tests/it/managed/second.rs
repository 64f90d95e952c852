//! Two Mapsmiths, one folder.

use super::Managed;
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::complaints;

#[test]
fn a_second_mapsmith_does_not_start_with_the_folder_of_another() {
    let managed = Managed::start(&installed()[0], "one", "");
    let settings = managed.ground.settings("two", "[api]\nlisten = \"127.0.0.1:0\"\n");
    let output = Mapsmith::config(&settings).cli(&["run"]);
    let told = complaints(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let folder = managed.ground.path().display();
    for part in ["haproxy.folder: another Mapsmith", &folder.to_string(), "folder of its own"] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    assert_eq!(managed.ground.word().as_deref(), Some("one"));
}
