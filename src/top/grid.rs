//! Tables that fit a width: columns shrink, and the least important are left out.

use ratatui::text::Span;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its header.
    pub title: &'static str,
    /// The narrowest useful width of a text; the usual width of a number.
    pub min: usize,
    /// Whether it is aligned to the right.
    pub is_number: bool,
    /// The column with the highest rank is left out first.
    pub rank: u8,
}

impl Column {
    /// A column of text that may shrink to `min` cells.
    pub const fn text(title: &'static str, min: usize, rank: u8) -> Self {
        Self { title, min, is_number: false, rank }
    }

    /// A column of numbers, which never shrinks. It is at least `min` wide, so that it does not move with each update.
    pub const fn number(title: &'static str, min: usize, rank: u8) -> Self {
        Self { title, min, is_number: true, rank }
    }
}

/// A table as lines.
#[derive(Debug)]
pub struct Lines {
    /// The header.
    pub header: String,
    /// One line for each row.
    pub rows: Vec<String>,
}

/// Lays out the rows in at most `width` cells. No line ends with blanks.
pub fn lay_out(columns: &[Column], rows: &[Vec<String>], width: usize) -> Lines {
    let gap = if width < 100 { 1 } else { 2 };
    let widths = fit(columns, rows, width, gap);
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        let mut is_first = true;
        for ((cell, column), wide) in cells.zip(columns).zip(&widths) {
            let Some(wide) = *wide else { continue };
            if !std::mem::take(&mut is_first) {
                line.extend(std::iter::repeat_n(' ', gap));
            }
            let cell = cut(cell, wide);
            let blanks = std::iter::repeat_n(' ', wide - cells_of(&cell).min(wide));
            if column.is_number {
                line.extend(blanks);
                line.push_str(&cell);
            } else {
                line.push_str(&cell);
                line.extend(blanks);
            }
        }
        line.trim_end().to_owned()
    };
    Lines {
        header: line(&mut columns.iter().map(|column| column.title)),
        rows: rows.iter().map(|row| line(&mut row.iter().map(String::as_str))).collect(),
    }
}

/// Returns the width of each column; `None` if it is left out.
fn fit(columns: &[Column], rows: &[Vec<String>], width: usize, gap: usize) -> Vec<Option<usize>> {
    let widest =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cells_of(cell)).max().unwrap_or(0);
    let natural = |(at, column): (usize, &Column)| {
        let least = if column.is_number { column.min } else { 0 };
        Some(widest(at).max(column.title.len()).max(least))
    };
    let mut widths: Vec<Option<usize>> = columns.iter().enumerate().map(natural).collect();
    loop {
        let shown = widths.iter().flatten().count();
        let total = widths.iter().flatten().sum::<usize>() + gap * shown.saturating_sub(1);
        let Some(excess) = total.checked_sub(width).filter(|excess| *excess > 0) else { return widths };
        // The widest text that may shrink does so first.
        let spare = |at: usize| {
            let column = &columns[at];
            let wide = widths[at].filter(|_| !column.is_number);
            wide.map_or(0, |wide| wide.saturating_sub(column.min.max(column.title.len())))
        };
        let widest = (0..columns.len()).filter(|&at| spare(at) > 0).max_by_key(|&at| widths[at]);
        if let Some(at) = widest {
            // Half at a time, so that several wide columns share the loss.
            let less = spare(at).min(excess).div_ceil(2);
            widths[at] = widths[at].map(|wide| wide - less);
        } else if shown <= 1 {
            return widths.into_iter().map(|wide| wide.map(|wide| wide.min(width))).collect();
        } else {
            let shown = (0..columns.len()).filter(|&at| widths[at].is_some());
            if let Some(least) = shown.max_by_key(|&at| columns[at].rank) {
                widths[least] = None;
            }
        }
    }
}

/// Returns how many cells of a terminal a text fills.
pub fn cells_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts a text to `width` cells; a tilde marks that something is missing.
pub fn cut(text: &str, width: usize) -> String {
    if cells_of(text) <= width {
        return text.to_owned();
    }
    let (mut cut, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = cells_of(c.encode_utf8(&mut [0; 4]));
        if used + wide >= width {
            break;
        }
        cut.push(c);
        used += wide;
    }
    if width > 0 {
        cut.push('~');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::text("HOST", 4, 1), Column::text("USER", 7, 0), Column::number("BIT/S", 6, 2)];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![row(["ping", "w_abcdefghijkl", "1.5k"]), row(["b", "\u{5f20}\u{4e09}", "12"])]
    }

    #[test]
    fn columns_shrink_and_then_the_least_important_are_left_out() {
        let at = |width: usize| {
            let lines = lay_out(&COLUMNS, &rows(), width);
            [&[lines.header][..], &lines.rows].concat()
        };
        assert_eq!(at(40)[1..], ["ping w_abcdefghijkl   1.5k", "b    \u{5f20}\u{4e09}               12"]);
        assert_eq!(at(19), ["HOST USER     BIT/S", "ping w_abcd~   1.5k", "b    \u{5f20}\u{4e09}        12"]);
        assert_eq!(at(12), ["HOST USER", "ping w_abcd~", "b    \u{5f20}\u{4e09}"]);
        assert_eq!(at(7), ["USER", "w_abcd~", "\u{5f20}\u{4e09}"]);
        assert_eq!(at(3), ["US~", "w_~", "\u{5f20}~"]);
        for width in 0..60 {
            assert!(at(width).iter().all(|line| cells_of(line) <= width), "{width}: {:?}", at(width));
        }
    }
}
