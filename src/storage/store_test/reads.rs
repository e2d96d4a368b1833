use super::rig::{Place, open, put};
use quorate_core::api::ids::Revision;
use quorate_core::api::view::View;

#[test]
fn a_revision_reads_the_same_from_the_tail_and_from_the_state_store() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    for n in 0..300u32 {
        member.propose(vec![put("a", &n.to_le_bytes()), put("b", &vec![7; n as usize])]);
        let main = i64::from(n) * 2 + 2;
        let kv = member.store.view().key_value(Revision::new(main, 0)).unwrap();
        assert_eq!(kv.value, n.to_le_bytes()[..]);
    }
    member.settle();
    for n in (0..300u32).rev() {
        let main = i64::from(n) * 2 + 2;
        let kv = member.store.view().key_value(Revision::new(main, 0)).unwrap();
        assert_eq!(kv.value, n.to_le_bytes()[..]);
        assert_eq!(kv.mod_revision, main);
        let kv = member.store.view().key_value(Revision::new(main + 1, 0)).unwrap();
        assert_eq!(kv.value.len(), n as usize);
    }
}

#[test]
fn a_scan_goes_on_from_the_state_store_into_the_tail_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    let view = member.store.view();
    for n in 0..2000i64 {
        member.propose(vec![put("key", &n.to_le_bytes())]);
        if n % 50 == 0 {
            let mut from = Revision::new(n - 500, 0);
            let mut expected = (n - 500).max(2);
            while expected <= n + 2 {
                let part = view.scan(from, 200).unwrap();
                for record in &part {
                    assert_eq!(record.revision, Revision::new(expected, 0));
                    expected += 1;
                }
                from = Revision::new(expected, 0);
                assert!(!part.is_empty());
            }
            assert!(view.scan(from, 200).unwrap().is_empty());
        }
    }
}

#[test]
fn a_revision_that_does_not_exist_is_corrupt_whether_stored_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    member.propose(vec![put("a", b"1")]);
    assert!(member.store.view().key_value(Revision::new(2, 1)).is_err());
    member.settle();
    assert!(member.store.view().key_value(Revision::new(2, 1)).is_err());
    assert!(member.store.view().key_value(Revision::new(3, 0)).is_err());
    assert_eq!(member.store.stopped(), None);
}
