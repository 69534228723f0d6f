//! Configurations of coturn: any bytes have a report with every line, and either reasons or a configuration that is accepted.

use std::path::Path;

use hallpass::config;
use hallpass::coturn::words::of_file;
use hallpass::coturn::{Import, Input, import};

/// Lines with a secret that no report may show.
const SECRETS: &[u8] = b"\nstatic-auth-secret=sentinel-0123456789\nuser=alice:sentinel-0123456789\n\
    cli-password=sentinel-0123456789\n# sentinel-0123456789\nstatic-auth-secrett=sentinel-0123456789";

/// The content of a file, and the same bytes as arguments that zero bytes separate.
pub fn coturn(data: &[u8]) {
    holds(Some(data), &[]);
    let arguments: Vec<Vec<u8>> =
        data.split(|&byte| byte == 0 || byte == b'\n').map(<[u8]>::to_vec).collect();
    holds(None, &arguments);
    let file = [data, SECRETS].concat();
    let text = holds(Some(&file), &[]);
    // On a command line, the text may be the value of any option before it.
    if of_file(&file).is_none() {
        assert!(!text.contains("sentinel"), "a secret in the report");
    }
}

/// Imports, checks what always holds, and returns the report.
fn holds(file: Option<&[u8]>, arguments: &[Vec<u8>]) -> String {
    let input = Input { file: file.map(|file| ("turnserver.conf", file)), arguments, ..Input::default() };
    let Import { configuration, report } = import(&input);
    for number in 1..=file.map_or(0, |file| file.split_inclusive(|&byte| byte == b'\n').count()) {
        assert!(report.lines.iter().any(|line| line.place.line == Some(number)), "line {number} is missing");
    }
    for number in 1..=arguments.len() {
        let covered = |(first, last): (usize, usize)| (first..=last).contains(&number);
        assert!(
            report.lines.iter().any(|line| line.place.arguments.is_some_and(covered)),
            "argument {number} is missing"
        );
    }
    assert!(report.lines.iter().all(|line| !line.reason.is_empty()), "a line without a reason");
    assert_eq!(configuration.is_none(), report.is_refused());
    if let Some(configuration) = configuration {
        let loaded = config::parse(&configuration.toml, "hallpass.toml", Path::new("no/such/directory"));
        assert!(loaded.is_ok(), "the result is refused: {loaded:?}");
    }
    format!("{}{}", report.text(), report.json())
}
