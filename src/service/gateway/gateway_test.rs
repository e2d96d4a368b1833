//! JSON to protobuf and back: etcd's spellings and words, and messages by chance.

use proptest::prelude::*;
use prost::Message as _;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::v3electionpb;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::base64::encode;
use super::read::read;
use super::schema::{Kind, Message, Route};
use super::write::{Escapes, write};
use crate::service::pb::gateway::ROUTES;

fn input(path: &str) -> &'static Message {
    Route::find(path).unwrap().input
}

fn output(path: &str) -> &'static Message {
    Route::find(path).unwrap().output
}

fn json(shape: &Message, bytes: &[u8]) -> String {
    let mut text = String::new();
    write(shape, bytes, Escapes::Needed, &mut text).unwrap();
    text
}

fn range(text: &str) -> Result<pb::RangeRequest, String> {
    let bytes = read(input("/v3/kv/range"), text.as_bytes())?;
    Ok(pb::RangeRequest::decode(&bytes[..]).unwrap())
}

#[test]
fn a_field_is_read_however_it_is_spelled() {
    let want = pb::RangeRequest {
        key: "foo".into(),
        range_end: vec![0xfb, 0xff].into(),
        limit: 12,
        sort_order: 2,
        serializable: true,
        ..Default::default()
    };
    for text in [
        r#"{"key":"Zm9v","range_end":"+/8=","limit":"12","sort_order":"DESCEND","serializable":true}"#,
        r#"{"key":"Zm9v","rangeEnd":"-_8","limit":12,"sortOrder":2,"serializable":true}"#,
        r#" { "serializable" : true , "limit":1.2e1,"ke\u0079":"Zm\u0039v", "range_end":"+/8", "sort_order":2.0 } "#,
        r#"{"key":"Zm9v","range_end":"+/8=","limit":"12","sort_order":"DESCEND","serializable":true,
            "unknown":{"a":[1,"]",{"b":null}]},"revision":null,"sort_target":"NEVER_HEARD_OF","[ext]":1}"#,
    ] {
        assert_eq!(range(text.trim()), Ok(want.clone()), "{text}");
    }
    assert_eq!(range("{}"), Ok(pb::RangeRequest::default()));
}

#[test]
fn faults_are_told_in_protobufs_words() {
    for (text, fault) in [
        ("12", "syntax error (line 1:1): unexpected token 12"),
        ("null", "syntax error (line 1:1): unexpected token null"),
        ("\"x\"", "syntax error (line 1:1): unexpected token \"x\""),
        ("[]", "syntax error (line 1:1): unexpected token ["),
        (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
        (r#"{"key":"a"}"#, "(line 1:8): invalid value for bytes field key: \"a\""),
        (r#"{"range_end":{}}"#, "(line 1:14): invalid value for bytes field rangeEnd: {"),
        ("{\n \"limit\":\"x\"}", "(line 2:10): invalid value for int64 field limit: \"x\""),
        (r#"{"limit":1.5}"#, "(line 1:10): invalid value for int64 field limit: 1.5"),
        (r#"{"sort_order":true}"#, "(line 1:15): invalid value for enum field sortOrder: true"),
        (
            r#"{"serializable":"true"}"#,
            "(line 1:17): invalid value for bool field serializable: \"true\"",
        ),
        (r#"{"key":"","key":""}"#, "(line 1:11): duplicate field \"key\""),
        (r#"{"range_end":"","rangeEnd":""}"#, "(line 1:17): duplicate field \"rangeEnd\""),
        (r#"{"é":"","key":1}"#, "(line 1:15): invalid value for bytes field key: 1"),
        (r#"{"x":"\ud800"}"#, "unexpected EOF"),
        (
            r#"{"x":"\ud800abcdef"}"#,
            "syntax error (line 1:6): invalid escape code \"abcdef\" in string",
        ),
    ] {
        assert_eq!(range(text), Err(format!("proto: {fault}")), "{text}");
    }
    let broken = [&b"{\"x\":\""[..], &[0xff], b"\"}"].concat();
    let fault = read(input("/v3/kv/range"), &broken).unwrap_err();
    assert_eq!(fault, "proto: syntax error (line 1:6): invalid UTF-8 in string");
    let compare = r#"{"compare":[{"version":1,"value":"YQ=="}]}"#;
    let fault = read(input("/v3/kv/txn"), compare.as_bytes()).unwrap_err();
    let want = "(line 1:26): error parsing \"value\", oneof etcdserverpb.Compare.target_union is already set";
    assert_eq!(fault, format!("proto: {want}"));
    let fault = read(input("/v3/kv/txn"), br#"{"compare":{}}"#).unwrap_err();
    assert_eq!(fault, "proto: syntax error (line 1:12): unexpected token {");
}

#[test]
fn transactions_do_not_nest_without_end() {
    let nested = |depth: usize| {
        let open = r#"{"success":[{"request_txn":"#.repeat(depth);
        format!("{open}{{}}{}", "}]}".repeat(depth))
    };
    assert!(read(input("/v3/kv/txn"), nested(40).as_bytes()).is_ok());
    let fault = read(input("/v3/kv/txn"), nested(3000).as_bytes());
    assert_eq!(fault, Err("proto: exceeded max recursion depth".to_owned()));
}

#[test]
fn zeros_are_left_out_except_where_they_were_chosen() {
    let event = r#"{"header":{},"events":[{"kv":{"key":"YQ=="}},{"type":"DELETE","kv":{"key":"YQ==","lease":"-1"}}]}"#;
    let watch = output("/v3/watch");
    let bytes = read(watch, event.as_bytes()).unwrap();
    let decoded = pb::WatchResponse::decode(&bytes[..]).unwrap();
    assert_eq!(decoded.events[1].kv.as_ref().unwrap().lease, -1);
    assert_eq!(json(watch, &decoded.encode_to_vec()), event);
    let response = pb::TxnResponse {
        header: Some(pb::ResponseHeader::default()),
        responses: vec![pb::ResponseOp {
            response: Some(pb::response_op::Response::ResponsePut(pb::PutResponse::default())),
        }],
        ..Default::default()
    };
    let text = json(output("/v3/kv/txn"), &response.encode_to_vec());
    assert_eq!(text, r#"{"header":{},"responses":[{"response_put":{}}]}"#);
    let compare = r#"{"compare":[{"target":"MOD","key":"YQ==","mod_revision":"0"}]}"#;
    let bytes = read(input("/v3/kv/txn"), compare.as_bytes()).unwrap();
    let decoded = pb::TxnRequest::decode(&bytes[..]).unwrap();
    assert_eq!(json(input("/v3/kv/txn"), &decoded.encode_to_vec()), compare);
}

#[test]
fn packed_numbers_are_a_list() {
    let create = r#"{"create_request":{"key":"YQ==","filters":["NOPUT","NODELETE",7]}}"#;
    let watch = input("/v3/watch");
    let decoded = pb::WatchRequest::decode(&read(watch, create.as_bytes()).unwrap()[..]).unwrap();
    assert_eq!(json(watch, &decoded.encode_to_vec()), create);
}

/// A message by chance, as `write` would spell it, or in another spelling of the same.
fn spell(shape: &Message, random: &mut StdRng, odd: &mut Option<StdRng>, depth: usize) -> String {
    let mut members = Vec::new();
    let mut taken = Vec::new();
    for field in shape.fields {
        let deep = depth > 4 && matches!(field.kind, Kind::Message(_));
        if deep || field.oneof.is_some_and(|name| taken.contains(&name)) || random.random_bool(0.4)
        {
            continue;
        }
        taken.extend(field.oneof);
        let mut one = || spell_value(field.kind, random, odd, depth);
        let value = if field.repeated { format!("[{},{}]", one(), one()) } else { one() };
        let camel = odd.as_mut().is_some_and(|odd| odd.random_bool(0.5));
        members.push(format!("\"{}\":{value}", if camel { field.json } else { field.name }));
    }
    format!("{{{}}}", members.join(","))
}

fn spell_value(kind: Kind, random: &mut StdRng, odd: &mut Option<StdRng>, depth: usize) -> String {
    let odd_one = odd.as_mut().is_some_and(|odd| odd.random_bool(0.5));
    match kind {
        Kind::Bool => "true".to_owned(),
        Kind::Uint32 => random.random_range(1..=u32::MAX).to_string(),
        Kind::Int64 | Kind::Uint64 => {
            let value: i64 = random.random_range(1..=i64::MAX);
            if odd_one { value.to_string() } else { format!("\"{value}\"") }
        }
        Kind::String => format!("\"{}\"", char::from(random.random_range(b'a'..=b'z'))),
        Kind::Bytes => {
            let bytes: Vec<u8> = (0..random.random_range(1..20)).map(|_| random.random()).collect();
            let mut text = String::new();
            encode(&bytes, &mut text);
            if odd_one {
                text = text.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
            }
            format!("\"{text}\"")
        }
        Kind::Enum(names) => match names.values.iter().rfind(|(_, number)| *number != 0) {
            Some((_, number)) if odd_one => number.to_string(),
            Some((name, _)) => format!("\"{name}\""),
            None => "7".to_owned(),
        },
        Kind::Message(inner) => spell(inner, random, odd, depth + 1),
    }
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_went(seed in any::<u64>(), at in 0..ROUTES.len()) {
        for shape in [ROUTES[at].input, ROUTES[at].output] {
            let text = spell(shape, &mut StdRng::seed_from_u64(seed), &mut None, 0);
            let bytes = read(shape, text.as_bytes()).unwrap();
            prop_assert_eq!(json(shape, &bytes), text);
            let mut odd = Some(StdRng::seed_from_u64(seed ^ 1));
            let other = spell(shape, &mut StdRng::seed_from_u64(seed), &mut odd, 0);
            prop_assert_eq!(read(shape, other.as_bytes()).unwrap(), bytes, "{}", other);
        }
    }

    #[test]
    fn the_services_read_what_was_meant(seed in any::<u64>()) {
        fn through<M: prost::Message + Default>(shape: &Message, seed: u64) -> (String, String) {
            let text = spell(shape, &mut StdRng::seed_from_u64(seed), &mut None, 0);
            let bytes = read(shape, text.as_bytes()).unwrap();
            let message = M::decode(&bytes[..]).unwrap();
            (json(shape, &message.encode_to_vec()), text)
        }
        for (again, text) in [
            through::<pb::TxnRequest>(input("/v3/kv/txn"), seed),
            through::<pb::TxnResponse>(output("/v3/kv/txn"), seed),
            through::<pb::WatchRequest>(input("/v3/watch"), seed),
            through::<pb::WatchResponse>(output("/v3/watch"), seed),
            through::<pb::StatusResponse>(output("/v3/maintenance/status"), seed),
            through::<pb::MemberListResponse>(output("/v3/cluster/member/list"), seed),
            through::<pb::AuthUserAddRequest>(input("/v3/auth/user/add"), seed),
            through::<v3electionpb::CampaignResponse>(output("/v3/election/campaign"), seed),
        ] {
            prop_assert_eq!(again, text);
        }
    }

    #[test]
    fn no_bytes_are_too_strange(text in "[{}\\[\\]\",:\\\\a-c0-2 ntrue.e-]{0,40}", bytes: Vec<u8>) {
        use super::values::{Cut, Values};
        for piece in [text.as_bytes(), &bytes] {
            let mut values = Values::new(1 << 20);
            values.feed(piece);
            if let Ok(Cut::Value(value)) = values.next(true) {
                let _ = read(input("/v3/kv/txn"), &value);
                let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&value);
                let utf8 = std::str::from_utf8(&value).is_ok();
                prop_assert!(parsed.is_ok() || !utf8 || value.contains(&b'\\') || value.contains(&b'e'));
            }
            let mut out = String::new();
            let _ = write(output("/v3/watch"), piece, Escapes::Html, &mut out);
        }
    }
}
