//! The commands of the pages about installation, which run on the booted machines as they are printed.

use std::fs;
use std::path::Path;

use crate::ROOT;

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
];

/// Blocks that no test runs: they build packages, or ask a certificate authority.
const NOT_RUN: &[Place] = &[
    ("install.md", "Installation", 0),
    ("certificates.md", "certbot", 0),
    ("certificates.md", "certbot", 1),
    ("certificates.md", "acme.sh and other clients", 0),
];

/// Returns the commands of a block of [`RUN`].
#[track_caller]
pub fn commands(page: &'static str, heading: &'static str, index: usize) -> String {
    assert!(RUN.contains(&(page, heading, index)), "add it to RUN");
    let found =
        blocks(page).into_iter().find(|block| (block.heading.as_str(), block.index) == (heading, index));
    found.unwrap_or_else(|| panic!("docs/{page} has no block {index} below {heading}")).commands
}

struct Block {
    heading: String,
    index: usize,
    commands: String,
}

/// Blocks of shell in a page, in their order.
fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs").join(page)).expect("a page");
    let (mut found, mut heading, mut index, mut open) = (Vec::new(), String::new(), 0, None::<String>);
    for line in text.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (None, _) if line.starts_with('#') => {
                (heading, index) = (line.trim_matches(['#', ' ']).to_owned(), 0)
            }
            (Some(_), "```") => {
                let commands = open.take().unwrap_or_default();
                found.push(Block { heading: heading.clone(), index, commands });
                index += 1;
            }
            (Some(commands), _) => *commands += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    found
}

#[test]
fn every_block_of_the_pages_is_run_or_listed() {
    for page in ["install.md", "certificates.md", "web-server.md"] {
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
