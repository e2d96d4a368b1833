//! The state mark: what the state store holds, told in the same atomic batch as the data itself.

use quorate_core::api::ids::LogId;

use super::format::{ContentSum, Malformed, Reader, malformed, put_log_id, read_log_id};

const VERSION: u8 = 1;

/// Moved with every batch. While a store is being loaded from a base there is none, so that a store loaded in part
/// is never taken for a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateMark {
    /// The group's generation in the journal when this store was begun.
    pub(crate) generation: u64,
    /// The last log entry whose batch is in the store; `None` in a store that was begun empty.
    pub(crate) applied: Option<LogId>,
    /// Over every revision header and every record.
    pub(crate) content: ContentSum,
    /// The largest database size ever reported, in bytes: like bbolt's file, it shrinks only by defragmenting.
    /// Local to this member, and not part of the content.
    pub(crate) high_water: u64,
}

impl StateMark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.push(u8::from(self.applied.is_some()));
        put_log_id(&mut out, self.applied.unwrap_or_default());
        out.extend_from_slice(&self.content.count.to_le_bytes());
        out.extend_from_slice(&self.content.sum.to_le_bytes());
        out.extend_from_slice(&self.high_water.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let what = "state mark";
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(malformed(what))?;
        let mut reader = Reader::new(body, what);
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) || reader.u8()? != VERSION {
            return Err(malformed(what));
        }
        let generation = reader.u64()?;
        let present = reader.u8()? == 1;
        let applied = read_log_id(&mut reader)?;
        Ok(StateMark {
            generation,
            applied: present.then_some(applied),
            content: ContentSum { count: reader.u64()?, sum: reader.u64()? },
            high_water: reader.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_the_state_mark() {
        let mark = StateMark {
            generation: 3,
            applied: Some(LogId::new(2, 77)),
            content: ContentSum { count: 5, sum: 0x0102_0304_0506_0708 },
            high_water: 20_480,
        };
        let bytes = mark.encode();
        assert_eq!(StateMark::decode(&bytes), Ok(mark));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0103000000000000000102000000000000004d00000000000000050000000000000008070605040302010050000000000000169bb75c"
        );
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(StateMark::decode(&damaged).is_err(), "byte {at}");
        }
        assert!(StateMark::decode(&bytes[..10]).is_err());
    }
}
