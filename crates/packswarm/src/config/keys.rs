//! The keys that a role has, and the nearest one to a key that it does not have.

use super::section::{OptionInfo, SectionInfo};

/// What environment variables begin with.
pub(crate) const PREFIX: &str = "PACKSWARM_";

/// Every option of these tables with its place in the TOML; options of named tables are not among them.
pub(crate) fn leaves(sections: &[SectionInfo]) -> impl Iterator<Item = (Vec<&'static str>, &'static OptionInfo)> {
    sections.iter().flat_map(|section| {
        let name = section.name;
        section.options.iter().map(move |option| {
            let path = if name.is_empty() {
                vec![option.key]
            } else {
                vec![name, option.key]
            };
            (path, option)
        })
    })
}

/// The environment variable of an option: `[origin] fallback` is `PACKSWARM_ORIGIN_FALLBACK`.
pub(crate) fn variable(path: &[&str]) -> String {
    format!("{PREFIX}{}", path.join("_").to_uppercase())
}

/// Of `known`, the one that looks most like `given`.
pub(crate) fn nearest(given: &str, known: impl Iterator<Item = String>) -> String {
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(given, known));
    nearest.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_variable() {
        assert_eq!(variable(&["origin", "read_ahead"]), "PACKSWARM_ORIGIN_READ_AHEAD");
        assert_eq!(variable(&["listen"]), "PACKSWARM_LISTEN");
    }

    #[test]
    fn finds_what_was_meant() {
        let known = || {
            ["store.capacity", "store.low_water", "listen"]
                .map(str::to_owned)
                .into_iter()
        };
        assert_eq!(nearest("store.capcity", known()), "store.capacity");
        assert_eq!(nearest("lsiten", known()), "listen");
    }
}
