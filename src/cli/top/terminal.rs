//! The terminal: raw, on its second screen, and as it was before when the program ends, no matter how.

use std::fs::File;
use std::io::{self, IsTerminal, Stdout};
use std::os::fd::AsFd;
use std::panic;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal};
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

/// A special key that no byte stands for (_POSIX_VDISABLE in termios(3)).
const DISABLED: u8 = 0;

/// The open screen. Dropping it leaves the terminal as it was.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over. A panic gives it back before its message is printed.
    ///
    /// # Errors
    /// The error of the terminal.
    pub fn open() -> io::Result<Self> {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            report(info);
        }));
        // From here on, the screen is dropped if anything fails.
        let screen = Self { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))? };
        enter()?;
        Ok(screen)
    }

    /// Draws what changed. A new size of the terminal is noticed here.
    ///
    /// # Errors
    /// The error of the terminal.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Draws everything the next time.
    ///
    /// # Errors
    /// The error of the terminal.
    pub fn redraw(&mut self) -> io::Result<()> {
        // `clear` would ask the terminal for its cursor, and the thread of the keys would read the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Gives the terminal back to the shell and stops, until the shell continues this program.
    ///
    /// # Errors
    /// The error of the terminal or of kill(2).
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        kill_process(getpid(), Signal::TSTP)?;
        enter()?;
        self.redraw()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    // Without it, control-c is a key like others.
    let _ = interrupt_by_signal();
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// Lets control-c send SIGINT. As a key it would be lost in a paste whose end never comes, because crossterm waits for that end.
/// The other keys stay keys.
fn interrupt_by_signal() -> io::Result<()> {
    let stdin = io::stdin();
    let device = if stdin.is_terminal() { None } else { Some(File::open("/dev/tty")?) };
    let terminal = device.as_ref().map_or_else(|| stdin.as_fd(), AsFd::as_fd);
    let mut modes = tcgetattr(terminal)?;
    modes.local_modes |= LocalModes::ISIG;
    for key in [SpecialCodeIndex::VQUIT, SpecialCodeIndex::VSUSP] {
        modes.special_codes[key] = DISABLED;
    }
    Ok(tcsetattr(terminal, OptionalActions::Now, &modes)?)
}

/// Leaves the second screen. If the terminal is gone, there is nothing left to restore.
fn leave() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Set while the test runs itself in a terminal of its own.
    const INSIDE: &str = "HALLPASS_TEST_INSIDE_A_TERMINAL";

    #[test]
    fn a_panic_gives_the_terminal_back_before_its_message() {
        if std::env::var_os(INSIDE).is_some() {
            let _screen = Screen::open().expect("a terminal");
            panic!("on purpose");
        }
        let program = std::env::current_exe().expect("this test");
        let name = "cli::top::terminal::tests::a_panic_gives_the_terminal_back_before_its_message";
        let line = format!("stty rows 24 cols 80; {} --exact {name} --nocapture; stty -a", program.display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env(INSIDE, "1").stdin(Stdio::null());
        let output = command.output().expect("script, of util-linux");
        let text = String::from_utf8_lossy(&output.stdout);
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words:?} in {text}"));
        let (entered, left, message) = (at("\x1b[?1049h"), at("\x1b[?1049l"), at("on purpose"));
        assert!(entered < left && left < message, "{text}");
        assert!(text.contains(" icanon") && !text.contains("-icanon") && !text.contains("-echo "), "{text}");
    }
}
