//! What a node may be called.

use super::super::error::FleetError;

/// DNS's own bound of a whole name.
const NAME_MAX: usize = 253;

/// The name as it is kept: lower case, in IDNA's ASCII form, without blanks around it.
///
/// Refused as [`FleetError::Invalid`]: nothing at all, a dot at the end, what IDNA does not take, and more than 253
/// bytes. Source: `CleanHostname` of k8sd, which uses IDNA's lookup profile.
pub fn clean_name(name: &str) -> Result<String, FleetError> {
    let invalid = |why: &str| FleetError::Invalid(format!("invalid hostname {name:?}: {why}"));
    let trimmed = name.trim();
    if trimmed.is_empty() {
        return Err(invalid("it is empty"));
    }
    if trimmed.ends_with('.') {
        return Err(invalid("it ends with a dot"));
    }
    let ascii = idna::domain_to_ascii_strict(trimmed).map_err(|_| invalid("not a name by IDNA"))?;
    if ascii.is_empty() || ascii.len() > NAME_MAX || ascii.ends_with('.') {
        return Err(invalid("not a name by IDNA"));
    }
    Ok(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ascii_and_a_dot_at_the_end_is_refused() {
        assert_eq!(clean_name("Node-1.Example").unwrap(), "node-1.example");
        assert_eq!(clean_name("bücher").unwrap(), "xn--bcher-kva");
        assert_eq!(clean_name(" n1 ").unwrap(), "n1");
        for bad in ["", " ", ".", "node.", "a..b", "a b", "a_b", "-a", "a/b", "\u{0}"] {
            let why = clean_name(bad).expect_err(bad);
            assert!(why.to_string().starts_with("invalid hostname"), "{why}");
        }
        assert!(clean_name(&"a.".repeat(130)).is_err());
        assert!(clean_name(&format!("{}a", "a.".repeat(130))).is_err());
    }
}
