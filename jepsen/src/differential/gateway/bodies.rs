//! Draws JSON bodies for a message: every spelling of a value that protobuf's JSON knows, now and then one it refuses.

use rand::Rng;
use rand::rngs::StdRng;

use super::proto::{Field, Schema};

/// Messages within each other.
const DEPTH_MAX: usize = 4;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const KEYS: [&[u8]; 9] = [b"a", b"a0", b"b", b"b\0", b"c", b"k", b"\xff", b"\xff\xfe\xfd", b"\0"];
const LEASES: [i64; 4] = [1, 2, 77, 99];

/// What is drawn from.
pub(super) struct Bodies<'a> {
    pub(super) schema: &'a Schema,
    pub(super) rng: &'a mut StdRng,
    /// Per mille of values that are not what their field takes.
    pub(super) wrong: u32,
}

/// `bytes` as base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let six = bits >> (18 - 6 * at) & 63;
            text.push(if at > three.len() { '=' } else { char::from(ALPHABET[six as usize]) });
        }
    }
    text
}

impl Bodies<'_> {
    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1000) < per_mille
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// A body for a path's message, or damage.
    pub(super) fn body(&mut self, message: &str) -> Vec<u8> {
        let mut text = match message {
            // What these make must be foreseeable: ids that nobody draws, times beyond the end of the test.
            "LeaseGrantRequest" => self.lease_grant(),
            "MemberAddRequest" | "MemberUpdateRequest" => self.member_urls(),
            "LockRequest" | "CampaignRequest" => self.owned(message),
            "ProclaimRequest" | "ResignRequest" => self.led(message),
            "DowngradeRequest" => self.downgrade(),
            "AlarmRequest" => self.alarm(),
            "WatchRequest" => self.watch(),
            _ => self.message(message, 0),
        };
        if self.chance(self.wrong / 2) {
            // An empty body is an empty message, and that would make a lease of any id.
            let empty_too =
                !matches!(message, "LeaseGrantRequest" | "LockRequest" | "CampaignRequest");
            text = self.damaged(&text, if empty_too { 0 } else { 2 });
        }
        let mut bytes = text.into_bytes();
        if self.chance(self.wrong / 8) && !bytes.is_empty() {
            let at = self.rng.random_range(0..bytes.len());
            bytes[at] = 0xff;
        }
        bytes
    }

    fn damaged(&mut self, text: &str, from: u32) -> String {
        match self.rng.random_range(from..10) {
            0 => String::new(),
            1 => " \n".to_owned(),
            2 => format!("{text} trailing"),
            3 => format!("{text}{text}"),
            4 => text.replacen('"', "'", 2),
            5 => text.replacen('}', ",}", 1),
            6 => text.replacen(':', "", 1),
            7 => self
                .pick(&["null", "[]", "5", "\"x\"", "true", "{", "}", "nul", "-", "\u{feff}{}"])
                .to_owned(),
            _ => {
                let at = self.rng.random_range(1..=text.len().max(1));
                let at = (1..=at.min(text.len()))
                    .rev()
                    .find(|at| text.is_char_boundary(*at))
                    .unwrap_or(0);
                text[..at].to_owned()
            }
        }
    }

    fn lease_grant(&mut self) -> String {
        let ttl = self.pick(&["600", "\"600\"", "6e2", "9000000000", "9000000001", "\"3600.0\""]);
        let wrong = if self.chance(self.wrong) { ",\"TTL2\":{},\"ID\":1" } else { "" };
        let id = self.pick(&LEASES[..3]);
        let id = if self.chance(500) { id.to_string() } else { format!("\"{id}\"") };
        format!("{{\"ID\":{id},\"TTL\":{ttl}{wrong}}}")
    }

    /// URLs that are refused: one more voter that never starts would end all writes.
    fn member_urls(&mut self) -> String {
        let name = self.pick(&["peerURLs", "peerURLs", "peerURLs", "peer_urls"]);
        let urls =
            self.pick(&["[]", "[\"foo\"]", "[\"\"]", "[5]", "\"foo\"", "null", "[null]", "{}"]);
        let id =
            self.pick(&["7", "\"7\"", "\"18446744073709551615\"", "18446744073709551616", "-1"]);
        format!("{{\"ID\":{id},\"{name}\":{urls}}}")
    }

    /// Always with the lease that owns it: another would wait for it.
    fn owned(&mut self, message: &str) -> String {
        let name = self.pick(&["bA==", "ZQ==", "bA", ""]);
        let lease = self.pick(&["1", "\"1\"", "1.0", "99", "\"99\""]);
        let value = if message == "LockRequest" { "" } else { ",\"value\":\"dg==\"" };
        format!("{{\"name\":\"{name}\",\"lease\":{lease}{value}}}")
    }

    /// The same of a leader, whose key may be another's.
    fn led(&mut self, message: &str) -> String {
        let key = self.pick(&["bC8x", "ZS8x", "YQ=="]);
        let (lease, rev) = (self.pick(&["1", "\"1\"", "99"]), self.pick(&["0", "\"2\"", "3"]));
        let leader =
            format!("{{\"name\":\"bA==\",\"key\":\"{key}\",\"rev\":{rev},\"lease\":{lease}}}");
        let leader = if self.chance(100) { "null".to_owned() } else { leader };
        let value = if message == "ResignRequest" { "" } else { ",\"value\":\"dg==\"" };
        format!("{{\"leader\":{leader}{value}}}")
    }

    /// An action without a name ends every etcd up to 3.7.1 with a panic (`v3rpc/maintenance.go`).
    fn alarm(&mut self) -> String {
        let action = self.pick(&[
            "0",
            "1",
            "2",
            "\"GET\"",
            "\"ACTIVATE\"",
            "\"DEACTIVATE\"",
            "\"x\"",
            "null",
        ]);
        let alarm =
            self.pick(&["0", "1", "2", "99", "\"NONE\"", "\"NOSPACE\"", "\"CORRUPT\"", "\"x\""]);
        let member = self.pick(&["0", "1", "2", "3", "7", "\"7\"", "-1", "7.5", "\"x\""]);
        let name = self.pick(&["memberID", "memberID", "member_id"]);
        format!("{{\"action\":{action},\"{name}\":{member},\"alarm\":{alarm}}}")
    }

    /// Never what would really begin.
    fn downgrade(&mut self) -> String {
        let action =
            self.pick(&["\"VALIDATE\"", "\"ENABLE\"", "\"CANCEL\"", "0", "1", "2", "9", "\"x\""]);
        let version = self.pick(&["3.7", "3.5.0", "4.0", "x", "", "3.7.1", "3"]);
        format!("{{\"action\":{action},\"version\":\"{version}\"}}")
    }

    /// Watchers without a past, whose answers come in the order of the requests.
    fn watch(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.rng.random_range(0..4) {
            let id = self.rng.random_range(1..4);
            let key = self.scalar_of("bytes", "key");
            text += &match self.rng.random_range(0..6) {
                0 => format!("{{\"cancel_request\":{{\"watch_id\":{id}}}}}"),
                1 => format!("{{\"cancelRequest\":{{\"watchId\":\"{id}\"}}}}\n"),
                2 => "{}".to_owned(),
                _ => format!("{{\"create_request\":{{\"key\":{key},\"watch_id\":{id}}}}}"),
            };
        }
        text
    }

    fn message(&mut self, message: &str, depth: usize) -> String {
        let fields = self.schema.messages.get(message).map_or(&[][..], Vec::as_slice);
        let mut members = Vec::new();
        for field in fields {
            let often = if depth == 0 { 620 } else { 450 };
            if !self.chance(often) {
                continue;
            }
            members.push(self.member(field, depth));
            if self.chance(self.wrong / 6) {
                members.push(self.member(field, depth));
            }
        }
        if self.chance(80) {
            let unknown = ["1", "null", "[{\"a\":[]}]", "\"\\u00e9\"", "{\"key\":\"\"}", "1e999"];
            members.push(format!("\"no_such_field\":{}", self.pick(&unknown)));
        }
        if self.chance(100) {
            members.reverse();
        }
        let (open, between) = self.pick(&[("{", ","), ("{", ","), ("{ ", " ,\n"), ("{\t", ", ")]);
        format!("{open}{}}}", members.join(between))
    }

    fn member(&mut self, field: &Field, depth: usize) -> String {
        let name = if self.chance(300) { field.camel() } else { field.name.clone() };
        let name = if self.chance(20) { escaped_first(&name) } else { name };
        let colon = self.pick(&[":", ":", ":", " : "]);
        format!("\"{name}\"{colon}{}", self.field(field, depth))
    }

    fn field(&mut self, field: &Field, depth: usize) -> String {
        if self.chance(30) && field.name != "ID" && field.name != "lease" {
            return "null".to_owned();
        }
        if !field.repeated {
            return self.value(field, depth);
        }
        if self.chance(self.wrong) {
            return self.value(field, depth);
        }
        let count = self.rng.random_range(0..3);
        let values: Vec<String> = (0..count).map(|_| self.value(field, depth)).collect();
        let end = if self.chance(self.wrong / 4) { ",null]" } else { "]" };
        format!("[{}{end}", values.join(","))
    }

    fn value(&mut self, field: &Field, depth: usize) -> String {
        if self.chance(self.wrong) {
            let wrong = [
                "true",
                "\"\"",
                "5",
                "-5",
                "5.5",
                "\"x\"",
                "[]",
                "{}",
                "null",
                "1e30",
                "\"5 \"",
                "\" 5\"",
                "\"5x\"",
                "18446744073709551616",
                "-0",
                "\"-0\"",
                "\"1e1\"",
                "\"@@@@\"",
                "\"a\"",
                "[[]]",
                "\"\\ud800\"",
                "\"\\ud83d\\ude00\"",
                "\"\\u0000\"",
                "9223372036854775808",
                "\"NaN\"",
            ];
            return self.pick(&wrong).to_owned();
        }
        if let Some(values) = self.schema.enums.get(&field.kind) {
            let at = self.rng.random_range(0..values.len());
            return match self.rng.random_range(0..10) {
                0..6 => format!("\"{}\"", values[at]),
                6..9 => at.to_string(),
                _ => {
                    self.pick(&["\"NO_SUCH_NAME\"", "99", "-1", "1.0", "\"\"", "\"1\""]).to_owned()
                }
            };
        }
        if self.schema.messages.contains_key(&field.kind) {
            if depth >= DEPTH_MAX {
                return "{}".to_owned();
            }
            return self.message(&field.kind.clone(), depth + 1);
        }
        self.scalar_of(&field.kind, &field.name)
    }

    fn scalar_of(&mut self, kind: &str, name: &str) -> String {
        match kind {
            "bytes" => self.bytes(),
            "bool" => self.pick(&["true", "false"]).to_owned(),
            "string" => self.text(name),
            _ => self.number(name),
        }
    }

    fn bytes(&mut self) -> String {
        let key = self.pick(&KEYS);
        let spelled = base64(key);
        let spelled = match self.rng.random_range(0..10) {
            0..6 => spelled,
            6 => spelled.trim_end_matches('=').to_owned(),
            7 => spelled.replace('+', "-").replace('/', "_"),
            8 => spelled.replace('/', "\\/"),
            _ => escaped_first(&spelled),
        };
        format!("\"{spelled}\"")
    }

    fn number(&mut self, name: &str) -> String {
        let value = match name {
            "ID" | "lease" => self.pick(&LEASES),
            "TTL" => 600,
            "revision" => self.pick(&[0, 0, 0, 1, 2, 3, -1, 1 << 40]),
            "limit" | "watch_id" => self.pick(&[0, 1, 2, -1, i64::MAX]),
            _ => self.pick(&[0, 1, 2, 3, 7, -1]),
        };
        match self.rng.random_range(0..10) {
            0..4 => value.to_string(),
            4..8 => format!("\"{value}\""),
            8 => format!("{value}.0"),
            _ => format!("{value}e0"),
        }
    }

    /// Names of users and roles, passwords, versions.
    fn text(&mut self, name: &str) -> String {
        let words: &[&str] = match name {
            "password" => &["one", "two", ""],
            "hashedPassword" => &["", "bm8gaGFzaA==", "no base64!"],
            _ => &[
                "alice",
                "bob",
                "reader",
                "writer",
                "",
                "\\u00e4\\ud83d\\ude00",
                "a\\\"b",
                "\u{e9}",
                "<&>",
            ],
        };
        format!("\"{}\"", self.pick(words))
    }
}

/// The first letter as its number.
fn escaped_first(text: &str) -> String {
    match text.chars().next() {
        Some(first) => format!("\\u{:04x}{}", first as u32, &text[first.len_utf8()..]),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"a", "YQ=="),
            (b"ab", "YWI="),
            (b"abc", "YWJj"),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_bodies_for_every_path() {
        let schema = Schema::read();
        let draw = || {
            let mut rng = StdRng::seed_from_u64(5);
            let mut bodies = Bodies { schema: &schema, rng: &mut rng, wrong: 50 };
            schema.routes.iter().map(|route| bodies.body(&route.input)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }

    #[test]
    fn what_could_end_the_cluster_or_wait_is_never_drawn() {
        let schema = Schema::read();
        let mut rng = StdRng::seed_from_u64(6);
        let mut bodies = Bodies { schema: &schema, rng: &mut rng, wrong: 100 };
        for _ in 0..2000 {
            let body = String::from_utf8_lossy(&bodies.body("MemberAddRequest")).into_owned();
            assert!(!body.contains("http"), "{body}");
            let body = String::from_utf8_lossy(&bodies.body("DowngradeRequest")).into_owned();
            assert!(!body.contains("3.6"), "{body}");
        }
    }
}
