//! A template in, the text of `haproxy.cfg` out.

use super::*;
use crate::config::values::{BindAddress, Secret, Text};
use crate::config::*;
use crate::render::tests::{backend, frontend, server, value};
use crate::render::words::words;
use crate::render::{render, rendered};
use proptest::prelude::*;

fn config() -> Config {
    let check = HttpCheck {
        method: None,
        uri: value("/it's up?"),
        host: None,
        version: None,
        expect: None,
    };
    Config {
        frontends: vec![frontend("web", ":80", Vec::new())],
        backends: vec![Backend {
            check: Some(check),
            servers: vec![server("a1", "10.0.0.1:80"), server("a2", "[::1]:80")],
            ..backend("app")
        }],
        ..Config::default()
    }
}

fn given(template: &str) -> Result<Rendered, String> {
    let template = Template { name: "haproxy.cfg.j2".to_owned(), source: template.into() };
    let config = Config { template: Some(template), ..config() };
    rendered(&config).map_err(|error| error.to_string())
}

#[test]
fn a_secret_stays_one_wherever_a_template_puts_it() {
    let stats = Stats {
        bind: BindAddress::try_from(":8404".to_owned()).unwrap(),
        uri: None,
        auth: vec![Secret::new(Text::try_from("admin:geheim".to_owned()).unwrap())],
    };
    let mut config = Config::default();
    config.process.stats = Some(stats);
    let source = "{{ rendered | replace('mapsmith-stats', 'stats') | safe }}";
    config.template = Some(Template { name: "t.j2".to_owned(), source: source.into() });
    let rendered = rendered(&config).unwrap();
    let text = rendered.text();
    assert!(text.contains("geheim") && text.contains("frontend stats\n"), "{text}");
    assert!(!rendered.shown().contains("geheim"), "{}", rendered.shown());
}

#[test]
fn a_template_can_be_a_few_lines_around_the_rendered_text() {
    let rendered = given("# ours\n{{ rendered }}\n\nlisten extra\n    bind :81\n").unwrap();
    let own = render(&config());
    assert_eq!(rendered.text(), format!("# ours\n{}\nlisten extra\n    bind :81\n", own.text()));
    let line = |text: &str| rendered.text().lines().position(|line| line == text).unwrap() + 1;
    assert_eq!(rendered.origin(line("# ours")), Some("template line 1"));
    assert_eq!(rendered.origin(line("    bind :80")), Some("frontend[0].bind[0]"));
    assert_eq!(rendered.origin(line("    bind :81")), Some("template line 5"));
}

#[test]
fn a_template_can_have_each_part_where_it_wants_it() {
    let template = "\
{{ render_process() }}

{% for one in frontends %}
{{ render_frontend(one) }}
    option httpclose
{% endfor %}

{{ render_backend(\"app\") }}
";
    let text = given(template).unwrap().text().to_owned();
    assert!(
        text.contains("    default_backend app\n    option httpclose\n\nbackend app\n"),
        "{text}"
    );
    let own = render(&config());
    assert_eq!(text.replace("    option httpclose\n", ""), own.text());
}

#[test]
fn a_template_can_write_sections_of_its_own_from_the_model() {
    let template = "\
{% for one in backends %}
backend {{ one.name }}-mirror
{% if one.check is not none %}
    http-check send uri {{ one.check.uri }}
    log-tag {{ (\"100% \" ~ one.check.uri) | log_format }}
{% endif %}
{% for server in one.servers %}
    server {{ server.name }} {{ server.address }} weight {{ server.weight }} {{ server.options }}
{% endfor %}
{% endfor %}
    timeout client {{ haproxy.timeouts.client }}
";
    let rendered = given(template).unwrap();
    assert_eq!(
        rendered.text(),
        "backend app-mirror
    http-check send uri '/it'\\''s up?'
    log-tag '100%% /it'\\''s up?'
    server a1 10.0.0.1:80 weight 10 check inter 2s
    server a2 '[::1]:80' weight 10 check inter 2s
    timeout client 1m
"
    );
    let origins: Vec<_> = (1..=6).map(|line| rendered.origin(line).unwrap()).collect();
    assert_eq!(
        origins,
        [2, 4, 5, 8, 8, 11].map(|line| format!("template line {line}")),
        "where each line is in the template"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_its_key() {
    for (template, expected) in [
        ("a\n{{ frontends[0].nam }}", "line 2: `frontends[0].nam` is undefined"),
        ("{{ haproxi }}", "line 1: `haproxi` is undefined"),
        ("\n{% for one in backend %}{% endfor %}", "line 2: `backend` is undefined"),
        ("{{ rendered }", "line 1: "),
        ("{% if x %}", "line 1: "),
        ("{{ frontends[0].maxconn }}", "line 1: frontends[0].maxconn: it is not set"),
        ("{{ frontends[0].forwarded_for }}", "it is true or false"),
        ("{{ backends[0] }}", "it has keys of its own"),
        ("{{ render_backend(\"nowhere\") }}", "there is no backend nowhere"),
        ("{{ \"\" }}", "an empty text"),
        ("{{ \"a\\nb\" }}", "a line break"),
        ("a\nb \"{{ backends[0].check.uri }}\"", "line 2: a value within quotes"),
        ("b '{{ backends[0].name }}'", "line 1: a value within quotes"),
        ("b \\{{ backends[0].name }}", "line 1: a value behind a backslash"),
        ("{% set x %}'{{ backends[0].name }}'{% endset %}{{ x }}", "a value within quotes"),
        ("{{ backends[0].cookie.key }}", "backends[0].cookie"),
        ("a \u{7} b", "a control character"),
    ] {
        let error = given(template).map(|rendered| rendered.text().to_owned()).unwrap_err();
        assert!(error.starts_with("haproxy.cfg.j2, line "), "{error}");
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn a_template_that_is_none_is_found_before_it_is_needed() {
    let check = |source: &str| {
        let template = Template { name: "t".to_owned(), source: source.into() };
        check_template(&template).map_err(|error| error.to_string())
    };
    assert_eq!(check("{{ whatever.is[0].there }}"), Ok(()));
    let error = check("a\n{% for x in %}").unwrap_err();
    assert!(error.starts_with("t, line 2: "), "{error}");
}

proptest! {
    #[test]
    fn no_value_leaves_its_word(texts in proptest::collection::vec("[^\\p{Cc}]{1,20}", 1..10)) {
        let source = "{% for text in texts %}\na{{ text }}b {{ text }}{{ text }} # {{ text }}\n\
            {% endfor %}";
        let environment = environment(&Parts::default());
        let template = environment.template_from_named_str("t", source).unwrap();
        let text = template.render(minijinja::context! { texts => texts.clone() }).unwrap();
        for (line, text) in text.lines().zip(&texts) {
            let read = words(&super::values::read(line).unwrap()).unwrap();
            prop_assert_eq!(read, [format!("a{text}b"), format!("{text}{text}")]);
        }
    }
}
