//! What is known of lists outlives a change of the settings.

use std::path::Path;

use super::*;

impl Scene {
    /// Goes on with other settings, as everything does that begins anew.
    fn begin_anew(&mut self, edit: impl Fn(&str) -> String) {
        let clock = tokio::time::Instant::now();
        let path = Path::new("/nowhere.map");
        let map = MapDecider::without_map(Limits::default(), path, Arc::default()).memory();
        let memory = Memory { clock, map, lists: self.decider.memory() };
        let desired = self.decider.desired().unwrap_or_default();
        let list = |(name, backend): (&String, &DesiredBackend)| {
            let servers = backend.servers.clone();
            let origin = "source consul".to_owned();
            (name.clone(), LastGoodList { origin, since: None, confirmed: None, servers })
        };
        let lists = desired.backends.iter().map(list).collect();
        let decider = ServerDecider::new(&settings(&edit(SETTINGS)));
        self.decider = decider.go_on(&lists).remember(&memory);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_leaves_at_its_time_however_often_all_begins_anew() {
    let mut scene = Scene::start("");
    scene.lists(0..10);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.lists(1..10);
    scene.decide(10).await;
    for second in [11, 15, 20, 30, 39] {
        scene.begin_anew(|text| format!("{text}{WRITTEN}"));
        assert_eq!(scene.servers("listed").len(), 10, "at {second} s, before any answer");
        scene.decide(second).await;
        assert_eq!(scene.servers("listed").len(), 10, "at {second} s");
        assert_eq!(scene.status("listed").leaving.len(), 1, "at {second} s");
    }
    scene.begin_anew(str::to_owned);
    scene.decide(40).await;
    assert_eq!(scene.servers("listed").len(), 9, "30 s after it was last listed");
    let former = scene.desired("listed").unwrap().former;
    assert!(former.contains("s00"), "it is Mapsmith's to remove: {former:?}");
}

#[tokio::test]
async fn what_went_within_the_window_counts_however_often_all_begins_anew() {
    let mut scene = Scene::start("");
    scene.lists(0..100);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.lists(0..82);
    scene.decide(60).await;
    assert_eq!(scene.status("listed").held, None);
    for second in [120, 180] {
        scene.begin_anew(str::to_owned);
        scene.lists(0..70);
        scene.decide(second).await;
        let held = scene.status("listed").held.expect("it is held");
        assert!(held.reason.contains("30 of 100 within 1h"), "{}", held.reason);
    }
    let held = scene.status("listed").held;
    scene.begin_anew(str::to_owned);
    assert_eq!(scene.status("listed").held, held, "it is shown before any answer");
    // Another pace, and a list from elsewhere, are judged by what is in force alone.
    scene.begin_anew(|text| text.replace("30s", "31s"));
    assert_eq!(scene.status("listed").held, None);
}

#[tokio::test]
async fn a_backend_without_a_server_that_changed_settings_add_has_nothing_that_is_held() {
    let mut scene = Scene::start("");
    scene.decide(0).await;
    scene.begin_anew(|text| format!("{text}[[backend]]\nname = \"written\"\nservers = []\n"));
    assert_eq!(scene.desired("written").map(|it| it.servers.len()), Some(0));
    scene.decide(1).await;
    assert_eq!(scene.status("written").held, None);
}

#[tokio::test]
async fn a_backend_without_a_server_is_held_where_changed_settings_put_it_over_others_servers() {
    // A HAProxy that Mapsmith starts had no such backend before.
    let managed = |text: &str| {
        let (sources, rest) = text.split_once("[[instance]]").unwrap();
        let (_, rest) = rest.split_once("[damping]").unwrap();
        format!("{sources}[haproxy]\nmanaged = true\n[store]\npath = \"s.db\"\n[damping]{rest}")
    };
    for (more, is_held) in [
        ("manage = \"all\"\n", true),
        ("slots = \"slot\"\n", true),
        ("manage = \"all\"\nempty = \"accept\"\n", false),
        ("", false),
    ] {
        let mut scene = Scene::start("");
        scene.decide(0).await;
        let written = format!("[[backend]]\nname = \"written\"\nservers = []\n{more}");
        scene.begin_anew(|text| format!("{text}{written}"));
        assert_eq!(scene.desired("written").is_none(), is_held, "{more:?}, at once");
        scene.decide(1).await;
        let status = scene.status("written");
        assert_eq!(status.held.is_some(), is_held, "{more:?}: {:?}", status.held);
        assert_eq!(scene.desired("written").is_none(), is_held, "{more:?}");
        scene.begin_anew(|text| format!("{text}{written}"));
        assert_eq!(scene.desired("written").is_none(), is_held, "{more:?}, once more");

        let mut scene = Scene::start_with(managed);
        scene.decide(0).await;
        scene.begin_anew(|text| format!("{}{written}", managed(text)));
        scene.decide(1).await;
        assert_eq!(scene.status("written").held, None, "{more:?}: no other has servers there");
    }
}
