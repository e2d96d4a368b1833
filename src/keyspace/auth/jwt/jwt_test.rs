//! Keys as people have them in files, tokens as Go makes them, and tokens as nobody should believe them.

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/testdata/auth/", $name)).as_slice()
    };
}

fn key_of(method: &str) -> &'static [u8] {
    match method {
        "ES256" => file!("ec256.key"),
        "ES384" => file!("ec384.key"),
        "ES512" => file!("ec521.key"),
        "EdDSA" => file!("ed25519.key"),
        // The secret of HS methods may be any bytes.
        _ => file!("rsa.key"),
    }
}

fn public_of(method: &str) -> Option<&'static [u8]> {
    Some(match method {
        "ES256" => file!("ec256.pub"),
        "ES384" => file!("ec384.pub"),
        "ES512" => file!("ec521.pub"),
        "EdDSA" => file!("ed25519.pub"),
        "HS256" | "HS384" | "HS512" => return None,
        _ => file!("rsa.pub"),
    })
}

const METHODS: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
];

fn jwt(method: &str) -> Jwt {
    Jwt::new(method, None, Some(key_of(method)), None).unwrap()
}

fn claims(user: &str, revision: u64) -> Option<Claims> {
    Some(Claims { user: user.to_owned(), revision })
}

#[test]
fn every_method_believes_its_own_tokens_alone() {
    let all = METHODS.map(jwt);
    for (one, signer) in all.iter().enumerate() {
        let token = signer.sign("ann", 7, NOW_MS).unwrap();
        for (other, verifier) in all.iter().enumerate() {
            let want = if one == other { claims("ann", 7) } else { None };
            assert_eq!(verifier.verify(&token, NOW_MS), want, "{one} by {other}");
        }
    }
}

#[test]
fn a_public_key_verifies_and_does_not_sign() {
    for method in METHODS {
        let Some(public) = public_of(method) else { continue };
        let verifier = Jwt::new(method, Some(public), None, None).unwrap();
        let both = Jwt::new(method, Some(public), Some(key_of(method)), None).unwrap();
        let token = both.sign("ann", 7, NOW_MS).unwrap();
        assert_eq!(verifier.verify(&token, NOW_MS), claims("ann", 7), "{method}");
        assert_eq!(verifier.sign("ann", 7, NOW_MS), Err(VerifyOnly));
    }
}

#[test]
fn keys_are_read_from_every_form_that_go_reads() {
    for (method, public, private) in [
        ("RS256", file!("rsa.pub"), file!("rsa-pkcs8.key")),
        ("RS256", file!("rsa.crt"), file!("rsa.key")),
        ("RS256", file!("rsa-pkcs1.pub"), file!("rsa.key")),
        ("ES256", file!("ec256.crt"), file!("ec256-pkcs8.key")),
    ] {
        let both = Jwt::new(method, Some(public), Some(private), None).unwrap();
        let verifier = Jwt::new(method, Some(public), None, None).unwrap();
        let token = both.sign("ann", 7, NOW_MS).unwrap();
        assert_eq!(verifier.verify(&token, NOW_MS), claims("ann", 7));
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let refused = |method, public, private| Jwt::new(method, public, private, None).unwrap_err();
    let (key, other) = (Some(file!("rsa.key")), Some(file!("rsa-other.key")));
    let public = Some(file!("rsa.pub"));
    assert_eq!(refused("RS256", public, other), KeyError::Mismatch);
    assert_eq!(refused("RS256", None, None), KeyError::Missing);
    assert_eq!(refused("HS256", public, None), KeyError::Missing);
    assert_eq!(refused("none", public, key), KeyError::Method);
    assert_eq!(refused("rs256", public, key), KeyError::Method);
    assert_eq!(refused("RS256", None, Some(b"x")), KeyError::NotPem);
    assert_eq!(refused("RS256", Some(b"x"), None), KeyError::NotPem);
    assert_eq!(refused("ES256", None, key), KeyError::Private("ECDSA"));
    assert_eq!(refused("ES256", None, Some(file!("ec384.key"))), KeyError::Private("ECDSA"));
    assert_eq!(refused("RS256", None, public), KeyError::Private("RSA"));
    assert_eq!(refused("EdDSA", public, None), KeyError::Public("Ed25519"));
    assert_eq!(refused("RS256", Some(file!("ec256.crt")), None), KeyError::Public("RSA"));
}

#[test]
fn a_token_ends_when_it_says() {
    let ttl = GoDuration::parse("1m30s");
    let jwt = Jwt::new("HS256", None, Some(b"secret"), ttl).unwrap();
    let token = jwt.sign("ann", 7, NOW_MS).unwrap();
    assert_eq!(jwt.verify(&token, NOW_MS + 89_999), claims("ann", 7));
    assert_eq!(jwt.verify(&token, NOW_MS + 90_000), None);
}

/// A token with these very parts, signed with "secret".
fn forge(header: &str, body: &str) -> (Jwt, String) {
    let jwt = Jwt::new("HS256", None, Some(b"secret"), None).unwrap();
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(body.as_bytes()));
    let signature = jwt.key.sign(signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", encode(&signature));
    (jwt, token)
}

#[test]
fn claims_are_read_as_go_reads_them() {
    let header = r#"{"alg":"HS256"}"#;
    let now_s = NOW_MS / 1000;
    let (before, after) = (now_s - 1, now_s + 1);
    for (body, want) in [
        (r#"{"username":"ann","revision":7}"#.to_owned(), claims("ann", 7)),
        (r#"{"username":"ann","revision":7.9,"exp":0}"#.to_owned(), claims("ann", 7)),
        (format!(r#"{{"username":"ann","revision":7,"exp":{after}}}"#), claims("ann", 7)),
        (format!(r#"{{"username":"ann","revision":7,"exp":{before}}}"#), None),
        (format!(r#"{{"username":"ann","revision":7,"nbf":{before}}}"#), claims("ann", 7)),
        (format!(r#"{{"username":"ann","revision":7,"nbf":{after}}}"#), None),
        (r#"{"username":"ann","revision":7,"exp":"soon"}"#.to_owned(), None),
        (r#"{"username":"ann","revision":"7"}"#.to_owned(), None),
        (r#"{"username":7,"revision":7}"#.to_owned(), None),
        (r#"{"username":"ann"}"#.to_owned(), None),
        (r#"{"revision":7}"#.to_owned(), None),
        (r#"["ann",7]"#.to_owned(), None),
        (r#"{"username":"ann","revision":-1}"#.to_owned(), claims("ann", 0)),
    ] {
        let (jwt, token) = forge(header, &body);
        assert_eq!(jwt.verify(&token, NOW_MS), want, "{body}");
    }
}

#[test]
fn forged_tokens_are_not_believed() {
    let body = r#"{"username":"root","revision":7}"#;
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"hs256"}"#, r#"{"alg":"RS256"}"#, "{}", "x", ""] {
        let (jwt, token) = forge(header, body);
        assert_eq!(jwt.verify(&token, NOW_MS), None, "{header}");
    }
    let (jwt, token) = forge(r#"{"alg":"HS256"}"#, body);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = encode(br#"{"username":"root","revision":8}"#);
    let swapped = format!("{}.{other}.{signature}", signed.split_once('.').unwrap().0);
    for forged in [
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.{signature}.{signature}"),
        format!(".{signed}.{signature}"),
        format!("{signed}.{}", &signature[1..]),
        swapped,
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.17".to_owned(),
    ] {
        assert_eq!(jwt.verify(&forged, NOW_MS), None, "{forged}");
    }
    assert_eq!(jwt.verify(&token, NOW_MS), claims("root", 7));
}

/// The public key is public: nobody may sign with it as if it were the secret of an HS method.
#[test]
fn a_public_key_is_no_secret() {
    let attacker = Jwt::new("HS256", None, Some(file!("rsa.pub")), None).unwrap();
    let token = attacker.sign("root", 7, NOW_MS).unwrap();
    let verifier = Jwt::new("RS256", Some(file!("rsa.pub")), None, None).unwrap();
    assert_eq!(verifier.verify(&token, NOW_MS), None);
}

#[test]
fn what_go_signs_is_believed() {
    let text = include_str!("../../../../tests/testdata/auth/tokens.txt");
    let mut seen = 0;
    for line in text.lines() {
        let (method, token) = line.split_once(' ').unwrap();
        assert_eq!(jwt(method).verify(token, NOW_MS), claims("ann", 7), "{method}");
        seen += 1;
    }
    assert_eq!(seen, METHODS.len());
}

#[test]
fn what_is_printed_of_a_key_is_its_method() {
    let jwt = Jwt::new("HS256", None, Some(b"secret"), None).unwrap();
    assert_eq!(format!("{jwt:?}"), "Jwt { method: \"HS256\", .. }");
}
