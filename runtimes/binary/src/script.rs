//! The function's file and how it is run.

use crate::call::Request;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SHELL: &str = "/bin/sh";
const NAME: &str = "fn.sh";
const ELF: &[u8] = b"\x7fELF";

/// A `fn.sh` and its surroundings.
pub(crate) struct Script {
    folder: PathBuf,
    file: PathBuf,
    /// Whether the kernel can run the file; a shell does otherwise.
    is_program: bool,
    envs: Vec<(String, String)>,
}

impl Script {
    /// Finds the `fn.sh` in the folder that `TINYFAAS_CODE` names; the error is for whoever
    /// deployed the function.
    pub(crate) fn find(mut envs: Vec<(String, String)>) -> Result<Self, String> {
        envs.retain(|(name, _)| name != "TINYFAAS_LISTEN");
        let folder = envs.iter().find(|(name, _)| name == "TINYFAAS_CODE");
        let folder = folder.map(|(_, value)| PathBuf::from(value));
        let folder = folder.ok_or("the variable TINYFAAS_CODE is not set")?;
        let file = folder.join(NAME);
        let mut opened = File::open(&file).map_err(|error| {
            format!("no file {NAME} that can be read ({error}); put it at the top of the archive")
        })?;
        let metadata = opened.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err(format!(
                "{NAME} is not a file; put a script or program there"
            ));
        }
        let mut start = [0; 4];
        let is_native = opened.read_exact(&mut start).is_ok()
            && (start.starts_with(b"#!") || start.starts_with(ELF));
        let is_executable = metadata.permissions().mode() & 0o111 != 0;
        Ok(Self {
            folder,
            file,
            is_program: is_native && is_executable,
            envs,
        })
    }

    /// The command for one request, in a process group of its own.
    pub(crate) fn command(&self, request: &Request) -> Command {
        let mut command = if self.is_program {
            Command::new(&self.file)
        } else {
            let mut shell = Command::new(SHELL);
            shell.arg(&self.file);
            shell
        };
        command
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

/// The header fields as variables, named as CGI (RFC 3875, section 4.1.18) does.
fn fields(request: &Request) -> Vec<(String, OsString)> {
    let mut variables: Vec<(String, OsString)> = Vec::new();
    for (name, value) in request.headers.iter() {
        let variable = match name {
            "content-type" => "CONTENT_TYPE".to_owned(),
            // The payload's length is what counts; and HTTP_PROXY would change what clients that
            // the function runs do, at the will of its caller.
            "content-length" | "proxy" => continue,
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
