//! Lists of members: what an operator orders of their version passes, and nothing beside it does.

use mapsmith_core::Note;
use mapsmith_core::members::{
    BackendVersion, Member, MemberChange, MemberKey, MemberListings, Members, listing,
};

use super::*;

const OF_MEMBERS: &str = "[store]\npath = \"/m.db\"\n[[backend]]\nname = \"live\"\n\
    from = { source = \"registrations\", name = \"web\", version = \"1\" }\nmanage = \"all\"\n";

struct Registered {
    scene: Scene,
    members: Members,
    version: BackendVersion,
    order: u64,
}

impl Registered {
    fn start() -> Self {
        let (scene, members) = (Scene::start(OF_MEMBERS), Members::default());
        let version = BackendVersion::declared("live", "web", "1", Timestamp::UNIX_EPOCH);
        Self { scene, members, version, order: 0 }
    }

    fn keys(version: &str, ports: std::ops::Range<u16>) -> Vec<MemberKey> {
        let key = |port: u16| MemberKey::new("web", version, "10.0.0.1", &port.to_string());
        ports.map(|port| key(port).unwrap()).collect()
    }

    fn change(&mut self, changes: Vec<MemberChange>) {
        let batch = self.members.prepare(&changes);
        self.members.apply(batch);
    }

    fn register(&mut self, version: &str, ports: std::ops::Range<u16>) {
        let member = |key| {
            MemberChange::Register(Member {
                key,
                meta: Default::default(),
                ttl: None,
                since: Timestamp::UNIX_EPOCH,
                by: None,
            })
        };
        self.change(Self::keys(version, ports).into_iter().map(member).collect());
    }

    fn expire(&mut self, version: &str, ports: std::ops::Range<u16>) {
        self.members.expire(&Self::keys(version, ports), Timestamp::UNIX_EPOCH);
    }

    fn switch(&mut self, version: &str) {
        let ordered = self.version.switched(version, None, Timestamp::UNIX_EPOCH, Note::default());
        (self.version, self.order) = (ordered.unwrap(), self.order + 1);
    }

    fn goes_on(&mut self) {
        (self.version, self.order) = (self.version.next(), self.order + 1);
    }

    /// Decides at that second, and gives the ports of the servers in force.
    async fn ports(&mut self, second: u64) -> Vec<u16> {
        let list = listing(&self.members, &self.version, self.order);
        let of = [("live".to_owned(), list)].into();
        self.scene.decider.register(Arc::new(MemberListings { number: second, of }));
        self.scene.decide(second).await;
        assert_eq!(self.scene.decider.evaluated_members(), second);
        let desired = self.scene.desired("live").unwrap_or_default();
        let mut ports: Vec<_> = desired.servers.values().map(|it| it.address.port).collect();
        ports.sort_unstable();
        ports
    }

    fn held(&self) -> bool {
        self.scene.status("live").held.is_some()
    }
}

#[tokio::test]
async fn members_count_at_once_and_those_that_end_it_themselves_need_not_be_waited_for() {
    let mut it = Registered::start();
    assert_eq!(it.ports(0).await, [0u16; 0]);
    assert!(!it.held(), "nobody has to let through that there is nobody yet");
    it.register("1", 1..5);
    it.register("2", 1..9);
    assert_eq!(it.ports(1).await, [1, 2, 3, 4]);
    it.change(Registered::keys("1", 1..3).into_iter().map(MemberChange::Unregister).collect());
    assert_eq!(it.ports(2).await, [3, 4], "no debounce, no hold, no throttle");
    it.expire("1", 3..4);
    assert_eq!(it.ports(3).await, [3, 4], "silence is damped like any other list's loss");
    assert_eq!(it.ports(34).await, [4]);
    it.expire("1", 4..5);
    assert_eq!(it.ports(99).await, [4]);
    assert!(it.held(), "the last one stays");
    it.register("1", 4..6);
    assert_eq!(it.ports(100).await, [4, 5]);
    assert!(!it.held());
}

#[tokio::test]
async fn the_guard_holds_those_that_expire_together_and_no_switch() {
    let mut it = Registered::start();
    it.register("1", 1..41);
    it.register("2", 100..102);
    assert_eq!(it.ports(1).await.len(), 40);
    it.expire("1", 1..21);
    assert_eq!(it.ports(2).await.len(), 40);
    assert!(it.held());

    it.switch("2");
    assert_eq!(it.ports(3).await.len(), 42, "all that serve stay");
    it.goes_on();
    assert_eq!(it.ports(4).await, [100, 101], "as the order says, at once");
    assert!(!it.held());
    it.switch("1");
    assert_eq!(it.ports(5).await.len(), 22, "those that are expired are not brought back");
    it.goes_on();
    assert_eq!(it.ports(6).await, (21..41).collect::<Vec<_>>());
    it.goes_on();
    assert_eq!(it.ports(7).await.len(), 20);

    // Back from such a number to two is still the guard's case: the order is over.
    it.expire("1", 23..41);
    assert_eq!(it.ports(8).await.len(), 20);
    assert!(it.held());
}

#[tokio::test]
async fn a_switch_is_no_way_past_the_guard_for_members_that_expire_meanwhile() {
    let mut it = Registered::start();
    it.register("1", 1..3);
    it.register("2", 100..140);
    assert_eq!(it.ports(1).await.len(), 2);
    it.switch("2");
    assert_eq!(it.ports(2).await.len(), 42);
    it.expire("2", 100..130);
    it.goes_on();
    let left = it.ports(3).await;
    assert_eq!(left, (100..140).collect::<Vec<_>>(), "the old ones are gone, the silent ones stay");
    assert!(it.held());
}
