//! Passwords as bcrypt keeps them. Hashing and checking take tens of milliseconds of a core by intent: they run off the
//! runtime's threads, a few at once, and those behind wait.

use bcrypt::Version;
use quorate_core::api::refusal::AuthRefusal;

use crate::support::spawn::Blocking;

/// bcrypt's costs, and Go's default when another is asked for.
const COST_MIN: u32 = 4;
const COST_MAX: u32 = 31;
const COST_DEFAULT: u32 = 10;
/// bcrypt looks at no more bytes than this; Go refuses to hash longer ones, and so do we.
const PASSWORD_BYTES_MAX: usize = 72;

/// Hashes and checks passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    cost: u32,
    pool: Blocking,
}

impl Passwords {
    /// `cost` is `--bcrypt-cost`; no more passwords are hashed or checked at the same time than `pool` takes.
    pub(crate) fn new(cost: u32, pool: Blocking) -> Self {
        let valid = (COST_MIN..=COST_MAX).contains(&cost);
        if !valid {
            tracing::warn!(
                "min-cost" = COST_MIN,
                "max-cost" = COST_MAX,
                "default-cost" = COST_DEFAULT,
                "given-cost" = cost,
                "use default bcrypt cost instead of the invalid given cost"
            );
        }
        let cost = if valid { cost } else { COST_DEFAULT };
        Passwords { cost, pool }
    }

    /// The hash to keep, `$2a$..` as Go writes it.
    pub(crate) async fn hash(&self, password: String) -> Result<String, AuthRefusal> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(AuthRefusal::PasswordTooLong);
        }
        let cost = self.cost;
        let hashed = self.pool.run(move || bcrypt::hash_with_result(password, cost)).await;
        let parts = hashed.expect("the cost is bcrypt's, and the system has chance");
        Ok(parts.format_for_version(Version::TwoA))
    }

    /// The password is the one that was hashed. What is no hash fits no password.
    pub(crate) async fn fits(&self, password: String, hash: String) -> bool {
        // The library slices it by bytes.
        if !hash.is_ascii() {
            return false;
        }
        self.pool.run(move || bcrypt::verify(password, &hash).unwrap_or(false)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go's bcrypt makes of "allmine", from its own tests.
    const OF_GO: &str = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";

    fn passwords() -> Passwords {
        Passwords::new(4, Blocking::bounded(2))
    }

    #[tokio::test]
    async fn a_password_fits_its_hash_and_no_other() {
        let passwords = passwords();
        let hash = passwords.hash("kitty".to_owned()).await.unwrap();
        assert!(hash.starts_with("$2a$04$"), "{hash}");
        assert!(passwords.fits("kitty".to_owned(), hash.clone()).await);
        assert!(!passwords.fits("Kitty".to_owned(), hash).await);
        assert!(passwords.fits("allmine".to_owned(), OF_GO.to_owned()).await);
    }

    #[tokio::test]
    async fn only_what_go_would_hash_is_hashed() {
        let passwords = passwords();
        let longest = "p".repeat(72);
        let hash = passwords.hash(longest.clone()).await.unwrap();
        assert!(passwords.fits(longest, hash).await);
        let refused = passwords.hash("p".repeat(73)).await;
        assert_eq!(refused, Err(AuthRefusal::PasswordTooLong));
        let empty = passwords.hash(String::new()).await.unwrap();
        assert!(passwords.fits(String::new(), empty).await);
    }

    #[tokio::test]
    async fn what_is_no_hash_fits_nothing() {
        let passwords = passwords();
        let odd = format!("$2a$04${}", "é".repeat(26) + "x");
        for hash in ["", "kitty", "$2a$04$short", odd.as_str(), &OF_GO.replace("$2a", "$9z")] {
            assert!(!passwords.fits("allmine".to_owned(), hash.to_owned()).await, "{hash}");
            assert!(!passwords.fits(String::new(), hash.to_owned()).await, "{hash}");
        }
    }

    #[test]
    fn a_cost_that_bcrypt_has_not_becomes_gos_default() {
        for (asked, taken) in [(4, 4), (31, 31), (3, 10), (0, 10), (32, 10)] {
            assert_eq!(Passwords::new(asked, Blocking::in_place()).cost, taken);
        }
    }
}
