//! Every option is read, written, documented and does something.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

/// Loads from a file with this text.
fn load_text<R: RoleFile>(text: &str, environment: &[(&str, &str)]) -> Result<R, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("packswarm.toml");
    fs::write(&path, text).unwrap();
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    load(Some(&path), &environment, Vec::new())
}

fn refused<R: RoleFile>(text: &str, environment: &[(&str, &str)]) -> String {
    match load_text::<R>(text, environment).map(drop) {
        Ok(()) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn settings<R: RoleFile>(environment: &[(&str, &str)]) -> String {
    format!("{:#?}", load_text::<R>("", environment).unwrap().settings().unwrap())
}

fn the_printed_defaults_are_the_defaults<R: RoleFile>() {
    let printed = default_toml::<R>();
    let read: R = load_text(&printed, &[]).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    let defaults = toml::to_string(&R::defaults()).unwrap();
    assert_eq!(toml::to_string(&read).unwrap(), defaults);
    assert_eq!(format!("{:#?}", read.settings().unwrap()), settings::<R>(&[]));
    for (path, _) in keys::leaves(R::SECTIONS) {
        let key = path.last().unwrap();
        let shown = printed
            .lines()
            .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(shown, "{} is not printed", path.join("."));
    }
}

#[test]
fn printed_defaults_are_the_defaults() {
    the_printed_defaults_are_the_defaults::<PeerFile>();
    the_printed_defaults_are_the_defaults::<SeedFile>();
    the_printed_defaults_are_the_defaults::<SchedulerFile>();
}

/// Sets each option by its variable to its example, and looks whether anything changes.
fn each_option_changes_something<R: RoleFile>() {
    let before = settings::<R>(&[]);
    let mut variables = BTreeSet::new();
    for (path, option) in keys::leaves(R::SECTIONS) {
        let variable = keys::variable(&path);
        assert!(variables.insert(variable.clone()), "{variable} means two options");
        assert_ne!(
            settings::<R>(&[(&variable, option.example)]),
            before,
            "{} changes nothing",
            path.join(".")
        );
    }
}

#[test]
fn every_option_changes_something() {
    each_option_changes_something::<PeerFile>();
    each_option_changes_something::<SeedFile>();
    each_option_changes_something::<SchedulerFile>();
}

#[test]
fn every_option_of_a_registry_changes_something() {
    let of = |text: &str| format!("{:?}", load_text::<PeerFile>(text, &[]).unwrap().settings().unwrap());
    let before = of("[registry.\"r.example:5000\"]");
    let registry = PeerFile::SECTIONS
        .iter()
        .find(|section| section.name == "registry")
        .unwrap();
    assert_eq!(registry.named.len(), 7);
    for option in registry.named {
        let value = if option.example == "true" {
            "true".to_owned()
        } else {
            format!("\"{}\"", option.example)
        };
        let other_half = match option.key {
            "client_cert" => "\nclient_key = \"half\"",
            "client_key" => "\nclient_cert = \"half\"",
            _ => "",
        };
        let text = format!("[registry.\"r.example:5000\"]\n{} = {value}{other_half}", option.key);
        let with = of(&text);
        assert_ne!(with, before, "{} changes nothing", option.key);
        assert!(
            value == "true" || with.contains(option.example),
            "{} is lost",
            option.key
        );
    }
    let half = "[registry.\"r.example\"]\nclient_cert = \"a\"";
    let refusal = load_text::<PeerFile>(half, &[]).unwrap().settings().unwrap_err();
    assert!(refusal.to_string().contains("only one of client_cert and client_key"));
    let both = "[registry.\"r.example\"]\ncredentials_file = \"a\"\ndocker_config = \"b\"";
    assert!(refused::<PeerFile>(both, &[]).contains("[registry.\"r.example\"] has both"));
}

#[test]
fn a_layer_overrides_those_below() {
    let flag = |value: &str| Flag {
        name: "--data-dir",
        path: &["data_dir"],
        value: value.into(),
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed.toml");
    fs::write(
        &file,
        "data_dir = \"/file\"\n[store]\ncapacity = \"1GiB\"\nhigh_water = 0.95",
    )
    .unwrap();
    let environment = [("PACKSWARM_DATA_DIR", "/env"), ("PACKSWARM_STORE_CAPACITY", "2GiB")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    let loaded: SeedFile = load(Some(&file), &environment, vec![flag("/flag")]).unwrap();
    let config = loaded.settings().unwrap().config;
    assert_eq!(config.store.data_dir, PathBuf::from("/flag"));
    assert_eq!(
        (config.store.capacity, config.store.high_water, config.store.low_water),
        (2 << 30, 0.95, 0.8)
    );
    let loaded: SeedFile = load(Some(&file), &environment, Vec::new()).unwrap();
    assert_eq!(loaded.settings().unwrap().config.store.data_dir, PathBuf::from("/env"));
}

#[test]
fn unknown_keys_name_the_nearest() {
    let error = refused::<PeerFile>("[store]\ncapcity = \"1GiB\"", &[]);
    assert!(
        error.ends_with("there is no option `store.capcity` for a peer; the nearest is `store.capacity`"),
        "{error}"
    );
    let error = refused::<PeerFile>("[stroe]\ncapacity = \"1GiB\"", &[]);
    assert!(error.ends_with("`stroe` for a peer; the nearest is `store`"), "{error}");
    let error = refused::<PeerFile>("lisen = \"[::]:1\"", &[]);
    assert!(error.ends_with("the nearest is `listen`"), "{error}");
    let error = refused::<PeerFile>("[registry.\"r.example\"]\nplain_htp = true", &[]);
    assert!(
        error.ends_with("the nearest is `registry.r.example.plain_http`"),
        "{error}"
    );
    let error = refused::<SchedulerFile>("", &[("PACKSWARM_LIMITS_NODE", "5")]);
    assert!(error.contains("PACKSWARM_LIMITS_NODE"), "{error}");
    assert!(error.ends_with("the nearest is `PACKSWARM_LIMITS_NODES`"), "{error}");
    let error = refused::<SeedFile>("[mirror]\nlisten = \"127.0.0.1:1\"", &[]);
    assert!(error.contains("no option `mirror` for a seed"), "{error}");
}

#[test]
fn wrong_values_are_named_with_their_place() {
    let error = refused::<PeerFile>("[store]\ncapacity = \"10X\"", &[]);
    assert!(
        error.contains("packswarm.toml: option `store.capacity`: `10X` is not a size"),
        "{error}"
    );
    let error = refused::<PeerFile>("", &[("PACKSWARM_ORIGIN_WAIT", "soon")]);
    assert!(
        error.starts_with("environment variable PACKSWARM_ORIGIN_WAIT: option `origin.wait`: `soon`"),
        "{error}"
    );
    let error = refused::<PeerFile>("", &[("PACKSWARM_ORIGIN_FALLBACK", "maybe")]);
    assert!(error.ends_with("`maybe` is not true or false"), "{error}");
    let error = refused::<PeerFile>("listen = \"here\"", &[]);
    assert!(error.contains("option `listen`: invalid socket address"), "{error}");
    let error = refused::<PeerFile>("[transport]\nstream_receive_window = \"5GiB\"", &[]);
    assert!(error.contains("5GiB is more than this option can be"), "{error}");
    let error = refused::<PeerFile>("listen = 5\n[[", &[]);
    assert!(error.contains("line 2: not TOML"), "{error}");
    assert!(refused::<PeerFile>("store = 5", &[]).contains("`store` is a table"));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for text in [
        "[store]\nlow_water = 0.95",
        "[transport]\nkeep_alive = \"1h\"",
        "[pieces]\nbuffers = \"1MiB\"",
        "[exchange]\nconnections = 1000",
        "[exchange]\nupload_slots = 0",
    ] {
        let error = load_text::<PeerFile>(text, &[]).unwrap().settings().unwrap_err();
        assert!(matches!(error, ConfigError::Together { .. }), "{text}: {error}");
    }
}

#[test]
fn a_seed_is_a_peer_that_others_prefer() {
    let seed = SeedFile::defaults().settings().unwrap();
    assert_eq!((seed.config.role, seed.mirror), (wire::control::Role::Seed, None));
    let peer = PeerFile::defaults().settings().unwrap();
    assert!(seed.config.transport.max_connections > peer.config.transport.max_connections);
    let none = load_text::<SchedulerFile>("[limits]\nnodes = 0", &[])
        .unwrap()
        .settings()
        .unwrap_err();
    assert!(none.to_string().contains("[limits] nodes is 0"), "{none}");
}

#[test]
fn what_others_put_into_the_environment_is_no_mistake() {
    let kubernetes = [
        ("PACKSWARM_SCHEDULER_SERVICE_HOST", "10.0.0.1"),
        ("PACKSWARM_SCHEDULER_SERVICE_PORT", "7654"),
        ("PACKSWARM_SCHEDULER_SERVICE_PORT_CONTROL", "7654"),
        ("PACKSWARM_SCHEDULER_PORT", "tcp://10.0.0.1:7654"),
        ("PACKSWARM_SCHEDULER_PORT_7654_TCP_ADDR", "10.0.0.1"),
        ("PACKSWARM_ADVERTISE", ""),
    ];
    assert_eq!(settings::<PeerFile>(&kubernetes), settings::<PeerFile>(&[]));
    let error = refused::<PeerFile>("", &[("PACKSWARM_SCHEDULER_PORT", "tcp://10.0.0.1:7654")]);
    assert!(
        error.contains("PACKSWARM_SCHEDULER_PORT"),
        "without the service it is a mistake: {error}"
    );
}

#[test]
fn the_documentation_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(
        written,
        documentation(),
        "run `cargo run -- config docs > docs/configuration.md`"
    );
}

#[test]
fn the_samples_are_accepted() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config");
    let sample = |role: &str| folder.join(format!("{role}.toml"));
    load::<SchedulerFile>(Some(&sample("scheduler")), &[], Vec::new())
        .unwrap()
        .settings()
        .unwrap();
    load::<SeedFile>(Some(&sample("seed")), &[], Vec::new())
        .unwrap()
        .settings()
        .unwrap();
    load::<PeerFile>(Some(&sample("peer")), &[], Vec::new())
        .unwrap()
        .settings()
        .unwrap();
}
