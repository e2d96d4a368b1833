//! Simple tokens: 16 letters of chance, a dot, and the log index of the login (etcd `server/auth/simple_token.go`).
//!
//! ```text
//!   login applied at 17       ──> file the hash of "aBc…" and 17 under the user    on every member, from the log
//!   a request with "aBc….17"  ──> 17 applied here? ──> who is it? its time begins anew, on this member alone
//! ```
//!
//! They are this member's memory: a restart forgets them, and nothing of them is in the replicated state. The log has
//! the hash of the letters alone (etcd's has the letters), so that who reads it cannot use what it finds.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::time::Instant;

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const TOKEN_LETTERS: usize = 16;
/// Tokens that ran out are looked for no more often than this.
const SWEEP: Duration = Duration::from_secs(1);
/// `--auth-token-ttl` 0 means this.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// More than a century: as good as for ever, and no clock runs over.
const TTL_MAX: Duration = Duration::from_secs(1 << 32);

/// The tokens that this member knows by the hash of their letters, with the user each stands for.
#[derive(Debug)]
pub(crate) struct SimpleTokens {
    ttl: Duration,
    held: Mutex<Held>,
}

struct Held {
    tokens: HashMap<String, Token>,
    swept: Instant,
}

/// Which users are logged in is nobody's business either.
impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.tokens.len())
    }
}

struct Token {
    user: String,
    /// Where the login stands in the log: the other half of the token.
    index: u64,
    ends: Instant,
}

impl SimpleTokens {
    pub(crate) fn new(ttl: Duration) -> Self {
        let ttl = if ttl.is_zero() { TTL_DEFAULT } else { ttl.min(TTL_MAX) };
        let held = Held { tokens: HashMap::new(), swept: Instant::now() };
        SimpleTokens { ttl, held: Mutex::new(held) }
    }

    /// The user of a token that has not run out; its time begins anew.
    pub(crate) fn user(&self, token: &str) -> Option<String> {
        let (letters, index) = halves(token)?;
        let id = id_of(letters);
        let now = Instant::now();
        let mut held = self.held.lock();
        let known = held.tokens.get_mut(&id)?;
        if known.index != index || known.ends <= now {
            return None;
        }
        known.ends = now + self.ttl;
        Some(known.user.clone())
    }

    /// A login was applied at `index`.
    pub(crate) fn assign(&self, id: String, index: u64, user: &str) {
        let now = Instant::now();
        let mut held = self.held.lock();
        if now.duration_since(held.swept) >= SWEEP {
            held.tokens.retain(|_, token| token.ends > now);
            held.swept = now;
        }
        held.tokens.insert(id, Token { user: user.to_owned(), index, ends: now + self.ttl });
    }

    /// Where the login stands in the log that gave this token.
    pub(crate) fn index(&self, id: &str) -> Option<u64> {
        self.held.lock().tokens.get(id).map(|token| token.index)
    }

    /// The user is gone, or has another password.
    pub(crate) fn forget_user(&self, user: &str) {
        self.held.lock().tokens.retain(|_, token| token.user != user);
    }

    /// Auth was turned off.
    pub(crate) fn forget_all(&self) {
        self.held.lock().tokens.clear();
    }
}

/// Letters that nobody can guess: from the system's generator, never from a seed.
pub(crate) fn draw_letters() -> String {
    let mut random = rand::rng();
    let letter = |_| char::from(LETTERS[random.random_range(0..LETTERS.len())]);
    (0..TOKEN_LETTERS).map(letter).collect()
}

/// What members file a token of these letters under.
pub(crate) fn id_of(letters: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, letters.as_bytes()))
}

/// The letters and the log index of what can be a simple token.
pub(crate) fn halves(token: &str) -> Option<(&str, u64)> {
    let (letters, index) = token.split_once('.')?;
    let digits = !index.is_empty() && index.bytes().all(|digit| digit.is_ascii_digit());
    let index = if digits { index.parse().ok()? } else { return None };
    Some((letters, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(tokens: &SimpleTokens, token: &str, user: &str) {
        let (letters, index) = halves(token).unwrap();
        tokens.assign(id_of(letters), index, user);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_lives_as_long_as_it_is_used() {
        let tokens = SimpleTokens::new(Duration::from_secs(3));
        assign(&tokens, "a.1", "ann");
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(tokens.user("a.1").as_deref(), Some("ann"));
        }
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(tokens.user("a.1"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_ran_out_are_dropped() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        for n in 0..100 {
            assign(&tokens, &format!("a{n}.{n}"), "ann");
        }
        tokio::time::advance(TTL_DEFAULT + SWEEP).await;
        assign(&tokens, "b.100", "ben");
        assert_eq!(tokens.held.lock().tokens.len(), 1);
    }

    #[tokio::test]
    async fn both_halves_must_be_right() {
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        assign(&tokens, "a.17", "ann");
        assert_eq!(tokens.user("a.17").as_deref(), Some("ann"));
        for wrong in ["a.18", "b.17", "a.", "a", ".17", "a.17.17", "A.17"] {
            assert_eq!(tokens.user(wrong), None, "{wrong}");
        }
        assert_eq!(tokens.user(&format!("{}.17", id_of("a"))), None, "the log's half is no token");
    }

    #[tokio::test]
    async fn a_users_tokens_go_together_and_all_go_when_auth_does() {
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        assign(&tokens, "a.1", "ann");
        assign(&tokens, "aa.2", "ann");
        assign(&tokens, "b.3", "ben");
        tokens.forget_user("ann");
        assert_eq!((tokens.user("a.1"), tokens.user("aa.2")), (None, None));
        assert_eq!(tokens.user("b.3").as_deref(), Some("ben"));
        tokens.forget_all();
        assert_eq!(tokens.user("b.3"), None);
    }

    #[test]
    fn sixteen_letters_are_drawn_and_never_the_same() {
        let (one, other) = (draw_letters(), draw_letters());
        assert_ne!(one, other);
        for letters in [one, other] {
            assert!(letters.len() == 16 && letters.bytes().all(|c| c.is_ascii_alphabetic()));
        }
    }

    #[test]
    fn only_letters_dot_index_can_be_a_simple_token() {
        assert_eq!(halves("abc.17"), Some(("abc", 17)));
        for odd in
            ["", "abc", "abc.", "abc.x", "abc.+1", "abc.-1", "a.1.2", "a.99999999999999999999"]
        {
            assert_eq!(halves(odd), None, "{odd}");
        }
    }

    #[tokio::test]
    async fn what_is_printed_of_tokens_is_their_number() {
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        assign(&tokens, "secret.1", "ann");
        let printed = format!("{tokens:?}");
        assert!(!printed.contains("ann") && printed.contains("1 tokens"), "{printed}");
    }
}
