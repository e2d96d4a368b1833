//! `--auth-token` and its neighbours, read (etcd `server/auth/store.go` `NewTokenProvider`, `options.go`).
//!
//! ```text
//!   simple
//!   jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::jwt::{Jwt, KeyError};
use crate::support::go::duration::GoDuration;

/// How this member asks its clients who they are. All members should be set alike.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// `--auth-token`.
    pub tokens: TokenKind,
    /// `--auth-token-ttl`: how long a simple token is good after its last use.
    pub token_ttl: Duration,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// Passwords that are hashed or checked at the same time; those behind wait.
    pub passwords_at_once: usize,
    /// `--client-cert-auth`: who shows a certificate and no token is the user whom the certificate names.
    pub common_names: bool,
}

impl Default for AuthSettings {
    /// etcd's.
    fn default() -> Self {
        AuthSettings {
            tokens: TokenKind::Simple,
            token_ttl: Duration::from_secs(300),
            bcrypt_cost: 10,
            passwords_at_once: 1,
            common_names: false,
        }
    }
}

/// Which tokens are given out.
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// Letters of chance that the members remember.
    Simple,
    /// Signed tokens that need no memory.
    Jwt(SigningKey),
    /// None: nobody can log in.
    None,
}

/// A key for signed tokens, read and checked.
#[derive(Clone, Debug)]
pub struct SigningKey(pub(crate) Arc<Jwt>);

/// Why `--auth-token` was not understood; the texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenOptionError {
    /// Its form, its kind, its sign-method, or a file that cannot be read.
    #[error("auth: invalid auth options")]
    Invalid,
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

const OPTIONS: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];

impl TokenKind {
    /// Reads `--auth-token`; `read` opens the files that it names. What etcd only logs is logged.
    pub fn parse(
        text: &str,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<TokenKind, TokenOptionError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| invalid(text))?;
            if value.contains('=') || options.insert(name, value).is_some() {
                return Err(invalid(text));
            }
        }
        match kind {
            "simple" => {
                tracing::warn!("simple token is not cryptographically signed");
                Ok(TokenKind::Simple)
            }
            "jwt" => signed(&options, read),
            "" => Ok(TokenKind::None),
            other => {
                tracing::warn!("type" = other, "unknown token type");
                Err(TokenOptionError::Invalid)
            }
        }
    }
}

fn invalid(text: &str) -> TokenOptionError {
    tracing::error!(option = text, "invalid token option");
    TokenOptionError::Invalid
}

fn signed(
    options: &BTreeMap<&str, &str>,
    read: impl Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<TokenKind, TokenOptionError> {
    let given = |name: &str| options.get(name).copied().filter(|value: &&str| !value.is_empty());
    let problem = |error: String| {
        tracing::error!(error, "problem loading JWT options");
        TokenOptionError::Invalid
    };
    let ttl = given("ttl")
        .map(|text| GoDuration::parse(text).ok_or_else(|| problem(GoDuration::complaint(text))));
    let ttl = ttl.transpose()?;
    let file = |name: &str| {
        let open = |path| read(path).map_err(|why| problem(format!("open {path}: {why}")));
        given(name).map(open).transpose()
    };
    let (public, private) = (file("pub-key")?, file("priv-key")?);
    let method = given("sign-method").unwrap_or_default();
    let key = match Jwt::new(method, public.as_deref(), private.as_deref(), ttl) {
        Ok(key) => key,
        Err(error @ KeyError::Method) => return Err(problem(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let unknown: Vec<_> = options.keys().filter(|name| !OPTIONS.contains(name)).collect();
    if !unknown.is_empty() {
        tracing::warn!(keys = ?unknown, "unknown JWT options");
    }
    Ok(TokenKind::Jwt(SigningKey(Arc::new(key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TokenKind, String> {
        let read = |path: &str| match path {
            "secret" => Ok(b"0123456789".to_vec()),
            "empty" => Ok(Vec::new()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        TokenKind::parse(text, read).map_err(|error| error.to_string())
    }

    #[test]
    fn what_etcd_takes_is_taken() {
        assert!(matches!(parse("simple"), Ok(TokenKind::Simple)));
        assert!(matches!(parse("simple,x=1"), Ok(TokenKind::Simple)));
        assert!(matches!(parse(""), Ok(TokenKind::None)));
        for good in [
            "jwt,sign-method=HS256,priv-key=secret",
            "jwt,sign-method=HS512,priv-key=secret,ttl=1h30m",
            "jwt,sign-method=HS256,priv-key=secret,pub-key=,ttl=",
            "jwt,sign-method=HS256,priv-key=secret,colour=red",
        ] {
            assert!(matches!(parse(good), Ok(TokenKind::Jwt(_))), "{good}");
        }
    }

    #[test]
    fn what_etcd_refuses_is_refused_in_its_words() {
        let invalid = "auth: invalid auth options";
        for (text, want) in [
            ("jwt", invalid),
            ("jwt,sign-method=HS255,priv-key=secret", invalid),
            ("jwt,sign-method=none", invalid),
            ("jwt,sign-method=HS256,priv-key=nowhere", invalid),
            ("jwt,sign-method=HS256,priv-key=secret,ttl=5", invalid),
            ("jwt,sign-method=HS256,priv-key=secret,priv-key=secret", invalid),
            ("jwt,sign-method=HS256=HS512,priv-key=secret", invalid),
            ("jwt,sign-method", invalid),
            ("simple,x", invalid),
            ("basic", invalid),
            ("jwt,sign-method=HS256", "auth: missing key data"),
            ("jwt,sign-method=HS256,priv-key=empty", "auth: missing key data"),
            ("jwt,sign-method=RS256", "auth: missing key data"),
        ] {
            assert_eq!(parse(text).err().as_deref(), Some(want), "{text}");
        }
    }
}
