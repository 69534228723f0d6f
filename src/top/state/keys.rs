//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Overlay, State, View};
use crate::base::text::is_hidden;

/// Longest filter, in characters.
const FILTER_MAX: usize = 60;

/// What the caller has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Draw the screen.
    Draw,
    /// Ask the server now, then draw.
    Ask,
    /// Draw everything anew, because another program wrote to the terminal.
    Redraw,
    /// Stop the program until the shell continues it.
    Suspend,
    /// End.
    Quit,
}

impl State {
    /// Handles a key.
    pub fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Action::Quit,
                KeyCode::Char('l') => Action::Redraw,
                KeyCode::Char('z') => Action::Suspend,
                _ => Action::Draw,
            };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Action::Draw;
        }
        match key.code {
            KeyCode::Char('q' | 'Q') => return Action::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.toggle(Overlay::Help),
            KeyCode::Char('a') => self.toggle(Overlay::Notices),
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return if self.is_paused { Action::Draw } else { Action::Ask };
            }
            KeyCode::Char('/') => (self.is_typing, self.overlay) = (true, None),
            KeyCode::Char('s') => self.next_order(),
            KeyCode::Char('r') => self.is_reversed[self.view as usize] ^= true,
            KeyCode::Char(digit @ '1'..='5') => return self.open(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => return self.open(self.view as usize + 1),
            KeyCode::BackTab | KeyCode::Left => return self.open(self.view as usize + View::ALL.len() - 1),
            KeyCode::Enter => self.open_detail(),
            KeyCode::Esc | KeyCode::Backspace => {
                // One thing at a time: what was opened last is closed first.
                if self.overlay.take().is_none() {
                    self.filter.clear();
                }
            }
            code => self.move_by(code),
        }
        Action::Draw
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !is_hidden(c) && self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(c)
            }
            _ => {}
        }
    }

    fn toggle(&mut self, overlay: Overlay) {
        self.scrolled = 0;
        self.overlay = if self.overlay.as_ref() == Some(&overlay) { None } else { Some(overlay) };
    }

    /// Opens a view by its number, counted around.
    fn open(&mut self, number: usize) -> Action {
        (self.view, self.overlay) = (View::ALL[number % View::ALL.len()], None);
        if self.is_paused { Action::Draw } else { Action::Ask }
    }

    fn open_detail(&mut self) {
        self.scrolled = 0;
        if self.overlay.take().is_none() {
            self.overlay = self.selected().map(Overlay::Detail);
        }
    }

    fn move_by(&mut self, code: KeyCode) {
        if self.overlay.is_some() {
            self.scrolled = match code {
                KeyCode::Down | KeyCode::Char('j') => self.scrolled.saturating_add(1),
                KeyCode::Up | KeyCode::Char('k') => self.scrolled.saturating_sub(1),
                KeyCode::PageDown => self.scrolled.saturating_add(10),
                KeyCode::PageUp => self.scrolled.saturating_sub(10),
                KeyCode::Home | KeyCode::Char('g') => 0,
                _ => self.scrolled,
            };
            return;
        }
        let cursor = self.cursor();
        let at = match code {
            KeyCode::Down | KeyCode::Char('j') => cursor.at.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => cursor.at.saturating_sub(1),
            KeyCode::PageDown => cursor.at.saturating_add(cursor.page),
            KeyCode::PageUp => cursor.at.saturating_sub(cursor.page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return,
        };
        cursor.at = at.min(cursor.lines.saturating_sub(1));
        let id = self.selected();
        self.cursor().id = id;
    }
}
