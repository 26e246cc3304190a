//! Which layer wins, and what a wrong value is answered with.

use super::layers::Source;
use super::*;
use std::collections::HashMap;

fn load(flags: &[&str], file: &str, variables: &[(&str, &str)]) -> Result<Config> {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        settings: Flags,
    }
    let flags = std::iter::once("tinyfaas").chain(flags.iter().copied());
    let flags = <Command as clap::Parser>::try_parse_from(flags)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tinyfaas.toml");
    std::fs::write(&path, file)?;
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
    Config::load(&flags.settings, Some(&path), &variable)
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let everything = [
        ("TINYFAAS_HTTP", "2"),
        ("HTTP_PORT", "3"),
        ("TINYFAAS_COAP", "12"),
        ("COAP_PORT", "13"),
        ("GRPC_PORT", "23"),
    ];
    let file = "http = 4\ncoap = 14\ngrpc = \"24\"\nmanagement = \"localhost:34\"";
    let config = load(&["--http", "1"], file, &everything).unwrap();
    assert_eq!(config.http, Place::everywhere(1));
    assert_eq!(config.coap, Place::everywhere(12));
    assert_eq!(config.grpc, Place::everywhere(23));
    assert_eq!(config.management.to_string(), "localhost:34");
    let config = load(&[], "", &[]).unwrap();
    assert_eq!(config.http, Place::everywhere(8000));
    assert_eq!(config.coap, Place::everywhere(5683));
    assert_eq!(config.grpc, Place::everywhere(9000));
    assert_eq!(config.management.to_string(), "127.0.0.1:8080");
    assert_eq!(config.sandbox, Sandbox::Full);
    assert!(!config.has_examples && !config.is_management_insecure);
}

#[test]
fn an_endpoint_is_turned_off_in_every_layer() {
    let off = |flags: &[&str], file: &str, variables: &[(&str, &str)]| {
        assert_eq!(load(flags, file, variables).unwrap().http, Place::Off);
    };
    off(&["--http", "off"], "", &[]);
    off(&[], "", &[("TINYFAAS_HTTP", "off")]);
    off(&[], "", &[("HTTP_PORT", "-1")]);
    off(&[], "http = \"off\"", &[]);
    off(&[], "http = -1", &[]);
}

#[test]
fn a_flag_of_yes_or_no_can_be_taken_back() {
    let check = |flags: &[&str], variables: &[(&str, &str)], expected: bool| {
        let config = load(flags, "examples = true", variables).unwrap();
        assert_eq!(config.has_examples, expected);
    };
    check(&[], &[], true);
    check(&[], &[("TINYFAAS_EXAMPLES", "0")], false);
    check(&["--examples"], &[("TINYFAAS_EXAMPLES", "0")], true);
    check(&["--examples=false"], &[], false);
}

#[test]
fn the_token_lies_in_the_data_directory_unless_told_otherwise() {
    let config = load(&["--data-dir", "/d"], "", &[]).unwrap();
    assert_eq!(config.token_file, Path::new("/d/token"));
    let variables = [("TINYFAAS_TOKEN_FILE", "/t")];
    let config = load(&["--data-dir", "/d"], "", &variables).unwrap();
    assert_eq!(config.token_file, Path::new("/t"));
}

#[test]
fn a_wrong_value_is_named_with_what_to_write_instead() {
    let check = |file: &str, variables: &[(&str, &str)], texts: &[&str]| {
        let error = load(&[], file, variables).unwrap_err();
        let message = format!("{error:#}");
        for text in texts {
            assert!(message.contains(text), "{message}");
        }
    };
    check("", &[("HTTP_PORT", "http")], &["HTTP_PORT", "-1"]);
    check("", &[("TF_BACKEND", "chroot")], &["TF_BACKEND", "process"]);
    check("", &[("TINYFAAS_SANDBOX", "no")], &["full, reduced"]);
    check("", &[("TINYFAAS_COAP", "a:b")], &["TINYFAAS_COAP", "port"]);
    check(
        "",
        &[("TINYFAAS_EXAMPLES", "maybe")],
        &["TINYFAAS_EXAMPLES", "true or false"],
    );
    check("htpp = 1", &[], &["tinyfaas.toml", "htpp", "handlers-dir"]);
    check("http = \"host:99999\"", &[], &["99999"]);
    check("backend = \"moon\"", &[], &["process"]);
}

#[test]
fn each_bound_comes_from_the_first_layer_that_sets_it() {
    let file = "[limits]\nhandlers-max = 1\npayload-bytes-max = \"1MiB\"\nquery-bytes-max = 100\n\
                [limits.builds]\ntime = \"1h\"\n";
    let variables = [("TINYFAAS_LIMIT", "handlers-max=2, payload-bytes-max=2MiB")];
    let flags = ["--limit", "handlers-max=3", "--limit", "wasm.waiting-max=4"];
    let config = load(&flags, file, &variables).unwrap();
    let limits = &config.limits;
    assert_eq!((limits.handlers_max, limits.wasm.waiting_max), (3, 4));
    assert_eq!(
        (limits.payload_bytes_max, limits.query_bytes_max),
        (2 << 20, 100)
    );
    assert_eq!(limits.builds.time.as_secs(), 3600);
    let set = config.limits_that_are_set().unwrap();
    let again = load(&["--limit", &set], "", &[]).unwrap();
    assert_eq!(&again.limits, limits);
    let source = |name: &str| {
        let mut settings = config.in_force.iter();
        let setting = settings.find(|setting| setting.name == name).unwrap();
        setting.source.clone()
    };
    assert_eq!(source("limits.handlers-max"), Source::Flag);
    let variable = Source::Variable("TINYFAAS_LIMIT".to_owned());
    assert_eq!(source("limits.payload-bytes-max"), variable);
    assert!(matches!(source("limits.builds.time"), Source::File(_)));
    assert_eq!(source("limits.functions-max"), Source::Default);
    assert_eq!(source("http"), Source::Default);
}

#[test]
fn a_wrong_bound_is_named_with_what_to_write_instead() {
    let check = |file: &str, flags: &[&str], texts: &[&str]| {
        let message = format!("{:#}", load(flags, file, &[]).unwrap_err());
        for text in texts {
            assert!(message.contains(text), "{message}");
        }
    };
    check(
        "[limits]\nhandlers = 1",
        &[],
        &["handlers", "tinyfaas config"],
    );
    check(
        "[limits]\nhandlers-max = 0",
        &[],
        &["handlers-max", "from 1 on"],
    );
    check("", &["--limit", "handlers-max"], &["NAME=VALUE"]);
    check(
        "",
        &["--limit", "client-share-bytes-max=1GiB"],
        &["client-bytes-max"],
    );
    check(
        "[limits.builds]\ntime = \"soon\"",
        &[],
        &["builds.time", "30s"],
    );
}

#[test]
fn the_reference_has_every_setting_with_its_default() {
    let page = include_str!("../../../../docs/reference/configuration.md");
    let config = load(&[], "", &[]).unwrap();
    let lines = reference(&config);
    let missing: Vec<&String> = lines.iter().filter(|line| !page.contains(*line)).collect();
    assert!(
        missing.is_empty(),
        "docs/reference/configuration.md lacks: {missing:#?}"
    );
}

/// The lines of the tables in the reference.
fn reference(config: &Config) -> Vec<String> {
    let lines = config.in_force.iter().map(|setting| {
        let default = match setting.name.as_str() {
            "data-dir" | "token-file" => None,
            _ => setting.value.as_deref(),
        };
        let (name, help) = (setting.name.trim_start_matches("limits."), &setting.help);
        let (text, told) = match help.rsplit_once(" [default: ") {
            Some((text, told)) => (text, Some(told.trim_end_matches(']').to_owned())),
            None => (help.as_str(), None),
        };
        let default = default.map(|value| format!("`{value}`")).or(told);
        let default = default.unwrap_or_else(|| "none".to_owned());
        format!("| `{name}` | {default} | {} |", text.trim_end_matches('.'))
    });
    lines.collect()
}

#[test]
fn the_pages_that_may_call_are_told_in_every_layer_and_by_their_old_name() {
    let check = |flags: &[&str], file: &str, variables: &[(&str, &str)], expected: &str| {
        let config = load(flags, file, variables).unwrap();
        assert_eq!(config.cors, expected.parse().ok(), "{flags:?} {file}");
    };
    let (origin, none) = ("https://a.example", [("TINYFAAS_CORS", "none")]);
    check(&["--cors", origin], "cors = \"*\"", &none, origin);
    check(&[], "cors = \"*\"", &none, "none");
    let empty = [("TINYFAAS_CORS", "")];
    check(&[], "cors = \"function\"", &empty, "function");
    let list = "cors = [\"https://a.example\", \"http://b:1\"]";
    check(&[], list, &[], "https://a.example,http://b:1");
    check(&["--http-origins", origin], "", &[], origin);
    check(&[], "http-origins = \"*\"", &[], "*");
    check(&[], "", &[("TINYFAAS_HTTP_ORIGINS", origin)], origin);
    assert_eq!(load(&[], "", &[]).unwrap().cors, None);
    let old = "TINYFAAS_HTTP_ORIGINS".to_owned();
    assert!(check_variables([old].into_iter()).is_ok());
    assert!(load(&["--cors", "a.example"], "", &[]).is_err());
    let error = load(&[], "", &[("TINYFAAS_CORS", "null")]).unwrap_err();
    let error = format!("{error:#}");
    let is_told = error.contains("TINYFAAS_CORS") && error.contains("write *");
    assert!(is_told, "{error}");
    let error = format!("{:#}", load(&[], "cors = \"a.example\"", &[]).unwrap_err());
    assert!(error.contains("is no origin"), "{error}");
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let path = Path::new("/nowhere/tinyfaas.toml");
    assert!(Config::load(&Flags::default(), Some(path), &|_| None).is_err());
}

#[test]
fn a_variable_that_means_nothing_ends_the_start() {
    let check = |names: &[&str]| check_variables(names.iter().map(|&name| name.to_owned()));
    let known = [
        "PATH",
        "TINYFAAS_DATA_DIR",
        "TINYFAAS_HTTP",
        "TINYFAAS_TOKEN_FILE",
        "TINYFAAS_LOG",
    ];
    assert!(check(&known).is_ok());
    let error = check(&["HOME", "TINYFAAS_HTP"]).unwrap_err().to_string();
    assert!(error.contains("TINYFAAS_HTP means nothing"), "{error}");
}

#[test]
fn a_setting_that_can_not_work_is_refused_with_its_flag_and_what_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    let limits = faas::Limits::default();
    let check = |flags: &[&str], texts: &[&str]| {
        let error = load(flags, "", &[]).unwrap().check(&limits).unwrap_err();
        let message = format!("{error:#}");
        for text in texts {
            assert!(message.contains(text), "{flags:?}: {message}");
        }
    };
    for flag in ["--nodejs", "--python3", "--go"] {
        check(&[flag, "/nosuch"], &[flag, "/nosuch is not there", "PATH"]);
        check(&[flag, "no-such-program"], &[flag, "is not there"]);
        check(&[flag, plain], &[flag, "can't be executed"]);
        check(&[flag, "/"], &[flag, "can't be executed"]);
    }
    check(
        &["--handlers-dir", "/nosuch"],
        &["--handlers-dir", "folder"],
    );
    let many = vec!["1"; 17].join(",");
    check(&["--build-host-ports", &many], &["at most 16", "got 17"]);
    check(&["--build-host-ports", "80,0"], &["1 to 65535", "got 0"]);
    check(&["--image-go", ""], &["--image-go", "alpine:3"]);
    check(&["--http-hosts", "http://a"], &["--http-hosts"]);
    let fine = |flags: &[&str]| load(flags, "", &[]).unwrap().check(&limits).unwrap();
    fine(&[]);
    fine(&["--python3", "/bin/sh", "--nodejs", "sh"]);
    fine(&["--backend", "docker", "--python3", "/nosuch"]);
    fine(&["--http-hosts", "a,b:1,*"]);
}
