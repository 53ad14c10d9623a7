//! What `--include` names: globs over the paths of an artifact.
//!
//! The rules are those of `.gitignore`, because the CSI driver's and modctl's users know them: a pattern without a `/`
//! matches a name at any depth, one with a `/` is anchored at the top, `*` stays within a directory, `**` does not, and
//! whoever names a directory means all that is below it.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Most patterns; each costs time on every path.
const MAX_PATTERNS: usize = 1_024;

/// A choice of paths. The default takes all of them.
#[derive(Debug, Clone, Default)]
pub struct Include {
    chosen: Option<Chosen>,
}

#[derive(Debug, Clone)]
struct Chosen {
    patterns: Vec<String>,
    globs: GlobSet,
}

impl Include {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// What at least one of the patterns matches; everything, if there are none.
    ///
    /// # Errors
    /// A pattern that is no glob, or too many of them.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, IncludeError> {
        let mut kept = Vec::new();
        let mut globs = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            if kept.len() == MAX_PATTERNS {
                return Err(IncludeError::TooMany);
            }
            let anchored = anchored(pattern);
            for glob in [anchored.clone(), format!("{anchored}/**")] {
                let glob = GlobBuilder::new(&glob).literal_separator(true).build();
                globs.add(glob.map_err(|source| IncludeError::Glob {
                    pattern: pattern.to_owned(),
                    source,
                })?);
            }
            kept.push(anchored);
        }
        if kept.is_empty() {
            return Ok(Self::all());
        }
        kept.sort();
        kept.dedup();
        let globs = globs.build().map_err(|source| IncludeError::Glob {
            pattern: kept.join(" "),
            source,
        })?;
        Ok(Self {
            chosen: Some(Chosen { patterns: kept, globs }),
        })
    }

    /// Whether the path is wanted.
    pub fn matches(&self, path: &str) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| chosen.globs.is_match(path))
    }

    /// Whether something below the directory could be wanted, as far as the fixed beginnings of the patterns tell.
    /// Never false when a path below matches.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.chosen.as_ref().is_none_or(|chosen| {
            let possible = |pattern: &String| {
                let fixed = fixed_beginning(pattern);
                below.starts_with(fixed) || fixed.starts_with(&below)
            };
            chosen.globs.is_match(directory) || chosen.patterns.iter().any(possible)
        })
    }

    /// Whether everything is wanted.
    pub fn is_all(&self) -> bool {
        self.chosen.is_none()
    }

    /// The patterns as they were understood; the same choice gives the same text.
    pub(crate) fn fingerprint(&self) -> String {
        self.chosen
            .as_ref()
            .map(|chosen| chosen.patterns.join("\n"))
            .unwrap_or_default()
    }
}

/// A pattern as a glob over whole paths.
fn anchored(pattern: &str) -> String {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let trimmed = pattern.trim_end_matches('/');
    match trimmed.strip_prefix('/') {
        Some(top) => top.to_owned(),
        None if trimmed.contains('/') => trimmed.to_owned(),
        None => format!("**/{trimmed}"),
    }
}

/// The part of a glob before its first special character.
fn fixed_beginning(glob: &str) -> &str {
    &glob[..glob.find(['*', '?', '[', '{', '\\']).unwrap_or(glob.len())]
}

/// Why patterns cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// Not a glob.
    #[error("`{pattern}` is not a pattern that paths can be matched with")]
    Glob {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// More than 1,024.
    #[error("more than {MAX_PATTERNS} patterns to include; fewer and broader ones say the same")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rules_of_gitignore() {
        for (pattern, yes, no) in [
            ("*.json", vec!["a.json", "x/y/b.json"], vec!["a.jsonl", "json"]),
            ("x/*.json", vec!["x/a.json"], vec!["x/y/a.json", "a.json", "z/x/a.json"]),
            ("x/**/*.bin", vec!["x/a.bin", "x/y/z/a.bin"], vec!["a.bin"]),
            (
                "tokenizer",
                vec!["tokenizer", "tokenizer/a", "deep/tokenizer/b/c"],
                vec!["tokenizer.json"],
            ),
            ("src/", vec!["src/main.py"], vec!["source"]),
            ("/a.txt", vec!["a.txt"], vec!["x/a.txt"]),
            ("model-0000[12].bin", vec!["model-00001.bin"], vec!["model-00003.bin"]),
        ] {
            let include = Include::new([pattern]).unwrap();
            yes.iter()
                .for_each(|path| assert!(include.matches(path), "{pattern} takes {path}"));
            no.iter()
                .for_each(|path| assert!(!include.matches(path), "{pattern} leaves {path}"));
        }
        assert!(Include::all().matches("anything"));
        assert!(Include::new::<&str>([]).unwrap().is_all());
        assert!(matches!(Include::new(["a[z-b]"]), Err(IncludeError::Glob { .. })));
        assert!(matches!(Include::new(vec!["x"; 1_025]), Err(IncludeError::TooMany)));
    }

    #[test]
    fn knows_which_directories_cannot_hold_a_match() {
        let include = Include::new(["weights/*.bin"]).unwrap();
        assert!(include.may_match_below("weights"));
        assert!(!include.may_match_below("src"));
        assert!(!include.may_match_below("weights-old"));
        assert!(Include::new(["a/b/c.txt"]).unwrap().may_match_below("a"));
        assert!(Include::new(["*.bin"]).unwrap().may_match_below("anything"));
        assert!(Include::all().may_match_below("anything"));
    }
}
