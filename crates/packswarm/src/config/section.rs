//! How a table of options is written down once: its type, defaults, documentation and effect.

/// An option, as checks and documentation need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionInfo {
    /// Its key.
    pub(crate) key: &'static str,
    /// What it means, in which unit, and what it costs at worst.
    pub(crate) docs: &'static [&'static str],
    /// A value other than the default, as an environment variable would have it.
    pub(crate) example: &'static str,
}

/// A table of options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SectionInfo {
    /// Its name; empty for the options that stand above all tables.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) docs: &'static [&'static str],
    /// Its options.
    pub(crate) options: &'static [OptionInfo],
    /// What one of its tables may contain, where it has tables of names that the operator chooses (`[registry."HOST"]`).
    pub(crate) named: &'static [OptionInfo],
}

impl SectionInfo {
    /// The same options under a name.
    pub(crate) const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

/// Declares the options of one table.
///
/// `KEY => FIELD: TYPE, EXAMPLE;` maps an option to a field of a part's configuration: its default is the part's own, and
/// `apply` sets it. `KEY: TYPE = DEFAULT, EXAMPLE;` is for options that no single field stands for.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident in $config:ty;
        $(
            $(#[doc = $doc:literal])+
            $(#[serde($serde:meta)])?
            $key:ident => $($field:ident).+ : $ty:ty, $example:literal;
        )+
    ) => {
        section!(@type $(#[doc = $about])+ $name; $($(#[doc = $doc])+ $(#[serde($serde)])? $key: $ty, $example;)+);

        impl $name {
            /// The options as a configuration has them.
            pub(crate) fn of(config: &$config) -> Self {
                Self { $($key: config.$($field).+.clone(),)+ }
            }

            /// Sets them in a configuration.
            pub(crate) fn apply(self, config: &mut $config) {
                $(config.$($field).+ = self.$key;)+
            }
        }
    };
    (
        $(#[doc = $about:literal])+
        $name:ident;
        $(
            $(#[doc = $doc:literal])+
            $(#[serde($serde:meta)])?
            $key:ident: $ty:ty = $default:expr, $example:literal;
        )+
    ) => {
        section!(@type $(#[doc = $about])+ $name; $($(#[doc = $doc])+ $(#[serde($serde)])? $key: $ty, $example;)+);

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }
    };
    (
        @type
        $(#[doc = $about:literal])+
        $name:ident;
        $(
            $(#[doc = $doc:literal])+
            $(#[serde($serde:meta)])?
            $key:ident: $ty:ty, $example:literal;
        )+
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        pub(crate) struct $name {
            $(
                $(#[doc = $doc])+
                $(#[serde($serde)])?
                pub(crate) $key: $ty,
            )+
        }

        impl $name {
            /// What there is to say about the options.
            pub(crate) const INFO: $crate::config::section::SectionInfo = $crate::config::section::SectionInfo {
                name: "",
                docs: &[$($about),+],
                options: &[$($crate::config::section::OptionInfo {
                    key: stringify!($key),
                    docs: &[$($doc),+],
                    example: $example,
                }),+],
                named: &[],
            };
        }
    };
}

pub(crate) use section;
