//! What two servers' JSON cannot have in common, taken out.

use crate::differential::scenes::http::Response;
use crate::member::PORTS;

/// Identities, terms and sizes, wherever they stand.
const VARYING: [&str; 11] = [
    "cluster_id",
    "member_id",
    "raft_term",
    "dbSize",
    "dbSizeInUse",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "remaining_bytes",
    "token",
];

/// What grpc-go says of a deadline that passed: its own timer, or the server's reset, whichever it noticed first.
const LATE: [&str; 2] = [
    r#""code":4,"message":"context deadline exceeded""#,
    r#""code":4,"message":"stream terminated by RST_STREAM with error code: CANCEL""#,
];

/// The answer to `path` as it is compared.
pub(super) fn masked(path: &str, mut response: Response) -> Response {
    // protobuf-go puts a no-break space after its name in some builds, so that nobody compares its texts.
    let mut body = response.body.replace('\u{a0}', " ");
    body = body.replace(LATE[1], LATE[0]);
    for name in VARYING {
        // A leader's key is a message.
        body = settled(&body, name);
    }
    match path {
        "/v3/maintenance/hash" => body = settled(&body, "hash"),
        "/v3/lease/timetolive" | "/v3/kv/lease/timetolive" => {
            body = with_sorted_keys(settled(&body, "TTL"))
        }
        "/v3/maintenance/snapshot" => body.truncate(body.find("\"blob\"").unwrap_or(body.len())),
        path if path.starts_with("/v3/cluster/") => body = settled(&body, "ID"),
        _ => {}
    }
    response.body = without_ports(&body);
    // How long a body is told is no part of the answer.
    response.headers.remove("transfer-encoding");
    response
}

/// The text with each number or text of that name replaced by 0; a TTL of -1 stays.
fn settled(text: &str, name: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let before = format!("\"{name}\":");
    while let Some(at) = rest.find(&before) {
        let (head, tail) = rest.split_at(at + before.len());
        out.push_str(head);
        let quoted = tail.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        rest = match quoted {
            Some(("-1", _)) => tail,
            Some((_, after)) => {
                out.push_str("\"0\"");
                after
            }
            None => {
                let digits =
                    tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                out.push_str(if digits > 0 { "0" } else { "" });
                &tail[digits..]
            }
        };
    }
    out + rest
}

/// A lease's keys come in the order of a Go map.
fn with_sorted_keys(body: String) -> String {
    let parts = body.split_once("\"keys\":[").and_then(|(head, rest)| {
        let (keys, tail) = rest.split_once(']')?;
        Some((head, keys, tail))
    });
    let Some((head, keys, tail)) = parts else { return body };
    let mut keys: Vec<&str> = keys.split(',').collect();
    keys.sort_unstable();
    format!("{head}\"keys\":[{}]{tail}", keys.join(","))
}

fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let port = &part[..part.len() - after.len()];
        let drawn = port.parse::<u16>().is_ok_and(|port| PORTS.contains(&port));
        out += "127.0.0.1:";
        out += if drawn { "PORT" } else { port };
        out += after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_taken_out() {
        let answer = |body: &str| Response { body: body.to_owned(), ..Response::default() };
        let mask = |path: &str, body: &str| masked(path, answer(body)).body;
        let header = r#"{"header":{"cluster_id":"17","revision":"3"},"leader":"9","dbSize":"5"}"#;
        let want = r#"{"header":{"cluster_id":"0","revision":"3"},"leader":"0","dbSize":"0"}"#;
        assert_eq!(mask("/v3/maintenance/status", header), want);
        assert_eq!(mask("/v3/maintenance/hash", r#"{"hash":17}"#), r#"{"hash":0}"#);
        assert_eq!(mask("/v3/maintenance/hashkv", r#"{"hash":17}"#), r#"{"hash":17}"#);
        let ttl = r#"{"ID":"7","TTL":"599","grantedTTL":"600"}"#;
        let want = r#"{"ID":"7","TTL":"0","grantedTTL":"600"}"#;
        assert_eq!(mask("/v3/lease/timetolive", ttl), want);
        assert_eq!(mask("/v3/lease/timetolive", r#"{"TTL":"-1"}"#), r#"{"TTL":"-1"}"#);
        let keys = r#"{"TTL":"-1","keys":["LzE=","bC8x","ZS8x"]}"#;
        let want = r#"{"TTL":"-1","keys":["LzE=","ZS8x","bC8x"]}"#;
        assert_eq!(mask("/v3/kv/lease/timetolive", keys), want);
        let key = r#"{"leader":{"name":"bA==","rev":"4"}}"#;
        assert_eq!(mask("/v3/election/campaign", key), key);
        let late = LATE.map(|words| format!("{{\"error\":{{{words}}}}}"));
        let [timer, reset] = &late;
        assert_eq!(mask("/v3/election/observe", timer), mask("/v3/election/observe", reset));
        let urls = r#"["http://127.0.0.1:20017","http://127.0.0.1:1"]"#;
        assert_eq!(mask("/", urls), r#"["http://127.0.0.1:PORT","http://127.0.0.1:1"]"#);
    }
}
