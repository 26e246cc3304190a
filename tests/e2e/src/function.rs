//! What gets deployed.

use std::io::Write;
use std::path::Path;
use walkdir::WalkDir;
use zip::write::SimpleFileOptions;

/// A package that is installed without an index, which the sandbox's own tests have too.
const PROJECT: &str = include_str!("../../package/pyproject.toml");
const BACKEND: &str = include_str!("../../package/backend.py");

/// A script of it that tries to take space without writing it, and leaves in `VALUE` how that went.
pub const RESERVE: &str = include_str!("../../package/reserve.py");

/// A function with its code and settings.
#[derive(Debug, Clone)]
pub struct Function {
    /// The route.
    pub name: String,
    files: Vec<(String, Vec<u8>)>,
    mode: u32,
    query: Vec<(String, String)>,
}

impl Function {
    /// A function without files. `runtime` is `nodejs`, `python3`, `go`, `binary` or `wasm`.
    #[must_use]
    pub fn new(name: &str, runtime: &str) -> Self {
        let function = Self {
            name: name.to_owned(),
            files: Vec::new(),
            mode: 0o755,
            query: Vec::new(),
        };
        function.set("env", runtime)
    }

    /// A `python3` function whose `fn.py` is the text.
    #[must_use]
    pub fn python(name: &str, code: &str) -> Self {
        Self::new(name, "python3").file("fn.py", code)
    }

    /// A `python3` function that installs a package of its own folder, whose build runs the script. It
    /// answers with what the script leaves in `VALUE`, else with `built`.
    #[must_use]
    pub fn building(name: &str, script: &str) -> Self {
        Self::python(name, "import own\ndef fn(input): return own.VALUE\n")
            .file("requirements.txt", "./own\n")
            .file("own/pyproject.toml", PROJECT)
            .file("own/backend.py", BACKEND)
            .file("own/script.py", script)
    }

    /// A `binary` function whose `fn.sh` is the text.
    #[must_use]
    pub fn script(name: &str, code: &str) -> Self {
        Self::new(name, "binary").file("fn.sh", code)
    }

    /// The same, with a file. Files are executable unless [`Function::mode`] says otherwise.
    #[must_use]
    pub fn file(mut self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.files
            .push((path.to_owned(), contents.as_ref().to_owned()));
        self
    }

    /// The same, with every file of a folder.
    ///
    /// # Panics
    /// If the folder can't be read.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        for entry in WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.expect("the folder is readable");
            if entry.file_type().is_file() {
                let path = entry.path().strip_prefix(folder);
                let path = path.expect("it lies below").display().to_string();
                let contents = std::fs::read(entry.path()).expect("the file is readable");
                self.files.push((path, contents));
            }
        }
        self
    }

    /// The same, with a setting such as `threads`, `deadline` or `memory`.
    #[must_use]
    pub fn set(mut self, setting: &str, value: &str) -> Self {
        self.query.push((setting.to_owned(), value.to_owned()));
        self
    }

    /// The same, with an environment variable.
    #[must_use]
    pub fn var(self, name: &str, value: &str) -> Self {
        self.set("var", &format!("{name}={value}"))
    }

    /// The same, with files of that mode.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The settings as a query.
    #[must_use]
    pub fn query(&self) -> String {
        let pairs = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", escaped(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// The code as a zip.
    ///
    /// # Panics
    /// If a path can't be in a zip.
    #[must_use]
    pub fn zip(&self) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().unix_permissions(self.mode);
        for (path, contents) in &self.files {
            zip.start_file(path, options).expect("a path for a zip");
            zip.write_all(contents).expect("memory takes every byte");
        }
        let done = zip.finish().expect("memory takes every byte");
        done.into_inner()
    }
}

/// A text as it stands in one segment or value of a URL.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let mut url = String::new();
    for byte in text.bytes() {
        if plain(byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}
