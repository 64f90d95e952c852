use super::*;

fn counts(moved: usize, removed: usize) -> ChangeCounts {
    ChangeCounts { added: 0, moved, removed }
}

/// A verdict on a change with nothing lately.
fn check_within(
    subject: Subject,
    limits: &Limits,
    in_force: Option<usize>,
    entries: usize,
    counts: ChangeCounts,
) -> Result<(), String> {
    super::check(
        subject,
        limits,
        &Proposal { in_force, entries, counts, recent: Recent::default() },
    )
}

#[test]
fn an_empty_answer_is_held_even_at_the_first_start() {
    let reason = check_within(Subject::Map, &Limits::default(), None, 0, counts(0, 0)).unwrap_err();
    assert!(reason.contains("0 entries") && reason.contains("guard.min_entries"), "{reason}");
    assert!(check_within(Subject::Map, &Limits::default(), Some(10), 0, counts(0, 10)).is_err());
}

#[test]
fn a_change_at_the_limit_passes_and_one_entry_more_is_held() {
    let limits = Limits::default();
    assert_eq!(check_within(Subject::Map, &limits, Some(100), 80, counts(50, 20)), Ok(()));
    assert_eq!(
        check_within(Subject::Map, &limits, Some(100), 79, counts(0, 21)).unwrap_err(),
        "the change would remove 21 of the 100 entries in force (21.0%), guard.max_removed \
            allows 20%"
    );
    assert_eq!(
        check_within(Subject::Map, &limits, Some(100), 100, counts(51, 0)).unwrap_err(),
        "the change would move 51 of the 100 entries in force (51.0%), guard.max_moved allows \
            50%"
    );
}

#[test]
fn the_figures_of_a_broken_limit_are_never_equal() {
    let limits = |percent| Limits { max_removed: Limit::Percent(percent), ..Limits::default() };
    for (percent, removed, in_force, told) in [
        (50.0, 50_001, 100_000, "(50.001%), guard.max_removed allows 50%"),
        (50.0, 500_001, 1_000_000, "(50.0001%), guard.max_removed allows 50%"),
        (12.5, 126, 1_000, "(12.6%), guard.max_removed allows 12.5%"),
        (33.3, 1, 3, "(33.33%), guard.max_removed allows 33.3%"),
        (20.0, 21, 100, "(21.0%), guard.max_removed allows 20%"),
        (0.0, 1, 1_000_000, "(0.0001%), guard.max_removed allows 0%"),
    ] {
        let limits = Limits { small: 0, ..limits(percent) };
        let reason = check_within(
            Subject::Map,
            &limits,
            Some(in_force),
            in_force - removed,
            counts(0, removed),
        )
        .unwrap_err();
        assert!(reason.ends_with(told), "{reason}");
    }
}

#[test]
fn small_maps_are_exempt_from_shares_but_not_from_numbers() {
    assert_eq!(check_within(Subject::Map, &Limits::default(), Some(19), 1, counts(1, 18)), Ok(()));
    assert!(check_within(Subject::Map, &Limits::default(), Some(20), 1, counts(1, 18)).is_err());
    let limits = Limits { max_removed: Limit::Entries(5), ..Limits::default() };
    assert!(check_within(Subject::Map, &limits, Some(19), 13, counts(0, 6)).is_err());
    assert_eq!(check_within(Subject::Map, &limits, Some(1_000_000), 999_995, counts(0, 5)), Ok(()));
}

#[test]
fn the_first_map_ever_only_has_to_be_large_enough() {
    assert_eq!(check_within(Subject::Map, &Limits::default(), None, 1, counts(0, 0)), Ok(()));
}

#[test]
fn growth_is_held_once_the_map_is_large_and_a_ceiling_holds_at_any_size() {
    let added = |added| ChangeCounts { added, ..ChangeCounts::default() };
    let limits = Limits::default();
    assert_eq!(check_within(Subject::Map, &limits, Some(200), 9_999, added(9_799)), Ok(()));
    assert_eq!(check_within(Subject::Map, &limits, Some(10_000), 20_000, added(10_000)), Ok(()));
    assert_eq!(
        check_within(Subject::Map, &limits, Some(200), 2_000_200, added(2_000_000)).unwrap_err(),
        "the change would add 2000000 to the 200 entries in force (1000000.0%), \
            guard.max_added allows 100%"
    );
    assert_eq!(
        check_within(Subject::Map, &limits, Some(0), 2_000_000, added(2_000_000)),
        Ok(()),
        "a first fill"
    );
    let number = Limits { max_added: Limit::Entries(500), ..Limits::default() };
    assert_eq!(check_within(Subject::Map, &number, Some(20_000), 20_500, added(500)), Ok(()));
    assert!(check_within(Subject::Map, &number, Some(20_000), 20_501, added(501)).is_err());
    let ceiling = Limits { max_entries: Some(300), ..Limits::default() };
    assert_eq!(check_within(Subject::Map, &ceiling, Some(200), 300, added(100)), Ok(()));
    for in_force in [None, Some(0), Some(200)] {
        assert_eq!(
            check_within(Subject::Map, &ceiling, in_force, 301, added(101)).unwrap_err(),
            "the new map has 301 entries, guard.max_entries allows 300"
        );
    }
    assert_eq!(
        check_within(Subject::Map, &ceiling, Some(400), 399, counts(0, 1)),
        Ok(()),
        "on its way back under it"
    );
    assert_eq!(check_within(Subject::Servers, &ceiling, Some(400), 401, added(1)), Ok(()));
}

#[test]
fn what_went_lately_counts_with_what_goes_now_against_the_most_that_there_was() {
    let lately =
        |moved, removed| Recent { most: 200, counts: counts(moved, removed), ..Recent::default() };
    let check_within = |in_force, entries, counts, recent| {
        super::check(
            Subject::Map,
            &Limits::default(),
            &Proposal { in_force: Some(in_force), entries, counts, recent },
        )
    };
    assert_eq!(check_within(180, 160, counts(0, 20), lately(0, 20)), Ok(()));
    assert_eq!(
        check_within(160, 128, counts(0, 32), lately(0, 40)).unwrap_err(),
        "the change would remove 32 of the 160 entries in force, 72 of 200 within 1h (36.0%), \
            guard.max_removed allows 20%"
    );
    assert!(
        check_within(15, 14, counts(0, 1), lately(0, 185)).is_err(),
        "it was not small within the window"
    );
    assert_eq!(
        check_within(160, 160, counts(10, 0), lately(0, 60)),
        Ok(()),
        "what went lately holds no other change"
    );
    assert!(check_within(200, 200, counts(60, 0), lately(60, 0)).is_err());
    let recent = Recent { is_return: true, ..lately(0, 40) };
    assert_eq!(check_within(160, 20, counts(0, 140), recent), Ok(()), "it was like that before");
    let all = Limits { max_moved: Limit::Percent(100.0), ..Limits::default() };
    let recent = lately(200, 0);
    let proposal = Proposal { in_force: Some(200), entries: 200, counts: counts(200, 0), recent };
    assert_eq!(
        super::check(Subject::Map, &all, &proposal),
        Ok(()),
        "100% allows everything, twice too"
    );
}

#[test]
fn servers_that_are_replaced_one_after_the_other_never_add_up_and_a_list_that_shrinks_does() {
    let lately =
        |moved, removed| Recent { most: 20, counts: counts(moved, removed), ..Recent::default() };
    let check_within = |in_force, entries, counts, recent| {
        super::check(
            Subject::Servers,
            &Limits::default(),
            &Proposal { in_force: Some(in_force), entries, counts, recent },
        )
    };
    assert_eq!(check_within(20, 20, counts(0, 1), lately(0, 19)), Ok(()));
    assert_eq!(check_within(20, 20, counts(1, 0), lately(19, 0)), Ok(()));
    assert_eq!(check_within(17, 16, counts(0, 1), lately(0, 3)), Ok(()));
    assert!(check_within(16, 15, counts(0, 1), lately(0, 4)).is_err());
}

#[test]
fn no_map_loses_every_key_at_once_however_small() {
    for (in_force, entries, word) in
        [(1, 1, "replace"), (3, 5, "replace"), (19, 1, "replace"), (3, 0, "remove")]
    {
        let limits =
            Limits { min_entries: 0, max_removed: Limit::Percent(100.0), ..Limits::default() };
        let reason =
            check_within(Subject::Map, &limits, Some(in_force), entries, counts(0, in_force))
                .unwrap_err();
        assert!(
            reason.contains(&format!("{word} every key of the {in_force} entries")),
            "{reason}"
        );
    }
    assert_eq!(check_within(Subject::Map, &Limits::default(), Some(3), 1, counts(0, 2)), Ok(()));
    assert_eq!(
        check_within(Subject::Map, &Limits::default(), Some(3), 3, counts(3, 0)),
        Ok(()),
        "moves of a few nodes are no loss"
    );
}

#[test]
fn entries_that_point_nowhere_are_held_when_their_share_grows_beyond_the_limit() {
    let limits = Limits::default();
    let check_within = |before, after| check_references(&limits, before, after);
    assert_eq!(check_within((0, 100), (20, 100)), Ok(()));
    assert_eq!(
        check_within((0, 100), (50, 100)).unwrap_err(),
        "the change would lead 50 of 100 entries (50.0%) to masters that an instance has no \
            ready backend or server for, 0 of 100 are \
         led there now, guard.max_removed allows 20% more"
    );
    assert_eq!(check_within((100, 100), (200, 200)), Ok(()), "the gateway has none of them yet");
    assert_eq!(check_within((50, 100), (40, 41)), Ok(()), "fewer than before");
    assert_eq!(check_within((0, 0), (50, 50)), Ok(()), "a first fill");
    assert_eq!(check_within((0, 19), (19, 19)), Ok(()), "a small map");
    assert!(check_within((0, 100), (100, 200)).is_err(), "new nodes count too");
    let number = Limits { max_removed: Limit::Entries(5), ..Limits::default() };
    assert!(check_references(&number, (1, 10), (7, 10)).is_err());
    assert_eq!(check_references(&number, (1, 10), (6, 10)), Ok(()));
}

#[test]
fn a_server_list_is_judged_like_a_map_but_for_the_least_size() {
    let limits = Limits { min_entries: 1000, ..Limits::default() };
    assert_eq!(check_within(Subject::Servers, &limits, None, 1, counts(0, 0)), Ok(()));
    assert_eq!(
        check_within(Subject::Servers, &limits, Some(3), 0, counts(0, 3)).unwrap_err(),
        "the new server list has 0 servers, guard.min_entries requires at least 1"
    );
    assert_eq!(
        check_within(Subject::Servers, &limits, Some(20), 10, counts(0, 10)).unwrap_err(),
        "the change would remove 10 of the 20 servers in force (50.0%), guard.max_removed \
            allows 20%"
    );
    assert_eq!(check_within(Subject::Servers, &limits, Some(19), 1, counts(0, 18)), Ok(()));
}

#[test]
fn limits_are_written_as_shares_or_numbers() {
    assert_eq!("20%".parse(), Ok(Limit::Percent(20.0)));
    assert_eq!("2.5 %".parse(), Ok(Limit::Percent(2.5)));
    assert_eq!("500".parse(), Ok(Limit::Entries(500)));
    for wrong in ["", "%", "-1%", "101%", "NaN%", "many"] {
        assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
    }
}
