//! The command line, run against a node.

use crate::node::{Node, program_command};
use std::process::Command;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// The same, where the exit code is that one.
    ///
    /// # Panics
    /// If it is another.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

impl Node {
    /// Runs `tinyfaas` with these arguments; it finds this node by itself.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Ended {
        let node = format!("http://{}", self.addr("management"));
        self.run(
            program_command(&crate::program()).env("TINYFAAS_NODE", node),
            args,
        )
    }

    /// Likewise, with nothing but the data directory to go by.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn cli_by_data_dir(&self, args: &[&str]) -> Ended {
        self.run(&mut program_command(&crate::program()), args)
    }

    fn run(&self, command: &mut Command, args: &[&str]) -> Ended {
        command.args(args);
        command.env("TINYFAAS_DATA_DIR", self.place.data_dir());
        command.current_dir(self.place.folder());
        let output = command.output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}
