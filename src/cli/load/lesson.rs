//! `hallpass load lesson`: how many pupils does a relay carry?

use std::fs;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::super::args::{LessonArgs, LoadArgs};
use super::super::credentials;
use super::super::output::{FAILURE, USAGE, fail, print, print_stderr};
use super::super::progress_line::ProgressLine;
use super::super::running::{self, Target};
use super::{TTL_SECONDS, server_pids, target, transport, via};
use crate::base::transport::Transport;
use crate::client::Credentials;
use crate::doctor::text::{date_and_time, wrap};
use crate::load::lesson::counters::Counters;
use crate::load::lesson::json::json;
use crate::load::lesson::outcome::{Outcome, Setting};
use crate::load::lesson::page::page;
use crate::load::lesson::ramp::Ramp;
use crate::load::lesson::shape::Shape;
use crate::load::lesson::step::{Bounds, Step};
use crate::load::lesson::{Login, Options, Phase, Status, Watch, run as run_lessons, table};
use crate::load::options::Connect;
use crate::load::process::machine;
use crate::system::{clock, limits};

/// Width of the output in characters.
const WIDTH: usize = 79;
/// Pupils of a class, if not told otherwise.
const CLASS: u32 = 30;
/// The most allocations of one run.
const ALLOCATIONS_MAX: u64 = 1_000_000;

/// Runs the lessons and prints the outcome.
pub(super) fn run(args: &LoadArgs) -> ExitCode {
    let options = match options(args) {
        Ok(options) => options,
        Err(code) => return code,
    };
    // Every allocation needs a descriptor.
    limits::raise_open_files();
    let admin = match args.lesson.admin.clone().map(Target::at).transpose() {
        Ok(admin) => admin,
        Err(error) => return fail(&error.message, &error.next_step),
    };
    let mut screen =
        Screen { line: ProgressLine::new(!args.quiet && !args.json), has_rows: !args.json, rows: 0, admin };
    if let Some(admin) = &screen.admin
        && let Err(error) = running::metrics(admin)
    {
        return fail(&error.message, &error.next_step);
    }
    screen.introduce(&options.setting);
    let outcome = run_lessons(options, clock::monotonic_nanos, &mut screen);
    screen.line.clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return fail(&format!("cannot put load on {}: {error}", args.server), "see --help"),
    };
    let printed = match args.json {
        true => print((json(&outcome) + "\n").as_bytes()),
        false => print(conclusion(&outcome).as_bytes()),
    };
    if let Some(path) = &args.lesson.report
        && let Err(error) = fs::write(path, page(&outcome))
    {
        return fail(
            &format!("cannot write {}: {error}", path.display()),
            "name a file in an existing directory that you may write to",
        );
    }
    if outcome.is_answered() { printed } else { ExitCode::from(FAILURE) }
}

fn conclusion(outcome: &Outcome) -> String {
    let mut paragraphs = table::conclusion(outcome).into_iter();
    let answer = paragraphs.next().unwrap_or_default();
    let mut text = format!("\n{}", wrap(&answer, "", WIDTH));
    for note in paragraphs {
        text.push_str(&wrap(&note, "  ", WIDTH).replacen("  ", "- ", 1));
    }
    text
}

fn options(args: &LoadArgs) -> Result<Options, ExitCode> {
    let lesson = &args.lesson;
    let pupils = lesson.pupils.unwrap_or(CLASS);
    // Fewer pupils than a class are one small class.
    let class = if lesson.ramp { CLASS } else { CLASS.min(pupils) };
    let shape = Shape {
        class_size: lesson.class_size.unwrap_or(class),
        teachers: lesson.teachers.unwrap_or(1),
        cameras: lesson.cameras.unwrap_or(3),
    };
    let (ramp, pupils_max) = if lesson.ramp {
        let max = lesson.max_pupils.unwrap_or(3_000).max(pupils);
        (Ramp::new(pupils, lesson.step.unwrap_or(pupils), max), max)
    } else {
        (Ramp::single(pupils), pupils)
    };
    let allocations = u64::from(shape.seats(pupils_max)) * u64::from(shape.slots_per_seat());
    if allocations > ALLOCATIONS_MAX {
        fail(
            &format!(
                "{pupils_max} pupils would need {allocations} allocations, the most is {ALLOCATIONS_MAX}"
            ),
            "lower --max-pupils or --cameras",
        );
        return Err(ExitCode::from(USAGE));
    }
    let shares = match &lesson.mix {
        Some(mix) => mix.0.clone(),
        None => vec![(transport(args.transport), 100)],
    };
    let routes =
        shares.iter().map(|&(transport, _)| target(args, server_of(args, lesson, transport), transport));
    let routes = routes.collect::<Result<Vec<_>, _>>()?;
    let login = login(args)?;
    // Only an address of this machine can be bound.
    let is_local = routes.iter().any(|route| UdpSocket::bind((route.address.ip(), 0)).is_ok());
    let total: u32 = shares.iter().map(|(_, share)| share).sum();
    let percent = |share: u32| (f64::from(share) * 100.0 / f64::from(total)).round() as u32;
    let setting = Setting {
        server: args.server.clone(),
        mix: shares.iter().map(|&(transport, share)| (transport.name(), percent(share))).collect(),
        shape,
        bounds: Bounds {
            loss: lesson.max_loss.unwrap_or(0.5) / 100.0,
            latency: Duration::from_secs_f64(lesson.max_latency.unwrap_or(50.0) / 1e3),
        },
        rejoin: Some(lesson.rejoin.unwrap_or(120.0))
            .filter(|&every| every > 0.0)
            .map(Duration::from_secs_f64),
        is_ramp: lesson.ramp,
        has_own_users: matches!(login, Login::Each { .. }),
        is_local: is_local || !args.server_pid.is_empty(),
        has_counters: false,
        machine: machine(),
        program: program(),
        began: date_and_time(clock::unix_seconds()),
    };
    Ok(Options {
        setting,
        connect: Connect {
            routes,
            via: via(args),
            trains: args.trains,
            peer_address: args.peer_address,
            own_sockets: true,
        },
        weights: shares.iter().map(|(_, share)| *share).collect(),
        login,
        ramp,
        pupils_max,
        warm_up: Duration::from_secs_f64(args.warm_up),
        duration: Duration::from_secs_f64(args.duration),
        server_pids: server_pids(args),
    })
}

fn server_of<'a>(args: &'a LoadArgs, lesson: &'a LessonArgs, transport: Transport) -> &'a str {
    let special = match transport {
        Transport::Udp => None,
        Transport::Tcp => lesson.tcp_server.as_deref(),
        Transport::Tls => lesson.tls_server.as_deref(),
    };
    special.unwrap_or(&args.server)
}

fn login(args: &LoadArgs) -> Result<Login, ExitCode> {
    if let (Some(name), Some(password)) = (&args.username, &args.password) {
        let credentials = Credentials::new(name, password);
        let credentials = credentials.map_err(|error| fail(&error.to_string(), "see --help"))?;
        return Ok(Login::Shared(Arc::new(credentials)));
    }
    let secret = credentials::shared_secret(args.secret.as_deref(), args.secret_file.as_deref())?;
    let expires = clock::unix_seconds().saturating_add(TTL_SECONDS.into());
    Ok(Login::Each { secret, expires, user: args.user.clone() })
}

/// This program with its version and kind of build.
fn program() -> String {
    let kind = if cfg!(debug_assertions) { "development build" } else { "release build" };
    format!("hallpass {}, {kind}", env!("CARGO_PKG_VERSION"))
}

/// Shows the run on the terminal, and asks the server for its counters.
struct Screen {
    line: ProgressLine,
    has_rows: bool,
    rows: usize,
    admin: Option<Target>,
}

impl Screen {
    fn introduce(&mut self, setting: &Setting) {
        if self.has_rows {
            let mut text = String::new();
            for paragraph in table::introduction(setting) {
                text.push_str(&wrap(&paragraph, "", WIDTH));
                text.push('\n');
            }
            text.push_str(&table::HEADING.join("\n"));
            text.push('\n');
            print(text.as_bytes());
        }
    }
}

impl Watch for Screen {
    fn status(&mut self, status: &Status) {
        self.line.show(|| {
            let Status { task, phase, open, waiting, elapsed, rates } = *status;
            let again = if task.is_confirmation { " again" } else { "" };
            let text = match phase {
                Phase::Joining => format!("joining, {open} allocations are there, {waiting} to come"),
                Phase::WarmingUp => format!("warming up, {open} allocations"),
                Phase::Measuring => format!(
                    "{:.0} of {:.0} s, {:.0} packets/s, {:.1} Mbit/s, {} lost",
                    elapsed.0.as_secs_f64(),
                    elapsed.1.as_secs_f64(),
                    rates.0,
                    rates.1,
                    table::lost(rates.2)
                ),
                Phase::Leaving => format!("{open} allocations are left"),
            };
            let head = match phase {
                Phase::Leaving => "leaving".to_owned(),
                _ => format!("{} pupils{again}", task.pupils),
            };
            // A longer line would wrap, and only its last row would be overwritten.
            format!("{head}: {text}").chars().take(WIDTH).collect()
        });
    }

    fn step(&mut self, step: &Step) {
        self.rows += 1;
        if self.has_rows {
            self.line.clear();
            print((table::row(self.rows, step) + "\n").as_bytes());
        }
    }

    fn counters(&mut self) -> Option<Counters> {
        match running::metrics(self.admin.as_ref()?) {
            Ok(text) => Some(Counters::parse(&text)),
            Err(error) => {
                self.line.clear();
                print_stderr(&format!("hallpass: warning: {}\n", error.message));
                None
            }
        }
    }
}
