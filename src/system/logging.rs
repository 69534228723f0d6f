//! The log: text or JSON lines on standard output, for the journal or a container.
//!
//! Any client can choose parts of a log line. In text every control character is escaped, so that one event is always one
//! line; in JSON the encoder does this. Lines go to a [`LogQueue`], so that neither a stuck nor a closed output delays the
//! server.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{self, Handle};

use super::log_queue::{LogQueue, Priority};

/// The environment variable that overrides the configured level for all or for single modules.
pub const LEVEL_VARIABLE: &str = "HALLPASS_LOG";

/// Accepted levels, in upper or lower case.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Longest line in bytes. Longer text is cut off; a longer JSON line is dropped and counted.
const MAX_LINE: usize = 16 * 1024;
/// Time limit for writing the last lines before the process exits.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of readable text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: Format,
    /// A level, or a level and `target=level` pairs: `info,hallpass::net=debug`.
    pub level: String,
    /// Average lines per second, with bursts of ten seconds' worth; 0 means no limit.
    pub lines_per_second: u32,
}

/// Why the log cannot be set up.
#[derive(Debug)]
pub enum LogError {
    /// A part of a filter is neither a level nor `target=level`.
    Part {
        /// The whole filter.
        filter: String,
        /// The part.
        part: String,
    },
    /// The filter cannot be parsed for another reason.
    Filter(ParseError),
    /// Standard output cannot be duplicated, or the writer thread cannot be started.
    Output(io::Error),
    /// This process has a log already.
    Twice,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { filter, part } => {
                write!(f, "{LEVEL_VARIABLE} is {filter:?}, and {part:?} in it is not a log level")
            }
            Self::Filter(error) => write!(f, "{LEVEL_VARIABLE} is not a filter: {error}"),
            Self::Output(error) => write!(f, "cannot set up the log on standard output: {error}"),
            Self::Twice => write!(f, "the log was set up twice"),
        }
    }
}

impl std::error::Error for LogError {}

impl LogError {
    /// The next step for the operator.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Part { .. } | Self::Filter(_) => {
                "write error, warn, info, debug, trace or off; for single modules add MODULE=LEVEL, separated by \
                 commas: HALLPASS_LOG=info,hallpass::net=debug"
            }
            Self::Output(_) => "check the limits on tasks and files in the systemd unit",
            Self::Twice => "report this as a bug",
        }
    }
}

/// Keeps the log running. When dropped, it waits briefly until the last lines are written.
#[derive(Debug)]
pub struct LogGuard {
    queue: LogQueue,
    level: LevelSwitch,
}

impl LogGuard {
    /// Returns the switch for the level of the log.
    pub fn level(&self) -> LevelSwitch {
        self.level.clone()
    }
}

/// Changes the level of the running log.
#[derive(Clone, Debug)]
pub struct LevelSwitch(Handle<EnvFilter, Registry>);

impl LevelSwitch {
    /// Sets the configured level; `HALLPASS_LOG` still overrides it.
    pub fn set(&self, level: &str) {
        // `HALLPASS_LOG` was read at the start, so both are good. The log lives as long as the process.
        if let Ok(filter) = filter(level, env::var_os(LEVEL_VARIABLE).as_deref()) {
            let _ = self.0.reload(filter);
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.queue.flush(FLUSH_LIMIT);
    }
}

/// Sets up the log of this process on standard output. `HALLPASS_LOG` overrides the configured level.
///
/// # Errors
/// - `Part`, `Filter`: `HALLPASS_LOG` is not a filter.
/// - `Output`: standard output or the writer thread is not available.
/// - `Twice`: this process has a log already.
pub fn start(settings: &LogSettings) -> Result<LogGuard, LogError> {
    // A duplicate of the descriptor: `std::io::Stdout` would keep a line after an error and write it again.
    let output = io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Output)?;
    let filter = filter(&settings.level, env::var_os(LEVEL_VARIABLE).as_deref())?;
    let summary = match settings.format {
        Format::Text => text_summary,
        Format::Json => json_summary,
    };
    let queue =
        LogQueue::start(File::from(output), settings.lines_per_second, summary).map_err(LogError::Output)?;
    let lines = Lines { queue: queue.clone(), format: settings.format };
    // The journal adds a time stamp to each line.
    let stamp = env::var_os("JOURNAL_STREAM").is_none();
    let (subscriber, level) = subscriber(filter, lines, stamp);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(LogGuard { queue, level })
}

/// Builds the filter from the configured level and the value of `HALLPASS_LOG`.
///
/// [`EnvFilter`] alone would read a misspelled level as the name of a module and turn everything else off.
///
/// # Errors
/// `Part` if a part is neither a level nor `target=level`, `Filter` for any other error.
fn filter(level: &str, variable: Option<&OsStr>) -> Result<EnvFilter, LogError> {
    let written = variable.map(OsStr::to_string_lossy).unwrap_or_default();
    let parts = || written.split(',').map(str::trim).filter(|part| !part.is_empty());
    if let Some(part) = parts().find(|part| !is_level(part.rsplit_once('=').map_or(part, |(_, level)| level)))
    {
        return Err(LogError::Part { filter: written.clone().into_owned(), part: part.to_owned() });
    }
    // The configured level comes first and applies to all modules that are not named.
    let all: Vec<&str> = std::iter::once(level).chain(parts()).collect();
    EnvFilter::builder().parse(all.join(",")).map_err(LogError::Filter)
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

fn subscriber(
    filter: EnvFilter,
    lines: Lines,
    stamp: bool,
) -> (Box<dyn Subscriber + Send + Sync>, LevelSwitch) {
    let (filter, level) = reload::Layer::new(filter);
    // stun-types logs a warning per malformed packet, and any client can send those. Our counters count them.
    let quiet = filter_fn(|meta| !meta.target().starts_with("stun_types"));
    let base = tracing_subscriber::registry().with(filter).with(quiet);
    // `log_internal_errors` would panic on a closed standard error.
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).log_internal_errors(false);
    let subscriber: Box<dyn Subscriber + Send + Sync> = match (lines.format, stamp) {
        (Format::Text, true) => Box::new(base.with(layer.with_writer(lines))),
        (Format::Text, false) => Box::new(base.with(layer.without_time().with_writer(lines))),
        (Format::Json, _) => Box::new(base.with(layer.json().flatten_event(true).with_writer(lines))),
    };
    (subscriber, LevelSwitch(level))
}

fn text_summary(dropped: u64) -> String {
    format!(" WARN hallpass::log: lines were dropped dropped={dropped}\n")
}

fn json_summary(dropped: u64) -> String {
    format!(
        "{{\"level\":\"WARN\",\"target\":\"hallpass::log\",\"message\":\"lines were dropped\",\"dropped\":{dropped}}}\n"
    )
}

/// Creates one [`Line`] per event.
struct Lines {
    queue: LogQueue,
    format: Format,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, priority: Priority::Routine, bytes: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        // Levels are ordered by verbosity: errors are less than warnings.
        let priority = if *meta.level() <= Level::WARN { Priority::Urgent } else { Priority::Routine };
        Line { lines: self, priority, bytes: Vec::new() }
    }
}

/// Collects the text of one event and queues it when the event is complete.
struct Line<'a> {
    lines: &'a Lines,
    priority: Priority,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        match self.lines.format {
            Format::Text => self.lines.queue.push(one_line(&bytes), self.priority),
            Format::Json if bytes.len() <= MAX_LINE => self.lines.queue.push(bytes, self.priority),
            Format::Json => self.lines.queue.count_dropped(),
        }
    }
}

/// Formats the text of one event as one line. Characters that end the line, move the cursor or change the direction of text
/// are escaped, and the length is limited.
fn one_line(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut line = String::with_capacity(text.len().min(MAX_LINE) + 1);
    for c in text.chars() {
        if line.len() >= MAX_LINE {
            line.push_str("...");
            break;
        }
        if is_harmful(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    line.into_bytes()
}

/// Whether a character could end the line, move the cursor or change the direction of text.
fn is_harmful(c: char) -> bool {
    let turns_direction =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns_direction || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `events` leaves in the log.
    fn logged(format: Format, level: &str, events: impl FnOnce()) -> String {
        logged_within(0, format, level, events)
    }

    /// The same with a limit on lines per second.
    fn logged_within(rate: u32, format: Format, level: &str, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let queue = LogQueue::start(sink.clone(), rate, text_summary).unwrap();
        let lines = Lines { queue: queue.clone(), format };
        tracing::subscriber::with_default(subscriber(filter(level, None).unwrap(), lines, false).0, events);
        assert!(queue.flush(Duration::from_secs(10)));
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const FORGED: &str =
        "bob\r\n2026-11-24T00:00:00Z ERROR hallpass: stolen\u{85}\u{2028}\u{1b}[2J\u{202e}\0";

    #[test]
    fn nothing_a_user_sends_begins_a_line() {
        let text = logged(Format::Text, "info", || {
            tracing::info!(user = %FORGED, "allocation refused");
            tracing::warn!("plain {}", FORGED);
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.lines().all(|l| l.contains(r"bob\r\n2026-11-24") && !l.chars().any(is_harmful)),
            "{text}"
        );
        assert!(text.contains("allocation refused") && text.ends_with('\n'));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json, "info", || tracing::info!(user = %FORGED, "refused"));
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "refused");
        assert!(value["user"].as_str().unwrap().starts_with("bob\r\n"));
    }

    #[test]
    fn stun_types_is_silent_at_every_level() {
        let text = logged(Format::Text, "trace,stun_types::message=trace", || {
            tracing::warn!(target: "stun_types::message", "malformed");
            tracing::error!(target: "stun_types", "malformed");
            tracing::trace!("kept");
        });
        assert!(text.contains("kept") && !text.contains("malformed"), "{text}");
    }

    #[test]
    fn levels_apply() {
        let text = logged(Format::Text, "warn", || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"));
    }

    #[test]
    fn the_variable_changes_the_level_of_all_or_of_single_modules() {
        let of = |variable: &str| filter("info", Some(variable.as_ref())).unwrap().to_string();
        assert_eq!((of(""), of(" , ")), ("info".to_owned(), "info".to_owned()));
        assert_eq!((of("trace"), of("WARN"), of("off")), ("trace".into(), "warn".into(), "off".into()));
        for partial in ["hallpass::net=debug", "hallpas=off", "hallpass::net=debug,"] {
            let shown = of(partial);
            assert!(shown.split(',').any(|part| part == "info"), "{shown}: the level of all others is lost");
            assert!(shown.contains(partial.trim_end_matches(',')), "{shown}");
        }
    }

    #[test]
    fn an_invalid_variable_is_refused_with_the_accepted_values() {
        for (variable, part) in [
            ("nonsense", "nonsense"),
            ("info,hallpass::net", "hallpass::net"),
            ("hallpass=loudly, warn", "hallpass=loudly"),
            ("=", "="),
            ("3", "3"),
        ] {
            let error = filter("info", Some(variable.as_ref())).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("HALLPASS_LOG") && text.contains(&format!("{part:?} in it")), "{text}");
            assert!(error.next_step().starts_with("write error, warn, info"), "{}", error.next_step());
        }
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(&b"inf\xff"[..]);
        assert!(filter("info", Some(bytes)).is_err());
    }

    #[test]
    fn a_flood_of_lines_displaces_no_warning_and_no_error() {
        for format in [Format::Text, Format::Json] {
            let text = logged_within(3, format, "trace", || {
                (0..1000).for_each(|_| tracing::info!("flood"));
                tracing::warn!("first");
                tracing::error!("second");
            });
            assert!(text.matches("flood").count() < 900, "no line was lost");
            assert!(text.contains("first") && text.contains("second"), "{text}");
        }
    }

    #[test]
    fn long_lines_are_cut_or_dropped() {
        let text = logged(Format::Text, "info", || tracing::info!("{}", "x".repeat(MAX_LINE * 2)));
        assert!(text.len() <= MAX_LINE + 4 && text.ends_with("...\n"));
        let text = logged(Format::Json, "info", || {
            tracing::info!("{}", "x".repeat(MAX_LINE * 2));
            tracing::info!("short");
        });
        assert!(text.starts_with(&text_summary(1)) || text.contains("short"), "{text:.200}");
        assert!(text.len() < MAX_LINE && text.contains("short"));
    }

    #[test]
    fn the_summary_of_json_is_json() {
        let value: serde_json::Value = serde_json::from_str(&json_summary(7)).unwrap();
        assert_eq!(value["dropped"], 7);
    }
}
