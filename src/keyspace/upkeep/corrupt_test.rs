//! One line per cluster: what members tell, and for whom the alarm is raised (etcd `corrupt_test.go`).

use parking_lot::Mutex;

use super::*;

const OWN: MemberId = MemberId(42);

/// A leader among members that tell what they are told to.
#[derive(Default)]
struct Cluster {
    /// What hashing oneself gives, call by call; the last one for good.
    own: Mutex<Vec<(KvHash, i64)>>,
    peers: Vec<PeerHash>,
    left: Vec<KvHash>,
    asked: Mutex<Vec<i64>>,
    alarms: Mutex<Vec<u64>>,
}

impl Hasher for &Cluster {
    fn member(&self) -> MemberId {
        OWN
    }
    fn leads(&self) -> bool {
        true
    }
    async fn hash(&self, _revision: i64) -> Result<(KvHash, i64), KeyspaceError> {
        let mut own = self.own.lock();
        Ok(if own.len() > 1 { own.remove(0) } else { own[0] })
    }
    async fn peers(&self, revision: i64) -> Vec<PeerHash> {
        self.asked.lock().push(revision);
        self.peers.clone()
    }
    fn compactions(&self) -> Vec<KvHash> {
        self.left.clone()
    }
    async fn linearize(&self) -> Result<(), KeyspaceError> {
        Ok(())
    }
    async fn raise(&self, member: MemberId) {
        self.alarms.lock().push(member.0);
    }
}

/// Hash, compact revision, revision.
fn hash(hash: u32, compact_revision: i64, revision: i64) -> KvHash {
    KvHash { hash, compact_revision, revision }
}

fn told(member: u64, told: KvHash, current: i64) -> PeerHash {
    PeerHash { member: MemberId(member), told: Ok(Told { hash: told, current }) }
}

fn silent(member: u64, why: NoHash) -> PeerHash {
    PeerHash { member: MemberId(member), told: Err(why) }
}

#[tokio::test]
async fn a_member_refuses_to_serve_with_other_data_than_a_peer() {
    let rows = [
        (vec![], true),
        (vec![told(1, hash(9, 3, 20), 20)], true),
        (vec![told(1, hash(8, 3, 20), 20)], false),
        (vec![told(1, hash(8, 4, 20), 20)], true),
        (vec![silent(1, NoHash::Future), silent(2, NoHash::Compacted)], true),
        (vec![silent(1, NoHash::Silent), told(2, hash(8, 3, 20), 25)], false),
    ];
    for (peers, serves) in rows {
        let own = Mutex::new(vec![(hash(9, 3, 20), 20)]);
        let cluster = Cluster { own, peers: peers.clone(), ..Cluster::default() };
        let checked = Checker::new(&cluster).initial().await.unwrap();
        assert_eq!(checked.is_ok(), serves, "{peers:?}");
        assert_eq!(*cluster.asked.lock(), [20], "at the revision that this member has");
        assert!(cluster.alarms.lock().is_empty(), "it only stays away");
    }
    assert_eq!(Inconsistent(OWN).to_string(), "2a found data inconsistency with peers");
}

#[tokio::test]
async fn the_periodic_check_accuses_whoever_differs_first() {
    let same = || (hash(9, 3, 20), 20);
    #[rustfmt::skip]
    let rows = [
        // own hash twice,                          peers,                                          alarms
        (vec![same()],                              vec![told(1, hash(9, 3, 20), 20)],              vec![]),
        (vec![same()],                              vec![silent(1, NoHash::Silent)],                vec![]),
        (vec![same(), (hash(7, 3, 20), 20)],        vec![told(1, hash(8, 3, 20), 20)],              vec![42]),
        (vec![same(), (hash(7, 3, 21), 21)],        vec![told(1, hash(9, 3, 20), 21)],              vec![]),
        (vec![same(), (hash(7, 4, 20), 20)],        vec![told(1, hash(9, 3, 20), 20)],              vec![]),
        (vec![same()],                              vec![told(1, hash(9, 3, 20), 21)],              vec![1]),
        (vec![same(), (hash(7, 3, 21), 21)],        vec![told(1, hash(9, 3, 20), 22)],              vec![1]),
        (vec![same()],                              vec![told(1, hash(8, 4, 20), 20)],              vec![1]),
        (vec![same(), (hash(7, 4, 20), 20)],        vec![told(1, hash(8, 4, 20), 20)],              vec![]),
        (vec![same()],                              vec![told(1, hash(8, 3, 20), 20)],              vec![1]),
        (vec![same()],                              vec![told(1, hash(8, 2, 20), 20)],              vec![]),
        (vec![same()],                              vec![told(1, hash(8, 3, 20), 20), told(2, hash(8, 3, 20), 20)], vec![1]),
    ];
    for (own, peers, alarms) in rows {
        let cluster =
            Cluster { own: Mutex::new(own.clone()), peers: peers.clone(), ..Cluster::default() };
        Checker::new(&cluster).periodic().await.unwrap();
        assert_eq!(*cluster.alarms.lock(), alarms, "{own:?} {peers:?}");
    }
}

#[tokio::test]
async fn the_majority_of_a_compactions_hashes_is_right() {
    let own = hash(9, 3, 20);
    let other = |id| told(id, hash(8, 3, 20), 30);
    let alike = |id| told(id, hash(9, 3, 20), 30);
    #[rustfmt::skip]
    let rows = [
        // peers,                                                           alarms
        (vec![alike(1), alike(2)],                                          vec![]),
        (vec![alike(1), other(2)],                                          vec![2]),
        (vec![other(1), other(2)],                                          vec![42]),
        (vec![other(1)],                                                    vec![0]),
        (vec![other(1), told(2, hash(7, 3, 20), 30)],                       vec![0]),
        (vec![other(1), silent(2, NoHash::Silent)],                         vec![0]),
        (vec![told(1, hash(8, 2, 20), 30), alike(2)],                       vec![]),
        (vec![alike(1), alike(2), other(3), told(4, hash(7, 3, 20), 30)],   vec![4, 3]),
        (vec![other(1), other(2), other(3), alike(4)],                      vec![42, 4]),
    ];
    for (peers, alarms) in rows {
        let cluster = Cluster { peers: peers.clone(), left: vec![own], ..Cluster::default() };
        Checker::new(&cluster).compactions().await;
        assert_eq!(*cluster.alarms.lock(), alarms, "{peers:?}");
    }
}

#[tokio::test]
async fn older_compactions_are_compared_until_all_members_had_one() {
    let left = vec![hash(1, 0, 10), hash(3, 20, 30), hash(2, 10, 20)];
    let mut cluster = Cluster { left, ..Cluster::default() };
    cluster.peers = vec![silent(1, NoHash::Silent)];
    let mut checker = Checker::new(&cluster);
    checker.compactions().await;
    assert_eq!(std::mem::take(&mut *cluster.asked.lock()), [30, 20, 10]);
    cluster.peers = vec![told(1, hash(3, 20, 30), 30)];
    let mut checker = Checker::new(&cluster);
    checker.compactions().await;
    checker.compactions().await;
    assert_eq!(*cluster.asked.lock(), [30], "what was compared is not compared again");
    assert!(cluster.alarms.lock().is_empty());
}
