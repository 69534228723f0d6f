//! The operator's own files. They are read once, so that no request opens a file or finds one outside the directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::asset::{Asset, Files};

/// Most files, bytes of one file, bytes of all, and levels of directories.
const FILES_MAX: usize = 1000;
const FILE_BYTES_MAX: u64 = 4 << 20;
const BYTES_MAX: usize = 32 << 20;
const LEVELS_MAX: usize = 16;

/// What pages from a directory may load: files of the same site, and no code or style inside the page.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'self'; form-action 'self'; \
                      frame-ancestors 'none'; object-src 'none'";

/// Types by the end of the name.
const KINDS: [(&str, &str); 27] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("pdf", "application/pdf"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
];

/// Reads all files of a directory and those below. Leaves out names that begin with a dot, and links that lead out of the
/// directory. A file `index.html` is also the page of its directory.
///
/// # Errors
/// What cannot be read, or which limit is exceeded.
pub fn read(root: &Path) -> Result<Files, String> {
    let root = fs::canonicalize(root).map_err(|error| unreadable(root, &error))?;
    let mut reading = Reading { root: root.clone(), files: Files::default(), bytes: 0 };
    reading.directory(&root, "/", 0)?;
    Ok(reading.files)
}

struct Reading {
    root: PathBuf,
    files: Files,
    bytes: usize,
}

impl Reading {
    /// Reads one directory. `url` is its path, with a slash at both ends.
    fn directory(&mut self, path: &Path, url: &str, level: usize) -> Result<(), String> {
        if level > LEVELS_MAX {
            return Err(format!("{}: more than {LEVELS_MAX} levels of directories", path.display()));
        }
        for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
            let path = entry.map_err(|error| unreadable(path, &error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let real = fs::canonicalize(&path).map_err(|error| unreadable(&path, &error))?;
            if !real.starts_with(&self.root) {
                continue;
            }
            let metadata = fs::metadata(&real).map_err(|error| unreadable(&path, &error))?;
            if metadata.is_dir() {
                self.directory(&path, &format!("{url}{name}/"), level + 1)?;
            } else if metadata.is_file() {
                if metadata.len() > FILE_BYTES_MAX {
                    return Err(format!("{}: larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20));
                }
                let body = fs::read(&real).map_err(|error| unreadable(&path, &error))?;
                self.add(name, url, body, metadata.modified().ok())?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        url: &str,
        body: Vec<u8>,
        modified: Option<std::time::SystemTime>,
    ) -> Result<(), String> {
        self.bytes += body.len();
        if self.bytes > BYTES_MAX {
            return Err(format!("{}: more than {} MiB in all", self.root.display(), BYTES_MAX >> 20));
        }
        if self.files.len() >= FILES_MAX {
            return Err(format!("{}: more than {FILES_MAX} files", self.root.display()));
        }
        let mut asset = Asset::new(kind(name), body).policy(POLICY);
        if let Some(modified) = modified {
            asset = asset.modified(modified);
        }
        if name == "index.html" {
            self.files.add(url, asset.clone());
        }
        self.files.add(&format!("{url}{name}"), asset);
        Ok(())
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

fn kind(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    let known = KINDS.iter().find(|(known, _)| end.as_deref() == Some(*known));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hallpass-site-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("root/sub")).expect("a directory");
            Self(path)
        }

        fn file(&self, name: &str, content: &[u8]) {
            fs::write(self.0.join(name), content).expect("a file");
        }

        fn read(&self) -> Result<Files, String> {
            read(&self.0.join("root"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn dot_files_and_what_is_elsewhere_are_left_out() {
        let scratch = Scratch::new("left-out");
        scratch.file("outside.html", b"secret");
        scratch.file("root/index.html", b"first");
        scratch.file("root/.htpasswd", b"secret");
        scratch.file("root/sub/index.html", b"second");
        scratch.file("root/sub/A.PNG", b"png");
        symlink("../outside.html", scratch.0.join("root/link.html")).expect("a link");
        symlink("sub/index.html", scratch.0.join("root/inside.html")).expect("a link");
        symlink("..", scratch.0.join("root/up")).expect("a link");
        let files = scratch.read().expect("good");
        for found in ["/", "/index.html", "/sub/", "/sub/index.html", "/sub/A.PNG", "/inside.html"] {
            assert!(files.find(found).is_some(), "{found}");
        }
        for missing in ["/.htpasswd", "/link.html", "/up/", "/up/outside.html", "/sub/../index.html", "/sub"]
        {
            assert!(files.find(missing).is_none(), "{missing}");
        }
        assert_eq!((files.len(), kind("A.PNG"), kind("x")), (6, "image/png", "application/octet-stream"));
    }

    #[test]
    fn limits_are_reported() {
        let scratch = Scratch::new("limits");
        assert!(
            read(Path::new("/nonexistent")).is_err_and(|error| error.contains("cannot read /nonexistent"))
        );
        scratch.file("root/large.bin", &vec![0; (FILE_BYTES_MAX + 1) as usize]);
        assert!(scratch.read().is_err_and(|error| error.contains("large.bin: larger than 4 MiB")));
        fs::remove_file(scratch.0.join("root/large.bin")).expect("removed");
        symlink(".", scratch.0.join("root/loop")).expect("a link");
        assert!(scratch.read().is_err_and(|error| error.contains("levels")));
    }
}
