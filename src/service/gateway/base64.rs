//! base64 as Go's `encoding/base64` reads and writes it: line breaks are skipped, leftover bits are not looked at.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How bytes are spelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alphabet {
    /// `-` and `_` in the place of `+` and `/`.
    pub(super) for_urls: bool,
    /// `=` fills the last four up.
    pub(super) padded: bool,
}

impl Alphabet {
    fn digit(self, byte: u8) -> Option<u32> {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' if !self.for_urls => 62,
            b'/' if !self.for_urls => 63,
            b'-' if self.for_urls => 62,
            b'_' if self.for_urls => 63,
            _ => return None,
        };
        Some(u32::from(value))
    }

    /// The bytes, or the offset of what does not belong there.
    pub(super) fn decode(self, text: &[u8]) -> Result<Vec<u8>, usize> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
        let mut four = (0_u32, 0_usize);
        let mut rest = text.iter().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
        while let Some((at, &byte)) = rest.next() {
            let (word, count) = four;
            if let Some(digit) = self.digit(byte) {
                four = ((word << 6) | digit, count + 1);
                if four.1 == 4 {
                    bytes.extend_from_slice(&four.0.to_be_bytes()[1..]);
                    four = (0, 0);
                }
                continue;
            }
            if byte != b'=' || !self.padded || count < 2 {
                return Err(at);
            }
            if count == 2 {
                match rest.next() {
                    Some((_, b'=')) => {}
                    Some((at, _)) => return Err(at),
                    None => return Err(text.len()),
                }
            }
            if let Some((at, _)) = rest.next() {
                return Err(at);
            }
            push_rest(&mut bytes, word, count);
            return Ok(bytes);
        }
        let (word, count) = four;
        if count == 1 || (count > 0 && self.padded) {
            return Err(text.len() - count);
        }
        push_rest(&mut bytes, word, count);
        Ok(bytes)
    }
}

/// Two digits hold one byte, three hold two.
fn push_rest(bytes: &mut Vec<u8>, word: u32, count: usize) {
    let whole = word << (6 * (4 - count.max(1)));
    bytes.extend_from_slice(&whole.to_be_bytes()[1..count.max(1)]);
}

/// Appends `bytes` in the standard alphabet, padded.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = (0..3)
            .fold(0_u32, |word, at| (word << 8) | u32::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = ((word >> (18 - 6 * at)) & 63) as usize;
            out.push(if at <= three.len() { char::from(STANDARD[digit]) } else { '=' });
        }
    }
}

/// Bytes in a JSON message: either alphabet, padded or not (protojson's `unmarshalBytes`).
pub(super) fn decode_lenient(text: &str) -> Option<Vec<u8>> {
    let for_urls = text.contains(['-', '_']);
    let padded = text.len().is_multiple_of(4);
    Alphabet { for_urls, padded }.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = String::new();
        encode(bytes, &mut out);
        out
    }

    #[test]
    fn both_alphabets_are_read_padded_or_not() {
        for (spelled, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zg", Some(b"f")),
            ("Zm8", Some(b"fo")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v\nZm9v\n\n\n", Some(b"foofoo")),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("-_-_", Some(&[0xfb, 0xff, 0xbf])),
            ("+_+_", None),
            ("Z", None),
            ("Zg=", None),
            ("Zg=x", None),
            ("Zm8=Zm8=", None),
            ("====", None),
            ("Zm 8", None),
            ("Zh==", Some(b"f")),
        ] {
            assert_eq!(decode_lenient(spelled).as_deref(), bytes, "{spelled}");
        }
    }

    #[test]
    fn the_place_of_a_fault_is_gos() {
        let raw = Alphabet { for_urls: false, padded: false };
        let padded = Alphabet { for_urls: false, padded: true };
        for (alphabet, spelled, at) in [
            (raw, "Zm!v", 2),
            (raw, "Z", 0),
            (padded, "Zm9", 0),
            (padded, "Zg=x", 3),
            (padded, "=", 0),
        ] {
            assert_eq!(alphabet.decode(spelled.as_bytes()), Err(at), "{spelled}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let spelled = text(&bytes);
            let unpadded = spelled.trim_end_matches('=');
            let for_urls = spelled.replace('+', "-").replace('/', "_");
            prop_assert_eq!(decode_lenient(&spelled), Some(bytes.clone()));
            prop_assert_eq!(decode_lenient(unpadded), Some(bytes.clone()));
            prop_assert_eq!(decode_lenient(&for_urls), Some(bytes));
        }
    }
}
