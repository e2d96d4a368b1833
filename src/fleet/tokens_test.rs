//! What a token that is cut, mixed up or made up comes to, and that nothing of it is told.

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const UID: &str = "6f1ed002-ab59-4d5e-8b3f-0d3f6f0d7a11";

fn token(role: JoinRole) -> JoinToken {
    let key = FleetKey::generate();
    JoinToken {
        role,
        secret: join_secret(&key, UID, role, "n1", &nonce()),
        fingerprint: Fingerprint::of(b"certificate"),
        addresses: vec!["127.0.0.1:6400".to_owned(), "[::1]:6401".to_owned()],
        uid: UID.to_owned(),
    }
}

fn shape(token: &JoinToken) -> Value {
    serde_json::from_slice(&STANDARD.decode(token.encode().reveal()).unwrap()).unwrap()
}

fn packed(shape: &Value) -> Secret {
    Secret::from(STANDARD.encode(shape.to_string()))
}

#[test]
fn both_kinds_have_the_documented_shape_and_are_read_back() {
    let control = token(JoinRole::ControlPlane);
    assert_eq!(
        shape(&control),
        json!({
            "secret": control.secret.reveal(),
            "fingerprint": control.fingerprint.to_string(),
            "join_addresses": ["127.0.0.1:6400", "[::1]:6401"],
            "cluster_uid": UID,
        })
    );
    let worker = token(JoinRole::Worker);
    let digits = worker.secret.reveal().strip_prefix("worker::").unwrap();
    assert_eq!(digits.len(), 40);
    assert_eq!(
        shape(&worker),
        json!({
            "token": worker.secret.reveal(),
            "secret": worker.secret.reveal(),
            "fingerprint": worker.fingerprint.to_string(),
            "join_addresses": ["127.0.0.1:6400", "[::1]:6401"],
            "cluster_uid": UID,
            "_": "m!!",
        })
    );
    for token in [control, worker] {
        assert_eq!(JoinToken::decode(&token.encode()).as_ref(), Ok(&token));
        let bare = STANDARD_NO_PAD.encode(shape(&token).to_string());
        assert_eq!(JoinToken::decode(&Secret::from(format!("{bare}\n"))), Ok(token));
    }
}

#[test]
fn a_token_is_for_one_role_and_one_fleet() {
    let worker = token(JoinRole::Worker);
    let refused = worker.clone().for_role(JoinRole::ControlPlane).unwrap_err();
    assert_eq!(refused, TokenError::Role(JoinRole::Worker));
    assert_eq!(refused.to_string(), "the token is for a worker node");
    assert!(worker.clone().for_role(JoinRole::Worker).is_ok());
    assert!(worker.clone().of_fleet(UID).is_ok());
    assert_eq!(worker.of_fleet("another").unwrap_err(), TokenError::OtherFleet);
}

#[test]
fn each_bad_token_is_refused_by_what_is_wrong_with_it() {
    let good = token(JoinRole::ControlPlane);
    let with = |field: &str, value: Value| {
        let mut shape = shape(&good);
        shape[field] = value;
        packed(&shape)
    };
    let without = |field: &str| {
        let mut shape = shape(&good);
        shape.as_object_mut().unwrap().remove(field);
        packed(&shape)
    };
    let worker_secret = token(JoinRole::Worker).secret.reveal().to_owned();
    for (given, wanted) in [
        (Secret::from(""), TokenError::NotReadable),
        (Secret::from("%%%"), TokenError::NotBase64),
        (Secret::from("e30"), TokenError::NotReadable),
        (Secret::from("x".repeat(TOKEN_BYTES_MAX + 1)), TokenError::TooLong),
        (with("_", json!("?")), TokenError::Field("kind")),
        (with("_", json!("m!!")), TokenError::Field("secret")),
        (with("secret", json!("short")), TokenError::Field("secret")),
        (with("secret", json!(worker_secret)), TokenError::Field("secret")),
        (with("secret", json!(7)), TokenError::NotReadable),
        (with("token", json!("another")), TokenError::Field("secret")),
        (with("fingerprint", json!("ab")), TokenError::Field("fingerprint")),
        (with("join_addresses", json!([])), TokenError::Field("join_addresses")),
        (with("join_addresses", json!(["host"])), TokenError::Field("join_addresses")),
        (with("join_addresses", json!([":6400"])), TokenError::Field("join_addresses")),
        (with("cluster_uid", json!("not a uuid")), TokenError::Field("cluster_uid")),
        (without("cluster_uid"), TokenError::NoFleet),
        (without("secret"), TokenError::NotReadable),
        (without("fingerprint"), TokenError::NotReadable),
    ] {
        let refused = JoinToken::decode(&given).unwrap_err();
        assert_eq!(refused, wanted);
        let told = format!("{refused} {refused:?}");
        assert!(!told.contains(good.secret.reveal()) && !told.contains(&worker_secret), "{told}");
    }
}

#[test]
fn a_token_that_was_cut_off_anywhere_is_refused() {
    let whole = token(JoinRole::ControlPlane).encode();
    for length in 0..whole.reveal().trim_end_matches('=').len() {
        let cut = Secret::from(&whole.reveal()[..length]);
        let refused = JoinToken::decode(&cut).unwrap_err();
        assert!(
            matches!(refused, TokenError::NotBase64 | TokenError::NotReadable),
            "cut at {length}: {refused:?}"
        );
    }
}

#[test]
fn a_token_is_shown_without_its_secret() {
    let token = token(JoinRole::Worker);
    let shown = format!("{token:?} {:?}", token.encode());
    assert!(shown.contains("[redacted]"), "{shown}");
    assert!(!shown.contains(token.secret.reveal()) && !shown.contains(token.encode().reveal()));
}

#[test]
fn the_same_nonce_gives_the_same_secret_and_anything_else_another() {
    let key = FleetKey::generate();
    let (one, other) = ([1; NONCE_BYTES], [2; NONCE_BYTES]);
    let control = JoinRole::ControlPlane;
    let secret = join_secret(&key, UID, control, "n1", &one);
    assert_eq!(join_secret(&key, UID, control, "n1", &one), secret);
    let others = [
        join_secret(&key, UID, control, "n2", &one),
        join_secret(&key, UID, control, "n1", &other),
        join_secret(&key, "uid", control, "n1", &one),
        join_secret(&FleetKey::generate(), UID, control, "n1", &one),
    ];
    assert!(others.iter().all(|other| *other != secret));
    // The worker's digits are not those of the other role, of which there are more.
    let worker = join_secret(&key, UID, JoinRole::Worker, "n1", &one);
    let digits = worker.reveal().strip_prefix("worker::").unwrap().to_owned();
    assert!(!secret.reveal().contains(&digits));
}

#[test]
fn a_user_has_a_token_for_each_set_of_groups() {
    let key = FleetKey::generate();
    let with = |groups: &[&str]| {
        auth_secret(&key, UID, "ann", &canonical_groups(groups), &[1; NONCE_BYTES])
    };
    assert!(is_auth_secret(&with(&[])) && with(&[]).reveal().starts_with("token::"));
    assert_eq!(with(&["b", "a", "", "b"]), with(&["a", "b"]));
    assert_ne!(with(&["a", "b"]), with(&["a"]));
    assert_ne!(with(&["a", "b"]), with(&["ab"]));
    assert_eq!(canonical_groups(&["b", "", "a", "b"]), ["a", "b"]);
}

#[test]
fn secrets_are_told_apart_by_their_looks() {
    let random = random_secret();
    assert_ne!(random, random_secret());
    assert_eq!(random.reveal().len(), 40);
    for odd in ["", "worker::", "token::zz", random.reveal()] {
        let odd = Secret::from(odd);
        assert!(!is_auth_secret(&odd) && !is_join_secret(JoinRole::Worker, &odd));
        assert!(!is_join_secret(JoinRole::ControlPlane, &odd));
    }
}

proptest! {
    #[test]
    fn reading_never_panics_whatever_is_given(text in ".{0,300}") {
        let _ = JoinToken::decode(&Secret::from(text));
    }

    #[test]
    fn reading_never_panics_on_any_bytes_in_base64(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = JoinToken::decode(&Secret::from(STANDARD.encode(bytes)));
    }
}
