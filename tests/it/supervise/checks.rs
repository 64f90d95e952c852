//! What HAProxy says of a configuration, and of itself.

use std::fs;

use mapsmith::supervise::check;
use mapsmith::supervise::sockets::Sockets;
use mapsmith_core::render::Rendered;

use super::{Folder, PATIENCE};
use crate::support::haproxy::installed;

#[tokio::test]
async fn a_configuration_is_valid_or_the_reason_is_told() {
    for binary in installed() {
        let folder = Folder::new(binary);
        folder.write(&folder.answering("one"));
        assert!(folder.check().await.valid);
        folder.write(&format!("{}    nonsense\n", folder.answering("one")));
        let refused = folder.check().await;
        assert!(!refused.valid && refused.alerts().contains("line 14: unknown keyword 'nonsense'"));
        assert!(refused.printed.contains("nonsense"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_listens_nowhere_is_refused_though_haproxy_would_load_it() {
    for binary in installed() {
        let folder = Folder::new(binary);
        for text in ["", "defaults\n    mode http\n"] {
            folder.write(text);
            let refused = folder.check().await;
            assert!(!refused.valid && refused.alerts().contains("no frontend listens"), "{text:?}");
        }
    }
}

#[tokio::test]
async fn files_are_checked_together_with_the_sockets_that_haproxy_inherits() {
    for binary in installed() {
        let folder = Folder::new(binary);
        let text = folder.answering("one");
        let address =
            mapsmith_core::config::values::BindAddress::try_from(folder.address.to_string())
                .unwrap();
        let sockets = Sockets::bind([&address], &folder.file("sockets")).unwrap();
        let place = sockets.place(&address);
        folder.write(&text.replace(address.as_str(), place.as_str()));
        let extra = folder.file("extra.cfg");
        let secret = "http-request set-header Authorization Basic Z2VoZWltOjE=";
        fs::write(&extra, format!("backend more\n    nonsense\n    {secret}\n")).unwrap();
        let (file, rendered) = (folder.configuration(), Rendered::default());
        let ask = async |files: &[&std::path::Path], sockets: &Sockets| {
            check::check(folder.program(), files, &rendered, sockets, PATIENCE).await.unwrap()
        };
        assert!(ask(&[&file], &sockets).await.valid);
        assert!(!ask(&[&file], &Sockets::default()).await.valid, "it inherits none");
        let refused = ask(&[&file, &extra], &sockets).await.alerts();
        assert!(refused.contains("extra.cfg:2]"), "{refused}");
        assert!(refused.contains("'***'") && !refused.contains("Z2VoZWltOjE"), "{refused}");
    }
}

#[tokio::test]
async fn a_program_tells_its_version_or_that_it_is_no_haproxy() {
    for binary in installed() {
        let version = check::version(binary.path.to_str().unwrap()).await.unwrap();
        assert_eq!((u32::from(version.major), u32::from(version.minor)), binary.version);
    }
    let other = check::version("true").await.unwrap_err().to_string();
    assert!(other.contains("true -v does not name a version of HAProxy"), "{other}");
    let none = check::version("/no/haproxy").await.unwrap_err().to_string();
    assert!(none.contains("/no/haproxy can't be started"), "{none}");
}
