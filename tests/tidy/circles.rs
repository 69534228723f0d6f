//! Checks that the files under `src` have no circular imports.
//!
//! File A imports file B when code of A outside its tests names an item that B defines: in a `use`, or by a path such as
//! `b::Item`. A re-exported name counts for the file that defines the item, and the name of a module for the file of that
//! module. `mod b;` alone imports nothing. A circle is a chain of imports that leads back to its first file. A parent and
//! a child that use each other's items are a circle, too: move what both need into a third file that imports neither.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::paths;
use crate::source::{Source, find_word};

/// One file as a module.
struct Module {
    /// The names of its children that are files of their own.
    children: BTreeSet<String>,
    /// Names brought in by `use`, with their full paths.
    imported: BTreeMap<String, String>,
    /// Every path that the code names.
    paths: BTreeSet<String>,
    /// The path of the file.
    path: String,
}

/// All modules by their path from the root of the crate, such as `turn::table`; the root is the empty path.
type Modules = BTreeMap<String, Module>;

/// Known circles that are still to be broken, as groups of files. A group may only shrink, and a new one needs a reason.
pub const OPEN: &[&[&str]] = &[];

/// Files that all import each other, directly or not.
pub struct Circle {
    /// All of them.
    pub files: BTreeSet<String>,
    /// One chain of imports from a file back to itself.
    pub way: Vec<String>,
}

/// Returns violations as file and message: circles that `open` does not cover, and files in `open` that are in no circle.
pub fn check(sources: &[Source], open: &[&[&str]]) -> Vec<(String, String)> {
    let circles = find(sources);
    let mut all = Vec::new();
    let is_known = |circle: &Circle| {
        open.iter().any(|group| circle.files.iter().all(|file| group.contains(&file.as_str())))
    };
    for circle in circles.iter().filter(|circle| !is_known(circle)) {
        all.push((circle.way[0].clone(), format!("imports in a circle: {}", circle.way.join(" -> "))));
    }
    for group in open {
        for file in *group {
            if !circles.iter().any(|circle| circle.files.contains(*file)) {
                all.push((
                    (*file).to_owned(),
                    "no longer in a circle: remove it from OPEN in circles.rs".into(),
                ));
            }
        }
    }
    all
}

/// Returns every circle among these files.
fn find(sources: &[Source]) -> Vec<Circle> {
    let modules: Modules = sources.iter().filter_map(module).collect();
    let imports: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        .map(|(name, module)| {
            let all = module.paths.iter().filter_map(|path| defined_in(&modules, name, path, 0));
            (name.as_str(), all.filter(|other| *other != name).collect())
        })
        .collect();
    let mut circles = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for &start in imports.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(way) = way_back(&imports, start) {
            let reached = reached_from(&imports, start);
            let all = reached.into_iter().filter(|other| reached_from(&imports, other).contains(start));
            let all: BTreeSet<&str> = all.collect();
            let path = |name: &&str| modules[*name].path.clone();
            circles
                .push(Circle { files: all.iter().map(path).collect(), way: way.iter().map(path).collect() });
            seen.extend(all);
        }
    }
    circles
}

/// Returns the shortest chain of imports from `start` back to `start`.
fn way_back<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = vec![start];
    while !next.is_empty() {
        for from in std::mem::take(&mut next) {
            for &to in &imports[from] {
                if to == start {
                    let mut way = vec![from];
                    while let Some(&before) = came_from.get(way[way.len() - 1]) {
                        way.push(before);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(to) {
                    came_from.insert(to, from);
                    next.push(to);
                }
            }
        }
    }
    None
}

fn reached_from<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = imports[start].iter().copied().collect();
    while let Some(name) = next.pop() {
        if reached.insert(name) {
            next.extend(imports[name].iter().copied());
        }
    }
    reached
}

/// Returns a file as a module, with its module path; `None` for test files and `main.rs`.
fn module(source: &Source) -> Option<(String, Module)> {
    let inside = source.path.strip_prefix("src/")?.strip_suffix(".rs")?;
    if inside == "main" || source.tests_from == 1 {
        return None;
    }
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    let name = if inside == "lib" { String::new() } else { inside.replace('/', "::") };
    let code = source.tested_code();
    let children = find_word(code, "mod").filter_map(|at| {
        let declared = code[at + "mod".len()..].split_once(';')?.0.trim();
        let is_name = !declared.is_empty() && declared.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_name.then(|| declared.to_owned())
    });
    let imported = crate::imports::named_uses(code);
    let paths = paths(code).into_iter().map(|(_, path)| path).collect();
    let children = children.collect();
    Some((name, Module { children, imported, paths, path: source.path.clone() }))
}

/// Returns the module that defines `path` as seen from `module`; `None` if it is not in this crate.
fn defined_in<'a>(modules: &'a Modules, module: &str, path: &str, depth: usize) -> Option<&'a str> {
    let mut rest: Vec<&str> = path.split("::").collect();
    let mut at = match rest[0] {
        "crate" | "hallpass" => {
            rest.remove(0);
            String::new()
        }
        "self" | "super" => {
            let mut at = module.to_owned();
            while let Some(&step @ ("self" | "super")) = rest.first() {
                rest.remove(0);
                if step == "super" {
                    at = at.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned();
                }
            }
            at
        }
        head if modules.get(module)?.children.contains(head) => module.to_owned(),
        _ => return None,
    };
    while let Some(&step) = rest.first() {
        let below = if at.is_empty() { step.to_owned() } else { format!("{at}::{step}") };
        if !modules.contains_key(&below) {
            break;
        }
        at = below;
        rest.remove(0);
    }
    let (name, found) = modules.get_key_value(&at)?;
    // Follow a re-export, or a name that a child takes from its parent's imports. `depth` ends a loop.
    if let Some(target) = rest.first().and_then(|item| found.imported.get(*item))
        && depth < 16
        && (target.contains("::"))
        && (at != module || path.starts_with("self") || path.starts_with("crate"))
    {
        let followed = defined_in(modules, name, target, depth + 1);
        return followed.or(Some(name));
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(path, text)).collect()
    }

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        find(&sources(files)).into_iter().map(|circle| circle.way).collect()
    }

    #[test]
    fn a_circle_is_found_by_use_and_by_path() {
        let way = ["src/a.rs", "src/b.rs", "src/c.rs"].map(str::to_owned).to_vec();
        let files = [
            ("src/a.rs", "use crate::b::B;"),
            ("src/b.rs", "fn f() { crate::c::f() }"),
            ("src/c.rs", "use super::a;"),
        ];
        assert_eq!(found(&files), [way]);
    }

    #[test]
    fn a_parent_and_its_child_are_no_exception() {
        let parent = ("src/a.rs", "mod b;\nuse b::B;\npub struct A;");
        assert_eq!(found(&[parent, ("src/a/b.rs", "use super::A;")]).len(), 1);
        assert_eq!(found(&[parent, ("src/a/b.rs", "pub struct B;")]).len(), 0);
        assert_eq!(found(&[("src/a.rs", "mod b;\npub struct A;"), ("src/a/b.rs", "use super::A;")]).len(), 0);
    }

    #[test]
    fn a_re_export_counts_for_the_file_behind_it() {
        let files = [
            ("src/a/mod.rs", "pub mod b;\npub mod c;\npub use b::B;\npub use c::C;"),
            ("src/a/b.rs", "pub struct B;"),
            ("src/a/c.rs", "use super::B;\npub struct C;"),
        ];
        assert_eq!(found(&files).len(), 0);
    }

    #[test]
    fn tests_do_not_count() {
        let files = [
            ("src/a.rs", "use crate::b::B;\npub struct A;"),
            ("src/b.rs", "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}"),
        ];
        assert_eq!(found(&files).len(), 0);
    }

    #[test]
    fn unlisted_circles_and_listed_files_without_a_circle_are_reported() {
        let circle = sources(&[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "use crate::a::A;")]);
        let reported =
            |open: &[&[&str]]| check(&circle, open).into_iter().map(|(file, _)| file).collect::<Vec<_>>();
        assert_eq!(reported(&[]), ["src/a.rs"]);
        assert_eq!(reported(&[&["src/a.rs", "src/b.rs"]]), [""; 0]);
        assert_eq!(reported(&[&["src/a.rs", "src/b.rs", "src/c.rs"]]), ["src/c.rs"]);
        assert_eq!(reported(&[&["src/a.rs", "src/c.rs"]]), ["src/a.rs", "src/c.rs"]);
    }
}
