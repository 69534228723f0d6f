//! The commands of the pages about installation, which run on the booted machines as they are printed.

use std::fs;
use std::path::Path;

use crate::ROOT;
use crate::compare::compare;
use crate::machine::Machine;

/// A block of commands: page, heading, and its place below the heading.
type Place = (&'static str, &'static str, usize);

/// Blocks that these tests run.
const RUN: &[Place] = &[
    ("install.md", "Debian and Ubuntu", 0),
    ("install.md", "Other distributions", 0),
    ("install.md", "Configuration", 0),
    ("install.md", "Start", 0),
    ("install.md", "From coturn", 0),
    ("install.md", "From coturn", 1),
    ("certificates.md", "certbot", 2),
    ("certificates.md", "Without a hook", 0),
    ("web-server.md", "nginx behind Hallpass", 0),
    ("web-server.md", "Switch", 0),
    ("web-server.md", "haproxy stays", 0),
    ("bigbluebutton.md", "After upgrades", 0),
    ("from-coturn.md", "Install", 0),
    ("from-coturn.md", "Copies for the way back", 0),
    ("from-coturn.md", "Import", 0),
    ("from-coturn.md", "Certificate", 0),
    ("from-coturn.md", "Who has port 443?", 0),
    ("from-coturn.md", "Switch where nginx has port 443", 0),
    ("from-coturn.md", "Switch where nginx has port 443", 1),
    ("from-coturn.md", "Switch where nginx has port 443", 2),
    ("from-coturn.md", "Switch where nginx has port 443", 3),
    ("from-coturn.md", "Switch where nginx has port 443", 4),
    ("from-coturn.md", "Switch where haproxy has port 443", 0),
    ("from-coturn.md", "Switch where haproxy has port 443", 1),
    ("from-coturn.md", "BigBlueButton's list", 0),
    ("from-coturn.md", "The way back", 0),
    ("from-coturn.md", "The way back", 1),
    ("from-coturn.md", "The way back", 2),
    ("from-coturn.md", "The way back", 3),
    ("from-coturn.md", "The relay: import", 0),
    ("from-coturn.md", "The relay: switch", 0),
    ("from-coturn.md", "The relay: switch", 1),
    ("from-coturn.md", "The relay: the way back", 0),
];

/// Blocks that no test runs: they build packages, ask a certificate authority or copy to another host.
const NOT_RUN: &[Place] = &[
    ("install.md", "Installation", 0),
    ("certificates.md", "Several relays with the same name", 0),
    ("certificates.md", "certbot", 0),
    ("certificates.md", "certbot", 1),
    ("certificates.md", "acme.sh and other clients", 0),
];

/// Returns the commands of a block of [`RUN`].
#[track_caller]
pub fn commands(page: &'static str, heading: &'static str, index: usize) -> String {
    let block = block(page, heading, index);
    assert!(!block.is_console, "docs/{page}: follow block {index} below {heading}");
    block.text
}

/// Runs a block of [`RUN`]. Each must succeed; where the page shows its output, it must print that.
#[track_caller]
pub fn follow(machine: &Machine, page: &'static str, heading: &'static str, index: usize) {
    let block = block(page, heading, index);
    if !block.is_console {
        println!("{}", machine.sh(&block.text));
        return;
    }
    for step in block.text.split("$ ").skip(1) {
        let (command, shown) = step.split_once('\n').expect("a line");
        let output = machine.sh(command);
        println!("$ {command}\n{output}");
        let shown: Vec<String> = shown.lines().map(str::to_owned).collect();
        if let Err(problem) = compare(&shown, &output) {
            panic!("docs/{page}: {heading}: {command}: {problem}; its output:\n{output}");
        }
    }
}

#[track_caller]
fn block(page: &'static str, heading: &'static str, index: usize) -> Block {
    assert!(RUN.contains(&(page, heading, index)), "add it to RUN");
    let found =
        blocks(page).into_iter().find(|block| (block.heading.as_str(), block.index) == (heading, index));
    found.unwrap_or_else(|| panic!("docs/{page} has no block {index} below {heading}"))
}

struct Block {
    heading: String,
    index: usize,
    /// Whether commands follow a `$`, with their output below.
    is_console: bool,
    text: String,
}

/// Blocks of shell in a page, in their order.
fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs").join(page)).expect("a page");
    let (mut found, mut heading, mut index, mut open) = (Vec::new(), String::new(), 0, None::<String>);
    let mut is_console = false;
    for line in text.lines() {
        match (&mut open, line) {
            (None, "```sh" | "```console") => {
                (open, is_console) = (Some(String::new()), line == "```console")
            }
            (None, _) if line.starts_with('#') => {
                (heading, index) = (line.trim_matches(['#', ' ']).to_owned(), 0)
            }
            (Some(_), "```") => {
                let text = open.take().unwrap_or_default();
                found.push(Block { heading: heading.clone(), index, is_console, text });
                index += 1;
            }
            (Some(text), _) => *text += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    found
}

#[test]
fn every_block_of_the_pages_is_run_or_listed() {
    for page in ["install.md", "certificates.md", "web-server.md", "from-coturn.md"] {
        let of_page = |list: &[Place]| list.iter().filter(|place| place.0 == page).count();
        for Block { heading, index, .. } in blocks(page) {
            let is_known = |place: &Place| (place.0, place.1, place.2) == (page, heading.as_str(), index);
            assert!(
                RUN.iter().chain(NOT_RUN).any(is_known),
                "docs/{page}: block {index} below {heading} is not run"
            );
        }
        assert_eq!(of_page(RUN) + of_page(NOT_RUN), blocks(page).len(), "docs/{page} has lost a block");
    }
}
