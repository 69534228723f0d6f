//! A plain table for a terminal: columns as wide as their widest cell.

/// Returns the rows under the header, with the columns aligned and two blanks between them. No line ends with blanks.
pub fn align(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    std::iter::once(line(&mut header.iter().copied())).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["ping".into(), "w_é".into(), "1".into()], vec!["a".into(), "longer".into(), String::new()]];
        let lines = align(&["HOST", "USER", "N"], &rows);
        assert_eq!(lines, ["HOST  USER    N", "ping  w_é     1", "a     longer"]);
    }
}
