//! `render`: the text of `haproxy.cfg`, what would change in it, and a template of one's own.

use std::fs;

use super::{complaint, text};
use crate::support::mapsmith::{Config, Mapsmith};

/// A managed HAProxy with its files beside the settings; `more` stands in `[haproxy]`.
fn managed(more: &str, backend: &str) -> Config {
    let config = Mapsmith::config("");
    write(&config, more, backend);
    config
}

/// From now on these are its settings.
fn write(config: &Config, more: &str, backend: &str) {
    let folder = config.directory().display();
    let settings = format!(
        "[haproxy]\nmanaged = true\nfolder = \"{folder}\"\n{more}\n[[frontend]]\nname = \"web\"\n\
         bind = [\"127.0.0.1:8080\"]\ndefault_backend = \"app\"\n\
         [[backend]]\nname = \"app\"\n{backend}\n"
    );
    fs::write(config.path(), settings).expect("the settings can be written");
}

#[test]
fn what_would_change_in_haproxys_file_is_shown_as_diff_does() {
    let one = "servers = [{ name = \"a\", address = \"10.0.0.1:80\" }]";
    let config = managed("", one);
    let rendered = text(&config.cli(&["render"]), 0);
    let file = config.directory().join("haproxy.cfg");
    let added = text(&config.cli(&["render", "--diff"]), 0);
    assert!(added.starts_with("--- /dev/null\n+++ /tmp/"), "{added}");
    assert_eq!(
        added.lines().filter(|line| line.starts_with('+')).count(),
        rendered.lines().count() + 1
    );

    fs::write(&file, &rendered).expect("the file can be written");
    let same = text(&config.cli(&["render", "--diff"]), 0);
    assert_text!(same, @"[CONFIG]/haproxy.cfg is as it would be rendered");

    fs::write(config.directory().join("extra.cfg"), "").expect("the file can be written");
    let include = format!("include = [\"{}/*.cfg\"]", config.directory().display());
    let two = "natives = [\"option abortonclose\"]\nservers = [{ name = \"a\", address \
        = \"10.0.0.2:80\" }]";
    write(&config, &include.replace('*', "ex*"), two);
    assert_text!(text(&config.cli(&["render", "--diff"]), 0), @"
    --- [CONFIG]/haproxy.cfg
    +++ [CONFIG]/haproxy.cfg (rendered)
    @@ -1,4 +1,5 @@
     # Written by Mapsmith from its settings: external changes are overwritten.
    +# Loaded with it: [CONFIG]/extra.cfg (2d06800538d394c2)
     
     global
         log stdout format raw local0
    @@ -32,4 +33,5 @@
     
     backend app
         balance roundrobin
    -    server a 10.0.0.1:80
    +    option abortonclose
    +    server a 10.0.0.2:80
    ");
    let report = text(&config.cli(&["render", "--diff", "--output", "json"]), 0);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["differs"], true, "{report:#}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), rendered, "nothing is written");
}

#[test]
fn a_secret_is_not_in_the_difference_and_another_one_is_seen_to_be_one() {
    let backend = |key: &str| format!("servers = []\ncookie = {{ name = \"SRV\", key = {key:?} }}");
    let config = managed("", &backend("first secret"));
    let old = text(&config.cli(&["render"]), 0).replace("-key ***", "-key 'old secret'");
    fs::write(config.directory().join("haproxy.cfg"), old).expect("the file can be written");
    let difference = text(&config.cli(&["render", "--diff"]), 0);
    assert!(difference.contains("\n-    dynamic-cookie-key *** (another)\n"), "{difference}");
    assert!(difference.contains("\n+    dynamic-cookie-key ***\n"), "{difference}");
    assert!(!difference.contains("secret"), "{difference}");
}

#[test]
fn a_template_is_named_with_its_line_where_it_is_wrong_and_where_haproxy_refuses_it() {
    let config = managed("template = \"haproxy.cfg.j2\"", "servers = []");
    let template = |source: &str| {
        let path = config.directory().join("haproxy.cfg.j2");
        fs::write(path, source).expect("the template can be written");
        config.cli(&["render", "--check"])
    };
    let wrong = complaint(&template("{{ rendered }}\n{% for x in frontends %}"), 2);
    assert!(wrong.contains("haproxy.template: ") && wrong.contains("line 2: "), "{wrong}");
    let missing = complaint(&template("{{ rendered }}\n{{ frontends[0].nam }}\n"), 1);
    assert!(
        missing.contains("haproxy.cfg.j2, line 2: `frontends[0].nam` is undefined"),
        "{missing}"
    );
    let refused = template("{{ rendered }}\n\nbackend more\n    optoin abortonclose\n");
    let printed = text(&refused, 1);
    assert!(printed.ends_with("\nbackend more\n    optoin abortonclose\n"), "{printed}");
    let said = crate::support::scene::complaints(&refused);
    assert!(said.contains("template line 4"), "{said}");
}
