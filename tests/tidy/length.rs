//! Files under 600 lines, functions under 70, tests left out. What is longer stands here with its length, and
//! may only get shorter.

use super::Fault;
use super::source::SourceFile;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer today.
const LONG_FILES: [(&str, usize); 0] = [];

/// Functions that are longer today: file, name, lines.
const LONG_FUNCTIONS: [(&str, &str, usize); 0] = [];

pub(crate) fn check(files: &[SourceFile]) -> Vec<Fault> {
    files
        .iter()
        .filter(|file| !file.is_test())
        .flat_map(|file| [check_file(file), check_functions(file)].concat())
        .collect()
}

fn check_file(file: &SourceFile) -> Vec<Fault> {
    let lines = file.end_of_code();
    let allowed = LONG_FILES
        .iter()
        .find(|(name, _)| *name == file.name)
        .map_or(FILE_LINES_MAX, |(_, lines)| *lines);
    if lines <= allowed {
        return Vec::new();
    }
    vec![Fault {
        file: file.name.clone(),
        line: 1,
        text: format!("{lines} lines, {allowed} at most: split it by noun"),
    }]
}

fn check_functions(file: &SourceFile) -> Vec<Fault> {
    let code = &file.code[..file.end_of_code()];
    let mut faults = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let Some(end) = end_of_function(code, start) else { continue };
        let lines = end - start + 1;
        let allowed = LONG_FUNCTIONS
            .iter()
            .find(|(f, n, _)| *f == file.name && *n == name)
            .map_or(FUNCTION_LINES_MAX, |(_, _, lines)| *lines);
        if lines > allowed {
            let text = format!("`{name}` has {lines} lines, {allowed} at most");
            faults.push(Fault { file: file.name.clone(), line: start + 1, text });
        }
    }
    faults
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|w| {
        w.starts_with("pub") || matches!(*w, "async" | "const" | "in" | "crate)" | "super)")
    });
    if words.next()? != "fn" {
        return None;
    }
    let name = words.next()?;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

/// The line of the brace that closes the function, or `None` for a declaration without a body.
fn end_of_function(code: &[String], start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut opened = false;
    for (number, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' => {
                    depth += 1;
                    opened = true;
                }
                '}' => depth -= 1,
                ';' if !opened => return None,
                _ => {}
            }
            if opened && depth == 0 {
                return Some(number);
            }
        }
    }
    None
}
