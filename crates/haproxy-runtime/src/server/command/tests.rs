use proptest::prelude::*;

use super::*;
use crate::server::ServerOptions;

fn at(server: &str) -> ServerPath {
    ServerPath::new("b", server).unwrap()
}

fn add(options: &[&str]) -> ServerCommand {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let server = Server {
        name: "n1".to_owned(),
        address: ServerAddress { ip: "::1".parse().unwrap(), port: 8140 },
        weight: Some(7),
        backup: true,
        options: ServerOptions::parse(&options).unwrap(),
    };
    ServerCommand::Add { at: at("n1"), server: Box::new(server) }
}

fn delete() -> ServerCommand {
    ServerCommand::Delete { at: at("n1") }
}

fn ready() -> ServerCommand {
    ServerCommand::SetState { at: at("n1"), state: ServerState::Ready }
}

fn answered(
    commands: &[ServerCommand],
    answer: &str,
) -> Result<Vec<Result<(), Refusal>>, ReplyError> {
    outcomes(answer.as_bytes(), commands)
}

#[test]
fn a_server_is_added_and_put_into_rotation_in_one_line() {
    assert_eq!(
        add(&["check", "maxconn 10", "maxqueue 5", "inter 2s"]).to_string(),
        "add server b/n1 [::1]:8140 check weight 7 backup maxconn 10 maxqueue 5 inter \
            2s;enable health b/n1;\
         set server b/n1 state drain;set server b/n1 health down;set server b/n1 state ready"
    );
    assert_eq!(
        add(&[]).to_string(),
        "add server b/n1 [::1]:8140 weight 7 backup;enable server b/n1"
    );
    let agent = add(&["agent-check", "agent-port 7"]).to_string();
    assert!(agent.ends_with(";enable agent b/n1;enable server b/n1"), "{agent}");
}

#[test]
fn a_server_that_stays_out_is_added_with_its_check_enabled_and_no_more() {
    let ServerCommand::Add { at, server } = add(&["check"]) else { panic!("an addition") };
    assert_eq!(
        ServerCommand::AddOut { at, server }.to_string(),
        "add server b/n1 [::1]:8140 check weight 7 backup;enable health b/n1"
    );
}

#[test]
fn changes_are_worded_as_every_version_takes_them() {
    let address = ServerAddress { ip: "::1".parse().unwrap(), port: 5 };
    let commands = [
        (ServerCommand::SetAddress { at: at("n1"), address }, "set server b/n1 addr ::1 port 5"),
        (ServerCommand::SetWeight { at: at("n1"), weight: 0 }, "set server b/n1 weight 0"),
        (ServerCommand::SetMaxconn { at: at("n1"), maxconn: Some(3) }, "set maxconn server b/n1 3"),
        (ServerCommand::SetMaxconn { at: at("n1"), maxconn: None }, "set maxconn server b/n1 0"),
        (
            ServerCommand::SetState { at: at("n1"), state: ServerState::Maintenance },
            "set server b/n1 state maint",
        ),
        (
            ServerCommand::SetState { at: at("n1"), state: ServerState::Drain },
            "set server b/n1 state drain",
        ),
        (ready(), "set server b/n1 state ready"),
        (
            ServerCommand::SetState { at: at("n1"), state: ServerState::ReadyOnceChecked },
            "set server b/n1 state drain;set server b/n1 health down;set server b/n1 state \
                ready",
        ),
        (ServerCommand::EnableHealth { at: at("n1") }, "enable health b/n1"),
        (ServerCommand::ShutdownSessions { at: at("n1") }, "shutdown sessions server b/n1"),
        (delete(), "del server b/n1"),
    ];
    for (command, text) in commands {
        assert_eq!(command.to_string(), text);
    }
    let (backend, defaults) = (BackendName::new("n").unwrap(), BackendName::new("base").unwrap());
    let made = ServerCommand::AddBackend { backend, defaults }.to_string();
    assert_eq!(made, "add backend n from base;publish backend n");
    assert_eq!(
        wait_removable(&at("n1"), Duration::from_secs(2)),
        "wait 2000ms srv-removable b/n1\n"
    );
}

#[test]
fn a_name_that_is_none_never_becomes_a_command() {
    for name in ["", "a b", "a;b", "a/b", "a\nb", "é"] {
        assert!(
            ServerPath::new(name, "n").is_err() && ServerPath::new("b", name).is_err(),
            "{name:?}"
        );
        assert!(BackendName::new(name).is_err(), "{name:?}");
    }
}

#[test]
fn each_version_words_its_successes_and_all_are_known() {
    let address = ServerAddress { ip: "::1".parse().unwrap(), port: 5 };
    let set = [ServerCommand::SetAddress { at: at("n1"), address }];
    for text in [
        "IP changed from '127.0.0.1' to '::1', port changed from '1' to '5' by 'stats socket \
            command'",
        "no need to change the addr, no need to change the port by 'stats socket command'",
        "no need to change the addr, port changed from '1' to '5' by 'stats socket command'",
        "port changed from '1' to '5' by 'stats socket command'",
        "nothing changed",
    ] {
        assert_eq!(answered(&set, &format!("{text}\n\nadmin\n\n")), Ok(vec![Ok(())]), "{text}");
    }
    let refused = answered(&set, "Invalid addr 'zz'\n\nadmin\n\n").unwrap();
    assert_eq!(refused, [Err(Refusal::Other("Invalid addr 'zz'".to_owned()))]);
    let made = answered(&[add(&["check"])], "New server registered.\n\n\n\n\n\nadmin\n\n");
    assert_eq!(made, Ok(vec![Ok(())]));
    assert_eq!(answered(&[delete()], "Server deleted.\n\nadmin\n\n"), Ok(vec![Ok(())]));
    let left_over = "Server deleted.\nServer deleted.\n\nadmin\n\n";
    assert_eq!(
        answered(&[delete()], left_over),
        Ok(vec![Ok(())]),
        "a message of an earlier command before it"
    );
}

#[test]
fn replies_without_their_empty_line_are_told_apart() {
    let commands = [delete(), ready(), add(&[]), delete(), ready()];
    let answer =
        "Server deleted.\n\nNo such backend.\nNo such backend.\n\nNo such server.\n\nadmin\n\n";
    let seen = answered(&commands, answer).unwrap();
    assert_eq!(
        seen,
        [Ok(()), Ok(()), Err(Refusal::NoSuchBackend), Err(Refusal::NoSuchServer), Ok(())]
    );
    // The same from 3.0 on.
    let ended =
        answer.replace("deleted.\n", "deleted.\n\n").replace("backend.\nNo", "backend.\n\nNo");
    let ended = ended.replace("No such server.\n", "No such server.\n\n");
    assert_eq!(answered(&commands, &ended).unwrap(), seen);
    // Behind `severity-output`.
    for answer in [answer, &ended] {
        for severity in ["[3]: ", "[info]: "] {
            let told = |text: &str| format!("{severity}{text}");
            let answer = answer
                .replace("Server", &told("Server"))
                .replace("No such", &told("No such"))
                .replace("admin", &told("admin"));
            assert_eq!(answered(&commands, &answer).unwrap(), seen, "{answer}");
        }
    }
}

#[test]
fn a_refusal_that_the_caller_acts_on_is_told_by_its_kind() {
    for (text, refusal) in [
        ("Only servers in maintenance mode can be deleted.", Refusal::NotInMaintenance),
        (
            "Server still has connections attached to it, cannot remove it.",
            Refusal::ConnectionsLeft,
        ),
        (
            "This server cannot be removed at runtime due to other configuration elements \
                pointing to it.",
            Refusal::Referenced,
        ),
        ("No such server.", Refusal::NoSuchServer),
        (
            "Backend must use a dynamic load balancing to support dynamic servers.",
            Refusal::StaticAlgorithm,
        ),
        (
            "Backend does not support dynamic servers : backend 'st' uses a non dynamic load \
                balancing method.",
            Refusal::StaticAlgorithm,
        ),
        ("Already exists a server with the same name in backend.", Refusal::NameTaken),
        ("Permission denied", Refusal::Denied),
        (
            "Unknown command: 'add', but maybe one of the following ones is a better match:",
            Refusal::UnknownCommand,
        ),
    ] {
        assert_eq!(
            answered(&[delete()], &format!("{text}\n\nadmin\n\n")),
            Ok(vec![Err(refusal)]),
            "{text}"
        );
    }
    let option = "'resolvers' option is not accepted for dynamic server\n\n\nadmin\n\n";
    assert!(matches!(
        answered(&[add(&[])], option).unwrap()[0],
        Err(Refusal::OptionNotTaken { .. })
    ));
}

#[test]
fn silence_is_success_only_where_nothing_is_said() {
    assert!(answered(&[delete()], "\nadmin\n\n").unwrap()[0].is_err());
    assert!(answered(&[ready()], "Server deleted.\n\nadmin\n\n").unwrap()[0].is_err());
    assert!(answered(&[ready()], "\nsomething\n\n").is_err(), "the line's end must answer");
    assert!(answered(&[ready()], "").is_err());
}

#[test]
fn waiting_tells_whether_a_server_can_be_removed() {
    assert_eq!(removable(b"Done.\n"), Ok(true));
    assert_eq!(removable(b"Wait delay expired.\n"), Ok(false));
    assert_eq!(
        removable(
            b"Wait delay expired. Server still has connections attached to it, \
        cannot remove it.\n"
        ),
        Ok(false)
    );
    assert_eq!(removable(b"Failed. No such server.\n"), Err(Refusal::NoSuchServer));
    assert!(removable(b"Failed.\n").is_err() && removable(b"").is_err());
}

fn any_command() -> impl Strategy<Value = ServerCommand> {
    prop_oneof![Just(delete()), Just(ready()), Just(add(&["check"])), Just(add(&[]))]
}

/// A command's reply, success or not, as 2.6 ends it.
fn reply(command: &ServerCommand, refused: bool) -> &'static str {
    match (command, refused) {
        (ServerCommand::Delete { .. }, false) => "Server deleted.\n",
        (ServerCommand::Delete { .. }, true) => {
            "Only servers in maintenance mode can be deleted.\n"
        }
        (ServerCommand::Add { server, .. }, false) if server.options.check => {
            "New server registered.\n\n\n\n\n\n"
        }
        (ServerCommand::Add { .. }, false) => "New server registered.\n\n\n",
        (ServerCommand::Add { server, .. }, true) if server.options.check => {
            "No such backend.\nNo such backend.\n\nNo such backend.\n\nNo such backend.\n\nNo \
                such backend.\n\n"
        }
        (ServerCommand::Add { .. }, true) => "No such backend.\nNo such backend.\n\n",
        (_, false) => "\n",
        (_, true) => "No such server.\n\n",
    }
}

proptest! {
    #[test]
    fn every_outcome_of_a_line_is_known_and_a_cut_answer_tells_none(
        commands in proptest::collection::vec((any_command(), any::<bool>()), 1..8),
        cut: prop::sample::Index,
    ) {
        let mut answer: String =
            commands.iter().map(|(command, refused)| reply(command, *refused)).collect();
        answer.push_str("admin\n\n");
        let refused: Vec<bool> = commands.iter().map(|(_, refused)| *refused).collect();
        let commands: Vec<_> = commands.into_iter().map(|(command, _)| command).collect();
        let seen = answered(&commands, &answer).unwrap();
        prop_assert_eq!(seen.iter().map(Result::is_err).collect::<Vec<_>>(), refused);
        prop_assert!(answered(&commands, &answer[..cut.index(answer.len())]).is_err());
    }

    #[test]
    fn lines_stay_within_the_bound_and_lose_nothing(
        commands in proptest::collection::vec(any_command(), 0..30),
        limit in 200usize..400,
    ) {
        let mut sent = Vec::new();
        for (line, part) in lines(&commands, limit) {
            prop_assert!(
                line.len() <= limit
                    && line.ends_with(
                        b";show cli \
                level\n"
                    ),
                "{:?}",
                line
            );
            sent.extend_from_slice(part);
        }
        prop_assert_eq!(sent, commands);
    }

    #[test]
    fn no_bytes_make_the_judges_panic(
        answer in proptest::collection::vec(any::<u8>(), 0..80),
        commands in proptest::collection::vec(any_command(), 0..4),
    ) {
        let _ = outcomes(&answer, &commands);
        let _ = removable(&answer);
    }
}
