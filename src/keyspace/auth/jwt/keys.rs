//! Keys of the algorithms that etcd takes, and what they are read from (etcd `server/auth/options.go`).

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};

use super::der;

/// Why a key cannot be used. The first four texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The sign-method is none that etcd has.
    #[error("auth: invalid auth signature method")]
    Method,
    /// Neither a public nor a private key was given, or no secret for an HS method.
    #[error("auth: missing key data")]
    Missing,
    /// They are not a pair.
    #[error("auth: public and private keys don't match")]
    Mismatch,
    /// No PEM block was found.
    #[error("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key")]
    NotPem,
    /// The block holds no private key of the method's kind, or a weak one.
    #[error("key is not a valid {0} private key")]
    Private(&'static str),
    /// The block holds no public key of the method's kind.
    #[error("key is not a valid {0} public key")]
    Public(&'static str),
}

/// How a method signs and verifies.
#[derive(Clone, Copy)]
enum Kind {
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ec(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed,
    Hmac(hmac::Algorithm),
}

const NAMES: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
];

fn kind_of(method: &str) -> Option<Kind> {
    Some(match method {
        "RS256" => Kind::Rsa(&RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Kind::Rsa(&RSA_PKCS1_SHA384, &RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Kind::Rsa(&RSA_PKCS1_SHA512, &RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Kind::Rsa(&RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
        "PS384" => Kind::Rsa(&RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
        "PS512" => Kind::Rsa(&RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
        "ES256" => Kind::Ec(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED),
        "ES384" => Kind::Ec(&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED),
        "ES512" => Kind::Ec(&ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED),
        "EdDSA" => Kind::Ed,
        "HS256" => Kind::Hmac(hmac::HMAC_SHA256),
        "HS384" => Kind::Hmac(hmac::HMAC_SHA384),
        "HS512" => Kind::Hmac(hmac::HMAC_SHA512),
        _ => return None,
    })
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Rsa(..) => "RSA",
            Kind::Ec(..) => "ECDSA",
            Kind::Ed => "Ed25519",
            Kind::Hmac(_) => "HMAC",
        }
    }

    fn algorithm(self) -> &'static [u8] {
        match self {
            Kind::Rsa(..) => der::RSA,
            Kind::Ec(..) => der::EC,
            Kind::Ed => der::ED25519,
            Kind::Hmac(_) => &[],
        }
    }
}

/// What signs.
enum Signer {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// From the DER of PKCS #1 (RSA), SEC 1 (EC) or PKCS #8.
    fn read(kind: Kind, der: &[u8]) -> Option<Signer> {
        match kind {
            Kind::Rsa(encoding, _) => {
                let pair = RsaKeyPair::from_der(der).or_else(|_| RsaKeyPair::from_pkcs8(der));
                Some(Signer::Rsa(pair.ok()?, encoding))
            }
            Kind::Ec(algorithm, _) => {
                let pair = EcdsaKeyPair::from_private_key_der(algorithm, der)
                    .or_else(|_| EcdsaKeyPair::from_pkcs8(algorithm, der));
                Some(Signer::Ec(pair.ok()?))
            }
            Kind::Ed => Some(Signer::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?)),
            Kind::Hmac(_) => None,
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Signer::Rsa(pair, _) => pair.public_key().as_ref(),
            Signer::Ec(pair) => pair.public_key().as_ref(),
            Signer::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let why = "a key that was read signs, and the system has chance";
        match self {
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).expect(why);
                signature
            }
            Signer::Ec(pair) => pair.sign(&random, message).expect(why).as_ref().to_vec(),
            Signer::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A key, or the public half of one.
pub(super) struct Key(Inner);

enum Inner {
    Pair {
        signer: Option<Signer>,
        verify: &'static dyn VerificationAlgorithm,
        /// As the verification algorithm takes it.
        public: Vec<u8>,
    },
    Secret(Box<hmac::Key>),
}

impl Key {
    /// The method's own name, and its key.
    pub(super) fn load(
        method: &str,
        public: Option<&[u8]>,
        private: Option<&[u8]>,
    ) -> Result<(&'static str, Key), KeyError> {
        let name = NAMES.into_iter().find(|name| *name == method).ok_or(KeyError::Method)?;
        let kind = kind_of(name).ok_or(KeyError::Method)?;
        let given =
            |file: Option<&[u8]>| file.filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec);
        let (public, private) = (given(public), given(private));
        let verify: &'static dyn VerificationAlgorithm = match kind {
            Kind::Hmac(algorithm) => {
                let secret = private.ok_or(KeyError::Missing)?;
                let key = Inner::Secret(Box::new(hmac::Key::new(algorithm, &secret)));
                return Ok((name, Key(key)));
            }
            Kind::Rsa(_, verify) | Kind::Ec(_, verify) => verify,
            Kind::Ed => &ED25519,
        };
        let signer = private.map(|pem| read_private(kind, &pem)).transpose()?;
        let public = public.map(|pem| read_public(kind, &pem)).transpose()?;
        let public = match (&signer, public) {
            (None, None) => return Err(KeyError::Missing),
            (Some(signer), Some(public)) if signer.public() != public => {
                return Err(KeyError::Mismatch);
            }
            (Some(signer), _) => signer.public().to_vec(),
            (None, Some(public)) => public,
        };
        Ok((name, Key(Inner::Pair { signer, verify, public })))
    }

    /// The signature, unless there is only a public key.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Inner::Pair { signer, .. } => Some(signer.as_ref()?.sign(message)),
            Inner::Secret(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
        }
    }

    /// Whether this key made `signature`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Inner::Pair { verify, public, .. } => {
                UnparsedPublicKey::new(*verify, public).verify(message, signature).is_ok()
            }
            Inner::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

fn read_private(kind: Kind, pem: &[u8]) -> Result<Signer, KeyError> {
    let der = der::first_block(pem).ok_or(KeyError::NotPem)?;
    Signer::read(kind, &der).ok_or(KeyError::Private(kind.word()))
}

fn read_public(kind: Kind, pem: &[u8]) -> Result<Vec<u8>, KeyError> {
    let der = der::first_block(pem).ok_or(KeyError::NotPem)?;
    match der::public_key(&der) {
        Some(found) if found.algorithm == kind.algorithm() => Ok(found.bits),
        Some(_) | None => Err(KeyError::Public(kind.word())),
    }
}
