//! What files may look like.

use std::fs;
use std::path::{Path, PathBuf};

/// Files over 500 lines, each with the reason why it is still one thing.
const LONG: [(&str, &str); 0] = [];
/// The only files that contain `unsafe`, each with its argument written in it.
const UNSAFE: [&str; 2] = ["crates/piece/src/sha_ni.rs", "crates/store/src/map.rs"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "manager", "misc"];
/// In pure crates, what no line may mention.
const IMPURE: [&str; 6] = [
    "Instant::now",
    "SystemTime::now",
    "thread_rng",
    "std::fs",
    "std::net::Udp",
    "std::net::Tcp",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace exists")
}

/// Every Rust file of the project, as a path below its root.
fn sources() -> Vec<(PathBuf, String)> {
    fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("folders can be listed").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    visit(&root, &mut found);
    assert!(found.len() > 50, "the sources were found");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are text");
        (path.strip_prefix(&root).expect("found below the root").to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

#[test]
fn long_files_have_a_reason() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        let excused = LONG.iter().any(|(long, _)| path == Path::new(long));
        assert!(
            lines <= 500 || excused,
            "{} has {lines} lines: what two things is it?",
            path.display()
        );
        assert!(lines > 500 || !excused, "{} no longer needs an excuse", path.display());
    }
}

#[test]
fn unsafe_lives_in_two_files() {
    for (path, text) in sources() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code
            .clone()
            .any(|line| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"));
        let itself = path.ends_with("tidy/tests/files.rs");
        assert!(
            !found || itself || UNSAFE.iter().any(|file| path == Path::new(file)),
            "{} contains unsafe",
            path.display()
        );
    }
}

#[test]
fn names_say_something() {
    for (path, _) in sources() {
        let stem = path
            .file_stem()
            .expect("files have names")
            .to_string_lossy()
            .into_owned();
        assert!(
            !EMPTY_NAMES.contains(&stem.as_str()),
            "{} says nothing about what is inside",
            path.display()
        );
    }
}

#[test]
fn every_file_is_reached() {
    let all = sources();
    for (path, _) in all
        .iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "src"))
    {
        let name = path
            .file_stem()
            .expect("files have names")
            .to_string_lossy()
            .into_owned();
        if ["lib", "main", "build"].contains(&name.as_str()) {
            continue;
        }
        let (name, parents) = if name == "mod" {
            let dir = path.parent().expect("a mod.rs is in a folder");
            let name = dir
                .file_name()
                .expect("folders have names")
                .to_string_lossy()
                .into_owned();
            (name, parents_of(dir))
        } else {
            (name, parents_of(path))
        };
        let declared = all
            .iter()
            .filter(|(other, _)| parents.contains(other))
            .any(|(_, text)| text.lines().any(|line| line.trim().ends_with(&format!("mod {name};"))));
        assert!(declared, "{} is not part of any crate", path.display());
    }
}

/// The files that could declare the module at `path`.
fn parents_of(path: &Path) -> Vec<PathBuf> {
    let dir = path.parent().expect("modules are in folders");
    let beside = dir.with_extension("rs");
    vec![dir.join("lib.rs"), dir.join("main.rs"), dir.join("mod.rs"), beside]
}

#[test]
fn the_pure_crates_read_no_clock_and_touch_no_file() {
    let pure = ["crates/piece/src", "crates/wire/src", "crates/swarm/src"];
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| pure.iter().any(|pure| path.starts_with(pure)))
    {
        for line in text.lines() {
            let found = IMPURE.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}: {line}", path.display());
        }
    }
}
