//! Commands that name an entry or a server, and HAProxy's command line, read plainly.

use haproxy_runtime::server::command::{ServerCommand, ServerPath};
use haproxy_runtime::{MapName, map, wire};
use mapsmith_core::server::list::{Host, ListedServer};
use mapsmith_core::server::{Server, ServerAddress, ServerOptions};

/// Every command that names an entry is one command with exactly these words, alone, in a line of
/// many, and as a payload.
pub(super) fn commands(key: &str, value: &str) {
    for path in ["/etc/haproxy/maps/node-master.map", r"/m/a;b\c.map"] {
        let map = MapName::new(path);
        let commands = [map.add(key, value), map.set(key, value), map.remove(key), map.get(key)];
        let expected: [&[&str]; 4] = [
            &["add", "map", path, key, value],
            &["set", "map", path, key, value],
            &["del", "map", path, key],
            &["get", "map", path, key],
        ];
        for (command, expected) in commands.iter().zip(expected) {
            assert_eq!(words(command), expected);
        }
        let mut told = Vec::new();
        for (line, count) in wire::Batches::new(commands.iter().cloned(), 300, 3) {
            let read = haproxy_reads(&line);
            assert!(
                read.len() == count && count <= 3 && (line.len() <= 300 || count == 1),
                "{line:?}"
            );
            told.extend(read);
        }
        assert_eq!(told.len(), 4);
        for (words, expected) in told.iter().zip(expected) {
            assert_eq!(words, &expected.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        }
        let header = map.stage_header(3);
        let mut payload = Vec::new();
        let mut entries = Vec::new();
        let mut payloads = wire::Payloads::new(&header, [(key, value); 3].into_iter(), 1024);
        while payloads.next_into(&mut payload) {
            assert!(payload.len() <= 1024);
            let lines = payload
                .strip_prefix(format!("{header}\n").as_bytes())
                .and_then(|rest| rest.strip_suffix(b"\n\n"));
            entries.extend(
                lines
                    .expect("a header, lines and an empty line")
                    .split(|byte| *byte == b'\n')
                    .map(<[u8]>::to_vec),
            );
        }
        assert_eq!(entries, vec![format!("{key} {value}").into_bytes(); 3]);
        let found = format!(
            "type=str, case=sensitive, found=yes, idx=tree, key=\"{key}\", value=\"{value}\", \
                type=\"str\"\n"
        );
        assert_eq!(map::looked_up(found.as_bytes()), Ok(Some(value)));
    }
}

/// The commands that add a listed server are those and no more, whatever its name and options are.
pub(super) fn added(backend: &str, server: &ListedServer, defaults: &ServerOptions) {
    let ip = match server.host {
        Host::Address(ip) => ip,
        // What it resolves to does not come from the list.
        Host::Name(_) => [127, 0, 0, 1].into(),
    };
    let options = server.options.clone().unwrap_or_else(|| defaults.clone());
    let agent = options.agent_check();
    let check = options.check;
    let others: Vec<String> =
        options.other.iter().flat_map(|option| option.split(' ').map(str::to_owned)).collect();
    let address = ServerAddress { ip, port: server.port };
    let at = ServerPath::new(backend, &server.name).expect("a listed server's name is valid");
    let path = at.to_string();
    let server = Server {
        name: server.name.clone(),
        address,
        weight: server.weight,
        backup: server.backup,
        options,
    };
    let line = ServerCommand::Add { at, server: Box::new(server) }.to_string();
    let read = haproxy_reads(format!("{line}\n").as_bytes());
    assert_eq!(read.len(), 2 + 3 * usize::from(check) + usize::from(agent), "{line:?}");
    assert_eq!(
        read[0][..4],
        [b"add".as_slice(), b"server", path.as_bytes(), address.to_string().as_bytes()]
    );
    assert!(
        read[0].ends_with(&others.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>()),
        "{line:?}"
    );
    let (enabling, down) = read[1..].split_at(read.len() - 1 - 3 * usize::from(check));
    assert!(
        enabling
            .iter()
            .all(|words| words[0] == b"enable" && words.len() == 3 && words[2] == path.as_bytes()),
        "{line:?}"
    );
    let set = |what: &'static [u8], to: &'static [u8]| {
        [b"set".as_slice(), b"server", path.as_bytes(), what, to]
    };
    let entering = [set(b"state", b"drain"), set(b"health", b"down"), set(b"state", b"ready")];
    assert!(down.iter().zip(&entering).all(|(words, entering)| words == entering), "{line:?}");
}

/// The words of a line that must be one command.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut commands =
        haproxy_reads(format!("{}\n", line.strip_suffix('\n').unwrap_or(line)).as_bytes());
    assert_eq!(commands.len(), 1, "{line:?} is more than one command");
    commands
        .remove(0)
        .into_iter()
        .map(|word| String::from_utf8(word).expect("a word of UTF-8"))
        .collect()
}

/// A line as HAProxy's `cli_io_handler` and `cli_parse_request` read it: commands end at `;` and
/// the line's end, words at blanks, and the character after a backslash counts as it is. A `<<`
/// that begins a last word (2.6: ends a line) would wait for a payload.
pub(super) fn haproxy_reads(line: &[u8]) -> Vec<Vec<Vec<u8>>> {
    assert!(
        line.ends_with(b"\n") && !line[..line.len() - 1].contains(&b'\n'),
        "one line: {:?}",
        String::from_utf8_lossy(line)
    );
    let mut commands = vec![vec![]];
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line[..line.len() - 1].iter();
    let mut raw = vec![];
    let mut raws: Vec<Vec<u8>> = vec![];
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let escaped = bytes
                    .next()
                    .expect("a backslash before the line's end would take the end for a character");
                word.get_or_insert_default().push(*escaped);
                raw.extend_from_slice(&[*byte, *escaped]);
                continue;
            }
            b' ' | b'\t' | b';' => {
                commands.last_mut().expect("there is one").extend(word.take());
                if *byte == b';' {
                    commands.push(vec![]);
                    raws.push(std::mem::take(&mut raw));
                    continue;
                }
            }
            byte => word.get_or_insert_default().push(*byte),
        }
        raw.push(*byte);
    }
    commands.last_mut().expect("there is one").extend(word);
    raws.push(raw);
    for raw in raws {
        let last = raw.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        assert!(
            !last.starts_with(b"<<") && !raw.ends_with(b"<<"),
            "{:?} waits for a payload",
            String::from_utf8_lossy(&raw)
        );
    }
    commands
}
