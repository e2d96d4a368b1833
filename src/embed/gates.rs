//! Feature gates: `Name=bool` pairs, as Kubernetes and etcd write them (etcd `pkg/featuregate`).

use std::collections::BTreeMap;

use crate::support::go::number::parse_bool;
use crate::support::go::quote::quote;

/// How settled a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless asked otherwise.
    Beta,
}

impl Stage {
    /// etcd's word.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
        }
    }
}

/// etcd 3.7's gates with their default.
pub const GATES: [(&str, Stage, bool); 11] = [
    ("AllAlpha", Stage::Alpha, false),
    ("AllBeta", Stage::Beta, false),
    ("CompactHashCheck", Stage::Alpha, false),
    ("FastLeaseKeepAlive", Stage::Beta, true),
    ("InitialCorruptCheck", Stage::Alpha, false),
    ("LeaseCheckpoint", Stage::Alpha, false),
    ("LeaseCheckpointPersist", Stage::Alpha, false),
    ("PriorityRequest", Stage::Alpha, false),
    ("SetMemberLocalAddr", Stage::Alpha, false),
    ("StopGRPCServiceOnDefrag", Stage::Alpha, false),
    ("TxnModeWriteWithSharedBuffer", Stage::Beta, true),
];

/// Refuses what is no list of known gates, in etcd's words.
pub fn check(text: &str) -> Result<(), String> {
    pairs(text).map(|_| ())
}

fn pairs(text: &str) -> Result<Vec<(&str, bool)>, String> {
    let mut found = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => return Err(format!("missing bool value for {}", part.trim())),
        };
        let on = parse_bool(value).ok_or_else(|| {
            let why = format!("strconv.ParseBool: parsing {}: invalid syntax", quote(value));
            format!("invalid value of {name}={value}, err: {why}")
        })?;
        found.push((name, on));
    }
    match found.iter().find(|(name, _)| !GATES.iter().any(|(gate, ..)| gate == name)) {
        Some((unknown, _)) => Err(format!("unrecognized feature gate: {unknown}")),
        None => Ok(found),
    }
}

/// Every gate that `text` decides, `AllAlpha` and `AllBeta` spread over those not named.
pub fn decided(text: &str) -> BTreeMap<String, bool> {
    let named: BTreeMap<&str, bool> = pairs(text).unwrap_or_default().into_iter().collect();
    let mut all: BTreeMap<String, bool> =
        named.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect();
    for (whole, stage) in [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)] {
        let Some(on) = named.get(whole) else { continue };
        for (gate, of, _) in GATES {
            if of == stage {
                all.entry(gate.to_owned()).or_insert(*on);
            }
        }
    }
    all
}

/// Whether `gate` is on, given the decided ones.
pub fn is_on(decided: &BTreeMap<String, bool>, gate: &str) -> bool {
    decided
        .get(gate)
        .copied()
        .unwrap_or_else(|| GATES.iter().any(|(name, _, default)| *name == gate && *default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_refused_in_etcds_words() {
        for (text, want) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            ("AllAlpha", "missing bool value for AllAlpha"),
            (
                "AllAlpha=x",
                "invalid value of AllAlpha=x, err: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(check(text), Err(want.to_owned()));
        }
        assert_eq!(check("LeaseCheckpoint=true, AllBeta=f,"), Ok(()));
    }

    #[test]
    fn all_alpha_spares_the_gates_that_are_named() {
        let gates = decided("AllAlpha=true,LeaseCheckpoint=false");
        assert!(is_on(&gates, "InitialCorruptCheck"));
        assert!(!is_on(&gates, "LeaseCheckpoint"));
        assert!(is_on(&gates, "FastLeaseKeepAlive"));
        assert!(!is_on(&BTreeMap::new(), "PriorityRequest"));
    }
}
