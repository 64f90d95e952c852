use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;

fn revision(number: u64, entries: &[(&str, &str)]) -> Revision {
    Revision {
        number,
        at: Timestamp::UNIX_EPOCH,
        entries: Arc::new(entries.iter().copied().collect()),
    }
}

/// Writes a revision of what the sources said.
fn write(
    writer: &mut MapFileWriter,
    number: u64,
    entries: &[(&str, &str)],
) -> Result<(), WriteError> {
    let revision = revision(number, entries);
    writer.write(&revision, &revision.entries, &GoneNodes::default())
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_written_file_is_read_back_with_its_revision_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = MapFileWriter::new(&folder.path().join("n.map"));
    assert!(writer.load().unwrap().is_none());
    write(&mut writer, 7, &[("a", "m1")]).unwrap();
    let file = writer.load().unwrap().unwrap();
    assert_eq!((file.revision(), file.entries.get("a")), (Some(7), Some("m1")));
    assert_eq!(files(folder.path()), ["n.map"]);
}

#[test]
fn mode_and_owner_of_the_file_in_place_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let root = std::os::unix::fs::chown(&path, Some(1), Some(1)).is_ok();
    write(&mut MapFileWriter::new(&path), 1, &[("a", "m1")]).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    if root {
        assert_eq!((metadata.uid(), metadata.gid()), (1, 1));
    }
}

#[test]
fn a_symbolic_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.map"), folder.path().join("link.map"));
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    write(&mut MapFileWriter::new(&link), 1, &[("a", "m1")]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().ends_with("a m1\n"));
}

#[test]
fn a_lost_or_changed_file_is_noticed_and_the_same_map_by_another_hand_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    let mut writer = MapFileWriter::new(&path);
    let wanted = revision(1, &[("a", "m1")]);
    writer.write(&wanted, &wanted.entries, &GoneNodes::default()).unwrap();
    assert!(matches!(writer.check(&wanted.entries), Check::Same));
    fs::write(&path, "a  m1\n").unwrap();
    assert!(matches!(writer.check(&wanted.entries), Check::Same));
    fs::write(&path, "a m2\n").unwrap();
    assert!(matches!(writer.check(&wanted.entries), Check::Different));
    fs::remove_file(&path).unwrap();
    assert!(matches!(writer.check(&wanted.entries), Check::Different));
}

#[test]
fn a_failed_write_names_the_file_and_leaves_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("n.map");
    let message = write(&mut MapFileWriter::new(&path), 1, &[("a", "m1")]).unwrap_err().to_string();
    assert!(
        message.contains("absent/n.map") && message.contains("the folder must exist"),
        "{message}"
    );
}

#[test]
fn what_a_killed_writer_left_is_cleared_away_and_what_a_living_one_writes_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    let (left, living) = (temporary_path(&path), temporary_path(&path));
    fs::write(&left, "half").unwrap();
    let writer = File::create(&living).unwrap();
    writer.lock().unwrap();
    fs::write(folder.path().join(".other.map.mapsmith-0123456789abcdef.tmp"), "not ours").unwrap();
    MapFileWriter::new(&path).load().unwrap();
    assert!(!left.exists() && living.exists());
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn a_file_of_which_haproxy_would_load_more_is_not_the_map_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    let wanted = revision(1, &[("a", "m1")]);
    for text in ["a m1\na m2\n", "a m1\nevil two words\n", "a m1\nlonely\n"] {
        fs::write(&path, text).unwrap();
        let mut writer = MapFileWriter::new(&path);
        assert_eq!(writer.load().unwrap().unwrap().entries, *wanted.entries, "{text:?}");
        assert!(matches!(writer.check(&wanted.entries), Check::Different), "{text:?}");
    }
}

#[test]
fn what_is_not_a_regular_file_is_never_replaced_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("n.map");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    for path in [fifo.as_path(), folder.path(), Path::new("/dev/null")] {
        let mut writer = MapFileWriter::new(path);
        let kind = fs::metadata(path).unwrap().file_type();
        let wanted = revision(1, &[("a", "m1")]);
        assert!(matches!(writer.check(&wanted.entries), Check::Unusable(_)), "{path:?}");
        for message in [
            writer.peek().unwrap_err().to_string(),
            writer.write(&wanted, &wanted.entries, &GoneNodes::default()).unwrap_err().to_string(),
        ] {
            assert!(message.contains("not a regular file"), "{message}");
        }
        assert_eq!(fs::metadata(path).unwrap().file_type(), kind, "{path:?} is what it was");
    }
    assert_eq!(files(folder.path()), ["n.map"]);
}

#[test]
fn a_file_of_absurd_size_is_an_error_that_costs_no_memory_and_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    File::create(&path).unwrap().set_len(8 << 30).unwrap();
    let mut writer = MapFileWriter::new(&path);
    let message = writer.peek().unwrap_err().to_string();
    assert!(message.contains("8589934592 bytes, more than 1073741824"), "{message}");
    let wanted = revision(1, &[("a", "m1")]);
    assert!(matches!(writer.check(&wanted.entries), Check::Different));
    write(&mut writer, 1, &[("a", "m1")]).unwrap();
    assert!(matches!(writer.check(&wanted.entries), Check::Same));
}

#[test]
fn extended_attributes_and_access_control_lists_of_the_file_in_place_are_kept() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    fs::write(&path, "").unwrap();
    // Version 2: owner rw, user 65534 r, group -, mask r, others -.
    let entry = |tag: u16, mode: u16, id: u32| {
        [&tag.to_le_bytes()[..], &mode.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let list = [
        entry(1, 6, none),
        entry(2, 4, 65534),
        entry(4, 0, none),
        entry(16, 4, none),
        entry(32, 0, none),
    ]
    .concat();
    let list = [&2u32.to_le_bytes()[..], &list].concat();
    let wanted: Vec<(&str, &[u8])> =
        [("user.origin", &b"site"[..]), ("system.posix_acl_access", &list)]
            .into_iter()
            .filter(|(name, value)| match setxattr(&path, *name, value, XattrFlags::empty()) {
                Ok(()) => true,
                Err(rustix::io::Errno::OPNOTSUPP) => false,
                Err(error) => panic!("{name}: {error}"),
            })
            .collect();
    write(&mut MapFileWriter::new(&path), 1, &[("a", "m1")]).unwrap();
    for (name, value) in wanted {
        let mut found = [0; 256];
        let length = getxattr(&path, name, &mut found)
            .unwrap_or_else(|error| panic!("{name} is lost: {error}"));
        assert_eq!(&found[..length], value, "{name}");
    }
}

#[test]
fn a_file_that_another_mapsmith_goes_on_writing_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.map");
    let mut other = MapFileWriter::new(&path);
    other.writer =
        Writer { site: Some("fra".to_owned()), host: "gw2".to_owned(), pid: 7, key: String::new() };
    write(&mut other, 1, &[("a", "m1")]).unwrap();
    // A start after the other one has ended: its file is the last good map, and taken over with
    // the first write.
    let mut ours = MapFileWriter::new(&path);
    ours.writer = Writer { site: None, host: "gw1".to_owned(), pid: 5, key: String::new() };
    ours.load().unwrap();
    write(&mut ours, 2, &[("a", "m2")]).unwrap();
    // The other one runs after all, and finds that it is ours now.
    let entries = revision(2, &[("a", "m3")]).entries;
    assert!(matches!(other.check(&entries), Check::Foreign(writer) if writer == ours.writer));
    let error = write(&mut other, 2, &[("a", "m3")]).unwrap_err();
    assert!(matches!(&error, WriteError::Foreign(writer) if *writer == ours.writer), "{error}");
    assert!(fs::read_to_string(&path).unwrap().ends_with("a m2\n"));
    // An old copy that somebody puts back is no work of the other one.
    fs::write(
        &path,
        "# Written by Mapsmith: external changes are overwritten. Revision 1\n# Writer: pid 7 \
            on gw2 (site fra) []\na m9\n",
    )
    .unwrap();
    assert!(matches!(ours.check(&revision(2, &[("a", "m2")]).entries), Check::Different));
    // Nor is what one wrote that has ended on this host.
    let ended = Writer { pid: u32::MAX, ..this_process(None) };
    assert_eq!(
        (state_of(&ended), state_of(&other.writer)),
        (WriterState::Gone, WriterState::Unknown)
    );
    let text = format!(
        "# Written by Mapsmith: external changes are overwritten. Revision 9\n# Writer: \
            {ended} [{}]\na m9\n",
        ended.key
    );
    fs::write(&path, text).unwrap();
    assert!(matches!(ours.check(&revision(2, &[("a", "m2")]).entries), Check::Different));
    write(&mut ours, 2, &[("a", "m2")]).unwrap();
    // Told to take it over, it reads the file again first.
    other.load().unwrap();
    write(&mut other, 3, &[("a", "m3")]).unwrap();
    let error = write(&mut ours, 3, &[("a", "m1")]).unwrap_err().to_string();
    assert!(error.contains("pid 7 on gw2 (site fra)"), "{error}");
}
