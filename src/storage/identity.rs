//! Who a data directory belongs to: a small text file outside the journal's folder, durable before the first vote.
//!
//! ```text
//!   quorate identity
//!   format 1
//!   journal 6f3c…    32 hex digits
//!   cluster cdf818194e3a8c32
//!   member 8e9e05c52164694d
//!   crc32c 4b0e2f51  of all bytes above
//! ```
//!
//! **Why:** a journal that vanished must not look like a first start, or the member would vote twice in one term.

use std::fmt::Write as _;

use quorate_core::api::ids::{ClusterId, MemberId};

/// The newest layout of a data directory that this program knows.
pub const FORMAT: u32 = 1;

const TITLE: &str = "quorate identity";

/// What the identity file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The journal's random uuid.
    pub journal: [u8; 16],
    /// The cluster of the default keyspace.
    pub cluster: ClusterId,
    /// The member whose directory this is.
    pub member: MemberId,
}

/// Why an identity file is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadIdentity {
    /// Written by a newer program.
    Newer(u32),
    /// Not what was written.
    Damaged,
}

impl Identity {
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("{TITLE}\nformat {FORMAT}\njournal ");
        for byte in self.journal {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        writeln!(text, "\ncluster {}\nmember {}", self.cluster, self.member)
            .expect("writing to a string cannot fail");
        let crc = crc32c::crc32c(text.as_bytes());
        writeln!(text, "crc32c {crc:08x}").expect("writing to a string cannot fail");
        text
    }

    pub(crate) fn decode(text: &str) -> Result<Identity, BadIdentity> {
        let (body, crc) =
            text.trim_end_matches('\n').rsplit_once("\ncrc32c ").ok_or(BadIdentity::Damaged)?;
        let body = format!("{body}\n");
        let crc = u32::from_str_radix(crc, 16).map_err(|_| BadIdentity::Damaged)?;
        if crc != crc32c::crc32c(body.as_bytes()) {
            return Err(BadIdentity::Damaged);
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(BadIdentity::Damaged);
        }
        let mut field = |name: &str| -> Result<String, BadIdentity> {
            let line = lines.next().ok_or(BadIdentity::Damaged)?;
            let value = line.strip_prefix(name).ok_or(BadIdentity::Damaged)?;
            Ok(value.trim_start().to_owned())
        };
        let format: u32 = field("format ")?.parse().map_err(|_| BadIdentity::Damaged)?;
        if format > FORMAT {
            return Err(BadIdentity::Newer(format));
        }
        let hex = |value: String| u64::from_str_radix(&value, 16).map_err(|_| BadIdentity::Damaged);
        let journal =
            u128::from_str_radix(&field("journal ")?, 16).map_err(|_| BadIdentity::Damaged)?;
        Ok(Identity {
            journal: journal.to_be_bytes(),
            cluster: ClusterId(hex(field("cluster ")?)?),
            member: MemberId(hex(field("member ")?)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        journal: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255],
        cluster: ClusterId(0xcdf8_1819_4e3a_8c32),
        member: MemberId(0x8e9e),
    };

    #[test]
    fn golden_text_of_the_identity() {
        let text = IDENTITY.encode();
        let golden = "quorate identity\nformat 1\njournal 000102030405060708090a0b0c0d0eff\n\
                      cluster cdf818194e3a8c32\nmember 8e9e\ncrc32c ";
        assert_eq!(text.rsplit_once(' ').unwrap().0, golden.trim_end());
        assert_eq!(Identity::decode(&text), Ok(IDENTITY));
    }

    #[test]
    fn any_flipped_bit_is_damage() {
        let text = IDENTITY.encode();
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).unwrap();
            assert_ne!(Identity::decode(&damaged), Ok(IDENTITY), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_is_told_by_number() {
        let body = IDENTITY.encode().replace("format 1", "format 7");
        let body = body.rsplit_once("crc32c").unwrap().0;
        let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
        assert_eq!(Identity::decode(&text), Err(BadIdentity::Newer(7)));
    }
}
