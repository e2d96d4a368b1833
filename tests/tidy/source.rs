//! A source file as the rules see it: comments and strings blanked, test modules marked.

/// One file of source.
pub(crate) struct SourceFile {
    /// Its path from the project's root.
    pub(crate) name: String,
    /// As it stands on disk.
    pub(crate) text: String,
    /// The same lines, with comments and the insides of strings blanked.
    pub(crate) code: Vec<String>,
    /// Made by a generator.
    pub(crate) generated: bool,
}

impl SourceFile {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        SourceFile {
            name: name.to_owned(),
            text: text.to_owned(),
            code: blank(text).lines().map(str::to_owned).collect(),
            generated: text.starts_with("// This file is @generated"),
        }
    }

    /// It holds only tests.
    pub(crate) fn is_test(&self) -> bool {
        self.name.ends_with("_test.rs")
            || self.name.ends_with("tests.rs")
            || self.name.contains("/tests/")
    }

    /// The first line (from 0) of a trailing `#[cfg(test)] mod tests`, or the number of lines.
    pub(crate) fn end_of_code(&self) -> usize {
        (0..self.code.len())
            .find(|&i| {
                self.code[i].trim() == "#[cfg(test)]"
                    && self.code.get(i + 1).is_some_and(|next| {
                        next.trim_start().starts_with("mod ") && next.contains('{')
                    })
            })
            .unwrap_or(self.code.len())
    }
}

/// Blanks comments, strings and char literals, keeping every line break.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (chars[i], chars.get(i + 1)) {
            ('/', Some('/')) => end_of_line(&chars, i),
            ('/', Some('*')) => end_of_block_comment(&chars, i),
            ('r', Some('"' | '#')) if !is_word(chars.get(i.wrapping_sub(1))) => {
                end_of_raw_string(&chars, i)
            }
            ('"', _) => end_of_string(&chars, i),
            ('\'', _) => end_of_char(&chars, i),
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn is_word(c: Option<&char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || *c == '_')
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], from: usize) -> usize {
    let closes = |i: usize| chars[i] == '*' && chars.get(i + 1) == Some(&'/');
    (from + 2..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 2)
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn end_of_raw_string(chars: &[char], from: usize) -> usize {
    let hashes = chars[from + 1..].iter().take_while(|c| **c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return from; // a raw identifier
    }
    let closes = |i: usize| {
        chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (open + 1..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes)
}

/// A lifetime is left alone: only `'x'` and `'\…'` are char literals.
fn end_of_char(chars: &[char], from: usize) -> usize {
    if chars.get(from + 1) == Some(&'\\') {
        return (from + 3..chars.len()).find(|&i| chars[i] == '\'').map_or(chars.len(), |i| i + 1);
    }
    if chars.get(from + 2) == Some(&'\'') { from + 3 } else { from }
}
