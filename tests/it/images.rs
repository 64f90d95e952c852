//! The files that put Mapsmith into containers.

use std::fs;
use std::path::Path;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn whatever_shall_run_in_containers_is_started_again_when_it_ends() {
    let compose = shipped("docker-compose.yml");
    for block in [
        "x-confined: &confined\n  restart: unless-stopped\n",
        "x-master: &master\n  <<: *confined\n",
    ] {
        assert!(compose.contains(block), "services no longer inherit {block:?}");
    }
    // A name at the beginning of a line belongs to no service.
    let services = compose
        .split("\nservices:\n")
        .nth(1)
        .and_then(|rest| rest.split("\nvolumes:\n").next())
        .expect("services");
    let mut found = 0;
    for service in services.split("\n\n").filter(|service| !service.trim().is_empty()) {
        let lines: Vec<_> =
            service.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
        let name = lines[0].split(':').next().unwrap_or_default();
        assert!(
            lines.contains(&"<<: *confined") || lines.contains(&"<<: *master"),
            "{name} inherits no restart policy: {service}"
        );
        // These end by themselves once they have done their part.
        let own: Vec<_> = lines.iter().filter(|line| line.starts_with("restart:")).collect();
        let wanted: &[&&str] =
            if ["nodes", "token"].contains(&name) { &[&"restart: \"no\""] } else { &[] };
        assert_eq!(own, wanted, "{name}");
        found += 1;
    }
    assert_eq!(found, 8, "services were found");
}

#[test]
fn the_image_takes_the_binaries_that_scripts_dist_strips() {
    let (image, script, ignored) =
        (shipped("Dockerfile"), shipped("scripts/dist"), shipped(".dockerignore"));
    assert!(image.contains("RUN scripts/dist && mv target/dist /binaries\n"), "{image}");
    assert!(
        image.contains("COPY --from=binaries /binaries/mapsmith /usr/local/bin/mapsmith\n"),
        "{image}"
    );
    assert!(
        ignored.contains("\nscripts/*\n!scripts/dist\n"),
        "the build has no scripts/dist: {ignored}"
    );
    assert!(script.contains("objcopy --strip-all --add-gnu-debuglink="), "{script}");
}
