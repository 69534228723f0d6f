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

/// Returns a duration in its two largest units, such as `3h 5m`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Returns a number of bytes in a unit that leaves at most four digits.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = (bytes, 0);
    while scaled.0 >= 10_000 && scaled.1 + 1 < units.len() {
        scaled = (scaled.0 / 1024, scaled.1 + 1);
    }
    format!("{} {}", scaled.0, units[scaled.1])
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

    #[test]
    fn durations_and_sizes_have_two_units_and_four_digits() {
        assert_eq!([5, 65, 3_700, 90_000].map(duration), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
        assert_eq!([0, 9_999, 10_000, 20 << 20].map(bytes), ["0 B", "9999 B", "9 KiB", "20 MiB"]);
    }
}
