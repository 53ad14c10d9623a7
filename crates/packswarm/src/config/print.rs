//! The options as people read them: a commented TOML file, and a page of documentation.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::section::{OptionInfo, SectionInfo};
use super::{PeerFile, RoleFile, SchedulerFile, SeedFile};

/// Characters of a line of comments.
const WIDTH: usize = 96;

/// A complete file of a role's options with their defaults.
pub(crate) fn default_toml<R: RoleFile>() -> String {
    let defaults = Table::try_from(R::defaults()).expect("the defaults can be written as TOML");
    let mut text = format!("# packswarm {}: every option with its default.\n", R::ROLE);
    text.push_str("# Flags override environment variables, which override this file.\n");
    for section in R::SECTIONS {
        text.push('\n');
        comment(&mut text, "", section.docs);
        if !section.name.is_empty() {
            line(&mut text, &format!("[{}]", section.name));
        }
        let values = values(&defaults, section);
        for option in section.options {
            text.push('\n');
            comment(&mut text, "", option.docs);
            match values.get(option.key) {
                Some(value) => line(&mut text, &format!("{} = {value}", option.key)),
                None => line(&mut text, &format!("# {} = \"{}\"", option.key, option.example)),
            }
        }
        if !section.named.is_empty() {
            line(&mut text, &format!("\n# [{}.\"HOST:PORT\"]", section.name));
            for option in section.named {
                comment(&mut text, "# ", option.docs);
                line(&mut text, &format!("# {} = {}", option.key, literal(option.example)));
            }
        }
    }
    text
}

/// `docs/configuration.md`.
pub(crate) fn documentation() -> String {
    let roles = [role::<PeerFile>(), role::<SeedFile>(), role::<SchedulerFile>()];
    let mut text = INTRODUCTION.to_owned();
    for (index, of) in roles.iter().enumerate() {
        for section in of.sections {
            let with = |of: &&Role| of.sections.iter().any(|other| same(other, section));
            // Each table once, under the first role that has it.
            if !roles[..index].iter().any(|earlier| with(&earlier)) {
                let with: Vec<&Role> = roles.iter().filter(with).collect();
                describe(&mut text, section, &with);
            }
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `packswarm config docs`; a test compares. -->

Each role reads a TOML file (`--config FILE`). An environment variable overrides the file, and a flag overrides both.
The variable of `[origin] fallback` is `PACKSWARM_ORIGIN_FALLBACK`, and so on; lists are separated by commas, and an empty
variable counts as unset. Keys that do not exist are errors, in the file and in the environment, and name the nearest that does.
`PACKSWARM_CONFIG` stands for `--config`. Variables that Kubernetes sets for services (`PACKSWARM_..._SERVICE_HOST` and
those that come with it) are ignored.

`packswarm config default ROLE` prints a complete file, `packswarm config check FILE` reads one and says what is wrong.
Sizes are written `64MiB`, times `10s` or `1m30s`. On SIGHUP a seed or peer reads its file again and adopts `[exchange]`, `[rates]` and
`[origin]`; all else takes a restart.
";

/// One role's options.
struct Role {
    name: &'static str,
    sections: &'static [SectionInfo],
    defaults: Table,
}

fn role<R: RoleFile>() -> Role {
    let defaults = Table::try_from(R::defaults()).expect("the defaults can be written as TOML");
    Role {
        name: R::ROLE,
        sections: R::SECTIONS,
        defaults,
    }
}

/// Whether two roles have the same table.
fn same(a: &SectionInfo, b: &SectionInfo) -> bool {
    a.name == b.name && a.docs == b.docs
}

fn describe(text: &mut String, section: &SectionInfo, roles: &[&Role]) {
    let heading = if section.name.is_empty() {
        "Above all tables".to_owned()
    } else {
        format!("`[{}]`", section.name)
    };
    let names: Vec<&str> = roles.iter().map(|role| role.name).collect();
    line(
        text,
        &format!("\n## {heading} ({})\n\n{}\n", names.join(", "), joined(section.docs)),
    );
    line(text, "| option | default | meaning |\n|---|---|---|");
    for option in section.options {
        row(text, option, &defaults(section, option, roles));
    }
    if !section.named.is_empty() {
        line(text, &format!("\n### `[{}.\"HOST[:PORT]\"]`\n", section.name));
        line(text, "| option | example | meaning |\n|---|---|---|");
        for option in section.named {
            row(text, option, &format!("`{}`", literal(option.example)));
        }
    }
}

/// The default, or each role's where they differ.
fn defaults(section: &SectionInfo, option: &OptionInfo, roles: &[&Role]) -> String {
    let of = |role: &Role| {
        let value = values(&role.defaults, section).get(option.key);
        value.map_or_else(|| "unset".to_owned(), |value| format!("`{value}`"))
    };
    let first = roles.first().map(|role| of(role)).unwrap_or_default();
    if roles.iter().all(|role| of(role) == first) {
        return first;
    }
    let each: Vec<String> = roles
        .iter()
        .map(|role| format!("{}: {}", role.name, of(role)))
        .collect();
    each.join("; ")
}

fn row(text: &mut String, option: &OptionInfo, value: &str) {
    line(
        text,
        &format!(
            "| `{}` | {value} | {} |",
            option.key,
            joined(option.docs).replace('|', "\\|")
        ),
    );
}

fn values<'t>(table: &'t Table, section: &SectionInfo) -> &'t Table {
    table.get(section.name).and_then(Value::as_table).unwrap_or(table)
}

/// An example as a TOML value.
fn literal(example: &str) -> String {
    if matches!(example, "true" | "false") {
        example.to_owned()
    } else {
        format!("\"{example}\"")
    }
}

fn joined(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn comment(text: &mut String, before: &str, docs: &[&str]) {
    let mut length = 0;
    for word in joined(docs).split(' ') {
        if length == 0 || length + 1 + word.len() > WIDTH {
            if length > 0 {
                text.push('\n');
            }
            text.push_str(before);
            text.push('#');
            length = 0;
        }
        text.push(' ');
        text.push_str(word);
        length += 1 + word.len();
    }
    text.push('\n');
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes all that is written");
}
