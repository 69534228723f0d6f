//! A part of the screen that is filled line by line. What does not fit is left out.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// The lines of an area.
pub struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    next: u16,
}

impl<'a> Page<'a> {
    /// Begins at the top of `area`.
    pub fn new(buffer: &'a mut Buffer, area: Rect) -> Self {
        Self { buffer, area: area.intersection(area), next: 0 }
    }

    /// The width in cells.
    pub fn width(&self) -> usize {
        self.area.width.into()
    }

    /// The height in lines.
    pub fn height(&self) -> usize {
        self.area.height.into()
    }

    /// The lines that were written.
    pub fn used(&self) -> u16 {
        self.next
    }

    /// The lines that are left.
    pub fn left(&self) -> usize {
        self.area.height.saturating_sub(self.next).into()
    }

    /// Takes the next `lines` as a page of their own.
    pub fn split_off(&mut self, lines: u16) -> Page<'_> {
        let lines = lines.min(self.area.height.saturating_sub(self.next));
        let area = Rect { y: self.area.y + self.next, height: lines, ..self.area };
        self.next += lines;
        Page::new(self.buffer, area)
    }

    /// Returns the left part or the right part of the lines that are left, which keep a gap of two cells.
    pub fn half(&mut self, is_right: bool) -> Page<'_> {
        let wide = self.area.width.saturating_sub(2) / 2;
        let x = if is_right { self.area.right().saturating_sub(wide) } else { self.area.x };
        let area = Rect {
            x,
            y: self.area.y + self.next,
            width: wide,
            height: self.area.height.saturating_sub(self.next),
        };
        Page::new(self.buffer, area)
    }

    /// Writes a line.
    pub fn line(&mut self, line: &Line<'_>) {
        if self.next < self.area.height {
            self.buffer.set_line(self.area.x, self.area.y + self.next, line, self.area.width);
            self.next += 1;
        }
    }

    /// Writes a text.
    pub fn text(&mut self, text: &str, style: Style) {
        self.line(&Line::from(Span::styled(text, style)));
    }

    /// Writes the selected line of a list: reversed over the whole width.
    pub fn selected(&mut self, text: &str, style: Style) {
        if self.next < self.area.height {
            let line = Rect { y: self.area.y + self.next, height: 1, ..self.area };
            self.text(text, Style::new());
            self.buffer.set_style(line, style);
        }
    }

    /// Writes a text on the left and one on the right of the same line. If both do not fit, the left one is cut.
    pub fn both(&mut self, left: Span<'_>, right: Span<'_>) {
        self.line_and(Line::from(left), right);
    }

    /// Writes a line with a text on its right. If both do not fit, the text is left out if the line is longer than that.
    pub fn line_and(&mut self, line: Line<'_>, right: Span<'_>) {
        if self.next >= self.area.height {
            return;
        }
        let (at, wide) = (self.area.y + self.next, u16::try_from(right.width()).unwrap_or(u16::MAX));
        let is_single = line.spans.len() == 1;
        let room = self.area.width.saturating_sub(wide);
        let fits = line.width() + right.width() + usize::from(wide > 0) <= self.width();
        if fits || is_single {
            // The state of the server is more important than its name.
            let left = if wide > 0 { room.saturating_sub(1) } else { room };
            self.buffer.set_line(self.area.x, at, &line, left);
            self.buffer.set_span(self.area.x + room, at, &right, wide.min(self.area.width));
        } else {
            self.buffer.set_line(self.area.x, at, &line, self.area.width);
        }
        self.next += 1;
    }

    /// Writes a text on the last line.
    pub fn last(&mut self, text: &str, style: Style) {
        self.next = self.area.height.saturating_sub(1);
        self.text(text, style);
    }
}
