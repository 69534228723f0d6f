//! `hallpass top`: asks the running server again and again, and shows what it answers.

mod asking;
mod terminal;

use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep_until};

use super::args::TopArgs;
use super::output;
use super::running::{Failed, Target};
use crate::base::time;
use crate::system::clock;
use crate::top::attention::Notice;
use crate::top::report;
use crate::top::state::keys::Action;
use crate::top::state::{Answers, State, Wanted};
use crate::top::theme::Theme;
use crate::top::view;
use asking::ask;
use terminal::Screen;

/// Keys that wait to be handled. Typing cannot fill it, and a paste waits.
const KEYS: usize = 64;
/// The screen is drawn as often without an answer, because it shows ages.
const DRAWN_EVERY: Duration = Duration::from_secs(1);

/// Shows the screen until a key or a signal ends it, or prints the numbers once.
pub(super) fn run(args: &TopArgs) -> ExitCode {
    let server = match Target::of(&args.address) {
        Ok(server) => Arc::new(server),
        Err(Failed { message, next_step }) => return output::fail(&message, &next_step),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return output::fail(&format!("cannot start: {error}"), "are descriptors left? ulimit -n");
        }
    };
    let state = State::new(server.url.to_string(), Theme::new(!is_set("NO_COLOR")));
    // A terminal without a cursor that moves cannot show a screen.
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if args.once || args.json || is_dumb || !io::stdout().is_terminal() {
        return runtime.block_on(once(state, &server, args));
    }
    match runtime.block_on(watch(state, server, args.interval)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(
            &format!("cannot use the terminal: {error}"),
            "print the numbers instead: hallpass top --once",
        ),
    }
}

/// Whether a variable of the environment is set and not empty (no-color.org).
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn now() -> time::Instant {
    time::Instant::from_nanos(clock::monotonic_nanos())
}

/// Asks twice, an interval apart, and prints the numbers.
async fn once(mut state: State, server: &Target, args: &TopArgs) -> ExitCode {
    let all = Wanted { sessions: true, refusals: true };
    for is_first in [true, false] {
        take(&mut state, ask(server, all).await);
        if let Some(Notice { text, step, .. }) = state.failure() {
            return output::fail(text, step);
        }
        if is_first {
            tokio::time::sleep(args.interval).await;
        }
    }
    let unix = clock::unix_seconds();
    let text = match args.json {
        true => format!("{:#}\n", report::json(&state, unix)),
        false => report::text(&state, unix),
    };
    output::print(text.as_bytes())
}

/// The request that runs, or when the next one is due.
enum Request {
    Due(Instant),
    Sent(Pin<Box<dyn Future<Output = Result<Answers, Failed>>>>),
}

impl Request {
    /// Waits until it is due, which is `None`, or until it is answered.
    async fn progress(&mut self) -> Option<Result<Answers, Failed>> {
        match self {
            Self::Due(at) => {
                sleep_until(*at).await;
                None
            }
            Self::Sent(answer) => Some(answer.await),
        }
    }
}

/// Shows the screen.
///
/// # Errors
/// The error of the terminal.
async fn watch(mut state: State, server: Arc<Target>, interval: Duration) -> io::Result<()> {
    let mut stop = Stop::new()?;
    let mut screen = Screen::open()?;
    let mut keys = keys()?;
    let mut request = Request::Due(Instant::now());
    // Whether another view was opened while the server was asked for the one before.
    let mut is_wanted_at_once = false;
    loop {
        let (at, unix) = (now(), clock::unix_seconds());
        screen.draw(|frame| view::draw(frame, &mut state, at, unix))?;
        let action = tokio::select! {
            () = stop.wait() => Action::Quit,
            event = keys.recv() => match event {
                Some(Event::Key(key)) => state.on_key(key),
                Some(_) => Action::Draw,
                // The terminal is gone.
                None => Action::Quit,
            },
            progress = request.progress(), if !state.is_paused => {
                request = match progress {
                    None => {
                        let wanted = state.wanted(now());
                        let server = Arc::clone(&server);
                        Request::Sent(Box::pin(async move { ask(&server, wanted).await }))
                    }
                    Some(answer) => {
                        take(&mut state, answer);
                        let wait = if std::mem::take(&mut is_wanted_at_once) { Duration::ZERO } else { interval };
                        Request::Due(Instant::now() + wait)
                    }
                };
                Action::Draw
            }
            () = tokio::time::sleep(DRAWN_EVERY) => Action::Draw,
        };
        match (action, &mut request) {
            (Action::Ask, Request::Due(at)) => *at = Instant::now(),
            (Action::Ask, Request::Sent(_)) => is_wanted_at_once = true,
            (Action::Draw, _) => {}
            (Action::Redraw, _) => screen.redraw()?,
            (Action::Suspend, _) => screen.suspend()?,
            (Action::Quit, _) => return Ok(()),
        }
        if state.is_paused {
            // An answer of a while ago would be too late, or a failure.
            request = Request::Due(Instant::now());
        }
    }
}

fn take(state: &mut State, answer: Result<Answers, Failed>) {
    match answer {
        Ok(answers) => state.take(answers, now(), clock::unix_seconds()),
        Err(Failed { message, next_step }) => {
            state.take_failure(Notice::new(true, message, next_step), now())
        }
    }
}

/// Reads keys and changes of the size on a thread of its own, because reading a terminal blocks. The thread ends with the
/// process.
fn keys() -> io::Result<Receiver<Event>> {
    let (key, keys) = channel(KEYS);
    let read = move || {
        while let Ok(event) = event::read() {
            if key.blocking_send(event).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(keys)
}

/// The signals that end the program, so that it leaves the terminal as it was.
struct Stop([Signal; 4]);

impl Stop {
    fn new() -> io::Result<Self> {
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let [interrupt, terminate, hangup, quit] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?, quit?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
