//! Text that is shown to nobody but whom it is for: tokens, and keys on their way.
//!
//! **Invariant:** what formats a value for people, `Debug` above all, prints `[redacted]`; the text itself comes out by
//! [`Secret::reveal`] and by serialization alone, and both can be searched for.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// The SHA-256 of a secret: what is kept and replicated instead of it.
pub type SecretHash = [u8; 32];

/// A secret text. Wiped when it goes; compared in constant time. In JSON it is the text itself, because there it is on
/// its way to who may have it.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text. Not for logs, errors, or anything that is kept.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What it is filed under.
    pub fn hash(&self) -> SecretHash {
        let hash = digest(&SHA256, self.0.as_bytes());
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Whether this is the secret of that hash, in constant time.
    pub fn has_hash(&self, hash: &[u8]) -> bool {
        verify_slices_are_equal(&self.hash(), hash).is_ok()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret::from(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

impl Eq for Secret {}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.reveal())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_to_nobody_and_sent_as_it_is() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"hunter2\"");
        assert_eq!(serde_json::from_str::<Secret>("\"hunter2\"").unwrap(), secret);
        assert_ne!(secret, Secret::from("hunter3"));
        assert_ne!(secret, Secret::from("hunter"));
    }

    #[test]
    fn a_refused_text_is_not_in_the_error() {
        let why = serde_json::from_str::<Secret>("[\"hunter2\"]").unwrap_err();
        assert!(!why.to_string().contains("hunter2"), "{why}");
    }

    #[test]
    fn its_hash_is_sha_256() {
        let hash = Secret::from("abc").hash();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Secret::from("abc").has_hash(&hash));
        assert!(!Secret::from("abd").has_hash(&hash) && !Secret::from("abc").has_hash(&hash[1..]));
    }
}
