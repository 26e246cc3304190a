//! The command line, run against a node.

use crate::node::{Node, program_command};

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
    /// Where it is another.
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
    /// Where it can't be started.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Ended {
        let mut command = program_command(&crate::program());
        let node = format!("http://{}", self.addr("management"));
        command.args(args).env("TINYFAAS_NODE", node);
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
