//! `cluster.kat`: the example, defaults, and a corpus of files that are refused.
//!
//! A file of the corpus begins with what is said of it, a comment line for each line of the message; the rest is read.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::config::ClusterConfiguration;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn minimal(spec: &str) -> String {
    format!("kind: ClusterConfiguration\nmetadata:\n  name: c\nspec:\n{spec}")
}

#[test]
fn the_example_is_good_and_says_what_holds_without_it() {
    let text = fs::read_to_string(folder("docs/examples/cluster.kat")).unwrap();
    let config = ClusterConfiguration::read(&text).unwrap();
    assert_eq!((config.name.as_str(), config.election().as_str()), ("demo", "/kat/leader/demo"));
    let bare = ClusterConfiguration::read(&minimal("  {}").replace("name: c", "name: demo"));
    let networks = (config.cluster_cidr, config.service_cidr);
    let bare = ClusterConfiguration {
        cluster_cidr: networks.0,
        service_cidr: networks.1,
        ..bare.unwrap()
    };
    assert_eq!(bare, config);
}

#[test]
fn what_is_shared_has_no_path_and_reads_back() {
    let spec = "  clusterCIDR: 10.0.0.0/16\n  serviceCIDR: fd00::/112\n  dataDir: /secret/place\n  backupPath: /b\n";
    let shared = ClusterConfiguration::read(&minimal(spec)).unwrap().shared();
    let json = String::from_utf8(shared.json()).unwrap();
    let want = "{\"name\":\"c\",\"clusterCIDR\":\"10.0.0.0/16\",\"serviceCIDR\":\"fd00::/112\",\"agentPort\":6401,\
                \"apiPort\":6400,\"clientPort\":2379,\"peerPort\":2380,\"leaseTTL\":\"15s\",\
                \"backupInterval\":\"30m0s\",\"backupsKept\":8}";
    assert_eq!(json, want);
    assert_eq!(serde_json::from_str::<super::super::SharedConfiguration>(&json).unwrap(), shared);
}

#[test]
fn what_differs_from_the_beginning_is_named_with_both_values() {
    let read = |spec: &str| ClusterConfiguration::read(&minimal(spec)).unwrap().shared();
    let begun = read("  clusterCIDR: 10.0.0.0/16\n");
    assert!(begun.differences(&read("  clusterCIDR: 10.0.0.0/16\n  dataDir: /x\n")).is_empty());
    assert_eq!(
        begun.differences(&read("  apiPort: 7000\n")),
        [
            "spec.clusterCIDR is absent, and the cluster was begun with 10.0.0.0/16",
            "spec.apiPort is 7000, and the cluster was begun with 6400",
        ]
    );
}

#[test]
fn documents_of_others_may_stand_beside_it() {
    let text = format!("kind: Namespace\nmetadata: {{name: x}}\n---\n{}", minimal("  apiPort: 7"));
    assert_eq!(ClusterConfiguration::read(&text).unwrap().api_port, 7);
}

/// A3.6: each message has the path of the field. `UPDATE_EXPECT=1` writes the messages anew.
#[test]
fn a3_6_every_bad_file_is_refused_with_the_path_of_what_is_wrong() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder("tests/testdata/kat")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the corpus is there");
    let renews = std::env::var_os("UPDATE_EXPECT").is_some();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (want, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|l| l.starts_with("#! "));
        let refused = ClusterConfiguration::read(&rest.join("\n")).expect_err("it is bad");
        let said: Vec<String> = refused.to_string().lines().map(|l| format!("#! {l}")).collect();
        if renews {
            let text = [said.join("\n"), rest.join("\n")].join("\n");
            fs::write(&file, text + "\n").unwrap();
        } else {
            assert_eq!(said, want, "{}", file.display());
        }
    }
}
