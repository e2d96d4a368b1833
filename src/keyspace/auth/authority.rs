//! What this member keeps beside the replicated users: tokens, and the means to check passwords.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::api::ids::LogId;
use quorate_core::api::refusal::AuthRefusal;
use quorate_core::api::reply::TokenChange;
use quorate_core::state_machine::StateMachine;
use quorate_core::state_machine::auth::Caller;
use tokio::time::timeout;

use super::gate::{Asker, Shown};
use super::jwt::Jwt;
use super::passwords::Passwords;
use super::settings::{AuthSettings, TokenKind};
use super::simple::{SimpleTokens, draw_letters, halves, id_of};
use crate::keyspace::state::State;
use crate::keyspace::{KeyspaceError, Seams};
use crate::support::clock::Clock;

/// Tells who asks. One for each keyspace.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Auth is on in the applied state. Written under the machine's lock, as is the revision.
    on: AtomicBool,
    revision: AtomicU64,
    tokens: Tokens,
    pub(super) passwords: Passwords,
    common_names: bool,
    clock: Arc<dyn Clock>,
    /// A request timeout: how long a token may wait for the entry it names.
    patience: Duration,
}

#[derive(Debug)]
enum Tokens {
    Simple(SimpleTokens),
    Signed(Arc<Jwt>),
    None,
}

/// The half of a new token that its taker must not lose until the login has been applied.
pub(super) struct Drawn {
    letters: String,
    /// What goes into the log.
    pub(super) id: String,
}

impl Authority {
    pub(crate) fn new(settings: &AuthSettings, seams: &Seams, patience: Duration) -> Self {
        let tokens = match &settings.tokens {
            TokenKind::Simple => Tokens::Simple(SimpleTokens::new(settings.token_ttl)),
            TokenKind::Jwt(key) => Tokens::Signed(Arc::clone(&key.0)),
            TokenKind::None => Tokens::None,
        };
        Authority {
            on: AtomicBool::new(false),
            revision: AtomicU64::new(0),
            tokens,
            passwords: Passwords::new(
                settings.bcrypt_cost,
                seams.blocking.beside(settings.passwords_at_once.max(1)),
            ),
            common_names: settings.common_names,
            clock: Arc::clone(&seams.clock),
            patience,
        }
    }

    /// Auth is on, as applied here.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    pub(crate) fn takes_common_names(&self) -> bool {
        self.common_names
    }

    /// The state is now this, after an entry. Called under the machine's lock.
    pub(crate) fn follow(&self, machine: &StateMachine) {
        let auth = machine.auth();
        self.revision.store(auth.revision(), Ordering::Release);
        self.on.store(auth.is_enabled(), Ordering::Release);
    }

    /// Another member's state took the place of this one's. Called under the machine's lock. The entries in between,
    /// which may have taken tokens away, are never seen: if users or roles have changed, all tokens go.
    pub(crate) fn restored(&self, machine: &StateMachine) {
        let before = self.revision.load(Ordering::Acquire);
        self.follow(machine);
        if before != machine.auth().revision()
            && let Tokens::Simple(tokens) = &self.tokens
        {
            tokens.forget_all();
        }
    }

    /// An entry was applied that gave or took tokens. Called before the applied index moves, because who has a token
    /// waits for that index.
    pub(crate) fn changed(&self, at: LogId, changes: Vec<TokenChange>) {
        let Tokens::Simple(tokens) = &self.tokens else {
            return;
        };
        for change in changes {
            match change {
                TokenChange::Given { user, token_id } => tokens.assign(token_id, at.index, &user),
                TokenChange::UserDropped { user } => tokens.forget_user(&user),
                TokenChange::AllDropped => tokens.forget_all(),
            }
        }
    }

    /// Who `asker` is now; `None` while auth is off, and for who shows nothing.
    pub(super) async fn caller(
        &self,
        state: &State,
        asker: &Asker,
    ) -> Result<Option<Caller>, KeyspaceError> {
        let Asker::Client(shown) = asker else {
            return Ok(None);
        };
        if !self.is_on() {
            return Ok(None);
        }
        let Shown { token, common_name } = &**shown;
        if let Some(token) = token {
            let known = self.holder(state, token).await;
            return known.map(Some).ok_or_else(|| refused(AuthRefusal::InvalidToken));
        }
        let user = common_name.clone();
        Ok(user.map(|user| Caller { user, auth_revision: present_revision(state) }))
    }

    async fn holder(&self, state: &State, token: &str) -> Option<Caller> {
        match &self.tokens {
            Tokens::Simple(tokens) => {
                let (_, index) = halves(token)?;
                // Given by another member, and this one has yet to hear of it.
                timeout(self.patience, state.wait_applied(index)).await.ok()?.ok()?;
                let user = tokens.user(token)?;
                Some(Caller { user, auth_revision: present_revision(state) })
            }
            Tokens::Signed(key) => {
                let claims = key.verify(token, self.clock.unix_ms())?;
                Some(Caller { user: claims.user, auth_revision: claims.revision })
            }
            Tokens::None => None,
        }
    }

    /// The beginning of a token for who is about to log in.
    pub(super) fn draw(&self) -> Drawn {
        match &self.tokens {
            Tokens::Simple(_) => {
                let letters = draw_letters();
                Drawn { id: id_of(&letters), letters }
            }
            Tokens::Signed(_) | Tokens::None => Drawn { id: String::new(), letters: String::new() },
        }
    }

    /// The whole token, once the login of `user` at auth revision `revision` has been applied here; `None` if it has
    /// been taken away again since.
    pub(super) fn complete(
        &self,
        drawn: &Drawn,
        user: &str,
        revision: u64,
    ) -> Result<Option<String>, AuthRefusal> {
        match &self.tokens {
            Tokens::Simple(tokens) => {
                let index = tokens.index(&drawn.id);
                Ok(index.map(|index| format!("{}.{index}", drawn.letters)))
            }
            Tokens::Signed(key) => {
                let signed = key.sign(user, revision, self.clock.unix_ms());
                signed.map(Some).map_err(|_verify_only| AuthRefusal::VerifyOnly)
            }
            Tokens::None => Err(AuthRefusal::Failed),
        }
    }
}

fn present_revision(state: &State) -> u64 {
    state.machine.read().auth().revision()
}

pub(super) fn refused(refusal: AuthRefusal) -> KeyspaceError {
    KeyspaceError::Refused(refusal.into())
}
