//! Which layer wins, and what a wrong value is answered with.

use super::*;
use std::collections::HashMap;

fn load(flags: &[&str], file: &str, variables: &[(&str, &str)]) -> Result<Config> {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }
    let flags = std::iter::once("tinyfaas").chain(flags.iter().copied());
    let flags = <Flags as clap::Parser>::try_parse_from(flags)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(FILE);
    std::fs::write(&path, file)?;
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
    Config::load(flags.settings, Some(&path), &variable)
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
    assert_eq!(config.management, Place::loopback(8080));
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
    check("", &[("TINYFAAS_EXAMPLES", "maybe")], &["true or false"]);
    check("htpp = 1", &[], &[FILE, "htpp"]);
    check("http = \"host:99999\"", &[], &["99999"]);
    check("backend = \"moon\"", &[], &["process"]);
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let load = Settings::from_file(Some(Path::new("/nowhere/tinyfaas.toml")));
    assert!(load.is_err());
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
