//! Who may name whom (docs/ARCHITECTURE.md, "Floors").

use super::Fault;
use super::source::SourceFile;

struct Floor {
    /// The folder or file, without `src/`.
    place: &'static str,
    /// Modules of the root crate it may name, beside itself.
    may: &'static [&'static str],
    /// Libraries it must not name.
    not: &'static [&'static str],
}

/// The root crate's floors, lowest first. `quorate_core` may be named by all.
const FLOORS: [Floor; 9] = [
    Floor { place: "support", may: &[], not: &["quorate_core", "openraft", "sled", "tonic"] },
    Floor { place: "storage", may: &["support"], not: &["openraft", "tonic", "axum", "hyper"] },
    Floor {
        place: "consensus",
        may: &["support", "storage"],
        not: &["sled", "tonic", "axum", "hyper"],
    },
    Floor {
        place: "keyspace",
        may: &["support", "storage", "consensus"],
        not: &["sled", "openraft", "tonic", "axum", "hyper", "rustls"],
    },
    Floor {
        place: "host",
        may: &["support", "storage", "consensus", "keyspace"],
        not: &["sled", "openraft", "tonic"],
    },
    Floor {
        place: "fleet",
        may: &["support", "keyspace", "host"],
        not: &["sled", "openraft", "tonic"],
    },
    Floor {
        place: "service",
        may: &["support", "keyspace", "host", "fleet"],
        not: &["sled", "openraft"],
    },
    Floor {
        place: "embed",
        may: &["support", "storage", "consensus", "keyspace", "host", "fleet", "service"],
        not: &["sled", "openraft"],
    },
    Floor {
        place: "cli",
        may: &["support", "storage", "consensus", "keyspace", "host", "fleet", "service", "embed"],
        not: &["sled", "openraft", "tonic"],
    },
];

const ROOT_MODULES: [&str; 9] =
    ["support", "storage", "consensus", "keyspace", "host", "fleet", "service", "embed", "cli"];

/// Every name of a higher floor, or of a library that does not belong on this one.
pub(crate) fn check(file: &SourceFile) -> Vec<Fault> {
    let Some(place) = file.name.strip_prefix("src/") else { return Vec::new() };
    if let Some(core) = place.strip_prefix("core/") {
        return check_core(file, core);
    }
    let Some(floor) = FLOORS.iter().find(|f| is_in(place, f.place)) else { return Vec::new() };
    let mut faults = Vec::new();
    for (line, module) in crate_paths(&file.code) {
        let known = ROOT_MODULES.contains(&module.as_str());
        if known && module != floor.place && !floor.may.contains(&module.as_str()) {
            let text = format!(
                "`{}` may not import `{module}`: floors import downwards only",
                floor.place
            );
            faults.push(Fault { file: file.name.clone(), line, text });
        }
    }
    for library in floor.not {
        for line in lines_naming(&file.code, library) {
            let text = format!("`{library}` may not be named in `{}`", floor.place);
            faults.push(Fault { file: file.name.clone(), line, text });
        }
    }
    faults
}

/// Words (`api`) must not know decisions (`state_machine`).
fn check_core(file: &SourceFile, place: &str) -> Vec<Fault> {
    if !is_in(place, "api") {
        return Vec::new();
    }
    crate_paths(&file.code)
        .into_iter()
        .filter(|(_, module)| module == "state_machine")
        .map(|(line, _)| Fault {
            file: file.name.clone(),
            line,
            text: "`api` may not import `state_machine`".to_owned(),
        })
        .collect()
}

fn is_in(place: &str, floor: &str) -> bool {
    place == format!("{floor}.rs") || place.starts_with(&format!("{floor}/"))
}

/// Each `crate::module` named, also inside `use crate::{…}`, with its line from 1.
fn crate_paths(code: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let text = code.join("\n");
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        if rest.starts_with('{') {
            found.extend(group_heads(&text, at + "crate::".len()));
        } else {
            found.push((line_of(&text, at), word(rest)));
        }
    }
    found
}

/// The first word of each branch of the `{…}` group that opens at `open`.
fn group_heads(text: &str, open: usize) -> Vec<(usize, String)> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut expects_head = false;
    for (offset, c) in text[open..].char_indices() {
        match c {
            '{' => {
                depth += 1;
                expects_head = depth == 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            ',' if depth == 1 => expects_head = true,
            c if expects_head && (c.is_alphanumeric() || c == '_') => {
                heads.push((line_of(text, open + offset), word(&text[open + offset..])));
                expects_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn lines_naming(code: &[String], library: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.iter()
        .enumerate()
        .filter(|(_, line)| {
            line.match_indices(library).any(|(at, _)| {
                let after = &line[at + library.len()..];
                after.starts_with("::") && !line[..at].ends_with(|c: char| is_word(c) || c == ':')
                    || line.trim_start().starts_with(&format!("use {library};"))
            })
        })
        .map(|(number, _)| number + 1)
        .collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
