//! As much of PEM and DER as it takes to find a public key in the files that etcd accepts.
//!
//! ```text
//!   SubjectPublicKeyInfo = SEQUENCE { algorithm SEQUENCE { OID, .. }, BIT STRING }
//!   Certificate          = SEQUENCE { SEQUENCE { [0]? serial sig issuer validity subject SubjectPublicKeyInfo .. } .. }
//!   RSAPublicKey         = SEQUENCE { INTEGER, INTEGER }
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]`, the version of a certificate.
const VERSION: u8 = 0xa0;

/// The content of the first PEM block, whatever it is called.
pub(super) fn first_block(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN "));
    lines.next()?;
    let mut body = String::new();
    for line in lines {
        if line.starts_with("-----END ") {
            return STANDARD.decode(body).ok();
        }
        // Headers, as in files that openssl has encrypted: the key below them is unreadable anyway.
        if !line.contains(':') {
            body.push_str(line);
        }
    }
    None
}

/// A public key as it stands in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// The algorithm's object identifier, its bytes alone; RSA's for a bare `RSAPublicKey`.
    pub(super) algorithm: Vec<u8>,
    /// The key: an `RSAPublicKey`, an uncompressed point, or 32 bytes of Ed25519.
    pub(super) bits: Vec<u8>,
}

/// rsaEncryption, 1.2.840.113549.1.1.1.
pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1.
pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// id-Ed25519, 1.3.101.112.
pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The public key in `der`: by itself, in a certificate, or as a bare RSA key.
pub(super) fn public_key(der: &[u8]) -> Option<PublicKey> {
    let (body, _) = expect(der, SEQUENCE)?;
    key_info(body).or_else(|| in_certificate(body)).or_else(|| bare_rsa(der, body))
}

fn key_info(body: &[u8]) -> Option<PublicKey> {
    let (algorithm, rest) = expect(body, SEQUENCE)?;
    let (algorithm, _) = expect(algorithm, OBJECT_IDENTIFIER)?;
    let (bits, _) = expect(rest, BIT_STRING)?;
    // The first byte counts unused bits, of which keys have none.
    let bits = bits.strip_prefix(&[0])?;
    Some(PublicKey { algorithm: algorithm.to_vec(), bits: bits.to_vec() })
}

fn in_certificate(body: &[u8]) -> Option<PublicKey> {
    let (mut rest, _) = expect(body, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    rest = expect(rest, INTEGER)?.1;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        rest = expect(rest, SEQUENCE)?.1;
    }
    key_info(expect(rest, SEQUENCE)?.0)
}

fn bare_rsa(der: &[u8], body: &[u8]) -> Option<PublicKey> {
    let (_, rest) = expect(body, INTEGER)?;
    let (_, rest) = expect(rest, INTEGER)?;
    rest.is_empty().then(|| PublicKey { algorithm: RSA.to_vec(), bits: der.to_vec() })
}

fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content, and what follows. Tags of one byte and definite lengths of up to four bytes: DER has no others here.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_or_garbled_input_is_no_key_and_no_panic() {
        let good = [0x30, 0x0a, 0x30, 0x03, 0x06, 0x01, 0x2a, 0x03, 0x03, 0x00, 0x01, 0x02];
        let found = public_key(&good).unwrap();
        assert_eq!((found.algorithm.as_slice(), found.bits.as_slice()), (&[0x2a][..], &[1, 2][..]));
        for end in 0..good.len() {
            assert_eq!(public_key(&good[..end]), None);
        }
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut garbled = good;
                garbled[at] = byte;
                let _ = public_key(&garbled);
            }
        }
        assert_eq!(public_key(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }

    #[test]
    fn the_first_block_is_taken() {
        let pem = "x\n-----BEGIN A-----\nAQ==\n-----END A-----\n-----BEGIN B-----\nAg==\n-----END B-----\n";
        assert_eq!(first_block(pem.as_bytes()), Some(vec![1]));
        assert_eq!(first_block(b"-----BEGIN A-----\nAQ=="), None);
        assert_eq!(first_block(b""), None);
        assert_eq!(first_block(b"\xff"), None);
    }
}
