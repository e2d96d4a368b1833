//! Columns of text, as wide as their widest cell.

use std::fmt::Write as _;

/// Headings and rows, two spaces apart; nothing is cut, and no line ends in spaces.
pub(super) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines = vec![heads.iter().map(|&head| head.to_owned()).collect::<Vec<String>>()];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(text, "{cell:width$}  ").expect("writing to a string");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", ""], ["Grüße", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["N", "VALUE"], rows), "N      VALUE\na\nGrüße  x\n");
    }
}
