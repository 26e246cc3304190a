//! Python's packages, as `requirements.txt` or `pyproject.toml` name them.

use super::requirements::{self, Requirements};
use super::{Place, Recipe, Toolchain, file, key, without_mark};
use faas::{Package, PrepareError};
use std::path::Path;

/// What is read of `pyproject.toml` is written to.
const FROM_PROJECT: &str = "tinyfaas-requirements.txt";

/// The lock files and lists that pip does not read, and what makes a `requirements.txt` of them.
const FOREIGN: [(&str, &str); 5] = [
    ("poetry.lock", "poetry export -o requirements.txt"),
    ("uv.lock", "uv export -o requirements.txt"),
    ("pdm.lock", "pdm export -o requirements.txt"),
    ("Pipfile.lock", "pipenv requirements > requirements.txt"),
    ("Pipfile", "pipenv requirements > requirements.txt"),
];

pub(super) fn recipe(
    package: &Package,
    toolchain: &Toolchain<'_>,
) -> Result<Option<Recipe>, PrepareError> {
    let code = package.code.as_path();
    let (name, wanted) = match file(code, "requirements.txt") {
        Some(text) => ("requirements.txt", requirements::read(code, &text)),
        None => {
            refuse_foreign(code)?;
            let Some(text) = from_project(code)? else {
                return Ok(None);
            };
            (FROM_PROJECT, requirements::of_project(FROM_PROJECT, &text))
        }
    };
    if wanted.is_empty {
        return Ok(None);
    }
    let Requirements {
        is_plain, files, ..
    } = wanted;
    let digest = if is_plain {
        ""
    } else {
        package.digest.as_str()
    };
    let contents = files
        .iter()
        .flat_map(|(name, contents)| [name.as_bytes(), contents.as_slice()])
        .chain([toolchain.pip_config.as_slice()]);
    let words = ["python3", toolchain.version, digest];
    Ok(Some(Recipe {
        key: key(&words, toolchain.envs, contents),
        copies_code: !is_plain,
        program: toolchain.program.clone(),
        args: args(name),
        envs: Vec::new(),
        result: Place::Deps,
        complaint: format!(
            "pip could not install what {} names (if pip is missing: {})",
            if name == FROM_PROJECT {
                "pyproject.toml"
            } else {
                name
            },
            toolchain.pip_fix
        ),
        notes: Vec::new(),
        files,
    }))
}

fn args(requirements: &str) -> Vec<String> {
    let args = [
        // Modules of the function are none of pip's.
        "-I",
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-warn-script-location",
        "--quiet",
        "--no-cache-dir",
        "--root-user-action=ignore",
        "--target",
        "@deps",
        "-r",
        requirements,
    ];
    args.map(String::from).to_vec()
}

fn refuse_foreign(code: &Path) -> Result<(), PrepareError> {
    let found = FOREIGN.iter().find(|(name, _)| code.join(name).is_file());
    let Some((name, command)) = found else {
        return Ok(());
    };
    Err(PrepareError::code(
        format!("tinyFaaS installs packages with pip, which does not read {name}"),
        format!("put a requirements.txt beside it ({command})"),
    ))
}

/// The dependencies in `pyproject.toml`, a line each; nothing where it names none.
fn from_project(code: &Path) -> Result<Option<String>, PrepareError> {
    let Some(text) = file(code, "pyproject.toml") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(without_mark(&text)).into_owned();
    let parsed: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let error = error.message();
        PrepareError::code(
            format!("pyproject.toml is not valid TOML ({error})"),
            "correct it",
        )
    })?;
    let at = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(parsed.get(*first)?, |table, name| table.get(name))
    };
    let is_dynamic = at(&["project", "dynamic"])
        .and_then(toml::Value::as_array)
        .is_some_and(|names| {
            names
                .iter()
                .any(|name| name.as_str() == Some("dependencies"))
        });
    let of_poetry = at(&["tool", "poetry", "dependencies"]).and_then(toml::Value::as_table);
    let wants_by_poetry = of_poetry.is_some_and(|table| table.keys().any(|name| name != "python"));
    let listed = at(&["project", "dependencies"]).and_then(toml::Value::as_array);
    match listed {
        Some(listed) => {
            let lines = listed.iter().filter_map(toml::Value::as_str);
            // One that has a line end would be two.
            let lines = lines.map(|line| line.replace(['\r', '\n'], " ") + "\n");
            Ok(Some(lines.collect()))
        }
        None if is_dynamic || wants_by_poetry => Err(PrepareError::code(
            "pyproject.toml does not list its packages in [project] dependencies, where tinyFaaS \
             reads them",
            "list them there, or put a requirements.txt beside it",
        )),
        None => Ok(None),
    }
}
