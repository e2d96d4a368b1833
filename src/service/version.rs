//! Which versions we report. The etcd version is the tag whose behaviour and suites we follow; a build for
//! another tag sets `QUORATE_ETCD_VERSION`.

/// The version of etcd that clients are told.
pub const ETCD_VERSION: &str = match option_env!("QUORATE_ETCD_VERSION") {
    Some(version) => version,
    None => "3.7.1",
};

/// The version of the cluster and of its storage: the same minor, patch 0.
pub fn cluster_version() -> String {
    let mut parts = ETCD_VERSION.splitn(3, '.');
    let (major, minor) = (parts.next().unwrap_or("3"), parts.next().unwrap_or("7"));
    format!("{major}.{minor}.0")
}

/// `major.minor` of the cluster's version, as metrics print it.
pub fn cluster_minor() -> String {
    let full = cluster_version();
    full.trim_end_matches(".0").to_owned()
}

/// Our own version.
pub const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit the build was made from, if the build said.
pub const COMMIT: &str = match option_env!("QUORATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What `--version` prints: etcd's four lines, which scripts parse, then our own.
pub fn lines() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {COMMIT}\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\n\
         Quorate Version: {OWN_VERSION}\n",
        std::env::consts::OS,
        architecture()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_one_minor_at_patch_0() {
        assert_eq!(cluster_version(), "3.7.0");
        assert_eq!(cluster_minor(), "3.7");
        assert!(lines().starts_with("etcd Version: 3.7.1\nGit SHA: "));
    }
}
