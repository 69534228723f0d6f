//! Compares the bill of materials and SUPPLY-CHAIN.md with what Cargo reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Name and version of a crate.
type Crate = (String, String);

/// Runs Cargo offline and returns its output.
fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let output = command.args(arguments).current_dir(ROOT).env("CARGO_NET_OFFLINE", "true").output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the target triple of this machine.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").current_dir(ROOT).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Creates the bill of materials and returns its bytes.
fn sbom(name: &str, epoch: Option<&str>) -> Vec<u8> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let mut command = Command::new("bash");
    command.arg(".ci/sbom").arg(&file).current_dir(ROOT);
    command.env("CARGO_NET_OFFLINE", "true").env_remove("SOURCE_DATE_EPOCH");
    if let Some(epoch) = epoch {
        command.env("SOURCE_DATE_EPOCH", epoch);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), ".ci/sbom: {}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    bytes
}

/// The bill of materials without a time, created once.
static BILL: LazyLock<Vec<u8>> = LazyLock::new(|| sbom("undated", None));

fn bill() -> Value {
    serde_json::from_slice(&BILL).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn crates(components: &[Value]) -> BTreeSet<Crate> {
    components.iter().map(|one| (text(one, "name").to_owned(), text(one, "version").to_owned())).collect()
}

/// Returns the checksums in Cargo.lock.
fn locked() -> BTreeMap<Crate, String> {
    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let blocks = lock.split("[[package]]").skip(1).map(|block| {
        let value = |key: &str| {
            let begin = format!("{key} = \"");
            let line = block.lines().find_map(|line| line.strip_prefix(begin.as_str()));
            line.unwrap_or_default().trim_end_matches('"').to_owned()
        };
        ((value("name"), value("version")), value("checksum"))
    });
    blocks.collect()
}

#[test]
fn the_bill_of_materials_is_what_is_built() {
    assert_eq!(*BILL, sbom("again", None), "the same tree gives the same bytes");
    let bill = bill();
    assert_eq!((text(&bill, "bomFormat"), text(&bill, "specVersion")), ("CycloneDX", "1.5"));
    assert!(bill["metadata"]["timestamp"].is_null(), "the bill has no time unless one is given");
    let root = &bill["metadata"]["component"];
    assert_eq!((text(root, "name"), text(root, "version")), ("hallpass", env!("CARGO_PKG_VERSION")));

    let components = bill["components"].as_array().unwrap();
    let locked = locked();
    for one in components {
        let id = (text(one, "name").to_owned(), text(one, "version").to_owned());
        assert_eq!(text(one, "purl"), format!("pkg:cargo/{}@{}", id.0, id.1.replace('+', "%2B")));
        assert_eq!(text(&one["hashes"][0], "alg"), "SHA-256");
        assert_eq!(Some(text(&one["hashes"][0], "content")), locked.get(&id).map(String::as_str), "{id:?}");
        let license = text(&one["licenses"][0], "expression");
        assert!(!license.is_empty() && !license.contains('/'), "{id:?}: {license}");
    }

    // Exactly what Cargo would compile, without dependencies of tests and benches.
    let arguments =
        ["tree", "--locked", "-e", "normal", "--target", &host(), "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&arguments);
    let expected: BTreeSet<Crate> = tree
        .lines()
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned()))
        .filter(|(name, _)| name != "hallpass")
        .collect();
    let found = crates(components);
    assert!(expected.len() > 50, "{} crates in:\n{tree}", expected.len());
    assert_eq!(found, expected);
    assert!(!found.iter().any(|(name, _)| name == "criterion" || name == "proptest"));

    // The graph is complete and starts at the program.
    let depends = bill["dependencies"].as_array().unwrap();
    let known: BTreeSet<&str> = components.iter().chain([root]).map(|one| text(one, "bom-ref")).collect();
    assert_eq!(known.len(), components.len() + 1, "names are unique");
    assert_eq!(depends.iter().map(|one| text(one, "ref")).collect::<BTreeSet<_>>(), known);
    let edges = || depends.iter().flat_map(|one| one["dependsOn"].as_array().unwrap());
    assert!(edges().all(|to| known.contains(to.as_str().unwrap())));
    let reached: BTreeSet<&str> = edges().map(|to| to.as_str().unwrap()).collect();
    assert_eq!(reached.len(), components.len(), "every component is needed");
}

#[test]
fn the_bill_contains_a_time_only_if_given() {
    let bill: Value = serde_json::from_slice(&sbom("dated", Some("1700000000"))).unwrap();
    assert_eq!(text(&bill["metadata"], "timestamp"), "2023-11-14T22:13:20Z");
}

/// The reverse check: every source file in the program's debug information belongs to a crate in the bill.
#[test]
fn every_crate_in_the_binary_is_in_the_bill() {
    let bill = bill();
    let components = bill["components"].as_array().unwrap();
    let required: Vec<Value> =
        components.iter().filter(|one| text(one, "scope") == "required").cloned().collect();
    let listed = crates(&required);
    let locked = locked();
    let binary = std::fs::read(env!("CARGO_BIN_EXE_hallpass")).unwrap();
    // .../registry/src/INDEX/NAME-VERSION/src/...
    let mark = b"/registry/src/";
    let mut named = BTreeSet::new();
    for at in (0..binary.len().saturating_sub(mark.len() + 200)).filter(|&at| binary[at..].starts_with(mark))
    {
        let path = String::from_utf8_lossy(&binary[at + mark.len()..at + mark.len() + 200]);
        let Some(directory) = path.split('/').nth(1) else { continue };
        named.extend(locked.keys().filter(|(name, version)| {
            directory.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('-'))
                == Some(version.as_str())
        }));
    }
    assert!(named.len() > 20, "only {named:?} found in the binary");
    let missing: Vec<_> = named.into_iter().filter(|one| !listed.contains(one)).collect();
    assert!(missing.is_empty(), "in the binary and not in the bill: {missing:?}");
}

/// Splits off the debug information of the program under test, as .ci/release does.
#[test]
fn a_released_program_is_small_and_keeps_its_function_names() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("split-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let program = env!("CARGO_BIN_EXE_hallpass");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(Command::new("bash").arg(".ci/split-debug").arg(program).arg(&directory).current_dir(ROOT));
    let (small, debug) = (directory.join("hallpass"), directory.join("hallpass.debug"));
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let sizes = [size(Path::new(program)), size(&small), size(&debug)];
    let functions = run(Command::new("nm").arg("--demangle").arg(&small));
    let linked = run(Command::new("readelf").args(["--string-dump=.gnu_debuglink"]).arg(&small));
    let version = run(Command::new(&small).arg("--version"));
    std::fs::remove_dir_all(&directory).unwrap();
    println!(
        "{} bytes of program, {} without debug information, {} of it compressed",
        sizes[0], sizes[1], sizes[2]
    );
    assert!(sizes[1] * 2 < sizes[0], "{sizes:?}");
    assert!(functions.contains("hallpass::cli::run"), "a backtrace needs names");
    assert!(linked.contains("hallpass.debug"), "{linked}");
    assert!(version.starts_with("hallpass "), "{version}");
    // A build without .ci/release is small too.
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let profile =
        manifest.split("\n[").find(|table| table.starts_with("profile.release]")).expect("a profile");
    assert!(profile.lines().any(|line| line == "strip = \"debuginfo\""), "{profile}");
}

/// Returns the first cell of each row in the table under this heading of SUPPLY-CHAIN.md.
fn rows(heading: &str) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(ROOT).join("SUPPLY-CHAIN.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let table = section.lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
    table.map(|line| line.split(" | ").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_direct_dependency_has_its_row() {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let direct = metadata["packages"][0]["dependencies"].as_array().unwrap();
    let direct: BTreeSet<String> = direct.iter().map(|one| text(one, "name").to_owned()).collect();
    let described = rows("Direct dependencies");
    assert_eq!(described.iter().cloned().collect::<BTreeSet<_>>(), direct);
    assert_eq!(described.len(), direct.len(), "one row each");
}

/// SUPPLY-CHAIN.md states numbers for this target.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
fn the_numbers_of_the_page_are_right() {
    let bill = bill();
    let components = bill["components"].as_array().unwrap();
    let required = components.iter().filter(|one| text(one, "scope") == "required").count();
    let page = std::fs::read_to_string(Path::new(ROOT).join("SUPPLY-CHAIN.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = components.len();
    for said in [
        format!("resolves {all} crates beneath the program"),
        format!("{required} are in the binary and {} are procedural macros", all - required),
        format!("{} direct dependencies:", rows("Direct dependencies").len()),
    ] {
        assert!(page.contains(&said), "SUPPLY-CHAIN.md should say: {said}");
    }
}

#[test]
fn the_reviewed_versions_are_the_locked_ones() {
    let locked = locked();
    let reviewed = rows("What sees bytes of the network");
    assert!(reviewed.len() > 10);
    // A row covers one crate, or several that are used together: "a 1.0, with b 2.0 and c 3.0".
    let each = reviewed.iter().flat_map(|row| row.split(", with ").flat_map(|part| part.split(" and ")));
    for one in each {
        let (name, version) = one.split_once(' ').unwrap_or_else(|| panic!("{one}: write name and version"));
        let known = locked.contains_key(&(name.to_owned(), version.to_owned()));
        assert!(known, "{one} is not in Cargo.lock: review what changed, then update its row");
    }
}
