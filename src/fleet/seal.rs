//! The fleet's key: what the replicated state must not hold, and what everything secret in it rests on.
//!
//! ```text
//!   fleet.key (32 bytes, 0600, on every control-plane node, handed over when one joins)
//!       ├─ derive(label, fields) ── HMAC-SHA256 ──> secrets of tokens (`tokens`)
//!       └─ derive("seal") ────────── AES-256-GCM ─> sealed keys of the fleet's authority (`pki`)
//!
//!   sealed: version 1 | nonce 12 | ciphertext | tag 16        bound to: version, generation, uid
//! ```
//!
//! **Invariant:** the key itself enters neither the log nor a snapshot; it is used for derivation alone.
//! **Invariant:** fields are told apart by their lengths: no two lists of fields derive alike by being joined.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::fill;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::support::durable;

/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// The version of what is sealed.
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

/// Why a key cannot be had, or something sealed cannot be opened. None of them tells anything of what is inside.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file could not be read or written.
    #[error("fleet key {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no key.
    #[error("fleet key {0}: not a key of 32 bytes")]
    NoKeyFile(PathBuf),
    /// Others than its owner may read the file.
    #[error("fleet key {0}: others may read it: take their rights away (chmod 600) and renew it")]
    Exposed(PathBuf),
    /// What another node sent is no key.
    #[error("not a fleet key")]
    NoKey,
    /// Sealed by a version that is not known here.
    #[error("sealed in version {0}, which is not known here: upgrade this node")]
    Version(u8),
    /// Sealed with another key, for another fleet or generation, or changed since.
    #[error("the seal does not fit: another key, another fleet or generation, or it is damaged")]
    Broken,
}

/// The key.
#[derive(Clone)]
pub struct FleetKey(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetKey([redacted])")
    }
}

impl FleetKey {
    /// A new one, by chance.
    pub fn generate() -> FleetKey {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill(bytes.as_mut_slice()).expect("the system gives random bytes");
        FleetKey(bytes)
    }

    /// Reads it from its file, which none but the owner may be able to read.
    pub fn load(path: &Path) -> Result<FleetKey, SealError> {
        let failed = |source| SealError::Io { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SealError::Exposed(path.to_owned()));
        }
        let read = Zeroizing::new(fs::read(path).map_err(failed)?);
        let bytes: [u8; KEY_BYTES] =
            read.as_slice().try_into().map_err(|_| SealError::NoKeyFile(path.to_owned()))?;
        Ok(FleetKey(Zeroizing::new(bytes)))
    }

    /// Writes it to its file, in one step and to stay, for the owner alone.
    pub fn store(&self, path: &Path) -> Result<(), SealError> {
        durable::replace(path, durable::SECRET, self.0.as_slice())
            .map_err(|source| SealError::Io { path: path.to_owned(), source })
    }

    /// As it is handed to a node that joins: base64.
    pub fn to_base64(&self) -> Secret {
        Secret::from(STANDARD.encode(self.0.as_slice()))
    }

    /// As it came from another node.
    pub fn from_base64(text: &Secret) -> Result<FleetKey, SealError> {
        let read = Zeroizing::new(STANDARD.decode(text.reveal()).map_err(|_| SealError::NoKey)?);
        let bytes = read.as_slice().try_into().map_err(|_| SealError::NoKey)?;
        Ok(FleetKey(Zeroizing::new(bytes)))
    }

    /// 32 bytes that follow from the key, a label and fields, and from which the key does not follow.
    pub(super) fn derive(&self, label: &str, fields: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, self.0.as_slice()));
        for field in std::iter::once(label.as_bytes()).chain(fields.iter().copied()) {
            let length = u64::try_from(field.len()).expect("a length fits in 64 bits");
            context.update(&length.to_be_bytes());
            context.update(field);
        }
        let tag = context.sign();
        Zeroizing::new(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    fn cipher(&self) -> LessSafeKey {
        let key = self.derive("quorate seal 1", &[]);
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice());
        LessSafeKey::new(key.expect("AES-256 takes 32 bytes"))
    }

    /// Seals `plain` for the fleet `uid` and for this generation of what it belongs to.
    pub fn seal(&self, uid: &str, generation: u64, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce).expect("the system gives random bytes");
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
        body.extend_from_slice(plain);
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(uid, generation)),
                &mut *body,
            )
            .expect("what is sealed is far below AES-GCM's limit");
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        sealed
    }

    /// Opens what [`FleetKey::seal`] made for the same fleet and generation.
    pub fn open(
        &self,
        uid: &str,
        generation: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Broken)?;
        if *version != VERSION {
            return Err(SealError::Version(*version));
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Broken)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher()
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(bound(uid, generation)),
                &mut body,
            )
            .map_err(|_| SealError::Broken)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

/// What a seal is bound to beside the key.
fn bound(uid: &str, generation: u64) -> Vec<u8> {
    let mut bound = vec![VERSION];
    bound.extend_from_slice(&generation.to_be_bytes());
    bound.extend_from_slice(uid.as_bytes());
    bound
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_file_is_for_its_owner_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.key");
        let key = FleetKey::generate();
        key.store(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = FleetKey::load(&path).unwrap();
        assert_eq!(read.derive("x", &[]), key.derive("x", &[]));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(FleetKey::load(&path), Err(SealError::Exposed(_))));
        durable::replace(&path, durable::SECRET, b"short").unwrap();
        assert!(matches!(FleetKey::load(&path), Err(SealError::NoKeyFile(_))));
        assert!(matches!(
            FleetKey::load(dir.path()),
            Err(SealError::Exposed(_) | SealError::Io { .. })
        ));
    }

    #[test]
    fn it_is_handed_over_as_text_and_shown_to_nobody() {
        let key = FleetKey(Zeroizing::new([0xab; 32]));
        let text = key.to_base64();
        let read = FleetKey::from_base64(&text).unwrap();
        assert_eq!(*read.0, *key.0);
        let shown = format!("{key:?} {text:?}");
        assert_eq!(shown, "FleetKey([redacted]) [redacted]");
        for bad in ["", "q6ur", "not base64!"] {
            let why = FleetKey::from_base64(&Secret::from(bad)).unwrap_err();
            assert!(matches!(why, SealError::NoKey));
        }
    }

    #[test]
    fn fields_that_read_alike_when_joined_derive_differently() {
        let key = FleetKey::generate();
        let derived = [
            key.derive("a", &[b"b", b"c"]),
            key.derive("ab", &[b"c"]),
            key.derive("a", &[b"bc"]),
            key.derive("a", &[b"bc", b""]),
            key.derive("abc", &[]),
            FleetKey::generate().derive("a", &[b"b", b"c"]),
        ];
        for (i, one) in derived.iter().enumerate() {
            assert!(derived[..i].iter().all(|other| other != one), "number {i}");
        }
    }

    #[test]
    fn a_version_that_is_not_known_is_told() {
        let key = FleetKey::generate();
        let mut sealed = key.seal("u", 1, b"x");
        sealed[0] = 2;
        assert!(matches!(key.open("u", 1, &sealed), Err(SealError::Version(2))));
    }

    proptest! {
        #[test]
        fn a_seal_opens_for_what_it_was_made_for_and_for_nothing_else(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            generation in any::<u64>(),
            bit in any::<prop::sample::Index>(),
        ) {
            let key = FleetKey::generate();
            let sealed = key.seal("uid", generation, &plain);
            prop_assert_eq!(&*key.open("uid", generation, &sealed).unwrap(), &plain);
            prop_assert_ne!(&key.seal("uid", generation, &plain), &sealed);
            let refused = |opened: Result<_, _>| matches!(opened, Err(SealError::Broken));
            prop_assert!(refused(FleetKey::generate().open("uid", generation, &sealed)));
            prop_assert!(refused(key.open("other", generation, &sealed)));
            prop_assert!(refused(key.open("uid", generation.wrapping_add(1), &sealed)));
            let bit = bit.index(sealed.len() * 8);
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(key.open("uid", generation, &flipped).is_err());
            let short = bit / 8;
            prop_assert!(key.open("uid", generation, &sealed[..short]).is_err());
        }
    }
}
