//! The function's file and how it is run.

use crate::request::Request;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SHELL: &str = "/bin/sh";
const ELF: &[u8] = b"\x7fELF";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// As much of a first line as the kernel looks at, and more.
const START_BYTES: u64 = 4096;

/// What a reply is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `fn.sh`: all that it prints is the body.
    Body,
    /// `fn.cgi`: a header block, an empty line, the body (RFC 3875, section 6).
    Cgi,
}

impl Form {
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Body => "fn.sh",
            Self::Cgi => "fn.cgi",
        }
    }
}

/// The function's file and its surroundings.
pub(crate) struct Script {
    folder: PathBuf,
    pub(crate) form: Form,
    /// The program and what stands before the file's own arguments.
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(String, String)>,
}

impl Script {
    /// Finds the file in the folder that `TINYFAAS_CODE` names; the error is for whoever deployed
    /// the function.
    pub(crate) fn find(mut envs: Vec<(String, String)>) -> Result<Self, String> {
        envs.retain(|(name, _)| name != "TINYFAAS_LISTEN" && name != "TINYFAAS_SECRET");
        let folder = variable(&envs, "TINYFAAS_CODE").map(PathBuf::from);
        let folder = folder.ok_or("the variable TINYFAAS_CODE is not set")?;
        let form = form_of(&folder)?;
        let file = folder.join(form.file_name());
        let name = form.file_name();
        let (start, is_executable) = look_at(&file).map_err(|error| {
            format!("no file {name} that can be read ({error}); put it at the top of the archive")
        })?;
        let path = variable(&envs, "PATH").unwrap_or_default();
        let mut words =
            words_of(&start, is_executable, path).map_err(|why| format!("{name} {why}"))?;
        words.push(file.into());
        let program = PathBuf::from(words.remove(0));
        Ok(Self {
            folder,
            form,
            program,
            args: words,
            envs,
        })
    }

    /// The command for one request, in a process group of its own.
    pub(crate) fn command(&self, request: &Request) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .env_clear()
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .env("TINYFAAS_INVOCATION", request.invocation.to_string())
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", OsStr::from_bytes(&request.method))
            .env("PATH_INFO", OsStr::from_bytes(&request.path))
            .env("QUERY_STRING", OsStr::from_bytes(&request.query))
            .env("CONTENT_LENGTH", request.payload.len().to_string())
            .envs(fields(request));
        command
    }
}

fn variable<'a>(envs: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    let mut found = envs.iter().rev().filter(|(name, _)| name == wanted);
    found.next().map(|(_, value)| value.as_str())
}

fn form_of(folder: &Path) -> Result<Form, String> {
    let has = |form: Form| folder.join(form.file_name()).exists();
    match (has(Form::Body), has(Form::Cgi)) {
        (true, true) => Err("there are fn.sh and fn.cgi; leave one of them out".to_owned()),
        (false, true) => Ok(Form::Cgi),
        (_, false) => Ok(Form::Body),
    }
}

/// How a file starts, and whether its mode lets it be executed.
fn look_at(file: &Path) -> io::Result<(Vec<u8>, bool)> {
    let opened = File::open(file)?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut start = Vec::new();
    opened.take(START_BYTES).read_to_end(&mut start)?;
    Ok((start, metadata.permissions().mode() & 0o111 != 0))
}

/// What runs a file that starts so: nothing but itself for a program, an interpreter with its
/// argument for a script; the file's path follows. The error goes on where the file's name ends.
fn words_of(start: &[u8], is_executable: bool, path: &str) -> Result<Vec<OsString>, String> {
    if start.starts_with(ELF) {
        return if is_executable {
            Ok(Vec::new())
        } else {
            Err("is a program that may not be executed; deploy it again, or set its mode (chmod +x)".into())
        };
    }
    if start.starts_with(BYTE_ORDER_MARK) {
        let fix = "save it as UTF-8 without one";
        return Err(format!(
            "starts with a byte order mark, which no interpreter takes; {fix}"
        ));
    }
    let line = start
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    if line.ends_with(b"\r") {
        let fix = "convert it, such as with dos2unix or sed -i 's/\\r$//'";
        return Err(format!(
            "has Windows line endings, which no interpreter takes; {fix}"
        ));
    }
    let Some(line) = line.strip_prefix(b"#!") else {
        return Ok(vec![SHELL.into()]);
    };
    let line = line.trim_ascii();
    // As the kernel reads it: all that follows the interpreter is one argument.
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (interpreter, argument) = (OsStr::from_bytes(&line[..end]), line[end..].trim_ascii());
    check_interpreter(Path::new(interpreter), argument, path)?;
    if is_executable {
        return Ok(Vec::new());
    }
    let argument = (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned());
    Ok([interpreter.to_owned()]
        .into_iter()
        .chain(argument)
        .collect())
}

/// Whether what a script asks for is here.
fn check_interpreter(interpreter: &Path, argument: &[u8], path: &str) -> Result<(), String> {
    let missing = |wanted: &Path| {
        let wanted = wanted.display();
        Err(format!(
            "asks for {wanted}, which is not here; install it on the machine (or in the image), \
             or correct the first line"
        ))
    };
    if interpreter.is_absolute() && !interpreter.exists() {
        return missing(interpreter);
    }
    let program = Path::new(OsStr::from_bytes(argument));
    let is_looked_for = interpreter.ends_with("env")
        && program.components().count() == 1
        && !argument.starts_with(b"-")
        && !argument
            .iter()
            .any(|byte| byte.is_ascii_whitespace() || *byte == b'=');
    let mut folders = std::env::split_paths(path);
    if is_looked_for && !folders.any(|folder| folder.join(program).exists()) {
        return missing(program);
    }
    Ok(())
}

/// The header fields as variables, named as CGI (RFC 3875, section 4.1.18) does.
fn fields(request: &Request) -> Vec<(String, OsString)> {
    let mut variables: Vec<(String, OsString)> = Vec::new();
    for (name, value) in request.headers.iter() {
        let variable = match name {
            "content-type" => "CONTENT_TYPE".to_owned(),
            // The payload's length is what counts; and HTTP_PROXY would change what clients that
            // the function runs do, at the will of its caller.
            "content-length" | "proxy" => continue,
            // It would pass for the field with a hyphen, which a proxy in front may vouch for.
            name if name.contains('_') => continue,
            name => format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_")),
        };
        let known = variables.iter_mut().find(|(known, _)| *known == variable);
        match known {
            Some((_, before)) => {
                before.push(", ");
                before.push(OsStr::from_bytes(value));
            }
            None => variables.push((variable, OsStr::from_bytes(value).to_owned())),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(start: &str, is_executable: bool) -> Result<Vec<String>, String> {
        let words = words_of(start.as_bytes(), is_executable, "/usr/bin:/bin")?;
        let shown = |word: OsString| word.to_string_lossy().into_owned();
        Ok(words.into_iter().map(shown).collect())
    }

    #[test]
    fn a_file_is_run_by_what_it_is() {
        for (start, is_executable, expected) in [
            ("\x7fELF\x02", true, &[][..]),
            ("#!/bin/sh\n", true, &[]),
            ("#!/bin/sh\n", false, &["/bin/sh"]),
            ("#! /bin/sh -e -u \n", false, &["/bin/sh", "-e -u"]),
            ("#!/usr/bin/env sh\n", false, &["/usr/bin/env", "sh"]),
            (
                "#!/usr/bin/env -S sh -e\n",
                false,
                &["/usr/bin/env", "-S sh -e"],
            ),
            ("echo\n", false, &["/bin/sh"]),
            ("echo\n", true, &["/bin/sh"]),
            ("", false, &["/bin/sh"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(words(start, is_executable), Ok(expected), "{start:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_run_says_what_to_do() {
        for (start, part) in [
            ("\x7fELF\x02", "chmod +x"),
            ("#!/bin/sh\r\necho\r\n", "dos2unix"),
            ("echo\r\n", "dos2unix"),
            ("\u{feff}#!/bin/sh\n", "byte order mark"),
            ("#!/usr/bin/none-such\n", "asks for /usr/bin/none-such"),
            ("#!/usr/bin/env none-such\n", "asks for none-such"),
        ] {
            let refused = words(start, false).expect_err(start);
            assert!(refused.contains(part), "{start:?}: {refused}");
        }
    }
}
