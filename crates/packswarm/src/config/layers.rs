//! The layers, one over the other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::error::{ConfigError, Place};
use super::section::{OptionInfo, SectionInfo};
use super::{RoleFile, keys};

/// Variables with our prefix that are no options: the file's path, and what the project's own tests use.
const RESERVED: [&str; 2] = ["PACKSWARM_CONFIG", "PACKSWARM_TEST_"];
/// What ends the variables that Kubernetes sets for a service, besides those that begin with `PORT_`.
const SERVICE_LINKS: [&str; 3] = ["SERVICE_HOST", "SERVICE_PORT", "PORT"];

/// An option given on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    /// The flag, such as `--data-dir`.
    pub(crate) name: &'static str,
    /// The option that it sets.
    pub(crate) path: &'static [&'static str],
    /// To what.
    pub(crate) value: Value,
}

/// An option that somebody set.
#[derive(Debug, Clone)]
struct Given {
    path: Vec<String>,
    value: Value,
    place: Place,
}

/// The options of a role: `flags` over `environment` over `file` over the defaults.
///
/// # Errors
/// If the file cannot be read, a key is unknown, or a value is not what its option takes.
pub(crate) fn load<R: RoleFile>(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: Vec<Flag>,
) -> Result<R, ConfigError> {
    let written = match file {
        Some(path) => {
            let read = fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?;
            from_text::<R>(path, &read)?
        }
        None => Vec::new(),
    };
    over(written, environment, flags)
}

/// The options of a role as a file with this text sets them, over the defaults.
///
/// # Errors
/// As [`load`].
pub(crate) fn read<R: RoleFile>(path: &Path, text: &str) -> Result<R, ConfigError> {
    over(from_text::<R>(path, text)?, &[], Vec::new())
}

fn over<R: RoleFile>(
    mut given: Vec<Given>,
    environment: &[(String, String)],
    flags: Vec<Flag>,
) -> Result<R, ConfigError> {
    let defaults = Table::try_from(R::defaults()).expect("the defaults can be written as TOML");
    given.extend(from_environment::<R>(environment, &defaults)?);
    given.extend(flags.into_iter().map(|flag| Given {
        path: flag.path.iter().map(ToString::to_string).collect(),
        value: flag.value,
        place: Place::Flag(flag.name),
    }));
    let mut table = defaults.clone();
    for option in given {
        // Alone first, so that an error is this option's.
        let mut alone = defaults.clone();
        set(&mut alone, &option.path, option.value.clone());
        if let Err(error) = alone.try_into::<R>() {
            let (place, key) = (option.place, option.path.join("."));
            return Err(ConfigError::Value {
                place,
                key,
                reason: one_line(error.message()),
            });
        }
        set(&mut table, &option.path, option.value);
    }
    table
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Together {
            reason: one_line(error.message()),
        })
}

/// The variables of this process that are ours.
///
/// # Errors
/// If one of them is not UTF-8.
pub(crate) fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with(keys::PREFIX).then_some((name, value))
    });
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(ConfigError::Value {
            key: name.clone(),
            place: Place::Environment(name),
            reason: "is not UTF-8".to_owned(),
        }),
    })
    .collect()
}

fn from_text<R: RoleFile>(path: &Path, text: &str) -> Result<Vec<Given>, ConfigError> {
    let table: Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
        reason: one_line(error.message()),
    })?;
    let mut reading = Reading {
        role: R::ROLE,
        sections: R::SECTIONS,
        place: Place::File(path.to_owned()),
        given: Vec::new(),
    };
    for (key, value) in table {
        reading.top(key, value)?;
    }
    Ok(reading.given)
}

/// A file on its way to a list of options.
struct Reading {
    role: &'static str,
    sections: &'static [SectionInfo],
    place: Place,
    given: Vec<Given>,
}

impl Reading {
    fn top(&mut self, key: String, value: Value) -> Result<(), ConfigError> {
        let above = self.sections.iter().filter(|section| section.name.is_empty());
        if has(above.flat_map(|section| section.options), &key) {
            self.take(vec![key], value);
            return Ok(());
        }
        let Some(section) = self.sections.iter().find(|section| section.name == key) else {
            return Err(self.unknown(key));
        };
        let Value::Table(table) = value else {
            return Err(ConfigError::NotATable {
                place: self.place.clone(),
                key,
            });
        };
        table
            .into_iter()
            .try_for_each(|(option, value)| self.option(section, option, value))
    }

    fn option(&mut self, section: &SectionInfo, key: String, value: Value) -> Result<(), ConfigError> {
        if has(section.options, &key) {
            self.take(vec![section.name.to_owned(), key], value);
            return Ok(());
        }
        let Value::Table(table) = value else {
            return Err(self.unknown(format!("{}.{key}", section.name)));
        };
        for (option, value) in table {
            if !has(section.named, &option) {
                return Err(self.unknown(format!("{}.{key}.{option}", section.name)));
            }
            self.take(vec![section.name.to_owned(), key.clone(), option], value);
        }
        Ok(())
    }

    fn take(&mut self, path: Vec<String>, value: Value) {
        self.given.push(Given {
            path,
            value,
            place: self.place.clone(),
        });
    }

    fn unknown(&self, key: String) -> ConfigError {
        let known = keys::leaves(self.sections).map(|(path, _)| path.join("."));
        let tables = self
            .sections
            .iter()
            .map(|section| section.name.to_owned())
            .filter(|name| !name.is_empty());
        let named = self.sections.iter().flat_map(|section| {
            // Within the table that was named, so that only the option is compared.
            let name = key.rsplit_once('.').map_or("", |(table, _)| table);
            section.named.iter().map(move |option| format!("{name}.{}", option.key))
        });
        let nearest = keys::nearest(
            &key,
            known
                .chain(tables)
                .chain(named.filter(|_| key.matches('.').count() > 1)),
        );
        ConfigError::Unknown {
            place: self.place.clone(),
            key,
            role: self.role,
            nearest,
        }
    }
}

fn from_environment<R: RoleFile>(variables: &[(String, String)], defaults: &Table) -> Result<Vec<Given>, ConfigError> {
    let links = service_links(variables);
    let mut given = Vec::new();
    for (name, text) in variables {
        let reserved = RESERVED.iter().any(|reserved| name.starts_with(reserved));
        // An empty variable is how a template leaves an option out.
        if reserved || links.contains(name.as_str()) || text.is_empty() {
            continue;
        }
        let found = keys::leaves(R::SECTIONS).find(|(path, _)| keys::variable(path) == *name);
        let place = Place::Environment(name.clone());
        let Some((path, _)) = found else {
            let known = keys::leaves(R::SECTIONS).map(|(path, _)| keys::variable(&path));
            let nearest = keys::nearest(name, known);
            return Err(ConfigError::Unknown {
                place,
                key: name.clone(),
                role: R::ROLE,
                nearest,
            });
        };
        let value = typed(get(defaults, &path), text).map_err(|reason| ConfigError::Value {
            place: place.clone(),
            key: path.join("."),
            reason,
        })?;
        given.push(Given {
            path: path.iter().map(ToString::to_string).collect(),
            value,
            place,
        });
    }
    Ok(given)
}

/// Kubernetes tells every pod of a namespace about its services: one called `packswarm-scheduler` makes variables such as
/// `PACKSWARM_SCHEDULER_PORT=tcp://10.0.0.1:7654`. They are nobody's mistake.
fn service_links(variables: &[(String, String)]) -> BTreeSet<&str> {
    let mut links = BTreeSet::new();
    for (name, _) in variables {
        let Some(service) = name.strip_suffix("SERVICE_HOST") else {
            continue;
        };
        let ours = variables
            .iter()
            .filter_map(|(name, _)| Some((name, name.strip_prefix(service)?)));
        let of_service = ours.filter(|(_, rest)| {
            SERVICE_LINKS.contains(rest) || rest.starts_with("PORT_") || rest.starts_with("SERVICE_PORT_")
        });
        links.extend(of_service.map(|(name, _)| name.as_str()));
    }
    links
}

/// A variable's text as the type that the option's default has; one without a default is a text.
fn typed(default: Option<&Value>, text: &str) -> Result<Value, String> {
    let as_toml = |kind: &str| {
        let parsed = toml::from_str::<Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"));
        parsed.ok_or_else(|| format!("`{text}` is not {kind}"))
    };
    match default {
        None | Some(Value::String(_) | Value::Datetime(_)) => Ok(Value::String(text.to_owned())),
        Some(Value::Integer(_) | Value::Float(_)) => as_toml("a number"),
        Some(Value::Boolean(_)) => as_toml("true or false"),
        Some(Value::Table(_)) => as_toml("a TOML table such as { key = \"value\" }"),
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
    }
}

fn has<'o>(options: impl IntoIterator<Item = &'o OptionInfo>, key: &str) -> bool {
    options.into_iter().any(|option| option.key == key)
}

fn get<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() {
        Some(value)
    } else {
        get(value.as_table()?, rest)
    }
}

fn set(table: &mut Table, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return;
    }
    let below = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(below) = below {
        set(below, rest, value);
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
