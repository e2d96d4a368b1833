//! Who asks, and the token that says so.

use std::fmt;

use quorate_core::api::pb::etcdserverpb as pb;
use tokio::sync::Mutex;
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use zeroize::Zeroizing;

use super::super::upstream::paths::AUTHENTICATE;
use super::super::upstream::{Repeat, Upstream};

/// A user's name and password.
#[derive(Clone)]
pub struct Login {
    name: String,
    password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.name).field("password", &"[redacted]").finish()
    }
}

impl Login {
    /// As whom to log in.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Login {
        Login { name: name.into(), password: Zeroizing::new(password.into()) }
    }

    /// `name:password`, as etcdctl's `--user` takes it.
    pub fn read(text: &str) -> Option<Login> {
        let (name, password) = text.split_once(':')?;
        (!name.is_empty()).then(|| Login::new(name, password))
    }
}

/// The token of one login, fetched when it is first needed.
pub(super) struct Tokens {
    login: Login,
    state: Mutex<State>,
}

enum State {
    Unknown,
    Known(AsciiMetadataValue),
    /// Nobody has to log in there.
    Unneeded,
}

impl Tokens {
    pub(super) fn new(login: Login) -> Tokens {
        Tokens { login, state: Mutex::new(State::Unknown) }
    }

    /// The token, if one is needed. Who comes while it is being fetched waits for it.
    pub(super) async fn current(
        &self,
        members: &Upstream,
    ) -> Result<Option<AsciiMetadataValue>, Status> {
        let mut state = self.state.lock().await;
        if matches!(*state, State::Unknown) {
            *state = self.log_in(members).await?;
        }
        Ok(match &*state {
            State::Known(token) => Some(token.clone()),
            State::Unknown | State::Unneeded => None,
        })
    }

    /// That token, or having none, is no good any more; unless somebody else has found that out already.
    pub(super) async fn forget(&self, token: Option<&AsciiMetadataValue>) {
        let mut state = self.state.lock().await;
        let same = match &*state {
            State::Known(known) => Some(known) == token,
            State::Unneeded => token.is_none(),
            State::Unknown => false,
        };
        if same {
            *state = State::Unknown;
        }
    }

    async fn log_in(&self, members: &Upstream) -> Result<State, Status> {
        let (name, password) = (self.login.name.clone(), self.login.password.to_string());
        let request = pb::AuthenticateRequest { name, password };
        let none = MetadataMap::new();
        let asked = super::unary(members, AUTHENTICATE, &request, Repeat::Freely, none).await;
        match asked {
            Ok(pb::AuthenticateResponse { token, .. }) => match token.parse() {
                Ok(token) => Ok(State::Known(token)),
                Err(_) => Err(Status::internal("the token is no text")),
            },
            Err(why) if why.message() == "etcdserver: authentication is not enabled" => {
                Ok(State::Unneeded)
            }
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_as_by_etcdctl_and_prints_no_password() {
        let login = Login::read("root:hunter:2").unwrap();
        assert_eq!((login.name.as_str(), login.password.as_str()), ("root", "hunter:2"));
        assert!(!format!("{login:?}").contains("hunter"));
        assert!(Login::read("root").is_none() && Login::read(":x").is_none());
    }
}
