use proptest::prelude::*;

use super::*;

fn parse(options: &[&str]) -> Result<ServerOptions, OptionError> {
    ServerOptions::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
}

fn refusal(option: &str) -> String {
    parse(&[option]).expect_err(option).to_string()
}

#[test]
fn options_are_written_as_in_haproxys_configuration() {
    let options = parse(&[
        "check",
        "maxconn 1000",
        "maxqueue 500",
        "inter  2s",
        "ssl",
        "verify none",
        "source 10.0.0.1 usesrc clientip",
    ]);
    let options = options.unwrap();
    assert!(options.check && !options.agent_check());
    assert_eq!((options.maxconn, options.maxqueue), (Some(1000), Some(500)));
    assert_eq!(
        options.other,
        ["inter 2s", "ssl", "verify none", "source 10.0.0.1 usesrc clientip"]
    );
    assert_eq!(parse(&[]).unwrap(), ServerOptions::default());
    assert_eq!(parse(&["maxconn 0"]).unwrap().maxconn, None, "0 is not a limit");
    assert!(parse(&["agent-check", "agent-port 7"]).unwrap().agent_check());
}

#[test]
fn a_plain_check_of_a_tls_port_is_known_by_its_options() {
    for (options, in_plain) in [
        (&["ssl", "verify none", "check"][..], true),
        (&["ssl", "check", "check-sni m1", "inter 1s"], true),
        (&["ssl", "check", "check-ssl"], false),
        (&["ssl"], false),
        (&["check"], false),
        (&["ssl", "check", "port 8081"], false),
        (&["ssl", "check", "addr 10.0.0.9"], false),
    ] {
        assert_eq!(parse(options).unwrap().checks_tls_in_plain_text(), in_plain, "{options:?}");
    }
}

#[test]
fn what_haproxy_does_not_take_at_runtime_is_refused_with_a_way_out() {
    for option in [
        "resolvers dns",
        "init-addr none",
        "disabled",
        "enabled",
        "namespace x",
        "stick",
        "resolve-prefer ipv4",
    ] {
        assert!(refusal(option).contains("server made at runtime"), "{}", refusal(option));
    }
    for (option, key) in [
        ("weight 5", "`weight`"),
        ("backup", "`backup`"),
        ("name a", "`name`"),
        ("address ::1", "`address`"),
    ] {
        assert!(refusal(option).contains(key), "{}", refusal(option));
    }
    assert!(refusal("chekc").contains("\"chekc\" is not a server option"));
    assert!(refusal("").contains("empty"));
    assert_eq!(
        parse(&["check", "inter 1s", "inter 2s"]),
        Err(OptionError::Twice("inter".to_owned()))
    );
}

#[test]
fn an_option_has_the_arguments_that_it_has_in_haproxy() {
    for (wrong, form) in [
        ("check now", "\"check\""),
        ("ssl verify none", "each option is a text of its own"),
        ("maxconn", "\"maxconn NUMBER\""),
        ("maxconn many", "NUMBER"),
        ("maxconn 4294967296", "NUMBER"),
        ("maxconn -1", "NUMBER"),
        ("inter 2parsecs", "TIME"),
        ("inter s", "TIME"),
        ("port 0", "PORT"),
        ("port 65536", "PORT"),
        ("verify maybe", "none|required"),
        ("source ::1 usesrc", "usesrc"),
    ] {
        assert!(refusal(wrong).contains(form), "{}", refusal(wrong));
    }
}

#[test]
fn nothing_that_ends_a_command_or_starts_another_gets_through() {
    for option in [
        "sni a;b",
        "sni a\nb",
        "sni a\\",
        "sni \"a\"",
        "sni 'a'",
        "sni a\0",
        "sni #a",
        "sni <<",
        "sni a\u{85}b",
    ] {
        assert!(matches!(parse(&[option]), Err(OptionError::Invalid { .. })), "{option:?}");
    }
}

#[test]
fn options_of_newer_haproxys_say_which_one_they_need() {
    assert_eq!(parse(&["check", "inter 2s"]).unwrap().oldest_version(), ((2, 6), None));
    assert_eq!(parse(&["cookie m1"]).unwrap().oldest_version(), ((3, 0), Some("cookie")));
    assert_eq!(
        parse(&["cookie m1", "strict-maxconn"]).unwrap().oldest_version(),
        ((3, 2), Some("strict-maxconn"))
    );
}

#[test]
fn the_tables_name_each_option_once() {
    let taken = TAKEN.iter().map(|(.., names)| *names);
    let lists = taken.chain(REFUSED.iter().map(|(names, _)| *names));
    let mut names: Vec<&str> = lists.flat_map(|names| names.split(' ')).collect();
    names.extend(OWN_KEYS);
    let count = names.len();
    assert_eq!(count, 86 + 26 + 4);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_and_what_it_takes_is_clean(
        option in ".{0,40}",
        name in proptest::sample::select(
            TAKEN.iter().flat_map(|(.., names)| names.split(' ')).collect::<Vec<_>>(),
        ),
    ) {
        for text in [option.clone(), format!("{name} {option}")] {
            if let Ok(options) = parse(&[&text]) {
                prop_assert_eq!(ServerOptions::parse(&options.words()), Ok(options.clone()));
                for option in options.other {
                    prop_assert!(
                        option.chars().all(|character| !character.is_control()
                            && !";\\\"'#".contains(character)),
                        "{:?}",
                        option
                    );
                    prop_assert!(!option.contains("  "));
                }
            }
        }
    }
}
