//! Which metrics there are: names, types, help, labels and buckets. Figures are compared where they can be equal, see
//! [`super::http`].
//!
//! Left out by rule: what is of Go's runtime (`go_`), our own names (`quorate_`), and what etcd's store of version 2 counts
//! when a restart replays members into it (`etcd_debugging_store_reads_`, `_writes_`), see [`super::super::allowed`].

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::http::ask;

/// Prefixes of names that are not compared.
const OWN: [&str; 4] =
    ["go_", "quorate_", "etcd_debugging_store_reads_", "etcd_debugging_store_writes_"];

/// What is compared of one name.
#[derive(Debug, Default, PartialEq)]
struct Family {
    help: String,
    kind: String,
    /// Every set of label names there is.
    labels: BTreeSet<BTreeSet<String>>,
    /// Upper bounds, as they are spelled.
    buckets: BTreeSet<String>,
}

type Families = BTreeMap<String, Family>;

/// What differs between the metrics of two servers that were asked the same.
pub(in crate::differential) async fn names_that_differ(
    ours: u16,
    theirs: u16,
) -> Result<Vec<String>> {
    let (ours, theirs) =
        tokio::try_join!(ask(ours, "GET", "/metrics"), ask(theirs, "GET", "/metrics"))?;
    let (ours, theirs) = (parse(&ours.body), parse(&theirs.body));
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut differ = Vec::new();
    for name in names {
        let (ours, theirs) = (ours.get(name), theirs.get(name));
        if ours != theirs {
            differ.push(format!("metric {name}:\n   ours {ours:?}\n   etcd {theirs:?}"));
        }
    }
    Ok(differ)
}

fn parse(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, told) = (words.next(), words.next(), words.next().unwrap_or_default());
            let Some(name) = name.filter(|name| !OWN.iter().any(|own| name.starts_with(own)))
            else {
                continue;
            };
            let family = families.entry(name.to_owned()).or_default();
            match what {
                Some("HELP") => told.clone_into(&mut family.help),
                Some("TYPE") => told.clone_into(&mut family.kind),
                _ => {}
            }
            continue;
        }
        sample(line, &mut families);
    }
    families
}

/// One figure: its labels go to the family it belongs to.
fn sample(line: &str, families: &mut Families) {
    let end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    let histogram = |family: &Family| family.kind == "histogram" || family.kind == "summary";
    let name = match base {
        Some(base) if families.get(base).is_some_and(histogram) => base,
        _ => name,
    };
    let Some(family) = families.get_mut(name) else { return };
    let mut names = BTreeSet::new();
    for (label, value) in labels(rest) {
        if label == "le" || label == "quantile" {
            family.buckets.insert(value);
        } else {
            names.insert(label);
        }
    }
    family.labels.insert(names);
}

/// `{name="value",…}`; values may hold anything but an unescaped quotation mark.
fn labels(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut end = 0;
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            end = at;
            if c == '"' && !escaped {
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        found.push((name.trim_start_matches(['{', ',']).to_owned(), rest[..end].to_owned()));
        text = &rest[(end + 1).min(rest.len())..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_type_labels_and_buckets() {
        let text = "# HELP a_total Of a.\n# TYPE a_total counter\na_total{b=\"x,\\\"y\",c=\"\"} 3\n\
                    # HELP t_seconds Of t.\n# TYPE t_seconds histogram\nt_seconds_bucket{le=\"0.1\"} 0\n\
                    t_seconds_bucket{le=\"+Inf\"} 0\nt_seconds_sum 0\nt_seconds_count 0\n\
                    # HELP go_x X\n# TYPE go_x gauge\ngo_x 1\n";
        let families = parse(text);
        assert_eq!(families.keys().collect::<Vec<_>>(), ["a_total", "t_seconds"]);
        let labels: BTreeSet<String> = ["b", "c"].map(str::to_owned).into();
        assert_eq!(families["a_total"].labels, [labels].into());
        assert_eq!(families["a_total"].kind, "counter");
        let buckets: BTreeSet<String> = ["+Inf", "0.1"].map(str::to_owned).into();
        assert_eq!(families["t_seconds"].buckets, buckets);
        assert_eq!(families["t_seconds"].labels, [BTreeSet::new()].into());
    }
}
